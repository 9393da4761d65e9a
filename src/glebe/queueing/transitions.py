"""A Workload's status as a state machine: each function gives the object with its next status. Pure.

waiting -> admitted -> (evicted -> waiting)* -> finished
"""

from __future__ import annotations

from typing import Any

from glebe.kube.clock import format_time, parse_time
from glebe.kube.objects import Object, condition_is_true, get_condition, set_condition
from glebe.kube.quantity import from_int
from glebe.queueing import labels, topology
from glebe.queueing.integrations import read
from glebe.scheduling.model import Decision, Forecast, PodSetAssignment, Reason

_MESSAGE_LIMIT = 32000
#: Reasons for which a workload is in no line until its queue takes it again: a place that it had is no place any more.
_NO_PLACE = (Reason.QUEUE_NOT_FOUND, Reason.QUEUE_STOPPED, Reason.MISCONFIGURED)
_FRONT = 20  # places whose sentences are always up to date
Condition = tuple[str, bool, str, str]  # type, status, reason, message

#: Reason of the eviction of a workload whose ``spec.active`` is false.
DEACTIVATED = "Deactivated"
#: The same where the platform did it, by its cause.
DUE_TO = {"MaximumExecutionTimeExceeded": "DeactivatedDueToMaximumExecutionTimeExceeded"}


def _with(workload: Object, now: float, *conditions: Condition, **fields: Any) -> Object:
    """A copy with conditions set and status fields replaced (None removes)."""
    status = dict(workload.get("status") or {})
    listed = list(status.get("conditions") or [])
    for kind, value, reason, message in conditions:
        text = "True" if value else "False"
        listed = set_condition(
            listed,
            kind,
            text,
            reason,
            message[:_MESSAGE_LIMIT],
            format_time(now),
            workload["metadata"].get("generation"),
        )
    status["conditions"] = listed
    if status.get("admission"):
        status["admission"] = topology.modern(status["admission"])
    for name, value in fields.items():
        if value is None:
            status.pop(name, None)
        else:
            status[name] = value
    return {**workload, "status": status}


def admit(workload: Object, queue: str, decision: Decision, now: float) -> Object:
    """Quota and nodes are given, all in one write."""
    was_evicted = get_condition(workload, labels.EVICTED)
    conditions: list[Condition] = [
        (labels.QUOTA_RESERVED, True, "QuotaReserved", decision.message),
        (labels.ADMITTED, True, "Admitted", decision.message),
    ]
    if was_evicted is not None and was_evicted["status"] == "True":
        conditions.append((labels.EVICTED, False, "QuotaReserved", f"previously: {was_evicted['message']}"))
    if get_condition(workload, labels.PODS_READY) is not None:
        conditions.append((labels.PODS_READY, False, "WaitForStart", "the pods are being started"))
    admission = {"clusterQueue": queue, "podSetAssignments": [_assignment(a) for a in decision.assignments]}
    forecast = _last_forecast(workload, "Admitted", decision.message)
    return _with(workload, now, *conditions, admission=admission, forecast=forecast)


def _last_forecast(workload: Object, reason: str, message: str) -> dict[str, Any]:
    """What was promised last, for comparison, with the words of now: it has no place in the queue any more."""
    known = read(workload, ("status", "forecast"), {})
    kept = {name: known[name] for name in ("startP50", "startP90", "computedAt") if name in known}
    return {**kept, "reason": reason, "message": message[:_MESSAGE_LIMIT]}


def _assignment(a: PodSetAssignment) -> dict[str, Any]:
    out: dict[str, Any] = {
        "name": a.pod_set,
        "count": a.count,
        "flavors": dict(a.flavors),
        "resourceUsage": {name: from_int(amount, name) for name, amount in a.usage.items()},
    }
    if a.nodes:
        out["topologyAssignment"] = topology.encode(a.nodes)
    return out


def wait(workload: Object, decision: Decision, forecast: Forecast | None, now: float, queue: str = "") -> Object:
    """It waits: why, in which ClusterQueue (if known), and (with a forecast) for how long."""
    published: dict[str, Any] = {} if forecast is not None else dict(read(workload, ("status", "forecast"), {}))
    if forecast is not None:
        published.update(position=forecast.position, gpusAhead=forecast.gpus_ahead, computedAt=format_time(now))
        for name, start in (("startP50", forecast.start_p50), ("startP90", forecast.start_p90)):
            if start is not None:
                published[name] = format_time(start)
    elif decision.outcome == "Never":
        published.pop("startP50", None)
        published.pop("startP90", None)
    if forecast is None and decision.reason in _NO_PLACE:
        for name in ("position", "gpusAhead", "startP50", "startP90"):
            published.pop(name, None)
    published.update(reason=str(decision.reason), message=decision.message[:_MESSAGE_LIMIT])
    published.pop("clusterQueue", None)
    if queue:
        published["clusterQueue"] = queue
    published.pop("remedy", None)
    if decision.remedy:
        published["remedy"] = decision.remedy[:_MESSAGE_LIMIT]
    conditions: list[Condition] = [(labels.QUOTA_RESERVED, False, str(decision.reason), decision.message)]
    if condition_is_true(workload, labels.ADMITTED):
        conditions.append((labels.ADMITTED, False, "NoReservation", "the workload has no reservation"))
    return _with(workload, now, *conditions, forecast=published)


