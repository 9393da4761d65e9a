"""The older form: one Endpoints object per Service, addresses grouped by the ports that they share. Pure.

Sources: ``pkg/controller/endpoint``, ``pkg/api/v1/endpoints/util.go``.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Iterable
from typing import Any, Final

from glebe.kube.objects import Object, condition_is_true
from glebe.workloads.endpoints.backends import (
    addresses_of,
    families,
    family_of,
    hostname_of,
    is_backend,
    normal_address,
    ports_of,
    reference,
)
from glebe.workloads.endpoints.kinds import is_headless

MOST: Final = 1000
"""Addresses in one Endpoints object."""


def subsets_of(service: Object, pods: Iterable[Object]) -> list[Object]:
    """The subsets of the Service's Endpoints, before the limit is applied."""
    spec = service["spec"]
    everything = bool(spec.get("publishNotReadyAddresses"))
    found: list[Object] = []
    for pod in pods:
        if not is_backend(pod, terminating=everything):
            continue
        address = _address(service, pod)
        if address is None:
            continue
        field = "addresses" if everything or condition_is_true(pod, "Ready") else "notReadyAddresses"
        ports: list[list[Object]] = [[port] for port in ports_of(service, pod)]
        if not spec.get("ports") and is_headless(service):
            ports = [[]]
        found += [{field: [address], "ports": port} for port in ports]
    return repack(found)


def _address(service: Object, pod: Object) -> Object | None:
    named = (service.get("spec") or {}).get("ipFamilies")
    wanted = families(service)[0] if named else family_of((pod.get("status") or {}).get("podIP") or "")
    if not named and not is_headless(service):
        wanted = families(service)[0]
    mine = addresses_of(pod, wanted)
    if not mine:
        return None
    address: Object = {"ip": mine[0], "targetRef": reference(pod)}
    if node := (pod.get("spec") or {}).get("nodeName"):
        address["nodeName"] = node
    if hostname := hostname_of(service, pod):
        address["hostname"] = hostname
    return address


def repack(subsets: Iterable[Object]) -> list[Object]:
    """The canonical form: each port once, ports with the same addresses together, everything in order.

    An address that is both ready and not ready under one port is not ready.
    """
    ports: dict[tuple[Any, ...], Object] = {}
    states: dict[tuple[Any, ...], dict[tuple[str, str], bool]] = {}
    addresses: dict[tuple[str, str], Object] = {}
    for subset in subsets:
        for port in subset.get("ports") or [None]:
            key = _port_key(port)
            if port is not None:
                ports.setdefault(key, port)
            for field, ready in (("addresses", True), ("notReadyAddresses", False)):
                for address in subset.get(field) or ():
                    who = address["ip"], str((address.get("targetRef") or {}).get("uid", ""))
                    addresses.setdefault(who, address)
                    seen = states.setdefault(key, {})
                    seen[who] = ready and seen.get(who, True)
    together: dict[tuple[bool, frozenset[tuple[tuple[str, str], bool]]], list[tuple[Any, ...]]] = {}
    for key, seen in states.items():
        together.setdefault((key in ports, frozenset(seen.items())), []).append(key)
    packed = [(sorted(keys), _sorted(who)) for (_, who), keys in together.items()]
    out: list[Object] = []
    for keys, whose in sorted(packed, key=lambda item: item[0]):
        made: Object = {}
        for field, ready in (("addresses", True), ("notReadyAddresses", False)):
            if listed := [addresses[who] for who, state in whose if state is ready]:
                made[field] = listed
        if listed_ports := [ports[key] for key in keys if key in ports]:
            made["ports"] = listed_ports
        out.append(made)
    return out


def _sorted(who: Iterable[tuple[tuple[str, str], bool]]) -> list[tuple[tuple[str, str], bool]]:
    return sorted(who, key=lambda item: (_bytes(item[0][0]), item[0]))


def _bytes(ip: str) -> bytes:
    normal = normal_address(ip)
    return ipaddress.ip_address(normal).packed if normal else b""


def _port_key(port: Object | None) -> tuple[Any, ...]:
    if port is None:
        return ("", 0, "", "")
    return port.get("name") or "", port.get("port") or 0, port.get("protocol") or "TCP", port.get("appProtocol") or ""


def size(subsets: Iterable[Object]) -> int:
    """Addresses in all, ready or not."""
    return sum(len(s.get("addresses") or ()) + len(s.get("notReadyAddresses") or ()) for s in subsets)


def truncated(subsets: list[Object]) -> list[Object]:
    """At most :data:`MOST` addresses, ready ones first, each subset losing its share."""
    if size(subsets) <= MOST:
        return subsets
    ready = sum(len(s.get("addresses") or ()) for s in subsets)
    field, rest = ("addresses", MOST) if ready > MOST else ("notReadyAddresses", MOST - ready)
    total, most = sum(len(s.get(field) or ()) for s in subsets), rest
    out: list[Object] = []
    for subset in subsets:
        share = min(rest, math.ceil(len(subset.get(field) or ()) * most / total))
        kept = (subset.get(field) or [])[:share]
        rest -= len(kept)
        new = {**subset, field: kept}
        if field == "addresses":
            new["notReadyAddresses"] = []
        out.append({key: value for key, value in new.items() if value})
    return [s for s in out if size([s])]
