"""Which of the nodes that fit: scores as upstream's."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from test_workloads_binder import fleet_of, node, pod
from test_workloads_binder_preemption import Cluster

from glebe.kube.objects import Object
from glebe.kube.resources import NODES, PODS, REPLICA_SETS, SERVICES
from glebe.workloads.binder.choose import choose
from glebe.workloads.binder.needs import Needs

ZONE = "topology.kubernetes.io/zone"


def owned(c: Cluster, name: str, app: str, **spec: Any) -> None:
    made = pod(name, cpu="10m", **spec)
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": app, "uid": app, "controller": True}
    made["metadata"] |= {"labels": {"app": app}, "ownerReferences": [owner]}
    c.api.create(PODS, made)


def zoned(name: str, zone: str, cpu: str) -> Object:
    return node(name, cpu=cpu, labels={ZONE: zone})


async def test_pods_of_a_controller_are_spread_over_zones_and_nodes_though_nobody_asks_for_it() -> None:
    nodes = [zoned("a1", "a", "64"), zoned("a2", "a", "64"), zoned("b1", "b", "4"), zoned("c1", "c", "4")]
    async with Cluster(*nodes) as c:
        selector = {"matchLabels": {"app": "web"}}
        c.api.create(REPLICA_SETS, {"metadata": {"name": "web", "namespace": "n"}, "spec": {"selector": selector}})
        await asyncio.sleep(1)
        for number in range(6):
            owned(c, f"web{number}", "web")
        await asyncio.sleep(1)
        where = Counter(c.node_of(f"web{number}") for number in range(6))
        assert all(where[n] for n in ("b1", "c1")), where
        assert where["a1"] + where["a2"] <= 3, where
        assert max(where.values()) <= 2, where


async def test_pods_of_a_service_are_spread_and_strangers_are_not_counted() -> None:
    async with Cluster(node("a", cpu="64"), node("b", cpu="4")) as c:
        c.api.create(SERVICES, {"metadata": {"name": "web", "namespace": "n"}, "spec": {"selector": {"tier": "web"}}})
        await asyncio.sleep(1)
        for number in range(4):
            c.add(f"p{number}", cpu="10m", labels={"tier": "web", "number": str(number)})
            await asyncio.sleep(0.1)
        where = Counter(c.node_of(f"p{number}") for number in range(4))
        assert where == {"a": 2, "b": 2}
        for number in range(3):
            c.add(f"other{number}", cpu="10m", labels={"tier": "db"})
            await asyncio.sleep(0.1)
        assert {c.node_of(f"other{number}") for number in range(3)} == {"a"}, "the larger node is the emptier one"


async def test_who_says_how_it_is_to_be_spread_gets_no_default() -> None:
    spread = [{"maxSkew": 1, "topologyKey": "nowhere", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}]
    async with Cluster(node("a", cpu="64"), node("b", cpu="4")) as c:
        c.api.create(SERVICES, {"metadata": {"name": "web", "namespace": "n"}, "spec": {"selector": {"tier": "web"}}})
        await asyncio.sleep(1)
        for number in range(3):
            c.add(f"p{number}", cpu="500m", labels={"tier": "web"}, topologySpreadConstraints=spread)
            await asyncio.sleep(0.1)
        assert {c.node_of(f"p{number}") for number in range(3)} == {"a"}


def sized(name: str, cpu: str, memory: str) -> Object:
    made = node(name, cpu=cpu)
    made["status"]["allocatable"]["memory"] = memory
    return made


def test_processors_and_memory_are_kept_in_balance() -> None:
    fleet = fleet_of(sized("a", "8", "16Gi"), sized("b", "8", "16Gi"))
    containers = [{"name": "c", "resources": {"requests": {"cpu": "4", "memory": "1Gi"}}}]
    lopsided = Needs.of(pod("p", containers=containers))
    fleet.hold("1", "a", lopsided)
    memory = Needs.of(pod("q", containers=[{"name": "c", "resources": {"requests": {"cpu": "1", "memory": "7Gi"}}}]))
    fleet.hold(
        "2",
        "b",
        Needs.of(pod("r", containers=[{"name": "c", "resources": {"requests": {"cpu": "1", "memory": "5Gi"}}}])),
    )
    assert choose(fleet, memory).node == "a"


def test_pods_that_ask_for_nothing_are_spread_all_the_same() -> None:
    fleet = fleet_of(node("a"), node("b"), node("c"))
    silent = Needs.of({"metadata": {"namespace": "n"}, "spec": {"containers": [{"name": "c"}, {"name": "d"}]}})
    assert silent.weight == (200, 400 << 20)
    where = []
    for number in range(6):
        chosen = choose(fleet, silent).node
        assert chosen
        where.append(chosen)
        fleet.hold(str(number), chosen, silent)
    assert where == ["a", "b", "c", "a", "b", "c"]


def test_a_pod_that_is_being_resized_holds_the_most_of_what_is_asked_allocated_and_in_force() -> None:
    def held(asked: str, allocated: str, in_force: str, *, infeasible: bool = False) -> int:
        made = pod("p", cpu=asked)
        made["spec"]["nodeName"] = "a"
        status = {
            "name": "main",
            "allocatedResources": {"cpu": allocated},
            "resources": {"requests": {"cpu": in_force}},
        }
        conditions = [{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}] if infeasible else []
        made["status"] = {"containerStatuses": [status], "conditions": conditions}
        return Needs.of(made).requests["cpu"]

    assert held("1", "1", "1") == 1000
    assert held("1", "2", "2") == 2000
    assert held("4", "2", "2") == 4000
    assert held("1", "1", "3") == 3000
    assert held("64", "2", "1", infeasible=True) == 2000


async def test_the_room_of_a_shrinking_pod_is_free_only_when_its_node_says_so() -> None:
    async with Cluster(node("a", cpu="4")) as c:
        c.add("big", cpu="3")
        await asyncio.sleep(1)
        c.add("next", cpu="3")
        await asyncio.sleep(1)
        big = dict(c.get("big"))
        container = {"name": "main", "resources": {"requests": {"cpu": "1"}}}
        status = {"name": "main", "allocatedResources": {"cpu": "3"}, "resources": {"requests": {"cpu": "3"}}}
        meta = {**big["metadata"], "generation": 2}
        c.api.store(
            PODS,
            {
                **big,
                "metadata": meta,
                "spec": {**big["spec"], "containers": [container]},
                "status": {"containerStatuses": [status]},
            },
        )
        await asyncio.sleep(20)
        assert c.node_of("next") is None
        done = {"name": "main", "allocatedResources": {"cpu": "1"}, "resources": {"requests": {"cpu": "1"}}}
        c.api.store(PODS, {**c.get("big"), "status": {"containerStatuses": [done]}})
        await asyncio.sleep(5)
        assert c.node_of("next") == "a"
        assert c.api.collection(NODES)
