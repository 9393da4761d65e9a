"""Connections that the kernel remembers: those of UDP to a target that is gone would last as long as somebody sends.

Sources: ``include/uapi/linux/netfilter/nfnetlink_conntrack.h``; kube-proxy's ``pkg/proxy/conntrack``.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Collection

from glebe.node.network.netlink import Netlink, attribute, attributes

_FAMILY = 12  # NETLINK_NETFILTER
_GET, _DELETE = (1 << 8) | 1, (1 << 8) | 2
_ORIGINAL, _REPLY = 1, 2
_IP, _PROTOCOL = 1, 2  # of a tuple
_NESTED = 0x8000
_UDP = 17
_HEAD = struct.pack(">BBH", socket.AF_INET, 0, 0)


def forget_udp(targets: Collection[tuple[str, int]]) -> int:
    """Forget the UDP connections that were sent on to one of ``targets``; how many they were. Blocking.

    :raises OSError: without the right to do so.
    """
    wanted = {(socket.inet_aton(address), struct.pack(">H", port)) for address, port in targets}
    if not wanted:
        return 0
    count = 0
    with Netlink(_FAMILY) as netlink:
        for body in netlink.dump(_GET, _HEAD):
            fields = dict(attributes(body[len(_HEAD) :]))
            if _source(fields.get(_REPLY, b"")) in wanted:
                with contextlib.suppress(FileNotFoundError):  # it has just ended by itself
                    netlink.request(_DELETE, _HEAD + attribute(_ORIGINAL | _NESTED, fields[_ORIGINAL]))
                    count += 1
    return count


def _source(side: bytes) -> tuple[bytes, bytes] | None:
    """Source address and port of one direction of a UDP connection; ``None`` for any other."""
    fields = dict(attributes(side))
    transport = dict(attributes(fields.get(_PROTOCOL, b"")))
    if transport.get(1) != bytes([_UDP]):
        return None
    return dict(attributes(fields.get(_IP, b""))).get(1, b""), transport.get(2, b"")