def deactivate(workload: Object, now: float) -> Object:
    """It waited and was switched off: it has no place in the queue any more."""
    message = "the workload is deactivated (spec.active is false)"
    return _with(workload, now, (labels.QUOTA_RESERVED, False, "Deactivated", message), forecast=None)


def intend_deactivation(workload: Object, cause: str, message: str, now: float) -> Object:
    """It is to be switched off, and why: written before ``spec.active``, so that no crash in between loses the cause.

    The time it has run is forgotten: switched on again by hand, it has all of its time.
    """
    target = (labels.DEACTIVATION_TARGET, True, cause, message)
    return _with(workload, now, target, accumulatedPastExecutionTimeSeconds=None)


def deactivation(workload: Object) -> tuple[str, str]:
    """Reason and message of the eviction of a workload whose ``spec.active`` is false."""
    target = get_condition(workload, labels.DEACTIVATION_TARGET)
    if target is None or target["status"] != "True":
        return DEACTIVATED, "the workload is deactivated (spec.active is false)"
    return DUE_TO.get(target["reason"], DEACTIVATED), target["message"]


def evict(workload: Object, reason: str, message: str, now: float) -> Object:
    """It must stop; it keeps its quota until its pods are gone."""
    stats = dict(read(workload, ("status", "schedulingStats"), {}))
    counts = [dict(e) for e in stats.get("evictions") or ()]
    cause = next((cause for cause, full in DUE_TO.items() if full == reason), "")
    counted = DEACTIVATED if cause else reason
    for entry in counts:
        if (entry["reason"], entry["underlyingCause"]) == (counted, cause):
            entry["count"] += 1
            break
    else:
        counts.append({"reason": counted, "underlyingCause": cause, "count": 1})
    conditions: list[Condition] = [(labels.EVICTED, True, reason, message)]
    if condition_is_true(workload, labels.DEACTIVATION_TARGET):
        conditions.append((labels.DEACTIVATION_TARGET, False, "Deactivated", message))
    return _with(workload, now, *conditions, schedulingStats={"evictions": counts})


def release(workload: Object, now: float) -> Object:
    """Its pods are gone: the quota is free and the workload waits again."""
    evicted = get_condition(workload, labels.EVICTED) or {"reason": "Pending", "message": "the workload was evicted"}
    past = int(read(workload, ("status", "accumulatedPastExecutionTimeSeconds"), 0)) + admitted_seconds(workload, now)
    if evicted["reason"] in DUE_TO.values():
        past = 0
    again = workload["spec"].get("active") is not False
    conditions: list[Condition] = [
        (labels.QUOTA_RESERVED, False, "Pending", evicted["message"]),
        (labels.ADMITTED, False, "NoReservation", "the workload has no reservation"),
        (labels.REQUEUED, again, evicted["reason"], evicted["message"]),
    ]
    if get_condition(workload, labels.PODS_READY) is not None:
        conditions.append((labels.PODS_READY, False, "WaitForStart", "the workload waits to be admitted again"))
    return _with(
        workload, now, *conditions, admission=None, forecast=None, accumulatedPastExecutionTimeSeconds=past or None
    )


def pods_ready(workload: Object, ready: bool, now: float) -> Object:
    text = "all pods are ready or have succeeded" if ready else "not all pods are ready yet"
    return _with(workload, now, (labels.PODS_READY, ready, "Started" if ready else "WaitForStart", text))


def finish(workload: Object, reason: str, message: str, now: float) -> Object:
    """It ended; its quota is free."""
    forecast = _last_forecast(workload, reason, message)  # kubectl's columns Reason and Message read it
    return _with(workload, now, (labels.FINISHED, True, reason, message), forecast=forecast)


def admitted_seconds(workload: Object, now: float) -> int:
    """Seconds since it was admitted; 0 when it is not."""
    condition = get_condition(workload, labels.ADMITTED)
    if condition is None or condition["status"] != "True":
        return 0
    return max(0, int(now - parse_time(condition["lastTransitionTime"])))


def is_evicted(workload: Object) -> bool:
    return condition_is_true(workload, labels.EVICTED)


def differs_materially(workload: Object, forecast: Forecast, now: float) -> bool:
    """Whether a reader would care: another reason, another place in the queue, or a start that moved.

    Places are compared to within 5 % (so exactly up to place 20) and starts to within 2 s or 5 % of the time that
    remains: with thousands waiting, each admission moves every place, and nobody reads the difference of 4711. For
    the same reason what is free just now is told anew only to the first in line.
    """
    old = read(workload, ("status", "forecast"), {})
    if old.get("reason") != str(forecast.decision.reason) or "position" not in old:
        return True
    if forecast.position <= _FRONT and old.get("message") != forecast.decision.message[:_MESSAGE_LIMIT]:
        return True
    for name, new in (("position", forecast.position), ("gpusAhead", forecast.gpus_ahead)):
        if abs(old.get(name, 0) - new) * 20 > max(old.get(name, 0), new):
            return True
    for name, start in (("startP50", forecast.start_p50), ("startP90", forecast.start_p90)):
        known = old.get(name)
        if (known is None) != (start is None):
            return True
        if known is not None and start is not None and abs(parse_time(known) - start) > max(2.0, 0.05 * (start - now)):
            return True
    return False
