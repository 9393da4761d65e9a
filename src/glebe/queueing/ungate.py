"""Releases the pods of an admitted workload: all of a gang at once, each rank onto its node.

Pods are created with a scheduling gate. When as many exist as the gang needs, they get their node and lose the gate.
Pods that replace others of a running gang are released at once, onto the node of their rank or a freed one.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import is_conflict, is_not_found
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey, annotations_of, controller_of, is_deleting, labels_of
from glebe.kube.pods import has_ended
from glebe.queueing import convert, integrations, labels, topology, transitions
from glebe.queueing.jobs import job_of
from glebe.scheduling.model import PodSetAssignment

POD_INDEX = "queueing/pod-owner"
_PARALLEL_WRITES = 32
_RETRY = 0.2


def pod_owner_index(pod: Object) -> Iterable[str]:
    owner = controller_of(pod)
    return (str(owner["uid"]),) if owner and labels.POD_SET in labels_of(pod) else ()


@dataclass(frozen=True, slots=True)
class Release:
    """One pod to release; ``node`` is None when its flavor has no topology."""

    pod: Object
    node: str | None


def is_gated(pod: Object) -> bool:
    return any(g.get("name") == labels.GATE for g in pod["spec"].get("schedulingGates") or ())


def is_live(pod: Object) -> bool:
    return not has_ended(pod)


def plan(assignment: PodSetAssignment, pods: list[Object], expected: int, sent: dict[str, str | None]) -> list[Release]:
    """Which pods to release now, and whereto: pure.

    :param pods: all pods of the pod set.
    :param expected: how many the job keeps running now.
    :param sent: by pod uid, releases that the pods do not show yet.
    """
    live = [p for p in pods if is_live(p)]
    released = [p for p in live if not is_gated(p) or p["metadata"]["uid"] in sent]
    gated = [p for p in live if is_gated(p) and p["metadata"]["uid"] not in sent and not is_deleting(p)]
    if not gated:
        return []
    started = [p for p in released if not is_deleting(p)]
    if not started and len(gated) < min(expected, assignment.count):
        return []  # the gang is not whole yet
    slots = topology.ranks(assignment.nodes)
    if not slots:
        return [Release(p, None) for p in sorted(gated, key=_rank)]
    free: Counter[str | None] = Counter(slots)
    free.subtract(_node(p, sent) for p in released)
    out: list[Release] = []
    for pod in sorted(gated, key=_rank):
        rank = _index(pod)
        own = slots[rank] if rank is not None and rank < len(slots) else None
        node = own if own is not None else next((n for n in slots if free[n] > 0), None)
        if node is None:
            continue  # every slot is taken: one becomes free when a pod ends
        free[node] -= 1
        out.append(Release(pod, node))
    return out


def _node(pod: Object, sent: dict[str, str | None]) -> str | None:
    known = (pod["spec"].get("nodeSelector") or {}).get(labels.HOSTNAME)
    return pod["spec"].get("nodeName") or known or sent.get(pod["metadata"]["uid"])


def _index(pod: Object) -> int | None:
    text = annotations_of(pod).get(labels.COMPLETION_INDEX) or labels_of(pod).get(labels.COMPLETION_INDEX) or ""
    return int(text) if text.isdigit() else None


def _rank(pod: Object) -> tuple[int, str, str]:
    index = _index(pod)
    meta = pod["metadata"]
    return (index if index is not None else 1 << 30), meta.get("creationTimestamp", ""), meta["name"]


class Ungater:
    """Plans and writes releases, workload by workload."""

    def __init__(self, client: Client, informers: Informers, env: Env) -> None:
        self._client = client
        self._informers = informers
        self._cluster = client.cluster
        self._workloads = informers.get(r.WORKLOADS).store
        self._pods = informers.get(r.PODS, indexers={POD_INDEX: pod_owner_index}).store
        self._flavors = informers.get(r.RESOURCE_FLAVORS).store
        self._gate = asyncio.Semaphore(_PARALLEL_WRITES)
        self._sent: dict[ObjectKey, dict[str, str | None]] = {}

    async def reconcile(self, key: ObjectKey) -> Result | None:
        workload = self._workloads.get(key)
        found = job_of(workload, self._informers, self._cluster) if workload is not None else None
        if workload is None or found is None or not _may_run(workload):
            self._sent.pop(key, None)
            return None
        integration, job = found
        pods = self._pods.by_index(POD_INDEX, job["metadata"]["uid"])
        sent = self._settled(key, pods)
        releases: list[Release] = []
        for assignment in convert.assignments(workload):
            mine = [p for p in pods if labels_of(p).get(labels.POD_SET) == assignment.pod_set]
            expected = integrations.expected_pods(integration, job)
            for release in plan(assignment, mine, expected, sent):
                sent[release.pod["metadata"]["uid"]] = release.node
                releases.append(release)
        extra = self._flavor_additions(workload)
        # All are awaited before the key may be worked on again: a release that fails late must find `sent` as it is.
        writes = (self._release(workload, rel, extra, sent) for rel in releases)
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return None if all(outcomes) else Result(requeue_after=_RETRY)

    def _settled(self, key: ObjectKey, pods: list[Object]) -> dict[str, str | None]:
        """Releases sent that the store does not show yet."""
        sent = self._sent.setdefault(key, {})
        waiting = {p["metadata"]["uid"] for p in pods if is_gated(p)}
        for uid in [uid for uid in sent if uid not in waiting]:
            del sent[uid]
        return sent

    def _flavor_additions(self, workload: Object) -> dict[str, tuple[dict[str, str], list[dict[str, Any]]]]:
        """By pod set: node labels and tolerations of its flavors."""
        out: dict[str, tuple[dict[str, str], list[dict[str, Any]]]] = {}
        for assignment in convert.assignments(workload):
            selector: dict[str, str] = {}
            tolerations: list[dict[str, Any]] = []
            for name in dict.fromkeys(assignment.flavors.values()):
                spec = (self._flavors.get(ObjectKey(self._cluster, "", name)) or {}).get("spec") or {}
                selector.update(spec.get("nodeLabels") or {})
                tolerations += [t for t in spec.get("tolerations") or () if t not in tolerations]
            out[assignment.pod_set] = selector, tolerations
        return out

    async def _release(
        self,
        workload: Object,
        release: Release,
        extra: dict[str, tuple[dict[str, str], list[dict[str, Any]]]],
        sent: dict[str, str | None],
    ) -> bool:
        """Write one release; False when the pod was changed or removed meanwhile."""
        pod = release.pod
        spec, meta = pod["spec"], pod["metadata"]
        selector, tolerations = extra[labels_of(pod)[labels.POD_SET]]
        if release.node is not None:
            selector = {**selector, labels.HOSTNAME: release.node}
        change: dict[str, Any] = {
            "schedulingGates": [g for g in spec["schedulingGates"] if g.get("name") != labels.GATE] or None,
        }
        if selector:
            change["nodeSelector"] = selector
        missing = [t for t in tolerations if t not in (spec.get("tolerations") or ())]
        if missing:
            change["tolerations"] = [*(spec.get("tolerations") or ()), *missing]
        notes = {
            "resourceVersion": meta["resourceVersion"],
            "labels": {labels.CLUSTER_QUEUE: workload["status"]["admission"]["clusterQueue"]},
            "annotations": {labels.WORKLOAD: workload["metadata"]["name"]},
        }
        async with self._gate:
            try:
                patch = {"metadata": notes, "spec": change}
                await self._client.patch(r.PODS, meta["name"], patch, meta["namespace"])
            except Exception as error:
                sent.pop(meta["uid"], None)  # the store will tell whether it happened
                if not is_not_found(error) and not is_conflict(error):
                    raise
                return False
        return True


def _may_run(workload: Object) -> bool:
    return (
        convert.holds_quota(workload)
        and convert.is_active(workload)
        and not transitions.is_evicted(workload)
        and not is_deleting(workload)
    )


def build(client: Client, informers: Informers, env: Env) -> Controller:
    """Woken by workloads, by queued jobs and by their pods."""
    ungater = Ungater(client, informers, env)
    controller = Controller("queue-ungate", ungater.reconcile, env, workers=4)
    workloads = informers.get(r.WORKLOADS)
    pods = informers.get(r.PODS)
    by_job: dict[str, ObjectKey] = {}

    def own(workload: Object) -> Iterable[ObjectKey]:
        key = ObjectKey(client.cluster, workload["metadata"]["namespace"], workload["metadata"]["name"])
        by_job[labels_of(workload).get(labels.JOB_UID, "")] = key
        return (key,)

    def of_pod(pod: Object) -> Iterable[ObjectKey]:
        owner = controller_of(pod)
        key = by_job.get(str(owner["uid"])) if owner else None
        return (key,) if key is not None else ()

    def forget(old: Object | None, new: Object | None) -> None:
        if new is None and old is not None:
            by_job.pop(labels_of(old).get(labels.JOB_UID, ""), None)

    def of_job(job: Object) -> Iterable[ObjectKey]:
        key = by_job.get(job["metadata"]["uid"])
        return (key,) if key is not None else ()

    controller.watch(workloads, own)
    workloads.add_handler(forget)
    controller.watch(pods, of_pod, when=_pod_matters)
    controller.watch(informers.get(r.RESOURCE_FLAVORS), lambda _: ())
    for integration in integrations.INTEGRATIONS:
        controller.watch(informers.get(integration.resource), of_job)
    return controller


def _pod_matters(old: Object | None, new: Object | None) -> bool:
    """A gated pod, or one that frees its slot."""
    if any(labels.POD_SET in labels_of(p) for p in (old, new) if p is not None):
        if new is None:
            return True
        return is_gated(new) or not is_live(new)
    return False
