"""WebSocket (RFC 6455), the server's side, over an asyncio connection."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import struct
from contextlib import suppress

from glebe.kube.lingering import until_taken
from glebe.kube.transport import Request

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
_CONTINUATION = 0x0
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_LARGEST = 16 << 20  # bytes of one message
_FAREWELL = 1.0  # seconds to wait for the client's own close frame, or its leaving
_PIECE = 64 * 1024


def is_asked(request: Request) -> bool:
    """Does the client want a WebSocket?"""
    upgrades = {word.strip().lower() for word in request.headers.get("upgrade", "").split(",")}
    return "websocket" in upgrades and "upgrade" in request.headers.get("connection", "").lower()


def offered(request: Request) -> list[str]:
    """The subprotocols that the client can speak, the one it likes best first."""
    return [word.strip() for word in request.headers.get("sec-websocket-protocol", "").split(",") if word.strip()]


def accept_headers(request: Request, protocol: str) -> dict[str, str] | None:
    """Headers of the answer 101; ``None`` when the client's handshake is none."""
    key = request.headers.get("sec-websocket-key", "")
    if request.headers.get("sec-websocket-version") != "13" or not key:
        return None
    digest = base64.b64encode(hashlib.sha1(key.encode("latin-1") + _GUID, usedforsecurity=False).digest()).decode()
    headers = {"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-accept": digest}
    return {**headers, "sec-websocket-protocol": protocol} if protocol else headers


class WebSocket:
    """One connection after the handshake. One task may receive while others send."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._closing = False

    async def receive(self) -> tuple[int, bytes] | None:
        """The next message (``TEXT`` or ``BINARY``, payload); ``None`` when the client has closed.

        Pings are answered on the way.

        :raises OSError: the connection broke, or the client breaks the rules.
        """
        kind, size = 0, 0
        parts: list[bytes] = []
        while True:
            try:
                final, opcode, payload = await self._frame()
            except asyncio.IncompleteReadError:
                return None
            if opcode == CLOSE:
                await self._say_goodbye(payload[:2])
                return None
            if opcode == PING:
                await self.send(payload, PONG)
                continue
            if opcode == PONG:
                continue
            if (opcode == _CONTINUATION) != bool(parts):
                raise ConnectionAbortedError("a message begins within another")
            kind = kind or opcode
            parts.append(payload)
            size += len(payload)
            if size > _LARGEST:
                raise ConnectionAbortedError("the message is too long")
            if final:
                return kind, b"".join(parts)

    async def _frame(self) -> tuple[bool, int, bytes]:
        first, second = await self._reader.readexactly(2)
        if first & 0x70 or not second & 0x80:
            raise ConnectionAbortedError("reserved bits, or a frame without a mask")
        opcode, length = first & 0x0F, second & 0x7F
        if opcode >= CLOSE and (length > 125 or not first & 0x80):
            raise ConnectionAbortedError("a control frame that is none")
        if length == 126:
            (length,) = struct.unpack(">H", await self._reader.readexactly(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", await self._reader.readexactly(8))
        if length > _LARGEST:
            raise ConnectionAbortedError("the frame is too long")
        mask = await self._reader.readexactly(4)
        return bool(first & 0x80), opcode, unmask(await self._reader.readexactly(length), mask)

    async def send(self, payload: bytes, opcode: int = BINARY) -> None:
        """Send one message; waits while the client takes nothing.

        :raises OSError: the client has left.
        """
        length = len(payload)
        if length < 126:
            head = bytes((0x80 | opcode, length))
        elif length < 1 << 16:
            head = struct.pack(">BBH", 0x80 | opcode, 126, length)
        else:
            head = struct.pack(">BBQ", 0x80 | opcode, 127, length)
        if self._writer.is_closing():
            raise ConnectionResetError("the client has left")
        self._writer.write(head + payload)
        await self._writer.drain()

    async def still_there(self) -> None:
        """A pong that nobody asked for: the client knows that we live though we read nothing.

        :raises OSError: the client has left.
        """
        await self.send(b"", PONG)

    async def _say_goodbye(self, code: bytes) -> None:
        if not self._closing:
            self._closing = True
            await self.send(code, CLOSE)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close in good order: tell the client, and give it a moment to agree."""
        if self._closing:
            return
        self._closing = True
        with suppress(OSError):
            await self.send(struct.pack(">H", code) + reason.encode()[:120], CLOSE)
            await until_taken(self._reader, self._writer)
            with suppress(TimeoutError):
                async with asyncio.timeout(_FAREWELL):
                    await self._reader.read(_PIECE)


def unmask(data: bytes, mask: bytes) -> bytes:
    """Payload XOR mask, as one long number: some hundred times quicker than byte by byte."""
    if not data:
        return b""
    repeated = (mask * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data, "little") ^ int.from_bytes(repeated, "little")).to_bytes(len(data), "little")
