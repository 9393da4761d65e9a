"""The name server of a node's pods: the cluster's names from :mod:`.records`, everything else from the machine's own.

UDP and TCP (RFC 1035, 7766). The wire format is dnslib's. Questions about the cluster are answered at once and
without a task of their own.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from glebe.node.network import records
from glebe.node.network.records import DOMAIN, TTL, Answer, Record, View

if TYPE_CHECKING:
    from dnslib import RR, DNSRecord

log = logging.getLogger("glebe.node")

#: Address and port of a name server.
Server = tuple[str, int]

_PATIENCE = 3.0  # seconds for each of the machine's servers
_IDLE = 30.0  # seconds for which a TCP client may be silent
_PENDING = 500  # forwarded questions at one time
_UDP_SIZE = 512
_MAX_ALIASES = 8


class DnsServer:
    """Answers at ``host`` and ``port``.

    :param upstream: the servers for all other names, asked for each time, best first.
    :param ready: whether the view is complete; nothing is said to be missing before.
    """

    def __init__(
        self, view: View, upstream: Callable[[], Sequence[Server]], ready: Callable[[], bool] = lambda: True
    ) -> None:
        self._view = view
        self._ready = ready
        self._upstream = upstream
        self._pending: set[asyncio.Task[None]] = set()
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self.address = ("", 0)

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0: any.

        :raises OSError: the address cannot be had.
        """
        loop = asyncio.get_running_loop()
        self._tcp = await asyncio.start_server(self._serve, host, port)
        self.address = self._tcp.sockets[0].getsockname()[:2]
        try:
            made = await loop.create_datagram_endpoint(lambda: _Datagrams(self._take), local_addr=self.address)
        except OSError:
            self._tcp.close()
            raise
        self._udp = made[0]

    async def stop(self) -> None:
        """Answer no more."""
        if self._tcp is not None:
            self._tcp.close()
        if self._udp is not None:
            self._udp.close()
        for task in self._pending:
            task.cancel()
        await asyncio.gather(*self._pending, return_exceptions=True)

    # --- transports

    def _take(self, data: bytes, client: Any) -> None:
        done = self._at_once(data)
        if done is not None:
            self._send(done, data, client)
        elif len(self._pending) < _PENDING:
            task = asyncio.create_task(self._later(data, client))
            self._pending.add(task)
            task.add_done_callback(self._pending.discard)

    async def _later(self, data: bytes, client: Any) -> None:
        self._send(await self._answer(data, over_tcp=False), data, client)

    def _send(self, reply: bytes, query: bytes, client: Any) -> None:
        if reply and self._udp is not None:
            self._udp.sendto(reply if len(reply) <= _room(query) else _truncated(reply), client)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                async with asyncio.timeout(_IDLE):
                    size = struct.unpack(">H", await reader.readexactly(2))[0]
                    data = await reader.readexactly(size)
                reply = self._at_once(data)
                if reply is None:
                    reply = await self._answer(data, over_tcp=True)
                if not reply:
                    return
                writer.write(struct.pack(">H", len(reply)) + reply)
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    # --- answers

    def _at_once(self, data: bytes) -> bytes | None:
        """The whole reply, ``b""`` for what is no question, ``None`` when others must be asked."""
        from dnslib import DNSError, DNSRecord

        try:
            query = DNSRecord.parse(data)
        except (DNSError, ValueError, struct.error, IndexError):
            return b""
        if query.header.qr or not query.questions:
            return b""
        found = self._find(query)
        if not self._ready():
            return None if found is None else _failed(query)
        return None if found is None or found.alias else _packed(query, found.exists, _own(found), found.extra)

    def _find(self, query: DNSRecord) -> Answer | None:
        name, kind = _question(query)
        if records.concerns(name):
            return self._look_up(name, kind)
        return records.reverse(self._view, name)

    def _look_up(self, name: str, kind: str) -> Answer:
        """Names of the cluster that are aliases of others of it are followed."""
        found = records.answer(self._view, name, kind)
        said = list(found.records)
        for _ in range(_MAX_ALIASES):
            if not found.alias or not records.concerns(found.alias):
                break
            found = records.answer(self._view, found.alias, kind)
            said += found.records
        return Answer(found.exists or bool(said), said, found.extra, found.alias)

    async def _answer(self, data: bytes, *, over_tcp: bool) -> bytes:
        """The reply to a question for which others must be asked."""
        from dnslib import DNSRecord

        query = DNSRecord.parse(data)
        found = self._find(query)
        if found is None:
            return await self._forward(data, over_tcp=over_tcp) or _failed(query)
        asked = DNSRecord.question(found.alias, _question(query)[1])
        reply = await self._forward(asked.pack(), over_tcp=over_tcp)
        if reply is None:
            return _failed(query)
        return _packed(query, True, [*_own(found), *DNSRecord.parse(reply).rr], found.extra)

    async def _forward(self, data: bytes, *, over_tcp: bool) -> bytes | None:
        """What the first of the machine's servers that answers says."""
        for server in self._upstream():
            if server == self.address:
                continue
            try:
                async with asyncio.timeout(_PATIENCE):
                    return await (_ask_tcp if over_tcp else _ask_udp)(server, data)
            except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
                log.debug("name server %s: %s", server[0], error or "no answer")
        return None


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, take: Callable[[bytes, Any], None], fail: Callable[[Exception], None] | None = None) -> None:
        self._take = take
        self._fail = fail

    def error_received(self, exc: Exception) -> None:
        """Nobody listens there: known at once."""
        if self._fail is not None:
            self._fail(exc)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._take(data, addr)


