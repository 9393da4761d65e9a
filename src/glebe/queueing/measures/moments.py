"""What happens to workloads, counted as Kueue counts it: reserved, admitted, ready, evicted, preempted, finished.

Told by the change of a workload's conditions. What was so before this process looked is not counted.
Source: kueue:pkg/metrics.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from typing import Any

from glebe.apiserver.metrics.families import Families, Family, Histogram
from glebe.kube.clock import parse_time
from glebe.kube.objects import Object, get_condition
from glebe.queueing import labels
from glebe.queueing.picture import convert

#: Seconds: 1, 2.5, 5, 10 ... as Kueue has them.
WAITS = (1.0, *(2.5 * 2**n for n in range(13)))
RUNS = (1.0, *(2.5 * 2**n for n in range(15)))
_CLASS = "priority_class"
_PATH = re.compile(r"preemptor path: \S*?([^/\s;]+)(?:;|$)")


class Both:
    """One of Kueue's families by ClusterQueue and its sister by LocalQueue (``local_queue_...``)."""

    def __init__(
        self, families: Families, name: str, text: str, more: Sequence[str], bounds: Sequence[float] = ()
    ) -> None:
        self._of: list[Family] = []
        for prefix, first, by in (
            ("", ("cluster_queue",), "ClusterQueue"),
            ("local_queue_", ("name", "namespace"), "LocalQueue"),
        ):
            full, said = f"kueue_{prefix}{name}", f"{text}, by {by}."
            marks = (*first, *more, "replica_role")
            self._of.append(
                families.histogram(full, said, marks, bounds) if bounds else families.counter(full, said, marks)
            )

    def add(self, door: Door, more: Sequence[str], value: float = 1.0) -> None:
        for family, first in zip(self._of, ((door.cluster_queue,), (door.name, door.namespace)), strict=True):
            if not all(first):
                continue  # a tenant's LocalQueue: its name is the tenant's
            marks = (*first, *more, door.role)
            if isinstance(family, Histogram):
                family.of(*marks).observe(max(0.0, value))
            else:
                family.add(marks, value)


class Door:
    """Which queues a workload goes through, as labels."""

    __slots__ = ("cluster_queue", "name", "namespace", "role")

    def __init__(self, workload: Object, cluster_queue: str, role: str, *, own: bool) -> None:
        self.cluster_queue = cluster_queue
        self.name = (workload["spec"].get("queueName") or labels.DEFAULT_QUEUE) if own else ""
        self.namespace = workload["metadata"]["namespace"] if own else ""
        self.role = role


