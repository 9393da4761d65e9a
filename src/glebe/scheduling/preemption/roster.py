"""Everybody who holds quota, as the search for victims sees them.

A holder under its queue's protected minimum run time is no candidate until that time is over; one that is on its way
out always is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from glebe.scheduling.model import GPU, Admitted, Pending
from glebe.scheduling.policies import PreemptionPolicy
from glebe.scheduling.quota import Cell
from glebe.scheduling.turns import Turns
from glebe.scheduling.world import Holding, World

Rank = tuple[bool, bool, int, float, float, str]
REMEMBERED = 3600.0  # seconds for which nobody preempts those for whom it had to leave


@dataclass(slots=True, eq=False)
class Holder:
    """A workload that holds quota. ``lost`` are the GPU-seconds of work that end with it."""

    key: str
    node: int  # its queue in the quota tree
    holding: Holding
    priority: int
    queued_at: float
    reserved_at: float
    uid: str
    evicted: bool
    lost: float
    local_queue: str

    def uses(self, cells: frozenset[Cell]) -> bool:
        """Does it hold anything of one of ``cells``?"""
        return any(cell in cells for cell, _ in self.holding.need)


class Roster:
    """Holders by queue, for one moment ``now`` (seconds since the epoch); see the room's docstring."""

    def __init__(self, world: World, admitted: Iterable[Admitted], holdings: Mapping[str, Holding], now: float) -> None:
        self.world = world
        self.now = now
        self._holdings = holdings
        self._absent: frozenset[str] = frozenset()
        self._by_queue: dict[str, list[Admitted]] = {}
        for a in admitted:
            self._by_queue.setdefault(a.queue, []).append(a)
        self._holders: dict[int, list[Holder]] = {}
        self._known: dict[str, Holder] = {}  # by key, as far as queues were listed
        self._added: tuple[Holder, ...] = ()
        self._lineage: dict[str, tuple[tuple[str, float], ...]] | None = None
        self.turns = Turns(world.snapshot.afs)
        self._least_lost = world.snapshot.least_lost

    def without(self, keys: Iterable[str]) -> Roster:
        """The same roster without some of its holders."""
        other = self._twin()
        other._absent = self._absent | frozenset(keys)
        return other

    def with_holder(self, holder: Holder) -> Roster:
        """The same roster with one more."""
        other = self._twin()
        other._added = (*self._added, holder)
        return other

    def _twin(self) -> Roster:
        other = Roster.__new__(Roster)
        other.world, other.now, other._holdings = self.world, self.now, self._holdings
        other._by_queue, other._holders, other._known = self._by_queue, self._holders, self._known
        other.turns, other._least_lost = self.turns, self._least_lost
        other._absent, other._added, other._lineage = self._absent, self._added, self._lineage
        return other

    def holding(self, key: str) -> Holding:
        return self._holdings[key]

    def holder(self, key: str) -> Holder:
        """One of those whom ``of`` has listed."""
        return self._known[key]

    def of(self, node: int) -> list[Holder]:
        """Who holds quota of this queue and may be preempted at all, in no order that means anything."""
        known = self._holders.get(node)
        if known is None:
            known = self._holders[node] = self._read(node)
            self._known.update((h.key, h) for h in known)
        if not self._absent and not self._added:
            return known
        return [*(h for h in known if h.key not in self._absent), *(h for h in self._added if h.node == node)]

    def _read(self, node: int) -> list[Holder]:
        name = self.world.tree.names[node]
        shield = self.world.queues[name].min_run_time
        return [
            self._holder(node, a)
            for a in self._by_queue.get(name, ())
            if a.evicted or (a.preemptible and (not shield or self.now >= a.started_at + shield))
        ]

    def _holder(self, node: int, a: Admitted) -> Holder:
        gpus = sum(s.usage.get(GPU, 0) for s in a.assignments)
        return Holder(
            key=a.key,
            node=node,
            holding=self._holdings[a.key],
            priority=a.priority,
            queued_at=a.queued_at,
            reserved_at=a.reserved_at,
            uid=a.uid or a.key,
            evicted=a.evicted,
            lost=gpus * max(0.0, self.now - a.started_at) if gpus else 0.0,
            local_queue=a.local_queue,
        )

    def preemptors_of(self, pending: Pending) -> list[str]:
        """Keys of holders for whom the workload had to leave lately, or for whom those had to leave, and so on.

        None of them leaves for it while that is remembered: so no chain of preemptions closes.
        """
        if not pending.preempted_by:
            return []
        if self._lineage is None:
            snapshot = self.world.snapshot
            known: tuple[Pending | Admitted, ...] = (*snapshot.pending, *snapshot.admitted)
            self._lineage = {w.uid or w.key: w.preempted_by for w in known if w.preempted_by}
        found: dict[str, None] = {}
        ahead = list(pending.preempted_by)
        while ahead:
            uid, at = ahead.pop()
            if uid not in found and self.now - at < REMEMBERED:
                found[uid] = None
                ahead += self._lineage.get(uid, ())
        return [a.key for held in self._by_queue.values() for a in held if (a.uid or a.key) in found and not a.evicted]

    @property
    def protected_until(self) -> float | None:
        """When the next protected minimum run time ends."""
        ends = (
            a.started_at + queue.min_run_time
            for name, held in self._by_queue.items()
            if (queue := self.world.queues.get(name)) is not None and queue.min_run_time > 0
            for a in held
            if not a.evicted and a.preemptible
        )
        return min((end for end in ends if end > self.now), default=None)

    def rank(self, holder: Holder, own: int) -> Rank:
        """Who goes first: on its way out; of other queues; low priority; newest; fewest lost GPU-seconds."""
        newest, least = -holder.reserved_at, holder.lost
        first, second = (least, newest) if self._least_lost else (newest, least)
        return (not holder.evicted, holder.node == own, holder.priority, first, second, holder.uid)

    def in_order(self, holders: list[Holder], own: int) -> list[Holder]:
        """``holders`` as they are tried for a preemptor of queue ``own``.

        Among those of one queue with admission fair sharing, local queues that used more come first: they share the
        places that these holders have in the order without it.
        """
        ordered = sorted(holders, key=lambda h: self.rank(h, own))
        if self.world.snapshot.afs is None:
            return ordered
        for node in dict.fromkeys(h.node for h in ordered):
            if not self.world.queues[self.world.tree.names[node]].afs:
                continue
            places = [i for i, h in enumerate(ordered) if h.node == node]
            mine = sorted((ordered[i] for i in places), key=lambda h: (not h.evicted, -self.turns.use(h.local_queue)))
            for i, holder in zip(places, mine, strict=True):
                ordered[i] = holder
        return ordered


def may_take(policy: PreemptionPolicy, pending: Pending, holder: Holder) -> bool:
    """Does ``policy`` let the workload preempt this holder?"""
    if policy is PreemptionPolicy.ANY:
        return True
    if policy is PreemptionPolicy.NEVER:
        return False
    if pending.priority != holder.priority or policy is PreemptionPolicy.LOWER_PRIORITY:
        return pending.priority > holder.priority
    return pending.queued_at < holder.queued_at
