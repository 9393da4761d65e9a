"""Pods with network namespaces on this machine, for tests: whether it allows them, and what they leave behind."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import tempfile
from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path
from typing import TypeVar

import pytest

from glebe.node.network import links, namespaces, undo
from glebe.node.network.addresses import Addresses, NoAddressLeft
from glebe.node.network.probe import NAMES, Unsuitable, probe
from glebe.node.network.routed import Routed

POD_CIDR = "10.213.0.0/16"  # not the default: tests must not take what a platform of the machine's user wants
SERVICES = IPv4Network("10.214.0.0/16")

T = TypeVar("T")


@functools.cache
def why_not() -> str:
    """Why there can be no network namespaces here; ``""``: there can."""
    if os.geteuid() != 0:
        return "not root"
    with tempfile.TemporaryDirectory(prefix="glebe-net-") as place:
        directory = Path(place, "network")
        try:
            routed = Routed(directory, IPv4Network(POD_CIDR), [SERVICES])
            routed.set_up()
            routed.fill([])
            pool = Addresses(routed.place.pods)
            probe(routed, [pool.allocate(name) for name in NAMES], str(SERVICES[-2]))
        except (Unsuitable, NoAddressLeft, OSError) as error:
            return str(error)
        finally:
            with contextlib.suppress(OSError):
                undo.undo(directory)
    return ""


def need_namespaces() -> None:
    """Skip the test where there can be none. Not while tests are collected: it is tried out on the machine."""
    if why := why_not():
        pytest.skip(f"no network namespaces: {why}")


def traces(routed: Routed) -> list[str]:
    """What of a node is there on the machine: interfaces, namespaces."""
    place = routed.place
    return [name for name in links.names() if name == place.sink or name.startswith(place.wires)]


class Pod:
    """A pod of tests: a namespace in which nothing runs but sockets of this process."""

    def __init__(self, routed: Routed, uid: str, address: str) -> None:
        self.address = address
        self._path = routed.attach(uid, address, {})

    def inside(self, act: Callable[[], T]) -> T:
        return namespaces.inside(self._path, act)

    def listen(self, port: int = 8080) -> socket.socket:
        server = self.inside(lambda: socket.create_server((self.address, port)))
        server.settimeout(3)
        return server

    def connect(self, to: tuple[str, int]) -> socket.socket:
        return self.inside(lambda: socket.create_connection(to, 3))

    def udp(self) -> socket.socket:
        made = self.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        made.settimeout(3)
        return made


def peer(server: socket.socket) -> str:
    """From where the next connection comes."""
    connection, (address, _) = server.accept()
    connection.close()
    return str(address)
