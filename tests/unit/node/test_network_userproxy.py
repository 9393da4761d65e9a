"""The proxy without privileges, on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from glebe.node.network.services import Balancer, Front, Target
from glebe.node.network.userproxy import Choice, UserProxy

pytestmark = pytest.mark.realtime

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as one:
        one.bind(("127.77.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.asynccontextmanager
async def backend(handler: Handler) -> AsyncIterator[Target]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[:2]
    finally:
        server.close()


@contextlib.asynccontextmanager
async def proxy() -> AsyncIterator[UserProxy]:
    made = UserProxy(random.Random(1), asyncio.get_running_loop().time)
    try:
        yield made
    finally:
        await made.close()


def says(name: str) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(name.encode())
        writer.close()

    return handle


async def echo_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Everything back, once the client has ended: only with half-closed connections."""
    data = await reader.read()
    writer.write(data)
    await writer.drain()
    writer.close()


async def call(front: Front, data: bytes = b"") -> bytes:
    reader, writer = await asyncio.open_connection(front.address, front.port)
    writer.write(data)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


async def test_everything_gets_through_in_both_directions() -> None:
    front = Front("127.77.0.1", "TCP", free_port())
    data = random.Random(2).randbytes(5_000_000)
    async with proxy() as p, backend(echo_all) as target:
        await p.apply({"s": [Balancer(front, (target,))]})
        answers = await asyncio.gather(*(call(front, data) for _ in range(3)))
        assert [answer == data for answer in answers] == [True] * 3


async def test_targets_share_and_changes_count_at_once() -> None:
    front = Front("127.77.0.1", "TCP", free_port())
    async with proxy() as p, backend(says("a")) as a, backend(says("b")) as b:
        await p.apply({"s": [Balancer(front, (a, b))]})
        assert {await call(front) for _ in range(30)} == {b"a", b"b"}
        await p.apply({"s": [Balancer(front, (b,))]})
        assert {await call(front) for _ in range(5)} == {b"b"}
        await p.apply({"s": [Balancer(front, ())]})
        with pytest.raises(ConnectionRefusedError):
            await call(front)
        await p.apply({"s": [Balancer(front, (a,))]})
        assert await call(front) == b"a"
        await p.apply({"s": []})
        with pytest.raises(ConnectionRefusedError):
            await call(front)


async def test_a_target_that_does_not_answer_is_passed_over() -> None:
    front = Front("127.77.0.1", "TCP", free_port())
    async with proxy() as p, backend(says("a")) as a:
        await p.apply({"s": [Balancer(front, (a, ("127.0.0.1", free_port())))]})
        assert {await call(front) for _ in range(10)} == {b"a"}


def test_clients_stay_with_their_target_for_a_while() -> None:
    now = [0.0]
    targets = tuple((f"10.0.0.{n}", 80) for n in range(20))
    choice = Choice(Balancer(Front("x", "TCP", 1), targets, 10), random.Random(3), lambda: now[0])
    first = choice.targets("c")[0]
    choice.went("c", first)
    assert {choice.targets("c")[0] for _ in range(20)} == {first}
    now[0] = 11.0
    assert len({choice.targets("c")[0] for _ in range(20)}) > 1
    choice.went("c", first)
    choice.balancer = Balancer(choice.balancer.front, targets[:1] if first != targets[0] else targets[1:2], 10)
    assert choice.targets("c")[0] != first


async def test_a_front_has_one_owner() -> None:
    front = Front("127.77.0.1", "TCP", free_port())
    async with proxy() as p, backend(says("a")) as a, backend(says("b")) as b:
        await p.apply({"one": [Balancer(front, (a,))]})
        await p.apply({"two": [Balancer(front, (b,))]})
        assert await call(front) == b"a"
        await p.apply({"two": [Balancer(front, (b,))], "one": []})  # given up in the very same round
        assert await call(front) == b"b"


async def test_what_cannot_be_opened_is_named() -> None:
    port = free_port()
    with socket.create_server(("127.77.0.1", port)):
        async with proxy() as p, backend(says("a")) as a:
            front, other = Front("127.77.0.1", "TCP", port), Front("127.77.0.2", "TCP", port)
            await p.apply({"s": [Balancer(front, (a,)), Balancer(other, (a,)), Balancer(Front("", "SCTP", 9), (a,))]})
            assert set(p.refused) == {front, Front("", "SCTP", 9)}
            assert await call(other) == b"a"


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.transport.sendto(b"echo " + data, addr)  # type: ignore[attr-defined]


async def test_datagrams_find_their_way_back() -> None:
    loop = asyncio.get_running_loop()
    server, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    front = Front("127.77.0.1", "UDP", free_port(socket.SOCK_DGRAM))

    def talk(text: bytes) -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(5)
            client.connect((front.address, front.port))
            client.send(text)
            return client.recv(100)

    try:
        async with proxy() as p:
            await p.apply({"s": [Balancer(front, (server.get_extra_info("sockname"),))]})
            answers = await asyncio.gather(*(asyncio.to_thread(talk, b"%d" % n) for n in range(5)))
            assert answers == [b"echo %d" % n for n in range(5)]
    finally:
        server.close()
