"""The server on the durable store: crowds of writers, and what is left after a restart."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import SQLiteStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.resources import CONFIGMAPS, NAMESPACES

pytestmark = pytest.mark.realtime


async def serve(path: Path) -> tuple[ApiServer, Client]:
    server = ApiServer(SQLiteStore(path), Env.system(), TypeRegistry())
    await server.start()
    return server, Client(InProcessTransport(server.handle))


def config_map(name: str, namespace: str = "default") -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}}


async def test_a_crowd_of_patches_of_one_object_all_take_effect(tmp_path: Path) -> None:
    server, client = await serve(tmp_path / "db")
    try:
        await client.create(CONFIGMAPS, config_map("a"))
        await asyncio.gather(*(client.patch(CONFIGMAPS, "a", {"data": {f"k{i}": "v"}}, "default") for i in range(40)))
        assert len((await client.get(CONFIGMAPS, "a", "default"))["data"]) == 40
        made = await asyncio.gather(
            *(client.create(CONFIGMAPS, config_map("same")) for _ in range(10)), return_exceptions=True
        )
        assert sum(isinstance(m, dict) for m in made) == 1
        assert all(m.reason == "AlreadyExists" for m in made if isinstance(m, ApiError))
    finally:
        await server.close()


async def test_a_restarted_server_goes_on(tmp_path: Path) -> None:
    server, client = await serve(tmp_path / "db")
    await server.clusters.create("tenant")
    await client.for_cluster("tenant").create(CONFIGMAPS, config_map("t"))
    before = await client.create(CONFIGMAPS, config_map("a"))
    await client.delete(NAMESPACES, "kube-node-lease")
    await server.close()
    server, client = await serve(tmp_path / "db")
    try:
        assert await client.get(CONFIGMAPS, "a", "default") == before
        assert len((await client.for_cluster("tenant").list(CONFIGMAPS)).items) == 1
        assert (await client.get(NAMESPACES, "kube-node-lease"))["status"]["phase"] == "Terminating"
        later = await client.create(CONFIGMAPS, config_map("b"))
        assert int(later["metadata"]["resourceVersion"]) > int(before["metadata"]["resourceVersion"])
        old = before["metadata"]["resourceVersion"]
        with pytest.raises(ApiError) as caught:
            async for _ in client.watch(CONFIGMAPS, resource_version=old):
                pass
        assert caught.value.code == 410
    finally:
        await server.close()
