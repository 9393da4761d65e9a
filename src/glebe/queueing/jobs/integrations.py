"""What the queue asks of a job, whatever its kind: where it is suspended, its pods, its end.

A kind is a row of a table (:mod:`glebe.queueing.jobkinds`); nothing else in the queue knows kinds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from glebe.kube.objects import Object, annotations_of, labels_of
from glebe.kube.resources import JOBS
from glebe.queueing import labels
from glebe.queueing.jobkinds import reclaim, shapes
from glebe.queueing.jobkinds.model import JobKind, PodSetView, any_holds
from glebe.queueing.jobkinds.paths import every, number, read
from glebe.queueing.jobkinds.registry import JobKinds, shipped

__all__ = ["Find", "Integration", "JobKind", "JobKinds", "PodSetView", "read"]

Integration = JobKind
#: Finds an object by kind, name and, for those in namespaces, its namespace.
Find = Callable[..., Object | None]

_BATCH_JOB = (JOBS.group, JOBS.kind)


def for_kind(api_version: str, kind: str) -> JobKind | None:
    """A shipped kind."""
    return _shipped().for_kind(api_version, kind)


def for_resource(group: str, plural: str) -> JobKind | None:
    """A shipped kind."""
    return _shipped().for_resource(group, plural)


@lru_cache(maxsize=1)
def _shipped() -> JobKinds:
    return JobKinds()


def switched() -> tuple[JobKind, ...]:
    """The shipped kinds with a suspend switch."""
    return tuple(kind for kind in shipped() if kind.suspend)


def pod_sets(kind: JobKind, job: Object, find: Find | None = None) -> list[PodSetView]:
    """The job's sets of equal pods.

    :param find: for kinds whose pods are described by other objects.
    :raises shapes.Unreadable: they cannot be told (yet): what is missing.
    """
    return shapes.pod_sets(kind, job, find)


def is_suspended(kind: JobKind, job: Object) -> bool:
    return bool(read(job, kind.suspend, False))


def is_skipped(kind: JobKind, job: Object) -> bool:
    """Whether the kind's own rules say that the queue has nothing to do with this one."""
    return any_holds(kind.skip, job)


def is_on_hold(kind: JobKind, job: Object) -> bool:
    """Whether it asks for no quota as it is."""
    return any_holds(kind.hold, job)


def is_active(kind: JobKind, job: Object) -> bool:
    """Whether pods of it exist that have not ended."""
    return any_holds(kind.active, job)


def finished(kind: JobKind, job: Object) -> tuple[str, str] | None:
    """(reason, message) for the workload's condition Finished, or None while the job goes on."""
    for ending in kind.finished:
        if ending.test.holds(job):
            word = "succeeded" if ending.reason == "Succeeded" else "failed"
            return ending.reason, ending.test.message(job) or f"{kind.resource.kind} {word}"
    return None


def pods_ready(kind: JobKind, job: Object, count: int | None = None) -> bool:
    """Whether every pod that should run is ready or has succeeded.

    :param count: how many were admitted; by default what the job says.
    """
    if not kind.ready_pods:
        return any_holds(kind.ready, job)
    wanted = count if count is not None else sum(view.count for view in pod_sets(kind, job))
    return sum(number(v) or 0 for path in kind.ready_pods for v in every(job, path)) >= wanted


def reclaimable(kind: JobKind, job: Object) -> list[dict[str, Any]]:
    """``status.reclaimablePods``: pods that are done for good while others of the job go on."""
    return reclaim.reclaimable(kind, job, pod_sets(kind, job)) if kind.pod_sets else []


def expected_pods(kind: JobKind, job: Object) -> int:
    """How many pods of a batch Job its controller keeps running now."""
    wanted = sum(view.count for view in pod_sets(kind, job))
    completions = read(job, ("spec", "completions"))
    if completions is None or (kind.resource.group, kind.resource.kind) != _BATCH_JOB:
        return wanted
    return max(0, min(wanted, int(completions) - int(read(job, ("status", "succeeded"), 0))))


def queue_of(kind: JobKind | None, job: Object) -> str:
    """The queue that the job names: by label, by the words of other queues, or where its kind has a place for it."""
    if name := labels_of(job).get(labels.QUEUE_NAME):
        return name
    for path in kind.queue if kind is not None else ():
        if (value := read(job, path)) and isinstance(value, str):
            return value
    return labels_of(job).get(labels.KAI_QUEUE) or annotations_of(job).get(labels.VOLCANO_QUEUE) or ""


def is_queued(job: Object, kind: JobKind | None = None) -> bool:
    return bool(queue_of(kind, job))
