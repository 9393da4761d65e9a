"""What pods and nodes say about allocations: pure readings of Kubernetes objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from glebe.kube.clock import parse_time
from glebe.kube.objects import Object, annotations_of, controller_of, get_condition, labels_of
from glebe.kube.pods import has_ended, requests_of
from glebe.kube.quantity import QuantityError, to_int

GPU_RESOURCE = "nvidia.com/gpu"
_QUEUE_LABELS = ("kueue.x-k8s.io/local-queue-name", "kueue.x-k8s.io/queue-name")
_CLUSTER_QUEUE_LABEL = "kueue.x-k8s.io/cluster-queue-name"
_USER_ANNOTATIONS = ("glebe.dev/submitted-by", "glebe.dev/user")


class Row(NamedTuple):
    """Whom an allocation is charged to."""

    namespace: str
    queue: str
    cluster_queue: str
    user: str


class Charge(NamedTuple):
    """A row and the workload (uid of the job, else of the pod) whose allocation it is."""

    row: Row
    workload: str


@dataclass(frozen=True, slots=True)
class End:
    """When an allocation ended; ``estimated`` when nobody wrote it down."""

    at: int
    estimated: bool = False


def gpus_of_pod(pod: Object) -> int:
    """The GPUs that a pod holds on its node."""
    try:
        return max(0, requests_of(pod["spec"], GPU_RESOURCE).get(GPU_RESOURCE, 0))
    except QuantityError:
        return 0


def gpus_of_node(node: Object) -> int:
    """The GPUs that a node has (capacity: also those it does not offer at present are owned)."""
    return _count(((node.get("status") or {}).get("capacity") or {}).get(GPU_RESOURCE, 0))


def _count(value: Any) -> int:
    try:
        return max(0, to_int(value, GPU_RESOURCE))
    except QuantityError:
        return 0


def created_at(obj: Object) -> int:
    """When the object was created, 0 if it does not say."""
    return _second(obj["metadata"].get("creationTimestamp")) or 0


def node_ready(node: Object) -> tuple[bool, int | None]:
    """(ready, since when, where the condition says)."""
    condition = get_condition(node, "Ready") or {}
    return condition.get("status") == "True", _second(condition.get("lastTransitionTime"))


def bound_at(pod: Object) -> int | None:
    """When the pod was given its node."""
    condition = get_condition(pod, "PodScheduled") or {}
    if condition.get("status") == "True" and condition.get("lastTransitionTime"):
        return _second(condition["lastTransitionTime"])
    return _second((pod.get("status") or {}).get("startTime"))


def end_of(pod: Object, now: int) -> End | None:
    """When a pod that has run to its end released its GPUs; ``None`` while it holds them."""
    if not has_ended(pod):
        return None
    ends = []
    for container in pod["status"].get("containerStatuses") or ():
        finished = ((container.get("state") or {}).get("terminated") or {}).get("finishedAt")
        if finished:
            ends.append(_second(finished) or 0)
    return End(min(max(ends), now)) if ends else End(now, estimated=True)


def charge_of(pod: Object, job: Object | None) -> Charge:
    """Whom to charge: labels and annotations of the pod, then those of the job that owns it."""
    sources = [pod] if job is None else [pod, job]
    labels = [labels_of(source) for source in sources]
    notes = [annotations_of(source) for source in sources]
    owner = controller_of(pod)
    row = Row(
        pod["metadata"].get("namespace", ""),
        _first(labels, _QUEUE_LABELS),
        _first(labels, (_CLUSTER_QUEUE_LABEL,)) or _first(notes, (_CLUSTER_QUEUE_LABEL,)),
        _first(notes, _USER_ANNOTATIONS),
    )
    return Charge(row, owner["uid"] if owner is not None else pod["metadata"]["uid"])


def _first(maps: list[dict[str, str]], keys: tuple[str, ...]) -> str:
    for values in maps:
        for key in keys:
            if values.get(key):
                return values[key]
    return ""


def _second(text: str | None) -> int | None:
    return int(parse_time(text)) if text else None
