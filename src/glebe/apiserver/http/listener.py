"""The listening socket and all its connections."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable

from glebe.apiserver.http import responses
from glebe.apiserver.http.limits import Limits
from glebe.apiserver.http.protocol import HttpProtocol
from glebe.apiserver.http.requests import Refusal
from glebe.apiserver.sharing.pieces import pieces
from glebe.kube.transport import Request, Response

log = logging.getLogger("glebe.apiserver.http")

_BACKLOG = 1024
_STRANGERS = ""
"""Whose work a handshake is."""
_EXHAUSTED = 0.1
"""Seconds until connections are taken again after the system refused one."""
_FILES = 65_536
#: A peer that vanished is found out after about a minute of silence, or when what was sent to it is not acknowledged.
_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))


class HttpServer:
    """Listens on one address.

    :param handle: the server's coroutine from request to response; it never raises for what a client can cause.
    :param tls: serve HTTPS; the client's certificate, if it shows one, goes into ``Request.peer_certificate``.
    """

    def __init__(
        self,
        handle: Callable[[Request], Awaitable[Response]],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.handle = handle
        self.limits = limits or Limits()
        self.closing = False
        self.port = 0
        """The port that is listened on, once started."""
        self._host = host
        self._wanted_port = port
        self._tls = tls
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: set[HttpProtocol] = set()
        self._checking: asyncio.TimerHandle | None = None
        self._dates = responses.Dates()

    @property
    def url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}"

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    async def start(self) -> None:
        """Listen.

        :raises OSError: the address cannot be had.
        """
        self._loop = asyncio.get_running_loop()
        _allow_many_files()
        self._sockets = await listening(self._host, self._wanted_port)
        self.port = int(self._sockets[0].getsockname()[1])
        self._tasks = {self._loop.create_task(self._accept(each), name="accept") for each in self._sockets}
        self._check()

    async def _accept(self, listener: socket.socket) -> None:
        """Take connections one by one: a handshake costs as much as ten reads, and many may come together."""
        share = pieces()
        while True:
            try:
                accepted, _ = await self._loop.sock_accept(listener)
            except OSError as error:
                log.error("cannot take a connection: %s", error)  # too many open files, for example
                await asyncio.sleep(_EXHAUSTED)
                continue
            task = self._loop.create_task(self._welcome(accepted))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await share.turn(_STRANGERS)

    async def _welcome(self, accepted: socket.socket) -> None:
        handshake = self.limits.handshake_seconds if self._tls is not None else None
        try:
            await self._loop.connect_accepted_socket(
                lambda: HttpProtocol(self), accepted, ssl=self._tls, ssl_handshake_timeout=handshake
            )
        except (OSError, ssl.SSLError) as error:
            log.debug("a connection that never was: %s", error)

    async def close(self) -> None:
        """Stop listening, end the streams, let requests in flight finish."""
        self.closing = True
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for each in self._sockets:
            each.close()
        if self._checking is not None:
            self._checking.cancel()
        for connection in tuple(self._connections):
            connection.finish()
        tasks = [c.task for c in self._connections if c.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=self.limits.drain_seconds)
        for connection in tuple(self._connections):
            connection.transport.close()
        await asyncio.sleep(0)
        for connection in tuple(self._connections):
            connection.transport.abort()

    def date(self) -> bytes:
        return self._dates.line(self._loop.time())

    # -- told by the connections -----------------------------------------------------------------------------------

    def joined(self, connection: HttpProtocol) -> None:
        """A connection is open (TLS included); one too many is told so."""
        _keep_alive(connection.transport)
        if len(self._connections) >= self.limits.connections or self.closing:
            busy = Refusal(503, "ServiceUnavailable", "the server has too many open connections")
            connection.transport.write(responses.refusal(busy, self.date()))
            connection.transport.close()
            return
        self._connections.add(connection)

    def left(self, connection: HttpProtocol) -> None:
        self._connections.discard(connection)

    def _check(self) -> None:
        """Look at all deadlines: one timer for all connections costs less than one for each request."""
        now = self._loop.time()
        for connection in tuple(self._connections):
            connection.check(now)
        self._checking = self._loop.call_later(self.limits.check_seconds, self._check)


async def listening(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen at all addresses of a host; port 0 is one that the system chooses, the same for all.

    :raises OSError: an address cannot be had.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            each = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(each)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            each.bind((address[0], port, *address[2:]))
            each.listen(_BACKLOG)
            each.setblocking(False)
            port = port or each.getsockname()[1]
    except OSError:
        for each in sockets:
            each.close()
        raise
    return sockets


def _allow_many_files() -> None:
    """Use what the system allows: each connection is an open file, and many systems begin with 1,024."""
    try:
        import resource
    except ImportError:  # not on every system
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _keep_alive(transport: asyncio.Transport) -> None:
    """Let the kernel find out peers that vanished without a word."""
    raw = transport.get_extra_info("socket")
    if raw is None:
        return
    with contextlib.suppress(OSError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if hasattr(socket, name):
                raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)
