"""Pods and what makes, protects and ranks them."""

from __future__ import annotations

from typing import Any

from glebe.apiserver.printers.cells import (
    NONE,
    Printers,
    age,
    containers,
    name_of,
    pairs,
    selector_text,
    since,
    spec_of,
    status_of,
)
from glebe.apiserver.printers.pod import pod_cells
from glebe.apiserver.types.hpaconversion import to_v2
from glebe.kube.clock import parse_time
from glebe.kube.duration import format_duration
from glebe.kube.objects import Object, get_condition


def _job(obj: Object, now: float) -> list[Any]:
    spec, status = spec_of(obj), status_of(obj)
    done = status.get("succeeded", 0)
    if spec.get("completions") is not None:
        completions = f"{done}/{spec['completions']}"
    else:
        parallelism = spec.get("parallelism") or 0
        completions = f"{done}/1 of {parallelism}" if parallelism > 1 else f"{done}/1"
    duration = ""
    if start := status.get("startTime"):
        end = status.get("completionTime")
        duration = format_duration((parse_time(end) if end else now) - parse_time(start))
    wide = [*containers(obj), selector_text(spec.get("selector"))]
    return [name_of(obj), _job_state(obj), completions, duration, age(obj, now), *wide]


def _job_state(obj: Object) -> str:
    def true(kind: str) -> bool:
        return (get_condition(obj, kind) or {}).get("status") == "True"

    for kind in ("Complete", "Failed"):
        if true(kind):
            return kind
    if "deletionTimestamp" in obj["metadata"]:
        return "Terminating"
    for kind in ("Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if true(kind):
            return kind
    return "Running"


def _cron_job(obj: Object, now: float) -> list[Any]:
    spec, status = spec_of(obj), status_of(obj)
    last = since(status["lastScheduleTime"], now) if status.get("lastScheduleTime") else NONE
    suspended = "True" if spec.get("suspend") else "False"
    active = len(status.get("active") or ())
    zone = spec.get("timeZone") or NONE
    return [name_of(obj), spec.get("schedule"), zone, suspended, active, last, age(obj, now), *containers(obj), NONE]


def _deployment(obj: Object, now: float) -> list[Any]:
    spec, status = spec_of(obj), status_of(obj)
    ready = f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}"
    counts = [status.get("updatedReplicas", 0), status.get("availableReplicas", 0)]
    return [name_of(obj), ready, *counts, age(obj, now), *containers(obj), selector_text(spec.get("selector"))]


def _replica_set(obj: Object, now: float) -> list[Any]:
    spec, status = spec_of(obj), status_of(obj)
    counts = [spec.get("replicas", 0), status.get("replicas", 0), status.get("readyReplicas", 0)]
    selector = spec.get("selector")
    shown = pairs(selector) if obj.get("kind") == "ReplicationController" else selector_text(selector)
    return [name_of(obj), *counts, age(obj, now), *containers(obj), shown]


def _stateful_set(obj: Object, now: float) -> list[Any]:
    ready = f"{status_of(obj).get('readyReplicas', 0)}/{spec_of(obj).get('replicas', 0)}"
    return [name_of(obj), ready, age(obj, now), *containers(obj)]


def _daemon_set(obj: Object, now: float) -> list[Any]:
    spec, status = spec_of(obj), status_of(obj)
    fields = ("desiredNumberScheduled", "currentNumberScheduled", "numberReady", "updatedNumberScheduled")
    counts = [status.get(f, 0) for f in (*fields, "numberAvailable")]
    node_selector = (spec.get("template") or {}).get("spec", {}).get("nodeSelector")
    shown = pairs(node_selector)
    return [name_of(obj), *counts, shown, age(obj, now), *containers(obj), selector_text(spec.get("selector"))]


def _budget(obj: Object, now: float) -> list[Any]:
    spec = spec_of(obj)
    bounds = [str(spec.get("minAvailable", "N/A")), str(spec.get("maxUnavailable", "N/A"))]
    return [name_of(obj), *bounds, status_of(obj).get("disruptionsAllowed", 0), age(obj, now)]


_METRIC_FIELDS = {
    "External": "external",
    "Pods": "pods",
    "Object": "object",
    "Resource": "resource",
    "ContainerResource": "containerResource",
}
_METRICS_SHOWN = 2


