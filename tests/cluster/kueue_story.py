"""Two queues of a cohort, as a user of Kueue has them, on whichever host: borrowing, reclaim, an approval."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import yaml

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object, condition_is_true, get_condition

FLEET = """\
apiVersion: glebe.dev/v1alpha1
kind: Fleet
pools:
- {name: gpu, count: 2, gpu: {model: h100-sxm5-80gb, count: 8}}
"""
GROUPS = """[{coveredResources: [nvidia.com/gpu],
  flavors: [{name: any, resources: [{name: nvidia.com/gpu, nominalQuota: 8}]}]}]"""
MANIFESTS = """\
apiVersion: kueue.x-k8s.io/v1beta2
kind: ResourceFlavor
metadata: {name: any}
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: AdmissionCheck
metadata: {name: budget}
spec: {controllerName: glebe.dev/approval}
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: ClusterQueue
metadata: {name: a}
spec:
  cohortName: all
  namespaceSelector: {}
  preemption: {reclaimWithinCohort: Any}
  resourceGroups: GROUPS
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: ClusterQueue
metadata: {name: b}
spec:
  cohortName: all
  namespaceSelector: {}
  resourceGroups: GROUPS
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: LocalQueue
metadata: {name: a, namespace: default}
spec: {clusterQueue: a}
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: LocalQueue
metadata: {name: b, namespace: default}
spec: {clusterQueue: b}
"""
KINDS = {x.kind: x for x in (r.RESOURCE_FLAVORS, r.ADMISSION_CHECKS, r.CLUSTER_QUEUES, r.LOCAL_QUEUES)}
_LIMIT = 90.0


async def until(what: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(_LIMIT):
        while not (value := await what()):  # noqa: ASYNC110 - the story is seen from outside
            await asyncio.sleep(0.2)
    return value


def manifests() -> list[Object]:
    return list(yaml.safe_load_all(MANIFESTS.replace("GROUPS", GROUPS)))


def job(name: str, queue: str, pods: int) -> Object:
    container = {"name": "c", "image": "x", "resources": {"limits": {"nvidia.com/gpu": "8"}}}
    spec = {"restartPolicy": "Never", "containers": [container]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": "default", "labels": {"kueue.x-k8s.io/queue-name": queue}},
        "spec": {
            "parallelism": pods,
            "completions": pods,
            "template": {"metadata": {"annotations": {"sim.glebe.dev/run-time": "600s"}}, "spec": spec},
        },
    }


async def submit(client: Client, obj: Object) -> None:
    """Once the rules of admission are in force: new policies take a moment."""

    async def in_force() -> bool:
        return bool((await client.create(r.JOBS, obj, dry_run=True))["spec"].get("suspend"))

    await until(in_force)
    await client.create(r.JOBS, obj)


async def workload(client: Client, name: str) -> Object | None:
    for found in (await client.list(r.WORKLOADS, "default")).items:
        if any(owner["name"] == name for owner in found["metadata"].get("ownerReferences") or ()):
            return found
    return None


async def has(client: Client, name: str, kind: str) -> Object | None:
    found = await workload(client, name)
    return found if found is not None and condition_is_true(found, kind) else None


async def reason(client: Client, name: str, kind: str) -> str:
    condition = get_condition(await workload(client, name) or {"status": {}}, kind) or {}
    return str(condition.get("reason", ""))


async def apply(client: Client) -> None:
    for obj in manifests():
        await client.apply(KINDS[obj["kind"]], obj, field_manager="kubectl", force=True)


async def approve(client: Client, name: str) -> None:
    async def said() -> bool:
        found = await workload(client, name)
        assert found is not None
        checks = found["status"]["admissionChecks"]
        checks[0] |= {"state": "Ready", "message": "as agreed"}
        try:
            await client.update_status(r.WORKLOADS, found)
        except ApiError as error:
            return error.code != 409
        return True

    await until(said)


async def story(client: Client) -> None:
    """Borrow, give back, be asked."""
    await apply(client)
    await submit(client, job("borrows", "b", 2))
    await until(lambda: has(client, "borrows", "PodsReady"))
    queue = await until(lambda: _borrowing(client))
    assert queue["status"]["admittedWorkloads"] == 1
    await submit(client, job("reclaims", "a", 1))
    await until(lambda: has(client, "reclaims", "PodsReady"))
    stopped = await workload(client, "borrows")
    assert stopped is not None
    assert (get_condition(stopped, "Evicted") or {})["reason"] == "Preempted"
    assert (get_condition(stopped, "Preempted") or {})["reason"] == "InCohortReclamation"
    assert stopped["status"]["schedulingStats"]["evictions"][0]["reason"] == "Preempted"
    assert not condition_is_true(stopped, "QuotaReserved")
    checks = {"spec": {"admissionChecksStrategy": {"admissionChecks": [{"name": "budget"}]}}}
    await client.patch(r.CLUSTER_QUEUES, "b", checks)
    await client.delete(r.JOBS, "borrows", "default")
    await submit(client, job("asks", "b", 1))
    held = await until(lambda: has(client, "asks", "QuotaReserved"))
    assert not condition_is_true(held, "Admitted")
    await until(lambda: _asked(client))
    await approve(client, "asks")
    await until(lambda: has(client, "asks", "PodsReady"))


async def _borrowing(client: Client) -> Object | None:
    found = await client.get(r.CLUSTER_QUEUES, "b")
    usage = (found.get("status") or {}).get("flavorsUsage") or []
    borrowed = usage and usage[0]["resources"][0]["borrowed"]
    return found if str(borrowed) == "8" else None


async def _asked(client: Client) -> bool:
    return await reason(client, "asks", "Admitted") == "UnsatisfiedAdmissionChecks"
