"""Lists and watches over all logical clusters: order, pages, selectors, resumption, bookmarks, the end of a cluster."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
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
from glebe.kube.objects import EVERY, Object, cluster_of, key_of
from glebe.kube.resources import CONFIGMAPS, NAMESPACES
from glebe.kube.wire import WatchEvent


async def serve(*clusters: str) -> tuple[ApiServer, Client]:
    server = ApiServer(MemoryStore(), Env.seeded(1), TypeRegistry())
    server.clusters.root_ca = "PEM"
    await server.start()
    for name in clusters:
        await server.clusters.create(name)
    return server, Client(InProcessTransport(server.handle), cluster=EVERY)


def config(name: str, **labels: str) -> Object:
    meta: Object = {"name": name, "namespace": "default", "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {}}


def keys(items: list[Object]) -> list[str]:
    return [str(key_of(item)) for item in items]


async def take(client: Client, count: int, **options: Any) -> list[WatchEvent]:
    out: list[WatchEvent] = []
    async with aclosing(client.watch(CONFIGMAPS, **options)) as events, asyncio.timeout(300):
        async for event in events:
            out.append(event)
            if len(out) == count:
                break
    return out


async def test_lists_know_whose_objects_they_show_and_leave_out_what_everybody_has() -> None:
    server, every = await serve("b", "a")
    for cluster, name in (("b", "x"), ("a", "y"), ("a", "x"), ("root", "x")):
        await every.at(cluster).create(CONFIGMAPS, config(name, of=cluster))
    page = await every.list(CONFIGMAPS)
    assert keys(page.items) == ["a:default/x", "a:default/y", "b:default/x", "root:default/x"]
    assert page.resource_version == str(server.store.revision)
    assert keys((await every.list(CONFIGMAPS, label_selector="of in (a,b)")).items) == keys(page.items)[:3]
    assert keys((await every.list(CONFIGMAPS, field_selector="metadata.name=y")).items) == ["a:default/y"]
    assert keys((await every.list(CONFIGMAPS, "default")).items) == keys(page.items)
    assert keys((await every.list(CONFIGMAPS, "other")).items) == []
    assert {k.split(":")[0] for k in keys((await every.list(NAMESPACES)).items)} == {"root"}
    await every.at("a").patch(NAMESPACES, "default", {"metadata": {"labels": {"x": "y"}}})
    assert keys((await every.list(NAMESPACES)).items)[0] == "a:default"


@pytest.mark.parametrize("selector", ["", "of"])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_pages_show_one_moment(selector: str, size: int) -> None:
    _, every = await serve("a", "b", "c")
    for cluster in ("a", "b", "c"):
        for number in range(3):
            await every.at(cluster).create(CONFIGMAPS, config(f"c{number}", of=cluster))
    wanted = keys((await every.list(CONFIGMAPS)).items)
    page = await every.list(CONFIGMAPS, label_selector=selector, limit=size)
    found = page.items
    await every.at("a").create(CONFIGMAPS, config("a-late-one", of="a"))
    await every.at("c").delete(CONFIGMAPS, "c2", "default")
    while page.continue_:
        page = await every.list(CONFIGMAPS, label_selector=selector, limit=size, continue_=page.continue_)
        found += page.items
    assert keys(found) == wanted


async def test_a_watch_tells_and_resumes() -> None:
    server, every = await serve("a", "b")
    begin = str(server.store.revision)
    await every.at("a").create(CONFIGMAPS, config("x"))
    await every.at("b").create(CONFIGMAPS, config("x"))
    await every.at("a").patch(CONFIGMAPS, "x", {"data": {"k": "v"}}, "default")
    await every.at("b").delete(CONFIGMAPS, "x", "default")
    events = await take(every, 4, resource_version=begin)
    told = [(e.type, cluster_of(e.object)) for e in events]
    assert told == [("ADDED", "a"), ("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "b")]
    middle = events[1].object["metadata"]["resourceVersion"]
    again = await take(every, 2, resource_version=middle)
    assert [(e.type, e.object) for e in again] == [(e.type, e.object) for e in events[2:]]


async def test_a_watch_of_a_selection_sees_objects_come_and_go() -> None:
    server, every = await serve("a", "b")
    begin = str(server.store.revision)
    for cluster in ("a", "b"):
        await every.at(cluster).create(CONFIGMAPS, config("x", of=cluster))
    await every.at("b").patch(CONFIGMAPS, "x", {"metadata": {"labels": {"of": "a"}}}, "default")
    await every.at("a").patch(CONFIGMAPS, "x", {"metadata": {"labels": {"of": "c"}}}, "default")
    events = await take(every, 3, resource_version=begin, label_selector="of=a")
    assert [(e.type, cluster_of(e.object)) for e in events] == [("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a")]


async def test_initial_events_bookmarks_and_what_is_too_old() -> None:
    server, every = await serve("a")
    await every.at("a").create(CONFIGMAPS, config("x"))
    query = [("watch", "true"), ("sendInitialEvents", "true"), ("resourceVersionMatch", "NotOlderThan")]
    query += [("allowWatchBookmarks", "true"), ("timeoutSeconds", "100")]
    lines = []
    async for line in every.stream_lines("GET", "/api/v1/configmaps", query=query):
        lines.append(orjson.loads(line))
        if len(lines) == 3:
            break
    assert [line["type"] for line in lines] == ["ADDED", "BOOKMARK", "BOOKMARK"]
    assert (lines[0]["cluster"], "clusterName" in lines[0]["object"]["metadata"]) == ("a", False)
    assert lines[1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert lines[2]["object"]["metadata"]["resourceVersion"] == str(server.store.revision)
    server.store.compact(server.store.revision)
    with pytest.raises(ApiError) as caught:
        await take(every, 1, resource_version="1")
    assert caught.value.code == 410


async def test_the_end_of_a_cluster_is_one_event() -> None:
    server, every = await serve("a", "b")
    for number in range(5):
        await every.at("a").create(CONFIGMAPS, config(f"c{number}"))
    begin = str(server.store.revision)
    await server.clusters.delete("a")
    await server.clusters.gone("a")
    await every.at("b").create(CONFIGMAPS, config("x"))
    events = await take(every, 2, resource_version=begin)
    assert [(e.type, cluster_of(e.object)) for e in events] == [("DROPPED", "a"), ("ADDED", "b")]
    assert keys((await every.list(CONFIGMAPS)).items) == ["b:default/x"]


async def test_writes_go_to_the_objects_own_cluster() -> None:
    _, every = await serve("a", "b")
    for cluster in ("a", "b"):
        await every.at(cluster).create(CONFIGMAPS, config("x"))
    of_b = (await every.list(CONFIGMAPS, field_selector="metadata.name=x")).items[1]
    await every.update(CONFIGMAPS, {**of_b, "data": {"k": "v"}})
    assert [o.get("data") for o in (await every.list(CONFIGMAPS)).items] == [None, {"k": "v"}]
    stored = await every.at("b").get(CONFIGMAPS, "x", "default")
    assert "clusterName" not in stored["metadata"]
    with pytest.raises(ApiError) as caught:
        await every.create(CONFIGMAPS, config("y"))
    assert caught.value.code == 405


async def test_only_json_is_served() -> None:
    _, every = await serve("a")
    with pytest.raises(ApiError) as caught:
        await every.raw("GET", "/api/v1/configmaps", accept="application/json;as=Table;v=v1;g=meta.k8s.io")
    assert caught.value.code == 406
