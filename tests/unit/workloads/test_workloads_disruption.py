"""Disruption budgets: their arithmetic, their controller, and evictions under them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store.memory import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError, is_not_found
from glebe.kube.informer import Informers
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import EVERY, Object, get_condition
from glebe.kube.resources import PODS, Resource
from glebe.workloads.disruption import controller as disruption
from glebe.workloads.disruption.counting import count, scaled, wanted

BUDGETS = disruption.BUDGETS
SETS = Resource("apps", "v1", "replicasets", "ReplicaSet")
STATEFUL = Resource("apps", "v1", "statefulsets", "StatefulSet")


@asynccontextmanager
async def running(*clusters: str) -> AsyncIterator[Client]:
    env = Env.seeded(7)
    server = ApiServer(MemoryStore(), env, TypeRegistry())
    await server.start()
    for name in clusters:
        await server.clusters.create(name)
    everywhere = Client(InProcessTransport(server.handle), cluster=EVERY)
    informers = Informers(everywhere, env)
    controllers = disruption.build(everywhere, informers, env)
    tasks = [asyncio.create_task(informers.run()), *(asyncio.create_task(c.run()) for c in controllers)]
    try:
        yield Client(InProcessTransport(server.handle))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.close()


async def until(what: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(60):
        while True:
            if value := await what():
                return value
            await asyncio.sleep(0.05)


def budget(name: str = "b", **spec: Any) -> Object:
    spec = {"selector": {"matchLabels": {"app": "a"}}, **spec}
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": meta, "spec": spec}


async def make_pod(api: Client, name: str, *, ready: bool = True, owner: Object | None = None) -> Object:
    meta: dict[str, Any] = {"name": name, "namespace": "default", "labels": {"app": "a"}}
    if owner is not None:
        reference = {k: owner["metadata"][k] for k in ("name", "uid")}
        meta["ownerReferences"] = [
            {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "controller": True} | reference
        ]
    spec = {"containers": [{"name": "c", "image": "i"}], "nodeName": "n"}
    made = await api.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    made["status"] = {**made["status"], "phase": "Running", "conditions": [condition]}
    return await api.update_status(PODS, made)


def workload(resource: Resource, name: str, replicas: int) -> Object:
    template = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec: dict[str, Any] = {"replicas": replicas, "selector": {"matchLabels": {"app": "a"}}, "template": template}
    if resource is STATEFUL:
        spec["serviceName"] = "s"
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta, "spec": spec}


async def status(api: Client, **wanted_: Any) -> Object:
    """Wait until the budget's status says so."""

    async def same() -> Object | None:
        found = await api.get(BUDGETS, "b", "default")
        now = found.get("status") or {}
        if now.get("observedGeneration") != found["metadata"]["generation"]:
            return None
        return now if all(now.get(k) == v for k, v in wanted_.items()) else None

    found: Object = await until(same)
    return found


async def evict(api: Client, name: str, **options: Any) -> None:
    meta = {"name": name, "namespace": "default"}
    body: Object = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta}
    if options:
        body["deleteOptions"] = options
    await api.create(PODS, body, "default", name=name, subresource="eviction")


async def blocked(call: Awaitable[Any]) -> str:
    with pytest.raises(ApiError) as caught:
        await call
    assert (caught.value.code, caught.value.reason) == (429, "TooManyRequests")
    assert caught.value.message == "Cannot evict pod as it would violate the pod's disruption budget."
    causes = caught.value.details["causes"]
    assert causes[0]["reason"] == "DisruptionBudget"
    return str(causes[0]["message"])


async def test_an_eviction_waits_until_the_budget_allows_it() -> None:
    async with running() as api:
        await make_pod(api, "p0")
        await api.create(BUDGETS, budget(minAvailable=1))
        found = await status(api, currentHealthy=1, desiredHealthy=1, expectedPods=1, disruptionsAllowed=0)
        assert found["conditions"][0]["reason"] == "InsufficientPods"
        text = await blocked(evict(api, "p0"))
        assert text == "The disruption budget b needs 1 healthy pods and has 1 currently"
        await make_pod(api, "p1")
        found = await status(api, disruptionsAllowed=1)
        assert found["conditions"][0]["status"] == "True"
        await evict(api, "p0", gracePeriodSeconds=0)
        with pytest.raises(ApiError) as caught:
            await api.get(PODS, "p0", "default")
        assert is_not_found(caught.value)
        await status(api, disruptionsAllowed=0, expectedPods=1)


async def test_dry_runs_take_nothing_and_names_must_agree() -> None:
    async with running() as api:
        for number in range(2):
            await make_pod(api, f"p{number}")
        await api.create(BUDGETS, budget(minAvailable=1))
        await status(api, disruptionsAllowed=1)
        for _ in range(2):
            await evict(api, "p0", dryRun=["All"])
        found = await api.get(PODS, "p0", "default")
        assert get_condition(found, "DisruptionTarget") is None
        await status(api, disruptionsAllowed=1)
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "other"}}
        with pytest.raises(ApiError, match="name in URL does not match name in Eviction object"):
            await api.create(PODS, body, "default", name="p0", subresource="eviction")


async def test_a_crowd_of_evictions_takes_exactly_what_is_allowed() -> None:
    async with running() as api:
        for number in range(20):
            await make_pod(api, f"p{number}")
        await api.create(BUDGETS, budget(minAvailable=13))
        await status(api, disruptionsAllowed=7)
        answers = await asyncio.gather(*(evict(api, f"p{n}") for n in range(20)), return_exceptions=True)
        assert sum(a is None for a in answers) == 7
        going = [p for p in (await api.list(PODS, "default")).items if "deletionTimestamp" in p["metadata"]]
        assert len(going) == 7
        reasons = {(get_condition(p, "DisruptionTarget") or {})["reason"] for p in going}
        assert reasons == {"EvictionByEvictionAPI"}
        await status(api, disruptionsAllowed=0, currentHealthy=13)


