"""The HTTP transport against real servers on loopback."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kube_fake import FakeServer, make

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.http import HttpTransport
from glebe.kube.informer import Informer
from glebe.kube.kubeconfig import ClientConfig, load_kubeconfig, write_kubeconfig
from glebe.kube.resources import PODS
from glebe.kube.tls import load_cert_chain
from glebe.kube.transport import ConnectionLost, Request

pytestmark = pytest.mark.realtime

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler, port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    runner = web.ServerRunner(web.Server(handler, access_log=None, handler_cancellation=True), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls, reuse_address=True)
    await site.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def front(server: FakeServer) -> Handler:
    """A plain HTTP front for the fake server."""

    async def handle(request: web.Request) -> web.StreamResponse:
        answer = await server.send(
            Request(
                request.method,
                request.path,
                list(request.query.items()),
                {name.lower(): value for name, value in request.headers.items()},
                await request.read(),
            )
        )
        if answer.stream is None:
            return web.Response(status=answer.status, body=answer.body, headers=answer.headers)
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        response.enable_chunked_encoding()
        await response.prepare(request)
        try:
            async for chunk in answer.stream:
                await response.write(chunk)
        except ConnectionLost:
            assert request.transport is not None
            request.transport.abort()
        finally:
            await answer.close()
        return response

    return handle


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


async def test_verbs_and_watches_over_http() -> None:
    server = FakeServer()
    async with serving(front(server)) as url, HttpTransport(url) as transport:
        client = Client(transport, cluster="team")
        created = await client.create(PODS, make("a", "x"))
        assert await client.get(PODS, "a", "x") == created
        with pytest.raises(ApiError) as caught:
            await client.create(PODS, make("a", "x"))
        assert caught.value.reason == "AlreadyExists"
        async with aclosing(client.watch(PODS, resource_version="10")) as events:
            assert (await anext(events)).type == "ADDED"
            await client.delete(PODS, "a", "x")
            assert (await anext(events)).type == "DELETED"
        await until(lambda: not server.watchers)  # leaving closes the connection


@pytest.mark.parametrize("name", ["a b", "a%2Fb", "ü:x", "system:node:n", "a?b#c", "a+b"])
async def test_paths_and_queries_arrive_decoded(name: str) -> None:
    seen: list[tuple[str, dict[str, str]]] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append((request.path, dict(request.query)))
        return web.json_response({})

    async with serving(handle) as url, HttpTransport(f"{url}/clusters/t/") as transport:
        await transport.send(Request("GET", f"/api/v1/nodes/{name}", [("labelSelector", f"a in (x,y),b={name}&=")]))
    assert seen == [(f"/clusters/t/api/v1/nodes/{name}", {"labelSelector": f"a in (x,y),b={name}&="})]


async def test_informer_over_http_survives_a_restart_of_the_server() -> None:
    server = FakeServer()
    server.put(make("a"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with HttpTransport(f"http://127.0.0.1:{port}") as transport:
        client = Client(transport)
        informer = Informer(client, PODS, Env.system())
        task = asyncio.create_task(informer.run())
        for number in range(3):
            async with serving(front(server), port):
                await until(lambda: informer.has_synced and len(server.watchers) == 1)
                server.put(make(f"n{number}"))
                await until(lambda: {k.name for k, _ in informer.store.items()} == {k[1] for k in server.state()})
                assert (await client.get(PODS, "a", "default"))["kind"] == "Pod"
                server.break_watches(ConnectionLost("server goes down"))
        with pytest.raises(ConnectionLost, match="cannot reach"):
            await client.get(PODS, "a", "default")
        assert informer.stats.restarts == 0  # every watch was resumed
        task.cancel()


class Flaky:
    """A raw server that reads a whole request and then, if told so, hangs up without an answer."""

    def __init__(self) -> None:
        self.hang_up: list[bool] = []
        self.methods: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                for line in head.split("\r\n"):
                    if line.lower().startswith("content-length:"):
                        await reader.readexactly(int(line.split(":")[1]))
                self.methods.append(head.split(" ")[0])
                if self.hang_up and self.hang_up.pop(0):
                    return
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def test_a_dead_connection_is_tried_again_for_reads_only() -> None:
    flaky = Flaky()
    server = await asyncio.start_server(flaky.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with HttpTransport(f"http://127.0.0.1:{port}") as transport:
        client = Client(transport)
        await client.get(PODS, "a", "x")
        flaky.hang_up = [True, False]
        await client.get(PODS, "a", "x")
        assert flaky.methods == ["GET", "GET", "GET"]
        flaky.hang_up = [True, True, True]
        with pytest.raises(ConnectionLost):
            await client.get(PODS, "a", "x")
        assert flaky.methods == ["GET"] * 5

        obj = {**make("a", "x")}
        writes = [
            ("POST", lambda: client.create(PODS, obj)),
            ("PUT", lambda: client.update(PODS, obj)),
            ("PATCH", lambda: client.patch(PODS, "a", {}, "x")),
            ("DELETE", lambda: client.delete(PODS, "a", "x")),
        ]
        for method, call in writes:
            flaky.hang_up = [False]
            await client.get(PODS, "a", "x")  # a connection that is kept alive
            flaky.methods.clear()
            flaky.hang_up = [True, False]
            with pytest.raises(ConnectionLost):
                await call()
            assert flaky.methods == [method]
    server.close()


async def test_silence_is_noticed() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if "watch" in request.query or request.path.endswith("/log"):
            await response.prepare(request)
            await response.write(b"x\n")
        await asyncio.sleep(0.5)
        return response

    async with (
        serving(handle) as url,
        HttpTransport(url, read_timeout=0.1, watch_timeout=0.1) as transport,
    ):
        client = Client(transport)
        with pytest.raises(ConnectionLost, match="in time"):
            await client.get(PODS, "a", "x")
        watch = await transport.send(Request("GET", "/api/v1/pods", [("watch", "true")]))
        assert watch.stream is not None
        with pytest.raises(ConnectionLost, match="silent"):
            async for _ in watch.stream:
                pass
        # a log that is followed may be silent
        assert [c async for c in client.logs("a", "x", follow=True)] == [b"x\n"]


async def test_a_stream_that_breaks_off_is_no_end() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(b"some")
        assert request.transport is not None
        request.transport.abort()
        return response

    async with serving(handle) as url, HttpTransport(url) as transport:
        with pytest.raises(ConnectionLost, match="broke"):
            _ = [c async for c in Client(transport).logs("a", "x")]


async def test_tokens_from_a_file_are_read_again_when_refused(tmp_path: Path) -> None:
    accepted = "one"

    async def handle(request: web.Request) -> web.Response:
        good = request.headers.get("authorization") == f"Bearer {accepted}"
        return web.json_response({"metadata": {}}, status=200 if good else 401)

    token = tmp_path / "token"
    token.write_text("one\n")
    async with serving(handle) as url, HttpTransport(url, token_file=str(token)) as transport:
        client = Client(transport)
        await client.get(PODS, "a", "x")
        accepted = "two"
        token.write_text("two\n")
        await client.get(PODS, "a", "x")
        accepted = "three"
        with pytest.raises(ApiError) as caught:
            await client.get(PODS, "a", "x")
        assert caught.value.code == 401
    async with serving(handle) as url, HttpTransport(url, basic=("me", "pw")) as transport:
        with pytest.raises(ApiError):
            await Client(transport).get(PODS, "a", "x")


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def certificate(
    name: str, issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None = None
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=365 * 100))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    )
    return builder.sign(issuer[1] if issuer else key, hashes.SHA256()), key


async def test_client_certificates_from_a_kubeconfig(tmp_path: Path) -> None:
    authority = certificate("authority")
    ca = authority[0].public_bytes(serialization.Encoding.PEM)
    server_cert, server_key = certificate("localhost", authority)
    client_cert, client_key = certificate("jane", authority)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=ca.decode())
    tls.verify_mode = ssl.CERT_REQUIRED
    load_cert_chain(tls, server_cert.public_bytes(serialization.Encoding.PEM), pem(server_key))

    async def handle(request: web.Request) -> web.Response:
        assert request.transport is not None
        subject = request.transport.get_extra_info("peercert")["subject"]
        return web.json_response({"user": dict(pair for rdn in subject for pair in rdn)["commonName"]})

    async with serving(handle, tls=tls) as url:
        path = tmp_path / "config"
        write_kubeconfig(
            path,
            url.replace("127.0.0.1", "localhost"),
            ca=ca,
            certificate=client_cert.public_bytes(serialization.Encoding.PEM),
            key=pem(client_key),
        )
        config = load_kubeconfig(path)
        async with HttpTransport.from_config(config) as transport:
            assert await Client(transport).get(PODS, "a", "x") == {"user": "jane"}
        async with HttpTransport.from_config(ClientConfig(server=config.server)) as transport:
            with pytest.raises(ConnectionLost, match="CERTIFICATE_VERIFY_FAILED"):
                await Client(transport).get(PODS, "a", "x")
