"""SPDY/3.1 as Kubernetes' clients use it for streams: the server's side, over anything that carries bytes.

``kubectl port-forward`` speaks it inside a WebSocket, older clients speak it instead of HTTP. There is no flow control
by windows, since those clients have none: who reads a stream slowly holds up its connection.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from glebe.node.kubelet.spdyheaders import Headers

_VERSION = 3
_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _PING, _GOAWAY = 1, 2, 3, 6, 7
_FIN = 1
_PROTOCOL_ERROR, _REFUSED, _CANCEL = 1, 3, 5
_LARGEST_FRAME = 4 << 20  # clients send pieces of 32 KiB
_HELD = 1 << 20  # bytes of one stream that nobody has read yet, before the connection is held up
_STREAMS = 1000
_QUIET = 5.0  # seconds
_PIECE = 64 * 1024


class Link(Protocol):
    """Carries the bytes."""

    async def read(self) -> bytes:
        """Some bytes; none when the other side has ended. :raises OSError: it broke."""

    async def write(self, data: bytes) -> None:
        """Waits while the other side takes nothing. :raises OSError: it broke."""


class Raw:
    """A connection that speaks SPDY and nothing else."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        return await self._reader.read(_PIECE)

    async def write(self, data: bytes) -> None:
        if self._writer.is_closing():
            raise ConnectionResetError("the client has left")
        self._writer.write(data)
        await self._writer.drain()


class Stream:
    """One stream, made by the client. ``headers`` have lower-case names."""

    def __init__(self, session: Session, number: int, headers: Mapping[str, str], half_closed: bool) -> None:
        self.number = number
        self.headers = headers
        self._session = session
        self._chunks: list[bytes] = []
        self._held = 0
        self._ended = half_closed
        self._closed = False
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def read(self) -> bytes:
        """What has come; nothing when the client has ended the stream or the connection is gone."""
        while not self._chunks and not self._ended:
            self._news.clear()
            await self._news.wait()
        data = b"".join(self._chunks)
        self._chunks.clear()
        self._held = 0
        self._room.set()
        return data

    async def write(self, data: bytes) -> None:
        """
        :raises OSError: the stream or its connection has ended.
        """
        if self._closed:
            raise ConnectionResetError("the stream is closed")
        for start in range(0, len(data), _PIECE):
            await self._session.data(self.number, data[start : start + _PIECE], False)

    async def close(self) -> None:
        """Nothing more will be written."""
        if not self._closed:
            self._closed = True
            await self._session.data(self.number, b"", True)
            self._session.settle(self)

    async def reset(self) -> None:
        """Give the stream up."""
        self._closed = True
        self.end()
        await self._session.reset(self.number, _CANCEL)

    # --- the session's side

    @property
    def over(self) -> bool:
        return self._ended and self._closed

    async def take(self, data: bytes) -> None:
        if self._ended or not data:
            return
        self._chunks.append(data)
        self._held += len(data)
        self._news.set()
        if self._held > _HELD:
            self._room.clear()
        while not self._room.is_set():
            try:
                async with asyncio.timeout(_QUIET):
                    await self._room.wait()
            except TimeoutError:
                await self._session.ping()  # nothing is read meanwhile: only writing finds out that nobody is there

    def end(self) -> None:
        """The client writes no more, or has gone."""
        self._ended = True
        self._news.set()
        self._room.set()

    def cut(self) -> None:
        """The client has given the stream up."""
        self._closed = True
        self.end()


