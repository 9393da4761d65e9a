"""Whether pods with namespaces of their own would work on this machine: tried out, never guessed."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network
from pathlib import Path

from glebe.node.network import links, namespaces, undo
from glebe.node.network.kernelproxy import KernelProxy
from glebe.node.network.routed import Routed
from glebe.node.network.services import Balancer, Front

_PATIENCE = 3.0  # seconds for each connection
NAMES = ("probe-a", "probe-b")


class Unsuitable(Exception):
    """Pods would not be connected; the message says what did not work."""


def probe(routed: Routed, addresses: Sequence[str], service: str) -> None:
    """Make two pods, let them talk in every way that pods need, and remove them.

    :param addresses: free ones of the pods' network; :param service: a free address of the Services' network.
    :raises Unsuitable: something does not work.
    """
    try:
        first, second = (routed.attach(name, address, {}) for name, address in zip(NAMES, addresses, strict=True))
        _add_outside(second, _outside(routed))
        with namespaces.inside(second, lambda: socket.create_server(("", 0))) as server:
            server.settimeout(_PATIENCE)
            _try_all(routed, first, addresses, server, service)
    except OSError as error:
        raise Unsuitable(f"network namespaces: {error.strerror or error}") from error
    finally:
        for name, address in zip(NAMES, addresses, strict=True):
            routed.detach(name, address)


def _try_all(routed: Routed, first: Path, addresses: Sequence[str], server: socket.socket, service: str) -> None:
    port = server.getsockname()[1]
    target = (addresses[1], port)
    front = (service, 1 + _own_number(routed) % 60_000)

    def from_pod(to: tuple[str, int]) -> str:
        return namespaces.inside(first, lambda: _peer(server, to))

    proxy = KernelProxy(routed.place)
    proxy.apply({"probe": [Balancer(Front(front[0], "TCP", front[1]), (target,))]})
    with links.Links() as machine:
        wire = undo.wire_name(routed.place.wires, NAMES[1])
        machine.add_route(IPv4Network(_outside(routed)), wire, source=routed.place.gateway)
    _expect("the machine does not reach pods", lambda: _peer(server, target) != "")
    _expect("the machine does not pass packets between pods (a firewall?)", lambda: from_pod(target) == addresses[0])
    _expect("pods do not reach Services", lambda: from_pod(front) == addresses[0])
    _expect("the machine does not reach Services", lambda: _peer(server, front) != "")
    _expect("no NAT for pods", lambda: from_pod((_outside(routed), port)) not in ("", addresses[0]))
    proxy.apply({"probe": []})


def _own_number(routed: Routed) -> int:
    """A number that other nodes of the machine, which may be trying at the same moment, do not have."""
    return int(routed.place.table.removeprefix(undo.TABLE), 16)


def _outside(routed: Routed) -> str:
    """Stands for an address outside: of the second pod, but not in the pods' network (RFC 3927)."""
    high, low = divmod(_own_number(routed) % (160 * 250), 250)
    return f"169.254.{1 + high}.{2 + low}"


def _add_outside(path: Path, address: str) -> None:
    """Give the second pod its address outside."""

    def add() -> None:
        with links.Links() as pod:
            pod.add_address("eth0", address, 32)

    namespaces.inside(path, add)


def _peer(server: socket.socket, to: tuple[str, int]) -> str:
    """Connect, and say from which address the server sees it."""
    with socket.create_connection(to, _PATIENCE):
        connection, (address, _) = server.accept()
        connection.close()
        return str(address)


def _expect(problem: str, check: Callable[[], bool]) -> None:
    try:
        if check():
            return
    except OSError as error:
        raise Unsuitable(f"{problem}: {error.strerror or error}") from error
    raise Unsuitable(problem)
