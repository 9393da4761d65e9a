"""What waits and runs in each LocalQueue, counted change by change: thousands of workloads are never gone through."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from glebe.kube.objects import Object, ObjectKey, condition_is_true, key_of
from glebe.queueing import labels
from glebe.queueing.picture import convert

Usage = dict[str, dict[str, int]]  # flavor -> resource -> amount


@dataclass(slots=True)
class Tally:
    """``reserved`` counts what holds quota, ``used`` what is admitted."""

    pending: int = 0
    reserving: int = 0
    admitted: int = 0
    reserved: Usage = field(default_factory=dict)
    used: Usage = field(default_factory=dict)

    def add(self, other: Tally, sign: int = 1) -> None:
        self.pending += sign * other.pending
        self.reserving += sign * other.reserving
        self.admitted += sign * other.admitted
        for mine, theirs in ((self.reserved, other.reserved), (self.used, other.used)):
            for flavor, amounts in theirs.items():
                row = mine.setdefault(flavor, {})
                for resource, amount in amounts.items():
                    row[resource] = row.get(resource, 0) + sign * amount


def tally_of(workload: Object) -> Tally:
    """What one workload counts for."""
    out = Tally()
    if convert.is_finished(workload):
        return out
    if not convert.holds_quota(workload):
        out.pending = int(convert.is_active(workload))
        return out
    out.reserving = 1
    out.admitted = int(condition_is_true(workload, labels.ADMITTED))
    for a in convert.assignments(workload):
        for resource, amount in a.usage.items():
            name = a.flavors.get(resource)
            if name is None:
                continue
            for table in (out.reserved, out.used) if out.admitted else (out.reserved,):
                row = table.setdefault(name, {})
                row[resource] = row.get(resource, 0) + amount
    return out


class Tallies:
    """Sums by LocalQueue (:func:`.tenancy.door`), and what workloads hold of the quota of each ClusterQueue.

    The two differ: a workload keeps its quota when its LocalQueue is deleted.
    """

    def __init__(self, cluster: str) -> None:
        self._cluster = cluster
        self._known: dict[ObjectKey, tuple[str, str, Tally]] = {}
        self._sums: dict[str, Tally] = {}
        self._holders: dict[str, int] = {}
        self._held: dict[str, Tally] = {}

    def change(self, old: Object | None, new: Object | None) -> bool:
        """A workload appeared, changed or vanished; whether that changes any sum."""
        key = key_of(new or old or {}, self._cluster)
        before = self._known.get(key)
        after = (local_queue_of(new), holds_in(new), tally_of(new)) if new is not None else None
        if before == after:
            return False
        for known, sign in ((before, -1), (after, 1)):
            if known is not None:
                self._sums.setdefault(known[0], Tally()).add(known[2], sign)
                self._holders[known[1]] = self._holders.get(known[1], 0) + sign
                if known[1]:
                    self._held.setdefault(known[1], Tally()).add(known[2], sign)
        if after is None:
            del self._known[key]
        else:
            self._known[key] = after
        return True

    def total(self, queues: Iterable[str]) -> Tally:
        """The sum over LocalQueues."""
        out = Tally()
        for queue in queues:
            if queue in self._sums:
                out.add(self._sums[queue])
        return out

    def held(self, cluster_queue: str) -> Usage:
        """The quota that workloads hold in it, wherever they came from."""
        tally = self._held.get(cluster_queue)
        return tally.reserved if tally is not None else {}

    def in_use(self, cluster_queue: str) -> bool:
        """Whether any workload holds quota in it."""
        return self._holders.get(cluster_queue, 0) > 0


def holds_in(workload: Object) -> str:
    """The ClusterQueue whose quota it holds; empty when it holds none."""
    return str(workload["status"]["admission"]["clusterQueue"]) if convert.holds_quota(workload) else ""


def local_queue_of(workload: Object) -> str:
    """What its LocalQueue is called (:func:`.tenancy.door`)."""
    return convert.local_queue(workload)
