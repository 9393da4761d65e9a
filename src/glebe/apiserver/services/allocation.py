"""Gives services their cluster IPs and node ports, right before they are written.

Upstream's rules (``pkg/registry/core/service/storage/alloc.go``): IP families and their policy are completed, addresses
that are asked for are taken, others chosen; what a failed write took is given back, what an update or a deletion frees
becomes free when that is stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from glebe.apiserver.request.call import Call
from glebe.apiserver.services.pools import SERVICES, Full, Pools, Refused, addresses_of, ports_of
from glebe.apiserver.store import Event
from glebe.kube import errors
from glebe.kube import names as n
from glebe.kube.errors import Cause
from glebe.kube.objects import Object

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer

Spec = dict[str, Any]


class ServiceAddresses:
    """Call it with a service that is about to be written (see ``ApiServer.allocators``)."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._pools: dict[str, Pools] = {}
        self._returning: set[asyncio.Task[None]] = set()
        self._following = False

    def _pool(self, cluster: str) -> Pools:
        pool = self._pools.get(cluster)
        if pool is None:
            if not self._following:
                self._following = True
                self._server.store.follow(SERVICES, self._changed)
                self._server.clusters.on_delete(self._forget)
            pool = self._pools[cluster] = Pools(self._server, cluster)
            self.later(pool.repair())
        return pool

    def _forget(self, cluster: str) -> None:
        self._pools.pop(cluster, None)

    def _changed(self, event: Event) -> None:
        pool = self._pools.get(event.cluster)
        if pool is None:
            return
        if not event.name:
            self._forget(event.cluster)  # the whole cluster went
            return
        pool.note(event)
        if event.previous is not None:
            kept = () if event.deleted else addresses_of(event.entry.view())
            for address in addresses_of(event.previous.view()):
                if address not in kept:
                    self.later(pool.give_back_address(address, event.namespace, event.name))

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it when there is time; nobody waits."""
        task = asyncio.ensure_future(work)
        self._returning.add(task)
        task.add_done_callback(self._returning.discard)

    async def __call__(self, call: Call, service: Object, old: Object | None) -> None:
        """Complete ``service``.

        :raises ApiError: 422 when what it asks for cannot be had, 500 when nothing is free.
        """
        spec = service["spec"]
        before = (old or {}).get("spec") or {}
        name = service["metadata"].get("name", "")
        if causes := init_families(spec, before):
            raise call.invalid(name, causes)
        taking = _Taking(self, self._pool(call.cluster), call, service)
        try:
            await taking.addresses(spec, before)
            await taking.node_ports(spec, before)
        except BaseException:
            taking.settle(False)
            raise
        if call.dry_run or call.admission is None:
            taking.settle(False)
        else:
            call.admission.afterwards.append(taking.settle)


class _Taking:
    """What one write takes."""

    def __init__(self, owner: ServiceAddresses, pool: Pools, call: Call, service: Object) -> None:
        self._owner, self._pool, self._call = owner, pool, call
        meta = service["metadata"]
        self._where = (meta.get("namespace", ""), meta.get("name", ""))
        self._addresses: list[str] = []
        self._ports: list[int] = []

    def settle(self, stored: bool) -> None:
        """The write is over."""
        self._pool.settle_ports(self._ports)
        if self._ports:
            self._owner.later(self._pool.release_ports(self._ports))
        for address in () if stored else self._addresses:
            self._owner.later(self._pool.give_back_address(address, *self._where))
        self._addresses, self._ports = [], []

    async def addresses(self, spec: Spec, before: Spec) -> None:
        if spec.get("type") == "ExternalName" or spec.get("clusterIP") == "None":
            return
        held = addresses_of({"spec": before})
        wanted = list(spec.get("clusterIPs") or ())
        families = spec.get("ipFamilies") or ()
        wanted += [""] * (len(families) - len(wanted))
        for at, family in enumerate(families):
            if wanted[at] not in held:
                wanted[at] = await self._address(wanted[at], family, spec)
        if wanted:
            spec["clusterIP"], spec["clusterIPs"] = wanted[0], wanted

    async def _address(self, address: str, family: str, spec: Spec) -> str:
        dry, version = self._call.dry_run, 6 if family == "IPv6" else 4
        try:
            if dry:
                return address or self._pool.peek_address(version)
            if address:
                await self._pool.take_address(address, *self._where)
            else:
                address = await self._pool.next_address(version, *self._where)
        except Refused as error:
            why = f"failed to allocate IP {address}: {error}"
            raise self._invalid("spec.clusterIPs", spec.get("clusterIPs") or [address], why) from None
        except Full as error:
            text = f'failed to allocate a serviceIP for Service "{self._where[1]}": {error}'
            raise errors.internal(text) from None
        self._addresses.append(address)
        return address

    async def node_ports(self, spec: Spec, before: Spec) -> None:
        held = set(ports_of({"spec": before}))
        if wants_node_ports(spec):
            chosen: dict[int, int] = {}
            ports = spec.get("ports") or []
            for at, port in enumerate(ports):
                asked = port.get("nodePort") or (0 if before else _asked_by_another(port, ports))
                if asked:
                    if asked not in held and asked not in chosen.values():
                        await self._port(asked, f"spec.ports[{at}].nodePort")
                    port["nodePort"] = asked
                elif not _allocates(spec):
                    continue
                else:
                    again = 0 if before else chosen.get(port.get("port", 0), 0)
                    port["nodePort"] = again or await self._next_port()
                chosen[port.get("port", 0)] = port["nodePort"]
        if needs_health_check(spec):
            asked = spec.get("healthCheckNodePort")
            if not asked:
                spec["healthCheckNodePort"] = await self._next_port()
            elif asked not in held:
                await self._port(asked, "spec.healthCheckNodePort")

    async def _port(self, port: int, path: str) -> None:
        try:
            await self._pool.take_port(port)
        except Refused as error:
            raise self._invalid(path, port, str(error)) from None
        self._ports.append(port)

    async def _next_port(self) -> int:
        try:
            port = await self._pool.next_port()
        except Full as error:
            raise errors.internal(f"failed to allocate a nodePort: {error}") from None
        self._ports.append(port)
        return port

    def _invalid(self, path: str, value: Any, why: str) -> errors.ApiError:
        return self._call.invalid(self._where[1], [n.invalid(path, value, why)])


# ------------------------------------------------------------------------------------------------ rules without state


def wants_node_ports(spec: Spec) -> bool:
    return spec.get("type") in ("NodePort", "LoadBalancer")


def _allocates(spec: Spec) -> bool:
    return spec.get("type") == "NodePort" or spec.get("allocateLoadBalancerNodePorts", True)


def needs_health_check(spec: Spec) -> bool:
    """A load balancer that keeps traffic on its nodes asks each node whether it has an endpoint."""
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def _asked_by_another(port: Spec, ports: list[Spec]) -> int:
    """The node port that another protocol of the same port asks for."""
    return next((int(p["nodePort"]) for p in ports if p.get("port") == port.get("port") and p.get("nodePort")), 0)


def init_families(spec: Spec, before: Spec) -> list[Cause]:
    """Complete ``ipFamilyPolicy`` and ``ipFamilies``; this cluster has one family, that of its service range."""
    if spec.get("type") == "ExternalName":
        return []
    headless = spec.get("clusterIP") == "None"
    selectorless = headless and not spec.get("selector")
    if not spec.get("ipFamilyPolicy"):
        default = "RequireDualStack" if selectorless else "SingleStack"
        spec["ipFamilyPolicy"] = before.get("ipFamilyPolicy") or default
    policy = spec["ipFamilyPolicy"]
    families = list(spec.get("ipFamilies") or ())
    causes: list[Cause] = []
    causes += _too_many(spec, families) if policy == "SingleStack" else []
    for at, address in enumerate(spec.get("clusterIPs") or ()):
        if address == "None" or not address:
            break
        if at >= len(families):
            families.append(f"IPv{ip_address(address).version}")
    if not families:
        families = list(before.get("ipFamilies") or ()) or ["IPv4"]
    if selectorless:
        if len(families) < 2 and policy != "SingleStack":
            families.append("IPv6" if families[0] == "IPv4" else "IPv4")
    else:
        if policy == "RequireDualStack":
            why = "this cluster is not configured for dual-stack services"
            causes.append(n.invalid("spec.ipFamilyPolicy", policy, why))
        causes += [
            n.invalid(f"spec.ipFamilies[{at}]", family, "not configured on this cluster")
            for at, family in enumerate(families)
            if family != "IPv4"
        ]
    spec["ipFamilies"] = families
    return causes


def _too_many(spec: Spec, families: list[str]) -> list[Cause]:
    return [
        n.invalid(
            "spec.ipFamilyPolicy",
            "SingleStack",
            f"must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified",
        )
        for what, values in (("cluster IPs", spec.get("clusterIPs") or ()), ("IP families", families))
        if len(values) > 1
    ]
