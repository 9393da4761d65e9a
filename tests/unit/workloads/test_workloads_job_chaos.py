"""The Job controller under lost answers, refused writes, lagging caches and crashes ends with exact counts."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workloads_fakes import FakeApi, FakeClient, FakeInformers

from glebe.kube import virtualtime
from glebe.kube.clock import Env, format_time
from glebe.kube.errors import ApiError, internal, modified
from glebe.kube.objects import Object, condition_is_true
from glebe.kube.resources import JOBS, PODS, Resource
from glebe.kube.transport import ConnectionLost
from glebe.workloads.job import controller as job_controller
from glebe.workloads.job.indexes import parse_indexes
from glebe.workloads.job.pods import index_of, is_active


class LateError(ConnectionLost):
    late = True


class World:
    """A Job, its controller and a kubelet that ends pods at random; ``ended`` records each pod's end."""

    def __init__(self, seed: int, spec: dict[str, Any], failing: float, faults: float) -> None:
        self.env = Env.seeded(seed)
        self.rng = random.Random(seed)
        self.api = FakeApi(self.env)
        self.failing, self.faults = failing, faults
        self.calm = False
        self.outcome: dict[str, str] = {}  # uid -> phase it ended in (or Deleted)
        self.most_active_per_index = 0
        template = {"spec": {"containers": [{"name": "main"}], "restartPolicy": "Never"}}
        made = self.api.create(
            JOBS, {"metadata": {"name": "j", "namespace": "n"}, "spec": {"template": template, **spec}, "status": {}}
        )
        selector = {"matchLabels": {"batch.kubernetes.io/controller-uid": made["metadata"]["uid"]}}
        self.api.patch(JOBS, "j", "n", {"spec": {"selector": selector}}, None)

    def fault(self, verb: str, resource: Resource, name: str) -> BaseException | None:
        if self.calm or resource.plural == "events" or self.rng.random() > self.faults:
            return None
        kinds = [LateError("lost answer"), ConnectionLost("refused"), internal("etcd"), modified("", "pods", name)]
        return self.rng.choice(kinds)

    def lag(self) -> float:
        return 0.0 if self.calm else self.rng.choice([0.0, 0.0, 0.3, 2.0])

    def job(self) -> Object:
        found = self.api.find(JOBS, "j", "n")
        assert found
        return found

    async def kubelet(self) -> None:
        while True:
            await asyncio.sleep(self.rng.uniform(0.1, 3.0))
            pods = self.api.collection(PODS)
            for pod in pods:
                self.step(pod)
            active = [index_of(p) for p in self.api.collection(PODS) if is_active(p)]
            self.most_active_per_index = max([self.most_active_per_index, *(active.count(i) for i in set(active))])

    def step(self, pod: Object) -> None:
        pod = {**pod, "metadata": dict(pod["metadata"]), "status": dict(pod.get("status") or {}), "spec": pod["spec"]}
        meta, uid = pod["metadata"], pod["metadata"]["uid"]
        if "deletionTimestamp" in meta:
            meta["deletionGracePeriodSeconds"] = 0
            self.outcome.setdefault(uid, "Deleted")
            self.api.store(PODS, pod)
        elif uid not in self.outcome and self.rng.random() < 0.5:
            phase = "Failed" if self.rng.random() < self.failing else "Succeeded"
            self.outcome[uid] = pod["status"]["phase"] = phase
            end = {"exitCode": 1, "finishedAt": format_time(self.env.clock.now())}
            pod["status"]["containerStatuses"] = [{"name": "main", "state": {"terminated": end}}]
            self.api.store(PODS, pod)
        elif uid in self.outcome and self.rng.random() < 0.2:  # somebody tidies up: counts must survive that
            self.api.delete(PODS, meta["name"], "n", None, 0)

    async def lives(self) -> None:
        """The controller, killed and started again at random moments."""
        while True:
            informers = FakeInformers(self.api, self.lag)
            controller = job_controller.build(FakeClient(self.api, self.fault), informers, self.env)  # type: ignore[arg-type]
            run = asyncio.create_task(controller.run())
            await asyncio.sleep(100_000 if self.calm else self.rng.uniform(0.5, 60))
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)
            informers.close()

    async def play(self, script: Any = None) -> None:
        tasks = [asyncio.create_task(self.lives()), asyncio.create_task(self.kubelet())]
        if script is not None:
            await script(self)
        for _ in range(20_000):
            await asyncio.sleep(1.0)
            if condition_is_true(self.job(), "Complete") or condition_is_true(self.job(), "Failed"):
                break
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def ended(self, phase: str) -> int:
        return sum(1 for p in self.outcome.values() if p == phase)


