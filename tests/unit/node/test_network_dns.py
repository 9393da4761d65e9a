"""The name server on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator

import dnslib
import pytest
from network_view import FixedView, endpoint, service, slices

from glebe.node.network.dns import DnsServer
from glebe.node.network.records import Answer, Record

pytestmark = pytest.mark.realtime

WEB, DB = service("web", "10.96.0.10"), service("db")
ALIAS = service("alias", "", type="ExternalName", externalName="www.example.com")
INNER = service("inner", "", type="ExternalName", externalName="web.default.svc.cluster.local")
MANY = slices(DB, *(endpoint(f"10.1.0.{n}") for n in range(2, 120)))
VIEW = FixedView([WEB, DB, ALIAS, INNER], [MANY])


@contextlib.asynccontextmanager
async def serving(ready: bool = True) -> AsyncIterator[tuple[str, int]]:
    """A server, and behind it one that knows www.example.com."""
    outside = DnsServer(FixedView(), list)
    outside._find = lambda query: Answer(records=[Record(str(query.q.qname).rstrip("."), "A", "203.0.113.7")])  # type: ignore[method-assign]
    server = DnsServer(VIEW, lambda: [("127.0.0.1", 9), outside.address], lambda: ready)
    await outside.start("127.0.0.1", 0)
    await server.start("127.0.0.1", 0)
    try:
        yield server.address
    finally:
        await server.stop()
        await outside.stop()


async def ask(address: tuple[str, int], name: str, kind: str = "A", *, tcp: bool = False) -> dnslib.DNSRecord:
    query = dnslib.DNSRecord.question(name, kind).pack()

    def by_udp() -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(8)
            client.sendto(query, address)
            return client.recv(65536)

    if tcp:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(struct.pack(">H", len(query)) + query)
        reply = await reader.readexactly(struct.unpack(">H", await reader.readexactly(2))[0])
        writer.close()
    else:
        reply = await asyncio.to_thread(by_udp)
    made = dnslib.DNSRecord.parse(reply)
    assert made.header.id == dnslib.DNSRecord.parse(query).header.id
    return made


def data(reply: dnslib.DNSRecord) -> list[str]:
    return [str(rr.rdata).rstrip(".") for rr in reply.rr]


async def test_names_of_the_cluster() -> None:
    async with serving() as address:
        for tcp in (False, True):
            reply = await ask(address, "WEB.default.svc.cluster.local", tcp=tcp)
            assert data(reply) == ["10.96.0.10"]
            assert reply.header.aa == 1
        assert data(await ask(address, "10.0.96.10.in-addr.arpa", "PTR")) == ["web.default.svc.cluster.local"]
        missing = await ask(address, "no.default.svc.cluster.local")
        assert missing.header.rcode == dnslib.RCODE.NXDOMAIN
        assert missing.auth[0].rtype == dnslib.QTYPE.SOA
        assert (await ask(address, "web.default.svc.cluster.local", "AAAA")).header.rcode == dnslib.RCODE.NOERROR


async def test_long_answers_come_by_tcp() -> None:
    async with serving() as address:
        short = await ask(address, "db.default.svc.cluster.local")
        assert short.header.tc == 1
        assert len(data(await ask(address, "db.default.svc.cluster.local", tcp=True))) == 118


async def test_other_names_are_asked_for_elsewhere() -> None:
    """The first of the machine's servers does not answer; the next one does."""
    async with serving() as address:
        assert data(await ask(address, "www.example.com")) == ["203.0.113.7"]
        assert data(await ask(address, "alias.default.svc.cluster.local")) == ["www.example.com", "203.0.113.7"]
        assert data(await ask(address, "inner.default.svc.cluster.local")) == [
            "web.default.svc.cluster.local",
            "10.96.0.10",
        ]


async def test_nothing_is_said_to_be_missing_before_it_is_known() -> None:
    async with serving(ready=False) as address:
        reply = await ask(address, "web.default.svc.cluster.local")
        assert reply.header.rcode == dnslib.RCODE.SERVFAIL


async def test_what_is_no_question_is_not_answered() -> None:
    async with serving() as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(struct.pack(">H", 5) + b"hello")
        assert await reader.read() == b""
        writer.close()
        assert data(await ask(address, "web.default.svc.cluster.local")) == ["10.96.0.10"]
