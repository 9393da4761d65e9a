"""What a pod gives to a Service: whether it stands behind it, its addresses, its ports, its state. Pure.

Sources: ``pkg/controller/util/endpoint``, ``staging/src/k8s.io/endpointslice/utils.go``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, TypeAlias

from glebe.kube.objects import Object, condition_is_true, get_condition, is_deleting, labels_of
from glebe.kube.pods import has_ended
from glebe.workloads.endpoints.kinds import is_headless

Ports: TypeAlias = tuple[tuple[str, int | None, str, str], ...]
"""Name, number, protocol and application protocol of each port, ordered: what endpoints are grouped by."""
FAMILIES = ("IPv4", "IPv6")


def selects(service: Object, pod: Object) -> bool:
    """Whether the Service's selector matches the pod's labels."""
    labels = labels_of(pod)
    return all(labels.get(key) == value for key, value in service["spec"]["selector"].items())


def is_backend(pod: Object, *, terminating: bool) -> bool:
    """Whether the pod has an address and its containers may run; ``terminating``: also while it is being deleted."""
    status = pod.get("status") or {}
    if has_ended(pod) or not (status.get("podIP") or status.get("podIPs")):
        return False
    return terminating or not is_deleting(pod)


def view(pod: Object) -> object:
    """All of a pod that endpoints depend on; a change of nothing else concerns no Service."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    ready = get_condition(pod, "Ready") or {}
    place = spec.get("nodeName"), spec.get("hostname"), spec.get("subdomain")
    addresses = status.get("podIP"), status.get("podIPs")
    state = has_ended(pod), is_deleting(pod), ready.get("status"), ready.get("lastTransitionTime")
    return pod["metadata"].get("uid"), labels_of(pod), place, addresses, state


def families(service: Object) -> list[str]:
    """The address families for which the Service has endpoints."""
    spec = service.get("spec") or {}
    named = [f for f in spec.get("ipFamilies") or () if f in FAMILIES]
    if named:
        return named
    if is_headless(service):
        return list(FAMILIES)
    return [family_of(spec["clusterIP"]) or "IPv4"]


@lru_cache(maxsize=4096)
def normal_address(text: str) -> str:
    """The address as it is usually written, ``""`` for what is none. Leading zeros are decimal, as they always were."""
    try:
        if ":" not in text:
            text = ".".join(str(int(part)) if part.isdecimal() else part for part in text.split("."))
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def family_of(address: str) -> str:
    """``IPv4``, ``IPv6``, or ``""``."""
    normal = normal_address(address)
    return "" if not normal else "IPv6" if ":" in normal else "IPv4"


def addresses_of(pod: Object, family: str) -> list[str]:
    """The pod's addresses of one family."""
    status = pod.get("status") or {}
    listed = [p.get("ip", "") for p in status.get("podIPs") or ()] or [status.get("podIP") or ""]
    return [normal_address(a) for a in listed if family_of(a) == family]


def find_port(pod: Object, port: Object) -> int | None:
    """The number of a Service's port in this pod: itself, or that of the container port with its name."""
    target = port.get("targetPort", port.get("port"))
    if isinstance(target, int):
        return target or port.get("port")
    spec = pod.get("spec") or {}
    sidecars = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    for container in (*(spec.get("containers") or ()), *sidecars):
        for own in container.get("ports") or ():
            if own.get("name") == target and own.get("protocol", "TCP") == port.get("protocol", "TCP"):
                return int(own["containerPort"])
    return None


def ports_of(service: Object, pod: Object) -> list[Object]:
    """The ports (as an EndpointSlice has them) under which this pod serves the Service."""
    out: list[Object] = []
    for port in service["spec"].get("ports") or ():
        number = find_port(pod, port)
        if number is None:
            continue
        made: Object = {"name": port.get("name", ""), "protocol": port.get("protocol", "TCP"), "port": number}
        if port.get("appProtocol") is not None:
            made["appProtocol"] = port["appProtocol"]
        out.append(made)
    return out


def ports_key(ports: Iterable[Object] | None) -> Ports:
    """Equal for equal sets of ports, in whatever order."""
    keys = (
        (p.get("name") or "", p.get("port"), p.get("protocol") or "TCP", p.get("appProtocol") or "")
        for p in ports or ()
    )
    return tuple(sorted(keys, key=lambda k: (k[0], k[1] or 0, k[2], k[3])))


def hostname_of(service: Object, pod: Object) -> str:
    """The name under which DNS knows the pod below the Service, if any."""
    spec = pod.get("spec") or {}
    if spec.get("hostname") and spec.get("subdomain") == service["metadata"]["name"]:
        return str(spec["hostname"])
    return ""


def reference(pod: Object) -> dict[str, Any]:
    meta = pod["metadata"]
    return {"kind": "Pod", "namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]}


def endpoint_of(service: Object, pod: Object, family: str, zone: str) -> Object:
    """The pod as an endpoint of a slice. ``zone`` is its node's, or ``""``."""
    spec = service["spec"]
    serving, leaving = condition_is_true(pod, "Ready"), is_deleting(pod)
    ready = bool(spec.get("publishNotReadyAddresses")) or (serving and not leaving)
    endpoint: Object = {
        "addresses": addresses_of(pod, family),
        "conditions": {"ready": ready, "serving": serving, "terminating": leaving},
        "targetRef": reference(pod),
    }
    if hostname := hostname_of(service, pod):
        endpoint["hostname"] = hostname
    node = (pod.get("spec") or {}).get("nodeName")
    if node:
        endpoint["nodeName"] = node
    if zone:
        endpoint["zone"] = zone
    if ready and (hints := _hints(spec.get("trafficDistribution"), zone, node or "")):
        endpoint["hints"] = hints
    return endpoint


def _hints(distribution: str | None, zone: str, node: str) -> Object:
    """``spec.trafficDistribution`` as hints to proxies (KEP-4444, KEP-3015)."""
    if distribution not in ("PreferClose", "PreferSameZone", "PreferSameNode"):
        return {}
    hints: Object = {}
    if zone:
        hints["forZones"] = [{"name": zone}]
    if node and distribution == "PreferSameNode":
        hints["forNodes"] = [{"name": node}]
    return hints
