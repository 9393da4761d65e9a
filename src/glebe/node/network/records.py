"""What the cluster's names mean: the answers of its DNS, from Services and EndpointSlices. Pure.

Sources: the specification "Kubernetes DNS-Based Service Discovery" 1.1.0; RFC 2782 (SRV), RFC 2308 (negative answers).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address
from typing import Protocol

from glebe.kube.objects import Object
from glebe.node.network.services import is_headless, is_ready

DOMAIN = "cluster.local"
TTL = 5  # seconds: as long as an answer may be out of date
VERSION = "1.1.0"


class View(Protocol):
    """What the cluster is made of."""

    def service(self, namespace: str, name: str) -> Object | None: ...

    def slices(self, namespace: str, name: str) -> Sequence[Object]:
        """The EndpointSlices of one Service."""

    def addresses(self, service: Object) -> Sequence[str]:
        """Under which the Service is reached inside the cluster; none for a headless one."""

    def has_namespace(self, name: str) -> bool: ...

    def services_at(self, address: str) -> Sequence[Object]:
        """Services that are reached at ``address`` inside the cluster."""

    def slices_at(self, address: str) -> Sequence[Object]:
        """EndpointSlices that list ``address``."""


@dataclass(frozen=True, slots=True)
class Record:
    """One resource record; ``data`` is an address, a name, a text, or for SRV ``PRIORITY WEIGHT PORT NAME``."""

    name: str
    kind: str
    data: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known. ``exists``: whether the name is there at all, perhaps without records of the wanted kind.

    ``alias``: the records of that name belong to the answer, too.
    """

    exists: bool = True
    records: list[Record] = field(default_factory=list)
    extra: list[Record] = field(default_factory=list)
    alias: str = ""


_NOTHING = Answer(exists=False)


def concerns(name: str) -> bool:
    """Whether this zone alone answers for ``name`` (lower case, without the last dot)."""
    return name == DOMAIN or name.endswith(f".{DOMAIN}")


def answer(view: View, name: str, kind: str) -> Answer:
    """The answer for ``name`` (lower case, without the last dot) in the cluster's zone."""
    labels = name.removesuffix(DOMAIN).rstrip(".").split(".") if name != DOMAIN else []
    match labels:
        case [] | ["svc"] | ["pod"]:
            return Answer()
        case ["dns-version"]:
            return Answer(records=[Record(name, "TXT", VERSION)] if kind == "TXT" else [])
        case [namespace, "svc" | "pod"]:
            return Answer() if view.has_namespace(namespace) else _NOTHING
        case [dashed, namespace, "pod"]:
            return _pod(view, name, kind, dashed, namespace)
        case [*rest, service, namespace, "svc"]:
            found = view.service(namespace, service)
            return _service(view, name, kind, found, rest) if found is not None else _NOTHING
    return _NOTHING


def reverse(view: View, name: str) -> Answer | None:
    """The names of an address (``4.3.2.1.in-addr.arpa``); ``None``: nobody here has it."""
    if not name.endswith(".in-addr.arpa"):
        return None
    address = ".".join(reversed(name.removesuffix(".in-addr.arpa").split(".")))
    records = [Record(name, "PTR", _domain(service)) for service in view.services_at(address)]
    for each in view.slices_at(address) if not records else ():
        service = view.service(each["metadata"]["namespace"], _service_of(each))
        for endpoint in each.get("endpoints") or () if service is not None else ():
            if address in endpoint["addresses"] and is_ready(endpoint) and service is not None:
                record = Record(name, "PTR", f"{_host(endpoint, address)}.{_domain(service)}")
                records += [record] if record not in records else []
    return Answer(records=records) if records else None


def _pod(view: View, name: str, kind: str, dashed: str, namespace: str) -> Answer:
    """``1-2-3-4.NAMESPACE.pod``: the address that the name itself says."""
    try:
        address = IPv4Address(dashed.replace("-", "."))
    except AddressValueError:
        return _NOTHING
    if not view.has_namespace(namespace):
        return _NOTHING
    return Answer(records=[Record(name, "A", str(address))] if kind == "A" else [])


