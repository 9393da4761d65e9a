"""Services without any privilege: this process listens at their fronts and passes on what comes in.

No task per Service or connection: listeners and connections are protocols of the event loop, with flow control from
one side to the other.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from glebe.node.network.services import Balancer, Front, Target

log = logging.getLogger("glebe.node")

API_SERVER = "default/kubernetes"
_PATIENCE = 5.0  # seconds for a connection to a target
_UDP_IDLE = 60.0  # seconds after which a client of UDP is forgotten
_UDP_CLIENTS = 4096  # of one front
_REMEMBERED = 10_000  # clients with a target of their own, of one front


class Choice:
    """Chooses among the targets of one front; clients stay with theirs if they are to."""

    def __init__(self, balancer: Balancer, rng: random.Random, now: Callable[[], float]) -> None:
        self.balancer = balancer
        self._rng = rng
        self._now = now
        self._clients: dict[str, tuple[Target, float]] = {}

    def targets(self, client: str) -> list[Target]:
        """The targets to try for a client, in this order."""
        balancer = self.balancer
        order = self._rng.sample(balancer.targets, len(balancer.targets))
        if not balancer.affinity:
            return order
        target, until = self._clients.get(client, (None, 0.0))
        if target is not None and target in balancer.targets and until > self._now():
            order.remove(target)
            order.insert(0, target)
        return order

    def went(self, client: str, target: Target) -> None:
        """The client was sent to the target."""
        if not self.balancer.affinity:
            return
        self._clients.pop(client, None)
        self._clients[client] = (target, self._now() + self.balancer.affinity)
        if len(self._clients) > _REMEMBERED:
            del self._clients[next(iter(self._clients))]


class UserProxy:
    """Listens at the fronts of balancers that have targets."""

    def __init__(self, rng: random.Random, now: Callable[[], float]) -> None:
        self._rng = rng
        self._now = now
        self._wanted: dict[Front, Choice] = {}
        self._fronts: dict[str, set[Front]] = {}
        self._owner: dict[Front, str] = {}
        self._open: dict[Front, _TcpFront | _UdpFront] = {}
        self.refused: dict[Front, str] = {}
        """Fronts at which nobody may listen, and why."""

    async def apply(self, wanted: Mapping[str, Sequence[Balancer]]) -> None:
        """Each owner in ``wanted`` has exactly these balancers from now on.

        A front that another owner has already stays the other's, until that one gives it up and this one asks again.
        """
        for owner, listed in wanted.items():
            for front in sorted(self._fronts.get(owner, set()) - {b.front for b in listed}):
                self._fronts[owner].discard(front)
                del self._owner[front]
                self._close(front)
                del self._wanted[front]
        for owner, listed in wanted.items():
            for balancer in listed:
                if self._owner.setdefault(balancer.front, owner) == owner:
                    self._fronts.setdefault(owner, set()).add(balancer.front)
                    await self._set(balancer)
            if not self._fronts.get(owner):
                self._fronts.pop(owner, None)

    async def close(self) -> None:
        """Listen no more; connections end."""
        for front in list(self._open):
            self._close(front)

    async def _set(self, balancer: Balancer) -> None:
        front = balancer.front
        choice = self._wanted.get(front)
        if choice is None:
            choice = self._wanted[front] = Choice(balancer, self._rng, self._now)
        choice.balancer = balancer
        if not balancer.targets:
            self._close(front)
        elif front not in self._open:
            await self._listen(front, choice)

    async def _listen(self, front: Front, choice: Choice) -> None:
        made: _TcpFront | _UdpFront
        if front.protocol == "TCP":
            made = _TcpFront(choice)
        elif front.protocol == "UDP":
            made = _UdpFront(choice)
        else:
            self._refuse(front, f"{front.protocol} is passed on in the mode namespace only")
            return
        try:
            await made.listen(front.address or "0.0.0.0", front.port)
        except OSError as error:
            self._refuse(front, error.strerror or str(error))
            return
        self.refused.pop(front, None)
        self._open[front] = made

    def _refuse(self, front: Front, why: str) -> None:
        if self.refused.get(front) != why:
            self.refused[front] = why
            where = f"{front.address or '0.0.0.0'}:{front.port}/{front.protocol}"
            # The API server is told of under an address that needs no privilege, too.
            level = logging.INFO if self._owner.get(front) == API_SERVER else logging.WARNING
            log.log(level, "cannot listen for a Service at %s: %s", where, why)

    def _close(self, front: Front) -> None:
        self.refused.pop(front, None)
        made = self._open.pop(front, None)
        if made is not None:
            made.close()


class _TcpFront:
    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        self.dialing: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> None:
        self._server = await asyncio.get_running_loop().create_server(lambda: _Caller(self), host, port, backlog=512)

    def close(self) -> None:
        """Connections that are there go on, as they would with a proxy in the kernel."""
        if self._server is not None:
            self._server.close()


class _Side(asyncio.Protocol):
    """One side of a connection that is passed on; what it receives goes to ``other``."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _Side | None = None
        self.early: list[bytes] = []
        """What was received while there was no other side yet: a loop may read although it was asked not to."""
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def join(self, other: _Side) -> None:
        """From now on what comes in goes to ``other``."""
        self.other = other
        early, self.early = self.early, []
        for data in early:
            self.data_received(data)
        if self.ended:
            self.eof_received()

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.early.append(data)
        elif self.other.transport is not None:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        """The other direction may go on; when both have ended, so does the connection."""
        self.ended = True
        other = self.other
        if other is not None and other.transport is not None and self.transport is not None:
            if other.ended:
                other.transport.close()
                self.transport.close()
            elif other.transport.can_write_eof():
                other.transport.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        other, self.other = self.other, None
        if other is not None and other.transport is not None:
            other.other = None
            if exc is None:
                other.transport.close()
            else:
                other.transport.abort()

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()


