"""Whether the node takes a pod that was bound to it: the kubelet's last look, in its reasons and words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from glebe.kube.nodes import required_terms, selected, tolerated
from glebe.kube.objects import Object
from glebe.kube.pods import requests_of
from glebe.kube.quantity import to_int
from glebe.node import sysctls
from glebe.node.contracts import AdmissionError


def admit(pod: Object, others: Iterable[Object], node: Object) -> None:
    """Take the pod beside ``others`` (those on the node that have not ended), or say why not.

    :raises AdmissionError: the pod must fail.
    """
    spec, others = pod["spec"], list(others)
    wanted_os = (spec.get("os") or {}).get("name")
    if wanted_os and wanted_os != "linux":
        raise AdmissionError("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS")
    if name := sysctls.forbidden(spec):
        raise AdmissionError("SysctlForbidden", f'forbidden sysctl: "{name}" not allowlisted')
    _room(spec, others, (node.get("status") or {}).get("allocatable") or {})
    if not matches_node(spec, node):
        raise _failed("NodeAffinity", "node(s) didn't match Pod's node affinity/selector")
    if any(_collide(_host_ports(spec), _host_ports(other["spec"])) for other in others):
        raise _failed("NodePorts", "node(s) didn't have free ports for the requested pod ports")
    taints = (node.get("spec") or {}).get("taints") or ()
    if any(t.get("effect") == "NoExecute" and not tolerated(t, spec.get("tolerations") or ()) for t in taints):
        raise _failed("TaintToleration", "node(s) had taints that the pod didn't tolerate")


def room_to_resize(pod: Object, others: Iterable[Object], node: Object) -> tuple[str, str] | None:
    """Whether the pod may have what it asks for now: ``None``, or Infeasible or Deferred, and why."""
    allocatable = (node.get("status") or {}).get("allocatable") or {}
    for resource, amount in requests_of(pod["spec"]).items():
        if resource in allocatable and amount > (capacity := to_int(allocatable[resource], resource)):
            text = f"Node didn't have enough capacity: {resource}, requested: {amount}, capacity: {capacity}"
            return "Infeasible", text
    try:
        _room(pod["spec"], list(others), allocatable)
    except AdmissionError as error:
        return "Deferred", str(error)
    return None


def _failed(predicate: str, text: str) -> AdmissionError:
    return AdmissionError(predicate, f"Predicate {predicate} failed: {text}")


def _room(spec: Mapping[str, Any], others: list[Object], allocatable: Mapping[str, Any]) -> None:
    limit = to_int(allocatable.get("pods", "110"), "pods")
    if len(others) + 1 > limit:
        raise _out_of("pods", 1, len(others), limit)
    wanted = requests_of(spec)
    if not wanted:
        return
    used: dict[str, int] = {}
    for other in others:
        for resource, amount in requests_of(other["spec"]).items():
            used[resource] = used.get(resource, 0) + amount
    for resource, amount in wanted.items():
        # What the node does not tell of may be the cluster's, or a claim's: nothing to refuse.
        if resource not in allocatable:
            continue
        capacity = to_int(allocatable[resource], resource)
        if used.get(resource, 0) + amount > capacity:
            raise _out_of(resource, amount, used.get(resource, 0), capacity)


def _out_of(resource: str, requested: int, used: int, capacity: int) -> AdmissionError:
    text = f"Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
    return AdmissionError(f"OutOf{resource}", text)


def matches_node(spec: Mapping[str, Any], node: Object) -> bool:
    """Whether nodeSelector and required node affinity allow the node."""
    return selected(node, spec.get("nodeSelector") or {}, required_terms(spec))


_ANY = "0.0.0.0"


def _collide(some: set[tuple[int, str, str]], others: set[tuple[int, str, str]]) -> bool:
    """Whether a port is wanted twice at the same address of the machine, or at all of them by one side."""
    return any(a[:2] == b[:2] and (a[2] == b[2] or _ANY in (a[2], b[2])) for a in some for b in others)


def _host_ports(spec: Mapping[str, Any]) -> set[tuple[int, str, str]]:
    sidecars = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    ports = (port for c in (*sidecars, *spec["containers"]) for port in c.get("ports") or ())
    return {
        (port["hostPort"], port.get("protocol") or "TCP", port.get("hostIP") or _ANY)
        for port in ports
        if port.get("hostPort")
    }