def _service(view: View, name: str, kind: str, service: Object, rest: Sequence[str]) -> Answer:
    spec = service.get("spec") or {}
    if spec.get("type") == "ExternalName":
        if rest:
            return _NOTHING
        target = str(spec.get("externalName") or "").rstrip(".").lower()
        return Answer(records=[Record(name, "CNAME", target)], alias=target if kind in ("A", "AAAA") else "")
    match rest:
        case []:
            return _whole(view, name, kind, service)
        case [port, protocol] if port.startswith("_") and protocol.startswith("_"):
            found = list(_ports(view, service, port[1:], protocol[1:]))
            return _srv(name, kind, found) if found else _NOTHING
        case [host] if is_headless(service):
            addresses = [a for h, a, _ in _endpoints(view, service) if h == host]
            return _hosts(name, kind, addresses) if addresses else _NOTHING
    return _NOTHING


def _whole(view: View, name: str, kind: str, service: Object) -> Answer:
    if kind == "SRV":
        return _srv(name, kind, list(_ports(view, service, "", "")))
    if not is_headless(service):
        return _hosts(name, kind, view.addresses(service))
    addresses = list(dict.fromkeys(address for _, address, _ in _endpoints(view, service)))
    return _hosts(name, kind, addresses) if addresses else _NOTHING


def _hosts(name: str, kind: str, addresses: Sequence[str]) -> Answer:
    return Answer(records=[Record(name, "A", address) for address in addresses] if kind == "A" else [])


def _srv(name: str, kind: str, found: Sequence[tuple[int, str, str]]) -> Answer:
    if kind != "SRV":
        return Answer()
    weight = max(1, 100 // max(1, len(found)))
    records = [Record(name, "SRV", f"0 {weight} {port} {host}") for port, host, _ in found]
    hosts = {(host, address): None for _, host, address in found}
    return Answer(records=records, extra=[Record(host, "A", address) for host, address in hosts])


def _ports(view: View, service: Object, wanted: str, protocol: str) -> Iterator[tuple[int, str, str]]:
    """Port, host name and address of everything behind a port's name (``""``: behind every one)."""

    def fits(port: Object) -> bool:
        named = (port.get("name") or "").lower(), port.get("protocol", "TCP").lower()
        return not wanted or named == (wanted, protocol)

    if not is_headless(service):
        for port in (service.get("spec") or {}).get("ports") or ():
            if fits(port):
                for address in view.addresses(service)[:1]:
                    yield port["port"], _domain(service), address
        return
    seen = set()
    for host, address, ports in _endpoints(view, service):
        for port in ports:
            if fits(port) and port.get("port") and (port["port"], host) not in seen:
                seen.add((port["port"], host))
                yield port["port"], f"{host}.{_domain(service)}", address


def _endpoints(view: View, service: Object) -> Iterator[tuple[str, str, list[Object]]]:
    """Host name, address and ports of each endpoint that is to be found."""
    meta = service["metadata"]
    for each in view.slices(meta["namespace"], meta["name"]):
        if each.get("addressType") != "IPv4":
            continue
        for endpoint in each.get("endpoints") or ():
            if is_ready(endpoint):
                for address in endpoint["addresses"]:
                    yield _host(endpoint, address), address, each.get("ports") or []


def _host(endpoint: Object, address: str) -> str:
    """The endpoint's own name, or its address with dashes."""
    return str(endpoint.get("hostname") or address.replace(".", "-")).lower()


def _domain(service: Object) -> str:
    meta = service["metadata"]
    return f"{meta['name']}.{meta['namespace']}.svc.{DOMAIN}"


def _service_of(each: Object) -> str:
    return str((each["metadata"].get("labels") or {}).get("kubernetes.io/service-name", ""))
