"""Port-forward: connections of a client into a pod.

Over SPDY (raw, or inside a WebSocket as ``kubectl`` does it) each connection is a pair of streams, one for data and one
for an error; over the older WebSocket protocol each port is one connection on two channels.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import struct
from collections.abc import Awaitable, Callable

from glebe.kube.websocket import BINARY, TEXT, WebSocket
from glebe.node.kubelet import spdy

TUNNEL = "SPDY/3.1+portforward.k8s.io"
STREAM_PROTOCOL = "portforward.k8s.io"
CHANNEL_PROTOCOLS = ("v4.channel.k8s.io", "v4.base64.channel.k8s.io")
_PAIR_SECONDS = 30.0
_PIECE = 64 * 1024

#: Connects to a port of the pod. :raises OSError: nothing takes the connection.
Connect = Callable[[int], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


class Tunnel:
    """A WebSocket that carries bytes: message boundaries mean nothing."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def read(self) -> bytes:
        while (message := await self._socket.receive()) is not None:
            if message[1]:
                return message[1]
        return b""

    async def write(self, data: bytes) -> None:
        await self._socket.send(data)


class Forwarding:
    """All connections of one client to one pod, over SPDY.

    :param pod: how error messages name it.
    """

    def __init__(self, session: spdy.Session, connect: Connect, pod: str) -> None:
        self._session = session
        self._connect = connect
        self._pod = pod
        self._half: dict[str, spdy.Stream] = {}

    async def run(self) -> None:
        """Until the client leaves; its connections end with it."""
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(self._session.run())
            children: set[asyncio.Task[None]] = set()
            try:
                async for stream in self._session.accept():
                    pair = await self._pair(stream)
                    if pair is not None:
                        task = group.create_task(self._carry(*pair))
                        children.add(task)
                        task.add_done_callback(children.discard)
            finally:
                reading.cancel()
                for task in children:
                    task.cancel()

    async def _pair(self, stream: spdy.Stream) -> tuple[spdy.Stream, spdy.Stream] | None:
        """(data, error) once both of a request are there."""
        kind, port = stream.headers.get("streamtype", ""), stream.headers.get("port", "")
        if kind not in ("data", "error") or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            await stream.reset()
            return None
        first = stream.number if kind == "error" else stream.number - 2
        request = stream.headers.get("requestid") or f"stream {first}"
        other = self._half.pop(request, None)
        if other is None:
            self._half[request] = stream
            asyncio.get_running_loop().call_later(_PAIR_SECONDS, self._forget, request, stream)
            return None
        if other.headers["streamtype"] == kind:
            await stream.reset()
            return None
        return (stream, other) if kind == "data" else (other, stream)

    def _forget(self, request: str, stream: spdy.Stream) -> None:
        if self._half.get(request) is stream:
            del self._half[request]
            stream.cut()

    async def _carry(self, data: spdy.Stream, error: spdy.Stream) -> None:
        port = int(data.headers["port"])
        with contextlib.suppress(OSError):
            try:
                reader, writer = await self._connect(port)
            except OSError as problem:
                await error.write(_refusal(port, self._pod, problem))
                await data.reset()
                await error.close()
                return
            try:
                await _both_ways(data, reader, writer)
            finally:
                writer.close()
                await data.close()
                await error.close()


def _refusal(port: int, pod: str, problem: OSError) -> bytes:
    why = os.strerror(problem.errno) if problem.errno else str(problem)
    return f"error forwarding port {port} to pod {pod}: failed to connect to port {port}: {why.lower()}".encode()


async def _both_ways(data: spdy.Stream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until the pod has ended its side, or the client both of its own."""

    async def upstream() -> None:
        with contextlib.suppress(OSError):
            while chunk := await data.read():
                writer.write(chunk)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()

    sending = asyncio.ensure_future(upstream())
    try:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(_PIECE):
                await data.write(chunk)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def over_channels(socket: WebSocket, protocol: str, ports: list[int], connect: Connect, pod: str) -> None:
    """The older WebSocket protocol: channels 2n (data) and 2n+1 (error) of each port, one connection each."""
    kind, encode = (TEXT, True) if "base64" in protocol else (BINARY, False)

    async def tell(channel: int, data: bytes) -> None:
        head = b"%d" % channel if encode else bytes((channel,))
        await socket.send(head + (base64.b64encode(data) if encode else data), kind)

    inputs: list[asyncio.Queue[bytes]] = [asyncio.Queue(16) for _ in ports]

    async def one(index: int, port: int) -> None:
        for channel in (2 * index, 2 * index + 1):
            await tell(channel, struct.pack("<H", port))
        try:
            reader, writer = await connect(port)
        except OSError as problem:
            await tell(2 * index + 1, _refusal(port, pod, problem))
            return

        async def upstream() -> None:
            while True:
                writer.write(await inputs[index].get())
                await writer.drain()

        sending = asyncio.ensure_future(upstream())
        try:
            while chunk := await reader.read(_PIECE):
                await tell(2 * index, chunk)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            writer.close()

    async def listen() -> None:
        while (message := await socket.receive()) is not None:
            payload = message[1]
            channel = (payload[0] - ord("0") if encode else payload[0]) if payload else 1
            if channel % 2 == 0 and 0 <= channel // 2 < len(ports) and len(payload) > 1:
                await inputs[channel // 2].put(base64.b64decode(payload[1:]) if encode else payload[1:])

    async def all_ports() -> None:
        await asyncio.gather(*(one(index, port) for index, port in enumerate(ports)))

    tasks = {asyncio.ensure_future(all_ports()), asyncio.ensure_future(listen())}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await socket.close()
