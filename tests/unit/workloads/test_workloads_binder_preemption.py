"""The binder makes room by priority, waits for what can help, and survives crashes while others leave."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_workloads_binder import LateError, node, pod
from workloads_fakes import FakeApi, FakeClient, FakeInformers

from glebe.kube import virtualtime
from glebe.kube.clock import Env
from glebe.kube.errors import internal
from glebe.kube.objects import Object, get_condition, is_deleting
from glebe.kube.resources import EVENTS, NODES, PODS, Resource
from glebe.kube.transport import ConnectionLost
from glebe.workloads.binder import controller as binder
from glebe.workloads.binder import cycle
from glebe.workloads.binder.choose import choose
from glebe.workloads.binder.controller import BUDGETS
from glebe.workloads.binder.filters import diagnose
from glebe.workloads.binder.fleet import Fleet
from glebe.workloads.binder.needs import Needs
from glebe.workloads.binder.preempt import preempt
from glebe.workloads.binder.volumes import CLAIMS, CLASSES, VOLUMES
from glebe.workloads.binder.waitroom import Waiting, WaitRoom


class Cluster:
    """A binder on a fake API, with somebody who ends pods that are to be deleted."""

    def __init__(self, *nodes: Object, seed: int = 1) -> None:
        self.env = Env.seeded(seed)
        self.api = FakeApi(self.env)
        for each in nodes:
            self.api.create(NODES, each)
        controller = binder.build(FakeClient(self.api), FakeInformers(self.api), self.env)  # type: ignore[arg-type]
        self.run = asyncio.create_task(controller.run())

    async def __aenter__(self) -> Cluster:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.run.cancel()
        await asyncio.gather(self.run, return_exceptions=True)

    def add(self, name: str, gpus: int = 0, *, labels: Object | None = None, **spec: Any) -> None:
        made = pod(name, gpus, **spec)
        made["metadata"]["labels"] = labels or {}
        self.api.create(PODS, made)

    def get(self, name: str) -> Object:
        return self.api.read(PODS, name, "n")

    def node_of(self, name: str) -> str | None:
        return self.get(name)["spec"].get("nodeName")

    def message(self, name: str) -> str:
        condition = get_condition(self.get(name), "PodScheduled") or {}
        return str(condition.get("message", ""))

    def leaving(self) -> list[str]:
        return [p["metadata"]["name"] for p in self.api.collection(PODS) if is_deleting(p)]

    def end(self, name: str) -> None:
        self.api.delete(PODS, name, "n", None, 0)

    def events(self, reason: str) -> list[Object]:
        return [e for e in self.api.collection(EVENTS) if e["reason"] == reason]


async def test_the_least_is_taken_from_pods_of_lower_priority_and_kept_for_whom_it_was_taken() -> None:
    async with Cluster(node("a", gpus=8)) as c:
        for name, priority in (("dear", 5), ("cheap", 1)):
            c.add(name, 4, priority=priority)
        await asyncio.sleep(1)
        c.add("urgent", 4, priority=10)
        await asyncio.sleep(1)
        assert c.leaving() == ["cheap"]
        condition = get_condition(c.get("cheap"), "DisruptionTarget") or {}
        assert (condition["status"], condition["reason"]) == ("True", "PreemptionByScheduler")
        assert condition["message"] == "default-scheduler: preempting to accommodate a higher priority pod"
        urgent = c.get("urgent")
        assert urgent["status"]["nominatedNodeName"] == "a"
        scheduled = get_condition(urgent, "PodScheduled") or {}
        assert scheduled["message"] == "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
        assert scheduled["observedGeneration"] == urgent["metadata"]["generation"]
        (event,) = c.events("Preempted")
        assert event["involvedObject"]["name"] == "cheap"
        assert event["message"] == f"Preempted by pod {urgent['metadata']['uid']} on node a"

        c.add("sneaky", 4, priority=2)
        c.end("cheap")
        await asyncio.sleep(1)
        assert c.node_of("urgent") == "a"
        assert c.node_of("sneaky") is None
        assert len(c.events("Preempted")) == 1


async def test_while_victims_leave_no_more_are_asked_to() -> None:
    async with Cluster(node("a", gpus=8)) as c:
        for i in range(4):
            c.add(f"p{i}", 2, priority=0)
        await asyncio.sleep(1)
        c.add("urgent", 4, priority=10)
        await asyncio.sleep(1)
        first = c.leaving()
        assert len(first) == 2
        c.end(first[0])
        await asyncio.sleep(20)
        assert c.leaving() == first[1:]
        assert c.message("urgent").endswith("preemption: not eligible due to a terminating pod on the nominated node.")
        c.end(first[1])
        await asyncio.sleep(1)
        assert c.node_of("urgent") == "a"


async def test_who_may_not_preempt_says_so_and_equals_are_left_alone() -> None:
    async with Cluster(node("a", gpus=8)) as c:
        c.add("there", 8, priority=3)
        await asyncio.sleep(1)
        c.add("polite", 8, priority=10, preemptionPolicy="Never")
        c.add("equal", 8, priority=3)
        c.add("huge", 16, priority=10)
        await asyncio.sleep(1)
        lacking = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. preemption: "
        assert c.message("polite") == f"{lacking}not eligible due to preemptionPolicy=Never."
        none = "0/1 nodes are available: 1 No preemption victims found for incoming pod."
        assert c.message("equal") == f"{lacking}{none}"
        assert c.message("huge") == f"{lacking}0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        assert c.leaving() == []


async def test_a_disruption_budget_is_kept_where_there_is_another_way() -> None:
    async with Cluster(node("a", gpus=8), node("b", gpus=8)) as c:
        c.api.create(
            BUDGETS,
            {
                "metadata": {"name": "keep", "namespace": "n"},
                "spec": {"selector": {"matchLabels": {"app": "db"}}},
                "status": {"disruptionsAllowed": 0},
            },
        )
        c.add("db", 8, labels={"app": "db"}, priority=0)
        c.add("web", 8, labels={"app": "web"}, priority=1)
        await asyncio.sleep(1)
        c.add("urgent", 8, priority=10)
        await asyncio.sleep(1)
        assert c.leaving() == ["web"]
        c.add("second", 8, priority=10)
        await asyncio.sleep(1)
        assert c.leaving() == ["db", "web"]


def test_of_several_nodes_the_one_with_the_least_important_victims_is_taken() -> None:
    fleet, pods = Fleet(), {}
    for name, priorities in {"a": (3,), "b": (1, 1), "c": (1,), "d": (1,)}.items():
        fleet.set_node(node(name, gpus=8))
        for i, priority in enumerate(priorities):
            there = pod(f"{name}{i}", 8 // len(priorities), priority=priority, nodeName=name)
            there["status"]["startTime"] = f"2026-01-01T00:00:0{2 if name == 'd' else 1}Z"
            pods[f"{name}{i}"] = there
            fleet.hold(f"{name}{i}", name, Needs.of(there))
    needs = Needs.of(pod("new", 8, priority=9))
    choice = choose(fleet, needs)
    assert choice.diagnosis is not None
    outcome = preempt(fleet, needs, "new", choice.diagnosis, pods.get, [], offset=2)
    assert outcome.victims is not None
    assert outcome.victims.node == "d"  # lowest priorities, then fewest, then the youngest
    assert diagnose(fleet, needs, {}).reasons == choice.reasons


async def _storm(seed: int) -> None:
    """Pods of all priorities come and go, the API fails, and the binder dies again and again."""
    env, rng = Env.seeded(seed), random.Random(seed)
    api = FakeApi(env)
    for i in range(3):
        api.create(NODES, node(f"n{i}", gpus=8))
    calm = False

    def fault(verb: str, resource: Resource, name: str) -> BaseException | None:
        if calm or rng.random() > 0.2:
            return None
        return rng.choice([LateError("lost"), ConnectionLost("down"), internal("etcd")])

    def lag() -> float:
        return 0.0 if calm else rng.choice([0.0, 0.2, 1.0])

    def running() -> list[Object]:
        return [p for p in api.collection(PODS) if p["spec"].get("nodeName")]

    async def kubelets() -> None:
        while True:
            await asyncio.sleep(0.3)
            for p in [p for p in running() if is_deleting(p)]:
                api.delete(PODS, p["metadata"]["name"], "n", None, 0)
            assert len(running()) <= 3

    ending = asyncio.create_task(kubelets())
    for life in range(3):
        calm = life == 2
        informers = FakeInformers(api, lag)
        run = asyncio.create_task(binder.build(FakeClient(api, fault), informers, env).run())  # type: ignore[arg-type]
        for number in range(0 if calm else 8):
            await asyncio.sleep(rng.uniform(0, 1.5))
            api.create(PODS, pod(f"p{life}-{number}", gpus=8, priority=rng.randint(0, 4)))
        await asyncio.sleep(60 if calm else rng.uniform(0, 3))
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        informers.close()
    assert not ending.done()
    ending.cancel()
    there = sorted(p["spec"]["priority"] for p in running())
    waiting = [p["spec"]["priority"] for p in api.collection(PODS) if not p["spec"].get("nodeName")]
    assert len(there) == 3
    assert all(priority <= there[0] for priority in waiting)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6))
def test_in_the_end_the_most_important_run_whatever_fails(seed: int) -> None:
    virtualtime.run(_storm(seed))


# --- waiting for what can help


async def test_what_cannot_help_is_no_reason_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def counting(fleet: Fleet, needs: Needs, uid: str = "") -> Any:
        tried.append(uid)
        return choose(fleet, needs, uid)

    monkeypatch.setattr(cycle, "choose", counting)
    async with Cluster(node("a", gpus=8)) as c:
        c.add("picky", nodeSelector={"disk": "ssd"})
        c.add("other", 1)
        await asyncio.sleep(1)
        tried.clear()
        c.end("other")
        c.api.create(NODES, node("b"))
        await asyncio.sleep(100)
        assert tried == []
        c.api.create(NODES, node("c", labels={"disk": "ssd"}))
        await asyncio.sleep(1)
        assert c.node_of("picky") == "c"
        assert len(tried) == 1


async def test_a_pod_waits_for_its_claim_and_goes_where_the_volume_is() -> None:
    async with Cluster(node("a"), node("b")) as c:
        c.add("p", volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}])
        await asyncio.sleep(1)
        helpless = "preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
        assert c.message("p") == f'0/2 nodes are available: persistentvolumeclaim "data" not found. {helpless}'
        claim = {"metadata": {"name": "data", "namespace": "n"}, "spec": {"accessModes": ["ReadWriteOncePod"]}}
        c.api.create(CLAIMS, claim)
        await asyncio.sleep(11)
        unbound = "pod has unbound immediate PersistentVolumeClaims"
        assert c.message("p") == f"0/2 nodes are available: {unbound}. {helpless}"
        terms = [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["b"]}]}]
        volume = {"metadata": {"name": "pv"}, "spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}}
        c.api.create(VOLUMES, volume)
        bound = dict(c.api.read(CLAIMS, "data", "n"))
        c.api.store(CLAIMS, {**bound, "spec": {**bound["spec"], "volumeName": "pv"}, "status": {"phase": "Bound"}})
        await asyncio.sleep(1)
        assert c.node_of("p") == "b"

        c.add("q", volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}])
        await asyncio.sleep(1)
        assert "2 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod" in c.message("q")
        c.end("p")
        await asyncio.sleep(1)
        assert c.node_of("q") == "b"


async def test_a_claim_that_waits_for_its_first_pod_is_nobodys_yet() -> None:
    async with Cluster(node("a")) as c:
        c.api.create(CLASSES, {"metadata": {"name": "late"}, "volumeBindingMode": "WaitForFirstConsumer"})
        spec = {"storageClassName": "late"}
        c.api.create(CLAIMS, {"metadata": {"name": "data", "namespace": "n"}, "spec": spec})
        c.add("p", volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}])
        await asyncio.sleep(1)
        assert "1 node(s) didn't find available persistent volumes to bind." in c.message("p")


async def test_company_is_waited_for_and_kept_away_from() -> None:
    web = {"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname"}
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    async with Cluster(node("a"), node("b")) as c:
        c.add("near", affinity={"podAffinity": {required: [web]}})
        await asyncio.sleep(1)
        assert "2 node(s) didn't match pod affinity rules" in c.message("near")
        for name in ("web1", "web2", "web3"):
            c.add(name, labels={"app": "web"}, affinity={"podAntiAffinity": {required: [web]}})
        await asyncio.sleep(1)
        assert {c.node_of("web1"), c.node_of("web2")} == {"a", "b"}
        assert c.node_of("near") in ("a", "b")
        assert "2 node(s) didn't match pod anti-affinity rules" in c.message("web3")
        c.add("plain", labels={"app": "web"})
        await asyncio.sleep(1)
        assert "2 node(s) didn't satisfy existing pods anti-affinity rules" in c.message("plain")
        c.end("web1")
        await asyncio.sleep(1)
        assert c.node_of("web3")


async def test_soft_wishes_are_heard() -> None:
    weighted = [{"weight": 1, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}}]
    soft = {"preferredDuringSchedulingIgnoredDuringExecution": weighted}
    web = {"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname"}
    away = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 5, "podAffinityTerm": web}]}
    spread = [{**web, "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway"}]
    async with Cluster(*(node(n, labels={"disk": "ssd"} if n == "c" else {}) for n in "abc")) as c:
        c.add("fast", affinity={"nodeAffinity": soft})
        await asyncio.sleep(1)
        assert c.node_of("fast") == "c"
        for name in ("w1", "w2", "w3"):
            c.add(name, cpu="100m", labels={"app": "web"}, topologySpreadConstraints=spread)
        await asyncio.sleep(1)
        assert {c.node_of(f"w{i}") for i in (1, 2, 3)} == {"a", "b", "c"}
        c.end("w2")
        gone = ({"a", "b", "c"} - {c.node_of("w1"), c.node_of("w3")}).pop()
        c.add("shy", affinity={"podAntiAffinity": away})
        await asyncio.sleep(1)
        assert c.node_of("shy") == gone


def test_order_is_priority_then_age_and_failures_stand_back_unless_alone() -> None:
    room = WaitRoom()

    def waiting(name: str, priority: int, created: str = "1") -> Waiting:
        made = pod(name, priority=priority)
        made["metadata"] |= {"uid": name, "creationTimestamp": created}
        return Waiting(made, Needs.of(made))

    for each in (waiting("low", 0), waiting("young", 5, "2"), waiting("old", 5, "1")):
        room.admit(each, 0.0)
    order = []
    while (one := room.pop(0.0)) is not None:
        order.append(one.uid)
        room.park(one, {"NodeResourcesFit"}, 0.0)
    assert order == ["old", "young", "low"]
    assert room.wake(lambda *_: True, 0.5)
    room.admit(waiting("fresh", 0), 0.5)
    assert popped(room, 0.5) == "fresh"
    assert popped(room, 1.0) == "old"  # its second is over: by rank again
    room.remove("young")
    assert popped(room, 1.0) == "low"
    assert popped(room, 1.0) is None


def popped(room: WaitRoom, now: float) -> str | None:
    one = room.pop(now)
    return one.uid if one is not None else None


def test_a_pod_that_stands_back_is_tried_when_nobody_else_is_there() -> None:
    room = WaitRoom()
    made = pod("p")
    made["metadata"]["uid"] = "p"
    room.admit(Waiting(made, Needs.of(made)), 0.0)
    one = room.pop(0.0)
    assert one is not None
    room.park(one, {"NodePorts"}, 0.0)
    assert room.pop(0.1) is None
    assert not room.wake(lambda _, plugins: "NodeAffinity" in plugins, 0.1)
    assert room.wake(lambda _, plugins: "NodePorts" in plugins, 0.1)
    assert room.pop(0.1) is one
    room.park(one, {"NodePorts"}, 0.1)
    room.wake_overdue(300.0)
    assert room.pop(300.0) is None
    room.wake_overdue(300.2)
    assert room.pop(300.2) is one
