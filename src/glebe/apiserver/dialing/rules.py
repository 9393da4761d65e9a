"""Which addresses this server connects to on behalf of which logical cluster."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TypeAlias

from glebe.apiserver.request.routing import ROOT

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


class DialError(Exception):
    """The target cannot be reached, or may not be."""


@dataclass(frozen=True, slots=True)
class DialRules:
    """Which addresses may be dialled on behalf of logical clusters other than ``root``.

    :param allow: networks that are allowed although they are loopback or link-local.
    :param deny: networks that are refused besides those.
    """

    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()

    def check(self, cluster: str, host: str) -> None:
        """:raises DialError: ``cluster`` may not make this server connect to the address ``host``."""
        if cluster == ROOT:
            return
        address: Address = ipaddress.ip_address(host.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if any(address in network for network in self.allow):
            return
        closed = address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast
        if closed or any(address in network for network in self.deny):
            raise DialError(f"dial tcp {host}: the address may not be reached from this cluster")
