"""What a node's taints mean for pods, and to which nodes terms confine themselves. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from glebe.kube.nodes import Term, tolerated
from glebe.kube.objects import Object

CORDON: Final = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}


def taints_of(node: Object) -> list[Mapping[str, Any]]:
    """The node's taints; one that is not Ready counts as tainted before anybody has written the taint."""
    taints = list((node.get("spec") or {}).get("taints") or ())
    ready = any(
        c.get("type") == "Ready" and c.get("status") == "True"
        for c in (node.get("status") or {}).get("conditions") or ()
    )
    marks = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
    if not ready and not any(t.get("key") in marks for t in taints):
        taints.append({"key": marks[0], "effect": "NoSchedule"})
    return taints


def schedulable(taints: Sequence[Mapping[str, Any]], tolerations: Sequence[Mapping[str, Any]]) -> bool:
    """Whether no taint keeps such a pod away."""
    hard = (t for t in taints if t.get("effect") in ("NoSchedule", "NoExecute"))
    return all(tolerated(t, tolerations) for t in hard)


def named_nodes(terms: Sequence[Term] | None) -> frozenset[str] | None:
    """The nodes to which every term confines itself by name; ``None`` when some term does not."""
    if not terms:
        return None
    names: set[str] = set()
    for term in terms:
        fields = [e for e in term.get("matchFields") or () if e.get("operator") == "In"]
        if not fields:
            return None
        names |= set.intersection(*(set(e.get("values") or ()) for e in fields))
    return frozenset(names)
