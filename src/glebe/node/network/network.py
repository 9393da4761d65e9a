"""The network of one node's pods: an address for each, names, and Services."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, ip_network
from pathlib import Path
from typing import Any

from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey
from glebe.kube.pods import BY_NODE, has_ended, node_of
from glebe.kube.resources import NODES, PODS, Resource
from glebe.kube.transport import ConnectionLost
from glebe.node.contracts import PodNetwork, SandboxError
from glebe.node.network import modes, podfiles, undo
from glebe.node.network.addresses import NoAddressLeft
from glebe.node.network.cluster import Cluster
from glebe.node.network.dns import DnsServer
from glebe.node.network.hostnames import host_names
from glebe.node.network.modes import LoopbackMode, NamespaceMode
from glebe.node.network.options import NetworkOptions
from glebe.node.network.podfiles import PodFiles
from glebe.node.network.servicefeed import ServiceFeed
from glebe.node.network.services import Balancer, Front
from glebe.node.values.services import MASTER, variables, visible

log = logging.getLogger("glebe.node")

_SERVICE_CIDRS = Resource("networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR", namespaced=False)
_RETRY = 1.0  # seconds
_LOOK = 10.0  # seconds between looks whether the rules are still there


class Network:
    """Where pods are in the network, and how they find each other.

    :param directory: where the node keeps what it remembers about its network; made when needed.
    """

    def __init__(
        self, informers: Informers, env: Env, node: str, directory: Path, options: NetworkOptions | None = None
    ) -> None:
        self._informers = informers
        self._env = env
        self._node = node
        self._directory = directory
        self._options = options or NetworkOptions()
        self._mode: LoopbackMode | NamespaceMode = LoopbackMode(env, directory)
        self.why_loopback = ""
        """Why pods have no network namespaces although they might; ``""``: they have, or were not to."""
        self._cluster = Cluster(informers, self.service_addresses)
        self._pods = informers.get(PODS, indexers={BY_NODE: node_of})
        self._nodes = informers.get(NODES)
        self._feed = ServiceFeed(self._cluster, self._pods, node, self.address)
        self._files = PodFiles(directory / "pods", own_loopback=False)
        self._attached: dict[str, Object] = {}
        self._kept: dict[str, str] = {}
        """Addresses of pods that were given them in the other mode: they stay where they are."""
        self._fixed: dict[str, Sequence[Balancer]] = {}
        self._server = ""
        self._dns: DnsServer | None = None

    # --- what there is

    @property
    def mode(self) -> str:
        """``namespace`` or ``loopback``."""
        return self._mode.name

    def summary(self) -> str:
        """One line for people: how pods are connected."""
        if isinstance(self._mode, NamespaceMode):
            return f"pods have network namespaces and addresses of {self._mode.pods}"
        why = f" ({self.why_loopback})" if self.why_loopback else ""
        names = "names by DNS" if self._server else "names in variables, and in /etc/hosts where there are mounts"
        return f"pods share the machine's network, with addresses of 127.0.0.0/8, {names}{why}"

    @property
    def host_ip(self) -> str:
        """The machine's address, as pods know it."""
        return self._mode.host_ip

    def service_addresses(self, service: Object) -> Sequence[str]:
        """Where pods of this node reach the Service: its cluster IPs or an address of 127.0.0.0/8; headless: none."""
        return self._mode.service_addresses(service)

    async def variables(self, pod: Object) -> dict[str, str]:
        """What containers of the pod are told of Services, by addresses that they can reach."""
        await self._cluster.wait_synced()
        links = pod["spec"].get("enableServiceLinks") is not False
        found = visible(self._cluster.services.store.values(), pod["metadata"]["namespace"], links)
        if self.mode == "loopback":
            found = [self._reachable(service) for service in found]
        return variables(found)

    def _reachable(self, service: Object) -> Object:
        """The Service under its address on the loopback; the API server itself under its own."""
        meta = service["metadata"]
        if (meta["namespace"], meta["name"]) == MASTER:
            for each in self._cluster.slices(*MASTER):
                for endpoint in each.get("endpoints") or ():
                    spec = {**service["spec"], "clusterIP": endpoint["addresses"][0], "ports": each.get("ports") or []}
                    return {**service, "spec": spec}
        addresses = self.service_addresses(service)
        return {**service, "spec": {**service["spec"], "clusterIP": addresses[0] if addresses else "None"}}

    # --- life

    async def start(self, *, possible: bool = True) -> None:
        """Find out what this machine allows. Before anything else, once.

        :param possible: whether containers can be put into network namespaces.
        :raises probe.Unsuitable: the options insist on what does not work.
        """
        services = await self._service_networks() if self._options.mode != "loopback" else []
        self._mode, self.why_loopback = await modes.choose(
            self._options, self._env, self._directory, services, possible=possible
        )
        if isinstance(self._mode, LoopbackMode):
            self._cluster.other_services_at = self._services_on_loopback
            self._feed.on_loopback = True
        await asyncio.to_thread(self._forget_lost)
        self._files = PodFiles(self._directory / "pods", own_loopback=self.mode == "namespace")
        self._dns = DnsServer(self._cluster, podfiles.machine_servers, lambda: self._cluster.has_synced)
        self._server = await self._listen(self._dns)

    async def _service_networks(self) -> list[IPv4Network]:
        while True:
            try:
                items = (await self._informers.client.list(_SERVICE_CIDRS)).items
                break
            except ApiError:
                items = []
                break
            except ConnectionLost:
                await asyncio.sleep(_RETRY)
        found = [ip_network(text) for item in items for text in item["spec"].get("cidrs") or ()]
        return [n for n in found if isinstance(n, IPv4Network)] or [IPv4Network(modes.SERVICE_RANGE)]

    async def _listen(self, dns: DnsServer) -> str:
        """The address that pods are to ask; ``""``: nobody may listen there."""
        for host, port in self._mode.dns_hosts():
            try:
                await dns.start(host, port)
            except OSError as error:
                log.info("no name server at %s: %s", host, error.strerror)
                continue
            if port == 0:
                asked, real = dns.address[0], dns.address[1]
                fronts = [Balancer(Front(asked, kind, 53), ((asked, real),)) for kind in ("TCP", "UDP")]
                self._fixed = {"dns": fronts}
                await self._mode.apply(self._fixed)
            return host
        return ""

    async def run(self) -> None:
        """Serve names and services until cancelled."""
        await self._cluster.wait_synced()
        self._cluster.services.add_handler(self._on_service)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._feed.run(self._apply), name="process node: services")
                if isinstance(self._mode, NamespaceMode):
                    group.create_task(self._publish(self._mode.pods), name="process node: podCIDR")
                    group.create_task(self._mind(self._mode), name="process node: rules")
        finally:
            self._cluster.services.remove_handler(self._on_service)
            if self._dns is not None:
                await self._dns.stop()
            await self._mode.stop(empty=not self._attached)

    def _on_service(self, old: Object | None, new: Object | None) -> None:
        if new is None and old is not None and isinstance(self._mode, LoopbackMode):
            self._mode.forget_service(old)

    async def _apply(self, wanted: Mapping[str, Sequence[Balancer]]) -> None:
        """One round of changes; what the kernel refuses is built anew."""
        try:
            await self._mode.apply(wanted)
        except OSError as error:
            log.warning("Services cannot be set up: %s; everything is set up anew", error.strerror or error)
            await self._renew()
        if self.mode == "loopback" and not self._server:
            for uid, pod in self._attached.items():
                self._write_files(pod, self.address(uid) or "")

    async def _renew(self) -> None:
        """Build all rules from nothing; tried until the kernel takes them."""
        while True:
            await asyncio.sleep(_RETRY)
            try:
                await self._mode.reset()
                await self._mode.apply(self._fixed)
            except OSError as error:
                log.warning("the pods' rules cannot be made: %s", error.strerror or error)
                continue
            self._feed.want_all()
            return

    async def _mind(self, mode: NamespaceMode) -> None:
        """Somebody else may empty all tables of the machine (``nft flush ruleset``)."""
        while True:
            await asyncio.sleep(_LOOK)
            with contextlib.suppress(OSError):
                if not await mode.is_whole():
                    log.warning("the pods' rules are gone; they are made anew")
                    await self._renew()

    async def _publish(self, network: IPv4Network) -> None:
        """``spec.podCIDR`` of the node, which can be set once."""
        key = ObjectKey(self._nodes.cluster, "", self._node)
        while True:
            node = self._nodes.store.get(key)
            if node is not None:
                if (node.get("spec") or {}).get("podCIDR"):
                    return
                spec = {"podCIDR": str(network), "podCIDRs": [str(network)]}
                try:
                    await self._informers.client.patch(NODES, self._node, {"spec": spec})
                    return
                except (ApiError, ConnectionLost) as error:
                    log.warning("cannot set podCIDR of node %s: %s", self._node, error)
            await asyncio.sleep(_RETRY)

    # --- pods

    def restore(self, uid: str, record: Mapping[str, Any]) -> None:
        """What the pod was given by an earlier agent (``record``: what :meth:`record` said then)."""
        ended = any(
            p["metadata"]["uid"] == uid and has_ended(p) for p in self._pods.store.by_index(BY_NODE, self._node)
        )
        if not record.get("ip") or record.get("host") or ended:
            return
        if record["ip"].startswith("127.") == (self.mode == "loopback"):
            self._mode.addresses.restore(uid, record["ip"])
        else:
            self._kept[uid] = record["ip"]

    async def attach(self, pod: Object) -> PodNetwork:
        """The pod's place in the network; the same again when it has one. May be repeated after a crash.

        :raises SandboxError: the machine refuses.
        """
        uid = pod["metadata"]["uid"]
        if pod["spec"].get("hostNetwork"):
            address, namespace = self.host_ip, ""
        elif uid in self._kept:
            path = undo.namespace_path(self._directory, uid)
            address, namespace = self._kept[uid], str(path) if path.exists() else ""
        else:
            try:
                address = self._mode.addresses.allocate(uid)
                namespace = await self._mode.attach(pod, address)
            except NoAddressLeft as error:
                raise SandboxError(f"failed to set up the network of the pod: {error}") from error
            except OSError as error:
                why = error.strerror or str(error)
                raise SandboxError(f"failed to set up the network of the pod: {why}") from error
        self._attached[uid] = pod
        mounts = self._write_files(pod, address)
        self._feed.pod_changed(uid)
        return PodNetwork(address, namespace, mounts, {"POD_IP": address, "GLEBE_POD_IP": address})

    def _write_files(self, pod: Object, address: str) -> tuple[Any, ...]:
        names = [] if self._server else host_names(self._cluster, pod["metadata"]["namespace"])
        return self._files.write(pod, address, self._server, names)

    def record(self, uid: str) -> dict[str, Any]:
        """What :meth:`restore` needs (kept in the pod's directory)."""
        address = self._kept.get(uid) or self._mode.addresses.get(uid)
        return {"ip": address} if address else {"ip": self.host_ip, "host": True}

    async def detach(self, uid: str) -> None:
        """Undo everything that was done for the pod, also by an earlier agent; unknown uids are fine."""
        try:
            await self._mode.detach(uid)
        except OSError as error:
            log.warning("the network of pod %s cannot be removed: %s", uid, error.strerror or error)
        self._mode.addresses.release(uid)
        self._kept.pop(uid, None)
        self._attached.pop(uid, None)
        self._files.remove(uid)
        self._feed.pod_changed(uid)

    def place(self, uid: str) -> PodNetwork | None:
        """Where a pod of this node is, to connect to it; ``None``: nowhere (any more)."""
        address = self.address(uid)
        path = undo.namespace_path(self._directory, uid)
        return PodNetwork(address, str(path) if path.exists() else "") if address else None

    def address(self, uid: str) -> str | None:
        """The pod's address, if it is on this node and has one."""
        if uid in self._attached and self._attached[uid]["spec"].get("hostNetwork"):
            return self.host_ip
        return self._kept.get(uid) or self._mode.addresses.get(uid)

    def _forget_lost(self) -> None:
        """Remove what is there for pods that the node has no directory of any more (a crash between two steps)."""
        state = undo.read_state(self._directory)
        for uid in undo.known_pods(self._directory) if state is not None else ():
            if state is not None and not (self._directory.parent / "pods" / uid).exists():
                undo.undo_pod(self._directory, state, uid)

    def _services_on_loopback(self, address: str) -> Sequence[Object]:
        found = self._mode.service_at(address) if isinstance(self._mode, LoopbackMode) else None
        service = self._cluster.service(*found) if found is not None else None
        return [service] if service is not None else []
