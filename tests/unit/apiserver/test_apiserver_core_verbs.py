"""The verbs of the API through an in-process client."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.resources import CONFIGMAPS, JOBS, NAMESPACES, NODES, PODS
from glebe.kube.transport import PLATFORM, Request


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


async def test_an_update_in_version_0_is_for_any_version() -> None:
    server, client = await serve()
    made = await client.create(CONFIGMAPS, config_map(x="1"))
    stale = {**made, "metadata": {**made["metadata"], "resourceVersion": "1"}}
    with pytest.raises(ApiError):
        await client.update(CONFIGMAPS, {**stale, "data": {"x": "2"}})
    zero = {**made, "metadata": {**made["metadata"], "resourceVersion": "0"}}
    changed = await client.update(CONFIGMAPS, {**zero, "data": {"x": "2"}})
    assert changed["data"] == {"x": "2"}
    await server.close()


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


async def test_pods_are_bound_once_and_only_without_gates() -> None:
    _, client = await serve()
    for name, spec in (("p", {}), ("q", {}), ("gated", {"schedulingGates": [{"name": "a/b"}]})):
        await client.create(PODS, pod(name, **spec))
    to_n = {"apiVersion": "v1", "kind": "Binding", "target": {"kind": "Node", "name": "n"}}
    await client.raw("POST", "/api/v1/namespaces/default/pods/p/binding", body=orjson.dumps(to_n))
    bound = await client.get(PODS, "p", "default")
    assert bound["spec"]["nodeName"] == "n"
    assert [(c["type"], c["status"]) for c in bound["status"]["conditions"]] == [("PodScheduled", "True")]
    for name, why in (("p", "already assigned to node"), ("gated", "non-empty .spec.schedulingGates")):
        with pytest.raises(ApiError, match=why):
            await client.raw("POST", f"/api/v1/namespaces/default/pods/{name}/binding", body=orjson.dumps(to_n))
    old_form = {**to_n, "metadata": {"name": "q"}}
    await client.raw("POST", "/api/v1/namespaces/default/bindings", body=orjson.dumps(old_form))
    chosen = await client.list(PODS, field_selector="spec.nodeName=n")
    assert [o["metadata"]["name"] for o in chosen.items] == ["p", "q"]
    with pytest.raises(ApiError, match="pod updates may not change fields"):
        await client.patch(PODS, "gated", {"spec": {"nodeName": "n"}}, "default")


async def test_eviction_respects_disruption_budgets() -> None:
    _, client = await serve()
    made = await client.create(PODS, {**pod("p", nodeName="n")})
    made["metadata"]["labels"] = {"app": "x"}
    await client.update(PODS, made)
    await client.patch(PODS, "p", {"status": {"phase": "Running"}}, "default", subresource="status")
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "b", "namespace": "default"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}},
    }
    path = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
    await client.raw("POST", path, body=orjson.dumps(budget))
    eviction = orjson.dumps({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}})
    with pytest.raises(ApiError) as caught:
        await client.raw("POST", "/api/v1/namespaces/default/pods/p/eviction", body=eviction)
    assert (caught.value.code, caught.value.details["causes"][0]["reason"]) == (429, "DisruptionBudget")
    await client.raw("DELETE", f"{path}/b")
    await client.raw("POST", "/api/v1/namespaces/default/pods/p/eviction", body=eviction)
    evicted = await client.get(PODS, "p", "default")
    assert evicted["metadata"]["deletionGracePeriodSeconds"] == 30
    assert evicted["status"]["conditions"][-1]["reason"] == "EvictionByEvictionAPI"


async def test_logs_come_from_whoever_runs_the_pod() -> None:
    class Lines:
        async def logs(self, pod: dict[str, Any], container: str, **options: Any) -> Any:
            yield f"{pod['metadata']['name']}/{container} {options['tail_lines']}\n".encode()
            yield b"second\n"

    _, client = await serve(pod_logs=Lines())
    await client.create(PODS, pod("p", nodeName="n"))
    response = await client.raw("GET", "/api/v1/namespaces/default/pods/p/log", query=[("tailLines", "5")])
    assert response.body == b"p/main 5\nsecond\n"
    with pytest.raises(ApiError, match="container x is not valid for pod p"):
        await client.raw("GET", "/api/v1/namespaces/default/pods/p/log", query=[("container", "x")])


async def test_dry_runs_change_nothing() -> None:
    server, client = await serve()
    before = server.store.revision
    await client.create(CONFIGMAPS, config_map(), dry_run=True)
    assert server.store.revision == before
    await client.create(CONFIGMAPS, config_map())
    before = server.store.revision
    tried = await client.patch(CONFIGMAPS, "a", {"data": {"x": "y"}}, "default", dry_run=True)
    assert tried["data"]["x"] == "y"
    await client.raw("DELETE", "/api/v1/namespaces/default/configmaps/a", query=[("dryRun", "All")])
    assert server.store.revision == before


async def test_unknown_and_repeated_fields_warn_or_are_refused() -> None:
    warned: list[str] = []
    server, _ = await serve()
    client = Client(InProcessTransport(server.handle), on_warning=warned.append)
    odd = {**config_map(), "colour": "red"}
    assert "colour" not in await client.create(CONFIGMAPS, odd)
    assert warned == ['unknown field "colour"']
    with pytest.raises(ApiError, match='strict decoding error: unknown field "colour"'):
        await client.create(CONFIGMAPS, odd, field_validation="Strict")
    twice = b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"t"},"data":{"a":"1","a":"2"}}'
    await client.raw("POST", "/api/v1/namespaces/default/configmaps", body=twice)
    assert warned[1:] == ['duplicate field "data.a"']


async def test_collections_are_deleted_by_selector() -> None:
    _, client = await serve()
    for i in range(120):
        item = config_map(f"c{i}")
        item["metadata"]["labels"] = {"odd": str(i % 2)}
        await client.create(CONFIGMAPS, item)
    await client.raw("DELETE", "/api/v1/namespaces/default/configmaps", query=[("labelSelector", "odd=1")])
    left = (await client.list(CONFIGMAPS, "default")).items
    assert (len(left), {o["metadata"]["labels"]["odd"] for o in left}) == (60, {"0"})


async def test_frozen_data_stays() -> None:
    _, client = await serve()
    await client.create(CONFIGMAPS, {**config_map(), "immutable": True})
    with pytest.raises(ApiError, match="field is immutable when `immutable` is set"):
        await client.patch(CONFIGMAPS, "a", {"data": {"k": "w"}}, "default")
    await client.patch(CONFIGMAPS, "a", {"metadata": {"labels": {"x": "y"}}}, "default")


async def test_yaml_goes_in_and_out() -> None:
    server, client = await serve()
    text = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: 'y'}\ndata: {when: '2020-01-01', day: 2020-01-01}\n"
    made = await client.raw("POST", "/api/v1/namespaces/default/configmaps", body=text, content_type="application/yaml")
    assert orjson.loads(made.body)["data"] == {"when": "2020-01-01", "day": "2020-01-01"}
    path = "/api/v1/namespaces/default/configmaps/y"
    shown = await server.handle(Request("GET", path, headers={"accept": "application/yaml"}, user=PLATFORM))
    assert b"name: 'y'\n" in shown.body
    refused = await server.handle(Request("GET", path, headers={"accept": "text/html"}, user=PLATFORM))
    assert refused.status == 406


async def test_a_list_begun_long_ago_expires_and_may_go_on_inconsistently() -> None:
    server, client = await serve()
    for name in "abcd":
        await client.create(CONFIGMAPS, config_map(name))
    first = await client.list(CONFIGMAPS, "default", limit=2)
    await client.create(CONFIGMAPS, config_map("cc"))
    await asyncio.sleep(299)
    consistent = await client.list(CONFIGMAPS, "default", limit=9, continue_=first.continue_)
    assert [o["metadata"]["name"] for o in consistent.items] == ["c", "d"]
    assert consistent.resource_version == first.resource_version
    await asyncio.sleep(302)
    with pytest.raises(ApiError) as caught:
        await client.list(CONFIGMAPS, "default", limit=1, continue_=first.continue_)
    assert (caught.value.code, caught.value.reason) == (410, "Expired")
    rest = await client.list(CONFIGMAPS, "default", limit=2, continue_=caught.value.continue_)
    assert [o["metadata"]["name"] for o in rest.items] == ["c", "cc"]
    assert int(rest.resource_version) > int(first.resource_version)
    last = await client.list(CONFIGMAPS, "default", limit=2, continue_=rest.continue_)
    assert [o["metadata"]["name"] for o in last.items] == ["d"]
    await server.close()
