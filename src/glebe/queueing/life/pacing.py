"""When a cycle may not write all that was decided, and when time alone calls for another one."""

from __future__ import annotations

from dataclasses import replace

from glebe.kube import resources as r
from glebe.kube.objects import Object, condition_is_true
from glebe.queueing import labels
from glebe.queueing.configuration import Configuration
from glebe.queueing.picture import convert
from glebe.queueing.picture.snapshot import SnapshotBuilder
from glebe.scheduling.model import Decision, Outcome, Reason, Snapshot

_WAITS = "waiting for all admitted workloads to be in PodsReady condition"


def blocks(config: Configuration) -> bool:
    """Whether nobody is admitted while pods of somebody admitted are not ready (``blockAdmission``)."""
    ready = config.wait_for_pods_ready
    return ready is not None and ready.enable and ready.block_admission


def one_by_one(builder: SnapshotBuilder, admit: list[Decision]) -> tuple[list[Decision], list[Decision]]:
    """Who of ``admit`` may go now, and the others with the reason for which they wait.

    With ``blockAdmission`` it is the first one, when all who were admitted have their pods ready.
    """
    if not admit or not blocks(builder.config):
        return admit, []
    free = all(_has_started(builder.workload(key) or {}) for key in builder.objects[r.WORKLOADS])
    going = admit[:1] if free else []
    held = [
        replace(
            d, outcome=Outcome.WAIT, reason=Reason.WAITING_FOR_PODS_READY, message=_WAITS, remedy="", assignments=()
        )
        for d in admit[len(going) :]
    ]
    return going, held


def _has_started(workload: Object) -> bool:
    if not workload or not convert.may_run(workload):
        return True
    return condition_is_true(workload, labels.PODS_READY)


def protection_ends(snapshot: Snapshot, now: float) -> float | None:
    """Seconds until the next running workload may be preempted that is still within its minimum run time."""
    shields = {q.name: q.min_run_time for q in snapshot.queues if q.min_run_time}
    if not shields or not snapshot.pending:
        return None
    left = (a.started_at + shields[a.queue] - now for a in snapshot.admitted if a.queue in shields)
    return min((seconds for seconds in left if seconds > 0), default=None)
