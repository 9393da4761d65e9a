"""What one pod of a Job says: its index, whether it is finished, failed, active, and when it ended."""

from __future__ import annotations

from collections.abc import Iterable

from glebe.kube.clock import parse_time
from glebe.kube.objects import Object, annotations_of, condition_is_true, is_deleting
from glebe.kube.pods import has_ended, phase_of

FINALIZER = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"
FAILURE_COUNT = "batch.kubernetes.io/job-index-failure-count"


def uid_of(obj: Object) -> str:
    return str(obj["metadata"].get("uid", ""))


def name_of(obj: Object) -> str:
    return str(obj["metadata"]["name"])


def is_tracked(pod: Object) -> bool:
    """Whether the pod still carries the tracking finalizer, so that it has not been counted yet."""
    return FINALIZER in (pod["metadata"].get("finalizers") or ())


def is_active(pod: Object) -> bool:
    return not has_ended(pod) and not is_deleting(pod)


def is_terminating(pod: Object) -> bool:
    return is_deleting(pod) and not has_ended(pod)


def is_ready(pod: Object) -> bool:
    return condition_is_true(pod, "Ready")


def index_of(pod: Object) -> int | None:
    """The completion index, ``None`` when the annotation is absent or unreadable."""
    text = annotations_of(pod).get(INDEX, "")
    return int(text) if text.isdigit() else None


def failure_count(pod: Object) -> int:
    """Failures of this pod's index before this pod (``backoffLimitPerIndex``)."""
    text = annotations_of(pod).get(FAILURE_COUNT, "")
    return int(text) if text.isdigit() else 0


def creation_rank(pod: Object) -> tuple[str, str]:
    return str(pod["metadata"].get("creationTimestamp", "")), name_of(pod)


def finish_time(pod: Object) -> float | None:
    """When the pod ended: its last container's end, else its deletion, else its last Ready transition."""
    status = pod.get("status") or {}
    ends = [
        parse_time(terminated["finishedAt"])
        for container in status.get("containerStatuses") or ()
        if (terminated := (container.get("state") or {}).get("terminated")) and terminated.get("finishedAt")
    ]
    if ends:
        return max(ends)
    if "deletionTimestamp" in pod["metadata"]:
        return parse_time(pod["metadata"]["deletionTimestamp"])
    changes = {c.get("type"): c.get("lastTransitionTime") for c in status.get("conditions") or ()}
    if known := changes.get("DisruptionTarget") or changes.get("Ready"):
        return parse_time(known)
    created = pod["metadata"].get("creationTimestamp")
    return parse_time(created) if created else None


def removal_rank(pod: Object) -> tuple[bool, int, bool, str, str]:
    """Sorts pods by how little is lost when they go: unassigned, pending, not ready, youngest first."""
    order = {"Pending": 0, "Unknown": 1, "Running": 2}
    created, name = creation_rank(pod)
    return (
        bool((pod.get("spec") or {}).get("nodeName")),
        order.get(phase_of(pod), 2),
        is_ready(pod),
        _descending(created),
        name,
    )


def _descending(text: str) -> str:
    return "".join(chr(0x10FFFF - ord(c)) for c in text)


def by_index(pods: Iterable[Object]) -> dict[int, list[Object]]:
    out: dict[int, list[Object]] = {}
    for pod in pods:
        index = index_of(pod)
        if index is not None:
            out.setdefault(index, []).append(pod)
    return out
