"""API aggregation with a real extension server: TLS, a required front-proxy certificate, a metrics-like API."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from glebe.apiserver.auth.assembly import secure
from glebe.apiserver.auth.pki import LeafRequest, Pki
from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.resources import Resource
from glebe.kube.transport import Request, User

SERVICES = Resource("apiregistration.k8s.io", "v1", "apiservices", "APIService", False)
PLAIN_SERVICES = Resource("", "v1", "services", "Service", True)
SLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", True)
NAME = "v1beta1.metrics.example.org"
JANE = User("jane", ("devs", "system:authenticated", "system:masters"), "u-1", {"example.org/Team": ("a", "b")})
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


class Extension:
    """Answers for ``metrics.example.org/v1beta1`` and notes what it was asked."""

    def __init__(self) -> None:
        self.port = 0
        self.asked: list[tuple[str, Any]] = []
        self.ca = b""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.path_qs, request.headers.copy()))
        root = "/apis/metrics.example.org/v1beta1"
        if request.path == root:
            verbs = ["get", "list"]
            kind = {"name": "nodes", "singularName": "", "namespaced": False, "kind": "NodeMetrics", "verbs": verbs}
            return web.json_response(
                {"kind": "APIResourceList", "groupVersion": "metrics.example.org/v1beta1", "resources": [kind]}
            )
        if request.headers.get("upgrade") == "echo":
            answer = web.StreamResponse(status=101, headers={"connection": "Upgrade", "upgrade": "echo"})
            await answer.prepare(request)
            assert isinstance(request.transport, asyncio.Transport)
            request.transport.write(b"hello")
            return answer
        if request.path == f"{root}/nodes" and request.query.get("watch"):
            out = web.StreamResponse()
            await out.prepare(request)
            for index in range(3):
                await out.write(orjson.dumps({"type": "ADDED", "object": {"n": index}}) + b"\n")
                await asyncio.sleep(0)
            return out
        if request.path == f"{root}/nodes":
            return web.json_response({"kind": "NodeMetricsList", "items": []}, headers={"warning": '299 - "old"'})
        if request.path == "/openapi/v3":
            where = "/openapi/v3/apis/metrics.example.org/v1beta1?hash=X"
            return web.json_response({"paths": {"apis/metrics.example.org/v1beta1": {"serverRelativeURL": where}}})
        return web.json_response({"kind": "Status", "code": 404}, status=404)


@asynccontextmanager
async def extension(folder: Path, trusted: bytes) -> AsyncIterator[Extension]:
    """Running on 127.0.0.1; believes clients with a certificate of the CA ``trusted``."""
    env = Env.system()
    pki = Pki(folder / "extension")
    pki.ensure((), env.clock.now())
    from datetime import UTC, datetime

    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    key = ec.generate_private_key(ec.SECP256R1())
    wanted = LeafRequest("metrics", (), hosts=("metrics.kube-system.svc",), usages=(ExtendedKeyUsageOID.SERVER_AUTH,))
    signed = pki.sign(key.public_key(), wanted, datetime.fromtimestamp(env.clock.now(), UTC), timedelta(hours=1))
    file = folder / "extension.pem"
    file.write_bytes(
        signed
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=trusted.decode())
    context.load_cert_chain(file)
    context.verify_mode = ssl.CERT_REQUIRED
    peer = Extension()
    peer.ca = pki.ca_pem
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", peer.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    peer.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    try:
        yield peer
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[ApiServer, Client]]:
    env = Env.system()
    pki = Pki(folder / "pki")
    pki.ensure((), env.clock.now())
    server = ApiServer(MemoryStore(), env, TypeRegistry(), clusters=("root", "team"))
    secure(server, pki, env)
    await server.start()
    try:
        yield server, Client(InProcessTransport(server.handle))
    finally:
        await server.close()


async def register(client: Client, peer: Extension) -> None:
    meta = {"name": "metrics", "namespace": "kube-system"}
    spec: dict[str, Any] = {"ports": [{"port": 443, "targetPort": 8443}], "selector": {"app": "metrics"}}
    await client.create(PLAIN_SERVICES, {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})
    labels = {"kubernetes.io/service-name": "metrics"}
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "metrics-1", "namespace": "kube-system", "labels": labels},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": peer.port, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
    }
    await client.create(SLICES, endpoints)
    await client.create(SERVICES, api_service(peer))


def api_service(peer: Extension, **spec: Any) -> dict[str, Any]:
    whole = {
        "group": "metrics.example.org",
        "version": "v1beta1",
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
        "service": {"namespace": "kube-system", "name": "metrics"},
        "caBundle": base64.b64encode(peer.ca).decode(),
    }
    kind = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": NAME}}
    return {**kind, "spec": whole | spec}


async def available(client: Client) -> tuple[str, str]:
    """The condition, once it is known."""
    async with asyncio.timeout(5):
        while True:
            found = await client.get(SERVICES, NAME)
            for condition in (found.get("status") or {}).get("conditions") or ():
                return condition["status"], condition["reason"]
            await asyncio.sleep(0.01)


def trusted_ca(folder: Path) -> bytes:
    return (folder / "pki" / "front-proxy" / "ca.crt").read_bytes()


@pytest.mark.realtime
async def test_requests_reach_the_other_server_with_who_asks(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, client), extension(tmp_path, trusted_ca(tmp_path)) as peer:
        assert server.inner_filters == ()
        await register(client, peer)
        assert await available(client) == ("True", "Passed")
        path = "/apis/metrics.example.org/v1beta1/nodes"
        forged = {"x-remote-user": "root", "authorization": "Bearer secret", "accept": "application/json"}
        answer = await server.handle(Request("GET", path, [("labelSelector", "a=b")], forged, b"", JANE))
        assert (answer.status, orjson.loads(answer.body)["kind"]) == (200, "NodeMetricsList")
        assert answer.headers["warning"] == '299 - "old"'
        asked, headers = peer.asked[-1]
        assert asked == f"{path}?labelSelector=a%3Db"
        assert headers.getall("x-remote-user") == ["jane"]
        assert headers.getall("x-remote-uid") == ["u-1"]
        assert headers.getall("x-remote-group") == list(JANE.groups)
        assert headers.getall("x-remote-extra-example.org%2Fteam") == ["a", "b"]
        assert "authorization" not in headers
        assert headers["host"] == "metrics.kube-system.svc:443"
        watching = await server.handle(Request("GET", path, [("watch", "true")], {}, b"", JANE))
        assert watching.stream is not None
        lines = b"".join([chunk async for chunk in watching.stream]).splitlines()
        assert [orjson.loads(line)["object"]["n"] for line in lines] == [0, 1, 2]
        # another cluster has nothing of it
        other = await server.handle(Request("GET", f"/clusters/team{path}", [], {}, b"", JANE))
        assert other.status == 404


@pytest.mark.realtime
async def test_an_upgrade_becomes_a_connection_of_bytes(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, client), extension(tmp_path, trusted_ca(tmp_path)) as peer:
        await register(client, peer)
        assert await available(client) == ("True", "Passed")
        path = "/apis/metrics.example.org/v1beta1/nodes/a/shell"
        headers = {"connection": "Upgrade", "upgrade": "echo"}
        response = await server.handle(Request("GET", path, [], headers, b"", JANE))
        assert (response.status, response.headers["upgrade"]) == (101, "echo")
        assert peer.asked[-1][1].getall("x-remote-group") == list(JANE.groups)
        assert response.upgrade is not None
        loop, heard = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

        class Client(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                if not heard.done():
                    heard.set_result(data)

        front = await loop.create_server(lambda: response.upgrade(None), "127.0.0.1", 0)  # type: ignore[misc,arg-type]
        transport, _ = await loop.create_connection(Client, "127.0.0.1", front.sockets[0].getsockname()[1])
        assert await asyncio.wait_for(heard, 5) == b"hello"
        transport.close()
        front.close()


@pytest.mark.realtime
async def test_discovery_and_openapi_tell_of_both_servers(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, client), extension(tmp_path, trusted_ca(tmp_path)) as peer:
        await register(client, peer)
        assert await available(client) == ("True", "Passed")

        async def get(path: str, accept: str = "application/json") -> Any:
            answer = await server.handle(Request("GET", path, [], {"accept": accept}, b"", JANE))
            assert answer.status == 200, answer.body
            return orjson.loads(answer.body)

        groups = [g["name"] for g in (await get("/apis"))["groups"]]
        assert groups[0] == "apiregistration.k8s.io"
        assert groups[-1] == "metrics.example.org"
        assert (await get("/apis/metrics.example.org"))["preferredVersion"]["version"] == "v1beta1"
        item = (await get("/apis", AGGREGATED))["items"][-1]
        assert item["versions"][0]["resources"][0]["responseKind"]["kind"] == "NodeMetrics"
        assert item["versions"][0]["freshness"] == "Current"
        assert "apis/metrics.example.org/v1beta1" in (await get("/openapi/v3"))["paths"]
        listed = {s["metadata"]["name"]: s for s in (await client.list(SERVICES)).items}
        assert listed["v1."]["status"]["conditions"][0]["reason"] == "Local"
        assert listed["v1.apps"]["spec"] == {
            "group": "apps",
            "version": "v1",
            "groupPriorityMinimum": 17800,
            "versionPriority": 15,
        }
        await client.delete(SERVICES, NAME)
        assert server.inner_filters == ()
        assert "metrics.example.org" not in [g["name"] for g in (await get("/apis"))["groups"]]


@pytest.mark.realtime
async def test_what_is_not_there_is_unavailable(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, client), extension(tmp_path, trusted_ca(tmp_path)) as peer:
        await client.create(SERVICES, api_service(peer))
        assert await available(client) == ("False", "ServiceNotFound")
        path = "/apis/metrics.example.org/v1beta1/nodes"
        answer = await server.handle(Request("GET", path, [], {}, b"", JANE))
        assert (answer.status, answer.body) == (503, b"service unavailable\n")
        stale = await server.handle(Request("GET", "/apis", [], {"accept": AGGREGATED}, b"", JANE))
        assert orjson.loads(stale.body)["items"][-1]["versions"][0]["freshness"] == "Stale"


@pytest.mark.realtime
async def test_another_servers_certificate_is_not_believed(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client), extension(tmp_path, trusted_ca(tmp_path)) as peer:
        peer.ca = trusted_ca(tmp_path)
        await register(client, peer)
        assert await available(client) == ("False", "FailedDiscoveryCheck")


@pytest.mark.realtime
async def test_an_api_service_is_held_to_upstreams_rules(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):
        bad = api_service(Extension(), groupPriorityMinimum=0, versionPriority=2000, insecureSkipTLSVerify=True)
        bad["spec"]["caBundle"] = "eA=="
        bad["metadata"]["name"] = "v1.metrics.example.org"
        with pytest.raises(ApiError) as caught:
            await client.create(SERVICES, bad)
        assert {c["field"]: c["message"] for c in caught.value.details["causes"]} == {
            "metadata.name": 'Invalid value: "v1.metrics.example.org": must be `spec.version+"."+spec.group`: '
            '"v1beta1.metrics.example.org"',
            "spec.groupPriorityMinimum": "Invalid value: 0: must be positive and less than 20000",
            "spec.versionPriority": "Invalid value: 2000: must be positive and less than 1000",
            "spec.insecureSkipTLSVerify": "Invalid value: true: may not be true if caBundle is present",
        }


@pytest.mark.realtime
async def test_extension_servers_find_whom_to_believe(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):
        resource = Resource("", "v1", "configmaps", "ConfigMap", True)
        for cluster in ("root", "team"):
            found = await client.for_cluster(cluster).get(resource, "extension-apiserver-authentication", "kube-system")
            assert found["data"]["requestheader-client-ca-file"] == trusted_ca(tmp_path).decode()
            assert found["data"]["requestheader-allowed-names"] == '["front-proxy-client"]'
