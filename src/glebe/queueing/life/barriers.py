"""What keeps a waiting workload from being looked at at all, in words."""

from __future__ import annotations

from glebe.kube.clock import format_time
from glebe.kube.objects import Object, annotations_of, condition_is_true, get_condition
from glebe.queueing import labels
from glebe.queueing.life import evictions
from glebe.scheduling import model as m

ON_HOLD = "OnHold"


def kept_out(key: str, workload: Object) -> m.Decision | None:
    """It was evicted and must not come back yet, or somebody holds it back; ``None`` when it is in its line."""
    if gates := annotations_of(workload).get(labels.ADMISSION_GATED_BY):
        message, remedy = f"Admission is gated by: {gates}", "whoever set the gate takes it away"
        return m.Decision(key, m.Outcome.WAIT, m.Reason.ADMISSION_GATED, message, remedy)
    until, reason = evictions.requeue_at(workload), evictions.kept_out(workload)
    if until is not None:
        return _waits(key, f"{_last(workload)}; it is looked at again at {format_time(until)}")
    if reason:
        return _waits(key, _last(workload))
    if condition_is_true(workload, labels.WAITING_FOR_REPLACEMENT):
        return _waits(key, "pods of its group have ended and wait to be replaced")
    return None


def on_hold(workload: Object) -> bool:
    """Its job has given its quota back and wants none for now."""
    reserved = get_condition(workload, labels.QUOTA_RESERVED) or {}
    return reserved.get("status") == "False" and reserved.get("reason") == ON_HOLD


def invalid(pending: m.Pending) -> m.Decision:
    """Its pods could never be made."""
    remedy = "change the pods' resources, or the namespace's LimitRange"
    return m.Decision(pending.key, m.Outcome.NEVER, m.Reason.MISCONFIGURED, pending.invalid, remedy)


def _last(workload: Object) -> str:
    return str((get_condition(workload, labels.EVICTED) or {}).get("message") or "it was stopped")


def _waits(key: str, message: str) -> m.Decision:
    return m.Decision(key, m.Outcome.WAIT, m.Reason.PENDING_EVALUATION, message)
