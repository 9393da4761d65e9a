"""The two ways in which pods can be in the network: each with a namespace of its own, or on the machine's loopback."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Network
from pathlib import Path
from typing import Protocol

from glebe.kube.clock import Env
from glebe.kube.objects import Object
from glebe.node import sysctls
from glebe.node.network import guard, nftables, probe, undo
from glebe.node.network.addresses import Addresses, NoAddressLeft
from glebe.node.network.kernelproxy import KernelProxy
from glebe.node.network.options import NetworkOptions
from glebe.node.network.routed import Routed
from glebe.node.network.services import Balancer, cluster_ips
from glebe.node.network.userproxy import UserProxy

log = logging.getLogger("glebe.node")

_DNS_PORT = 53
#: Where cluster IPs come from unless the cluster says otherwise.
SERVICE_RANGE = "10.96.0.0/16"


class Mode(Protocol):
    """Gives pods their places, and Services theirs."""

    name: str
    addresses: Addresses
    host_ip: str

    async def attach(self, pod: Object, address: str) -> str:
        """Connect the pod; the path of its network namespace, ``""``: it has none."""

    async def detach(self, uid: str) -> None:
        """Undo what was done for a pod; unknown ones are fine."""

    def service_addresses(self, service: Object) -> Sequence[str]:
        """Where pods and the machine's processes reach the Service."""

    def dns_hosts(self) -> Sequence[tuple[str, int]]:
        """Where a name server for pods may listen, best first."""

    async def apply(self, wanted: Mapping[str, Sequence[Balancer]]) -> None:
        """Each owner has exactly these balancers.

        :raises OSError: call :meth:`reset`, and ask for everything.
        """

    async def reset(self) -> None:
        """Forget all balancers."""

    async def stop(self, *, empty: bool) -> None:
        """The agent ends; ``empty``: it leaves no pods behind."""


class LoopbackMode:
    """Addresses of 127.0.0.0/8, for pods and for Services; this process listens at the latter."""

    name = "loopback"
    host_ip = "127.0.0.1"

    def __init__(self, env: Env, directory: Path) -> None:
        self.addresses = Addresses()
        self._directory = directory
        self._services: dict[str, tuple[str, str]] = {}
        self._proxy = UserProxy(env.rng, env.clock.now)

    async def attach(self, pod: Object, address: str) -> str:
        return ""

    async def detach(self, uid: str) -> None:
        state = undo.read_state(self._directory)
        if state is not None:
            await asyncio.to_thread(undo.undo_pod, self._directory, state, uid)

    def service_addresses(self, service: Object) -> Sequence[str]:
        if not cluster_ips(service):
            return []
        meta = service["metadata"]
        address = self.addresses.allocate(f"service:{meta['uid']}")
        self._services[address] = (meta["namespace"], meta["name"])
        return [address]

    def service_at(self, address: str) -> tuple[str, str] | None:
        """Namespace and name of the Service that was given an address."""
        return self._services.get(address)

    def forget_service(self, service: Object) -> None:
        """The Service is gone."""
        uid = f"service:{service['metadata']['uid']}"
        self._services.pop(self.addresses.get(uid) or "", None)
        self.addresses.release(uid)

    def dns_hosts(self) -> Sequence[tuple[str, int]]:
        return [(self.addresses.allocate(f"dns:{self._directory}"), _DNS_PORT)]

    async def apply(self, wanted: Mapping[str, Sequence[Balancer]]) -> None:
        await self._proxy.apply(wanted)

    async def reset(self) -> None:
        await self._proxy.close()

    async def stop(self, *, empty: bool) -> None:
        await self._proxy.close()


