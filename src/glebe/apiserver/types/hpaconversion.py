"""HorizontalPodAutoscaler: autoscaling/v1, which knows the processor's utilisation only, and autoscaling/v2.

What v1 cannot say travels in annotations, so that nothing is lost on the way there and back.
"""

from __future__ import annotations

import copy
from typing import Any

import orjson

from glebe.kube.objects import Object

_PREFIX = "autoscaling.alpha.kubernetes.io/"
_METRICS, _CURRENT = f"{_PREFIX}metrics", f"{_PREFIX}current-metrics"
_CONDITIONS, _BEHAVIOR = f"{_PREFIX}conditions", f"{_PREFIX}behavior"
_ANNOTATIONS = (_METRICS, _CURRENT, _CONDITIONS, _BEHAVIOR)

Metric = dict[str, Any]

#: type of metric -> its field
_SOURCES = {
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
    "ContainerResource": "containerResource",
    "External": "external",
}
#: source -> ((v1 field, path in v2), ...); a specification's target and a status's current value
_SPEC: dict[str, tuple[tuple[str, str], ...]] = {
    "Object": (
        ("target", "describedObject"),
        ("metricName", "metric.name"),
        ("selector", "metric.selector"),
        ("targetValue", "target.value"),
        ("averageValue", "target.averageValue"),
    ),
    "Pods": (
        ("metricName", "metric.name"),
        ("selector", "metric.selector"),
        ("targetAverageValue", "target.averageValue"),
    ),
    "Resource": (
        ("name", "name"),
        ("targetAverageUtilization", "target.averageUtilization"),
        ("targetAverageValue", "target.averageValue"),
    ),
    "ContainerResource": (
        ("name", "name"),
        ("container", "container"),
        ("targetAverageUtilization", "target.averageUtilization"),
        ("targetAverageValue", "target.averageValue"),
    ),
    "External": (
        ("metricName", "metric.name"),
        ("metricSelector", "metric.selector"),
        ("targetValue", "target.value"),
        ("targetAverageValue", "target.averageValue"),
    ),
}
#: v1's statuses call the same things "current"
_STATUS = {
    kind: tuple((v1.replace("target", "current") if v1 != "target" else v1, v2.replace("target.", "current."))
                for v1, v2 in paths)
    for kind, paths in _SPEC.items()
}  # fmt: skip
_STATUS["Object"] = (
    ("target", "describedObject"),
    ("metricName", "metric.name"),
    ("selector", "metric.selector"),
    ("currentValue", "current.value"),
    ("averageValue", "current.averageValue"),
)


def _get(value: Metric, path: str) -> Any:
    found: Any = value
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _put(value: Metric, path: str, item: Any) -> None:
    *above, last = path.split(".")
    for part in above:
        value = value.setdefault(part, {})
    value[last] = item


def _metric(metric: Metric, table: dict[str, tuple[tuple[str, str], ...]], to_v2: bool) -> Metric:
    kind = str(metric.get("type", ""))
    field = _SOURCES.get(kind, "")
    source = metric.get(field) or {}
    out: Metric = {}
    for v1, v2 in table.get(kind, ()):
        value = _get(source, v1 if to_v2 else v2)
        if value is not None:
            _put(out, v2 if to_v2 else v1, value)
    if to_v2 and table is _SPEC:
        out.setdefault("target", {})["type"] = _target_type(kind, source)
        if kind == "Object" and "averageValue" in out["target"] and out["target"].get("value") == "0":
            del out["target"]["value"]
    elif not to_v2 and kind == "Object":
        out.setdefault("targetValue" if table is _SPEC else "currentValue", "0")
    return {"type": kind, field: out} if field else {"type": kind}


def _target_type(kind: str, source: Metric) -> str:
    if kind in ("Resource", "ContainerResource"):
        return "Utilization" if source.get("targetAverageUtilization") is not None else "AverageValue"
    if kind == "External":
        return "Value" if source.get("targetValue") is not None else "AverageValue"
    return "AverageValue" if kind == "Pods" or source.get("averageValue") is not None else "Value"


def _is_cpu(metric: Metric) -> bool:
    resource = metric.get("resource") or {}
    return (
        metric.get("type") == "Resource"
        and resource.get("name") == "cpu"
        and _get(resource, "target.averageUtilization") is not None
    )


def _text(value: Any) -> str:
    return orjson.dumps(value).decode()


def to_v1(obj: Object) -> Object:
    """v2 to v1."""
    obj = copy.deepcopy(obj)
    obj["apiVersion"] = "autoscaling/v1"
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    notes = {k: v for k, v in (obj["metadata"].get("annotations") or {}).items() if k not in _ANNOTATIONS}
    metrics = spec.pop("metrics", None) or []
    for metric in metrics:
        if _is_cpu(metric):
            spec["targetCPUUtilizationPercentage"] = metric["resource"]["target"]["averageUtilization"]
            break
    if others := [_metric(m, _SPEC, False) for m in metrics if not _is_cpu(m)]:
        notes[_METRICS] = _text(others)
    current = status.pop("currentMetrics", None) or []
    for metric in current:
        resource = metric.get("resource") or {}
        utilization = _get(resource, "current.averageUtilization")
        if metric.get("type") == "Resource" and resource.get("name") == "cpu" and utilization is not None:
            status["currentCPUUtilizationPercentage"] = utilization
            break
    if current:
        notes[_CURRENT] = _text([_metric(m, _STATUS, False) for m in current])
    if behavior := spec.pop("behavior", None):
        notes[_BEHAVIOR] = _text(behavior)
    if conditions := status.pop("conditions", None):
        notes[_CONDITIONS] = _text(conditions)
    _annotate(obj, notes)
    return obj


def to_v2(obj: Object) -> Object:
    """v1 to v2."""
    obj = copy.deepcopy(obj)
    obj["apiVersion"] = "autoscaling/v2"
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    notes = dict(obj["metadata"].get("annotations") or {})
    metrics = [_metric(m, _SPEC, True) for m in _list(notes.get(_METRICS))]
    percent = spec.pop("targetCPUUtilizationPercentage", None)
    if percent is not None:
        target = {"type": "Utilization", "averageUtilization": percent}
        metrics.append({"type": "Resource", "resource": {"name": "cpu", "target": target}})
    if metrics:
        spec["metrics"] = metrics
    current = [_metric(m, _STATUS, True) for m in _list(notes.get(_CURRENT))]
    percent = status.pop("currentCPUUtilizationPercentage", None)
    if percent is not None and not current:
        current = [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": percent}}}]
    if current:
        status["currentMetrics"] = current
    if conditions := _list(notes.get(_CONDITIONS)):
        status["conditions"] = conditions
    if isinstance(behavior := _loaded(notes.get(_BEHAVIOR)), dict) and behavior:
        spec["behavior"] = behavior
    _annotate(obj, {k: v for k, v in notes.items() if k not in _ANNOTATIONS})
    return obj


def _loaded(text: str | None) -> Any:
    """What an annotation holds; anybody may have written nonsense into it, which is then ignored."""
    try:
        return orjson.loads(text) if text else None
    except orjson.JSONDecodeError:
        return None


def _list(text: str | None) -> list[Metric]:
    value = _loaded(text)
    return [m for m in value if isinstance(m, dict)] if isinstance(value, list) else []


def _annotate(obj: Object, notes: dict[str, str]) -> None:
    if notes:
        obj["metadata"]["annotations"] = notes
    else:
        obj["metadata"].pop("annotations", None)
