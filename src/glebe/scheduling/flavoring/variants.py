"""Concurrent admission (KEP-8691): variants of one workload, each bound to a flavor; the better one takes over.

Better is what comes earlier in the first resource group of the queue.
"""

from __future__ import annotations

from collections.abc import Iterator

from glebe.scheduling.model import Admitted, ClusterQueue, Pending, Victim, VictimReason
from glebe.scheduling.world import World


def better(world: World, pending: Pending) -> bool:
    """Does a variant of the same workload run on a better flavor?"""
    mine = _place(world.queues[pending.queue], pending)
    return mine >= 0 and any(place < mine for place, _ in _siblings(world, pending))


def worse(world: World, pending: Pending) -> Victim | None:
    """A variant of the same workload that runs on a worse flavor, to be evicted for this one."""
    mine = _place(world.queues[pending.queue], pending)
    found = (a.key for place, a in _siblings(world, pending) if place > mine >= 0)
    return next((Victim(key, VictimReason.FLAVOR_MIGRATION) for key in found), None)


def may_migrate(queue: ClusterQueue, pending: Pending) -> bool:
    """Is the workload's flavor good enough to move a running one onto it?"""
    last = queue.migrate_from
    names = _flavors(queue)
    return not last or last not in names or 0 <= _place(queue, pending) <= names.index(last)


def _siblings(world: World, pending: Pending) -> Iterator[tuple[int, Admitted]]:
    if not pending.variant_of:
        return
    queue = world.queues[pending.queue]
    for a in world.snapshot.admitted:
        if a.queue == pending.queue and a.variant_of == pending.variant_of and a.key != pending.key:
            place = _place(queue, a)
            if place >= 0:
                yield place, a


def _place(queue: ClusterQueue, workload: Pending | Admitted) -> int:
    names = _flavors(queue)
    return names.index(workload.flavors[0]) if workload.flavors and workload.flavors[0] in names else -1


def _flavors(queue: ClusterQueue) -> list[str]:
    return [fq.flavor for fq in queue.resource_groups[0].flavors] if queue.resource_groups else []
