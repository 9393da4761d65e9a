"""What the checker has seen so far: the latest state of every object, in the order of commits.

Independent of the platform's own caches on purpose: it is fed by the store itself, write by write.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from glebe.kube.clock import parse_time
from glebe.kube.objects import Object, condition_is_true, labels_of
from glebe.kube.quantity import parse

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
GPU = "nvidia.com/gpu"
TERMINAL = frozenset({"Succeeded", "Failed"})


class World:
    """Latest objects by group resource and (namespace, name)."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[tuple[str, str], Object]] = {}
        self.highest: dict[str, int] = {}
        """By uid of a Deployment or ReplicaSet: the most pods that it was ever to have."""
        self.preempted: dict[tuple[str, str], int] = {}
        """How often, by the uids of who left and for whom."""

    def apply(self, group_resource: str, namespace: str, name: str, new: Object | None) -> Object | None:
        """Take one committed write in; returns what was there before."""
        table = self._objects.setdefault(group_resource, {})
        old = table.get((namespace, name))
        if new is None:
            table.pop((namespace, name), None)
        else:
            table[(namespace, name)] = new
        return old

    def get(self, group_resource: str, namespace: str, name: str) -> Object | None:
        return self._objects.get(group_resource, {}).get((namespace, name))

    def all(self, group_resource: str) -> Iterator[Object]:
        yield from self._objects.get(group_resource, {}).values()

    def pods_on(self, node: str) -> Iterator[Object]:
        """Pods that hold resources on ``node``: bound and not finished."""
        for pod in self.all("pods"):
            if pod["spec"].get("nodeName") == node and phase(pod) not in TERMINAL:
                yield pod

    def pods_of_job(self, job_uid: str) -> Iterator[Object]:
        for pod in self.all("pods"):
            if owner_uid(pod) == job_uid:
                yield pod

    def workload_of_job(self, job_uid: str) -> Object | None:
        for workload in self.all("workloads.kueue.x-k8s.io"):
            if owner_uid(workload) == job_uid:
                return workload
        return None


def phase(pod: Object) -> str:
    return str((pod.get("status") or {}).get("phase", "Pending"))


def finished_at(pod: Object) -> float | None:
    """When the last container ended, by its own word; ``None`` if nobody said."""
    states = [c.get("state", {}) for c in (pod.get("status") or {}).get("containerStatuses") or ()]
    times = [s["terminated"]["finishedAt"] for s in states if s.get("terminated", {}).get("finishedAt")]
    return max(map(parse_time, times)) if times else None


def owner_uid(obj: Object) -> str:
    for ref in obj["metadata"].get("ownerReferences") or ():
        if ref.get("controller"):
            return str(ref["uid"])
    return ""


def requests(pod: Object) -> dict[str, Fraction]:
    """Sum over the containers of a pod, exact."""
    total: dict[str, Fraction] = {}
    for container in pod["spec"]["containers"]:
        for name, quantity in ((container.get("resources") or {}).get("requests") or {}).items():
            total[name] = total.get(name, Fraction(0)) + Fraction(parse(quantity))
    return total


def gpus(pod: Object) -> int:
    return int(requests(pod).get(GPU, Fraction(0)))


def is_queued(obj: Object) -> bool:
    return QUEUE_LABEL in labels_of(obj)


def is_gated(pod: Object) -> bool:
    return bool(pod["spec"].get("schedulingGates"))


def is_deleting(obj: Object) -> bool:
    return "deletionTimestamp" in obj["metadata"]


def holds_quota(workload: Object) -> bool:
    return condition_is_true(workload, "QuotaReserved") and not condition_is_true(workload, "Finished")


def is_finished(job: Object) -> bool:
    return condition_is_true(job, "Complete") or condition_is_true(job, "Failed")
