"""The cluster IPs and node ports of one logical cluster.

A taken cluster IP is an ``IPAddress`` object, as upstream has it since 1.33: the object is created before the service
that holds it, so that two servers on one store never give out the same one. Which are taken is otherwise known from the
stored services alone, so that a crash between the two leaves at worst an IPAddress without its service, and those are
removed when the pools are read again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, TypeAlias

import orjson

from glebe.apiserver.clusters.firstobjects import SERVICE_RANGE, ip_address_object
from glebe.apiserver.services.portclaims import PortClaims
from glebe.apiserver.store import Event, Key, Make, Mismatch
from glebe.kube.clock import parse_time
from glebe.kube.objects import Object, condition_is_true

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer

Network: TypeAlias = "IPv4Network | IPv6Network"

ADDRESSES, RANGES, SERVICES = "ipaddresses.networking.k8s.io", "servicecidrs.networking.k8s.io", "services"
MANAGED = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io")
NODE_PORTS = range(30000, 32768)
#: How long an IPAddress may stand alone: its service is perhaps about to be written.
GRACE = 60.0
#: Random tries before the pool is searched in order.
_TRIES = 16


class Full(Exception):
    """Nothing is free."""


class Refused(Exception):
    """The wanted one cannot be had; the message says why, as upstream does."""


class Pools:
    """What is taken in one cluster."""

    def __init__(self, server: ApiServer, cluster: str) -> None:
        self._server = server
        self._cluster = cluster
        self.ports: dict[int, int] = {}
        """Node port -> by how many services it is held."""
        self._claims = PortClaims(server, cluster)
        self._pending: set[int] = set()
        """Node ports of services that are about to be written."""
        for entry in server.store.range(SERVICES, cluster).entries:
            self._count_ports(entry.view(), 1)

    def note(self, event: Event) -> None:
        """A service was written (by whatever server)."""
        if event.previous is not None:
            self._count_ports(event.previous.view(), -1)
        if not event.deleted:
            self._count_ports(event.entry.view(), 1)

    def _count_ports(self, service: Object, by: int) -> None:
        for port in ports_of(service):
            self.ports[port] = self.ports.get(port, 0) + by
            if self.ports[port] <= 0:
                del self.ports[port]

    # -- node ports

    async def take_port(self, port: int) -> None:
        """
        :raises Refused: it is taken, or none of ours.
        """
        if port not in NODE_PORTS:
            span = f"{NODE_PORTS[0]}-{NODE_PORTS[-1]}"
            raise Refused(f"provided port is not in the valid range. The range of valid ports is {span}")
        if not await self._reserve(port):
            raise Refused("provided port is already allocated")

    async def next_port(self) -> int:
        """A free port, taken at once.

        :raises Full: there is none.
        """
        some: list[int] = [self._server.env.rng.choice(NODE_PORTS) for _ in range(_TRIES)]
        for port in some + list(NODE_PORTS):
            if await self._reserve(port):
                return port
        raise Full("range is full")

    async def _reserve(self, port: int) -> bool:
        """Keep the port for a service that is about to be written, unless somebody has it."""
        if port in self.ports or port in self._pending:
            return False
        self._pending.add(port)
        try:
            ours = await self._claims.claim(port)
        except BaseException:
            self._pending.discard(port)
            raise
        if ours and port not in self.ports:
            return True
        self._pending.discard(port)
        if ours:
            await self._claims.release(port)
        return False

    def settle_ports(self, ports: Iterable[int]) -> None:
        """The services that took these are written, and counted; or will not be. :meth:`release_ports` follows."""
        self._pending.difference_update(ports)

    async def release_ports(self, ports: Iterable[int]) -> None:
        """Other servers may look at these again."""
        for port in ports:
            await self._claims.release(port)

    # -- cluster IPs

    def ranges(self) -> list[Network]:
        """The ranges of the cluster's ServiceCIDRs that are ready and stay; the default one first."""
        found: list[Network] = []
        for item in self._server.read_all(self._cluster, RANGES):
            if "deletionTimestamp" in item["metadata"] or not condition_is_true(item, "Ready"):
                continue
            for text in (item.get("spec") or {}).get("cidrs") or ():
                with contextlib.suppress(ValueError):
                    found.append(ip_network(text))
        return found or [ip_network(SERVICE_RANGE)]

    async def take_address(self, address: str, namespace: str, service: str) -> None:
        """
        :raises Refused: it is taken, or in none of the ranges.
        """
        parsed = ip_address(address)
        if not any(parsed in network for network in self.ranges()):
            listed = ", ".join(str(n) for n in self.ranges())
            raise Refused(f"the provided network does not match the current range. The range of valid IPs is {listed}")
        if not await self._claim(address, namespace, service):
            raise Refused("provided IP is already allocated")

    async def next_address(self, version: int, namespace: str, service: str) -> str:
        """A free address, taken at once.

        :raises Full: there is none.
        """
        for network in self.ranges():
            if network.version != version:
                continue
            for address in self._candidates(network):
                if self._is_free(address) and await self._claim(address, namespace, service):
                    return address
        raise Full("range is full")

    def peek_address(self, version: int) -> str:
        """A free address that nobody takes (dry run).

        :raises Full: there is none.
        """
        for network in self.ranges():
            if network.version == version:
                for address in self._candidates(network):
                    if self._is_free(address):
                        return address
        raise Full("range is full")

    def _candidates(self, network: Network) -> Iterable[str]:
        """Random ones first; the network's own address, its first (the API server's) and an IPv4 broadcast are not
        for services."""
        usable = min(network.num_addresses, 1 << 62) - (3 if network.version == 4 else 2)
        if usable <= 0:
            return
        for _ in range(_TRIES):
            yield str(network[2 + self._server.env.rng.randrange(usable)])
        for at in range(min(usable, 1 << 16)):
            yield str(network[2 + at])

    def _is_free(self, address: str) -> bool:
        return self._server.store.get(Key(ADDRESSES, self._cluster, "", address)) is None

    async def _claim(self, address: str, namespace: str, service: str) -> bool:
        """Create the IPAddress; False when there is one."""
        server = self._server
        key = Key(ADDRESSES, self._cluster, "", address)
        if (held := server.store.get(key)) is not None and not self._is_alone(held.view()):
            return False
        obj = ip_address_object(address, namespace, service)
        obj["metadata"] |= {"uid": server.env.new_uid(), "creationTimestamp": server.now_text()}
        try:
            await server.store.put(key, _stamped(obj), held.revision if held is not None else 0)
        except Mismatch:
            return False
        return True

    def _is_alone(self, obj: Object) -> bool:
        """Nobody holds this IPAddress any more (the server died between it and its service)."""
        meta = obj["metadata"]
        if (meta.get("labels") or {}).get(MANAGED[0]) != MANAGED[1]:
            return False
        if parse_time(meta["creationTimestamp"]) + GRACE > self._server.env.clock.now():
            return False
        ref = (obj.get("spec") or {}).get("parentRef") or {}
        service = self._server.read(self._cluster, SERVICES, ref.get("namespace", ""), ref.get("name", ""))
        return service is None or meta["name"] not in addresses_of(service)

    async def give_back_address(self, address: str, namespace: str, service: str) -> None:
        """Delete the IPAddress, if it is this service's."""
        store = self._server.store
        key = Key(ADDRESSES, self._cluster, "", address)
        entry = store.get(key)
        if entry is None:
            return
        ref = (entry.view().get("spec") or {}).get("parentRef") or {}
        if (ref.get("namespace"), ref.get("name")) == (namespace, service):
            with contextlib.suppress(Mismatch):
                await store.delete(key, _stamped(entry.load()), entry.revision)

    async def repair(self) -> None:
        """Delete the IPAddresses that stand alone: what a crash may have left."""
        for entry in self._server.store.range(ADDRESSES, self._cluster).entries:
            obj = entry.view()
            if self._is_alone(obj):
                key = Key(ADDRESSES, self._cluster, "", obj["metadata"]["name"])
                with contextlib.suppress(Mismatch):
                    await self._server.store.delete(key, _stamped(entry.load()), entry.revision)


def addresses_of(service: Object) -> list[str]:
    """The cluster IPs that a service holds; none when it is headless or of type ExternalName."""
    spec = service.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return []
    found = spec.get("clusterIPs") or [spec.get("clusterIP")]
    return [a for a in found if a and a != "None"]


def ports_of(service: Object) -> list[int]:
    """The node ports that a service holds, each once."""
    spec = service.get("spec") or {}
    found = [p["nodePort"] for p in spec.get("ports") or () if p.get("nodePort")]
    if spec.get("healthCheckNodePort"):
        found.append(spec["healthCheckNodePort"])
    return sorted(set(found))


def _stamped(obj: Object) -> Make:
    def make(revision: int) -> bytes:
        obj["metadata"]["resourceVersion"] = str(revision)
        return orjson.dumps(obj)

    return make
