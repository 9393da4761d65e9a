"""Deployments and ReplicaSets under lost answers, refused writes, lagging caches and crashes come to rest as asked."""

from __future__ import annotations

import asyncio
import copy
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workloads_fakes import FakeApi, FakeClient, FakeInformers

from glebe.kube import virtualtime
from glebe.kube.clock import Env, format_time
from glebe.kube.errors import internal, modified
from glebe.kube.objects import Object, annotations_of, controller_of, get_condition
from glebe.kube.resources import DEPLOYMENTS, PODS, REPLICA_SETS, Resource
from glebe.kube.transport import ConnectionLost
from glebe.workloads.deployment import controller as deployments
from glebe.workloads.replicas import controller as replicas


class LateError(ConnectionLost):
    late = True


class Api(FakeApi):
    """As upstream and here, a write of a Deployment's status may change its annotations."""

    def update(self, resource: Resource, new: Object, subresource: str | None) -> Object:
        if resource is not DEPLOYMENTS or subresource != "status":
            return super().update(resource, new, subresource)
        old = self.read(resource, new["metadata"]["name"], "n")
        if new["metadata"]["resourceVersion"] != old["metadata"]["resourceVersion"]:
            raise modified(resource.group, resource.plural, "d")
        out = copy.deepcopy({**old, "status": new["status"]})
        out["metadata"]["annotations"] = dict(annotations_of(new))
        return old if out == old else self.store(resource, out)


class World:
    """A Deployment, the controllers (killed and started again) and a kubelet."""

    def __init__(self, seed: int, faults: float, **spec: Any) -> None:
        self.env = Env.seeded(seed)
        self.rng = random.Random(seed)
        self.api = Api(self.env)
        self.faults = faults
        self.most = 0
        self.created: list[str] = []
        labels = {"a": "b"}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "m", "image": "v1"}]}}
        body = {"selector": {"matchLabels": labels}, "template": template, "progressDeadlineSeconds": 600, **spec}
        meta = {"name": "d", "namespace": "n"}
        self.api.create(DEPLOYMENTS, {"metadata": meta, "spec": body, "status": {}})

    def fault(self, verb: str, resource: Resource, name: str) -> BaseException | None:
        if resource.plural == "events" or self.rng.random() > self.faults:
            return None
        kinds = [LateError("lost answer"), ConnectionLost("refused"), internal("etcd"), modified("", "x", name)]
        return self.rng.choice(kinds)

    def lag(self) -> float:
        return self.rng.choice([0.0, 0.0, 0.3, 2.0])

    def read(self) -> Object:
        found = self.api.find(DEPLOYMENTS, "d", "n")
        assert found
        return found

    def change(self, patch: Object) -> None:
        new = {**patch, "metadata": {"generation": self.read()["metadata"]["generation"] + 1}}
        self.api.patch(DEPLOYMENTS, "d", "n", new, None)

    def set_image(self, image: str) -> None:
        self.change({"spec": {"template": {"spec": {"containers": [{"name": "m", "image": image}]}}}})

    async def kubelet(self) -> None:
        while True:
            await asyncio.sleep(self.rng.uniform(0.1, 1.0))
            for one in self.api.collection(REPLICA_SETS):  # the fake API does not count generations
                spec = one["spec"].get("replicas")
                if one.get("seen") != spec:
                    meta = {"generation": one["metadata"]["generation"] + 1}
                    self.api.patch(REPLICA_SETS, one["metadata"]["name"], "n", {"seen": spec, "metadata": meta}, None)
            for pod in self.api.collection(PODS):
                self.step(pod)

    def step(self, pod: Object) -> None:
        meta = pod["metadata"]
        if "deletionTimestamp" in meta:
            self.api.delete(PODS, meta["name"], "n", None, 0)
        elif get_condition(pod, "Ready") is None and self.rng.random() < 0.7:
            ready = {"type": "Ready", "status": "True", "lastTransitionTime": format_time(self.env.clock.now())}
            status = {"status": {"phase": "Running", "conditions": [ready]}, "spec": {"nodeName": "n1"}}
            self.api.patch(PODS, meta["name"], "n", status, None)

    async def lives(self) -> None:
        while True:
            informers = FakeInformers(self.api, self.lag)
            client = FakeClient(self.api, self.fault)
            made = [
                deployments.build(client, informers, self.env),  # type: ignore[arg-type]
                *replicas.build(client, informers, self.env),  # type: ignore[arg-type]
            ]
            tasks = [asyncio.create_task(c.run()) for c in made]
            await asyncio.sleep(self.rng.uniform(0.5, 60) if self.faults else 1e6)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            informers.close()

    def at_rest(self, image: str) -> bool:
        obj = self.read()
        count, status = obj["spec"]["replicas"], obj.get("status") or {}
        pods = self.api.collection(PODS)
        images = {p["spec"]["containers"][0]["image"] for p in pods}
        numbers = [status.get(n, 0) for n in ("replicas", "updatedReplicas", "availableReplicas")]
        return len(pods) == count and images <= {image} and numbers == [count] * 3

    async def until(self, image: str) -> None:
        for _ in range(3000):
            await asyncio.sleep(1.0)
            if self.at_rest(image):
                return
        raise AssertionError((self.read()["status"], [p["metadata"]["name"] for p in self.api.collection(PODS)]))


