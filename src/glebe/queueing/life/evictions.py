"""Why and how a workload is made to stop: conditions, counts and messages of evictions, and the way back. Pure.

Reasons, messages and counts are Kueue's. An evicted workload keeps its quota until its pods are gone
(:func:`glebe.queueing.life.transitions.release`).
"""

from __future__ import annotations

from typing import Any

from glebe.kube.clock import format_time, parse_time
from glebe.kube.objects import Object, condition_is_true, get_condition, labels_of
from glebe.queueing import labels
from glebe.queueing.jobs.integrations import read
from glebe.queueing.life import checks, transitions
from glebe.queueing.life.transitions import DEACTIVATED, Condition, settle, with_status
from glebe.scheduling.model import VictimReason

PREEMPTED = "Preempted"
ADMISSION_CHECK = "AdmissionCheck"
PODS_READY_TIMEOUT = "PodsReadyTimeout"
NODE_FAILURES = "NodeFailures"
LOCAL_QUEUE_STOPPED = "LocalQueueStopped"
CLUSTER_QUEUE_STOPPED = "ClusterQueueStopped"
FLAVOR_MIGRATION = "FlavorMigration"
REQUEUING_LIMIT = "RequeuingLimitExceeded"

_WHY = {
    VictimReason.IN_CLUSTER_QUEUE: "prioritization in the ClusterQueue",
    VictimReason.IN_COHORT_RECLAMATION: "reclamation within the cohort",
    VictimReason.IN_COHORT_FAIR_SHARING: "Fair Sharing within the cohort",
    VictimReason.IN_COHORT_WHILE_BORROWING: "reclamation within the cohort while borrowing",
}
#: What lets a workload back into its line, by the reason for which it is out of it.
_BACK = {
    PODS_READY_TIMEOUT: ("BackoffFinished", "The workload backoff was finished"),
    ADMISSION_CHECK: ("BackoffFinished", "The workload backoff was finished"),
    LOCAL_QUEUE_STOPPED: ("LocalQueueRestarted", "The LocalQueue was restarted after being stopped"),
    CLUSTER_QUEUE_STOPPED: ("ClusterQueueRestarted", "The ClusterQueue was restarted after being stopped"),
}


def evict(workload: Object, reason: str, message: str, now: float, cause: str = "", **fields: Any) -> Object:
    """It must stop.

    :param cause: what is behind the reason; counted apart, and part of the reason when it was deactivated.
    :param fields: further fields of the status.
    """
    whole = f"{reason}DueTo{cause}" if reason == DEACTIVATED and cause else reason
    conditions: list[Condition] = [(labels.EVICTED, True, whole, message)]
    if condition_is_true(workload, labels.BLOCKED_ON_GATES):
        conditions.append((labels.BLOCKED_ON_GATES, False, whole, message))
    stats = {"evictions": _counted(workload, reason, cause)}
    judged = checks.reset(checks.listed(workload), now) or None
    stopped = with_status(
        workload, now, *conditions, schedulingStats=stats, admissionChecks=judged, unhealthyNodes=None, **fields
    )
    return _gates_closed(stopped, now)


def preempt(workload: Object, reason: VictimReason, message: str, now: float) -> Object:
    """It must stop because another one goes first."""
    if reason is VictimReason.FLAVOR_MIGRATION:
        return evict(workload, FLAVOR_MIGRATION, message, now)
    return with_status(evict(workload, PREEMPTED, message, now), now, (labels.PREEMPTED, True, str(reason), message))


def preemption_message(preemptor: Object, reason: VictimReason, preemptor_path: str, victim_path: str) -> str:
    """The sentence of conditions and events; paths are the queues' places in the cohort tree."""
    if reason is VictimReason.FLAVOR_MIGRATION:
        return (
            f"Evicted to migrate the workload to a more preferred flavor (UID: {preemptor['metadata'].get('uid', '')})"
        )
    uid = preemptor["metadata"].get("uid") or "UNKNOWN"
    job = labels_of(preemptor).get(labels.JOB_UID) or "UNKNOWN"
    return (
        f"Preempted to accommodate a workload (UID: {uid}, JobUID: {job}) due to {_WHY[reason]}; "
        f"preemptor path: {preemptor_path}; preemptee path: {victim_path}"
    )


def event_reason(reason: str, cause: str = "") -> str:
    """The reason of an eviction's event."""
    return f"EvictedDueTo{reason}" + (f"DueTo{cause}" if reason == DEACTIVATED and cause else "")


