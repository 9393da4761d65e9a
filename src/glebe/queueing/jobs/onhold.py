"""Workloads whose job asks for nothing as it is: scaled to zero, or refused by its operator. Pure.

They keep their Workload and hold no quota, with the reason ``OnHold`` (Kueue's word); later they join the line anew.
"""

from __future__ import annotations

from glebe.kube.clock import format_micro_time
from glebe.kube.objects import Object, annotations_of
from glebe.queueing import labels
from glebe.queueing.life import transitions


def put(workload: Object, message: str, now: float) -> Object:
    """Its next status: no quota, in no line."""
    return transitions.with_status(
        workload,
        now,
        (labels.QUOTA_RESERVED, False, labels.ON_HOLD, message),
        (labels.ADMITTED, False, "NoReservation", "the workload has no reservation"),
        admission=None,
        forecast=None,
    )


def resume(workload: Object, message: str, now: float) -> Object:
    """Its next status: it waits."""
    return transitions.with_status(workload, now, (labels.QUOTA_RESERVED, False, "Pending", message))


def rejoined(workload: Object, now: float) -> Object:
    """The same workload, submitted now."""
    notes = {**annotations_of(workload), labels.SUBMITTED_AT: format_micro_time(now)}
    return {**workload, "metadata": {**workload["metadata"], "annotations": notes}}
