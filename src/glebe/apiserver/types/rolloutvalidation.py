"""How Deployments, StatefulSets and DaemonSets replace their pods: what may be asked for.

Rules and words are those of upstream's ``pkg/apis/apps/validation``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from glebe.kube import names as n
from glebe.kube.errors import Cause
from glebe.kube.objects import Object

PERCENT_ERROR = (
    "a valid percent string must be a numeric string followed by an ending '%' "
    "(e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"
)
_PERCENT = re.compile(r"[0-9]+%")
_KEPT = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
    "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)
_CHANGEABLE = frozenset({
    "replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy", "minReadySeconds",
})  # fmt: skip


def rollout(obj: Object, old: Object | None) -> list[Cause]:
    """What is wrong with the way in which ``obj`` rolls out."""
    check = _KINDS.get(obj.get("kind", ""))
    return [] if check is None else check(obj, old)


def _deployment(obj: Object, old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes = [*_no_deadline(obj), *_strategy(spec.get("strategy") or {}, "spec.strategy")]
    deadline = spec.get("progressDeadlineSeconds")
    where = "spec.progressDeadlineSeconds"
    causes += n.non_negative(where, deadline)
    if deadline is not None and deadline <= spec.get("minReadySeconds", 0):
        causes.append(n.invalid(where, deadline, "must be greater than minReadySeconds"))
    return causes


def _strategy(strategy: Object, path: str) -> list[Cause]:
    rolling = strategy.get("rollingUpdate")
    match strategy.get("type"):
        case "Recreate":
            why = "may not be specified when strategy `type` is 'Recreate'"
            return [] if rolling is None else [n.forbidden(f"{path}.rollingUpdate", why)]
        case "RollingUpdate":
            if rolling is None:
                return [n.required(f"{path}.rollingUpdate", "this should be defaulted and never be nil")]
            return _rolling_deployment(rolling, f"{path}.rollingUpdate")
    return []  # the schema's list of types says what is wrong


def _rolling_deployment(rolling: Object, path: str) -> list[Cause]:
    down, up = rolling.get("maxUnavailable", 0), rolling.get("maxSurge", 0)
    causes = [*_amount(down, f"{path}.maxUnavailable"), *_amount(up, f"{path}.maxSurge")]
    if not _value(down) and not _value(up):
        causes.append(n.invalid(f"{path}.maxUnavailable", down, "may not be 0 when `maxSurge` is 0"))
    return causes + _at_most_all(down, f"{path}.maxUnavailable")


def _daemon_set(obj: Object, old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    strategy, path = spec.get("updateStrategy") or {}, "spec.updateStrategy"
    causes = _no_deadline(obj)
    if strategy.get("type") != "RollingUpdate":
        return causes
    rolling, where = strategy.get("rollingUpdate"), f"{path}.rollingUpdate"
    return causes + ([n.required(where)] if rolling is None else _rolling_daemon_set(rolling, where))


def _rolling_daemon_set(rolling: Object, path: str) -> list[Cause]:
    down, up = rolling.get("maxUnavailable", 0), rolling.get("maxSurge", 0)
    causes: list[Cause] = []
    for check in (_amount, _at_most_all):
        causes += [*check(down, f"{path}.maxUnavailable"), *check(up, f"{path}.maxSurge")]
    if _value(down) and _value(up):
        causes.append(n.invalid(f"{path}.maxSurge", up, "may not be set when maxUnavailable is non-zero"))
    elif not _value(down) and not _value(up):
        causes.append(n.required(f"{path}.maxUnavailable", "cannot be 0 when maxSurge is 0"))
    return causes


def _stateful_set(obj: Object, old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    causes += _stateful_strategy(spec.get("updateStrategy") or {}, "spec.updateStrategy")
    for field, value in (spec.get("persistentVolumeClaimRetentionPolicy") or {}).items():
        if value not in ("Retain", "Delete"):
            where = f"spec.persistentVolumeClaimRetentionPolicy.{field}"
            causes.append(n.not_supported(where, value, ["Retain", "Delete"]))
    causes += n.non_negative("spec.ordinals.start", (spec.get("ordinals") or {}).get("start"))
    name = spec.get("serviceName")
    if old is None:
        causes += [n.invalid("spec.serviceName", name, fault) for fault in n.label_faults(name)] if name else []
        for index, template in enumerate(spec.get("volumeClaimTemplates") or ()):
            causes += _claim(template.get("spec") or {}, f"spec.volumeClaimTemplates[{index}].spec")
    causes += _no_deadline(obj)
    if old is not None and _fixed(spec) != _fixed(old.get("spec") or {}):
        causes.append(n.forbidden("spec", _KEPT))
    return causes


def _stateful_strategy(strategy: Object, path: str) -> list[Cause]:
    rolling = strategy.get("rollingUpdate")
    match strategy.get("type"):
        case "OnDelete":
            why = "only allowed for updateStrategy 'RollingUpdate'"
            return [] if rolling is None else [n.invalid(f"{path}.rollingUpdate", rolling, why)]
        case "RollingUpdate":
            causes = n.non_negative(f"{path}.rollingUpdate.partition", (rolling or {}).get("partition"))
            most = (rolling or {}).get("maxUnavailable")
            where = f"{path}.rollingUpdate.maxUnavailable"
            if most is not None:
                causes += _amount(most, where)
                if not _value(most):
                    causes.append(n.invalid(where, most, "cannot be 0"))
                causes += _at_most_all(most, where)
            return causes
    return []


def _claim(spec: Object, path: str) -> list[Cause]:
    causes: list[Cause] = []
    if not spec.get("accessModes"):
        causes.append(n.required(f"{path}.accessModes", "at least 1 access mode is required"))
    if "storage" not in ((spec.get("resources") or {}).get("requests") or {}):
        causes.append(n.required(f"{path}.resources[storage]"))
    return causes


def _fixed(spec: Object) -> dict[str, Any]:
    """What an update of a StatefulSet may not change; claim templates' statuses are nobody's concern."""
    kept = {field: value for field, value in spec.items() if field not in _CHANGEABLE and value not in (None, "", [])}
    if templates := kept.get("volumeClaimTemplates"):
        kept["volumeClaimTemplates"] = [{k: v for k, v in t.items() if k != "status"} for t in templates]
    return kept


def _no_deadline(obj: Object) -> list[Cause]:
    kind = "ReplicaSet" if obj.get("kind") == "Deployment" else obj.get("kind")
    pod = ((obj.get("spec") or {}).get("template") or {}).get("spec") or {}
    if pod.get("activeDeadlineSeconds") is None:
        return []
    why = f"activeDeadlineSeconds in {kind} is not Supported"
    return [n.forbidden("spec.template.spec.activeDeadlineSeconds", why)]


def _amount(value: Any, path: str) -> list[Cause]:
    """A number that is not negative, or a percentage."""
    if isinstance(value, str):
        return [] if _PERCENT.fullmatch(value) else [n.invalid(path, value, PERCENT_ERROR)]
    return n.non_negative(path, value)


def _value(value: Any) -> int:
    if isinstance(value, str):
        return int(value[:-1]) if _PERCENT.fullmatch(value) else 0
    return int(value)


def _at_most_all(value: Any, path: str) -> list[Cause]:
    if isinstance(value, str) and _value(value) > 100:
        return [n.invalid(path, value, "must not be greater than 100%")]
    return []


_KINDS: dict[str, Callable[[Object, Object | None], list[Cause]]] = {
    "Deployment": _deployment,
    "StatefulSet": _stateful_set,
    "DaemonSet": _daemon_set,
    "ReplicaSet": lambda obj, old: _no_deadline(obj),
}
