"""Which balancers have to be there, kept current from the informers: one task, whatever the number of Services."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from glebe.kube.informer import Informer
from glebe.kube.objects import Object, condition_is_true
from glebe.kube.pods import BY_NODE
from glebe.node.network.cluster import Cluster, service_key, services_of
from glebe.node.network.services import Balancer, balancers, host_ports, is_local
from glebe.node.values.services import MASTER

_TOGETHER = 0.02  # seconds in which changes are collected

Apply = Callable[[Mapping[str, Sequence[Balancer]]], Awaitable[None]]


class ServiceFeed:
    """Tells a proxy what changed.

    Owners of balancers are Services (``NAMESPACE/NAME``) and pods with host ports (``pod:UID``).

    :param pods: an informer with the index by node; :param address: the address of a pod of this node, by uid.
    """

    def __init__(self, cluster: Cluster, pods: Informer, node: str, address: Callable[[str], str | None]) -> None:
        self._cluster = cluster
        self._pods = pods
        self._node = node
        self._address = address
        self._dirty: dict[str, None] = {}
        self._news = asyncio.Event()
        self._with_host_ports: set[str] = set()
        self.on_loopback = False
        """Whether pods are on the machine's loopback. Then endpoints may be there, too; and host ports are opened only
        for pods that are ready, because one that listens there itself comes first."""

    def want_all(self) -> None:
        """Tell everything again."""
        for service in self._cluster.services.store.values():
            self._touch(service_key(service))
        for uid in sorted(self._with_host_ports):
            self._touch(f"pod:{uid}")

    def pod_changed(self, uid: str) -> None:
        """The pod of this node got an address, or has none any more."""
        self._touch(f"pod:{uid}")

    async def run(self, apply: Apply) -> None:
        """Tell ``apply`` until cancelled."""
        sources = (
            (self._cluster.services, self._on_service),
            (self._cluster.all_slices, self._on_slice),
            (self._pods, self._on_pod),
        )
        for informer, handler in sources:
            informer.add_handler(handler)
        try:
            while True:
                await self._news.wait()
                await asyncio.sleep(_TOGETHER)
                self._news.clear()
                changed, self._dirty = list(self._dirty), {}
                await apply({owner: self._wanted(owner) for owner in changed})
        finally:
            for informer, handler in sources:
                informer.remove_handler(handler)

    def _on_service(self, old: Object | None, new: Object | None) -> None:
        self._touch(service_key(new or old or {}))

    def _on_slice(self, old: Object | None, new: Object | None) -> None:
        for each in (old, new):
            for key in services_of(each) if each is not None else ():
                self._touch(key)

    def _on_pod(self, _old: Object | None, new: Object | None) -> None:
        """The state of a pod with host ports changed."""
        if new is not None and new["metadata"]["uid"] in self._with_host_ports:
            self._touch(f"pod:{new['metadata']['uid']}")

    def _touch(self, owner: str) -> None:
        self._dirty[owner] = None
        self._news.set()

    def _wanted(self, owner: str) -> list[Balancer]:
        if owner.startswith("pod:"):
            return self._host_ports(owner.removeprefix("pod:"))
        namespace, _, name = owner.partition("/")
        service = self._cluster.service(namespace, name)
        if service is None:
            return []
        slices = self._cluster.slices(namespace, name)
        found = balancers(service, slices, self._node, self._cluster.unreal, self._cluster.addresses(service))
        if self.on_loopback or (namespace, name) == MASTER:  # the server itself says where it is
            return found
        return [replace(b, targets=tuple(t for t in b.targets if not is_local(t[0]))) for b in found]

    def _host_ports(self, uid: str) -> list[Balancer]:
        address = self._address(uid)
        for pod in self._pods.store.by_index(BY_NODE, self._node) if address else ():
            if pod["metadata"]["uid"] == uid and address:
                found = host_ports(pod, address)
                if not found:
                    break
                self._with_host_ports.add(uid)
                return found if not self.on_loopback or condition_is_true(pod, "Ready") else []
        if not address:
            self._with_host_ports.discard(uid)
        return []