async def _plays(seed: int, count: int, faults: float, recreate: bool) -> None:
    kind = "Recreate" if recreate else "RollingUpdate"
    strategy: Object = {"type": kind}
    if not recreate:
        strategy["rollingUpdate"] = {"maxSurge": "25%", "maxUnavailable": "25%"}
    world = World(seed, faults, replicas=count, strategy=strategy, revisionHistoryLimit=10)
    tasks = [asyncio.create_task(world.lives()), asyncio.create_task(world.kubelet())]
    try:
        await world.until("v1")
        world.set_image("v2")
        await asyncio.sleep(world.rng.uniform(0, 10))
        world.set_image("v3")  # a roll-over
        await world.until("v3")
        world.change({"spec": {"replicas": count + 2}})
        await world.until("v3")
        world.set_image("v1")  # back
        await world.until("v1")
        await asyncio.sleep(120)
        assert world.at_rest("v1")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    sets = world.api.collection(REPLICA_SETS)
    images = [s["spec"]["template"]["spec"]["containers"][0]["image"] for s in sets]
    assert len(images) == len(set(images))  # never two sets of one template, whatever was lost
    newest = max(int(annotations_of(s)["deployment.kubernetes.io/revision"]) for s in sets)
    assert annotations_of(world.read())["deployment.kubernetes.io/revision"] == str(newest)
    assert all((controller_of(p) or {}).get("kind") == "ReplicaSet" for p in world.api.collection(PODS))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.sampled_from([0.05, 0.2]), st.booleans())
def test_it_comes_to_rest_whatever_happens(seed: int, count: int, faults: float, recreate: bool) -> None:
    virtualtime.run(_plays(seed, count, faults, recreate))


@pytest.mark.parametrize("count", [1, 100])
async def test_without_faults_no_pod_is_made_in_vain(count: int) -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    world = World(1, 0.0, replicas=count, strategy=strategy)
    tasks = [asyncio.create_task(world.lives()), asyncio.create_task(world.kubelet())]
    await world.until("v1")
    creates = [name for verb, plural, name in world.api.log if (verb, plural) == ("create", "pods")]
    assert len(creates) == count
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_lost_event_is_made_up_for() -> None:
    """A pod whose creation the cache never tells of is looked up after a while."""
    world = World(3, 0.0, replicas=2, strategy={"type": "Recreate"})
    informers = FakeInformers(world.api)
    client = FakeClient(world.api)
    made = [deployments.build(client, informers, world.env), *replicas.build(client, informers, world.env)]  # type: ignore[arg-type]
    tasks = [asyncio.create_task(c.run()) for c in made]
    pods = informers.get(PODS)
    deliver = pods.deliver
    lost: list[str] = []

    def drop_first(obj: Object, gone: bool) -> None:
        if not lost:
            lost.append(obj["metadata"]["name"])
        if obj["metadata"]["name"] not in lost:
            deliver(obj, gone)

    pods.deliver = drop_first
    await asyncio.sleep(5)
    assert len(world.api.collection(PODS)) == 2
    world.api.drop(PODS, ("pods", "n", lost[0]))  # and now it is really gone, which nobody hears either
    await asyncio.sleep(60)
    assert len(world.api.collection(PODS)) == 2
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
