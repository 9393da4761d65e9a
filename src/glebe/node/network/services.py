"""Where clients of a Service go, and who answers them there. Pure.

Sources: ``pkg/proxy/topology.go`` (which endpoints are used), ``pkg/proxy/servicechangetracker.go`` (which ports are
opened), KEP-1669 (terminating endpoints), KEP-2086 (internal traffic policy).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TypeAlias

from glebe.kube.objects import Object
from glebe.kube.pods import has_ended

Target: TypeAlias = tuple[str, int]
"""Address and port of one backend."""

#: An endpoint of which nobody can be reached: those of simulated nodes.
Unreal: TypeAlias = Callable[[str], bool]

_AFFINITY_SECONDS = 10800
PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}


@dataclass(frozen=True, slots=True, order=True)
class Front:
    """Where clients knock: an address, or ``""`` for every address of the machine, with protocol and port."""

    address: str
    protocol: str
    port: int


@dataclass(frozen=True, slots=True)
class Balancer:
    """What comes in at ``front`` goes to one of ``targets``, by chance.

    ``affinity``: for so many seconds a client stays with its target; 0: it does not.
    """

    front: Front
    targets: tuple[Target, ...]
    affinity: int = 0


def is_headless(service: Object) -> bool:
    """Whether the Service has no address of its own (also those of type ExternalName)."""
    return (service.get("spec") or {}).get("clusterIP") in (None, "", "None")


def is_ipv4(text: str) -> bool:
    try:
        return ip_address(text).version == 4
    except ValueError:
        return False


def is_local(text: str) -> bool:
    """Whether an address means the machine itself, or its neighbours on the wire: nothing to send pods to.

    Who may write EndpointSlices could else reach what listens on the machine's loopback, or a cloud's metadata.
    """
    address = ip_address(text)
    return address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast


def cluster_ips(service: Object) -> list[str]:
    """The Service's own addresses, those of IPv4."""
    spec = service.get("spec") or {}
    if is_headless(service) or spec.get("type") == "ExternalName":
        return []
    return [a for a in spec.get("clusterIPs") or [spec["clusterIP"]] if is_ipv4(a)]


def balancers(
    service: Object, slices: Sequence[Object], node: str, unreal: Unreal, addresses: Sequence[str] | None = None
) -> list[Balancer]:
    """Everything that is to be opened for one Service, as seen from ``node``.

    :param addresses: under which it is reached inside the cluster; its cluster IPs unless given.
    """
    spec = service.get("spec") or {}
    if is_headless(service) or spec.get("type") == "ExternalName":
        return []
    inside = cluster_ips(service) if addresses is None else list(addresses)
    affinity = _affinity(spec)
    out: list[Balancer] = []
    for port in spec.get("ports") or ():
        protocol, number = port.get("protocol", "TCP"), port["port"]
        every = list(_endpoints(slices, port.get("name") or "", protocol, unreal))
        local = [e for e in every if e[1].get("nodeName") == node]
        within = _usable(local if spec.get("internalTrafficPolicy") == "Local" else every)
        out += [Balancer(Front(address, protocol, number), within, affinity) for address in inside]
        outside = _usable(local if spec.get("externalTrafficPolicy") == "Local" else every)
        doors = [Front(address, protocol, number) for address in _external(service)]
        if port.get("nodePort"):
            doors.append(Front("", protocol, port["nodePort"]))
        out += [Balancer(front, outside, affinity) for front in doors]
    return out


def _external(service: Object) -> list[str]:
    """Addresses outside the cluster's own ranges at which the Service answers."""
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    found = list((service.get("spec") or {}).get("externalIPs") or ())
    found += [i["ip"] for i in ingress if i.get("ip") and i.get("ipMode", "VIP") == "VIP"]
    return sorted({a for a in found if is_ipv4(a)})


def _affinity(spec: Object) -> int:
    if spec.get("sessionAffinity") != "ClientIP":
        return 0
    config = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
    return int(config.get("timeoutSeconds") or _AFFINITY_SECONDS)


def _endpoints(slices: Iterable[Object], name: str, protocol: str, unreal: Unreal) -> Iterator[tuple[Target, Object]]:
    """The endpoints that have the port, with it."""
    for each in slices:
        if each.get("addressType") != "IPv4":
            continue
        for port in each.get("ports") or ():
            if (port.get("name") or "", port.get("protocol", "TCP")) != (name, protocol) or not port.get("port"):
                continue
            for endpoint in each.get("endpoints") or ():
                if endpoint.get("addresses") and not unreal(endpoint.get("nodeName") or ""):
                    yield (endpoint["addresses"][0], port["port"]), endpoint


def _usable(found: Sequence[tuple[Target, Object]]) -> tuple[Target, ...]:
    """Those that are ready; if there is none, those that still serve while they end."""
    ready = {target for target, endpoint in found if is_ready(endpoint)}
    return tuple(sorted(ready or {target for target, endpoint in found if _still_serves(endpoint)}))


def is_ready(endpoint: Object) -> bool:
    """An endpoint that does not say is ready."""
    return (endpoint.get("conditions") or {}).get("ready") is not False


def _still_serves(endpoint: Object) -> bool:
    conditions = endpoint.get("conditions") or {}
    return bool(conditions.get("terminating")) and bool(conditions.get("serving"))


def host_ports(pod: Object, address: str) -> list[Balancer]:
    """The ports of the machine that lead to the pod at ``address``; none for a pod that has the machine's network."""
    spec = pod["spec"]
    if spec.get("hostNetwork") or has_ended(pod):
        return []
    out = []
    sidecars = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    for container in (*spec["containers"], *sidecars):
        for port in container.get("ports") or ():
            if port.get("hostPort"):
                host = port.get("hostIP") or ""
                front = Front("" if host in ("0.0.0.0", "::") else host, port.get("protocol", "TCP"), port["hostPort"])
                out.append(Balancer(front, ((address, port["containerPort"]),)))
    return out
