"""Requests through the server to pods and services, and to kubelets for what pods' streams need."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import Any

import pytest
from aiohttp import web

from glebe.apiserver.dialing import DialRules
from glebe.apiserver.proxying import rewriting
from glebe.apiserver.proxying.locations import split
from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.resources import NODES, PODS, Resource
from glebe.kube.transport import PLATFORM, Request, Response

ENDPOINTS = Resource("", "v1", "endpoints", "Endpoints", True)
SERVICES = Resource("", "v1", "services", "Service", True)
POD = "/api/v1/namespaces/default/pods"


async def _echo(request: web.Request) -> web.StreamResponse:
    if request.path == "/page":
        page = '<a href="/rewriteme">test</a><img src="rel.png"><a href="http://other/x">o</a>'
        return web.Response(text=page, content_type="text/html")
    if request.path == "/moved":
        return web.Response(status=302, headers={"Location": "/there?x=1"})
    if request.headers.get("upgrade") == "echo":
        answer = web.StreamResponse(status=101, headers={"connection": "Upgrade", "upgrade": "echo"})
        await answer.prepare(request)
        transport = request.transport
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"hello")
        return answer
    seen = {
        "method": request.method,
        "path": request.path_qs,
        "body": await request.text(),
        "headers": {k.lower(): v for k, v in request.headers.items()},
    }
    return web.json_response(seen)


@asynccontextmanager
async def backend() -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", _echo)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serve(port: int, *, loopback: bool = True) -> AsyncIterator[tuple[ApiServer, Client]]:
    """A server with pod ``p`` at the backend's address and a service ``s`` in front of it."""
    server = ApiServer(MemoryStore(), Env.system(), TypeRegistry())
    if loopback:
        server.dialer.rules = DialRules(allow=(ip_network("127.0.0.0/8"),))
    await server.start()
    client = Client(InProcessTransport(server.handle))
    meta = {"name": "p", "namespace": "default"}
    container = {"name": "c", "image": "i", "ports": [{"containerPort": port}]}
    spec = {"containers": [container], "nodeName": "n"}
    await client.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    status = {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}
    await client.patch(PODS, "p", {"status": status}, "default", subresource="status")
    meta = {"name": "s", "namespace": "default"}
    spec = {"ports": [{"name": "web", "port": 80}]}
    await client.create(SERVICES, {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})
    try:
        yield server, client
    finally:
        await server.dialer.close()
        await server.close()


async def endpoints(client: Client, port: int, ref: dict[str, str]) -> None:
    address = {"ip": "127.0.0.1", **({"targetRef": ref} if ref else {})}
    subset = {"addresses": [address], "ports": [{"name": "web", "port": port}]}
    meta = {"name": "s", "namespace": "default"}
    body = {"apiVersion": "v1", "kind": "Endpoints", "metadata": meta, "subsets": [subset]}
    await client.update(ENDPOINTS, body)


async def ask(server: ApiServer, method: str, path: str, **headers: str) -> tuple[Response, bytes]:
    path, _, query = path.partition("?")
    pairs = [tuple(p.split("=", 1)) for p in query.split("&") if p]
    given = {"accept": "text/html", "host": "api.example", "authorization": "Bearer secret", **headers}
    request = Request(method, path, pairs, given, b"sent" if method == "POST" else b"", PLATFORM)  # type: ignore[arg-type]
    response = await server.handle(request)
    body = response.body
    if response.stream is not None:
        body = b"".join([chunk async for chunk in response.stream])
    return response, body


@pytest.mark.realtime
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_every_method_reaches_the_pod_with_path_query_and_body(method: str) -> None:
    import orjson

    async with backend() as port, serve(port) as (server, _):
        response, body = await ask(server, method, f"{POD}/p/proxy/some/path/?a=b&a=c")
        assert response.status == 200
        seen = orjson.loads(body)
        assert (seen["method"], seen["path"]) == (method, "/some/path/?a=b&a=c")
        assert seen["body"] == ("sent" if method == "POST" else "")
        assert "authorization" not in seen["headers"]
        assert seen["headers"]["x-forwarded-uri"] == f"{POD}/p/proxy/some/path/"


@pytest.mark.realtime
async def test_answers_lead_through_the_proxy_again() -> None:
    async with backend() as port, serve(port) as (server, _):
        _, page = await ask(server, "GET", f"{POD}/p:{port}/proxy/page")
        wanted = f'<a href="{POD}/p:{port}/proxy/rewriteme">test</a>'
        assert page.decode() == f'{wanted}<img src="rel.png"><a href="http://other/x">o</a>'
        moved, _ = await ask(server, "GET", f"{POD}/http:p:{port}/proxy/moved")
        assert (moved.status, moved.headers["location"]) == (302, f"{POD}/http:p:{port}/proxy/there?x=1")
        root, _ = await ask(server, "GET", f"{POD}/p/proxy?method=GET")
        assert (root.status, root.headers["location"]) == (301, f"{POD}/p/proxy/?method=GET")


