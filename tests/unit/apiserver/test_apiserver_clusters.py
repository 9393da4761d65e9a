"""Logical clusters: their beginning, their end, what they have, what they may hold."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import Key, MemoryStore, SQLiteStore, Store
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import Object
from glebe.kube.resources import CONFIGMAPS, NAMESPACES, SERVICE_ACCOUNTS
from glebe.kube.transport import User

DEFAULTS = ["default", "kube-node-lease", "kube-public", "kube-system"]


async def serve(store: Store | None = None, seed: int = 1, **options: Any) -> tuple[ApiServer, Client]:
    server = ApiServer(store or MemoryStore(), Env.seeded(seed), TypeRegistry(), **options)
    server.clusters.root_ca = "PEM"
    await server.start()
    return server, Client(InProcessTransport(server.handle))


def config(name: str, size: int = 10) -> Object:
    data = {"text": "x" * size}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data}


async def names(client: Client, *args: Any, **options: Any) -> list[str]:
    return [o["metadata"]["name"] for o in (await client.list(*args, **options)).items]


async def refusal(doing: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await doing
    return caught.value


async def test_a_new_cluster_is_one_write_and_has_everything() -> None:
    server, client = await serve()
    before = server.store.revision
    await server.clusters.create("a")
    assert server.store.revision == before + 1
    a = client.for_cluster("a")
    assert await names(a, NAMESPACES) == DEFAULTS
    assert await names(a, SERVICE_ACCOUNTS, "kube-system") == ["default"]
    certificate = await a.get(CONFIGMAPS, "kube-root-ca.crt", "default")
    assert certificate["data"] == {"ca.crt": "PEM"}
    namespace = await a.get(NAMESPACES, "default")
    assert namespace == (await a.list(NAMESPACES, field_selector="metadata.name=default")).items[0]
    assert namespace["metadata"]["resourceVersion"] == str(before + 1)
    assert server.store.usage("a") == (0, 0)


async def test_given_objects_are_changed_and_deleted_like_others() -> None:
    server, client = await serve()
    await server.clusters.create("a")
    await server.clusters.create("b")
    a = client.for_cluster("a")
    old = await a.get(NAMESPACES, "default")
    version = (await a.list(NAMESPACES)).resource_version
    events = a.watch(NAMESPACES, resource_version=version)
    new = await a.patch(NAMESPACES, "default", {"metadata": {"labels": {"x": "y"}}})
    assert new["metadata"]["uid"] == old["metadata"]["uid"]
    seen = await anext(events)
    assert (seen.type, seen.object["metadata"]["labels"]["x"]) == ("MODIFIED", "y")
    await events.aclose()
    stale = {**old, "metadata": {**old["metadata"], "labels": {"z": "z"}}}
    assert (await refusal(a.update(NAMESPACES, stale))).reason == "Conflict"
    assert (await refusal(a.create(NAMESPACES, {**old, "metadata": {"name": "kube-public"}}))).reason == "AlreadyExists"
    await a.delete(CONFIGMAPS, "kube-root-ca.crt", "default")
    assert (await refusal(a.get(CONFIGMAPS, "kube-root-ca.crt", "default"))).code == 404
    assert await names(a, CONFIGMAPS, "kube-public") == ["kube-root-ca.crt"]
    assert await names(client.for_cluster("b"), CONFIGMAPS, "default") == ["kube-root-ca.crt"]
    assert server.store.usage("a")[0] == 1  # the namespace that somebody has changed


async def test_pages_of_given_and_written_objects() -> None:
    server, client = await serve()
    await server.clusters.create("a")
    a = client.for_cluster("a")
    for name in ("aa", "kube-a", "zz"):
        await a.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    wanted = ["aa", "default", "kube-a", "kube-node-lease", "kube-public", "kube-system", "zz"]
    assert [o["metadata"]["name"] for o in (await a.list_all(NAMESPACES, page_size=2)).items] == wanted


@pytest.mark.realtime
async def test_a_restart_finds_clusters_as_they_were(tmp_path: Path) -> None:
    server, client = await serve(SQLiteStore(tmp_path / "a.db"))
    await server.clusters.create("a")
    a = client.for_cluster("a")
    untouched = await a.get(NAMESPACES, "kube-system")
    await a.patch(NAMESPACES, "default", {"metadata": {"labels": {"x": "y"}}})
    await a.delete(CONFIGMAPS, "kube-root-ca.crt", "default")
    await a.delete(CONFIGMAPS, "kube-root-ca.crt", "kube-public")
    await a.create(
        CONFIGMAPS, {**config("kube-root-ca.crt"), "metadata": {"name": "kube-root-ca.crt", "namespace": "kube-public"}}
    )
    uid = server.clusters.uid("a")
    await server.close()
    server, client = await serve(SQLiteStore(tmp_path / "a.db"), seed=2)
    a = client.for_cluster("a")
    assert server.clusters.uid("a") == uid
    assert await a.get(NAMESPACES, "kube-system") == untouched
    assert (await a.get(NAMESPACES, "default"))["metadata"]["labels"]["x"] == "y"
    assert await names(a, CONFIGMAPS, "default") == []
    assert (await a.get(CONFIGMAPS, "kube-root-ca.crt", "kube-public"))["data"] == {"text": "x" * 10}
    await server.close()


async def test_a_deleted_cluster_is_out_of_sight_at_once_and_then_gone() -> None:
    server, client = await serve()
    told: list[str] = []
    server.clusters.on_create(lambda name: told.append(f"+{name}"))
    server.clusters.on_delete(lambda name: told.append(f"-{name}"))
    await server.clusters.create("a")
    a = client.for_cluster("a")
    for number in range(20):
        await a.create(CONFIGMAPS, config(f"c{number}"))
    watching = asyncio.ensure_future(_all(a.watch(CONFIGMAPS, resource_version=str(server.store.revision))))
    await asyncio.sleep(0.01)
    old = server.clusters.uid("a")
    await server.clusters.delete("a")
    assert (await refusal(a.list(CONFIGMAPS))).code == 404
    assert not server.clusters.exists("a")
    assert await watching == []
    await server.clusters.create("a")
    assert told == ["+a", "-a", "+a"]
    assert server.clusters.uid("a") not in ("", old)
    assert await names(a, CONFIGMAPS, "default") == ["kube-root-ca.crt"]
    assert server.store.usage("a") == (0, 0)
    await server.clusters.delete("a")
    await server.clusters.gone("a")
    assert "a" not in server.store.clusters()
    assert server.store.get(Key("clusters.glebe.dev", "", "", "a")) is None


async def _all(stream: Any) -> list[Any]:
    return [event async for event in stream]


async def test_a_write_under_way_does_not_reach_a_later_cluster_of_the_same_name() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    class Slow:
        async def admit(self, a: Any) -> None:
            if a.cluster == "a":
                begun.set()
                await go_on.wait()

    server, client = await serve(admission=(Slow(),))
    await server.clusters.create("a")
    a = client.for_cluster("a")
    writing = asyncio.ensure_future(a.create(CONFIGMAPS, config("late")))
    await begun.wait()
    await server.clusters.delete("a")
    await server.clusters.create("a")
    go_on.set()
    assert (await refusal(writing)).code == 404
    assert await names(a, CONFIGMAPS, "default") == ["kube-root-ca.crt"]


@pytest.mark.realtime
@pytest.mark.parametrize("interrupted", ["after the mark", "half dropped", "orphans"])
async def test_an_interrupted_deletion_goes_on_at_the_start(tmp_path: Path, interrupted: str) -> None:
    path = tmp_path / "a.db"
    server, client = await serve(SQLiteStore(path))
    await server.clusters.create("a")
    await client.for_cluster("a").create(CONFIGMAPS, config("c"))
    key = Key("clusters.glebe.dev", "", "", "a")
    store = server.store
    await server.clusters.close()  # nobody follows any more: as if the process ended after each of these writes
    if interrupted == "orphans":
        await store.delete(key, lambda revision: b"{}", None)
    else:
        entry = store.get(key)
        assert entry is not None
        obj = entry.load()
        obj["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        await store.put(key, lambda revision: orjson.dumps(obj), None)
        if interrupted == "half dropped":
            await store.drop("a")
    await store.close()
    server, client = await serve(SQLiteStore(path), seed=2)
    assert not server.clusters.exists("a")
    await server.clusters.create("a")
    assert await names(client.for_cluster("a"), CONFIGMAPS, "default") == ["kube-root-ca.crt"]
    await server.close()


async def test_the_register_is_served_to_masters_only() -> None:
    server, client = await serve()
    made = orjson.loads(
        (await client.raw("POST", "/clusters", body={"metadata": {"name": "a", "labels": {"x": "y"}}})).body
    )
    assert made["metadata"]["labels"] == {"x": "y"}
    assert made["kind"] == "LogicalCluster"
    assert (await refusal(client.raw("POST", "/clusters", body={"metadata": {"name": "a"}}))).reason == "AlreadyExists"
    assert (await refusal(client.raw("POST", "/clusters", body={"metadata": {"name": "A/b"}}))).code == 422
    patch = {"spec": {"budget": {"objects": 5}}}
    merge = "application/merge-patch+json"
    done = orjson.loads((await client.raw("PATCH", "/clusters/a", body=patch, content_type=merge)).body)
    assert done["spec"]["budget"] == {"objects": 5}
    for bad in ({"objects": -1}, {"objects": "many"}, {"colour": 1}, {"bytes": "1m"}):
        patch = {"spec": {"budget": bad}}
        error = await refusal(client.raw("PATCH", "/clusters/a", body=patch, content_type=merge))
        assert (error.code, "spec" in error.message) == (422, True)
    stale = {**made, "spec": {}}
    assert (await refusal(client.raw("PUT", "/clusters/a", body=stale))).reason == "Conflict"
    listed = orjson.loads((await client.raw("GET", "/clusters")).body)["items"]
    assert [i["metadata"]["name"] for i in listed] == ["a", "root"]
    assert listed[0]["status"]["used"] == {"objects": 0, "bytes": 0}
    stranger = Client(InProcessTransport(server.handle, User("eve", ("system:authenticated",))))
    for method, path in (
        ("GET", "/clusters"),
        ("POST", "/clusters"),
        ("DELETE", "/clusters/a"),
        ("PATCH", "/clusters/a"),
    ):
        assert (await refusal(stranger.raw(method, path))).code == 403
    await client.raw("DELETE", "/clusters/a")
    assert (await refusal(client.raw("GET", "/clusters/a"))).code == 404
    assert (await refusal(client.raw("DELETE", "/clusters/root"))).code == 403


async def budgeted(**budget: Any) -> tuple[ApiServer, Client]:
    server, client = await serve()
    await server.clusters.create("a", {"spec": {"budget": budget}})
    return server, client.for_cluster("a")


async def test_a_budget_of_objects_is_exact_and_deletes_are_free() -> None:
    server, a = await budgeted(objects=3)
    for number in range(3):
        await a.create(CONFIGMAPS, config(f"c{number}"))
    error = await refusal(a.create(CONFIGMAPS, config("c3")))
    assert error.code == 403
    assert (
        'exceeded the budget of logical cluster "a": requested: objects=1, used: objects=3, limited: objects=3'
        in error.message
    )
    assert "spec.budget.objects" in error.message
    await a.patch(CONFIGMAPS, "c0", {"data": {"text": "longer than before"}}, "default")
    await a.delete(CONFIGMAPS, "c0", "default")
    await a.create(CONFIGMAPS, config("c3"))
    assert server.store.usage("a")[0] == 3


@pytest.mark.realtime
async def test_a_crowd_does_not_pass_the_budget_together_nor_falls_short_of_it(tmp_path: Path) -> None:
    server, client = await serve(SQLiteStore(tmp_path / "a.db"))
    await server.clusters.create("a", {"spec": {"budget": {"objects": 25}}})
    a = client.for_cluster("a")
    results = await asyncio.gather(
        *(a.create(CONFIGMAPS, config(f"c{number}")) for number in range(60)), return_exceptions=True
    )
    refused = [r for r in results if isinstance(r, ApiError)]
    assert (len(refused), {r.code for r in refused}) == (35, {403})
    assert server.store.usage("a")[0] == 25
    found = server.clusters.get("a")
    assert found is not None
    assert (found.reserved_objects, found.reserved_bytes) == (0, 0)
    await server.close()


async def test_a_budget_of_bytes_counts_what_is_stored() -> None:
    server, a = await budgeted(bytes="4Ki")
    await a.create(CONFIGMAPS, config("c0", 1500))
    stored = sum(len(e.value) for e in server.store.range("configmaps", "a").entries if b"c0" in e.value)
    assert server.store.usage("a") == (1, stored)
    await a.create(CONFIGMAPS, config("c1", 1500))
    error = await refusal(a.create(CONFIGMAPS, config("c2", 1500)))
    assert (error.code, "limited: bytes=4096" in error.message) == (403, True)
    growing = Client(InProcessTransport(server.handle, User("u", ("system:masters",))), cluster="a")
    assert (await refusal(growing.patch(CONFIGMAPS, "c0", {"data": {"text": "x" * 3000}}, "default"))).code == 403
    await growing.patch(CONFIGMAPS, "c0", {"data": {"text": "x" * 10}}, "default")
    await a.create(CONFIGMAPS, config("c2", 1000))
