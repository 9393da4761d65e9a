"""What a pod uses, and which scopes it is in (``pkg/quota/v1/evaluator/core/pods.go``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from glebe.apiserver.admission.quota.amounts import ONE, Amounts, add, amounts, raise_to
from glebe.apiserver.admission.tolerations import is_extended
from glebe.kube.clock import parse_time
from glebe.kube.objects import Object
from glebe.kube.pods import has_ended

_COMPUTE = ("cpu", "memory", "ephemeral-storage")
NAMES = frozenset(
    {"count/pods", "pods", *_COMPUTE, *(f"{kind}.{name}" for kind in ("requests", "limits") for name in _COMPUTE)}
)
#: What every container must state when a quota counts it (and what was never made a rule for anything later).
_STATED = frozenset(name for name in NAMES if name.endswith(("cpu", "memory")))
_DEVICE_CLASS = "deviceclass.resource.kubernetes.io/"


def concerns(name: str) -> bool:
    """Does a quota's resource ``name`` count pods?"""
    if name in NAMES or name.startswith(("hugepages-", "requests.hugepages-")):
        return True
    rest = name.removeprefix("requests.")
    return rest != name and (_foreign(name) or rest.startswith(_DEVICE_CLASS))


def _foreign(name: str) -> bool:
    return "/" in name and "kubernetes.io/" not in name


def usage(pod: Object, now: float) -> Amounts:
    """Everything counts until the pod has ended, or should have (its node is lost); the object itself always does."""
    out: Amounts = {"count/pods": ONE}
    if has_ended(pod) or overdue_at(pod) <= now:
        return out
    out["pods"] = ONE
    out.update(_compute(pod))
    return out


_FRESH: dict[bytes, Amounts] = {}
"""What pods use of which no kubelet has said anything, by all that their specs say about resources."""
_KEPT = 1024


def _compute(pod: Object) -> Amounts:
    if _statuses(pod):
        return _asked(pod)
    spec = pod["spec"]
    parts = [spec.get("resources"), spec.get("overhead"), *(c.get("resources") for c in spec.get("containers") or ())]
    parts.extend((c.get("restartPolicy"), c.get("resources")) for c in spec.get("initContainers") or ())
    key = orjson.dumps(parts)
    found = _FRESH.get(key)
    if found is None:
        if len(_FRESH) >= _KEPT:
            _FRESH.clear()
        found = _FRESH[key] = _asked(pod)
    return found


def _asked(pod: Object) -> Amounts:
    """By the names of quotas."""
    out: Amounts = {}
    requests, limits = pod_resources(pod, "requests"), pod_resources(pod, "limits")
    for name, amount in requests.items():
        if name in _COMPUTE or name.startswith("hugepages-"):
            out[name] = amount
        if name in _COMPUTE or name.startswith(("hugepages-", _DEVICE_CLASS)) or is_extended(name):
            out[f"requests.{name}"] = amount
    for name in _COMPUTE:
        if name in limits:
            out[f"limits.{name}"] = limits[name]
    return out


def overdue_at(pod: Object) -> float:
    """When a pod that is being deleted stops to count although it is still there (seconds; infinite: never)."""
    meta = pod["metadata"]
    deletion, grace = meta.get("deletionTimestamp"), meta.get("deletionGracePeriodSeconds")
    if not deletion or grace is None:
        return float("inf")
    return parse_time(deletion) + int(grace)


def missing(pod: Object, names: frozenset[str]) -> str:
    """Which containers do not state what a quota demands: ``limits.cpu for: c1,c2; memory for: c1``; empty: none."""
    wanted = names & _STATED
    spec = pod["spec"]
    if not wanted or _pod_level(spec, "requests") or _pod_level(spec, "limits"):
        return ""
    lacking: dict[str, set[str]] = {}
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        resources = container.get("resources") or {}
        requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
        for name in wanted:
            kind, _, base = name.rpartition(".")
            if base not in (limits if kind == "limits" else requests):
                lacking.setdefault(name, set()).add(container.get("name", ""))
    return "; ".join(f"{name} for: {','.join(sorted(lacking[name]))}" for name in sorted(lacking))


