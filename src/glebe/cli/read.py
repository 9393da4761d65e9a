"""What the verbs read from the API before they print it."""

from __future__ import annotations

import asyncio
from typing import Any

from glebe.cli.exits import Exit, Failure
from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object, labels_of
from glebe.kube.resources import Resource
from glebe.platform.jobspec import JOB_NAME_LABEL, RANK_ANNOTATION
from glebe.platform.nodeview import node_views
from glebe.platform.views import JobView, job_view, job_views


async def items(
    client: Client, resource: Resource, namespace: str | None = None, *, label_selector: str = ""
) -> list[Object]:
    """All objects of a collection, page by page."""
    return list((await client.list_all(resource, namespace, label_selector=label_selector)).items)


async def read_jobs(client: Client, namespace: str | None) -> list[JobView]:
    """Every job of one namespace (or of all), oldest first."""
    jobs, workloads, pods = await asyncio.gather(
        items(client, r.JOBS, namespace),
        items(client, r.WORKLOADS, namespace),
        items(client, r.PODS, namespace, label_selector=JOB_NAME_LABEL),
    )
    return job_views(jobs, workloads, pods)


async def read_job(client: Client, namespace: str, name: str) -> tuple[JobView, Object, Object | None, list[Object]]:
    """One Job with its view, its Workload and its pods.

    :raises Failure: when there is no such Job, naming where to look.
    """
    try:
        job = await client.get(r.JOBS, name, namespace)
    except ApiError as error:
        if error.code != 404:
            raise
        raise Failure(
            Exit.NOT_FOUND,
            f'there is no job "{name}" in namespace {namespace}',
            "glebe jobs -A shows all jobs; -n NAMESPACE chooses another namespace",
        ) from error
    workloads = await items(client, r.WORKLOADS, namespace)
    workload = next((w for w in workloads if _owned_by(w, job["metadata"]["uid"])), None)
    pods = await job_pods(client, namespace, name)
    return job_view(job, workload, pods), job, workload, pods


async def require_namespace(client: Client, name: str) -> None:
    """An empty answer for a namespace that does not exist would mislead.

    :raises Failure: when there is no such namespace.
    """
    try:
        await client.get(r.NAMESPACES, name)
    except ApiError as error:
        if error.code == 404:
            hint = "kubectl get namespaces shows all of them"
            raise Failure(Exit.NOT_FOUND, f'there is no namespace "{name}"', hint) from error
        if error.code != 403:  # who may not read it may still have jobs in it
            raise


async def require_queue(client: Client, name: str, namespace: str | None) -> None:
    """:raises Failure: when no LocalQueue (of ``namespace``) and no ClusterQueue is called ``name``."""
    found = await asyncio.gather(items(client, r.LOCAL_QUEUES, namespace), items(client, r.CLUSTER_QUEUES))
    known = sorted({queue["metadata"]["name"] for part in found for queue in part})
    if name not in known:
        hint = f"queues are: {', '.join(known)}" if known else "make a ClusterQueue and a LocalQueue first"
        raise Failure(Exit.NOT_FOUND, f'there is no queue "{name}"', hint)


async def job_pods(client: Client, namespace: str, name: str) -> list[Object]:
    """The pods of one Job, by rank, the newest first within a rank."""
    pods = await items(client, r.PODS, namespace, label_selector=f"{JOB_NAME_LABEL}={name}")
    pods.sort(key=lambda pod: pod["metadata"].get("creationTimestamp", ""), reverse=True)
    return sorted(pods, key=rank_of)


def rank_of(pod: Object) -> int:
    """The completion index of a pod of an Indexed Job; 0 for others."""
    return int(labels_of(pod).get(RANK_ANNOTATION, "0"))


def has_started(pod: Object) -> bool:
    """Whether a container of the pod runs or has run: only then is there a log."""
    return any(
        "running" in (status.get("state") or {}) or "terminated" in (status.get("state") or {})
        for status in (pod.get("status") or {}).get("containerStatuses") or ()
    )


def failures_of(pod: Object) -> list[dict[str, Any]]:
    """How a pod that failed ended: its containers that did not exit with 0, else what the pod itself says."""
    status = pod.get("status") or {}
    if status.get("phase") != "Failed":
        return []
    who = {"pod": pod["metadata"]["name"], "rank": rank_of(pod), "node": pod["spec"].get("nodeName", "")}
    ended = [(c.get("state") or {}).get("terminated") for c in status.get("containerStatuses") or ()]
    found = [
        who | {"exit_code": end["exitCode"], "reason": end.get("reason", ""), "message": end.get("message", "")}
        for end in ended
        if end and end.get("exitCode")
    ]
    said = {"exit_code": None, "reason": status.get("reason", ""), "message": status.get("message", "")}
    return found or [who | said]


async def fleet_summary(client: Client) -> str:
    """``96 of 128 GPUs are free.``"""
    nodes, pods = await asyncio.gather(items(client, r.NODES), items(client, r.PODS))
    views = [view for view in node_views(nodes, pods) if view.state == "Ready"]
    total = sum(view.gpus for view in views)
    return f"{total - sum(view.gpus_used for view in views)} of {total} GPUs are free."


def _owned_by(obj: Object, uid: str) -> bool:
    return any(reference.get("uid") == uid for reference in obj["metadata"].get("ownerReferences") or ())
