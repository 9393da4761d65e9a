"""Nodes of running gangs fail, under virtual time: others take over, and everybody else runs on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from test_queueing_story import Cluster, admitted, cluster, job

from glebe.kube import resources as r
from glebe.kube.objects import Object, condition_is_true, get_condition, is_deleting
from glebe.queueing import labels
from glebe.queueing.configuration import parsed
from glebe.queueing.life.recovery import strays
from glebe.queueing.life.steps import Facts, next_step
from glebe.queueing.picture import topology
from glebe.queueing.picture.nodeuse import NodeUse

PREFIX, HOST = "kueue.x-k8s.io/", "kubernetes.io/hostname"
STARTED = ("QuotaReserved", "Admitted", "PodsReady")


def ready(workload: Object) -> bool:
    return condition_is_true(workload, "PodsReady")


def nodes_of(workload: Object) -> list[str]:
    (assignment,) = workload["status"]["admission"]["podSetAssignments"]
    return topology.ranks(topology.decode(assignment["topologyAssignment"]))


async def running(c: Cluster, name: str) -> dict[int, Object]:
    """Its pods that live, by rank."""
    found = [p for p in await c.pods("team-a", name) if p["status"].get("phase") == "Running" and not is_deleting(p)]
    return {int(p["metadata"]["labels"][labels.COMPLETION_INDEX]): p for p in found}


def evictions(workload: Object) -> list[Any]:
    return (workload["status"].get("schedulingStats") or {}).get("evictions") or []


async def repaired(c: Cluster, name: str, pods: int, without: str) -> Object:
    """The gang's workload, when all of its pods run again and none on the failed node."""

    async def look() -> Object | None:
        alive = await running(c, name)
        if len(alive) < pods or any(p["spec"]["nodeName"] == without for p in alive.values()):
            return None
        workload = await c.workload(name, "team-a")
        return workload if ready(workload) and without not in nodes_of(workload) else None

    return await c.until(look, 900)  # type: ignore[no-any-return]


async def start(c: Cluster, pods: int, gpus: int = 8, seconds: int = 5000, **template: str) -> tuple[Object, list[str]]:
    wanted = job("gang", "team-a", pods, gpus, seconds)
    wanted["spec"]["template"]["metadata"]["annotations"].update(
        {f"kueue.x-k8s.io/{name.replace('_', '-')}": value for name, value in template.items()}
    )
    await c.client.create(r.JOBS, wanted)
    workload = await c.wait_workload("gang", "team-a", ready)
    return workload, nodes_of(workload)


@pytest.mark.parametrize("how", ["silent", "deleted", "tainted", "drained"])
async def test_one_pod_moves_and_the_others_run_on(how: str) -> None:
    async with cluster() as c:
        before, ranks = await start(c, 3)
        pods = await running(c, "gang")
        failed = ranks[1]
        if how == "silent":
            c.nodes.fail_node(failed)
            await c.mark_not_ready(failed)
        elif how == "deleted":
            c.nodes.fail_node(failed)
            await c.client.delete(r.NODES, failed)
        elif how == "tainted":
            taint = {"key": "repair", "value": "yes", "effect": "NoSchedule"}
            await c.client.patch(r.NODES, failed, {"spec": {"taints": [taint]}})
        else:
            await c.client.patch(r.NODES, failed, {"spec": {"unschedulable": True}})
        if how in ("tainted", "drained"):
            await asyncio.sleep(100)
            assert nodes_of(await c.workload("gang", "team-a")) == ranks  # who runs there is left alone
            await c.client.delete(r.PODS, pods[1]["metadata"]["name"], "team-a")
        after = await repaired(c, "gang", 3, failed)
        now = await running(c, "gang")
        assert [nodes_of(after)[i] for i in (0, 2)] == [ranks[0], ranks[2]]
        for rank in (0, 2):
            assert now[rank]["metadata"]["uid"] == pods[rank]["metadata"]["uid"]
            assert now[rank]["status"].get("startTime") == pods[rank]["status"].get("startTime")
        assert now[1]["spec"]["nodeName"] == nodes_of(after)[1]
        assert evictions(after) == []
        assert "unhealthyNodes" not in after["status"]
        said = [e for e in (await c.client.list(r.EVENTS, "team-a")).items if e["reason"] == "NodeReplaced"]
        assert {e["message"] for e in said} == {f"{failed} failed; its pods go to {nodes_of(after)[1]}"}
        since = (get_condition(before, "Admitted") or {})["lastTransitionTime"]
        assert (get_condition(after, "Admitted") or {})["lastTransitionTime"] == since


