"""Watches and consistent lists as clients see them."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore, subscription
from glebe.apiserver.types.registry import TypeRegistry
from glebe.apiserver.verbs import watching
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.resources import CONFIGMAPS
from glebe.kube.transport import PLATFORM, Request, Response

_PATH = "/api/v1/namespaces/default/configmaps"


async def serve() -> tuple[ApiServer, Client]:
    server = ApiServer(MemoryStore(), Env.seeded(1), TypeRegistry())
    await server.start()
    return server, Client(InProcessTransport(server.handle))


def config_map(name: str, **labels: str) -> dict[str, Any]:
    meta: dict[str, Any] = {"name": name, "namespace": "default"}
    if labels:
        meta["labels"] = labels
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta}


async def ask(server: ApiServer, path: str = _PATH, accept: str = "", **query: str) -> Response:
    headers = {"accept": accept} if accept else {}
    return await server.handle(Request("GET", path, list(query.items()), headers, user=PLATFORM))


async def frames(response: Response, count: int) -> list[dict[str, Any]]:
    """The next ``count`` frames of a stream (fewer when it ends)."""
    out: list[dict[str, Any]] = []
    assert response.stream is not None
    async for chunk in response.stream:
        out += [orjson.loads(line) for line in chunk.splitlines()]
        if len(out) >= count:
            break
    return out


def brief(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(e["type"], e["object"]["metadata"].get("name", "")) for e in events]


async def test_a_watch_resumes_after_a_version() -> None:
    server, client = await serve()
    first = await client.create(CONFIGMAPS, config_map("a"))
    await client.create(CONFIGMAPS, config_map("b"))
    response = await ask(server, watch="1", resourceVersion=first["metadata"]["resourceVersion"])
    assert brief(await frames(response, 1)) == [("ADDED", "b")]
    await response.close()


async def test_too_old_a_version_is_answered_by_an_error_event() -> None:
    server, client = await serve()
    await client.create(CONFIGMAPS, config_map("a"))
    server.store.compact(server.store.revision)
    response = await ask(server, watch="1", resourceVersion="2")
    assert response.status == 200
    (error,) = await frames(response, 1)
    assert (error["type"], error["object"]["code"], error["object"]["reason"]) == ("ERROR", 410, "Expired")


async def test_streaming_lists_end_with_an_annotated_bookmark() -> None:
    server, client = await serve()
    await client.create(CONFIGMAPS, config_map("a"))
    query = {
        "watch": "1",
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "allowWatchBookmarks": "true",
    }
    response = await ask(server, **query)
    events = await frames(response, 2)
    assert brief(events) == [("ADDED", "a"), ("BOOKMARK", "")]
    meta = events[1]["object"]["metadata"]
    assert meta["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert meta["resourceVersion"] == str(server.store.revision)
    await response.close()


async def test_bookmarks_come_every_minute_and_the_timeout_ends_the_watch() -> None:
    server, _ = await serve()
    start = asyncio.get_running_loop().time()
    response = await ask(server, watch="1", allowWatchBookmarks="true", timeoutSeconds="130")
    assert brief(await frames(response, 99)) == [("BOOKMARK", ""), ("BOOKMARK", "")]
    assert asyncio.get_running_loop().time() - start == 130


async def test_objects_enter_and_leave_a_selection() -> None:
    server, client = await serve()
    response = await ask(server, watch="1", labelSelector="app=x")
    await client.create(CONFIGMAPS, config_map("a", app="y"))
    await client.create(CONFIGMAPS, config_map("b", app="x"))
    await client.patch(CONFIGMAPS, "a", {"metadata": {"labels": {"app": "x"}}}, "default")
    await client.patch(CONFIGMAPS, "a", {"data": {"k": "v"}}, "default")
    left = await client.patch(CONFIGMAPS, "a", {"metadata": {"labels": {"app": "z"}}}, "default")
    await client.delete(CONFIGMAPS, "a", "default")
    await client.delete(CONFIGMAPS, "b", "default")
    events = await frames(response, 5)
    assert brief(events) == [("ADDED", "b"), ("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a"), ("DELETED", "b")]
    gone = events[3]["object"]["metadata"]
    assert (gone["labels"], gone["resourceVersion"]) == ({"app": "x"}, left["metadata"]["resourceVersion"])
    await response.close()


async def test_one_name_can_be_watched_by_field_or_by_path() -> None:
    server, client = await serve()
    by_field = await ask(server, watch="1", fieldSelector="metadata.name=b")
    by_path = await ask(server, path="/api/v1/watch/namespaces/default/configmaps/b")
    await client.create(CONFIGMAPS, config_map("a"))
    await client.create(CONFIGMAPS, config_map("b"))
    assert brief(await frames(by_field, 1)) == brief(await frames(by_path, 1)) == [("ADDED", "b")]
    await by_field.close()
    await by_path.close()


async def test_all_watchers_get_the_same_bytes() -> None:
    server, client = await serve()
    one, two = await ask(server, watch="1"), await ask(server, watch="1")
    await client.create(CONFIGMAPS, config_map("a"))
    assert one.stream is not None
    assert two.stream is not None
    assert await anext(one.stream) is await anext(two.stream)
    await one.close()
    await two.close()


async def test_a_watcher_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscription, "MAX_LAG", 10)
    server, client = await serve()
    response = await ask(server, watch="1")
    for i in range(20):
        await client.create(CONFIGMAPS, config_map(f"c{i}"))
    assert len(await frames(response, 99)) == 10
    assert not server.store._tables.get("configmaps", "root").subscriptions  # type: ignore[attr-defined]


async def test_closing_an_unread_watch_leaves_nothing_behind() -> None:
    server, _ = await serve()
    response = await ask(server, watch="1")
    await response.close()
    assert not server.store._tables.get("configmaps", "root").subscriptions  # type: ignore[attr-defined]


async def test_partial_metadata_frames() -> None:
    server, client = await serve()
    accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
    response = await ask(server, accept=accept, watch="1")
    await client.create(CONFIGMAPS, {**config_map("a"), "data": {"k": "v"}})
    (event,) = await frames(response, 1)
    assert (event["object"]["kind"], "data" in event["object"]) == ("PartialObjectMetadata", False)
    await response.close()


@pytest.mark.parametrize(
    "query",
    [
        {"sendInitialEvents": "true"},
        {"resourceVersionMatch": "NotOlderThan"},
        {"resourceVersion": "x"},
    ],
)
async def test_contradictory_watches_are_refused(query: dict[str, str]) -> None:
    server, _ = await serve()
    assert (await ask(server, watch="1", **query)).status in (400, 422)


async def test_pages_show_one_moment_whatever_happens_in_between() -> None:
    _, client = await serve()
    for name in "abcdef":
        await client.create(CONFIGMAPS, config_map(name))
    first = await client.list(CONFIGMAPS, "default", limit=2)
    assert [o["metadata"]["name"] for o in first.items] == ["a", "b"]
    await client.delete(CONFIGMAPS, "c", "default")
    await client.create(CONFIGMAPS, config_map("bb"))
    await client.patch(CONFIGMAPS, "e", {"data": {"late": "1"}}, "default")
    second = await client.list(CONFIGMAPS, "default", limit=3, continue_=first.continue_)
    assert [o["metadata"]["name"] for o in second.items] == ["c", "d", "e"]
    assert "data" not in second.items[2]
    assert second.resource_version == first.resource_version
    third = await client.list(CONFIGMAPS, "default", continue_=second.continue_)
    assert ([o["metadata"]["name"] for o in third.items], third.continue_) == (["f"], "")


async def test_pages_of_a_selection_and_their_expiry() -> None:
    server, client = await serve()
    for i in range(6):
        await client.create(CONFIGMAPS, config_map(f"c{i}", parity=str(i % 2)))
    body = orjson.loads((await ask(server, limit="2", labelSelector="parity=1")).body)
    assert [o["metadata"]["name"] for o in body["items"]] == ["c1", "c3"]
    assert "remainingItemCount" not in body["metadata"]
    rest = await client.list(
        CONFIGMAPS, "default", label_selector="parity=1", continue_=body["metadata"]["continue"], limit=2
    )
    assert ([o["metadata"]["name"] for o in rest.items], rest.continue_) == (["c5"], "")
    plain = orjson.loads((await ask(server, limit="4")).body)
    assert plain["metadata"]["remainingItemCount"] == 2
    await client.create(CONFIGMAPS, config_map("more"))
    server.store.compact(server.store.revision)
    with pytest.raises(ApiError) as caught:
        await client.list(CONFIGMAPS, "default", continue_=plain["metadata"]["continue"])
    assert (caught.value.code, caught.value.reason) == (410, "Expired")


async def test_exact_and_future_versions() -> None:
    server, client = await serve()
    made = await client.create(CONFIGMAPS, config_map("a"))
    await client.delete(CONFIGMAPS, "a", "default")
    version = made["metadata"]["resourceVersion"]
    exact = orjson.loads((await ask(server, resourceVersion=version, resourceVersionMatch="Exact")).body)
    assert [o["metadata"]["name"] for o in exact["items"]] == ["a"]
    future = await ask(server, resourceVersion="999")
    assert (future.status, orjson.loads(future.body)["details"]["causes"][0]["reason"]) == (
        504,
        "ResourceVersionTooLarge",
    )


async def test_the_server_ends_watches_when_it_closes() -> None:
    server, _ = await serve()
    response = await ask(server, watch="1")
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(frames(response, 1))
        await asyncio.sleep(0)
        await server.close()
    assert reading.result() == []
    assert watching.BOOKMARK_SECONDS == 60
