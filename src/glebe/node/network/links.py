"""Interfaces, addresses and routes by rtnetlink. IPv4.

Sources: ``include/uapi/linux/rtnetlink.h``, ``if_link.h``, ``if_addr.h``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_address
from types import TracebackType

from glebe.node.network.netlink import CREATE, EXCL, REPLACE, Netlink, attribute, attributes, nested, number, text

_NEW_LINK, _DEL_LINK, _NEW_ADDRESS, _NEW_ROUTE, _GET_ROUTE = 16, 17, 20, 24, 26
_NAME, _MTU, _INFO, _ALIAS, _NAMESPACE_FD = 3, 4, 18, 20, 28  # of links
_KIND, _DATA, _PEER = 1, 2, 1  # of IFLA_LINKINFO
_LOCAL, _ADDRESS = 2, 1  # of addresses
_DESTINATION, _OUT, _GATEWAY, _SOURCE, _TABLE = 1, 4, 5, 7, 15  # of routes
_UP = 1
_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, mask
_ADDR = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, lengths of destination and source, tos, table, protocol, scope, type
_MAIN, _STATIC, _UNICAST = 254, 4, 1
_UNIVERSE, _ON_LINK = 0, 253


@dataclass(frozen=True, slots=True)
class Route:
    """One route of the main table; ``device`` is the index of its interface, 0 when it has none of its own."""

    network: IPv4Network
    device: int


class Links:
    """Interfaces of the network namespace in which the thread is when it makes this."""

    def __init__(self) -> None:
        self._netlink = Netlink(socket.NETLINK_ROUTE)

    def __enter__(self) -> Links:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        self._netlink.__exit__()

    def add_bridge(self, name: str, alias: str) -> None:
        """A bridge without ports, which carries addresses and routes; it may be there already.

        :param alias: says for people and for :func:`alias_of` whose it is.
        """
        body = _link() + text(_NAME, name) + nested(_INFO, text(_KIND, "bridge"))
        with contextlib.suppress(FileExistsError):
            self._netlink.request(_NEW_LINK, body, CREATE | EXCL)
        self._netlink.request(_NEW_LINK, _link(index_of(name)) + attribute(_ALIAS, alias.encode()))  # never at once

    def add_pair(self, name: str, peer: str, namespace: int, mtu: int = 0) -> None:
        """Two interfaces that are the ends of one wire: ``name`` here, ``peer`` in the namespace of the descriptor.

        :raises FileExistsError: there is one of that name.
        """
        size = number(_MTU, mtu) if mtu else b""
        far = _link() + text(_NAME, peer) + number(_NAMESPACE_FD, namespace) + size
        info = nested(_INFO, text(_KIND, "veth"), nested(_DATA, attribute(_PEER, far)))
        self._netlink.request(_NEW_LINK, _link() + text(_NAME, name) + size + info, CREATE | EXCL)

    def up(self, name: str) -> None:
        self._netlink.request(_NEW_LINK, _LINK.pack(0, 0, index_of(name), _UP, _UP))

    def remove(self, name: str) -> None:
        """Remove an interface, if it is there; with it go its addresses, its routes and its other end."""
        try:
            self._netlink.request(_DEL_LINK, _link() + text(_NAME, name))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise

    def add_address(self, name: str, address: str, length: int) -> None:
        packed = socket.inet_aton(address)
        head = _ADDR.pack(socket.AF_INET, length, 0, _UNIVERSE, index_of(name))
        with contextlib.suppress(FileExistsError):
            self._netlink.request(
                _NEW_ADDRESS, head + attribute(_LOCAL, packed) + attribute(_ADDRESS, packed), CREATE | EXCL
            )

    def add_route(
        self, network: IPv4Network, device: str, *, gateway: str = "", source: str = "", replace: bool = True
    ) -> None:
        """Send what goes to ``network`` to ``device``.

        :raises FileExistsError: there is a route to that network, and it is not to be replaced.
        """
        scope = _UNIVERSE if gateway else _ON_LINK
        head = _ROUTE.pack(socket.AF_INET, network.prefixlen, 0, 0, _MAIN, _STATIC, scope, _UNICAST, 0)
        body = head + attribute(_DESTINATION, network.network_address.packed) + number(_OUT, index_of(device))
        if gateway:
            body += attribute(_GATEWAY, socket.inet_aton(gateway))
        if source:
            body += attribute(_SOURCE, socket.inet_aton(source))
        self._netlink.request(_NEW_ROUTE, body, CREATE | (REPLACE if replace else EXCL))

    def routes(self) -> Iterator[Route]:
        """The routes of the main table."""
        for body in self._netlink.dump(_GET_ROUTE, _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)):
            family, length, _, _, table, *_ = _ROUTE.unpack_from(body)
            fields = dict(attributes(body[_ROUTE.size :]))
            if _TABLE in fields:
                table = struct.unpack("=I", fields[_TABLE])[0]
            if family != socket.AF_INET or table != _MAIN:
                continue
            start = ip_address(fields.get(_DESTINATION, b"\0\0\0\0"))
            device = struct.unpack("=I", fields[_OUT])[0] if _OUT in fields else 0
            yield Route(IPv4Network((int(start), length)), device)


def _link(index: int = 0) -> bytes:
    return _LINK.pack(0, 0, index, 0, 0)


def index_of(name: str) -> int:
    """
    :raises OSError: there is no such interface in the thread's namespace.
    """
    return socket.if_nametoindex(name)


def names() -> list[str]:
    """The interfaces in the thread's network namespace."""
    return sorted(name for _, name in socket.if_nameindex())


def alias_of(name: str) -> str:
    """What the interface says about itself, ``""``: nothing."""
    try:
        with open(f"/sys/class/net/{name}/ifalias") as file:
            return file.read().strip()
    except OSError:
        return ""


def set_option(path: str, value: str) -> None:
    """A setting below ``/proc/sys/net``, in the thread's network namespace.

    :raises OSError: it cannot be written.
    """
    file = os.open(f"/proc/sys/net/{path}", os.O_WRONLY)
    try:
        os.write(file, value.encode())
    finally:
        os.close(file)


def option(path: str) -> str:
    """What :func:`set_option` would change."""
    with open(f"/proc/sys/net/{path}") as file:
        return file.read().strip()
