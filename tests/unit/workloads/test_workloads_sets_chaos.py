"""StatefulSets, DaemonSets and CronJobs under lost answers, refused writes, lagging caches and crashes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from workloads_fakes import FakeApi, FakeClient, FakeInformers

from glebe.kube import virtualtime
from glebe.kube.clock import Env, format_time
from glebe.kube.errors import ApiError, internal, modified
from glebe.kube.objects import Object, is_deleting
from glebe.kube.resources import (
    CONTROLLER_REVISIONS,
    CRON_JOBS,
    DAEMON_SETS,
    JOBS,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    STATEFUL_SETS,
    Resource,
)
from glebe.kube.transport import ConnectionLost
from glebe.workloads.cronjob import controller as cronjob
from glebe.workloads.daemonset import controller as daemonset
from glebe.workloads.daemonset.placing import target_of
from glebe.workloads.statefulset import controller as statefulset


class LateError(ConnectionLost):
    late = True


class World:
    """A controller that is killed and started again, and a kubelet; everything may fail until it is calm."""

    def __init__(self, seed: int, build: Callable[..., Any]) -> None:
        self.env = Env.seeded(seed)
        self.rng = random.Random(seed)
        self.api = FakeApi(self.env)
        self.build = build
        self.calm = False

    def fault(self, verb: str, resource: Resource, name: str) -> BaseException | None:
        if self.calm or resource.plural == "events" or self.rng.random() > 0.15:
            return None
        kinds = [LateError("lost answer"), ConnectionLost("refused"), internal("etcd"), modified("", "pods", name)]
        return self.rng.choice(kinds)

    def lag(self) -> float:
        return 0.0 if self.calm else self.rng.choice([0.0, 0.0, 0.3, 2.0])

    async def lives(self) -> None:
        while True:
            informers = FakeInformers(self.api, self.lag)
            controller = self.build(FakeClient(self.api, self.fault), informers, self.env)
            run = asyncio.create_task(controller.run())
            await asyncio.sleep(100_000 if self.calm else self.rng.uniform(0.5, 60))
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)
            informers.close()

    async def kubelet(self) -> None:
        while True:
            await asyncio.sleep(self.rng.uniform(0.1, 2.0))
            for pod in self.api.collection(PODS):
                self._step({**pod, "metadata": dict(pod["metadata"]), "spec": dict(pod["spec"])})

    def _step(self, pod: Object) -> None:
        meta = pod["metadata"]
        if is_deleting(pod):
            meta["deletionGracePeriodSeconds"] = 0
        elif (pod.get("status") or {}).get("phase") in ("Running", "Failed") or self.rng.random() < 0.3:
            return
        else:
            phase = "Failed" if not self.calm and self.rng.random() < 0.1 else "Running"
            ready = {"type": "Ready", "status": "True", "lastTransitionTime": format_time(self.env.clock.now())}
            pod["status"] = {"phase": phase, "conditions": [ready] if phase == "Running" else []}
            pod["spec"]["nodeName"] = target_of(pod) or "n"
        self.api.store(PODS, pod)

    def change(self, resource: Resource, patch: Object) -> None:
        """As a user would: the generation counts."""
        old = self.api.find(resource, "x", "n")
        assert old
        generation = {"metadata": {"generation": old["metadata"]["generation"] + 1}}
        self.api.patch(resource, "x", "n", {**patch, **generation}, None)

    async def play(self, script: Callable[[], Any], rest: float = 1500.0) -> None:
        tasks = [asyncio.create_task(self.lives()), asyncio.create_task(self.kubelet())]
        await script()
        self.calm = True
        await asyncio.sleep(rest)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def status(self, resource: Resource) -> Object:
        found = self.api.find(resource, "x", "n")
        assert found
        return dict(found["status"])

    def lose_a_pod(self) -> None:
        pods = self.api.collection(PODS)
        if pods:
            try:
                self.api.delete(PODS, self.rng.choice(pods)["metadata"]["name"], "n")
            except ApiError:
                return


def _owner(**spec: Any) -> Object:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "main", "image": "0"}]}}
    meta = {"name": "x", "namespace": "n"}
    return {
        "metadata": meta,
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template, **spec},
        "status": {},
    }


def _image(number: int) -> Object:
    return {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": str(number)}]}}}}


async def _stateful(seed: int, parallel: bool) -> None:
    world = World(seed, statefulset.build)
    policy = "Parallel" if parallel else "OrderedReady"
    claims = [{"metadata": {"name": "data"}, "spec": {}}]
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}
    body = _owner(replicas=3, podManagementPolicy=policy, volumeClaimTemplates=claims, updateStrategy=strategy)
    world.api.create(STATEFUL_SETS, body)
    replicas, image = 3, 0

    async def script() -> None:
        nonlocal replicas, image
        for _ in range(6):
            await asyncio.sleep(world.rng.uniform(1, 60))
            match world.rng.choice(["scale", "image", "lose"]):
                case "scale":
                    replicas = world.rng.randint(0, 5)
                    world.change(STATEFUL_SETS, {"spec": {"replicas": replicas}})
                case "image":
                    image = world.rng.randint(0, 3)
                    world.change(STATEFUL_SETS, _image(image))
                case "lose":
                    world.lose_a_pod()

    await world.play(script)
    pods = world.api.collection(PODS)
    assert [p["metadata"]["name"] for p in pods] == [f"x-{i}" for i in range(replicas)]
    assert {p["spec"]["containers"][0]["image"] for p in pods} <= {str(image)}
    status = world.status(STATEFUL_SETS)
    assert [status.get(f, 0) for f in ("replicas", "readyReplicas", "updatedReplicas")] == [replicas] * 3
    assert status["currentRevision"] == status["updateRevision"]
    names = {c["metadata"]["name"] for c in world.api.collection(PERSISTENT_VOLUME_CLAIMS)}
    assert names >= {f"data-x-{i}" for i in range(replicas)}
    templates = [str(r["data"]) for r in world.api.collection(CONTROLLER_REVISIONS)]
    assert len(set(templates)) == len(templates)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10**6), parallel=st.booleans())
def test_a_stateful_set_arrives_whatever_happens(seed: int, parallel: bool) -> None:
    virtualtime.run(_stateful(seed, parallel))


async def _daemon(seed: int, surge: bool) -> None:
    world = World(seed, daemonset.build)
    rolling = {"maxSurge": 1, "maxUnavailable": 0} if surge else {"maxUnavailable": 1}
    for i in range(3):
        world.api.create(NODES, {"metadata": {"name": f"n{i}", "labels": {}}, "spec": {}})
    world.api.create(DAEMON_SETS, _owner(updateStrategy={"type": "RollingUpdate", "rollingUpdate": rolling}))
    image, away = 0, False

    async def script() -> None:
        nonlocal image, away
        for _ in range(6):
            await asyncio.sleep(world.rng.uniform(1, 60))
            match world.rng.choice(["taint", "image", "lose"]):
                case "taint":
                    away = not away
                    taints = [{"key": "k", "effect": "NoExecute"}] if away else None
                    world.api.patch(NODES, "n1", "", {"spec": {"taints": taints}}, None)
                case "image":
                    image = world.rng.randint(0, 3)
                    world.change(DAEMON_SETS, _image(image))
                case "lose":
                    world.lose_a_pod()

    await world.play(script)
    pods = world.api.collection(PODS)
    expected = ["n0", "n2"] if away else ["n0", "n1", "n2"]
    assert sorted(target_of(p) for p in pods) == expected
    assert {p["spec"]["containers"][0]["image"] for p in pods} == {str(image)}
    status = world.status(DAEMON_SETS)
    fields = ("desiredNumberScheduled", "currentNumberScheduled", "updatedNumberScheduled", "numberAvailable")
    assert [status.get(f) for f in fields] == [len(expected)] * 4


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10**6), surge=st.booleans())
def test_a_daemon_set_arrives_whatever_happens(seed: int, surge: bool) -> None:
    virtualtime.run(_daemon(seed, surge))


async def _cron(seed: int) -> None:
    world = World(seed, cronjob.build)
    spec = {
        "schedule": "*/2 * * * *",
        "jobTemplate": {"spec": {"template": {"spec": {}}}},
        "concurrencyPolicy": "Allow",
    }
    world.api.create(CRON_JOBS, {"metadata": {"name": "x", "namespace": "n"}, "spec": spec, "status": {}})

    async def script() -> None:
        await asyncio.sleep(20 * 60 + 30)

    await world.play(script, rest=4 * 60)
    jobs = [j["metadata"]["name"] for j in world.api.collection(JOBS)]
    first = int(world.env.clock.now() - world.env.clock.now() % 60) // 60 - 24
    due = [f"x-{first + 2 * i}" for i in range(1, 13)]
    assert set(jobs) <= set(due)
    assert len(jobs) >= 10  # of a time that passes while the controller is down only the last is made up for
    status = world.status(CRON_JOBS)
    assert jobs[-1] == due[-1]
    assert {r["name"] for r in status["active"]} == set(jobs)
    assert len(status["active"]) == len(jobs)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_each_time_of_a_schedule_has_one_job_whatever_happens(seed: int) -> None:
    virtualtime.run(_cron(seed))
