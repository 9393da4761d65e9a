"""PodGroups: what their condition says, and what keeps them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from workloads_fakes import FakeApi, FakeClient, FakeInformers
from workloads_stage import stage, until

from glebe.kube.clock import Env
from glebe.kube.objects import Object, get_condition
from glebe.kube.resources import PODS
from glebe.workloads.podgroups import FINALIZER, POD_GROUPS, PodGroups, verdict


@asynccontextmanager
async def running(lag: Callable[[], float] = lambda: 0.0) -> AsyncIterator[FakeApi]:
    env = Env.seeded(1)
    api = FakeApi(env)
    informers: Any = FakeInformers(api, lag)
    client: Any = FakeClient(api)
    task = asyncio.create_task(PodGroups(client, informers, env).run())
    try:
        yield api
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def group(gang: int = 0) -> Object:
    policy: Object = {"gang": {"minCount": gang}} if gang else {"basic": {}}
    meta = {"name": "g", "namespace": "n", "finalizers": [FINALIZER]}
    return {
        "apiVersion": "scheduling.k8s.io/v1alpha2",
        "kind": "PodGroup",
        "metadata": meta,
        "spec": {"schedulingPolicy": policy},
    }


def pod(name: str, node: str = "", why: str = "") -> Object:
    spec: Object = {"containers": [{"name": "c"}], "schedulingGroup": {"podGroupName": "g"}}
    if node:
        spec["nodeName"] = node
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why}
    status: Object = {"conditions": [condition]} if why else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "n"},
        "spec": spec,
        "status": status,
    }


async def condition(api: FakeApi, reason: str) -> Object:
    async def there() -> Object | None:
        found = get_condition(api.read(POD_GROUPS, "g", "n"), "PodGroupScheduled")
        return found if found and found["reason"] == reason else None

    found: Object = await until(there)
    return found


async def test_a_gang_is_scheduled_when_enough_of_its_pods_are() -> None:
    async with running() as api:
        api.create(POD_GROUPS, group(gang=2))
        api.create(PODS, pod("a", why="0/3 nodes are available"))
        found = await condition(api, "Unschedulable")
        assert (found["status"], found["message"], found["observedGeneration"]) == (
            "False",
            "0/3 nodes are available",
            1,
        )
        api.create(PODS, pod("b", "n1"))
        api.create(PODS, pod("c", "n2"))
        assert (await condition(api, "Scheduled"))["status"] == "True"
        api.delete(PODS, "b", "n", grace=0)
        await asyncio.sleep(5)
        assert (await condition(api, "Scheduled"))["status"] == "True", "it never goes back"


async def test_a_group_stays_while_a_pod_needs_it() -> None:
    async with running(lambda: 0.5) as api:
        api.create(POD_GROUPS, group())
        api.create(PODS, pod("a"))
        api.create(PODS, pod("b"))
        api.delete(POD_GROUPS, "g", "n", grace=0)
        api.delete(PODS, "b", "n", grace=0)
        await asyncio.sleep(5)
        assert api.find(POD_GROUPS, "g", "n") is not None
        api.patch(PODS, "a", "n", {"status": {"phase": "Succeeded"}}, None)
        await asyncio.sleep(5)
        assert api.find(POD_GROUPS, "g", "n") is None


async def test_nothing_is_watched_where_the_version_is_not_served() -> None:
    made: list[PodGroups] = []

    def build(*given: Any) -> PodGroups:
        made.append(PodGroups(*given))
        return made[0]

    async with stage([build], kubelet=False):
        await asyncio.sleep(30)
        assert made[0]._groups is None


def test_one_pod_is_enough_for_a_basic_group() -> None:
    assert verdict(group(), []) is None
    assert verdict(group(), [pod("a", "n")]) == ("True", "Scheduled", "")
    assert verdict(group(gang=2), [pod("a", "n")]) is None
