"""The HTTP front: real sockets on the loopback address."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import orjson
import pytest

from glebe.apiserver.http import HttpServer
from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.http import HttpTransport
from glebe.kube.resources import CONFIGMAPS
from glebe.kube.transport import PLATFORM, Request, User

pytestmark = pytest.mark.realtime


class Everybody:
    async def authenticate(self, request: Request, cluster: str) -> User | None:
        return PLATFORM


@asynccontextmanager
async def serving() -> AsyncIterator[HttpServer]:
    env = Env.system()
    server = ApiServer(MemoryStore(), env, TypeRegistry(), authenticator=Everybody())
    await server.start()
    front = HttpServer(server.handle)
    await front.start()
    try:
        yield front
    finally:
        await front.close()
        await server.close()


def config_map(name: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}}


async def test_a_client_works_over_http() -> None:
    async with serving() as front:
        client = Client(HttpTransport(front.url))
        try:
            await client.create(CONFIGMAPS, config_map("a"))
            assert [o["metadata"]["name"] for o in (await client.list(CONFIGMAPS)).items] == ["a"]
            seen = []
            async for event in client.watch(CONFIGMAPS, "default"):
                seen.append((event.type, event.object["metadata"]["name"]))
                if len(seen) == 1:
                    await client.create(CONFIGMAPS, config_map("b"))
                if len(seen) == 2:
                    break
            assert seen == [("ADDED", "a"), ("ADDED", "b")]
        finally:
            await client.close()


async def test_too_large_a_body_is_refused() -> None:
    async with serving() as front, aiohttp.ClientSession() as session:
        body = random.Random(0).randbytes(3 * 1024 * 1024 + 1)
        async with session.post(f"{front.url}/api/v1/namespaces/default/configmaps", data=body) as answer:
            assert answer.status == 413
            assert (await answer.json())["reason"] == "RequestEntityTooLarge"


async def test_closing_ends_watches_cleanly() -> None:
    async with (
        serving() as front,
        aiohttp.ClientSession() as session,
        session.get(f"{front.url}/api/v1/configmaps?watch=1&resourceVersion=1") as answer,
    ):
        assert answer.status == 200
        async with asyncio.timeout(5):
            await front.close()
            assert await answer.content.read() == b""


async def test_watchers_get_every_event_once_and_in_order_whether_they_read_or_not() -> None:
    async with serving() as front, aiohttp.ClientSession() as session:
        client = Client(HttpTransport(front.url))
        url = f"{front.url}/api/v1/namespaces/default/configmaps?watch=1&resourceVersion=1"
        async with session.get(url) as quick, session.get(f"{url}&fieldSelector=metadata.name!=m7") as slow:
            fat = {"data": {"text": "x" * 20_000}}
            for i in range(300):  # 6 MB: more than all buffers of the slow one hold
                await client.create(CONFIGMAPS, {**config_map(f"m{i}"), **fat})
            for answer, names in ((quick, range(300)), (slow, [i for i in range(300) if i != 7])):
                seen = []
                async with asyncio.timeout(10):
                    while len(seen) < len(names):
                        seen.append(orjson.loads(await answer.content.readuntil(b"}\n"))["object"]["metadata"]["name"])
                assert seen == [f"m{i}" for i in names]
        await client.close()


async def test_a_client_that_goes_away_ends_its_watch() -> None:
    env = Env.system()
    store = MemoryStore()
    server = ApiServer(store, env, TypeRegistry(), authenticator=Everybody())
    await server.start()
    front = HttpServer(server.handle)
    await front.start()
    try:
        table = store._tables.get("configmaps", "root")
        async with aiohttp.ClientSession() as session, session.get(f"{front.url}/api/v1/configmaps?watch=1"):
            assert len(table.subscriptions) == 1
        async with asyncio.timeout(5):
            while table.subscriptions:  # noqa: ASYNC110 - the server has no event for this
                await asyncio.sleep(0.01)
    finally:
        await front.close()
        await server.close()


async def test_health_needs_no_credentials() -> None:
    async with serving() as front, aiohttp.ClientSession() as session:
        for path in ("healthz", "livez", "readyz", "readyz/ping"):
            async with session.get(f"{front.url}/{path}") as answer:
                assert (answer.status, await answer.text()) == (200, "ok")
        async with session.get(f"{front.url}/readyz?verbose") as answer:
            assert "[+]ping ok" in await answer.text()
        async with session.get(f"{front.url}/version") as answer:
            assert (await answer.json())["major"] == "1"