@pytest.mark.realtime
@pytest.mark.parametrize("port", ["", ":80", ":web", "http:{}:web"])
async def test_a_service_leads_to_its_pods_only(port: str) -> None:
    name = port.format("s") if "{" in port else f"s{port}"
    path = f"/api/v1/namespaces/default/services/{name}/proxy/x"
    async with backend() as number, serve(number) as (server, client):
        await endpoints(client, number, {})
        response, body = await ask(server, "GET", path)
        assert response.status == 503
        assert b"no endpoints available for service" in body
        await endpoints(client, number, {"kind": "Pod", "name": "p", "namespace": "default"})
        response, _ = await ask(server, "GET", path)
        assert response.status == (503 if port == "" else 200), "an unnamed port is not the one called web"


@pytest.mark.realtime
async def test_what_cannot_be_reached_is_said_as_upstream_says_it() -> None:
    async with backend() as port, serve(port, loopback=False) as (server, _client):
        _, body = await ask(server, "GET", f"{POD}/p/proxy/")
        assert b"address not allowed" in body
        _, body = await ask(server, "GET", f"{POD}/a:b:c:d/proxy/")
        assert b'invalid pod request \\"a:b:c:d\\"' in body
        response, _ = await ask(server, "GET", f"{POD}/nobody/proxy/")
        assert response.status == 404
        server.dialer.rules = DialRules(allow=(ip_network("127.0.0.0/8"),))
        response, body = await ask(server, "GET", f"{POD}/p:1/proxy/")
        assert (response.status, b"error trying to reach service" in body) == (503, True)
        response, body = await ask(server, "GET", "/api/v1/namespaces/default/services/s:81/proxy/")
        assert (response.status, b'no service port 81 found for service \\"s\\"' in body) == (503, True)


@pytest.mark.realtime
async def test_an_upgrade_becomes_a_connection_of_bytes() -> None:
    async with backend() as port, serve(port) as (server, _):
        response, _ = await ask(server, "GET", f"{POD}/p/proxy/up", connection="Upgrade", upgrade="echo")
        assert response.status == 101
        assert response.headers["upgrade"] == "echo"
        assert response.upgrade is not None
        front: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        class Client(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                if not front.done():
                    front.set_result(data)

        made = await asyncio.get_running_loop().create_server(lambda: response.upgrade(None), "127.0.0.1", 0)  # type: ignore[misc,arg-type]
        number = made.sockets[0].getsockname()[1]
        transport, _ = await asyncio.get_running_loop().create_connection(Client, "127.0.0.1", number)
        assert await asyncio.wait_for(front, 5) == b"hello"
        transport.close()
        made.close()


@pytest.mark.realtime
async def test_streams_of_a_pod_need_a_node_and_its_kubelet() -> None:
    async with backend() as port, serve(port) as (server, client):
        _, body = await ask(server, "POST", f"{POD}/p/exec?container=x&command=ls&stdout=true")
        assert b"container x is not valid for pod p" in body
        _, body = await ask(server, "POST", f"{POD}/p/exec?stdout=true")
        assert b"you must specify at least 1 command for the container" in body
        _, body = await ask(server, "POST", f"{POD}/p/attach")
        assert b"you must specify at least 1 of stdin, stdout, stderr" in body
        response, _ = await ask(server, "POST", f"{POD}/p/exec?command=ls&stdout=true")
        assert response.status == 404, "its node is not known"
        status: dict[str, Any] = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 1}},
        }
        await client.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "status": status})
        response, _ = await ask(server, "GET", f"{POD}/p/log")
        assert response.status == 503, "the kubelet is asked, and does not answer"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("name", ("", "name", "")),
        ("name:80", ("", "name", "80")),
        ("https:name:web", ("https", "name", "web")),
        ("http:name:", ("http", "name", "")),
        ("ftp:name:1", None),
        (":80", None),
        ("a:b:c:d", None),
    ],
)
def test_names_of_targets(text: str, wanted: tuple[str, str, str] | None) -> None:
    assert split(text) == wanted


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("/a", "/p/proxy/a"),
        ("/a/?q=1#f", "/p/proxy/a/?q=1#f"),
        ("a", "a"),
        ("http://pod:80/a", "/p/proxy/a"),
        ("http://elsewhere/a", "http://elsewhere/a"),
        ("/p/proxy/a", "/p/proxy/a"),
        ("http://[", "http://["),
    ],
)
def test_rewritten_urls(url: str, wanted: str) -> None:
    assert rewriting.rewritten(url, "/p/proxy", ("pod:80",)) == wanted