class NamespaceMode:
    """A network namespace per pod; Services in the kernel (:mod:`.routed`, :mod:`.kernelproxy`)."""

    name = "namespace"

    def __init__(self, routed: Routed, directory: Path) -> None:
        self.addresses = Addresses(routed.place.pods)
        self.host_ip = routed.place.gateway  # pods and the machine reach it, and nobody from outside
        self._routed = routed
        self._directory = directory
        self._proxy = KernelProxy(routed.place)
        self._lock = asyncio.Lock()  # one change of the kernel's tables at a time

    @property
    def pods(self) -> IPv4Network:
        """The network of this node's pods."""
        return self._routed.place.pods

    async def attach(self, pod: Object, address: str) -> str:
        meta = pod["metadata"]
        named = sysctls.wanted(pod["spec"])
        options = {name[4:].replace(".", "/"): value for name, value in named.items() if name.startswith("net.")}
        return str(await asyncio.to_thread(self._routed.attach, meta["uid"], address, options))

    async def detach(self, uid: str) -> None:
        await asyncio.to_thread(self._routed.detach, uid, self.addresses.get(uid) or "")

    def service_addresses(self, service: Object) -> Sequence[str]:
        return cluster_ips(service)

    def dns_hosts(self) -> Sequence[tuple[str, int]]:
        return [(self._routed.place.gateway, _DNS_PORT), (self._routed.place.gateway, 0)]

    async def apply(self, wanted: Mapping[str, Sequence[Balancer]]) -> None:
        async with self._lock:
            await asyncio.to_thread(self._proxy.apply, wanted)

    async def reset(self) -> None:
        async with self._lock:
            self._proxy.forget()
            await asyncio.to_thread(self._routed.fill, [address for _, address in self.addresses.all()])

    async def is_whole(self) -> bool:
        """Whether the rules are still there; others may have emptied all tables of the machine."""
        return await asyncio.to_thread(nftables.has_table, self._routed.place.table)

    async def stop(self, *, empty: bool) -> None:
        if empty:
            guard.dismiss(self._directory.parent)
            undo.undo(self._directory)


def why_not(options: NetworkOptions, directory: Path) -> str:
    """Why the mode ``namespace`` would not work on this machine, ``""``: it would. Blocking.

    :param directory: one that is not used yet; nothing is left in it.
    """
    try:
        _try_namespaces(options, directory, [IPv4Network(SERVICE_RANGE)])
    except probe.Unsuitable as error:
        return str(error)
    undo.undo(directory)
    return ""


async def choose(
    options: NetworkOptions, env: Env, directory: Path, services: Sequence[IPv4Network], *, possible: bool
) -> tuple[LoopbackMode | NamespaceMode, str]:
    """The mode, and why it is not the other one (``""``: it was asked for, or all is well).

    :param possible: whether containers can be put into network namespaces.
    :raises probe.Unsuitable: the mode ``namespace`` was asked for and does not work.
    """
    await asyncio.to_thread(guard.dismiss, directory.parent)
    why = ""
    if options.mode != "loopback":
        try:
            if not possible:
                raise probe.Unsuitable("containers cannot be put into network namespaces here (not root?)")
            guard.post(directory.parent, options.window)  # from now on somebody cleans up if this process dies
            routed = await asyncio.to_thread(_try_namespaces, options, directory, services)
            return NamespaceMode(routed, directory), ""
        except probe.Unsuitable as error:
            await asyncio.to_thread(guard.dismiss, directory.parent)
            if options.mode == "namespace":
                raise
            why = str(error)
    await asyncio.to_thread(_leave_nothing, directory)
    return LoopbackMode(env, directory), why


def _try_namespaces(options: NetworkOptions, directory: Path, services: Sequence[IPv4Network]) -> Routed:
    fresh = undo.read_state(directory) is None
    try:
        routed = Routed(directory, IPv4Network(options.pod_cidr), services)
        routed.set_up()
        routed.fill([])
        trial = Addresses(routed.place.pods)
        for taken in _given(directory):
            trial.restore(taken, taken)
        probe.probe(routed, [trial.allocate(name) for name in probe.NAMES], str(services[0][-2]))
    except (probe.Unsuitable, NoAddressLeft) as error:
        _undo_if(fresh, directory)
        raise error if isinstance(error, probe.Unsuitable) else probe.Unsuitable(str(error)) from error
    except OSError as error:
        _undo_if(fresh, directory)
        raise probe.Unsuitable(f"interfaces and rules: {error.strerror or error}") from error
    return routed


def _given(directory: Path) -> Iterable[str]:
    """Addresses of the pods of an earlier agent."""
    for uid in undo.known_pods(directory):
        done = undo.read_done(directory, uid)
        if done is not None:
            yield done


def _undo_if(fresh: bool, directory: Path) -> None:
    if fresh:
        try:
            undo.undo(directory)
        except OSError as error:
            log.debug("the network cannot be undone: %s", error)


def _leave_nothing(directory: Path) -> None:
    """What an earlier agent made goes, unless pods still have it."""
    if not undo.known_pods(directory):
        _undo_if(True, directory)
