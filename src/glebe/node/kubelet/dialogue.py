"""A client that talks to a process: standard input and sizes of its terminal come, output and an end go.

The same over the channels of a WebSocket (``v5.channel.k8s.io`` and its elders) and over the streams of SPDY.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Protocol

import orjson

from glebe.kube.websocket import BINARY, TEXT, WebSocket
from glebe.node.kubelet import spdy

STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
_CLOSED = 255  # v5: the next byte names a channel on which nothing more comes

#: Subprotocols of WebSockets, and of SPDY's streams.
CHANNEL_PROTOCOLS = (
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
)
STREAM_PROTOCOLS = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")

#: What a client says: (``STDIN``, bytes), (``STDIN``, b"") at its end, (``RESIZE``, (columns, rows)).
Said = tuple[int, Any]


class Gone(OSError):
    """The client has left."""


class Dialogue(Protocol):
    def said(self) -> AsyncIterator[Said]:
        """What the client says, until it leaves."""

    async def tell(self, channel: int, data: bytes) -> None:
        """Output of the process; waits while the client takes nothing. :raises OSError: the client has left."""

    async def still_there(self) -> None:
        """A sign of life in both directions. :raises OSError: the client has left."""

    async def finish(self, status: Mapping[str, Any]) -> None:
        """The process has ended so; the connection ends, too."""


def as_text(status: Mapping[str, Any]) -> bytes:
    """A status as clients before version 4 read it: nothing when all went well."""
    return b"" if status.get("status") == "Success" else str(status.get("message", "")).encode()


def size_of(data: bytes) -> tuple[int, int] | None:
    """(columns, rows) of ``{"Width": .., "Height": ..}``."""
    with contextlib.suppress(orjson.JSONDecodeError, AttributeError, TypeError, ValueError):
        size = orjson.loads(data)
        found = int(size.get("Width") or 0), int(size.get("Height") or 0)
        return found if min(found) > 0 and max(found) < 1 << 16 else None
    return None


class Channels:
    """A dialogue over a WebSocket: the first byte of a message is the channel."""

    def __init__(self, socket: WebSocket, protocol: str) -> None:
        self._socket = socket
        self._base64 = "base64" in protocol
        self._closes = protocol.startswith("v5.")
        self._status = protocol.startswith(("v5.", "v4."))

    async def begin(self, channel: int) -> None:
        """An empty message: the client knows that the connection stands."""
        await self.tell(channel, b"")

    async def said(self) -> AsyncIterator[Said]:
        while (message := await self._receive()) is not None:
            channel, data = message
            if channel == _CLOSED and self._closes:
                if data == bytes((STDIN,)):
                    yield STDIN, b""
            elif channel == STDIN and data:
                yield STDIN, data
            elif channel == RESIZE and (size := size_of(data)) is not None:
                yield RESIZE, size

    async def _receive(self) -> tuple[int, bytes] | None:
        while True:
            try:
                message = await self._socket.receive()
            except OSError:
                return None
            if message is None:
                return None
            payload = message[1]
            if not payload:
                continue
            if not self._base64:
                return payload[0], payload[1:]
            with contextlib.suppress(binascii.Error, ValueError):
                return payload[0] - ord("0"), base64.b64decode(payload[1:], validate=True)

    async def tell(self, channel: int, data: bytes) -> None:
        if self._base64:
            await self._socket.send(b"%d" % channel + base64.b64encode(data), TEXT)
        else:
            await self._socket.send(bytes((channel,)) + data, BINARY)

    async def still_there(self) -> None:
        await self._socket.still_there()

    async def finish(self, status: Mapping[str, Any]) -> None:
        text = orjson.dumps(status) if self._status else as_text(status)
        with contextlib.suppress(OSError):
            if text:
                await self.tell(ERROR, text)
            await self._socket.close()


_TYPES = {"stdin": STDIN, "stdout": STDOUT, "stderr": STDERR, "error": ERROR, "resize": RESIZE}


class Streams:
    """A dialogue over SPDY: a stream each for input, output, errors, the end and sizes.

    :param expected: how many streams the client makes.
    """

    def __init__(self, session: spdy.Session, protocol: str) -> None:
        self._session = session
        self._status = protocol == STREAM_PROTOCOLS[0]
        self._streams: dict[int, spdy.Stream] = {}

    async def collect(self, expected: int, seconds: float) -> None:
        """Wait for the client's streams.

        :raises TimeoutError: they did not come. :raises Gone: the client left.
        """
        async with asyncio.timeout(seconds):
            async for stream in self._session.accept():
                kind = _TYPES.get(stream.headers.get("streamtype", ""))
                if kind is None or kind in self._streams:
                    await stream.reset()
                    continue
                self._streams[kind] = stream
                if len(self._streams) == expected:
                    return
        raise Gone("the client left before its streams were there")

    async def said(self) -> AsyncIterator[Said]:
        queue: asyncio.Queue[Said | None] = asyncio.Queue(4)

        async def listen(kind: int, understand: Callable[[bytes], Any]) -> None:
            while data := await self._streams[kind].read():
                if (meaning := understand(data)) is not None:
                    await queue.put((kind, meaning))
            if kind == STDIN:
                await queue.put((STDIN, b""))

        async def departure() -> None:
            async for stream in self._session.accept():
                await stream.reset()
            await queue.put(None)

        tasks = [asyncio.ensure_future(departure())]
        for kind, understand in ((STDIN, bytes), (RESIZE, size_of)):
            if kind in self._streams:
                tasks.append(asyncio.ensure_future(listen(kind, understand)))
        try:
            while (item := await queue.get()) is not None:
                yield item
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def tell(self, channel: int, data: bytes) -> None:
        stream = self._streams.get(channel)
        if stream is not None and data:
            await stream.write(data)

    async def still_there(self) -> None:
        await self._session.ping()

    async def finish(self, status: Mapping[str, Any]) -> None:
        text = orjson.dumps(status) if self._status else as_text(status)
        with contextlib.suppress(OSError):
            for channel in (STDOUT, STDERR):
                if channel in self._streams:
                    await self._streams[channel].close()
            if text:
                await self._streams[ERROR].write(text)
            await self._streams[ERROR].close()
            await self._session.go_away()
