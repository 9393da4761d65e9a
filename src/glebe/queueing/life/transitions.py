"""A Workload's status as a state machine: each function gives the object with its next status. Pure.

waiting -> admitted -> (evicted -> waiting)* -> finished
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from glebe.kube.clock import format_time, parse_time
from glebe.kube.objects import Object, condition_is_true, get_condition, set_condition
from glebe.kube.quantity import from_int
from glebe.queueing import labels
from glebe.queueing.jobs.integrations import read
from glebe.queueing.life import checks
from glebe.queueing.picture import topology
from glebe.scheduling.model import Counterfactual, Decision, Forecast, PodSetAssignment, Reason

_MESSAGE_LIMIT = 32000
#: Reasons for which a workload is in no line until its queue takes it again: a place that it had is no place any more.
_NO_PLACE = (Reason.QUEUE_NOT_FOUND, Reason.QUEUE_STOPPED, Reason.MISCONFIGURED)
_FRONT = 20  # places whose sentences are always up to date
Condition = tuple[str, bool, str, str]  # type, status, reason, message

#: Reason of the eviction of a workload whose ``spec.active`` is false; the cause follows where the queue did it.
DEACTIVATED = "Deactivated"
TIME_LIMIT = "MaximumExecutionTimeExceeded"
#: Evictions after which a workload waits in its line at once; after any other something must happen first.
_COMES_BACK = ("Preempted", "NodeFailures")


def with_status(workload: Object, now: float, *conditions: Condition, **fields: Any) -> Object:
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


def admit(workload: Object, queue: str, decision: Decision, now: float, needed: Iterable[str] = ()) -> Object:
    """Quota and nodes are given, all in one write; with all checks Ready it may run, else it waits for them.

    :param needed: names of the admission checks that it must pass.
    """
    message = f"Quota reserved in ClusterQueue {queue}"
    conditions: list[Condition] = [(labels.QUOTA_RESERVED, True, "QuotaReserved", message)]
    for kind in (labels.EVICTED, labels.PREEMPTED, labels.BLOCKED_ON_GATES):
        before = get_condition(workload, kind)
        if before is not None and before["status"] == "True":
            conditions.append((kind, False, "QuotaReserved", f"Previously: {before['message']}"))
    if get_condition(workload, labels.PODS_READY) is not None:
        conditions.append((labels.PODS_READY, False, "WaitForStart", NOT_READY))
    admission = {"clusterQueue": queue, "podSetAssignments": [_assignment(a) for a in decision.assignments]}
    asked = checks.synced(checks.listed(workload), needed, now) or None
    forecast = _last_forecast(workload, "Admitted", decision.message)
    reserved = with_status(workload, now, *conditions, admission=admission, admissionChecks=asked, forecast=forecast)
    return settle(reserved, now)


def place(workload: Object, decision: Decision, now: float) -> Object:
    """A second look at a workload that has its quota: nodes for what was left open, or in place of failed ones."""
    admission = {**workload["status"]["admission"], "podSetAssignments": [_assignment(a) for a in decision.assignments]}
    return settle(with_status(workload, now, admission=admission, unhealthyNodes=None), now)


def settle(workload: Object, now: float) -> Object:
    """The condition Admitted as quota, checks and nodes have it; the time of a run that ends here is added up."""
    was = condition_is_true(workload, labels.ADMITTED)
    if condition_is_true(workload, labels.QUOTA_RESERVED):
        if not checks.all_ready(checks.listed(workload)):
            condition = (labels.ADMITTED, False, "UnsatisfiedAdmissionChecks", "The workload has not all checks ready")
        elif awaits_nodes(workload):
            text = "There are pending delayed topology requests"
            condition = (labels.ADMITTED, False, "PendingDelayedTopologyRequests", text)
        else:
            condition = (labels.ADMITTED, True, "Admitted", "The workload is admitted")
    else:
        condition = (labels.ADMITTED, False, "NoReservation", "The workload has no reservation")
    if was and not condition[1]:
        past = int(read(workload, ("status", "accumulatedPastExecutionTimeSeconds"), 0))
        past += admitted_seconds(workload, now)
        return with_status(workload, now, condition, accumulatedPastExecutionTimeSeconds=past or None)
    return with_status(workload, now, condition)


def awaits_nodes(workload: Object) -> bool:
    """Whether nodes of some pod set are chosen only now that the checks have passed."""
    assignments = read(workload, ("status", "admission", "podSetAssignments"), ())
    return any(a.get("delayedTopologyRequest") == "Pending" and not a.get("topologyAssignment") for a in assignments)


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
    if a.delayed:
        out["delayedTopologyRequest"] = a.delayed
    return out


def wait(workload: Object, decision: Decision, forecast: Forecast | None, now: float, queue: str = "") -> Object:
    """It waits: why, in which ClusterQueue (if known), and (with a forecast) for how long."""
    published: dict[str, Any] = {} if forecast is not None else dict(read(workload, ("status", "forecast"), {}))
    if forecast is not None:
        published.update(position=forecast.position, gpusAhead=forecast.gpus_ahead, computedAt=format_time(now))
        if forecast.counterfactuals is not None:
            published["counterfactuals"] = [_sooner(c) for c in forecast.counterfactuals[:16]]
            if not forecast.counterfactuals:
                del published["counterfactuals"]
        starts = (forecast.start_p50, forecast.start_p90, forecast.reserved_start)
        for name, start in zip(("startP50", "startP90", "reservedStart"), starts, strict=True):
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
    waiting = with_status(workload, now, *conditions, forecast=published)
    return settle(waiting, now) if condition_is_true(workload, labels.ADMITTED) else waiting


def _sooner(what: Counterfactual) -> dict[str, str]:
    out = {"change": what.change, "startP50": format_time(what.start_p50)}
    return out if what.start_p90 is None else out | {"startP90": format_time(what.start_p90)}


def deactivate(workload: Object, now: float, why: str = "") -> Object:
    """It waited and was switched off: it has no place in the queue any more."""
    message = f"The workload is deactivated due to {why}" if why else "The workload is deactivated"
    return with_status(workload, now, (labels.QUOTA_RESERVED, False, DEACTIVATED, message), forecast=None)


def release(workload: Object, now: float) -> Object:
    """Its pods are gone: the quota is free. It waits again, unless something must happen first."""
    evicted = get_condition(workload, labels.EVICTED) or {"reason": "Pending", "message": "The workload was evicted"}
    reason, message = evicted["reason"], evicted["message"]
    conditions: list[Condition] = [
        (labels.QUOTA_RESERVED, False, "PendingEvaluation", message),
        (labels.REQUEUED, reason in _COMES_BACK, reason, message),
    ]
    if get_condition(workload, labels.PODS_READY) is not None:
        conditions.append((labels.PODS_READY, False, "WaitForStart", NOT_READY))
    freed = settle(with_status(workload, now, *conditions, admission=None, forecast=None), now)
    if reason.endswith(TIME_LIMIT):  # switched on again by hand, it has all of its time
        freed["status"].pop("accumulatedPastExecutionTimeSeconds", None)
    return freed


NOT_READY = "Not all pods are ready or succeeded"


def pods_ready(workload: Object, ready: bool, now: float) -> Object:
    """All pods are there, or one is missing: at the start, or again later."""
    before = get_condition(workload, labels.PODS_READY) or {}
    lost = before.get("reason") in ("WaitForRecovery", "Recovered")
    if ready:
        message = "All pods reached readiness and the workload is running"
        condition = (labels.PODS_READY, True, "Recovered" if lost else "Started", message)
    elif before.get("status") == "True" or before.get("reason") == "WaitForRecovery":
        message = "At least one pod has failed, waiting for recovery"
        condition = (labels.PODS_READY, False, "WaitForRecovery", message)
    else:
        condition = (labels.PODS_READY, False, "WaitForStart", NOT_READY)
    return with_status(workload, now, condition)


def finish(workload: Object, reason: str, message: str, now: float) -> Object:
    """It ended; its quota is free."""
    forecast = _last_forecast(workload, reason, message)  # kubectl's columns Reason and Message read it
    return with_status(workload, now, (labels.FINISHED, True, reason, message), forecast=forecast)


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
