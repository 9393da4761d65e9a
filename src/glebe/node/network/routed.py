"""The mode ``namespace``: each pod has a network namespace of its own, and the machine routes between them.

A pod is at the end of a wire (veth) whose other end is the machine; it has its address alone (/32) and sends everything
to the gateway, an address of the machine. The machine has a route to each pod by its wire. So all packets, also those
from pod to pod, pass the machine's routing, where Services are resolved, without any setting for bridges. A bridge
without ports, the ``sink``, holds the gateway's address and the routes of the pods' and the Services' networks: what
nobody has answers from there with "connection refused", and never leaves the machine.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import zlib
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network
from pathlib import Path

from glebe.node.network import kernelproxy, links, namespaces, nftables, undo
from glebe.node.network.addresses import free_network
from glebe.node.network.kernelproxy import Place
from glebe.node.network.undo import State, namespace_path, wire_name

_LOCK = "\0glebe-node-network"  # one name per network namespace: two nodes must not choose the same addresses at once
_ALONE = IPv4Network("0.0.0.0/0")


class Routed:
    """The machine's part of the pods' network. Blocking; everything may be repeated.

    :param directory: the node's network directory; :param wanted: the network in which the pods' own is to lie.
    :param services: the networks of cluster IPs.
    """

    def __init__(self, directory: Path, wanted: IPv4Network, services: Sequence[IPv4Network]) -> None:
        self._directory = directory
        self._wanted = wanted
        self._services = services
        mark = f"{zlib.crc32(os.fsencode(directory.absolute())):08x}"[:5]
        self._sink, self._wires, self._table = undo.SINK + mark, undo.WIRE + mark, undo.TABLE + mark
        self.place = Place(self._table, wanted, "", self._wires, self._sink)
        self._mtu = 0

    def set_up(self) -> None:
        """Make the machine ready for pods.

        :raises OSError: it refuses; nothing is left behind then but what :func:`undo.undo` removes.
        """
        with _alone(), links.Links() as machine:
            undo.undo_orphans()
            state = self._choose(machine)
            state.write(self._directory)
            network = IPv4Network(state.cidr)
            gateway = str(network[1])
            machine.add_bridge(self._sink, f"{undo.view_of_files()} {self._directory.absolute()}"[:255])
            machine.add_address(self._sink, gateway, network.prefixlen)
            machine.up(self._sink)
            for services in self._services:
                with contextlib.suppress(FileExistsError):  # another node of this machine has it
                    machine.add_route(services, self._sink, source=gateway, replace=False)
            out = _default_device(machine)
        router = self._forward(state, out)
        self._mtu = _mtu(out)
        self.place = Place(self._table, network, gateway, self._wires, self._sink, tuple(self._services), router)

    def _choose(self, machine: links.Links) -> State:
        before = undo.read_state(self._directory)
        own = {links.index_of(n) for n in links.names() if n == self._sink or n.startswith(self._wires)}
        used = [route.network for route in machine.routes() if route.device not in own]
        kept = IPv4Network(before.cidr) if before is not None else None
        network = free_network(self._wanted, [*used, *self._services], kept)
        options = before.options if before is not None else {}
        return State(str(network), self._sink, self._wires, self._table, options)

    def _forward(self, state: State, out: str) -> str:
        """Let answers from outside through to pods, on the one interface that needs it."""
        path = f"ipv4/conf/{out}/forwarding"
        if not out or links.option(path) == "1":
            return out if path in state.options else ""
        state.options.setdefault(path, "0")
        state.write(self._directory)
        links.set_option(path, "1")
        return out

    def fill(self, pods: Iterable[str]) -> None:
        """The table, without Services. ``pods``: the addresses of those that are there.

        :raises OSError: the kernel refuses.
        """
        kernelproxy.base(self.place, pods).commit()

    def attach(self, uid: str, address: str, options: dict[str, str]) -> Path:
        """The pod's namespace, connected; one that is there already and was finished stays as it is.

        :param options: settings below ``/proc/sys/net`` to make in it.
        :raises OSError: the machine refuses.
        """
        path, wire = namespace_path(self._directory, uid), wire_name(self._wires, uid)
        done = path.with_suffix(".json")
        said = {"address": address, "gateway": self.place.gateway}
        if namespaces.is_namespace(path) and wire in links.names() and _read(done) == said:
            self._itself(address, present=True)
            return path
        self.detach(uid)
        namespaces.create(path)
        with links.Links() as machine, _opened(path) as namespace:
            machine.add_pair(wire, "eth0", namespace, self._mtu)
            for name in ("forwarding", "route_localnet"):
                links.set_option(f"ipv4/conf/{wire}/{name}", "1")
            machine.up(wire)
            machine.add_route(IPv4Network(address), wire, source=self.place.gateway)
        namespaces.inside(path, lambda: self._furnish(address, options))
        self._itself(address, present=True)
        done.write_text(json.dumps(said))
        return path

    def _furnish(self, address: str, options: dict[str, str]) -> None:
        with links.Links() as pod:
            pod.up("lo")
            pod.add_address("eth0", address, 32)
            pod.up("eth0")
            pod.add_route(IPv4Network(self.place.gateway), "eth0")
            pod.add_route(_ALONE, "eth0", gateway=self.place.gateway)
        # In a network of his own nobody needs a privilege to listen on port 80.
        for path, value in {"ipv4/ip_unprivileged_port_start": "0", **options}.items():
            links.set_option(path, value)

    def detach(self, uid: str, address: str = "") -> None:
        """Remove what was made for a pod; it need not be there.

        :raises OSError: the machine refuses.
        """
        state = State("", self._sink, self._wires, self._table)
        undo.undo_pod(self._directory, state, uid)
        if address:
            self._itself(address, present=False)

    def known(self) -> list[str]:
        """The uids of pods for which something is there."""
        return undo.known_pods(self._directory)

    def _itself(self, address: str, *, present: bool) -> None:
        change = nftables.Change(self._table)
        (change.add if present else change.discard)("itself", kernelproxy.itself(address))
        try:
            change.commit()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EEXIST):
                raise


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def _opened(path: Path):  # type: ignore[no-untyped-def]
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield file
    finally:
        os.close(file)


@contextlib.contextmanager
def _alone():  # type: ignore[no-untyped-def]
    """Wait until no other node of this machine chooses addresses."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as lock:
        for _ in range(200):
            try:
                lock.bind(_LOCK)
                break
            except OSError:
                namespaces.pause(0.05)
        yield


def _default_device(machine: links.Links) -> str:
    """The interface by which the machine reaches everything else; ``""``: it reaches nothing."""
    for route in machine.routes():
        if route.network.prefixlen == 0 and route.device:
            return socket.if_indextoname(route.device)
    return ""


def _mtu(device: str) -> int:
    try:
        return int(Path(f"/sys/class/net/{device}/mtu").read_text())
    except (OSError, ValueError):
        return 0
