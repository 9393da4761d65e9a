"""A small HTTPS listener: requests with a head and a short body, answers, streams, and connections taken over.

Its only regular client is the API server, over TLS. What it may hold is bounded: heads, bodies, waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from glebe.kube.lingering import close_soon, until_taken
from glebe.kube.transport import Request, Response

log = logging.getLogger("glebe.node.kubelet")

_HEAD = 64 * 1024
_BODY = 1 << 20
_IDLE = 90.0  # seconds that a connection may stay without a request
_HEAD_SECONDS = 20.0
_REASONS = {101: "Switching Protocols", 200: "OK", 301: "Moved Permanently"}
#: A peer that vanished is found out after half a minute of silence. While something is on its way to it the kernel
#: decides (a quarter of an hour): no shorter limit could tell it from one that reads slowly.
_KEEPALIVE = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True)
class Takeover:
    """The answer 101: ``talk`` has the connection from then on, until it returns."""

    headers: dict[str, str]
    talk: Talk
    status: int = field(default=101, init=False)


Handle = Callable[[Request], Awaitable[Response | Takeover]]


class Listener:
    """Listens on one address.

    :param handle: answers; it may raise for nothing that a client can cause.
    """

    def __init__(self, handle: Handle, tls: ssl.SSLContext | None) -> None:
        self._handle = handle
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    async def start(self, host: str, port: int = 0) -> None:
        """
        :raises OSError: the address cannot be had.
        """
        self._server = await asyncio.start_server(self._connected, host, port, ssl=self._tls, limit=_HEAD)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """End all connections."""
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections, timeout=5.0)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            _keep_alive(writer)
            while await self._serve_one(reader, writer):
                pass
        except (OSError, ssl.SSLError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            pass  # the client left, or sent what no client should
        except asyncio.CancelledError:
            pass  # the listener closes
        except Exception:
            log.exception("a request to the node's server failed")
        finally:
            self._connections.discard(task)
            close_soon(writer)

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; says whether the connection may carry another."""
        request = await _read_request(reader, writer)
        if request is None:
            return False
        answer = await self._handle(request)
        if isinstance(answer, Takeover):
            writer.write(_head(101, answer.headers))
            await writer.drain()
            await answer.talk(reader, writer)
            await until_taken(reader, writer)
            return False
        keep = request.headers.get("connection", "").lower() != "close"
        if answer.stream is not None:
            await _stream(answer, reader, writer)
            return False
        headers = {**answer.headers, "content-length": str(len(answer.body))}
        body = b"" if request.method == "HEAD" else answer.body
        writer.write(_head(answer.status, headers if keep else {**headers, "connection": "close"}) + body)
        await writer.drain()
        return keep


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError, AttributeError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def _read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    """The next request; ``None`` when the client has none any more, or none that can be read."""
    async with asyncio.timeout(_IDLE):
        first = await reader.readline()
    if not first.strip():
        return None
    async with asyncio.timeout(_HEAD_SECONDS):
        rest = b"" if first == b"\n" else await _rest_of_head(reader)
        parsed = _parse(first + rest)
        if parsed is None or "transfer-encoding" in parsed.headers:
            writer.write(_head(400, {"content-length": "0", "connection": "close"}))
            await writer.drain()
            return None
        length = parsed.headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or int(length) > _BODY:
            writer.write(_head(413, {"content-length": "0", "connection": "close"}))
            await writer.drain()
            return None
        parsed.body = await reader.readexactly(int(length))
    tls = writer.get_extra_info("ssl_object")
    parsed.peer_certificate = tls.getpeercert(binary_form=True) if tls is not None else None
    peer = writer.get_extra_info("peername")
    parsed.remote = str(peer[0]) if peer else ""
    return parsed


async def _rest_of_head(reader: asyncio.StreamReader) -> bytes:
    lines: list[bytes] = []
    size = 0
    while True:
        line = await reader.readline()
        size += len(line)
        if not line or size > _HEAD:
            raise asyncio.IncompleteReadError(line, None)
        lines.append(line)
        if line in (b"\r\n", b"\n"):
            return b"".join(lines)


def _parse(head: bytes) -> Request | None:
    """The request of a head; httptools is strict about what a head is."""
    import httptools  # late: most nodes are never asked anything

    pairs: list[tuple[str, str]] = []
    target: list[bytes] = []

    class Events:
        def on_url(self, url: bytes) -> None:
            target.append(url)

        def on_header(self, name: bytes, value: bytes) -> None:
            pairs.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    parser = httptools.HttpRequestParser(Events())
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        return None
    headers: dict[str, str] = {}
    for name, value in pairs:
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    parts = urlsplit(b"".join(target).decode("latin-1"))
    query = parse_qsl(parts.query, keep_blank_values=True)
    return Request(parser.get_method().decode(), unquote(parts.path), query, headers)


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}", *(f"{k}: {v}" for k, v in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


async def _stream(answer: Response, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Chunks until they end or the client leaves, though it be silent meanwhile."""
    sending = asyncio.ensure_future(_send_chunks(answer, writer))
    leaving = asyncio.ensure_future(reader.read(1))
    try:
        await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            sending.result()
    finally:
        for task in (sending, leaving):
            task.cancel()
        await asyncio.gather(sending, leaving, return_exceptions=True)
        await answer.close()


async def _send_chunks(answer: Response, writer: asyncio.StreamWriter) -> None:
    headers = {**answer.headers, "transfer-encoding": "chunked", "connection": "close"}
    writer.write(_head(answer.status, headers))
    await writer.drain()
    assert answer.stream is not None
    async for chunk in answer.stream:
        if chunk:
            writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            await writer.drain()
    writer.write(b"0\r\n\r\n")
    await writer.drain()
