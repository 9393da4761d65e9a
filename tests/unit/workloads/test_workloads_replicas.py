"""ReplicaSets and ReplicationControllers on the real API server, under virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from test_workloads_server import add_node, bound, running, until

from glebe.kube.client import Client
from glebe.kube.clock import format_time
from glebe.kube.objects import Object, controller_of, get_condition
from glebe.kube.resources import EVENTS, PODS, REPLICA_SETS, REPLICATION_CONTROLLERS, Resource

QUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota")
KINDS = pytest.mark.parametrize("resource", [REPLICA_SETS, REPLICATION_CONTROLLERS], ids=lambda r: r.plural)


def replicas(resource: Resource, name: str = "web", count: int = 3, **spec: Any) -> Object:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "x"}]}}
    selector: Any = {"matchLabels": labels} if resource is REPLICA_SETS else labels
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": count, "selector": selector, "template": template, **spec},
    }


def pod(name: str, **labels: str) -> Object:
    meta = {"name": name, "namespace": "default", "labels": labels}
    return {"metadata": meta, "spec": {"containers": [{"name": "main", "image": "x"}]}}


async def alive(client: Client) -> list[Object]:
    return [p for p in (await client.list(PODS, "default")).items if "deletionTimestamp" not in p["metadata"]]


def count_of(client: Client, count: int) -> Callable[[], Awaitable[Any]]:
    async def check() -> Any:
        pods = await alive(client)
        return (pods or True) if len(pods) == count else False

    return check


def has_status(client: Client, resource: Resource, name: str = "web", **values: Any) -> Callable[[], Awaitable[Any]]:
    async def check() -> Any:
        obj = await client.get(resource, name, "default")
        status = obj.get("status") or {}
        return obj if all(status.get(k) == v for k, v in values.items()) else None

    return check


async def make_ready(client: Client, at: float, *names: str) -> None:
    for p in await alive(client):
        if not names or p["metadata"]["name"] in names:
            ready = {"type": "Ready", "status": "True", "lastTransitionTime": format_time(at)}
            p["status"] = {**p["status"], "phase": "Running", "conditions": [ready]}
            await client.update_status(PODS, p)


async def messages(client: Client, reason: str) -> list[str]:
    return [e["message"] for e in (await client.list(EVENTS, "default")).items if e["reason"] == reason]


@KINDS
async def test_keeps_the_number(resource: Resource) -> None:
    async with running() as client:
        await client.create(resource, replicas(resource))
        pods = await until(count_of(client, 3))
        for p in pods:
            owner = controller_of(p)
            assert owner is not None
            assert (owner["kind"], owner["name"], owner["blockOwnerDeletion"]) == (resource.kind, "web", True)
            assert p["metadata"]["generateName"] == "web-"
            assert p["metadata"]["name"].startswith("web-")
            assert len(p["metadata"]["name"]) == 9
        obj = await until(has_status(client, resource, replicas=3, fullyLabeledReplicas=3, observedGeneration=1))
        assert "readyReplicas" not in obj["status"]
        assert sorted(await messages(client, "SuccessfulCreate")) == sorted(
            f"Created pod: {p['metadata']['name']}" for p in pods
        )
        await make_ready(client, 0.0)
        await until(has_status(client, resource, readyReplicas=3, availableReplicas=3))

        await client.delete(PODS, pods[0]["metadata"]["name"], "default", grace_period=0)
        again = await until(count_of(client, 3))
        assert pods[0]["metadata"]["uid"] not in [p["metadata"]["uid"] for p in again]

        await client.patch(resource, "web", {"spec": {"replicas": 1}}, "default")
        (left,) = await until(count_of(client, 1))
        assert left["status"]["phase"] == "Running"  # the pending one went first
        await until(has_status(client, resource, replicas=1, readyReplicas=1, observedGeneration=2))
        assert len(await messages(client, "SuccessfulDelete")) == 2


async def test_ended_pods_are_replaced() -> None:
    async with running() as client:
        await client.create(REPLICA_SETS, replicas(REPLICA_SETS, count=1))
        (p,) = await until(count_of(client, 1))
        await client.update_status(PODS, {**p, "status": {**p["status"], "phase": "Failed"}})
        await until(count_of(client, 2))
        await until(has_status(client, REPLICA_SETS, replicas=1))


@KINDS
async def test_adopts_and_releases(resource: Resource) -> None:
    async with running() as client:
        orphan = await client.create(PODS, pod("orphan", app="web"))
        await client.create(PODS, pod("stranger", app="other"))
        created = await client.create(resource, replicas(resource, count=2))
        await until(has_status(client, resource, replicas=2))
        mine = await client.get(PODS, "orphan", "default")
        assert (controller_of(mine) or {})["uid"] == created["metadata"]["uid"]
        assert mine["metadata"]["uid"] == orphan["metadata"]["uid"]
        assert controller_of(await client.get(PODS, "stranger", "default")) is None
        assert len(await alive(client)) == 3

        await client.patch(PODS, "orphan", {"metadata": {"labels": {"app": "changed"}}}, "default")

        async def released() -> bool:
            return controller_of(await client.get(PODS, "orphan", "default")) is None

        await until(released)
        await until(count_of(client, 4))
        # An orphan that begins to match is taken, and one too many goes.
        await client.patch(PODS, "stranger", {"metadata": {"labels": {"app": "web"}}}, "default")
        await until(count_of(client, 3))


async def test_min_ready_seconds_pass_by_themselves() -> None:
    async with running() as client:
        await client.create(REPLICA_SETS, replicas(REPLICA_SETS, count=1, minReadySeconds=20))
        await until(count_of(client, 1))
        loop = asyncio.get_running_loop()
        await make_ready(client, _now())
        obj = await until(has_status(client, REPLICA_SETS, readyReplicas=1))
        assert "availableReplicas" not in obj["status"]
        start = loop.time()
        await until(has_status(client, REPLICA_SETS, availableReplicas=1))
        assert 17 <= loop.time() - start <= 21


def _now() -> float:
    from glebe.kube.clock import Env

    return Env.seeded(7).clock.now()


async def test_terminating_pods_are_counted() -> None:
    async with running() as client:
        await add_node(client, "a")
        await client.create(REPLICA_SETS, replicas(REPLICA_SETS, count=1))
        (p,) = await until(lambda: bound(client, 1))  # what ends on no node is marked failed, and counted no more
        name = p["metadata"]["name"]
        await client.patch(PODS, name, {"metadata": {"finalizers": ["example.com/hold"]}}, "default")
        await client.delete(PODS, name, "default", grace_period=0)
        await until(has_status(client, REPLICA_SETS, replicas=1, terminatingReplicas=1))
        await client.patch(PODS, name, {"metadata": {"finalizers": None}}, "default")
        await until(has_status(client, REPLICA_SETS, replicas=1, terminatingReplicas=0))


@KINDS
async def test_a_refusal_stands_in_the_status(resource: Resource) -> None:
    async with running() as client:
        hard = {"pods": "2"}
        quota = {"metadata": {"name": "q", "namespace": "default"}, "spec": {"hard": hard}}
        created = await client.create(QUOTAS, quota)
        await client.update_status(QUOTAS, {**created, "status": {"hard": hard, "used": {"pods": "0"}}})
        await client.create(resource, replicas(resource, count=3))

        async def failing() -> Any:
            return get_condition(await client.get(resource, "web", "default"), "ReplicaFailure")

        condition = await until(failing)
        assert (condition["status"], condition["reason"]) == ("True", "FailedCreate")
        why = "is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"
        assert condition["message"].endswith(why)
        assert f"Error creating: {condition['message']}" in await messages(client, "FailedCreate")
        await client.patch(resource, "web", {"spec": {"replicas": 2}}, "default")

        async def well() -> bool:
            return await failing() is None

        await until(well)


async def test_nothing_is_made_for_what_is_being_deleted() -> None:
    async with running() as client:
        rs = replicas(REPLICA_SETS, count=1)
        rs["metadata"]["finalizers"] = ["example.com/hold"]
        await client.create(REPLICA_SETS, rs)
        (p,) = await until(count_of(client, 1))
        await client.delete(REPLICA_SETS, "web", "default", propagation="Background")
        await client.delete(PODS, p["metadata"]["name"], "default", grace_period=0)
        await asyncio.sleep(30)
        assert await alive(client) == []
