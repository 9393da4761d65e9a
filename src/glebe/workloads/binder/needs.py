"""What a pod needs from a node: amounts, and conditions on the node. Equal needs share one answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from glebe.kube import pods as kube_pods
from glebe.kube.objects import Object

AFFINITY = "node(s) didn't match Pod's node affinity/selector"
UNSCHEDULABLE = "node(s) were unschedulable"
NATIVE = frozenset({"cpu", "memory", "ephemeral-storage", "pods"})


def _requests(spec: Mapping[str, Any]) -> dict[str, int]:
    """What the pod holds on its node: its requests, and its place among the node's ``pods``."""
    return {**{name: amount for name, amount in kube_pods.requests_of(spec).items() if amount > 0}, "pods": 1}


@dataclass(frozen=True)
class Needs:
    """One class of pods; ``key`` is equal for equal needs."""

    key: str
    requests: Mapping[str, int]
    selector: Mapping[str, str]
    terms: tuple[Mapping[str, Any], ...] | None  # required node affinity: any of them; None: no condition
    tolerations: tuple[Mapping[str, Any], ...]

    @classmethod
    def of(cls, pod: Object) -> Needs:
        spec = pod.get("spec") or {}
        affinity = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
            "requiredDuringSchedulingIgnoredDuringExecution"
        )
        terms = None if affinity is None else tuple(affinity.get("nodeSelectorTerms") or ())
        requests = _requests(spec)
        selector = spec.get("nodeSelector") or {}
        tolerations = tuple(spec.get("tolerations") or ())
        key = json.dumps([requests, selector, terms, tolerations], sort_keys=True)
        return cls(key, requests, selector, terms, tolerations)

    @cached_property
    def extended(self) -> tuple[str, ...]:
        """Requested resources that are devices rather than cpu, memory or storage."""
        return tuple(sorted(r for r in self.requests if r not in NATIVE and "/" in r))

    def refuses(self, node: Object) -> str | None:
        """Why the node's fixed properties rule it out (in kube-scheduler's words and order)."""
        spec = node.get("spec") or {}
        cordon = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
        if spec.get("unschedulable") and not tolerated(cordon, self.tolerations):
            return UNSCHEDULABLE
        for taint in taints_of(node):
            if taint.get("effect") in ("NoSchedule", "NoExecute") and not tolerated(taint, self.tolerations):
                return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value') or ''}}}"
        labels = node["metadata"].get("labels") or {}
        if any(labels.get(k) != v for k, v in self.selector.items()):
            return AFFINITY
        if self.terms is not None and not any(_term_matches(t, labels, node) for t in self.terms):
            return AFFINITY
        return None

    def dislikes(self, node: Object) -> int:
        """How many PreferNoSchedule taints the pod does not tolerate."""
        soft = (t for t in taints_of(node) if t.get("effect") == "PreferNoSchedule")
        return sum(1 for t in soft if not tolerated(t, self.tolerations))


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


def tolerated(taint: Mapping[str, Any], tolerations: tuple[Mapping[str, Any], ...]) -> bool:
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


def _term_matches(term: Mapping[str, Any], labels: Mapping[str, str], node: Object) -> bool:
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False  # an empty term selects nothing
    own = {"metadata.name": node["metadata"]["name"]}
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
