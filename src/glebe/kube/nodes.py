"""Which nodes a pod's spec allows: tolerations, node selector and required node affinity. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from glebe.kube.objects import Object, labels_of

Term = Mapping[str, Any]
"""A core/v1 ``NodeSelectorTerm``."""
NAME_FIELD = "metadata.name"


def tolerated(taint: Mapping[str, Any], tolerations: Iterable[Mapping[str, Any]]) -> bool:
    """Whether one of the tolerations is about the taint."""
    return any(tolerates(t, taint) for t in tolerations)


def tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    """``v1.Toleration.ToleratesTaint``; a claim's tolerations of devices mean the same."""
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint.get("key"):
        return False
    if toleration.get("operator") == "Exists":
        return True
    equal = toleration.get("operator") in (None, "", "Equal")
    return equal and (toleration.get("value") or "") == (taint.get("value") or "")


def required_terms(spec: Mapping[str, Any]) -> list[Term] | None:
    """The terms of a pod spec's required node affinity (``None``: it has none; empty: nothing suits)."""
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return None if required is None else list(required.get("nodeSelectorTerms") or ())


def selected(node: Object, selector: Mapping[str, str], terms: Sequence[Term] | None) -> bool:
    """``spec.nodeSelector`` and the terms of :func:`required_terms`."""
    labels = labels_of(node)
    if any(labels.get(k) != v for k, v in selector.items()):
        return False
    return terms is None or any(term_matches(t, node) for t in terms)


def term_matches(term: Term, node: Object) -> bool:
    """Whether all expressions of a term hold; one without any selects nothing."""
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    labels, own = labels_of(node), {NAME_FIELD: node["metadata"]["name"]}
    return all(_holds(e, labels) for e in expressions) and all(_holds(e, own) for e in fields)


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
