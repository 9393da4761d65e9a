"""One address per pod, so that pods on one machine can use the same ports."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

#: 127.1.0.0 .. 127.255.255.255: 127.0.x.y stays the machine's own.
_LOOPBACK = (int(IPv4Address("127.1.0.1")), int(IPv4Address("127.255.255.254")))


class NoAddressLeft(OSError):
    """Every address of the range is in use."""


class Addresses:
    """Gives out addresses from ``network``, by default 127.0.0.0/8; the same pod gets the same one whenever it is free.

    The network's own address, its first (the machine's) and its last are not given out.
    """

    def __init__(self, network: IPv4Network | None = None) -> None:
        self._network = network
        self._first, self._last = _LOOPBACK
        if network is not None:
            self._first, self._last = int(network.network_address) + 2, int(network.broadcast_address) - 1
        self._by_uid: dict[str, str] = {}
        self._taken: set[str] = set()

    def restore(self, uid: str, address: str) -> None:
        """The pod has this address already (it was given by an earlier process)."""
        self._by_uid[uid] = address
        self._taken.add(address)

    def allocate(self, uid: str) -> str:
        """The pod's address; a new one if it has none.

        :raises NoAddressLeft: there is none for it.
        """
        if uid in self._by_uid:
            return self._by_uid[uid]
        span = self._last - self._first + 1
        if len(self._taken) >= span:
            raise NoAddressLeft(f"all addresses of {self._network} are in use")
        number = zlib.crc32(uid.encode()) % span
        for step in range(span):
            address = str(IPv4Address(self._first + (number + step) % span))
            if address not in self._taken and not self._is_odd(address):
                self.restore(uid, address)
                return address
        raise NoAddressLeft(f"all addresses of {self._network} are in use")

    def _is_odd(self, address: str) -> bool:
        """Programs take these of 127.0.0.0/8 for a network or its broadcast."""
        return self._network is None and address.endswith((".0", ".255"))

    def get(self, uid: str) -> str | None:
        """The pod's address, if it has one."""
        return self._by_uid.get(uid)

    def all(self) -> Iterable[tuple[str, str]]:
        """Uid and address of everybody who has one."""
        return self._by_uid.items()

    def release(self, uid: str) -> None:
        """The pod is gone; its address may be given again."""
        address = self._by_uid.pop(uid, None)
        if address is not None:
            self._taken.discard(address)


def free_network(wanted: IPv4Network, used: Iterable[IPv4Network], before: IPv4Network | None = None) -> IPv4Network:
    """A network of at most 256 addresses within ``wanted`` that overlaps none in ``used``; ``before`` if it will do.

    :raises NoAddressLeft: there is none.
    """
    taken = [network for network in used if network.prefixlen > 0]
    candidates = wanted.subnets(new_prefix=max(wanted.prefixlen, 24))
    first = [before] if before is not None and before.subnet_of(wanted) else []
    for network in (*first, *candidates):
        if not any(network.overlaps(other) for other in taken):
            return network
    raise NoAddressLeft(f"every network within {wanted} overlaps a route of this machine")
