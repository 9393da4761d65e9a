"""core/v1 Service."""

from __future__ import annotations

from typing import Any

from glebe.apiserver.strategy.base import Strategy
from glebe.kube.objects import Object

Spec = dict[str, Any]


class ServiceStrategy(Strategy):
    """Addresses that an update leaves out stay; what the new type has no use for goes, unless it was changed."""

    def prepare_create(self, obj: Object, now: str) -> None:
        obj["status"] = {"loadBalancer": {}}
        _normalize(obj.setdefault("spec", {}), {})

    def prepare_update(self, obj: Object, old: Object, now: str) -> None:
        super().prepare_update(obj, old, now)
        spec, before = obj.setdefault("spec", {}), old.get("spec") or {}
        spec.setdefault("type", "ClusterIP")
        _drop_useless(spec, before)
        _keep_allocated(spec, before)
        _normalize(spec, before)
        if spec["type"] != "LoadBalancer":
            obj["status"] = {**(old.get("status") or {}), "loadBalancer": {}}


def _has_address(spec: Spec) -> bool:
    return spec.get("type") != "ExternalName"


def _has_ports(spec: Spec) -> bool:
    return spec.get("type") in ("NodePort", "LoadBalancer")


def _has_health_port(spec: Spec) -> bool:
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def _is_balanced(spec: Spec) -> bool:
    return spec.get("type") == "LoadBalancer"


def _is_external(spec: Spec) -> bool:
    return _has_ports(spec) or (spec.get("type") == "ClusterIP" and bool(spec.get("externalIPs")))


#: (what has use for them, the fields), each dropped when the update did not change it
_USES = (
    (_has_address, ("ipFamilies",)),
    (_has_address, ("ipFamilyPolicy",)),
    (_has_health_port, ("healthCheckNodePort",)),
    (_is_balanced, ("allocateLoadBalancerNodePorts",)),
    (_is_balanced, ("loadBalancerClass",)),
    (_is_external, ("externalTrafficPolicy",)),
    (_has_address, ("clusterIP", "clusterIPs")),
)


def _drop_useless(spec: Spec, before: Spec) -> None:
    for has_use, fields in _USES:
        if has_use(before) and not has_use(spec) and all(spec.get(f) == before.get(f) for f in fields):
            for field in fields:
                spec.pop(field, None)
    if _has_ports(before) and not _has_ports(spec) and _node_ports(spec) <= _node_ports(before):
        for port in spec.get("ports") or ():
            port.pop("nodePort", None)


def _node_ports(spec: Spec) -> set[int]:
    return {p["nodePort"] for p in spec.get("ports") or () if p.get("nodePort")}


def _keep_allocated(spec: Spec, before: Spec) -> None:
    """What was allocated and is left out stays as it was."""
    if _has_address(before) and _has_address(spec):
        if not spec.get("clusterIP") and before.get("clusterIP"):
            spec["clusterIP"] = before["clusterIP"]
        same = spec.get("clusterIP") == before.get("clusterIP")
        if not spec.get("clusterIPs") and same and before.get("clusterIPs"):
            spec["clusterIPs"] = before["clusterIPs"]
    if _has_ports(before) and _has_ports(spec):
        known = {p.get("name", ""): p.get("nodePort") for p in before.get("ports") or ()}
        for port in spec.get("ports") or ():
            if not port.get("nodePort") and known.get(port.get("name", "")):
                port["nodePort"] = known[port.get("name", "")]
    if _has_health_port(before) and _has_health_port(spec) and not spec.get("healthCheckNodePort"):
        spec["healthCheckNodePort"] = before.get("healthCheckNodePort")


def _normalize(spec: Spec, before: Spec) -> None:
    """``clusterIP`` and ``clusterIPs`` say the same; clients that know only the first change only that."""
    address, addresses = spec.get("clusterIP"), spec.get("clusterIPs")
    if not before:
        if address and not addresses:
            spec["clusterIPs"] = [address]
        return
    if address != before.get("clusterIP"):
        if not address and addresses == before.get("clusterIPs"):
            spec.pop("clusterIPs", None)
        elif address and (not addresses or addresses == before.get("clusterIPs")):
            spec["clusterIPs"] = [address]
