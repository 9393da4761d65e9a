"""The verbs of the API through an in-process client."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.resources import CONFIGMAPS, JOBS, NAMESPACES, NODES, PODS


async def serve(**options: Any) -> tuple[ApiServer, Client]:
    server = ApiServer(MemoryStore(), Env.seeded(1), TypeRegistry(), **options)
    await server.start()
    return server, Client(InProcessTransport(server.handle))


def config_map(name: str = "a", **data: str) -> dict[str, Any]:
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data or {"k": "v"}}


def pod(name: str = "p", **spec: Any) -> dict[str, Any]:
    containers = [{"name": "main", "image": "example.org/main:1"}]
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": containers, **spec}}


async def test_an_object_is_created_read_changed_listed_and_deleted() -> None:
    _, client = await serve()
    made = await client.create(CONFIGMAPS, config_map())
    assert made["metadata"]["uid"]
    assert made["metadata"]["creationTimestamp"] == "2026-01-01T00:00:00Z"
    assert "generation" not in made["metadata"]
    assert (await client.get(CONFIGMAPS, "a", "default")) == made
    made["data"]["k"] = "w"
    changed = await client.update(CONFIGMAPS, made)
    assert int(changed["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])
    listed = await client.list(CONFIGMAPS, "default")
    assert [o["data"] for o in listed.items] == [{"k": "w"}]
    await client.delete(CONFIGMAPS, "a", "default")
    with pytest.raises(ApiError) as caught:
        await client.get(CONFIGMAPS, "a", "default")
    assert caught.value.message == 'configmaps "a" not found'


async def test_a_stale_update_is_refused_and_a_no_op_is_not_written() -> None:
    _, client = await serve()
    made = await client.create(CONFIGMAPS, config_map())
    same = await client.update(CONFIGMAPS, made)
    assert same["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    await client.patch(CONFIGMAPS, "a", {"data": {"x": "1"}}, "default")
    made["data"] = {"y": "2"}
    with pytest.raises(ApiError) as caught:
        await client.update(CONFIGMAPS, made)
    assert caught.value.code == 409
    assert "the object has been modified" in caught.value.message


async def test_merge_and_json_patch() -> None:
    _, client = await serve()
    await client.create(CONFIGMAPS, config_map())
    merged = await client.patch(CONFIGMAPS, "a", {"data": {"k": None, "x": "1"}}, "default")
    assert merged["data"] == {"x": "1"}
    operations = [{"op": "test", "path": "/data/x", "value": "1"}, {"op": "add", "path": "/data/y", "value": "2"}]
    patched = await client.patch(CONFIGMAPS, "a", operations, "default", kind="json")
    assert patched["data"] == {"x": "1", "y": "2"}
    with pytest.raises(ApiError) as caught:
        await client.patch(CONFIGMAPS, "a", [{"op": "test", "path": "/data/x", "value": "3"}], "default", kind="json")
    assert caught.value.code == 422


async def test_watch_gives_the_state_and_then_the_changes() -> None:
    _, client = await serve()
    await client.create(CONFIGMAPS, config_map())
    seen: list[tuple[str, str]] = []

    async def look() -> None:
        async for event in client.watch(CONFIGMAPS, "default"):
            if event.type != "BOOKMARK":
                seen.append((event.type, event.object["metadata"]["name"]))
            if event.type == "DELETED":
                return

    async with asyncio.TaskGroup() as group:
        group.create_task(look())
        await asyncio.sleep(0)
        await client.create(CONFIGMAPS, config_map("b"))
        await client.patch(CONFIGMAPS, "b", {"data": {"k": "2"}}, "default")
        await client.delete(CONFIGMAPS, "b", "default")
    assert seen == [("ADDED", "a"), ("ADDED", "b"), ("MODIFIED", "b"), ("DELETED", "b")]


async def test_status_is_a_world_of_its_own() -> None:
    _, client = await serve()
    made = await client.create(PODS, {**pod(), "status": {"phase": "Running"}})
    assert made["status"]["phase"] == "Pending"
    assert made["metadata"]["generation"] == 1
    made["status"]["phase"] = "Running"
    assert (await client.update(PODS, made))["status"]["phase"] == "Pending"
    ran = await client.update_status(PODS, made)
    assert ran["status"]["phase"] == "Running"
    assert ran["metadata"]["generation"] == 1


async def test_namespaces_gate_what_is_created_in_them() -> None:
    _, client = await serve()
    lost = {**config_map(), "metadata": {"name": "a", "namespace": "nowhere"}}
    with pytest.raises(ApiError) as caught:
        await client.create(CONFIGMAPS, lost)
    assert caught.value.message == 'namespaces "nowhere" not found'
    await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "nowhere"}})
    await client.create(CONFIGMAPS, lost)
    ending = await client.delete(NAMESPACES, "nowhere")
    assert ending["status"]["phase"] == "Terminating"
    lost["metadata"]["name"] = "b"
    with pytest.raises(ApiError) as caught:
        await client.create(CONFIGMAPS, lost)
    assert caught.value.code == 403
    assert caught.value.details["causes"][0]["reason"] == "NamespaceTerminating"


async def test_pods_on_a_node_end_gracefully_and_others_at_once() -> None:
    _, client = await serve()
    await client.create(PODS, pod("loose"))
    await client.create(PODS, pod("bound", nodeName="n"))
    await client.delete(PODS, "loose", "default")
    marked = await client.delete(PODS, "bound", "default")
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 30
    assert marked["metadata"]["deletionTimestamp"] == "2026-01-01T00:00:30Z"
    assert [o["metadata"]["name"] for o in (await client.list(PODS)).items] == ["bound"]
    await client.delete(PODS, "bound", "default", grace_period=0)
    assert (await client.list(PODS)).items == []


async def test_jobs_orphan_by_default_and_finalizers_hold() -> None:
    _, client = await serve()
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "j", "namespace": "default"},
        "spec": {"template": {"spec": {**pod()["spec"], "restartPolicy": "Never"}}},
    }
    await client.create(JOBS, job)
    marked = await client.delete(JOBS, "j", "default")
    assert marked["metadata"]["finalizers"] == ["orphan"]
    await client.patch(JOBS, "j", {"metadata": {"finalizers": None}}, "default")
    assert (await client.list(JOBS)).items == []


async def test_nodes_register_with_their_status() -> None:
    _, client = await serve()
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "status": {"capacity": {"cpu": "4"}}}
    assert (await client.create(NODES, node))["status"]["capacity"] == {"cpu": "4"}
