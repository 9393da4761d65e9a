"""One queue over all logical clusters: tenants' jobs wait for the host's quota and run on the host's machines."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from test_platform_embedded import job, until

from glebe.apiserver.store import MemoryStore
from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import Object, condition_is_true
from glebe.kube.transport import User
from glebe.node.fleet import parse_fleet
from glebe.platform.embedded import Platform, PlatformConfig

FLEET = """\
apiVersion: glebe.dev/v1alpha1
kind: Fleet
pools:
- {name: gpu, count: 2, gpu: {model: h100-sxm5-80gb, count: 8}, runTime: 100s, clusters: "*"}
"""


def platform() -> Platform:
    return Platform(PlatformConfig(parse_fleet(FLEET)), Env.seeded(1), MemoryStore())


async def cluster(p: Platform, name: str) -> Client:
    made = {"apiVersion": "glebe.dev/v1alpha1", "kind": "LogicalCluster", "metadata": {"name": name}}
    await p.client.raw("POST", "/clusters", body=made)
    return p.client.for_cluster(name)


async def open_to(p: Platform, names: str) -> None:
    note = {"metadata": {"annotations": {"glebe.dev/clusters": names}}}
    await p.client.patch(r.CLUSTER_QUEUES, "default", note)


async def local_queue(client: Client) -> None:
    async def there() -> bool:
        try:
            await client.create(
                r.LOCAL_QUEUES,
                {
                    "apiVersion": r.LOCAL_QUEUES.api_version,
                    "kind": "LocalQueue",
                    "metadata": {"name": "default", "namespace": "default"},
                    "spec": {"clusterQueue": "default"},
                },
            )
        except ApiError as error:
            return error.code != 404
        return True

    await until(there)


async def workloads(client: Client) -> dict[str, Object]:
    found = (await client.list_all(r.WORKLOADS)).items
    return {w["metadata"]["ownerReferences"][0]["name"]: w for w in found}


def told(workload: Object) -> Any:
    return workload["status"]["forecast"]


async def test_jobs_of_several_clusters_stand_in_one_queue() -> None:
    async with platform() as p:
        one, two = await cluster(p, "team-a"), await cluster(p, "team-b")
        await open_to(p, "team-*")
        await local_queue(one)
        await local_queue(two)
        await p.client.create(r.JOBS, job("own", 1))
        await asyncio.sleep(1)
        await one.create(r.JOBS, job("theirs", 1))
        await asyncio.sleep(1)
        await two.create(r.JOBS, job("late", 1))
        await asyncio.sleep(1)
        await one.create(r.JOBS, job("later", 2))
        await asyncio.sleep(15)
        mine, a, b = await workloads(p.client), await workloads(one), await workloads(two)
        assert (sorted(mine), sorted(a), sorted(b)) == (["own"], ["later", "theirs"], ["late"])
        assert condition_is_true(mine["own"], "Admitted")
        assert condition_is_true(a["theirs"], "PodsReady")
        nodes = {pod["spec"]["nodeName"] for c in (p.client, one) for pod in (await c.list_all(r.PODS)).items}
        assert len(nodes) == 2, "the same machine is not given twice, whichever cluster asks"
        assert not condition_is_true(b["late"], "QuotaReserved")
        assert (told(b["late"])["position"], told(a["later"])["position"]) == (1, 2)
        for text in (str(w["status"]) for w in (a["later"], b["late"], mine["own"])):
            assert "team-" not in text, "nobody learns of another cluster's objects"
        queue = await p.client.get(r.CLUSTER_QUEUES, "default")
        assert [queue["status"][k] for k in ("pendingWorkloads", "admittedWorkloads")] == [2, 2]
        theirs = await one.get(r.LOCAL_QUEUES, "default", "default")
        assert [theirs["status"][k] for k in ("pendingWorkloads", "admittedWorkloads")] == [1, 1]
        path = "/apis/visibility.kueue.x-k8s.io/v1beta2/namespaces/default/localqueues/default/pendingworkloads"
        seen = orjson.loads((await two.raw("GET", path)).body)["items"]
        assert [(i["positionInClusterQueue"], i["positionInLocalQueue"]) for i in seen] == [(0, 0)]
        with pytest.raises(ApiError):
            await one.raw("GET", "/apis/visibility.kueue.x-k8s.io/v1beta2/clusterqueues/default/pendingworkloads")
        await asyncio.sleep(400)
        assert all(condition_is_true(w, "Finished") for w in (await workloads(one)).values())
        assert all(condition_is_true(w, "Finished") for w in (await workloads(two)).values())


async def test_a_cluster_that_no_queue_is_open_to_is_left_alone() -> None:
    async with platform() as p:
        other, own = await cluster(p, "other"), await cluster(p, "team-a")
        await open_to(p, "team-a")
        await local_queue(own)
        await asyncio.sleep(5)
        made = await other.create(r.JOBS, job("free", 1))
        assert not made["spec"].get("suspend"), "a tenant without the queue may label his jobs as he likes"
        with pytest.raises(ApiError) as missing:
            await other.list(r.WORKLOADS)
        assert missing.value.code == 404
        await own.create(r.JOBS, job("queued", 1))
        await asyncio.sleep(5)
        assert condition_is_true((await workloads(own))["queued"], "Admitted")
        await open_to(p, "nobody")
        await asyncio.sleep(5)
        await own.create(r.JOBS, job("after", 1))
        await asyncio.sleep(5)
        assert list(await workloads(own)) == ["queued"]


async def test_a_tenants_own_kinds_of_these_names_are_his_own() -> None:
    async with platform() as p:
        own = await cluster(p, "team-a")
        definition = await p.client.get(r.CUSTOM_RESOURCE_DEFINITIONS, "workloads.kueue.x-k8s.io")
        meta = {"name": definition["metadata"]["name"]}
        spec = {**definition["spec"], "conversion": {"strategy": "None"}}
        await own.create(r.CUSTOM_RESOURCE_DEFINITIONS, {**definition, "metadata": meta, "spec": spec, "status": {}})
        await open_to(p, "team-a")
        await asyncio.sleep(10)
        with pytest.raises(ApiError):
            await own.get(r.CUSTOM_RESOURCE_DEFINITIONS, "localqueues.kueue.x-k8s.io")
        made = await own.create(r.JOBS, job("theirs", 1))
        assert not made["spec"].get("suspend")


async def test_tenants_do_not_write_what_the_queue_believes() -> None:
    async with platform() as p:
        admin = User("admin", ("system:masters", "system:authenticated"))
        await cluster(p, "team-a")
        own = Client(InProcessTransport(p.server.handle, admin), cluster="team-a")
        await open_to(p, "team-a")
        await local_queue(own)
        await own.create(r.JOBS, job("blocks", 2))
        await asyncio.sleep(2)
        await own.create(r.JOBS, job("waits", 2))
        await asyncio.sleep(5)
        waits = (await workloads(own))["waits"]
        name, space = waits["metadata"]["name"], "default"
        for change in (
            {"metadata": {"annotations": {"glebe.dev/submitted-at": "2020-01-01T00:00:00Z"}}},
            {"spec": {"priority": 1000000}},
            {"metadata": {"labels": {"x": "y"}}},
        ):
            with pytest.raises(ApiError) as refused:
                await own.patch(r.WORKLOADS, name, change, space)
            assert refused.value.code == 403
        forged = {"status": {"admission": {"clusterQueue": "default", "podSetAssignments": []}}}
        with pytest.raises(ApiError, match="written by the platform's queue only"):
            await own.patch(r.WORKLOADS, name, forged, space, subresource="status")
        with pytest.raises(ApiError, match="Workloads are made by the platform"):
            await own.create(r.WORKLOADS, {**waits, "metadata": {"name": "mine", "namespace": space}, "status": {}})
        with pytest.raises(ApiError, match="only the platform changes it"):
            await own.delete(r.CUSTOM_RESOURCE_DEFINITIONS, "workloads.kueue.x-k8s.io")
        await own.patch(r.WORKLOADS, name, {"spec": {"active": False}}, space)
        await asyncio.sleep(3)
        assert (await workloads(own))["waits"]["spec"]["active"] is False


async def test_classes_of_the_host_are_for_whom_they_are_open_to() -> None:
    async with platform() as p:
        own = await cluster(p, "team-a")
        await open_to(p, "team-a")
        await local_queue(own)
        urgent: Object = {
            "apiVersion": r.WORKLOAD_PRIORITY_CLASSES.api_version,
            "kind": "WorkloadPriorityClass",
            "metadata": {"name": "urgent"},
            "value": 1000,
        }
        await p.client.create(r.WORKLOAD_PRIORITY_CLASSES, urgent)
        made = job("vip", 1)
        made["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] = "urgent"
        with pytest.raises(ApiError, match="urgent"):
            await own.create(r.JOBS, made)
        note = {"metadata": {"annotations": {"glebe.dev/clusters": "team-a"}}}
        await p.client.patch(r.WORKLOAD_PRIORITY_CLASSES, "urgent", note)
        await own.create(r.JOBS, made)
        await asyncio.sleep(3)
        assert (await workloads(own))["vip"]["spec"]["priority"] == 1000
