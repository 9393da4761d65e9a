"""Silent nodes: conditions, taints, eviction, and the time that it takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from workloads_fakes import FakeApi, FakeClient, FakeInformers

from glebe.kube.clock import Env, LoopClock, format_micro_time, format_time
from glebe.kube.objects import Object, get_condition
from glebe.kube.resources import LEASES, NODES, PODS
from glebe.workloads.nodes import controller, health
from glebe.workloads.nodes.eviction import Way, evictions

NOW = LoopClock.EPOCH


def node(name: str = "a", ready: str = "True", taints: list[Object] | None = None) -> Object:
    conditions = [{"type": "Ready", "status": ready, "reason": "x", "message": "", "lastTransitionTime": "t"}]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "spec": {"taints": taints} if taints else {},
        "status": {"conditions": conditions},
    }


def taint(key: str = health.UNREACHABLE, since: float = NOW) -> Object:
    return {"key": key, "effect": "NoExecute", "timeAdded": format_time(since)}


def pod(name: str = "p", phase: str = "Running", seconds: float | None = 15, **meta: Any) -> Object:
    toleration = {"operator": "Exists", "effect": "NoExecute"}
    if seconds is not None:
        toleration["tolerationSeconds"] = seconds  # type: ignore[assignment]
    spec = {"nodeName": "a", "containers": [{"name": "main"}], "tolerations": [toleration]}
    return {"metadata": {"name": name, "namespace": "n", **meta}, "spec": spec, "status": {"phase": phase}}


def test_a_silent_node_becomes_unknown_and_unreachable() -> None:
    assert health.assess(node(), 39.0, NOW) == health.Verdict()
    verdict = health.assess(node(), 40.0, NOW)
    assert verdict.conditions
    ready = get_condition({"status": {"conditions": verdict.conditions}}, "Ready")
    assert ready
    assert (ready["status"], ready["reason"]) == ("Unknown", "NodeStatusUnknown")
    assert verdict.taints
    assert {(t["key"], t["effect"]) for t in verdict.taints} == {
        (health.UNREACHABLE, "NoSchedule"),
        (health.UNREACHABLE, "NoExecute"),
    }


def test_a_node_that_is_back_loses_the_taints_and_keeps_others() -> None:
    other = {"key": "team", "effect": "NoSchedule"}
    verdict = health.assess(node(taints=[other, taint()]), 0.0, NOW)
    assert verdict.taints == [other]


def test_the_time_of_a_taint_survives_a_second_look() -> None:
    first = health.assess(node(ready="Unknown"), 50.0, NOW).taints
    assert health.assess(node(ready="Unknown", taints=first), 60.0, NOW + 10).taints is None


def test_cordons_and_pressure_keep_new_pods_away_as_long_as_they_last() -> None:
    held = node()
    held["spec"]["unschedulable"] = True
    held["status"]["conditions"].append({"type": "DiskPressure", "status": "True"})
    verdict = health.assess(held, 0.0, NOW)
    assert verdict.taints is not None
    assert {(t["key"], t["effect"]) for t in verdict.taints} == {
        ("node.kubernetes.io/unschedulable", "NoSchedule"),
        ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    }
    held["spec"]["taints"] = verdict.taints
    assert health.assess(held, 0.0, NOW + 5).taints is None
    over = node(taints=[*verdict.taints, {"key": "team", "effect": "NoSchedule"}])
    assert health.assess(over, 0.0, NOW).taints == [{"key": "team", "effect": "NoSchedule"}]


def test_tolerations_say_how_long_a_pod_stays() -> None:
    dead = node(ready="Unknown", taints=[taint()])
    (leaving,) = evictions(dead, NOW, [pod(seconds=15), pod("ever", seconds=None), pod("done", "Succeeded")], NOW)
    assert (leaving.pod["metadata"]["name"], leaving.at, leaving.way) == ("p", NOW + 15, Way.LOSE)
    intolerant = pod()
    intolerant["spec"]["tolerations"] = []
    assert evictions(node(taints=[taint("maintenance")]), NOW, [intolerant], NOW)[0].way is Way.ASK


def test_pods_of_a_missing_node_are_lost_after_the_quarantine() -> None:
    found = evictions(None, NOW, [pod(), pod("done", "Succeeded")], NOW)
    assert [(e.at, e.way) for e in found] == [(NOW + 40, Way.LOSE), (NOW + 40, Way.REMOVE)]


@asynccontextmanager
async def running(api: FakeApi) -> AsyncIterator[None]:
    controllers = controller.build(FakeClient(api), FakeInformers(api), api.env)  # type: ignore[arg-type]
    tasks = [asyncio.create_task(c.run()) for c in controllers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def beat(api: FakeApi, name: str) -> None:
    meta = {"name": name, "namespace": controller.LEASE_NAMESPACE}
    spec = {"renewTime": format_micro_time(api.env.clock.now())}
    if api.find(LEASES, name, controller.LEASE_NAMESPACE):
        api.patch(LEASES, name, controller.LEASE_NAMESPACE, {"spec": spec}, None)
    else:
        api.create(LEASES, {"metadata": meta, "spec": spec})


async def test_a_dead_nodes_pods_are_gone_within_a_minute_and_a_live_ones_stay() -> None:
    api = FakeApi(Env.seeded(1))
    for name in ("a", "b"):
        api.create(NODES, node(name))
    other = pod("other")
    other["spec"]["nodeName"] = "b"
    tracked = pod("tracked", finalizers=["batch.kubernetes.io/job-tracking"])
    for each in (pod(), other, tracked):
        api.create(PODS, each)
    async with running(api):
        for second in range(120):
            if second % 10 == 0:
                beat(api, "b")
                if second < 60:
                    beat(api, "a")  # the last one at 50 s: it dies right after
            await asyncio.sleep(1)
            if second < 50 + 40:
                assert api.find(PODS, "p", "n")
            if second == 50 + 60:
                assert api.find(PODS, "p", "n") is None
        assert api.find(PODS, "other", "n")
        lost = api.read(PODS, "tracked", "n")
        assert (lost["status"]["phase"], lost["status"]["reason"]) == ("Failed", "NodeLost")
        assert "deletionTimestamp" in lost["metadata"]
        condition = get_condition(lost, "DisruptionTarget")
        assert condition
        assert condition["reason"] == "DeletionByTaintManager"


async def test_pods_of_a_deleted_node_go() -> None:
    api = FakeApi(Env.seeded(1))
    api.create(NODES, node())
    api.create(PODS, pod())
    async with running(api):
        await asyncio.sleep(1)
        api.drop(NODES, ("nodes", "", "a"))
        await asyncio.sleep(30)
        assert api.find(PODS, "p", "n")
        await asyncio.sleep(30)
        assert api.find(PODS, "p", "n") is None


def intolerant(name: str = "p", **meta: Any) -> Object:
    out = pod(name, **meta)
    out["spec"]["tolerations"] = []
    return out


def untimed(key: str = "maintenance") -> Object:
    return {"key": key, "effect": "NoExecute", "value": "x"}


def test_of_several_matching_tolerations_the_shortest_counts() -> None:
    two = pod()
    two["spec"]["tolerations"] = [
        {"key": "maintenance", "operator": "Exists", "tolerationSeconds": seconds} for seconds in (300, 5, 60)
    ]
    (leaving,) = evictions(node(taints=[untimed()]), NOW, [two], NOW, {})
    assert leaving.at == NOW + 5


def test_a_pod_that_came_after_the_taint_has_its_whole_time() -> None:
    late = pod(seconds=15)
    late["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": format_time(NOW + 100)}
    ]
    (leaving,) = evictions(node(taints=[taint("maintenance")]), NOW, [late], NOW + 100, {})
    assert leaving.at == NOW + 115


def test_what_ends_on_a_node_declared_dead_is_gone() -> None:
    declared = {"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute", "value": "nodeshutdown"}
    ending = pod("ending", deletionTimestamp=format_time(NOW + 30))
    stays = pod("stays", seconds=None)
    (leaving,) = evictions(node(ready="False", taints=[declared]), NOW, [ending, stays], NOW)
    assert (leaving.pod["metadata"]["name"], leaving.at, leaving.way) == ("ending", NOW, Way.LOSE)
    assert leaving.reason == ""
    assert evictions(node(ready="True", taints=[declared]), NOW, [ending, stays], NOW) == []


async def test_a_taint_without_a_time_evicts_after_the_tolerated_seconds() -> None:
    api = FakeApi(Env.seeded(1))
    api.create(NODES, node())
    api.create(PODS, pod(seconds=15))
    async with running(api):
        await asyncio.sleep(1)
        api.patch(NODES, "a", "", {"spec": {"taints": [untimed()]}}, None)
        await asyncio.sleep(14)
        assert "deletionTimestamp" not in api.read(PODS, "p", "n")["metadata"]
        await asyncio.sleep(2)
        assert (api.find(PODS, "p", "n") or {"metadata": {"deletionTimestamp": ""}})["metadata"].get(
            "deletionTimestamp"
        ) is not None


async def test_a_taint_that_goes_cancels_and_one_that_comes_back_starts_anew() -> None:
    api = FakeApi(Env.seeded(1))
    api.create(NODES, node())
    api.create(PODS, pod(seconds=15))
    async with running(api):
        api.patch(NODES, "a", "", {"spec": {"taints": [untimed()]}}, None)
        await asyncio.sleep(10)
        api.patch(NODES, "a", "", {"spec": {"taints": None}}, None)
        await asyncio.sleep(30)
        assert "deletionTimestamp" not in api.read(PODS, "p", "n")["metadata"]
        said = [e for (plural, _, _), e in api.objects.items() if plural == "events"]
        assert [e["message"] for e in said] == ["Cancelling deletion of Pod n/p"]
        api.patch(NODES, "a", "", {"spec": {"taints": [untimed()]}}, None)
        await asyncio.sleep(14)
        assert "deletionTimestamp" not in api.read(PODS, "p", "n")["metadata"]


async def test_intolerant_pods_leave_at_once_and_say_why() -> None:
    api = FakeApi(Env.seeded(1))
    api.create(NODES, node(taints=[untimed()]))
    api.create(PODS, intolerant(finalizers=["x/hold"]))
    async with running(api):
        await asyncio.sleep(1)
        left = api.read(PODS, "p", "n")
        assert "deletionTimestamp" in left["metadata"]
        condition = get_condition(left, "DisruptionTarget")
        assert condition
        assert (condition["reason"], condition["message"]) == (
            "DeletionByTaintManager",
            "Taint manager: deleting due to NoExecute taint",
        )


def told(api: FakeApi) -> list[tuple[str, str]]:
    return sorted(
        (e["involvedObject"]["name"], e["reason"]) for (plural, _, _), e in api.objects.items() if plural == "events"
    )


def ready_pod(name: str, at: str) -> Object:
    conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
    made = pod(name, seconds=None)
    made["spec"]["nodeName"], made["status"]["conditions"] = at, conditions
    return made


def is_ready(api: FakeApi, name: str) -> bool:
    return (get_condition(api.read(PODS, name, "n"), "Ready") or {})["status"] == "True"


async def test_pods_of_a_silent_node_are_not_ready_and_stay_if_they_tolerate_it() -> None:
    api = FakeApi(Env.seeded(1))
    for name in ("a", "b"):
        api.create(NODES, node(name))
        api.create(PODS, ready_pod(f"on-{name}", name))
    async with running(api):
        for second in range(60):
            if second % 10 == 0:
                beat(api, "b")
            await asyncio.sleep(1)
            assert is_ready(api, "on-b")
            assert is_ready(api, "on-a") == (second < 40)
        assert told(api) == [("a", "NodeNotReady"), ("on-a", "NodeNotReady")]
        assert (get_condition(api.read(PODS, "on-a", "n"), "Ready") or {})[
            "lastTransitionTime"
        ] > "2026-01-01T00:00:00Z"


async def test_a_node_that_lives_has_the_last_word_on_its_pods() -> None:
    api = FakeApi(Env.seeded(1))
    api.create(NODES, node())
    api.create(PODS, ready_pod("p", "a"))
    async with running(api):
        for _ in range(2):
            api.patch(NODES, "a", "", {"status": node(ready="False")["status"]}, None)
            await asyncio.sleep(3)
            assert not is_ready(api, "p")
            api.patch(PODS, "p", "n", {"status": ready_pod("p", "a")["status"]}, None)
            beat(api, "a")
            await asyncio.sleep(5)
            assert is_ready(api, "p")
            api.patch(NODES, "a", "", {"status": node()["status"]}, None)
            await asyncio.sleep(3)
