"""On which nodes the pods of a DaemonSet belong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from glebe.kube.nodes import NAME_FIELD, required_terms, selected, tolerated
from glebe.kube.objects import Object

_ALWAYS = (
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
)
_HOST_NETWORK = ("node.kubernetes.io/network-unavailable", "NoSchedule")


def tolerations_of(spec: Mapping[str, Any]) -> list[Object]:
    """The tolerations of a daemon pod: its template's, and those that let it stay on a node in trouble."""
    added = [*_ALWAYS, *((_HOST_NETWORK,) if spec.get("hostNetwork") else ())]
    extra = [{"key": key, "operator": "Exists", "effect": effect} for key, effect in added]
    places = {(t["key"], t["effect"]) for t in extra}
    own = [
        t
        for t in spec.get("tolerations") or ()
        if (t.get("key"), t.get("effect")) not in places or t.get("operator") != "Exists" or t.get("value")
    ]
    return [*own, *extra]


class Placing:
    """What one pod template says about nodes."""

    def __init__(self, template: Mapping[str, Any]) -> None:
        spec = template.get("spec") or {}
        self._node = str(spec.get("nodeName") or "")
        self._selector = dict(spec.get("nodeSelector") or {})
        self._terms = required_terms(spec)
        self._tolerations = tolerations_of(spec)

    def judge(self, node: Object) -> tuple[bool, bool]:
        """Whether a pod should start on the node, and whether one that is there should stay."""
        if self._node and self._node != node["metadata"]["name"]:
            return False, False
        if not selected(node, self._selector, self._terms):
            return False, False
        taints = (node.get("spec") or {}).get("taints") or ()
        effects = {t.get("effect") for t in taints if not tolerated(t, self._tolerations)}
        return not effects & {"NoSchedule", "NoExecute"}, "NoExecute" not in effects


def pinned(affinity: Mapping[str, Any] | None, node: str) -> Object:
    """``affinity`` with its required node affinity replaced by the node's name."""
    term = {"matchFields": [{"key": NAME_FIELD, "operator": "In", "values": [node]}]}
    required = {"nodeSelectorTerms": [term]}
    old = dict(affinity or {})
    return {
        **old,
        "nodeAffinity": {
            **(old.get("nodeAffinity") or {}),
            "requiredDuringSchedulingIgnoredDuringExecution": required,
        },
    }


def target_of(pod: Object) -> str:
    """The node that a daemon pod runs on, or was made for; empty when it does not say."""
    spec = pod.get("spec") or {}
    if spec.get("nodeName"):
        return str(spec["nodeName"])
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or ()
    for field in _fields(terms):
        if field.get("key") == NAME_FIELD and field.get("operator") == "In":
            values = list(field.get("values") or ())
            return str(values[0]) if len(values) == 1 else ""
    return ""


def _fields(terms: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    for term in terms:
        yield from term.get("matchFields") or ()
