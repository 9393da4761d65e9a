"""Whether a node's fixed properties suit: taints, selectors, node affinity. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from glebe.kube.objects import Object

Term = Mapping[str, Any]
"""A core/v1 ``NodeSelectorTerm``."""
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


def tolerated(taint: Mapping[str, Any], tolerations: Sequence[Mapping[str, Any]]) -> bool:
    return any(tolerates(t, taint) for t in tolerations)


def tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    """``v1.Toleration.ToleratesTaint``."""
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint.get("key"):
        return False
    if toleration.get("operator") == "Exists":
        return True
    return bool(toleration.get("key")) and (toleration.get("value") or "") == (taint.get("value") or "")


def schedulable(taints: Sequence[Mapping[str, Any]], tolerations: Sequence[Mapping[str, Any]]) -> bool:
    """Whether no taint keeps such a pod away."""
    hard = (t for t in taints if t.get("effect") in ("NoSchedule", "NoExecute"))
    return all(tolerated(t, tolerations) for t in hard)


def selected(node: Object, selector: Mapping[str, str], terms: Sequence[Term] | None) -> bool:
    """``spec.nodeSelector`` and required node affinity (``None``: no condition; empty: nothing suits)."""
    labels = node["metadata"].get("labels") or {}
    if any(labels.get(k) != v for k, v in selector.items()):
        return False
    return terms is None or any(term_matches(t, node) for t in terms)


def term_matches(term: Term, node: Object) -> bool:
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False  # an empty term selects nothing
    labels = node["metadata"].get("labels") or {}
    own = {"metadata.name": node["metadata"]["name"]}
    return all(_holds(e, labels) for e in expressions) and all(_holds(e, own) for e in fields)


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


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value = labels.get(expression.get("key", ""))
    values: Sequence[str] = expression.get("values") or ()
    match expression.get("operator"):
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" as operator:
            try:
                difference = int(value or "") - int(values[0])
            except (ValueError, IndexError):
                return False
            return difference > 0 if operator == "Gt" else difference < 0
    return False