def _metric(spec: Object, status: Object) -> str:
    """The current value of a metric and its target."""
    kind = spec.get("type", "")
    field = _METRIC_FIELDS.get(kind)
    if field is None:
        return "<unknown type>"
    source = spec.get(field) or {}
    target, current = source.get("target") or {}, (status.get(field) or {}).get("current") or {}
    unknown = "<unknown>"
    prefix = f"{source.get('name', '')}: " if "esource" in kind else ""
    if "averageValue" in target:
        suffix = " (avg)" if kind in ("External", "Object") else ""
        return f"{prefix}{current.get('averageValue', unknown)}/{target['averageValue']}{suffix}"
    if prefix:
        used, wanted = current.get("averageUtilization"), target.get("averageUtilization")
        shown = unknown if used is None else f"{used}%"
        return f"{prefix}{shown}/{'<auto>' if wanted is None else f'{wanted}%'}"
    return f"{current.get('value', unknown)}/{target.get('value', '')}"


def _metrics(specs: list[Object], statuses: list[Object]) -> str:
    shown = [_metric(s, statuses[i] if i < len(statuses) else {}) for i, s in enumerate(specs)]
    if len(shown) > _METRICS_SHOWN:
        return f"{', '.join(shown[:_METRICS_SHOWN])} + {len(shown) - _METRICS_SHOWN} more..."
    return ", ".join(shown) or NONE


def _autoscaler(obj: Object, now: float) -> list[Any]:
    if obj.get("apiVersion") == "autoscaling/v1":
        obj = to_v2(obj)
    spec, status = spec_of(obj), status_of(obj)
    ref = spec.get("scaleTargetRef") or {}
    target = f"{ref.get('kind')}/{ref.get('name')}"
    bounds = [str(spec.get("minReplicas", "<unset>")), spec.get("maxReplicas", 0), status.get("currentReplicas", 0)]
    metrics = _metrics(spec.get("metrics") or [], status.get("currentMetrics") or [])
    return [name_of(obj), target, metrics, *bounds, age(obj, now)]


def _priority_class(obj: Object, now: float) -> list[Any]:
    default = bool(obj.get("globalDefault"))
    return [name_of(obj), obj.get("value", 0), default, age(obj, now), obj.get("preemptionPolicy", "")]


_WIDE = ("+Containers", "+Images", "+Selector")
_COUNTS = ("Name", "Desired:integer", "Current:integer", "Ready:integer", "Age", *_WIDE)
_POD = ("Name", "Ready", "Status", "Restarts", "Age", "+IP", "+Node", "+Nominated Node", "+Readiness Gates")
_DAEMON = ("Desired:integer", "Current:integer", "Ready:integer", "Up-to-date:integer", "Available:integer")

#: group resource -> (columns, row)
PRINTERS: Printers = {
    "pods": (_POD, lambda obj, now: pod_cells(obj, now, age(obj, now))),
    "jobs.batch": (("Name", "Status", "Completions", "Duration", "Age", *_WIDE), _job),
    "cronjobs.batch": (
        ("Name", "Schedule", "Timezone", "Suspend:boolean", "Active:integer", "Last Schedule", "Age", *_WIDE),
        _cron_job,
    ),
    "deployments.apps": (("Name", "Ready", "Up-to-date", "Available", "Age", *_WIDE), _deployment),
    "replicasets.apps": (_COUNTS, _replica_set),
    "replicationcontrollers": (_COUNTS, _replica_set),
    "statefulsets.apps": (("Name", "Ready", "Age", "+Containers", "+Images"), _stateful_set),
    "daemonsets.apps": (("Name", *_DAEMON, "Node Selector", "Age", *_WIDE), _daemon_set),
    "poddisruptionbudgets.policy": (
        ("Name", "Min Available", "Max Unavailable", "Allowed Disruptions:integer", "Age"),
        _budget,
    ),
    "horizontalpodautoscalers.autoscaling": (
        ("Name", "Reference", "Targets", "MinPods", "MaxPods", "Replicas", "Age"),
        _autoscaler,
    ),
    "priorityclasses.scheduling.k8s.io": (
        ("Name", "Value:integer", "Global-Default:boolean", "Age", "PreemptionPolicy"),
        _priority_class,
    ),
}
