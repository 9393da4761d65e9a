"""A client that costs so little that the server is what is measured: HTTP/1.1 over TLS, bytes in, bytes out.

It trusts the server to frame its answers well; it is for benchmarks only.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import cast
from urllib.parse import urlsplit

from glebe.kube.kubeconfig import ClientConfig
from glebe.kube.tls import client_context

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_turns = count()
_LAST_CHUNK = b"\r\n0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is and how to get in. Several ports are replicas: connections go to them in turn."""

    host: str
    ports: tuple[int, ...]
    prefix: str
    tls: ssl.SSLContext | None
    authorization: str = ""

    @classmethod
    def of(cls, config: ClientConfig) -> Address:
        parts = urlsplit(config.server)
        tls = client_context(config) if parts.scheme == "https" else None
        bearer = f"authorization: Bearer {config.token}\r\n" if config.token else ""
        return cls(parts.hostname or "", (parts.port or 443,), parts.path.rstrip("/"), tls, bearer)

    def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        """The bytes of one request."""
        head = f"{method} {self.prefix}{path} HTTP/1.1\r\nhost: {self.host}\r\nuser-agent: benchmark\r\n"
        head += f"accept: application/json\r\n{self.authorization}"
        if body:
            head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        return head.encode() + b"\r\n" + body


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._parts: list[bytes] = []
        self._missing = 0
        """Bytes of the body still to come; -1: it is chunked."""
        self._status = 0
        self.on_data: Callable[[bytes], None] | None = None
        """Set for a stream: gets everything that comes from then on."""

    @classmethod
    async def open(cls, address: Address) -> Connection:
        name = address.host if address.tls else None
        _, protocol = await asyncio.get_running_loop().create_connection(
            cls, address.host, address.ports[next(_turns) % len(address.ports)], ssl=address.tls, server_hostname=name
        )
        return protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("the server closed the connection"))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """(status, body as it came)."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._status = 0
        self._parts = []
        self._transport.write(request)
        return await self._answer

    async def expect(self, request: bytes, status: int) -> bytes:
        """The body of an answer that must have ``status``."""
        got, body = await self.ask(request)
        if got != status:
            raise RuntimeError(f"{request[:80]!r}: {got} {body[:300]!r}")
        return body

    def data_received(self, data: bytes) -> None:
        if self.on_data is not None:
            self.on_data(data)
            return
        if not self._status:
            data = b"".join((*self._parts, data)) if self._parts else data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._parts = [data]
                return
            self._status = int(data[9:12])
            head = data[:end]
            length = _LENGTH.search(head)
            chunked = _CHUNKED.search(head) is not None
            self._missing = int(length.group(1)) if length else -1 if chunked else 0
            self._parts = []
            data = data[end + 4 :]
        self._parts.append(data)
        if self._missing >= 0:
            self._missing -= len(data)
            done = self._missing <= 0
        else:
            tail = data if len(data) >= 7 or len(self._parts) == 1 else b"".join(self._parts[-2:])
            done = tail.endswith(_LAST_CHUNK)
        if done and self._answer is not None and not self._answer.done():
            self._answer.set_result((self._status, b"".join(self._parts)))


async def crowd(
    address: Address, clients: int, seconds: float, request: Callable[[int, int], bytes], status: int
) -> list[float]:
    """``clients`` connections ask one thing after the other for ``seconds``; the latencies of all answers, seconds.

    :param request: makes the bytes for (client, turn).
    """
    connections = await asyncio.gather(*(Connection.open(address) for _ in range(clients)))
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    async def one(number: int, connection: Connection) -> None:
        turn = 0
        while (began := time.perf_counter()) < end:
            await connection.expect(request(number, turn), status)
            latencies.append(time.perf_counter() - began)
            turn += 1

    try:
        await asyncio.gather(*(one(i, c) for i, c in enumerate(connections)))
    finally:
        for connection in connections:
            connection.close()
    return latencies
