"""Snapshots and exports: whole, of one moment, for root's masters only, and good in any store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from etcd_peer import shared_etcd

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import Key, MemoryStore, SQLiteStore
from glebe.apiserver.store.archive import ArchiveError, Reader
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.clock import Env
from glebe.kube.transport import Request, Response, User
from glebe.kube.wire import read_whole
from glebe.platform.paths import DataDir
from glebe.platform.restoring import restore
from glebe.platform.storage import StorageError, StorageOptions

MASTER = User("admin", ("system:masters",))


@asynccontextmanager
async def served(store: Any = None) -> AsyncIterator[ApiServer]:
    server = ApiServer(store or MemoryStore(), Env.system(), TypeRegistry())
    await server.start()
    try:
        yield server
    finally:
        await server.close()


async def ask(server: ApiServer, method: str, target: str, body: Any = None, user: User = MASTER) -> Response:
    path, _, query = target.partition("?")
    pairs = [(k, v) for k, _, v in (p.partition("=") for p in query.split("&") if p)]
    data = body if isinstance(body, bytes) else orjson.dumps(body) if body is not None else b""
    headers = {"content-type": "application/json"}
    response = await server.handle(Request(method, path, pairs, headers, data, user))
    response.body = await read_whole(response)
    return response


async def filled(server: ApiServer, cluster: str = "team") -> None:
    assert (await ask(server, "POST", "/clusters", {"metadata": {"name": cluster}})).status == 201
    base = f"/clusters/{cluster}/api/v1/namespaces"
    made = await ask(server, "POST", base, {"metadata": {"name": "work"}})
    assert made.status == 201, made.body
    for i in range(30):
        data = {"metadata": {"name": f"c{i:02}"}, "data": {"x": 'tricky ,"o": \n ☃' * i}}
        assert (await ask(server, "POST", f"{base}/work/configmaps", data)).status == 201


def lines(body: bytes) -> list[bytes]:
    return body.splitlines(keepends=True)


async def objects(server: ApiServer, cluster: str) -> dict[str, Any]:
    got = orjson.loads((await ask(server, "GET", f"/clusters/{cluster}/api/v1/configmaps")).body)
    return {
        o["metadata"]["name"]: (o["metadata"]["uid"], o["data"]) for o in got["items"] if o["metadata"]["name"] < "k"
    }


@pytest.mark.realtime
async def test_one_cluster_moves_to_another_server(tmp_path: Path) -> None:
    async with served() as server:
        await filled(server)
        archive = (await ask(server, "GET", "/snapshot?cluster=team")).body
        before = await objects(server, "team")
        assert len(before) == 30
        reader = Reader(lines(archive))
        taken = list(reader.raw())
        assert reader.header.cluster == "team"
        async with served(SQLiteStore(tmp_path / "db")) as other:
            half = len(taken) // 2
            for begin, part in (("&begin=true", taken[:half]), ("", taken[half:])):
                loaded = await ask(other, "POST", f"/snapshot?cluster=moved{begin}", b"".join(part))
                assert loaded.status == 200, loaded.body
            assert await objects(other, "moved") == before
            again = await ask(other, "POST", "/snapshot?cluster=moved&begin=true", b"")
            assert again.status == 409
            changed = {"metadata": {"name": "c01"}, "data": {"x": "new"}}
            put = await ask(other, "PUT", "/clusters/moved/api/v1/namespaces/work/configmaps/c01", changed)
            assert put.status == 200


@pytest.mark.realtime
@pytest.mark.parametrize("target", ["sqlite", "etcd"])
async def test_everything_is_restored(tmp_path: Path, target: str) -> None:
    async with served() as server:
        await filled(server)
        await filled(server, "other")
        archive = (await ask(server, "GET", "/snapshot")).body
        before = {c: await objects(server, c) for c in ("team", "other")}
        revision = server.store.revision
    options = StorageOptions()
    if target == "etcd":
        options = StorageOptions(etcd_servers=shared_etcd().url, etcd_prefix=f"/{tmp_path.name}/")
    data = DataDir(tmp_path)
    count = await asyncio.to_thread(restore, lines(archive), data, options)
    assert count > 60
    async with served(options.open(data)) as restored:
        assert {c: await objects(restored, c) for c in ("team", "other")} == before
        if target == "sqlite":
            assert restored.store.revision > revision + 1_000_000
    with pytest.raises(StorageError, match="already"):
        await asyncio.to_thread(restore, lines(archive), data, options)


async def test_several_clusters_do_not_become_one() -> None:
    async with served() as server:
        await filled(server)
        await filled(server, "other")
        everything = lines((await ask(server, "GET", "/snapshot")).body)
        items = b"".join(line for line in everything if line.startswith(b'{"k":'))
        refused = await ask(server, "POST", "/snapshot?cluster=new&begin=true", items)
        assert refused.status == 400
        assert b"of another cluster" in refused.body
        assert not server.clusters.exists("new")


async def test_a_snapshot_is_of_one_moment() -> None:
    async with served() as server:
        await filled(server)
        response = await server.handle(Request("GET", "/snapshot", [("cluster", "team")], {}, b"", MASTER))
        for i in range(30):
            key = Key("configmaps", "team", "work", f"c{i:02}")
            entry = server.store.get(key)
            assert entry is not None
            await server.store.delete(key, lambda _, e=entry: e.value, entry.revision)
        reader = Reader(lines(await read_whole(response)))
        assert sum(1 for item in reader.items() if item.key.resource == "configmaps" and item.key.name[0] == "c") == 30


async def test_only_masters_of_root_take_snapshots() -> None:
    async with served() as server:
        for method, target in (
            ("GET", "/snapshot"),
            ("GET", "/snapshot?cluster=root"),
            ("POST", "/snapshot?cluster=x"),
        ):
            assert (await ask(server, method, target, b"", User("eve", ("system:authenticated",)))).status == 403
        assert (await ask(server, "GET", "/snapshot?cluster=nobody")).status == 404
        assert (await ask(server, "GET", "/clusters/root/snapshot")).status == 404
        assert (await ask(server, "DELETE", "/snapshot")).status == 405
        assert (await ask(server, "POST", "/snapshot?cluster=root", b'{"k":["a"]}')).status == 400


async def test_damaged_archives_are_named() -> None:
    async with served() as server:
        await filled(server)
        archive = lines((await ask(server, "GET", "/snapshot?cluster=team")).body)
    for damaged, why in (
        (archive[:-1], "cut short"),
        ([*archive[:3], *archive[4:]], "checksum is wrong"),
        ([*archive[:3], archive[3].replace(b"c0", b"c9"), *archive[4:]], "checksum is wrong"),
        ([*archive, b"more\n"], "something follows"),
        ([b"PK\x03\x04", *archive], "no archive of Glebe"),
        ([archive[0].replace(b'"version":1', b'"version":9'), *archive[1:]], "reads version 1"),
        ([*archive[:3], b"{]\n", *archive[3:]], "line 4 is damaged"),
        ([], "no archive of Glebe"),
    ):
        with pytest.raises(ArchiveError, match=why):
            list(Reader(damaged).items())