async def test_two_nodes_that_fail_at_once_are_both_replaced() -> None:
    async with cluster(nodes=6) as c:
        _, ranks = await start(c, 3)
        pods = await running(c, "gang")
        for node in ranks[:2]:
            c.nodes.fail_node(node)
            await c.client.delete(r.NODES, node)
        await repaired(c, "gang", 3, ranks[0])
        after = await repaired(c, "gang", 3, ranks[1])
        assert evictions(after) == []
        assert (await running(c, "gang"))[2]["metadata"]["uid"] == pods[2]["metadata"]["uid"]


async def test_without_another_node_the_gang_goes_back_to_the_queue_at_once() -> None:
    async with cluster() as c:
        _, ranks = await start(c, 2, podset_required_topology="topology.glebe.dev/rack")
        c.nodes.fail_node(ranks[0])  # its rack has only two nodes
        await c.client.delete(r.NODES, ranks[0])
        evicted = await c.wait_workload("gang", "team-a", evictions)
        (counted,) = evictions(evicted)
        assert (counted["reason"], counted["count"]) == ("NodeFailures", 1)
        condition = get_condition(evicted, "Evicted") or {}
        assert "there was no replacement for a failed node" in condition["message"]
        again = await c.wait_workload("gang", "team-a", lambda w: admitted(w) and ready(w), 900)
        assert not set(nodes_of(again)) & set(ranks)
        assert "unhealthyNodes" not in again["status"]


async def test_a_node_that_comes_back_in_time_has_not_failed() -> None:
    async with cluster() as c:
        _, ranks = await start(c, 2)
        pods = await running(c, "gang")
        c.nodes.fail_node(ranks[0], crash=False)
        await c.mark_not_ready(ranks[0])
        await asyncio.sleep(10)
        c.nodes.recover_node(ranks[0])
        await asyncio.sleep(120)
        after = await c.workload("gang", "team-a")
        assert nodes_of(after) == ranks
        assert evictions(after) == []
        assert {p["metadata"]["uid"] for p in (await running(c, "gang")).values()} == {
            p["metadata"]["uid"] for p in pods.values()
        }


async def test_an_elastic_job_waits_rather_than_leave_its_required_host() -> None:
    async with cluster(nodes=6, gpus=16) as c:
        wanted = job("gang", "team-a", 2, 8, 5000)
        wanted["metadata"]["annotations"]["kueue.x-k8s.io/elastic-job"] = "true"
        wanted["spec"]["template"]["metadata"]["annotations"][f"{PREFIX}podset-required-topology"] = HOST
        await c.client.create(r.JOBS, wanted)
        first = nodes_of(await c.wait_workload("gang", "team-a", ready))
        pods = await running(c, "gang")
        await c.client.patch(r.JOBS, "gang", {"spec": {"parallelism": 3, "completions": 3}}, "team-a")
        await asyncio.sleep(60)
        assert len(await running(c, "gang")) == 2  # the third does not fit on their host, and none moves
        await c.client.patch(r.JOBS, "gang", {"spec": {"parallelism": 2, "completions": 2}}, "team-a")
        await asyncio.sleep(30)
        now = await running(c, "gang")
        assert {p["metadata"]["uid"] for p in now.values()} == {p["metadata"]["uid"] for p in pods.values()}
        assert {p["spec"]["nodeName"] for p in now.values()} == set(first)


async def test_a_slice_that_grew_outlives_a_node_of_the_first() -> None:
    async with cluster(nodes=6) as c:
        wanted = job("gang", "team-a", 2, 8, 5000)
        wanted["metadata"]["annotations"]["kueue.x-k8s.io/elastic-job"] = "true"
        await c.client.create(r.JOBS, wanted)
        first = nodes_of(await c.wait_workload("gang", "team-a", ready))
        pods = await running(c, "gang")
        await c.client.patch(r.JOBS, "gang", {"spec": {"parallelism": 3, "completions": 3}}, "team-a")

        async def grown() -> Object | None:
            live = [
                w for w in (await c.client.list(r.WORKLOADS, "team-a")).items if not condition_is_true(w, "Finished")
            ]
            return live[0] if len(live) == 1 and len(await running(c, "gang")) == 3 else None

        grew = await c.until(grown)
        assert nodes_of(grew)[:2] == first
        await c.client.patch(r.NODES, first[0], {"spec": {"unschedulable": True}})
        await asyncio.sleep(40)
        await c.client.delete(r.PODS, pods[0]["metadata"]["name"], "team-a")

        async def mended() -> bool:
            now = await running(c, "gang")
            return len(now) == 3 and now[0]["spec"]["nodeName"] != first[0]

        await c.until(mended)
        now = await running(c, "gang")
        assert now[1]["metadata"]["uid"] == pods[1]["metadata"]["uid"]
        assert nodes_of(await grown() or {})[1:] == nodes_of(grew)[1:]