class Moments:
    """Sees every change of a workload.

    :param role: Kueue's label ``replica_role``.
    """

    def __init__(self, families: Families, role: str) -> None:
        self.role = role
        new = families
        self._reserved = Both(new, "quota_reserved_workloads_total", "Workloads that got quota", [_CLASS])
        self._reserved_wait = Both(
            new, "quota_reserved_wait_time_seconds", "From creation or requeuing to quota", [_CLASS], WAITS
        )
        self._admitted = Both(new, "admitted_workloads_total", "Workloads that were admitted", [_CLASS])
        self._admitted_wait = Both(
            new, "admission_wait_time_seconds", "From creation or requeuing to admission", [_CLASS], WAITS
        )
        self._checks_wait = Both(
            new, "admission_checks_wait_time_seconds", "From quota to admission, while checks are made", [_CLASS], WAITS
        )
        self._ready_wait = Both(
            new, "ready_wait_time_seconds", "From creation or requeuing until all pods are ready", [_CLASS], WAITS
        )
        self._until_ready = Both(
            new, "admitted_until_ready_wait_time_seconds", "From admission until all pods are ready", [_CLASS], WAITS
        )
        self._evicted = Both(new, "evicted_workloads_total", "Evictions", ["reason", "underlying_cause", _CLASS])
        self._finished = Both(new, "finished_workloads_total", "Workloads that finished", [_CLASS])
        self._ran = Both(
            new, "execution_time_seconds", "From the first admission to the end of the workload", [_CLASS], RUNS
        )
        one = ("cluster_queue", "reason", "underlying_cause", _CLASS, "replica_role")
        self._once = new.counter(
            "kueue_evicted_workloads_once_total", "Workloads evicted for a cause for the first time.", one
        )
        self._ready_to_evicted = new.histogram(
            "kueue_pods_ready_to_evicted_time_seconds",
            "From ready pods to the eviction.",
            ("cluster_queue", "reason", "underlying_cause", "replica_role"),
            WAITS,
        )
        self._preempted = new.counter(
            "kueue_preempted_workloads_total",
            "Preempted workloads, by the queue for which they made room.",
            ("preempting_cluster_queue", "reason", "replica_role"),
        )
        self._let_go = new.histogram(
            "kueue_workload_eviction_latency_seconds",
            "From the eviction until the quota is given back.",
            ("cluster_queue", "reason", "replica_role"),
            WAITS,
        )
        self._replaced = new.counter(
            "kueue_replaced_workload_slices_total",
            "Workloads of elastic jobs that another size took the place of.",
            ("cluster_queue", "replica_role"),
        )

    def see(self, old: Object | None, new: Object | None, cluster_queue: str, *, own: bool) -> None:
        """One workload has changed.

        :param cluster_queue: where it waits, or waited.
        :param own: it is in the host's own cluster.
        """
        if old is None or new is None:
            return
        before, after = _true(old), _true(new)
        became = [kind for kind in _TOLD if kind in after and kind not in before]
        if not became and (not _holder(old) or _holder(new)):
            return
        door = Door(new, _holder(new) or _holder(old) or cluster_queue, self.role, own=own)
        mark = priority_class(new)
        for kind in became:
            _TOLD[kind](self, door, mark, old, new)
        if _is(new, labels.EVICTED) and _holder(old) and not _holder(new):
            reason = _said(new, labels.EVICTED)["reason"]
            now = _since(new, labels.QUOTA_RESERVED) or _since(new, labels.EVICTED)
            self._let_go.of(door.cluster_queue, reason, self.role).observe(max(0.0, now - _since(new, labels.EVICTED)))

    def _got_quota(self, door: Door, mark: str, old: Object, new: Object) -> None:
        self._reserved.add(door, [mark])
        self._reserved_wait.add(door, [mark], _since(new, labels.QUOTA_RESERVED) - waited_from(new))

    def _was_admitted(self, door: Door, mark: str, old: Object, new: Object) -> None:
        at = _since(new, labels.ADMITTED)
        self._admitted.add(door, [mark])
        self._admitted_wait.add(door, [mark], at - waited_from(new))
        self._checks_wait.add(door, [mark], at - (_since(new, labels.QUOTA_RESERVED) or at))

    def _is_ready(self, door: Door, mark: str, old: Object, new: Object) -> None:
        if _said(new, labels.PODS_READY).get("reason") == "Recovered":
            return
        at = _since(new, labels.PODS_READY)
        self._ready_wait.add(door, [mark], at - waited_from(new))
        self._until_ready.add(door, [mark], at - (_since(new, labels.ADMITTED) or at))

    def _was_evicted(self, door: Door, mark: str, old: Object, new: Object) -> None:
        reason, cause = _causes(new)
        self._evicted.add(door, [reason, cause, mark])
        if _evictions(new, reason, cause) <= 1:
            self._once.add((door.cluster_queue, reason, cause, mark, self.role))
        if _is(old, labels.PODS_READY):
            time = _since(new, labels.EVICTED) - _since(old, labels.PODS_READY)
            self._ready_to_evicted.of(door.cluster_queue, reason, cause, self.role).observe(max(0.0, time))

    def _was_preempted(self, door: Door, mark: str, old: Object, new: Object) -> None:
        said = _said(new, labels.PREEMPTED)
        found = _PATH.search(said.get("message", ""))
        self._preempted.add((found[1] if found else "", said["reason"], self.role))

    def _has_finished(self, door: Door, mark: str, old: Object, new: Object) -> None:
        if _said(new, labels.FINISHED)["reason"] == "WorkloadSliceReplaced":
            self._replaced.add((door.cluster_queue, self.role))
        self._finished.add(door, [mark])
        if _is(old, labels.ADMITTED):
            past = float((new.get("status") or {}).get("accumulatedPastExecutionTimeSeconds") or 0)
            run = _since(new, labels.FINISHED) - _since(old, labels.ADMITTED)
            self._ran.add(door, [mark], past + max(0.0, run))


_TOLD = {
    labels.QUOTA_RESERVED: Moments._got_quota,
    labels.ADMITTED: Moments._was_admitted,
    labels.PODS_READY: Moments._is_ready,
    labels.EVICTED: Moments._was_evicted,
    labels.PREEMPTED: Moments._was_preempted,
    labels.FINISHED: Moments._has_finished,
}


def priority_class(workload: Object) -> str:
    """The name of the class that its priority comes from; empty without one."""
    return str((workload["spec"].get("priorityClassRef") or {}).get("name") or "")


def waited_from(workload: Object) -> float:
    """When its wait began: when it came, or was put back into the queue."""
    return max(convert.queued_at(workload), _since(workload, labels.REQUEUED), _since(workload, labels.EVICTED))


def _said(workload: Object, kind: str) -> dict[str, Any]:
    return get_condition(workload, kind) or {}


def _true(workload: Object) -> set[str]:
    """The conditions that hold."""
    return {c["type"] for c in (workload.get("status") or {}).get("conditions") or () if c["status"] == "True"}


def _is(workload: Object, kind: str) -> bool:
    return bool(_said(workload, kind).get("status") == "True")


def _since(workload: Object, kind: str) -> float:
    """When a condition last changed; 0 without it."""
    with contextlib.suppress(ValueError, KeyError):
        return parse_time(_said(workload, kind)["lastTransitionTime"])
    return 0.0


def _holder(workload: Object) -> str:
    return str(((workload.get("status") or {}).get("admission") or {}).get("clusterQueue") or "")


def _causes(workload: Object) -> tuple[str, str]:
    """(reason, underlying cause): Kueue writes ``DeactivatedDueTo...`` for what made it deactivate a workload."""
    reason = str(_said(workload, labels.EVICTED).get("reason") or "")
    if reason.startswith("DeactivatedDueTo"):
        return "Deactivated", reason.removeprefix("DeactivatedDueTo")
    return reason, ""


def _evictions(workload: Object, reason: str, cause: str) -> int:
    stats = ((workload.get("status") or {}).get("schedulingStats") or {}).get("evictions") or ()
    return sum(int(e["count"]) for e in stats if e["reason"] == reason and e.get("underlyingCause", "") == cause)
