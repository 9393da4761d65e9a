"""The binder: what fits where, in whose words it says no, and that nothing is ever given twice."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workloads_fakes import FakeApi, FakeClient, FakeInformers

from glebe.kube import virtualtime
from glebe.kube.clock import Env
from glebe.kube.errors import internal
from glebe.kube.objects import Object, get_condition
from glebe.kube.pods import requests_of
from glebe.kube.resources import EVENTS, NODES, PODS, Resource
from glebe.kube.transport import ConnectionLost
from glebe.workloads.binder import controller as binder
from glebe.workloads.binder.choose import choose
from glebe.workloads.binder.fleet import Fleet
from glebe.workloads.binder.needs import Needs

READY = {"conditions": [{"type": "Ready", "status": "True"}]}


def node(name: str, gpus: int = 0, cpu: str = "8", **spec: Any) -> Object:
    amounts = {"cpu": cpu, "memory": "32Gi", "pods": "110"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    labels = {"kubernetes.io/hostname": name} | spec.pop("labels", {})
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels, "uid": name},
        "spec": spec,
        "status": {**READY, "allocatable": amounts},
    }


def pod(name: str, gpus: int = 0, cpu: str = "1", **spec: Any) -> Object:
    requests = {"cpu": cpu} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    containers = [{"name": "main", "resources": {"requests": requests}}]
    return {"metadata": {"name": name, "namespace": "n"}, "spec": {"containers": containers, **spec}, "status": {}}


def fleet_of(*nodes: Object) -> Fleet:
    fleet = Fleet()
    for n in nodes:
        fleet.set_node(n)
    return fleet


def test_requests_count_containers_init_containers_sidecars_and_overhead() -> None:
    def container(cpu: str, **more: Any) -> Object:
        return {"name": "c", "resources": {"requests": {"cpu": cpu}}, **more}

    spec = {
        "containers": [container("1"), container("500m")],
        "initContainers": [container("200m", restartPolicy="Always"), container("2")],
        "overhead": {"cpu": "50m", "memory": "1Mi"},
    }
    assert Needs.of({"spec": spec}).requests == {"cpu": 2250, "memory": 1 << 20, "pods": 1}


def test_the_message_is_kube_schedulers() -> None:
    tainted = node("local", taints=[{"key": "glebe.dev/local", "value": "yes", "effect": "NoSchedule"}])
    fleet = fleet_of(*(node(f"h{i:02}", gpus=4) for i in range(15)), node("cordoned", unschedulable=True), tainted)
    choice = choose(fleet, Needs.of(pod("p", gpus=8)))
    assert choice.message() == (
        "0/17 nodes are available: 1 node(s) had untolerated taint(s), "
        "1 node(s) were unschedulable, 15 Insufficient nvidia.com/gpu."
    )
    assert choose(Fleet(), Needs.of(pod("p"))).message() == "no nodes available to schedule pods"


@pytest.mark.parametrize(
    ("expression", "fits"),
    [
        ({"key": "rack", "operator": "In", "values": ["r1", "r2"]}, True),
        ({"key": "rack", "operator": "NotIn", "values": ["r1"]}, False),
        ({"key": "rack", "operator": "DoesNotExist"}, False),
        ({"key": "size", "operator": "Gt", "values": ["7"]}, True),
        ({"key": "size", "operator": "Lt", "values": ["7"]}, False),
    ],
)
def test_required_node_affinity(expression: Object, fits: bool) -> None:
    terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    fleet = fleet_of(node("a", labels={"rack": "r1", "size": "8"}))
    assert (choose(fleet, Needs.of(pod("p", affinity=affinity))).node == "a") is fits


def test_gpu_pods_are_packed_and_cpu_pods_are_spread() -> None:
    fleet = fleet_of(node("a", gpus=8), node("b", gpus=8))
    placed: dict[str, list[str | None]] = {"gpu": [], "cpu": []}
    for kind, gpus in (("gpu", 2), ("gpu", 2), ("gpu", 4), ("gpu", 1), ("cpu", 0), ("cpu", 0)):
        needs = Needs.of(pod("p", gpus=gpus))
        choice = choose(fleet, needs)
        placed[kind].append(choice.node)
        assert choice.node
        fleet.hold(f"{kind}{len(placed[kind])}", choice.node, needs)
    assert placed["gpu"] == ["a", "a", "a", "b"]
    assert placed["cpu"] == ["b", "b"]


def test_a_node_that_is_not_ready_takes_no_pods() -> None:
    sick = node("a")
    sick["status"]["conditions"] = [{"type": "Ready", "status": "Unknown"}]
    choice = choose(fleet_of(sick), Needs.of(pod("p")))
    assert "untolerated taint(s)" in choice.message()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 8), st.booleans()), max_size=60), st.integers(0, 99))
def test_amounts_are_conserved_through_any_changes(steps: list[tuple[int, int, bool]], seed: int) -> None:
    fleet = fleet_of(*(node(f"n{i}", gpus=8) for i in range(3)))
    held: dict[str, tuple[str, int]] = {}
    rng = random.Random(seed)
    for number, (what, gpus, flag) in enumerate(steps):
        if what == 0 and held:
            uid = rng.choice(sorted(held))
            fleet.release(uid)
            del held[uid]
        elif what == 1:
            fleet.set_node(node("n1", gpus=8, unschedulable=flag))
        else:
            needs = Needs.of(pod("p", gpus=gpus, cpu="10m"))
            chosen = choose(fleet, needs).node
            if chosen:
                fleet.hold(f"u{number}", chosen, needs)
                held[f"u{number}"] = (chosen, gpus)
        fleet.refresh()
        column = fleet.column("nvidia.com/gpu")
        used = {n: int(fleet.used[row, column]) for row, n in enumerate(fleet.names)}
        assert used == {n: sum(g for at, g in held.values() if at == n) for n in fleet.names}
        assert max(used.values()) <= 8


class LateError(ConnectionLost):
    late = True


async def _storm(seed: int) -> None:
    """Pods come and go while the API fails; caches lag; the binder is restarted."""
    env, rng = Env.seeded(seed), random.Random(seed)
    api = FakeApi(env)
    for i in range(4):
        api.create(NODES, node(f"n{i}", gpus=8))
    calm = False

    def fault(verb: str, resource: Resource, name: str) -> BaseException | None:
        if calm or rng.random() > 0.2:
            return None
        return rng.choice([LateError("lost"), ConnectionLost("down"), internal("etcd")])

    def lag() -> float:
        return 0.0 if calm else rng.choice([0.0, 0.2, 1.5])

    def overcommitted() -> Counter[str]:
        use: Counter[str] = Counter()
        for p in api.collection(PODS):
            if p["spec"].get("nodeName"):
                use[p["spec"]["nodeName"]] += int(requests_of(p["spec"]).get("nvidia.com/gpu", 0))
        return +Counter({n: g - 8 for n, g in use.items()})

    serial = 0
    for life in range(3):
        informers = FakeInformers(api, lag)
        run = asyncio.create_task(binder.build(FakeClient(api, fault), informers, env).run())  # type: ignore[arg-type]
        for _ in range(30):
            await asyncio.sleep(rng.uniform(0, 1))
            if rng.random() < 0.6:
                serial += 1
                api.create(PODS, pod(f"p{serial}", gpus=rng.choice([1, 2, 4, 8])))
            elif bound := [p for p in api.collection(PODS) if p["spec"].get("nodeName")]:
                api.delete(PODS, rng.choice(bound)["metadata"]["name"], "n", None, 0)
            assert not overcommitted()
        if life == 2:
            calm = True
            await asyncio.sleep(120)
            placed = [p["spec"] for p in api.collection(PODS) if p["spec"].get("nodeName")]
            free = 8 * 4 - sum(requests_of(spec).get("nvidia.com/gpu", 0) for spec in placed)
            waiting = [p for p in api.collection(PODS) if not p["spec"].get("nodeName")]
            assert all(requests_of(p["spec"])["nvidia.com/gpu"] > 1 or free == 0 for p in waiting)
            for p in waiting:
                condition = get_condition(p, "PodScheduled")
                assert condition
                assert condition["reason"] == "Unschedulable"
            assert not overcommitted()
        else:
            await asyncio.sleep(5)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        informers.close()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_nothing_is_given_twice_whatever_fails(seed: int) -> None:
    virtualtime.run(_storm(seed))


async def _with_binder(api: FakeApi, env: Env) -> asyncio.Task[None]:
    controller = binder.build(FakeClient(api), FakeInformers(api), env)  # type: ignore[arg-type]
    return asyncio.create_task(controller.run())


async def test_a_waiting_pod_is_bound_when_another_ends_and_a_gated_one_when_its_gate_goes() -> None:
    env = Env.seeded(1)
    api = FakeApi(env)
    api.create(NODES, node("a", gpus=8))
    for name in ("first", "second"):
        api.create(PODS, pod(name, gpus=8))
    api.create(PODS, pod("gated", schedulingGates=[{"name": "kueue.x-k8s.io/topology"}]))
    run = await _with_binder(api, env)
    await asyncio.sleep(1)
    second, gated = api.read(PODS, "second", "n"), api.read(PODS, "gated", "n")
    condition = get_condition(second, "PodScheduled")
    assert condition
    assert condition["message"] == (
        "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. "
        "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
    )
    condition = get_condition(gated, "PodScheduled")
    assert condition
    assert condition["reason"] == "SchedulingGated"
    assert [e["reason"] for e in api.collection(EVENTS)] == ["Scheduled", "FailedScheduling"]

    first = dict(api.read(PODS, "first", "n"))
    api.store(PODS, {**first, "status": {"phase": "Succeeded"}})
    api.patch(PODS, "gated", "n", {"spec": {"schedulingGates": None}}, None)
    await asyncio.sleep(1)
    assert api.read(PODS, "second", "n")["spec"]["nodeName"] == "a"
    assert api.read(PODS, "gated", "n")["spec"]["nodeName"] == "a"
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)


def test_five_hundred_pods_find_room_on_a_thousand_nodes() -> None:
    fleet = fleet_of(*(node(f"n{i:04}", gpus=8, cpu="192") for i in range(1000)))
    given: Counter[str] = Counter()
    for i in range(500):
        one = Needs.of(pod("p", gpus=1 + i % 4))
        chosen = choose(fleet, one).node
        assert chosen
        fleet.hold(str(i), chosen, one)
        given[chosen] += 1 + i % 4
    assert max(given.values()) <= 8
    assert len(given) <= 200, "pods with GPUs are packed"
