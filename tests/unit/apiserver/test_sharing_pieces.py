"""Big work in pieces: nothing is lost between them, and others come in between."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from glebe.apiserver.server import ApiServer
from glebe.apiserver.sharing.courtesy import Courtesy
from glebe.apiserver.sharing.pieces import Line, Pieces
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.clock import Env
from glebe.kube.transport import PLATFORM, Request, Response

SPACE = "/api/v1/namespaces/default/configmaps"
MANY = 250
NAMES = [f"c{i:03}" for i in range(MANY)]


async def serve() -> ApiServer:
    server = ApiServer(MemoryStore(), Env.seeded(1), TypeRegistry())
    await server.start()
    for name in NAMES:
        meta = {"name": name, "labels": {"even": str(int(name[1:]) % 2)}}
        obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"x": "y" * 4000}}
        await ask(server, "POST", body=orjson.dumps(obj))
    return server


async def ask(server: ApiServer, method: str = "GET", query: str = "", accept: str = "", body: bytes = b"") -> Response:
    pairs = [(k, v) for k, _, v in (field.partition("=") for field in query.split("&") if field)]
    headers = {"content-type": "application/json", "accept": accept or "application/json"}
    return await server.handle(Request(method, SPACE, pairs, headers, body, PLATFORM))


async def test_long_lists_are_whole() -> None:
    server = await serve()
    plain = orjson.loads((await ask(server)).body)
    assert [o["metadata"]["name"] for o in plain["items"]] == NAMES
    chosen = orjson.loads((await ask(server, query="labelSelector=even=1")).body)
    assert [o["metadata"]["name"] for o in chosen["items"]] == NAMES[1::2]
    table = orjson.loads((await ask(server, accept="application/json;as=Table;v=v1;g=meta.k8s.io")).body)
    assert [row["cells"][0] for row in table["rows"]] == NAMES
    assert len(table["columnDefinitions"]) == 3


@pytest.mark.parametrize("query", ["watch=1", "watch=1&labelSelector=even=0"])
async def test_beginnings_of_watches_are_whole(query: str) -> None:
    server = await serve()
    watch = await ask(server, query=query)
    assert watch.stream is not None
    expected = NAMES[::2] if "label" in query else NAMES
    seen: list[str] = []
    while len(seen) < len(expected):
        seen += [orjson.loads(line)["object"]["metadata"]["name"] for line in (await anext(watch.stream)).splitlines()]
    assert seen == expected
    await watch.close()


async def test_a_list_is_of_one_moment() -> None:
    server = await serve()
    listing = asyncio.create_task(ask(server, query="labelSelector=even=1"))
    await asyncio.sleep(0)
    await server.handle(Request("DELETE", f"{SPACE}/{NAMES[-1]}", user=PLATFORM))
    answer = orjson.loads((await listing).body)
    assert [o["metadata"]["name"] for o in answer["items"]] == NAMES[1::2]


async def test_clusters_take_turns_with_pieces() -> None:
    pieces, order = Pieces(Courtesy()), []

    async def work(cluster: str, number: int) -> None:
        for _ in range(number):
            await pieces.turn(cluster)
            order.append(cluster)

    await asyncio.gather(*(work("loud", 5) for _ in range(20)), work("quiet", 3))
    assert len(order) == 103
    assert max(i for i, cluster in enumerate(order) if cluster == "quiet") < 12


async def test_those_who_give_up_do_not_stop_the_pieces() -> None:
    pieces = Pieces(Courtesy())
    await pieces.turn("a")
    waiting = [asyncio.create_task(pieces.turn("a")) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.wait(waiting, timeout=1)
    assert all(task.done() for task in waiting)


async def test_pushes_are_shared() -> None:
    pushes, order = Line(Courtesy(), 16, 4), []
    for _ in range(500):
        pushes.add("loud", lambda: order.append("loud"))
    pushes.add("quiet", lambda: order.append("quiet"))
    await asyncio.sleep(0)
    assert "quiet" in order
    assert len(order) <= 16
    await asyncio.sleep(0.01)
    assert len(order) == 501