async def _plays(seed: int, indexed: bool, count: int, parallel: int, failing: float, limit: int) -> None:
    spec = {"completions": count, "parallelism": parallel, "backoffLimit": limit}
    if indexed:
        spec["completionMode"] = "Indexed"
    world = World(seed, spec, failing, faults=0.15)
    await world.play()
    status = world.job()["status"]
    assert status["uncountedTerminatedPods"] == {}
    assert "active" not in status
    if condition_is_true(world.job(), "Complete"):
        assert status["succeeded"] == count
        assert status.get("failed", 0) == world.ended("Failed")
        if indexed:
            assert parse_indexes(status["completedIndexes"]) == set(range(count))
    else:
        assert status["failed"] > limit
        assert status["failed"] >= world.ended("Failed")
    assert not [p for p in world.api.collection(PODS) if p["metadata"].get("finalizers")]
    if indexed:
        assert world.most_active_per_index <= 1


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    indexed=st.booleans(),
    count=st.integers(1, 6),
    parallel=st.integers(1, 6),
    failing=st.sampled_from([0.0, 0.2, 0.6]),
    limit=st.sampled_from([0, 3, 50]),
)
def test_counts_are_exact_whatever_happens(
    seed: int, indexed: bool, count: int, parallel: int, failing: float, limit: int
) -> None:
    virtualtime.run(_plays(seed, indexed, count, parallel, failing, limit))


@pytest.mark.parametrize("seed", range(6))
async def test_suspension_in_the_middle_loses_nothing(seed: int) -> None:
    world = World(seed, {"completions": 5, "parallelism": 3, "completionMode": "Indexed"}, 0.1, faults=0.1)

    async def script(w: World) -> None:
        for suspend in (True, False, True, False):
            await asyncio.sleep(w.rng.uniform(1, 20))
            if condition_is_true(w.job(), "Complete"):
                return
            w.api.patch(JOBS, "j", "n", {"spec": {"suspend": suspend}}, None)
            if suspend:
                await asyncio.sleep(60)
                if not condition_is_true(w.job(), "Complete"):
                    assert not [p for p in w.api.collection(PODS) if is_active(p)]

    await world.play(script)
    assert condition_is_true(world.job(), "Complete")
    assert world.job()["status"]["succeeded"] == 5


async def test_a_thousand_pods_are_created_and_counted() -> None:
    world = World(1, {"completions": 1000, "parallelism": 1000, "completionMode": "Indexed"}, 0.0, faults=0.0)
    world.calm = True
    await world.play()
    assert world.job()["status"]["completedIndexes"] == "0-999"
    creates = [name for verb, plural, name in world.api.log if (verb, plural) == ("create", "pods")]
    assert len(creates) == len(set(creates)) == 1000


async def test_orphans_of_a_deleted_job_are_released() -> None:
    world = World(3, {"completions": 2, "parallelism": 2}, 0.0, faults=0.0)
    world.calm = True
    task = asyncio.create_task(world.lives())
    await asyncio.sleep(1)
    world.api.drop(JOBS, ("jobs", "n", "j"))
    for pod in world.api.collection(PODS):
        try:
            world.api.delete(PODS, pod["metadata"]["name"], "n", None, 0)
        except ApiError:
            raise AssertionError("a pod vanished by itself") from None
    await asyncio.sleep(1)
    assert world.api.collection(PODS) == []
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_pod_that_lost_its_owner_first_is_released_too() -> None:
    world = World(3, {"completions": 1, "parallelism": 1}, 0.0, faults=0.0)
    world.calm = True
    task = asyncio.create_task(world.lives())
    await asyncio.sleep(1)
    (pod,) = world.api.collection(PODS)
    world.api.drop(JOBS, ("jobs", "n", "j"))
    world.api.patch(PODS, pod["metadata"]["name"], "n", {"metadata": {"ownerReferences": None}}, None)
    await asyncio.sleep(1)
    assert not world.api.read(PODS, pod["metadata"]["name"], "n")["metadata"]["finalizers"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
