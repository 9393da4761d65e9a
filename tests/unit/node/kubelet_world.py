"""A node's server on a socket with made-up pods, and clients that speak to it."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from glebe.kube.clock import FixedClock
from glebe.kube.objects import Object
from glebe.node.kubelet.access import Access
from glebe.node.kubelet.pods import LogOptions
from glebe.node.kubelet.server import KubeletServer
from glebe.node.kubelet.spdyheaders import Headers

POD: Object = {
    "metadata": {"name": "p", "namespace": "ns", "uid": "u1"},
    "spec": {"containers": [{"name": "c", "tty": True}, {"name": "plain"}]},
}


class Echo:
    """A process that gives its input back, and ends with its input, or with ``exit N``."""

    def __init__(self, argv: list[str]) -> None:
        self.argv = argv
        self.sizes: list[tuple[int, int]] = []
        self.closed = False
        self.taken = 0
        self._out: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue(4)
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._turn: asyncio.Task[None] | None = None
        if argv[0] == "yes":
            self._turn = asyncio.create_task(self._for_ever())

    async def _for_ever(self) -> None:
        while True:
            await self._out.put((1, b"y" * 65536))

    async def write(self, data: bytes) -> None:
        if self.argv[0] == "deaf":
            await asyncio.Event().wait()
        self.taken += len(data)
        if data.startswith(b"exit "):
            await self._end(int(data[5:]))
        else:
            await self._out.put((2 if data.startswith(b"!") else 1, data))

    async def close_input(self) -> None:
        await self._end(0)

    async def _end(self, code: int) -> None:
        await self._out.put(None)
        if not self._ended.done():
            self._ended.set_result(code)

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        while (item := await self._out.get()) is not None:
            yield item

    async def resize(self, columns: int, rows: int) -> None:
        self.sizes.append((columns, rows))

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)

    async def close(self) -> None:
        self.closed = True
        if self._turn is not None:
            self._turn.cancel()


class FakePods:
    """Stands for :class:`glebe.node.kubelet.pods.Pods`."""

    def __init__(self) -> None:
        self.processes: list[Echo] = []
        self.asked: list[LogOptions] = []
        self.lines = [b"one\n", b"two\n"]
        self.log_closed = asyncio.Event()

    def bound(self) -> list[Object]:
        return [POD]

    def find(self, namespace: str, name: str) -> Object | None:
        return POD if (namespace, name) == ("ns", "p") else None

    def running(self, pod: Object, container: str) -> Any:
        return object() if container in ("c", "plain") else None

    async def execute(self, pod: Object, container: str, argv: list[str], *, tty: bool, stdin: bool) -> Echo:
        self.processes.append(Echo(argv))
        return self.processes[-1]

    async def attach(self, pod: Object, container: str, *, stdin: bool) -> Echo:
        return await self.execute(pod, container, ["attached"], tty=False, stdin=stdin)

    async def logs(self, pod: Object, container: str, options: LogOptions) -> AsyncIterator[bytes]:
        self.asked.append(options)
        try:
            for line in self.lines:
                yield line
            if options.follow:
                await asyncio.Event().wait()
        finally:
            self.log_closed.set()


class FakeStatistics:
    async def summary(self) -> Object:
        return {"node": {"nodeName": "n"}}

    async def resource_metrics(self) -> bytes:
        return b"node_cpu_usage_seconds_total 1\n"


class Lab:
    def __init__(self, server: KubeletServer, pods: FakePods, session: aiohttp.ClientSession) -> None:
        self.server, self.pods, self.session = server, pods, session

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.listener.port}"

    async def open_raw(self, head: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.listener.port)
        writer.write(head.replace("\n", "\r\n").encode())
        await writer.drain()
        return reader, writer

    async def idle(self) -> None:
        """Until no connection and no process is left."""
        async with asyncio.timeout(8):
            while self.server.listener.connections or any(not p.closed for p in self.pods.processes):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def _echo_port(pod: Object, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


@contextlib.asynccontextmanager
async def lab(access: Access | None = None) -> AsyncIterator[Lab]:
    pods = FakePods()
    server = KubeletServer(
        pods,  # type: ignore[arg-type]
        FixedClock(),
        reach=_echo_port,
        statistics=FakeStatistics(),
        access=access,
        tls=None,
    )
    await server.listener.start("127.0.0.1")
    before = asyncio.all_tasks()
    try:
        async with aiohttp.ClientSession() as session:
            yield Lab(server, pods, session)
    finally:
        await server.listener.close()
    async with asyncio.timeout(5):
        while asyncio.all_tasks() - before - {asyncio.current_task()}:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def echo_server() -> AsyncIterator[int]:
    """A program in a pod: gives back what it gets, line by line; ``bye`` ends the connection."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                if line == b"bye\n":
                    break
                writer.write(line)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


class SpdyClient:
    """The client's side of SPDY/3.1, as plain as can be."""

    def __init__(self) -> None:
        self._headers = Headers()
        self._buffer = b""
        self._next = 1

    def stream(self, **headers: str) -> tuple[int, bytes]:
        """(number, frame) of a new stream."""
        number, self._next = self._next, self._next + 2
        block = self._headers.write(headers)
        return number, struct.pack(">HHIIIH", 0x8003, 1, len(block) + 10, number, 0, 0) + block

    @staticmethod
    def data(number: int, data: bytes, last: bool = False) -> bytes:
        return struct.pack(">II", number, int(last) << 24 | len(data)) + data

    @staticmethod
    def ping(number: int) -> bytes:
        return struct.pack(">HHII", 0x8003, 6, 4, number)

    def feed(self, data: bytes) -> list[tuple[str, int, bytes, bool]]:
        """(kind, stream, data, is it the last) of what the server sent."""
        self._buffer += data
        out = []
        while len(self._buffer) >= 8:
            first, second = struct.unpack_from(">II", self._buffer)
            length, flags = second & 0xFFFFFF, second >> 24
            if len(self._buffer) < 8 + length:
                break
            body, self._buffer = self._buffer[8 : 8 + length], self._buffer[8 + length :]
            if not first & 0x80000000:
                out.append(("data", first, body, bool(flags & 1)))
                continue
            kind = {2: "reply", 3: "reset", 6: "ping", 7: "goaway"}[first & 0xFFFF]
            if kind == "reply":
                self._headers.read(body[4:])
            out.append((kind, struct.unpack_from(">I", body)[0], body[4:], bool(flags & 1)))
        return out