async def _ask_udp(server: Server, data: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bytes] = loop.create_future()

    def take(reply: bytes, _addr: Any) -> None:
        if not done.done() and reply[:2] == data[:2]:
            done.set_result(reply)

    def fail(error: Exception) -> None:
        if not done.done():
            done.set_exception(error)

    transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(take, fail), remote_addr=server)
    try:
        transport.sendto(data)
        return await done
    finally:
        transport.close()


async def _ask_tcp(server: Server, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*server)
    try:
        writer.write(struct.pack(">H", len(data)) + data)
        size = struct.unpack(">H", await reader.readexactly(2))[0]
        return await reader.readexactly(size)
    finally:
        writer.close()


# ---------------------------------------------------------------------------------------------------- the wire format


def _question(query: DNSRecord) -> tuple[str, str]:
    from dnslib import QTYPE

    return str(query.q.qname).rstrip(".").lower(), str(QTYPE.get(query.q.qtype))


def _own(found: Answer) -> list[RR]:
    return [_rr(record) for record in found.records]


def _rr(record: Record) -> RR:
    import dnslib

    if record.kind == "SRV":
        priority, weight, port, target = record.data.split()
        rdata = dnslib.SRV(int(priority), int(weight), int(port), target)
    else:
        rdata = cast("Any", getattr(dnslib, record.kind))(record.data)
    return dnslib.RR(record.name, getattr(dnslib.QTYPE, record.kind), rdata=rdata, ttl=TTL)


def _packed(query: DNSRecord, exists: bool, answers: Sequence[RR], extra: Sequence[Record]) -> bytes:
    import dnslib

    reply = query.reply(ra=1, aa=1)
    reply.header.rcode = dnslib.RCODE.NOERROR if exists else dnslib.RCODE.NXDOMAIN
    for answer in answers:
        reply.add_answer(answer)
    for record in extra:
        reply.add_ar(_rr(record))
    if not answers:
        times = (1, 7200, 1800, 86400, TTL)  # serial, refresh, retry, expire, and how long to remember the lack
        soa = dnslib.SOA(f"ns.dns.{DOMAIN}", f"hostmaster.{DOMAIN}", times)
        reply.add_auth(dnslib.RR(DOMAIN, dnslib.QTYPE.SOA, rdata=soa, ttl=TTL))
    return bytes(reply.pack())


def _failed(query: DNSRecord) -> bytes:
    import dnslib

    reply = query.reply(ra=1, aa=0)
    reply.header.rcode = dnslib.RCODE.SERVFAIL
    return bytes(reply.pack())


def _room(query: bytes) -> int:
    """How long a datagram the client takes (EDNS0, RFC 6891)."""
    import dnslib

    for extra in dnslib.DNSRecord.parse(query).ar:
        if extra.rtype == dnslib.QTYPE.OPT:
            return max(_UDP_SIZE, min(int(extra.rclass), 4096))
    return _UDP_SIZE


def _truncated(reply: bytes) -> bytes:
    import dnslib

    return bytes(dnslib.DNSRecord.parse(reply).truncate().pack())
