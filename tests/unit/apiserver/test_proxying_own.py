"""Nodes of this very process: reached where they registered, trusted by their certificate, whatever users write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from glebe.apiserver.auth.pki import Pki
from glebe.apiserver.proxying.locations import OwnKubelet
from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.resources import NODES, PODS
from glebe.kube.transport import PLATFORM, Request

pytestmark = pytest.mark.realtime
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello"


@asynccontextmanager
async def listening(pki: Pki) -> AsyncIterator[int]:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=pki.server_context())
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[ApiServer, Client]]:
    server = ApiServer(MemoryStore(), Env.system(), TypeRegistry(), clusters=("root", "tenant"))
    await server.start()
    try:
        yield server, Client(InProcessTransport(server.handle))
    finally:
        await server.dialer.close()
        await server.close()


async def get(server: ApiServer, path: str) -> tuple[int, bytes]:
    response = await server.handle(Request("GET", path, [], {"host": "h"}, b"", PLATFORM))
    body = response.body
    if response.stream is not None:
        body = b"".join([chunk async for chunk in response.stream])
    return response.status, body


async def test_own_nodes_are_reached_where_they_registered_and_by_their_certificate(tmp_path: Path) -> None:
    pki, other = Pki(tmp_path / "a"), Pki(tmp_path / "b")
    for each in (pki, other):
        each.ensure([], Env.system().clock.now())
    status = {"addresses": [{"type": "InternalIP", "address": "192.0.2.9"}]}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "status": status}
    async with serving() as (server, client), listening(pki) as port:
        for cluster in ("root", "tenant"):
            made = await client.for_cluster(cluster).create(NODES, node)
            loopback = {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}
            await client.for_cluster(cluster).patch(NODES, "n", {"status": loopback}, subresource="status")
            assert made["metadata"]["name"] == "n"
        path = "/api/v1/nodes/n/proxy/healthz"
        assert b"address not allowed" in (await get(server, path))[1]
        server.own_kubelets[("root", "n")] = OwnKubelet("127.0.0.1", port, pki.ca_pem)
        assert await get(server, path) == (200, b"hello")
        assert b"address not allowed" in (await get(server, f"/clusters/tenant{path}"))[1]
        server.own_kubelets[("root", "n")] = OwnKubelet("127.0.0.1", port, other.ca_pem)
        status_code, body = await get(server, path)
        assert (status_code, b"failed to verify certificate" in body) == (503, True)
        # Another port of the node is not the kubelet: it stays forbidden.
        assert b"address not allowed" in (await get(server, "/api/v1/nodes/http:n:1/proxy/"))[1]


async def test_a_loopback_address_is_a_pods_when_its_node_says_so(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    pki.ensure([], Env.system().clock.now())
    async with serving() as (server, client), listening(pki) as port:
        uids = {}
        for name in ("mine", "other"):
            meta = {"name": name, "namespace": "default"}
            spec = {"containers": [{"name": "c", "image": "i"}], "nodeName": "n"}
            pod = await client.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
            status = {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}
            await client.patch(PODS, name, {"status": status}, "default", subresource="status")
            uids[name] = pod["metadata"]["uid"]
        server.own_address = lambda cluster, uid: "127.0.0.1" if (cluster, uid) == ("root", uids["mine"]) else ""
        where = "/api/v1/namespaces/default/pods/https:{}:{}/proxy/"
        assert await get(server, where.format("mine", port)) == (200, b"hello")
        assert b"address not allowed" in (await get(server, where.format("other", port)))[1]