async def test_nodes_are_called_by_their_hostname_label() -> None:
    async with cluster() as c:

        async def all_there() -> bool:
            return len((await c.client.list(r.NODES)).items) == 4

        await c.until(all_there)
        for i in range(4):
            change = {"metadata": {"labels": {labels.HOSTNAME: f"host-{i}"}}}
            await c.client.patch(r.NODES, f"gpu-{i:02d}", change)
        _, ranks = await start(c, 3)
        assert all(name.startswith("host-") for name in ranks)
        failed = next(p["spec"]["nodeName"] for rank, p in (await running(c, "gang")).items() if rank == 1)
        c.nodes.fail_node(failed)
        await c.client.delete(r.NODES, failed)
        after = await repaired(c, "gang", 3, failed)
        assert [nodes_of(after)[i] for i in (0, 2)] == [ranks[0], ranks[2]]
        assert nodes_of(after)[1] != ranks[1]


def test_pods_of_a_slice_are_counted_by_the_one_that_took_its_place() -> None:
    use = NodeUse()
    owner = [{"controller": True, "uid": "job", "kind": "Job", "name": "j"}]
    meta = {"name": "p", "namespace": "n", "ownerReferences": owner, "annotations": {labels.WORKLOAD: "old"}}
    requests = {"requests": {"nvidia.com/gpu": 4}}
    pod = {"metadata": meta, "spec": {"nodeName": "a", "containers": [{"resources": requests}]}}
    use.pod_changed(None, pod)
    assert use.other_use("a") == {"nvidia.com/gpu": 4, "pods": 1}
    for slice_of in ("old", "new"):
        for known in ("job", f"/n/{slice_of}"):
            use.set_placed(known, True)
    for known in ("job", "/n/old"):
        use.set_placed(known, False)
    assert use.other_use("a") == {}
    for known in ("job", "/n/new"):
        use.set_placed(known, False)
    assert use.other_use("a") == {"nvidia.com/gpu": 4, "pods": 1}
    assert "a" in use.take_dirty()


def test_strays_are_pods_on_nodes_that_are_not_theirs_any_more() -> None:
    def pod(name: str, node: str, workload: str = "w", **status: str) -> Object:
        meta = {"name": name, "uid": name, "namespace": "n", "annotations": {labels.WORKLOAD: workload}}
        meta["labels"] = {labels.POD_SET: "main"}
        return {"metadata": meta, "spec": {"nodeSelector": {labels.HOSTNAME: node}}, "status": status}

    assigned = {"name": "main", "count": 2, "topologyAssignment": topology.encode([("a", 1), ("b", 1)])}
    workload: Object = {
        "metadata": {"name": "w", "namespace": "n"},
        "spec": {"podSets": [{"name": "main", "count": 2}]},
        "status": {"admission": {"clusterQueue": "q", "podSetAssignments": [assigned]}},
    }
    stray, ended, other = pod("p1", "c"), pod("p2", "c", phase="Failed"), pod("p3", "c", "older")
    leaving = pod("p4", "c")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    anywhere = pod("p5", "c")
    anywhere["spec"] = {}
    everybody = [pod("p0", "a"), stray, ended, other, leaving, anywhere]
    assert [p["metadata"]["name"] for p in strays(workload, everybody)] == ["p1", "p3"]
    assert [p["metadata"]["name"] for p in strays(workload, everybody, {"older"})] == ["p1"]  # it still holds quota
    evicted = {**workload, "status": {**workload["status"], "conditions": [{"type": "Evicted", "status": "True"}]}}
    assert strays(evicted, everybody) == []


@pytest.mark.parametrize(
    ("failed", "gates", "named"),
    [(("a", "b"), {}, ["a", "b"]), (("a",), {"TASFailedNodeReplacement": False}, None), (tuple("abcdefghi"), {}, None)],
)
def test_failed_nodes_are_named_or_end_the_run(
    failed: tuple[str, ...], gates: dict[str, bool], named: list[str] | None
) -> None:
    assigned = {"name": "main", "count": 9, "topologyAssignment": topology.encode([(name, 1) for name in "abcdefghi"])}
    conditions = [{"type": t, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"} for t in STARTED]
    workload: Object = {
        "metadata": {
            "name": "w",
            "namespace": "n",
            "ownerReferences": [{"controller": True, "uid": "u", "kind": "Job"}],
        },
        "spec": {"podSets": [{"name": "main", "count": 9}], "queueName": "main"},
        "status": {
            "admission": {"clusterQueue": "q", "podSetAssignments": [assigned]},
            "conditions": conditions,
        },
    }
    facts = Facts(1e9, parsed({"featureGates": gates}), queue={"spec": {}}, failed=failed)
    status = (next_step(workload, facts).status or {})["status"]
    if named is not None:
        assert [n["name"] for n in status["unhealthyNodes"]] == named
        assert next_step({**workload, "status": status}, facts).status is None
    else:
        assert status["schedulingStats"]["evictions"][0]["reason"] == "NodeFailures"
        assert "unhealthyNodes" not in status