class _Caller(_Side):
    """A client; nothing is read from it until somebody answers."""

    def __init__(self, front: _TcpFront) -> None:
        super().__init__()
        self._front = front

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        self.transport.pause_reading()
        task = asyncio.get_running_loop().create_task(self._dial())
        self._front.dialing.add(task)
        task.add_done_callback(self._front.dialing.discard)

    async def _dial(self) -> None:
        assert self.transport is not None
        client = (self.transport.get_extra_info("peername") or ("",))[0]
        loop = asyncio.get_running_loop()
        for target in self._front.choice.targets(client):
            try:
                async with asyncio.timeout(_PATIENCE):
                    transport, callee = await loop.create_connection(_Side, *target)
            except (OSError, TimeoutError):
                continue
            self._front.choice.went(client, target)
            if self.transport.is_closing():
                transport.abort()
                return
            callee.join(self)
            self.join(callee)
            self.transport.resume_reading()
            return
        self.transport.abort()


class _UdpFront(asyncio.DatagramProtocol):
    """Each client has a socket to its target, by which answers find their way back."""

    def __init__(self, choice: Choice) -> None:
        self._choice = choice
        self._transport: asyncio.DatagramTransport | None = None
        self._clients: dict[Any, _UdpClient] = {}
        self._sweep: asyncio.TimerHandle | None = None

    async def listen(self, host: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: self, local_addr=(host, port))

    def close(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        client = self._clients.get(addr)
        if client is not None and client.target not in self._choice.balancer.targets:
            client.close()
            client = None
        if client is None:
            targets = self._choice.targets(addr[0])
            if not targets or len(self._clients) >= _UDP_CLIENTS:
                return
            target = targets[0]
            self._choice.went(addr[0], target)
            client = self._clients[addr] = _UdpClient(target, lambda reply: self._reply(reply, addr))
            if self._sweep is None:
                self._sweep = asyncio.get_running_loop().call_later(_UDP_IDLE, self._forget)
        client.send(data)

    def _reply(self, data: bytes, addr: Any) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(data, addr)

    def _forget(self) -> None:
        """Clients that were silent since the last time are forgotten."""
        for addr, client in list(self._clients.items()):
            if not client.active:
                client.close()
                del self._clients[addr]
            client.active = False
        loop = asyncio.get_running_loop()
        self._sweep = loop.call_later(_UDP_IDLE, self._forget) if self._clients else None


class _UdpClient(asyncio.DatagramProtocol):
    """The way of one client to its target."""

    def __init__(self, target: Target, reply: Callable[[bytes], None]) -> None:
        self.target = target
        self.active = True
        self._reply = reply
        self._transport: asyncio.DatagramTransport | None = None
        self._early: list[bytes] = []
        self._opening: asyncio.Task[Any] | None = asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        try:
            await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, remote_addr=self.target)
        except OSError as error:
            log.debug("udp to %s: %s", self.target, error)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        for data in self._early:
            self._transport.sendto(data)
        self._early.clear()

    def send(self, data: bytes) -> None:
        self.active = True
        if self._transport is not None:
            self._transport.sendto(data)
        elif len(self._early) < 64:
            self._early.append(data)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.active = True
        self._reply(data)

    def close(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
        if self._transport is not None:
            self._transport.close()
