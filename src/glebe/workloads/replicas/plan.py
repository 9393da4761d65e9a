"""One reconciliation of one ReplicaSet or ReplicationController: facts in, numbers and status out. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from glebe.kube.clock import format_time
from glebe.kube.objects import Object, get_condition, is_deleting, labels_of
from glebe.workloads.replicas.kinds import Kind
from glebe.workloads.replicas.pods import available_in, crowding, removal_rank

BURST = 500
"""Pods created or removed in one reconciliation (as upstream)."""
FAILURE = "ReplicaFailure"


def _none() -> Iterable[Object]:
    return ()


@dataclass
class Facts:
    """An object that keeps replicas, its pods and the time.

    :param pods: those that are its own, run or may run, and are not being deleted.
    :param terminating: how many of its pods are on their way out.
    :param settled: the cache shows every creation and deletion that was sent before.
    :param related: all pods of the sets that have the same controller, for spreading; asked only when pods must go.
    """

    kind: Kind
    obj: Object
    pods: list[Object]
    now: float
    terminating: int = 0
    settled: bool = True
    related: Callable[[], Iterable[Object]] = field(default=_none)

    @property
    def wanted(self) -> int:
        value = self.obj["spec"].get("replicas")
        return 1 if value is None else int(value)

    @property
    def min_ready(self) -> int:
        return int(self.obj["spec"].get("minReadySeconds") or 0)


@dataclass(slots=True)
class Plan:
    """How many pods to create, or which ones to delete."""

    create: int = 0
    delete: list[Object] = field(default_factory=list)


def plan(f: Facts) -> Plan:
    """What to do now. Nothing while earlier deeds are not seen yet, or when the object itself goes."""
    if not f.settled or is_deleting(f.obj):
        return Plan()
    missing = f.wanted - len(f.pods)
    if missing >= 0:
        return Plan(create=min(missing, BURST))
    surplus = min(-missing, BURST)
    if surplus == len(f.pods):
        return Plan(delete=list(f.pods))
    rank = removal_rank(f.now, crowding(f.related()))
    return Plan(delete=sorted(f.pods, key=rank)[:surplus])


def status(f: Facts, failure: str = "") -> Object | None:
    """The whole new status; ``None`` when it is the old one.

    :param failure: what creating or deleting pods just ran into.
    """
    old: Object = f.obj.get("status") or {}
    template = labels_of(f.obj["spec"].get("template") or {"metadata": {}}).items()
    waits = [available_in(p, f.min_ready, f.now) for p in f.pods]
    counts = {
        "fullyLabeledReplicas": sum(1 for p in f.pods if template <= labels_of(p).items()),
        "readyReplicas": sum(1 for w in waits if w is not None),
        "availableReplicas": sum(1 for w in waits if w == 0),
        "observedGeneration": int(f.obj["metadata"].get("generation", 0)),
    }
    new: Object = {"replicas": len(f.pods), **{name: count for name, count in counts.items() if count}}
    if f.kind.counts_terminating:
        new["terminatingReplicas"] = f.terminating
    if conditions := _conditions(f, failure):
        new["conditions"] = conditions
    return None if new == old else new


def _conditions(f: Facts, failure: str) -> list[Object]:
    """The failure is kept as it was first met; it goes with the first success."""
    old: list[Object] = list((f.obj.get("status") or {}).get("conditions") or ())
    known = get_condition(f.obj, FAILURE)
    if not failure:
        return [c for c in old if c.get("type") != FAILURE] if known else old
    if known is not None:
        return old
    reason = "FailedCreate" if len(f.pods) < f.wanted else "FailedDelete"
    now = format_time(f.now)
    return [
        *old,
        {"type": FAILURE, "status": "True", "lastTransitionTime": now, "reason": reason, "message": failure},
    ]


def next_look(f: Facts) -> float | None:
    """Seconds until a ready pod becomes available by time alone."""
    if f.min_ready <= 0:
        return None
    waits = [w for p in f.pods if (w := available_in(p, f.min_ready, f.now))]
    return min(waits) if waits else None
