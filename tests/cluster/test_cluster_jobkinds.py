"""Kinds of jobs and queued pods on a real Kubernetes: policies hold them, its scheduler binds what is released."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kube_peer import assets, real_kubernetes
from test_cluster_queue import controllers, fleet, install, queues, running, until

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.objects import Object, condition_is_true
from glebe.kube.resources import Resource

pytestmark = [pytest.mark.cluster, pytest.mark.realtime]

JOBSETS = Resource("jobset.x-k8s.io", "v1alpha2", "jobsets", "JobSet")
QUEUE = {"kueue.x-k8s.io/queue-name": "main"}


def crd() -> Object:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": JOBSETS.version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    meta = {"name": JOBSETS.group_resource, "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"}}
    names = {"plural": JOBSETS.plural, "kind": "JobSet", "singular": "jobset"}
    versions = [{**version, "subresources": {"status": {}}}]
    spec = {"group": JOBSETS.group, "scope": "Namespaced", "names": names, "versions": versions}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": meta,
        "spec": spec,
    }


def pod_spec(gpus: int) -> dict[str, Any]:
    asked = {"requests": {"cpu": "1"}, "limits": {"nvidia.com/gpu": str(gpus)}}
    return {"restartPolicy": "Always", "containers": [{"name": "m", "image": "i", "resources": asked}]}


async def workload(client: Client, begins: str, kind: str) -> Object:
    async def look() -> Object | None:
        for found in (await client.list(r.WORKLOADS, "default")).items:
            if found["metadata"]["name"].startswith(begins) and condition_is_true(found, kind):
                return found
        return None

    return await until(look)  # type: ignore[no-any-return]


async def bound(client: Client, selector: str, count: int) -> list[Object]:
    async def look() -> list[Object] | None:
        found = (await client.list(r.PODS, "default", label_selector=selector)).items
        return found if len([p for p in found if p["spec"].get("nodeName")]) == count else None

    return await until(look)  # type: ignore[no-any-return]


async def jobset(client: Client) -> None:
    template = {"spec": {"template": {"spec": {**pod_spec(8), "restartPolicy": "Never"}}}}
    spec = {"replicatedJobs": [{"name": "w", "replicas": 2, "template": template}]}
    meta = {"name": "set", "namespace": "default", "labels": QUEUE}
    made = {"apiVersion": JOBSETS.api_version, "kind": "JobSet", "metadata": meta, "spec": spec}

    async def suspended() -> bool:
        return bool((await client.create(JOBSETS, made, dry_run=True))["spec"].get("suspend"))

    await until(suspended)
    await client.create(JOBSETS, made)
    await workload(client, "jobset-set", "Admitted")

    async def started() -> Object | None:
        found = await client.get(JOBSETS, "set", "default")
        return None if found["spec"]["suspend"] else found

    found = await until(started)
    pods = found["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert pods["nodeSelector"] == {"pool": "gpu"}
    assert pods["schedulingGates"] == [{"name": "kueue.x-k8s.io/topology"}]
    done = {"conditions": [{"type": "Completed", "status": "True", "message": "ok"}]}
    await client.update_status(JOBSETS, {**found, "status": done})
    await workload(client, "jobset-set", "Finished")


async def group(client: Client) -> None:
    for n in range(2):
        notes = {"kueue.x-k8s.io/pod-group-total-count": "2"}
        labels = {**QUEUE, "kueue.x-k8s.io/pod-group-name": "gang"}
        meta = {"name": f"g-{n}", "namespace": "default", "labels": labels, "annotations": notes}
        made = await client.create(r.PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod_spec(8)})
        assert {g["name"] for g in made["spec"]["schedulingGates"]} >= {"kueue.x-k8s.io/admission"}
    await bound(client, "kueue.x-k8s.io/pod-group-name=gang", 2)
    for n in range(2):
        await client.patch(r.PODS, f"g-{n}", {"status": {"phase": "Succeeded"}}, "default", subresource="status")
    await workload(client, "gang", "Finished")

    async def unpinned() -> bool:
        found = (await client.list(r.PODS, "default", label_selector="kueue.x-k8s.io/pod-group-name=gang")).items
        return not any(p["metadata"].get("finalizers") for p in found)

    await until(unpinned)


async def stateful(client: Client) -> None:
    template = {"metadata": {"labels": {"app": "db"}}, "spec": pod_spec(4)}
    spec: dict[str, Any] = {
        "replicas": 2,
        "serviceName": "db",
        "selector": {"matchLabels": {"app": "db"}},
        "template": template,
    }
    spec["podManagementPolicy"] = "Parallel"  # nobody makes pods ready here
    meta = {"name": "db", "namespace": "default", "labels": QUEUE}
    await client.create(
        r.STATEFUL_SETS, {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": meta, "spec": spec}
    )
    await workload(client, "statefulset-db", "Admitted")
    pods = await bound(client, "app=db", 2)
    assert {p["spec"]["nodeSelector"]["pool"] for p in pods} == {"gpu"}


async def test_kinds_and_pods_on_real_kubernetes(tmp_path: Path) -> None:
    folder = assets()
    with real_kubernetes(tmp_path) as peer, controllers(peer, folder, tmp_path, "statefulset-controller"):
        client, env = peer.client(), Env.system()
        try:
            await peer.ready(client)
            await install(client)
            await client.create(r.CUSTOM_RESOURCE_DEFINITIONS, crd())
            await fleet(client, 4)
            async with running(client, env):
                await queues(client, 32)
                await jobset(client)
                await group(client)
                await stateful(client)
        finally:
            await client.close()