class Session:
    """All streams of one connection. ``run`` reads it until it ends; ``accept`` yields the streams as they come."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._buffer = bytearray()
        self._headers = Headers()
        self._streams: dict[int, Stream] = {}
        self._new: asyncio.Queue[Stream | None] = asyncio.Queue()
        self._writing = asyncio.Lock()
        self._last = 0
        self._ended = False

    async def accept(self) -> AsyncIterator[Stream]:
        """Streams until the connection ends."""
        while (stream := await self._new.get()) is not None:
            yield stream

    async def run(self) -> None:
        """Until the client leaves, or breaks the rules."""
        try:
            while data := await self._link.read():
                self._buffer += data
                while await self._next():
                    pass
        except (OSError, zlib.error, struct.error, UnicodeDecodeError):
            pass
        finally:
            self._ended = True
            for stream in self._streams.values():
                stream.cut()
            self._new.put_nowait(None)

    async def _next(self) -> bool:
        """Act on the next whole frame, if there is one."""
        if len(self._buffer) < 8:
            return False
        first, second = struct.unpack_from(">II", self._buffer)
        flags, length = second >> 24, second & 0xFFFFFF
        control = bool(first & 0x80000000)
        if length > _LARGEST_FRAME or (control and (first >> 16) & 0x7FFF != _VERSION):
            raise ConnectionAbortedError("too long, or not SPDY/3")
        if len(self._buffer) < 8 + length:
            return False
        body = bytes(self._buffer[8 : 8 + length])
        del self._buffer[: 8 + length]
        if control:
            await self._control(first & 0xFFFF, flags, body)
        else:
            await self._data(first, flags, body)
        return True

    async def _data(self, number: int, flags: int, body: bytes) -> None:
        stream = self._streams.get(number)
        if stream is None:
            return  # it was given up meanwhile
        await stream.take(body)
        if flags & _FIN:
            stream.end()
            self.settle(stream)

    async def _control(self, kind: int, flags: int, body: bytes) -> None:
        if kind == _SYN_STREAM:
            await self._syn(flags, body)
        elif kind == _RST_STREAM:
            (number,) = struct.unpack_from(">I", body)
            stream = self._streams.pop(number & 0x7FFFFFFF, None)
            if stream is not None:
                stream.cut()
        elif kind == _PING and len(body) == 4 and body[3] & 1:
            await self._write(struct.pack(">HHI", 0x8000 | _VERSION, _PING, 4) + body)

    async def _syn(self, flags: int, body: bytes) -> None:
        number = struct.unpack_from(">I", body)[0] & 0x7FFFFFFF
        headers = self._headers.read(body[10:])
        if not number & 1 or number <= self._last:
            await self.reset(number, _PROTOCOL_ERROR)
        elif len(self._streams) >= _STREAMS:
            await self.reset(number, _REFUSED)
        else:
            self._last = number
            stream = self._streams[number] = Stream(self, number, headers, bool(flags & _FIN))
            block = self._headers.write({})
            head = struct.pack(">HHII", 0x8000 | _VERSION, _SYN_REPLY, len(block) + 4, number)
            await self._write(head + block)
            self._new.put_nowait(stream)

    # --- what streams send

    async def data(self, number: int, data: bytes, last: bool) -> None:
        await self._write(struct.pack(">II", number, (_FIN if last else 0) << 24 | len(data)) + data)

    async def reset(self, number: int, status: int) -> None:
        self._streams.pop(number, None)
        await self._write(struct.pack(">HHIII", 0x8000 | _VERSION, _RST_STREAM, 8, number, status))

    async def ping(self) -> None:
        """Something to send while there is nothing to say.

        :raises OSError: the client has left.
        """
        await self._write(struct.pack(">HHII", 0x8000 | _VERSION, _PING, 4, 2))

    async def go_away(self) -> None:
        """No more streams are taken."""
        await self._write(struct.pack(">HHIII", 0x8000 | _VERSION, _GOAWAY, 8, self._last, 0))

    def settle(self, stream: Stream) -> None:
        """Forget a stream that both sides have ended."""
        if stream.over:
            self._streams.pop(stream.number, None)

    async def _write(self, data: bytes) -> None:
        if self._ended:
            raise ConnectionResetError("the client has left")
        async with self._writing:
            await self._link.write(data)