def _counted(workload: Object, reason: str, cause: str) -> list[dict[str, Any]]:
    counts = [dict(e) for e in read(workload, ("status", "schedulingStats", "evictions"), ())]
    for entry in counts:
        if (entry["reason"], entry.get("underlyingCause", "")) == (reason, cause):
            entry["count"] = int(entry.get("count") or 0) + 1
            return counts
    return [*counts, {"reason": reason, "underlyingCause": cause, "count": 1}]


def _gates_closed(workload: Object, now: float) -> Object:
    gates = read(workload, ("status", "preemptionGates"), ())
    if not gates:
        return workload
    closed = [{**gate, "position": "Closed", "lastTransitionTime": format_time(now)} for gate in gates]
    return with_status(workload, now, preemptionGates=closed)


def intend_deactivation(workload: Object, cause: str, message: str, now: float, **fields: Any) -> Object:
    """It is to be switched off, and why: written before ``spec.active``, so that no crash loses the cause."""
    return with_status(workload, now, (labels.DEACTIVATION_TARGET, True, cause, message), **fields)


def deactivate(workload: Object, now: float) -> Object:
    """``spec.active`` is false and it runs: it must stop. Its retries are forgotten."""
    target = get_condition(workload, labels.DEACTIVATION_TARGET)
    cause, message = "", "The workload is deactivated"
    if target is not None:
        cause, message = target["reason"], f"{message} due to {target['message']}"
    stopped = evict(workload, DEACTIVATED, message, now, cause, requeueState=None)
    kept = [c for c in stopped["status"]["conditions"] if c["type"] != labels.DEACTIVATION_TARGET]
    return {**stopped, "status": {**stopped["status"], "conditions": kept}}


def requeue_after(workload: Object, until: float, *, count: bool) -> dict[str, Any]:
    """``status.requeueState``: not before ``until``, nor before a later time that was already set."""
    state = dict(read(workload, ("status", "requeueState"), {}))
    known = state.get("requeueAt")
    if known is None or parse_time(known) < until:
        state["requeueAt"] = format_time(until)
    if count:
        state["count"] = int(state.get("count") or 0) + 1
    return state


def requeue_at(workload: Object) -> float | None:
    """Not before this time may it be looked at."""
    text = read(workload, ("status", "requeueState", "requeueAt"))
    return parse_time(text) if text else None


def kept_out(workload: Object) -> str:
    """The reason of the eviction after which it is not in its line yet; empty when it is."""
    condition = get_condition(workload, labels.REQUEUED)
    return str(condition["reason"]) if condition is not None and condition["status"] == "False" else ""


def let_back(workload: Object, now: float) -> Object:
    """What kept it out is over: it is in its line again."""
    reason = kept_out(workload)
    back, message = _BACK.get(reason, ("Reactivated", "The workload was reactivated"))
    state = {k: v for k, v in read(workload, ("status", "requeueState"), {}).items() if k != "requeueAt"}
    return with_status(workload, now, (labels.REQUEUED, True, back, message), requeueState=state or None)


def waited(workload: Object, now: float) -> Object:
    """The time to wait is over."""
    state = {k: v for k, v in read(workload, ("status", "requeueState"), {}).items() if k != "requeueAt"}
    return with_status(workload, now, requeueState=state or None)


def unreserve(workload: Object, reason: str, message: str, now: float) -> Object:
    """It had quota and was not admitted yet: it goes back into its line."""
    return settle(with_status(workload, now, (labels.QUOTA_RESERVED, False, reason, message), admission=None), now)


def settled_off(workload: Object, now: float) -> Object:
    """It is switched off and does not run: it has no place in a line, and its retries are forgotten."""
    target = get_condition(workload, labels.DEACTIVATION_TARGET)
    off = transitions.deactivate(workload, now, target["message"] if target is not None else "")
    off["status"].pop("requeueState", None)
    off["status"]["conditions"] = [c for c in off["status"]["conditions"] if c["type"] != labels.DEACTIVATION_TARGET]
    return off


def is_settled_off(workload: Object) -> bool:
    """Whether :func:`settled_off` has nothing to do."""
    if get_condition(workload, labels.DEACTIVATION_TARGET) is not None or read(workload, ("status", "requeueState")):
        return False
    reserved, evicted = (get_condition(workload, k) or {} for k in (labels.QUOTA_RESERVED, labels.EVICTED))
    off = evicted.get("status") == "True" and str(evicted.get("reason")).startswith(DEACTIVATED)
    told = reserved.get("status") == "False" and (off or reserved.get("reason") == DEACTIVATED)
    return told and not read(workload, ("status", "forecast", "position"))
