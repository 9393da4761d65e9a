"""Rules of where a pod may run: tolerations, affinity, spread constraints; and of label selectors."""

from __future__ import annotations

from typing import Any

from glebe.kube import names as n
from glebe.kube.errors import Cause

Values = dict[str, Any]


def tolerations(items: list[Values], path: str, causes: list[Cause]) -> None:
    for index, item in enumerate(items):
        where = f"{path}[{index}]"
        key, operator = item.get("key", ""), item.get("operator", "")
        if key:
            causes.extend(n.invalid(f"{where}.key", key, fault) for fault in n.key_faults(key))
        elif operator != "Exists":
            why = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            causes.append(n.invalid(f"{where}.operator", operator, why))
        if item.get("tolerationSeconds") is not None and item.get("effect") != "NoExecute":
            why = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            causes.append(n.invalid(f"{where}.effect", item.get("effect", ""), why))
        value = item.get("value", "")
        if operator == "Exists" and value:
            causes.append(n.invalid(f"{where}.operator", value, "value must be empty when `operator` is 'Exists'"))
        elif operator in ("", "Equal"):
            causes.extend(n.invalid(f"{where}.operator", value, fault) for fault in n.value_faults(value))


def label_selector(selector: Values | None, path: str, causes: list[Cause]) -> None:
    """``matchLabels`` and ``matchExpressions``."""
    if not selector:
        return
    causes.extend(n.labels(f"{path}.matchLabels", selector.get("matchLabels")))
    for index, term in enumerate(selector.get("matchExpressions") or ()):
        where = f"{path}.matchExpressions[{index}]"
        operator, values = term.get("operator", ""), term.get("values") or ()
        if operator in ("In", "NotIn"):
            if not values:
                why = "must be specified when `operator` is 'In' or 'NotIn'"
                causes.append(n.required(f"{where}.values", why))
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                causes.append(n.forbidden(f"{where}.values", why))
        else:
            causes.append(n.invalid(f"{where}.operator", operator, "not a valid selector operator"))
        key = term.get("key", "")
        causes.extend(n.invalid(f"{where}.key", key, fault) for fault in n.key_faults(key))
        for position, value in enumerate(values):
            causes.extend(n.invalid(f"{where}.values[{position}]", value, f) for f in n.value_faults(value))


def affinity(value: Values, path: str, causes: list[Cause]) -> None:
    required, preferred = (
        "requiredDuringSchedulingIgnoredDuringExecution",
        "preferredDuringSchedulingIgnoredDuringExecution",
    )
    node = value.get("nodeAffinity") or {}
    where = f"{path}.nodeAffinity"
    if (needed := node.get(required)) is not None:
        terms = needed.get("nodeSelectorTerms") or ()
        if not terms:
            why = "must have at least one node selector term"
            causes.append(n.required(f"{where}.{required}.nodeSelectorTerms", why))
        for index, term in enumerate(terms):
            _node_term(term, f"{where}.{required}.nodeSelectorTerms[{index}]", causes)
    for index, item in enumerate(node.get(preferred) or ()):
        _weight(item, f"{where}.{preferred}[{index}]", causes)
        _node_term(item.get("preference") or {}, f"{where}.{preferred}[{index}].preference", causes)
    for kind in ("podAffinity", "podAntiAffinity"):
        pods = value.get(kind) or {}
        for index, term in enumerate(pods.get(required) or ()):
            _pod_term(term, f"{path}.{kind}.{required}[{index}]", causes)
        for index, item in enumerate(pods.get(preferred) or ()):
            _weight(item, f"{path}.{kind}.{preferred}[{index}]", causes)
            term = item.get("podAffinityTerm") or {}
            _pod_term(term, f"{path}.{kind}.{preferred}[{index}].podAffinityTerm", causes)


def _weight(item: Values, path: str, causes: list[Cause]) -> None:
    weight = item.get("weight", 0)
    if not 1 <= weight <= 100:
        causes.append(n.invalid(f"{path}.weight", weight, "must be in the range 1-100"))


def _node_term(term: Values, path: str, causes: list[Cause]) -> None:
    for index, item in enumerate(term.get("matchExpressions") or ()):
        where = f"{path}.matchExpressions[{index}]"
        operator, values = item.get("operator", ""), item.get("values") or ()
        if operator in ("In", "NotIn") and not values:
            why = "must be specified when `operator` is 'In' or 'NotIn'"
            causes.append(n.required(f"{where}.values", why))
        elif operator in ("Exists", "DoesNotExist") and values:
            why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            causes.append(n.forbidden(f"{where}.values", why))
        elif operator in ("Gt", "Lt") and len(values) != 1:
            why = "must be specified single value when `operator` is 'Lt' or 'Gt'"
            causes.append(n.required(f"{where}.values", why))
        key = item.get("key", "")
        causes.extend(n.invalid(f"{where}.key", key, fault) for fault in n.key_faults(key))
    for index, item in enumerate(term.get("matchFields") or ()):
        if item.get("key") != "metadata.name":
            why = "not a valid field selector key"
            causes.append(n.invalid(f"{path}.matchFields[{index}].key", item.get("key", ""), why))


def _pod_term(term: Values, path: str, causes: list[Cause]) -> None:
    label_selector(term.get("labelSelector"), f"{path}.labelSelector", causes)
    key = term.get("topologyKey", "")
    if not key:
        causes.append(n.required(f"{path}.topologyKey", "can not be empty"))
    causes.extend(n.invalid(f"{path}.topologyKey", key, fault) for fault in n.key_faults(key))


def spread_constraints(items: list[Values], path: str, causes: list[Cause]) -> None:
    for index, item in enumerate(items):
        where = f"{path}[{index}]"
        if item.get("maxSkew", 0) <= 0:
            causes.append(n.invalid(f"{where}.maxSkew", item.get("maxSkew", 0), "must be greater than zero"))
        if not item.get("topologyKey"):
            causes.append(n.required(f"{where}.topologyKey", "can not be empty"))
        if not item.get("whenUnsatisfiable"):
            allowed = ("DoNotSchedule", "ScheduleAnyway")
            causes.append(n.not_supported(f"{where}.whenUnsatisfiable", "", allowed))
        label_selector(item.get("labelSelector"), f"{where}.labelSelector", causes)
