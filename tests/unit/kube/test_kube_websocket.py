"""The WebSocket codec: what is a message, what ends the connection; and how connections end."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glebe.kube import websocket
from glebe.kube.transport import Request
from glebe.kube.websocket import BINARY, CLOSE, PING, PONG, TEXT, WebSocket, unmask

pytestmark = pytest.mark.realtime
MASK = b"\x11\x22\x33\x44"


@given(st.binary(max_size=70), st.binary(min_size=4, max_size=4))
def test_unmasking(data: bytes, mask: bytes) -> None:
    assert unmask(data, mask) == bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))


def frame(payload: bytes, opcode: int = BINARY, *, final: bool = True, mask: bytes = MASK, bits: int = 0) -> bytes:
    first = (0x80 if final else 0) | bits | opcode
    size = len(payload)
    bit = 0x80 if mask else 0
    if size < 126:
        head = bytes((first, bit | size))
    elif size < 1 << 16:
        head = struct.pack(">BBH", first, bit | 126, size)
    else:
        head = struct.pack(">BBQ", first, bit | 127, size)
    return head + mask + (unmask(payload, mask) if mask else payload)


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[WebSocket, asyncio.StreamReader, asyncio.StreamWriter]]:
    """(the server's end, the client's reader and writer)."""
    made: asyncio.Future[WebSocket] = asyncio.get_running_loop().create_future()
    ends: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends.append(writer)
        made.set_result(WebSocket(reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    try:
        yield await made, reader, writer
    finally:
        for each in (writer, *ends):
            each.close()
        server.close()


async def test_messages_of_all_sizes_and_in_pieces() -> None:
    async with pair() as (socket, _, writer):
        for size in (0, 125, 126, 65535, 65536, 200_000):
            payload = os.urandom(size)
            writer.write(frame(payload))
            assert await socket.receive() == (BINARY, payload)
        writer.write(frame(b"one ", TEXT, final=False) + frame(b"two", 0, final=False))
        writer.write(frame(b"?", PING) + frame(b"", PONG) + frame(b" three", 0))
        assert await socket.receive() == (TEXT, b"one two three")


async def test_pings_are_answered_and_goodbye_is_said() -> None:
    async with pair() as (socket, reader, writer):
        writer.write(frame(b"there?", PING) + frame(struct.pack(">H", 1000), CLOSE))
        assert await socket.receive() is None
        assert await reader.readexactly(8) == bytes((0x80 | PONG, 6)) + b"there?"
        assert await reader.readexactly(4) == bytes((0x80 | CLOSE, 2)) + struct.pack(">H", 1000)


@pytest.mark.parametrize(
    "data",
    [
        frame(b"x", mask=b""),
        frame(b"x", bits=0x40),
        frame(b"x" * 126, PING),
        frame(b"x", PING, final=False),
        frame(b"x", 0),
        frame(b"x", final=False) + frame(b"y"),
        struct.pack(">BBQ", 0x82, 0xFF, 1 << 40) + MASK,
    ],
)
async def test_rules_that_are_broken_end_it(data: bytes) -> None:
    async with pair() as (socket, _, writer):
        writer.write(data)
        with pytest.raises(ConnectionAbortedError):
            await socket.receive()


async def test_a_cut_frame_is_the_end() -> None:
    async with pair() as (socket, _, writer):
        writer.write(frame(b"whole")[:-2])
        writer.close()
        assert await socket.receive() is None


async def test_a_slow_reader_gets_everything_though_it_talks_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing a socket with unread input resets it, and what was on its way to the reader is lost."""
    monkeypatch.setattr(websocket, "_FAREWELL", 0.05)

    async def end(socket: WebSocket) -> None:
        await socket.close()
        socket._writer.close()

    async with pair() as (socket, reader, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(60):
            await asyncio.wait_for(socket.send(bytes(50_000)), 5)
        ending = asyncio.ensure_future(end(socket))
        for _ in range(10):
            writer.write(frame(b"ping", PING))
            await asyncio.sleep(0.03)
        assert not ending.done()
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        got = 0
        while got < 60 * (50_000 + 4):
            got += len(await asyncio.wait_for(reader.read(1 << 20), 5))
        writer.close()
        await asyncio.wait_for(ending, 5)


def test_the_handshake() -> None:
    headers = {
        "connection": "keep-alive, Upgrade",
        "upgrade": "websocket",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-version": "13",
        "sec-websocket-protocol": "v5.channel.k8s.io, v4.channel.k8s.io",
    }
    request = Request("GET", "/", [], headers)
    assert websocket.is_asked(request)
    assert websocket.offered(request) == ["v5.channel.k8s.io", "v4.channel.k8s.io"]
    answer = websocket.accept_headers(request, "v4.channel.k8s.io")
    assert answer is not None
    assert answer["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455, 1.3
    assert websocket.accept_headers(Request("GET", "/", [], {**headers, "sec-websocket-version": "8"}), "") is None
    assert not websocket.is_asked(Request("GET", "/", [], {"upgrade": "SPDY/3.1", "connection": "Upgrade"}))
