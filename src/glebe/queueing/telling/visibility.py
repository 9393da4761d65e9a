"""Who waits in which order, asked for by Kueue's visibility API: read from the queue's own picture, never stored.

Items are Kueue's, each with the workload's ``forecast`` (Glebe's addition): when it starts, what it waits for, what
would help. Source: kueue:pkg/visibility/storage, KEP-168.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from glebe.kube import resources as r
from glebe.kube.objects import EVERY, Object, ObjectKey
from glebe.kube.resources import Resource
from glebe.queueing import labels
from glebe.queueing.picture import convert
from glebe.queueing.tenants import tenancy
from glebe.scheduling import model as m
from glebe.scheduling.cycle.order import queue_key
from glebe.scheduling.cycle.turns import Turns

GROUP = "visibility.kueue.x-k8s.io"
DEFAULT_LIMIT, MOST = 1000, 100_000
_OWNER = ("apiVersion", "kind", "name", "uid")


class Picture(Protocol):
    """The part of :class:`glebe.queueing.picture.snapshot.SnapshotBuilder` that is read here."""

    @property
    def cluster(self) -> str: ...

    @property
    def objects(self) -> dict[Resource, dict[ObjectKey, Object]]: ...

    @property
    def keys(self) -> dict[str, ObjectKey]: ...

    def snapshot(self) -> m.Snapshot: ...

    def barred(self) -> dict[ObjectKey, m.Decision]: ...

    def workload(self, key: ObjectKey) -> Object | None: ...

    def cluster_queue(self, workload: Object) -> str: ...


def bounded(text: str, default: int) -> int:
    """``offset`` or ``limit`` of a request: never below zero.

    :raises ValueError: it is no whole number.
    """
    return min(max(int(text), 0), MOST) if text else default


class Visibility:
    """Answers for one queue's picture."""

    def __init__(self, picture: Picture) -> None:
        self._picture = picture
        self._seen: tuple[m.Pending, ...] | None = None
        self._lines: dict[str, list[ObjectKey]] = {}

    def cluster_queue(self, name: str, offset: int, limit: int) -> list[Object] | None:
        """The pending workloads of a ClusterQueue from ``offset`` on; ``None``: there is no such queue."""
        host = tenancy.host_of(self._picture.cluster)
        if ObjectKey(host, "", name) not in self._picture.objects[r.CLUSTER_QUEUES]:
            return None
        places: dict[tuple[str, str, str], int] = {}
        found = []
        for position, (key, workload) in enumerate(self._waiting(name)):
            if position >= offset + limit:
                break
            door = (key.cluster, key.namespace, _queue_name(workload))
            place = places.get(door, 0)
            places[door] = place + 1
            if position >= offset:
                found.append(_item(workload, position, place))
        return found

    def local_queue(self, door: ObjectKey, offset: int, limit: int) -> list[Object] | None:
        """The same of a LocalQueue; positions in the ClusterQueue count everybody's workloads."""
        if self._picture.cluster != EVERY:
            if door.cluster != tenancy.HOST:
                return None
            door = door._replace(cluster=self._picture.cluster)
        local = self._picture.objects[r.LOCAL_QUEUES].get(door)
        if local is None:
            return None
        found: list[Object] = []
        place = 0
        for position, (key, workload) in enumerate(self._waiting(local["spec"]["clusterQueue"])):
            if len(found) >= limit:
                break
            if (key.cluster, key.namespace, _queue_name(workload)) == door:
                if place >= offset:
                    found.append(_item(workload, position, place))
                place += 1
        return found

    def _waiting(self, queue: str) -> Iterator[tuple[ObjectKey, Object]]:
        for key in self._line(queue):
            workload = self._picture.workload(key)
            if workload is not None:
                yield key, workload

    def _line(self, queue: str) -> Sequence[ObjectKey]:
        """The queue in order; worked out once for all who ask until somebody comes or goes."""
        world = self._picture.snapshot()
        if self._seen is not world.pending:
            self._seen, self._lines = world.pending, {}
        if queue not in self._lines:
            self._lines[queue] = self._ordered(world, queue)
        return self._lines[queue]

    def _ordered(self, world: m.Snapshot, queue: str) -> list[ObjectKey]:
        """As the core takes them, and among them those whom it does not see yet (a stopped queue, a missing class)."""
        by_use = next((q.afs for q in world.queues if q.name == queue), False) and world.afs is not None
        turns = Turns(world.afs) if by_use and world.afs is not None else None
        keys = self._picture.keys
        listed: list[tuple[Any, ObjectKey]] = []
        for p in world.pending:
            if p.queue == queue and p.key in keys:
                use = turns.use(p.local_queue) if turns is not None else 0.0
                listed.append(((use, *queue_key(p)), keys[p.key]))
        for key in self._picture.barred():
            workload = self._picture.workload(key)
            if workload is not None and self._picture.cluster_queue(workload) == queue:
                priority = int(workload["spec"].get("priority") or 0)
                listed.append(((0.0, -priority, convert.queued_at(workload), tenancy.named(key)), key))
        return [key for _, key in sorted(listed)]


def _queue_name(workload: Object) -> str:
    return workload["spec"].get("queueName") or labels.DEFAULT_QUEUE


def _item(workload: Object, position: int, place: int) -> Object:
    meta = workload["metadata"]
    shown: Object = {"name": meta["name"], "namespace": meta["namespace"]}
    if "creationTimestamp" in meta:
        shown["creationTimestamp"] = meta["creationTimestamp"]
    if owners := meta.get("ownerReferences"):
        shown["ownerReferences"] = [{name: owner[name] for name in _OWNER if name in owner} for owner in owners]
    item: Object = {
        "metadata": shown,
        "priority": int(workload["spec"].get("priority") or 0),
        "localQueueName": _queue_name(workload),
        "positionInClusterQueue": position,
        "positionInLocalQueue": place,
    }
    if forecast := (workload.get("status") or {}).get("forecast"):
        item["forecast"] = {k: v for k, v in forecast.items() if k not in ("position", "clusterQueue")}
    return item


def summary(version: str, name: str, items: list[Object]) -> Object:
    """``PendingWorkloadsSummary``."""
    kind = {"kind": "PendingWorkloadsSummary", "apiVersion": f"{GROUP}/{version}"}
    return {**kind, "metadata": {"name": name, "creationTimestamp": None}, "items": items}
