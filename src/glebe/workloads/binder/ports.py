"""Host ports in use, by node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from glebe.workloads.binder.needs import Port


class HostPorts:
    """Who listens where. A port without an address conflicts with the same port on any address."""

    def __init__(self) -> None:
        self._used: dict[tuple[str, int], dict[str, Counter[str]]] = {}  # port -> node -> addresses

    def clear(self) -> None:
        self._used.clear()

    def add(self, node: str, ports: Iterable[Port], sign: int) -> None:
        for port in ports:
            key = (port.protocol, port.number)
            nodes = self._used.setdefault(key, {})
            addresses = nodes.setdefault(node, Counter())
            addresses[port.ip] += sign
            if addresses[port.ip] <= 0:
                del addresses[port.ip]
            if not addresses:
                del nodes[node]
            if not nodes:
                del self._used[key]

    def conflicts(self, ports: Iterable[Port]) -> set[str]:
        """Nodes on which not all of ``ports`` are free."""
        return {
            node
            for port in ports
            for node, addresses in self._used.get((port.protocol, port.number), {}).items()
            if port.ip == "" or "" in addresses or port.ip in addresses
        }