@pytest.mark.parametrize(("resource", "spec", "healthy"), [
    (SETS, {"maxUnavailable": 1}, (4, 3)),
    (SETS, {"maxUnavailable": "30%"}, (4, 2)),
    (STATEFUL, {"minAvailable": "50%"}, (4, 2)),
])  # fmt: skip
async def test_scale_of_controllers(resource: Resource, spec: dict[str, Any], healthy: tuple[int, int]) -> None:
    async with running() as api:
        owner = await api.create(resource, workload(resource, "w", 4))
        for number in range(3):
            await make_pod(api, f"p{number}", owner=owner)
        await api.create(BUDGETS, budget(**spec))
        expected, desired = healthy
        await status(api, expectedPods=expected, desiredHealthy=desired, disruptionsAllowed=max(0, 3 - desired))


async def test_what_cannot_be_counted_allows_nothing() -> None:
    async with running() as api:
        jobs = Resource("batch", "v1", "jobs", "Job")
        template = {"spec": {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"}}
        meta = {"name": "j", "namespace": "default"}
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {"template": template}}
        await make_pod(api, "p0", owner=await api.create(jobs, job))
        await api.create(BUDGETS, budget(maxUnavailable=1))

        async def failed() -> Object | None:
            found = await api.get(BUDGETS, "b", "default")
            condition = get_condition(found, "DisruptionAllowed") or {}
            return condition if condition.get("reason") == "SyncFailed" else None

        assert (await until(failed))["message"] == "jobs.batch does not implement the scale subresource"


async def test_pods_that_are_not_ready() -> None:
    async with running() as api:
        await make_pod(api, "good")
        await make_pod(api, "bad", ready=False)
        await api.create(BUDGETS, budget(minAvailable=2))
        await status(api, currentHealthy=1, disruptionsAllowed=0)
        await blocked(evict(api, "bad"))
        await api.patch(BUDGETS, "b", {"spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}}, "default")
        await status(api, currentHealthy=1)
        await evict(api, "bad")
        await api.patch(BUDGETS, "b", {"spec": {"unhealthyPodEvictionPolicy": None, "minAvailable": 1}}, "default")
        await status(api, desiredHealthy=1, currentHealthy=1)
        await make_pod(api, "worse", ready=False)
        await evict(api, "worse")
        await blocked(evict(api, "good"))


async def test_a_granted_eviction_that_does_not_happen_runs_out() -> None:
    async with running() as api:
        for number in range(2):
            await make_pod(api, f"p{number}")
        made = await api.create(BUDGETS, budget(minAvailable=1))
        await status(api, disruptionsAllowed=1)
        made = await api.get(BUDGETS, "b", "default")
        made["status"]["disruptedPods"] = {"p0": "2026-01-01T00:00:00Z"}
        await api.update_status(BUDGETS, made)
        await status(api, disruptionsAllowed=0, currentHealthy=1, disruptedPods={"p0": "2026-01-01T00:00:00Z"})
        await asyncio.sleep(125)
        found = await status(api, disruptionsAllowed=1, currentHealthy=2)
        assert "disruptedPods" not in found


async def test_a_pod_that_stays_is_no_target_any_more() -> None:
    async with running() as api:
        made = await make_pod(api, "p0")
        target = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "x"}
        target["lastTransitionTime"] = "2026-01-01T00:00:00Z"
        made["status"]["conditions"].append(target)
        await api.update_status(PODS, made)
        await asyncio.sleep(60)
        assert (get_condition(await api.get(PODS, "p0", "default"), "DisruptionTarget") or {})["status"] == "True"
        await asyncio.sleep(65)
        assert (get_condition(await api.get(PODS, "p0", "default"), "DisruptionTarget") or {})["status"] == "False"


async def test_clusters_have_budgets_of_their_own() -> None:
    async with running("t1") as api:
        other = api.for_cluster("t1")
        await make_pod(other, "p0")
        await make_pod(api, "p0")
        await other.create(BUDGETS, budget(minAvailable=1))
        await status(other, currentHealthy=1, expectedPods=1)
        await blocked(evict(other, "p0"))
        await evict(api, "p0")


async def test_two_budgets_for_one_pod_are_not_supported() -> None:
    async with running() as api:
        await make_pod(api, "p0")
        for name in ("b", "c"):
            await api.create(BUDGETS, budget(name, minAvailable=0))
        with pytest.raises(ApiError, match="more than one PodDisruptionBudget"):
            await evict(api, "p0")


@given(st.integers(0, 200), st.integers(0, 100))
def test_percentages_are_rounded_up(total: int, percent: int) -> None:
    value = scaled(f"{percent}%", total)
    assert value * 100 >= percent * total > (value - 1) * 100


@given(st.integers(0, 30), st.integers(0, 40), st.integers(0, 30))
def test_no_budget_allows_more_than_there_is(ready: int, least: int, other: int) -> None:
    pods = [
        {"metadata": {"name": f"p{n}"}, "status": {"conditions": [{"type": "Ready", "status": str(n < ready)}]}}
        for n in range(ready + other)
    ]
    expected, desired = wanted({"minAvailable": least}, len(pods), 0)
    counts = count(pods, expected, desired, {}, 0.0)
    assert counts.healthy == ready
    assert counts.allowed == max(0, ready - least) * (len(pods) > 0)