def pod_resources(pod: Object, kind: str) -> Amounts:
    """The ``requests`` or ``limits`` of the pod as a whole: containers and sidecars together, or the greatest init
    container; what the kubelet has allocated while a resize is under way; the pod's own; overhead."""
    spec, statuses = pod["spec"], _statuses(pod)
    infeasible = _infeasible(pod)
    total: Amounts = {}
    for container in spec.get("containers") or ():
        add(total, _effective(container, statuses, kind, infeasible))
    sidecars: Amounts = {}
    peak: Amounts = {}
    for container in spec.get("initContainers") or ():
        if container.get("restartPolicy") == "Always":
            own = _effective(container, statuses, kind, infeasible)
            add(total, own)
            add(sidecars, own)
            raise_to(peak, sidecars)
        else:
            turn = amounts((container.get("resources") or {}).get(kind))
            add(turn, sidecars)
            raise_to(peak, turn)
    raise_to(total, peak)
    total.update(_pod_level(spec, kind))
    overhead = amounts(spec.get("overhead"))
    add(total, overhead if kind == "requests" else {n: o for n, o in overhead.items() if total.get(n)})
    return total


def _pod_level(spec: Mapping[str, Any], kind: str) -> Amounts:
    own = amounts((spec.get("resources") or {}).get(kind))
    return {n: o for n, o in own.items() if n in ("cpu", "memory") or n.startswith("hugepages-")}


def _statuses(pod: Object) -> dict[str, Any]:
    status = pod.get("status") or {}
    both = (*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ()))
    return {s.get("name", ""): s for s in both if s.get("resources") is not None}


def _infeasible(pod: Object) -> bool:
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "PodResizePending":
            return bool(condition.get("reason") == "Infeasible")
    return False


def _effective(container: Any, statuses: Mapping[str, Any], kind: str, infeasible: bool) -> Amounts:
    wanted = amounts((container.get("resources") or {}).get(kind))
    status = statuses.get(container.get("name", ""))
    if status is None:
        return wanted
    out: Amounts = {} if infeasible else wanted
    raise_to(out, amounts(status["resources"].get(kind)))
    if kind == "requests":
        raise_to(out, amounts(status.get("allocatedResources")))
    return out


def in_scope(pod: Object, scope: str, operator: str, values: list[str]) -> bool:
    """Is the pod in a quota's scope?"""
    spec = pod["spec"]
    match scope:
        case "Terminating" | "NotTerminating":
            return (scope == "Terminating") == is_terminating(pod)
        case "BestEffort" | "NotBestEffort":
            return (scope == "BestEffort") == _best_effort(spec)
        case "PriorityClass":
            return selected(operator, values, [spec["priorityClassName"]] if spec.get("priorityClassName") else [])
        case "CrossNamespacePodAffinity":
            return _crosses_namespaces(spec)
    return False


def is_terminating(pod: Object) -> bool:
    deadline = pod["spec"].get("activeDeadlineSeconds")
    return deadline is not None and int(deadline) >= 0


def selected(operator: str, values: list[str], present: list[str]) -> bool:
    """A scope selector's requirement on the names that an object has in that scope."""
    match operator:
        case "In":
            return any(name in values for name in present)
        case "NotIn":
            return not present or any(name not in values for name in present)
        case "DoesNotExist":
            return not present
    return bool(present)


def _best_effort(spec: Mapping[str, Any]) -> bool:
    """No cpu and no memory is asked for, by the pod or by any container."""
    holders = (spec, *(spec.get("containers") or ()), *(spec.get("initContainers") or ()))
    for holder in holders:
        for kind in ("requests", "limits"):
            asked = amounts((holder.get("resources") or {}).get(kind))
            if asked.get("cpu") or asked.get("memory"):
                return False
    return True


def _crosses_namespaces(spec: Mapping[str, Any]) -> bool:
    affinity = spec.get("affinity") or {}
    for kind in ("podAffinity", "podAntiAffinity"):
        rules = affinity.get(kind) or {}
        weighted = rules.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        terms = [*(rules.get("requiredDuringSchedulingIgnoredDuringExecution") or ())]
        terms.extend(w.get("podAffinityTerm") or {} for w in weighted)
        if any(term.get("namespaces") or term.get("namespaceSelector") is not None for term in terms):
            return True
    return False
