"""Probes' and hooks' actions against real servers on the loopback address."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived, StreamEnded

from glebe.node.containers.containers import CannotExecute
from glebe.node.process import actions
from glebe.node.process.actions import ActionError, Outcome, Target

pytestmark = pytest.mark.realtime
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def target(containers: Any = None, **body: Any) -> Target:
    return Target(containers, None, {"name": "c", **body}, "127.0.0.1")  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await handler(reader, writer)
        writer.close()

    server = await asyncio.start_server(guarded, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


class Web:
    """Answers by path; remembers the heads of requests."""

    def __init__(self, answers: dict[str, str]) -> None:
        self.answers = answers
        self.heads: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        writer.write(self.answers[head.split()[1]].replace("\n", "\r\n").encode())
        await writer.drain()


OK = "HTTP/1.1 200 OK\nContent-Length: 2\n\nok"


async def get(port: int, path: str = "/", timeout: float = 2.0, **more: Any) -> Outcome:
    return await actions.probe(
        target(**more.pop("body", {})), {"httpGet": {"port": port, "path": path, **more}}, timeout
    )


async def test_http_probes() -> None:
    web = Web(
        {
            "/ok?a=b": OK,
            "/bad": "HTTP/1.1 503 No\nContent-Length: 6\n\nsecret",
            "/moved": "HTTP/1.1 302 Found\nLocation: /ok?a=b\nContent-Length: 0\n\n",
            "/away": "HTTP/1.1 301 Gone\nLocation: http://example.com/\nContent-Length: 4\n\nbye!",
            "/loop": "HTTP/1.1 302 Found\nLocation: /loop\nContent-Length: 0\n\n",
            "/garbage": "SSH-2.0-x\n\n\n",
        }
    )
    async with serving(web) as port:
        named = {"body": {"ports": [{"name": "web", "containerPort": port}]}}
        headers = [{"name": "X-Own", "value": "1"}, {"name": "Host", "value": "me"}, {"name": "Accept", "value": ""}]
        assert await get("web", "/ok?a=b", httpHeaders=headers, **named) == Outcome(True, "ok")  # type: ignore[arg-type]
        head = web.heads[-1]
        assert "X-Own: 1\r\nHost: me\r\n" in head
        assert "User-Agent: kube-probe/1.36\r\n" in head
        assert "Accept" not in head
        assert await get(port, "/bad") == Outcome(False, "HTTP probe failed with statuscode: 503")  # and no body
        assert (await get(port, "/moved")).ok
        away = await get(port, "/away")
        assert away == Outcome(True, "Probe terminated redirects, Response body: bye!", warning=True)
        assert "stopped after 10 redirects" in (await get(port, "/loop")).text
        assert "malformed HTTP response" in (await get(port, "/garbage")).text
    refused = await get(port, "/x")
    url = f"http://127.0.0.1:{port}/x"
    assert refused.text == f'Get "{url}": dial tcp 127.0.0.1:{port}: connect: connection refused'


async def test_slow_and_silent_servers() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async with serving(silent) as port:
        late = await get(port, timeout=0.1)
        assert late.text.endswith("context deadline exceeded (Client.Timeout exceeded while awaiting headers)")
        assert (await actions.probe(target(), {"tcpSocket": {"port": port}}, 1.0)).ok
    async with serving(rude) as port:
        assert (await get(port)).text.endswith(": EOF")
    tcp = await actions.probe(target(), {"tcpSocket": {"port": str(port)}}, 1.0)
    assert tcp == Outcome(False, f"dial tcp 127.0.0.1:{port}: connect: connection refused")


async def test_https_is_not_verified_and_plain_http_is_told_apart(tmp_path: Path) -> None:
    async with serving(Web({"/": OK}), _tls(tmp_path)) as port:
        assert (await get(port, scheme="HTTPS")).ok

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.0 400 Bad Request\r\n\r\n")
        await writer.drain()

    async with serving(plain) as port:
        text = (await get(port, scheme="HTTPS")).text
        assert text == f'Get "https://127.0.0.1:{port}/": http: server gave HTTP response to HTTPS client'


def _tls(directory: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody else")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    kinds = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (directory / "both.pem").write_bytes(pem + key.private_bytes(*kinds))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(directory / "both.pem")
    return context


async def test_ports_that_cannot_be_found_say_nothing_about_the_container() -> None:
    for port, words in (("web", 'parsing "web": invalid syntax'), (0, "invalid port number: 0")):
        with pytest.raises(ActionError, match=words):
            await actions.probe(target(), {"tcpSocket": {"port": port}}, 1.0)
    with pytest.raises(ActionError, match="missing probe handler"):
        await actions.probe(target(), {}, 1.0)


# --- gRPC


class Health:
    """A health service: (grpc-status, HealthCheckResponse.status) by service name."""

    def __init__(self, answers: dict[str, tuple[int, int]]) -> None:
        self.answers = answers

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.initiate_connection()
        body, path = b"", ""
        while True:
            writer.write(connection.data_to_send())
            await writer.drain()
            data = await reader.read(65536)
            if not data:
                return
            for event in connection.receive_data(data):
                if isinstance(event, RequestReceived):
                    path = next(str(value) for name, value in event.headers if str(name) == ":path")
                body += getattr(event, "data", b"")
                if isinstance(event, StreamEnded):
                    await self._answer(connection, path, body)

    async def _answer(self, connection: H2Connection, path: str, body: bytes) -> None:
        assert path == "/grpc.health.v1.Health/Check"
        service = body[7:].decode()
        code, status = self.answers[service]
        if status == 99:
            await asyncio.sleep(30)
        connection.send_headers(1, [(":status", "200"), ("content-type", "application/grpc")])
        if not code:
            connection.send_data(1, b"\0\0\0\0\2\x08" + bytes([status]))
        connection.send_headers(1, [("grpc-status", str(code)), ("grpc-message", "so it is")], end_stream=True)


async def test_grpc_probes() -> None:
    service = "a" * 130  # longer than one byte of length
    health = Health({"": (0, 1), service: (0, 2), "none": (5, 0), "old": (12, 0), "slow": (0, 99)})

    async def check(name: str, timeout: float = 2.0) -> Outcome:
        return await actions.probe(target(), {"grpc": {"port": port, "service": name}}, timeout)

    # The length of a long name takes two bytes, so what the server sees begins one later.
    health.answers["\x01" + service] = health.answers[service]
    async with serving(health) as port:
        assert await check("") == Outcome(True, "service healthy")
        assert (await check(service)).text == 'service unhealthy (responded with "NOT_SERVING")'
        missing = await check("none")
        assert missing.text == "error: health rpc probe failed: rpc error: code = NotFound desc = so it is"
        assert (await check("old")).text.startswith("error: this server does not implement the grpc health protocol")
        assert (await check("slow", 0.2)).text == "timeout: health rpc did not complete within 0.2s"
    assert (await check("", 0.2)).text.startswith(f'timeout: failed to connect service "127.0.0.1:{port}" within 0.2s')


# --- exec


class Process:
    def __init__(self, code: int, takes: float = 0.0) -> None:
        self.code = code
        self.takes = takes
        self.closed = False

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        yield 2, b"err"
        await asyncio.sleep(self.takes)
        yield 1, b"out"

    async def wait(self) -> int:
        return self.code

    async def close(self) -> None:
        self.closed = True


class Rooms:
    mounts = True

    def __init__(self, process: Process) -> None:
        self.process = process
        self.argv: list[str] = []

    async def execute(self, run: Any, argv: list[str], **_: Any) -> Process:
        self.argv = argv
        if argv[0] == "none":
            raise CannotExecute(127, "executable file not found in $PATH")
        return self.process


async def test_exec_probes() -> None:
    rooms = Rooms(Process(0))
    it = target(rooms, env=[{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {}}])
    assert await actions.probe(it, {"exec": {"command": ["do", "$(A)", "$(C)"]}}, 1.0) == Outcome(True, "outerr")
    assert rooms.argv == ["do", "1", "$(C)"]
    assert rooms.process.closed
    assert not (await actions.probe(target(Rooms(Process(3))), {"exec": {"command": ["x"]}}, 1.0)).ok
    slow = Rooms(Process(0, takes=30))
    late = await actions.probe(target(slow), {"exec": {"command": ["x", "y"]}}, 0.1)
    assert late == Outcome(False, 'command timed out: "x y" timed out after 0.1s')
    assert slow.process.closed  # it must not go on in the container
    with pytest.raises(ActionError, match="executable file not found"):
        await actions.probe(it, {"exec": {"command": ["none"]}}, 1.0)
