"""Job kinds as data: where a kind keeps its suspend switch, its pods, its counts and its end.

A new kind is an entry of :data:`INTEGRATIONS`; nothing else in the queue knows kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from glebe.kube.objects import Object
from glebe.kube.resources import JOBS, Resource
from glebe.queueing import labels

Path = tuple[str, ...]
#: Finds a cluster-scoped object by kind and name.
Find = Callable[[Resource, str], Object | None]


@dataclass(frozen=True, slots=True)
class PodSetSource:
    """One set of equal pods. Their number is the least of those ``counts`` that are set, 1 when none is."""

    name: str
    template: Path
    counts: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Integration:
    """One kind of job."""

    resource: Resource
    suspend: Path
    pod_sets: tuple[PodSetSource, ...]
    finished: tuple[tuple[str, str], ...]  # (condition of the job, reason of the workload's Finished)
    active: Path  # pods that exist and have not ended
    ready: Path
    succeeded: Path
    completions: Path
    index_annotation: str  # on pods: the rank
    pod_owner_label: str  # on pods: the job's uid


INTEGRATIONS: tuple[Integration, ...] = (
    Integration(
        resource=JOBS,
        suspend=("spec", "suspend"),
        pod_sets=(
            PodSetSource(
                labels.DEFAULT_POD_SET, ("spec", "template"), (("spec", "parallelism"), ("spec", "completions"))
            ),
        ),
        finished=(("Complete", "Succeeded"), ("Failed", "Failed")),
        active=("status", "active"),
        ready=("status", "ready"),
        succeeded=("status", "succeeded"),
        completions=("spec", "completions"),
        index_annotation=labels.COMPLETION_INDEX,
        pod_owner_label=labels.JOB_CONTROLLER_UID,
    ),
)
_BY_KIND = {(i.resource.api_version, i.resource.kind): i for i in INTEGRATIONS}
_BY_RESOURCE = {(i.resource.group, i.resource.plural): i for i in INTEGRATIONS}


def for_kind(api_version: str, kind: str) -> Integration | None:
    return _BY_KIND.get((api_version, kind))


def for_resource(group: str, plural: str) -> Integration | None:
    return _BY_RESOURCE.get((group, plural))


def read(obj: Any, path: Iterable[str], default: Any = None) -> Any:
    """The value at ``path``; ``default`` where any part is missing or null."""
    for name in path:
        obj = obj.get(name) if isinstance(obj, dict) else None
        if obj is None:
            return default
    return obj


def pod_count(job: Object, source: PodSetSource) -> int:
    """How many pods of the set run at once."""
    given = [int(value) for path in source.counts if (value := read(job, path)) is not None]
    return min(given) if given else 1


def is_suspended(integration: Integration, job: Object) -> bool:
    return bool(read(job, integration.suspend, False))


def finished(integration: Integration, job: Object) -> tuple[str, str] | None:
    """(reason, message) for the workload's condition Finished, or None while the job goes on."""
    for condition in read(job, ("status", "conditions"), ()):
        for kind, reason in integration.finished:
            if condition.get("type") == kind and condition.get("status") == "True":
                return reason, condition.get("message") or f"Job {kind.lower()}"
    return None


def pods_ready(integration: Integration, job: Object) -> bool:
    """Whether every pod that should run is ready or has succeeded."""
    wanted = sum(pod_count(job, s) for s in integration.pod_sets)
    there = int(read(job, integration.ready, 0)) + int(read(job, integration.succeeded, 0))
    return there >= wanted


def expected_pods(integration: Integration, job: Object) -> int:
    """How many pods the job's controller keeps running now."""
    wanted = sum(pod_count(job, s) for s in integration.pod_sets)
    completions = read(job, integration.completions)
    if completions is None:
        return wanted
    return max(0, min(wanted, int(completions) - int(read(job, integration.succeeded, 0))))


def is_queued(job: Object) -> bool:
    return bool((job["metadata"].get("labels") or {}).get(labels.QUEUE_NAME))
