"""The admission cycle under failing writes: no quota is given twice, nothing stays half given."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from glebe.kube import resources as r
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError, modified
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey, get_condition
from glebe.kube.resources import Resource
from glebe.kube.transport import ConnectionLost
from glebe.queueing.jobs.podsetinfo import PodSetInfo
from glebe.queueing.jobs.ungate import Release, Ungater
from glebe.queueing.picture.delta import Receiver, Sender
from glebe.queueing.picture.snapshot import SnapshotBuilder
from glebe.queueing.round.cycle import AdmissionCycle
from glebe.queueing.round.planner import InlinePlanner, ProcessPlanner, pack
from glebe.scheduling import decide, forecast
from glebe.scheduling.model import FairSharing, Outcome

KEY = ObjectKey("", "", "cycle")
SECOND = "2026-01-01T00:00:00Z"


class FakeApi:
    """Workload statuses with optimistic locking; ``fail`` decides what happens to a write: before or after it."""

    def __init__(self) -> None:
        self.cluster = ""
        self.objects: dict[str, Object] = {}
        self.revision = 100
        self.fail_before: list[Exception] = []
        self.fail_after: list[Exception] = []
        self.writes = 0

    def at(self, cluster: str) -> FakeApi:
        return self

    async def update_status(self, resource: Resource, obj: Object) -> Object:
        if self.fail_before:
            raise self.fail_before.pop(0)
        name = obj["metadata"]["name"]
        live = self.objects[name]
        if live["metadata"]["resourceVersion"] != obj["metadata"]["resourceVersion"]:
            raise modified(resource.group, resource.plural, name)
        self.revision += 1
        self.writes += 1
        meta = {**obj["metadata"], "resourceVersion": str(self.revision)}
        self.objects[name] = {**obj, "metadata": meta}
        if self.fail_after:
            raise self.fail_after.pop(0)
        return self.objects[name]

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Object:
        return self.objects[name]


class Silent:
    def say(self, *_: Any) -> None:
        return None


def named(kind: str, name: str, spec: dict[str, Any], namespace: str = "") -> Object:
    meta = {"name": name, "uid": name, "resourceVersion": "1", "creationTimestamp": SECOND}
    if namespace:
        meta["namespace"] = namespace
    return {"apiVersion": "x", "kind": kind, "metadata": meta, "spec": spec}


def workload(name: str, gpus: int = 8) -> Object:
    container = {"name": "m", "resources": {"requests": {"nvidia.com/gpu": str(gpus)}}}
    pod_set = {"name": "main", "count": 1, "template": {"spec": {"containers": [container]}}}
    return named("Workload", name, {"podSets": [pod_set], "queueName": "main", "active": True}, "team")


class World:
    """One queue with quota for 8 GPUs on one node."""

    def __init__(self, *names: str) -> None:
        self.builder = SnapshotBuilder()
        self.api = FakeApi()
        change = self.builder.change
        change(r.NAMESPACES, None, named("Namespace", "team", {}))
        node = named("Node", "n", {})
        node["metadata"]["labels"] = {"kubernetes.io/hostname": "n"}
        node["status"] = {"allocatable": {"nvidia.com/gpu": "8"}, "conditions": [{"type": "Ready", "status": "True"}]}
        change(r.NODES, None, node)
        change(r.RESOURCE_FLAVORS, None, named("ResourceFlavor", "gpu", {}))
        quota = {"name": "nvidia.com/gpu", "nominalQuota": "8"}
        group = {"coveredResources": ["nvidia.com/gpu"], "flavors": [{"name": "gpu", "resources": [quota]}]}
        spec = {"namespaceSelector": {}, "resourceGroups": [group]}
        change(r.CLUSTER_QUEUES, None, named("ClusterQueue", "q", spec))
        change(r.LOCAL_QUEUES, None, named("LocalQueue", "main", {"clusterQueue": "q"}, "team"))
        for name in names:
            self.api.objects[name] = workload(name)
            change(r.WORKLOADS, None, self.api.objects[name])
        client: Any = self.api
        notices: Any = Silent()
        self.cycle = AdmissionCycle(client, Env.seeded(1), InlinePlanner(), self.builder, notices)

    async def run(self, times: int = 1) -> None:
        for _ in range(times):
            await self.cycle.reconcile(KEY)

    def watch(self) -> None:
        """The watch catches up."""
        for name, obj in self.api.objects.items():
            old = self.builder.objects[r.WORKLOADS].get(ObjectKey("", "team", name))
            self.builder.change(r.WORKLOADS, old, obj)

    def admitted(self) -> list[str]:
        return sorted(n for n, o in self.api.objects.items() if (o.get("status") or {}).get("admission"))


async def test_what_was_admitted_counts_before_the_watch_shows_it() -> None:
    world = World("a", "b")
    await world.run(3)
    assert world.admitted() == ["a"]
    world.watch()
    await world.run()
    assert world.admitted() == ["a"]


async def test_a_conflict_is_rolled_back_and_retried_with_the_newer_object() -> None:
    world = World("a")
    world.api.objects["a"] = {
        **world.api.objects["a"],
        "metadata": {**workload("a")["metadata"], "resourceVersion": "2"},
    }
    await world.run()
    assert world.admitted() == []
    assert world.cycle.stats.rolled_back == 1
    world.watch()
    await world.run()
    assert world.admitted() == ["a"]


@pytest.mark.parametrize("error", [ConnectionLost("gone"), ApiError(500, "InternalError", "oops")])
@pytest.mark.parametrize("when", ["fail_before", "fail_after"])
async def test_a_lost_answer_never_gives_quota_twice(error: Exception, when: str) -> None:
    world = World("a", "b")
    getattr(world.api, when).append(error)
    await world.run()
    assert world.admitted() == (["a"] if when == "fail_after" else [])
    await world.run(3)  # the watch is still silent: the write is settled by repeating it
    assert world.admitted() == ["a"]
    world.watch()
    await world.run()
    assert world.admitted() == ["a"]
    assert world.cycle.stats.uncertain == 0


async def test_a_workload_that_vanished_meanwhile_frees_the_quota() -> None:
    world = World("a", "b")
    world.api.fail_before.append(ApiError(404, "NotFound", "gone"))
    await world.run()
    world.builder.change(r.WORKLOADS, world.api.objects.pop("a"), None)
    await world.run()
    assert world.admitted() == ["b"]


async def test_never_is_said_at_once_and_once() -> None:
    world = World()
    world.api.objects["big"] = workload("big", gpus=64)
    world.watch()
    await world.run()
    condition = get_condition(world.api.objects["big"], "QuotaReserved") or {}
    assert condition["status"] == "False"
    assert condition["reason"] == "ExceedsMaxQuota"
    world.watch()
    await world.run(2)
    assert world.api.writes == 1


async def test_a_reason_that_was_not_written_is_written_soon() -> None:
    world = World()
    world.api.objects["big"] = workload("big", gpus=64)
    world.watch()
    world.api.fail_before.append(ApiError(409, "Conflict", "nobody else wrote, and no event will come"))
    again = await world.cycle.reconcile(KEY)
    assert again is not None
    assert again.requeue_after


async def test_a_release_that_was_refused_is_tried_again() -> None:
    class Refusing:
        async def patch(self, *_: Any, **__: Any) -> Object:
            raise modified("", "pods", "p")

        def at(self, _: str) -> Refusing:
            return self

    pod = named("Pod", "p", {"schedulingGates": [{"name": "kueue.x-k8s.io/topology"}]}, "team")
    pod["metadata"]["labels"] = {"kueue.x-k8s.io/podset": "main"}
    client: Any = Refusing()
    client.cluster = ""
    env = Env.seeded(1)
    ungater = Ungater(client, Informers(client, env), env)
    sent: dict[str, str | None] = {"p": "n"}
    assert not await ungater._release(Release(pod, "n"), PodSetInfo("main", 1), sent)
    assert sent == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.builder.change(r.LOCAL_QUEUES, named("LocalQueue", "main", {}, "team"), None), "does not exist"),
        (lambda w: w.builder.change(r.NAMESPACES, None, named("Namespace", "team", {})), ""),
        (
            lambda w: w.builder.change(
                r.LOCAL_QUEUES, None, named("LocalQueue", "main", {"clusterQueue": "q", "stopPolicy": "Hold"}, "team")
            ),
            "is stopped",
        ),
        (
            lambda w: w.builder.change(r.CLUSTER_QUEUES, None, named("ClusterQueue", "q", {"resourceGroups": []})),
            "does not take workloads of namespace",
        ),
    ],
)
def test_why_a_queue_does_not_take_a_workload(change: Callable[[World], None], words: str) -> None:
    world = World("a")
    change(world)
    world.builder.snapshot()
    said = [d.message for d in world.builder.barred().values()]
    assert len(said) == (1 if words else 0)
    assert all(words in message for message in said)


@pytest.mark.realtime
async def test_forecasts_of_the_worker_process_are_those_of_the_core() -> None:
    snapshot = World("a", "b", "c").builder.snapshot()
    planner = ProcessPlanner(threshold=1)
    try:
        expected = [replace(f, blockers=()) for f in forecast(snapshot, 0.0)]  # blockers stay in the worker
        assert await planner.forecast(snapshot, 0.0) == expected
        (worker,) = planner.worker_pids
        os.kill(worker, signal.SIGKILL)
        assert await planner.forecast(snapshot, 0.0) == forecast(snapshot, 0.0)  # answered here
        assert await planner.forecast(snapshot, 0.0) == expected
        assert await planner.decide(snapshot, 0.0) == decide(snapshot, 0.0, waits=False)
    finally:
        await planner.close()


@pytest.mark.realtime
async def test_decisions_of_the_worker_process_follow_the_queue() -> None:
    world = World("a", "b", "c")
    planner = ProcessPlanner(decide_threshold=0)
    try:
        for _ in range(3):
            snapshot = world.builder.snapshot()
            expected = [d for d in decide(snapshot, 0.0) if d.outcome is not Outcome.WAIT]
            assert await planner.decide(snapshot, 0.0) == expected
            name = snapshot.pending[0].key.rpartition("/")[2]
            gone = world.builder.objects[r.WORKLOADS][ObjectKey("", "team", name)]
            world.builder.change(r.WORKLOADS, gone, None)
    finally:
        await planner.close()


def test_snapshots_can_be_packed() -> None:
    assert len(pack(World("a").builder.snapshot())) > 0


def test_policies_reach_the_worker_and_only_when_they_change() -> None:
    snapshot = World("a").builder.snapshot()
    sender, receiver = Sender(), Receiver()
    assert receiver.apply(sender.update(snapshot)) == snapshot
    fair = replace(snapshot, fair_sharing=FairSharing(), gates=replace(snapshot.gates, concurrent_admission=True))
    update = sender.update(fair)
    assert sorted(update.parts) == ["fair_sharing", "gates"]
    assert receiver.apply(update) == fair
