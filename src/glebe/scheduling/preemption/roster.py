"""Everybody who holds quota, as the search for victims sees them.

A holder under its queue's protected minimum run time is no candidate until that time is over; one that is on its way
out always is.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter

from glebe.scheduling.cycle.turns import Turns
from glebe.scheduling.model import GPU, Admitted, Pending, Victim
from glebe.scheduling.policies import PreemptionPolicy
from glebe.scheduling.quotas.quota import Cell, QuotaState
from glebe.scheduling.quotas.shares import Share
from glebe.scheduling.world import Holding, World

Place = tuple[bool, int, float, float, str]
Accepts = Callable[["Holder"], bool]
REMEMBERED = 3600.0  # seconds for which nobody preempts those for whom it had to leave


@dataclass(slots=True, eq=False)
class Holder:
    """A workload that holds quota. ``place``: who goes first among those of one queue."""

    key: str
    node: int  # its queue in the quota tree
    holding: Holding
    priority: int
    queued_at: float
    evicted: bool
    local_queue: str
    place: Place
    cells: frozenset[Cell]  # of which it was given a flavor, be it for an amount of 0

    def uses(self, cells: frozenset[Cell]) -> bool:
        """Was it given a flavor for one of ``cells``?"""
        return not cells.isdisjoint(self.cells)


class Roster:
    """Holders by queue, for one moment ``now`` (seconds since the epoch); see the room's docstring."""

    def __init__(
        self,
        world: World,
        admitted: Iterable[Admitted],
        holdings: Mapping[str, Holding],
        now: float,
        *,
        to_the_letter: bool = False,
    ) -> None:
        """``to_the_letter``: by Kueue's rules alone, which let two preempt each other in turn."""
        self.world = world
        self.to_the_letter = to_the_letter
        self.now = now
        self._holdings = holdings
        self._absent: frozenset[str] = frozenset()
        self._leaving: Collection[str] = ()
        self._by_queue: dict[str, list[Admitted]] = {}
        for a in admitted:
            self._by_queue.setdefault(a.queue, []).append(a)
        self._holders: dict[int, list[Holder]] = {}
        self._known: dict[str, Holder] = {}  # by key, as far as queues were listed
        self._added: tuple[Holder, ...] = ()
        self._by_turns: dict[int, list[Holder]] = {}
        self._cells: dict[object, frozenset[Cell]] = {}  # by flavors given
        self._shares: tuple[object, dict[int, Share]] = (None, {})
        self.answers: dict[object, tuple[Victim, ...]] = {}  # of searches, with all that they depend on
        self._lineage: dict[str, tuple[tuple[str, float], ...]] | None = None
        self.turns = Turns(world.snapshot.afs)
        self._least_lost = world.snapshot.least_lost

    def without(self, keys: Iterable[str]) -> Roster:
        """The same roster without some of its holders."""
        other = self._twin()
        other._absent = self._absent | frozenset(keys)
        return other

    @property
    def empty(self) -> bool:
        """Is there nobody at all?"""
        return not self._by_queue

    @property
    def gone(self) -> int:
        """How many have left since this roster was made: it changes when they are more."""
        return len(self._leaving)

    def beside(self, leaving: Collection[str]) -> Roster:
        """The same roster without those whose keys are in ``leaving``, which may grow."""
        other = self._twin()
        other._leaving = leaving
        return other

    def with_holder(self, holder: Holder) -> Roster:
        """The same roster with one more."""
        other = self._twin()
        other._added = (*self._added, holder)
        return other

    def _twin(self) -> Roster:
        other = Roster.__new__(Roster)
        other.world, other.now, other._holdings = self.world, self.now, self._holdings
        other.to_the_letter = self.to_the_letter
        other._by_queue, other._holders, other._known = self._by_queue, self._holders, self._known
        other.turns, other._least_lost = self.turns, self._least_lost
        other._absent, other._added, other._lineage = self._absent, self._added, self._lineage
        other._leaving, other._by_turns, other.answers = self._leaving, self._by_turns, {}
        other._shares, other._cells = self._shares, self._cells
        return other

    def holding(self, key: str) -> Holding:
        return self._holdings[key]

    def holder(self, key: str) -> Holder:
        """One of those whom ``of`` has listed."""
        return self._known[key]

    def of(self, node: int) -> Iterator[Holder]:
        """Who holds quota of this queue and may be preempted at all, in the order of their places."""
        return self._present(self._listed(node), node)

    def _listed(self, node: int) -> list[Holder]:
        known = self._holders.get(node)
        if known is None:
            known = self._holders[node] = self._read(node)
            self._known.update((h.key, h) for h in known)
        return known

    def _present(self, holders: list[Holder], node: int) -> Iterator[Holder]:
        added = [h for h in self._added if h.node == node]
        listed = heapq.merge(holders, added, key=_place) if added else iter(holders)
        absent, leaving = self._absent, self._leaving
        if not absent and not leaving:
            return listed
        return (h for h in listed if h.key not in absent and h.key not in leaving)

    def in_turn(self, nodes: Iterable[int], accepts: Accepts, spared: Container[int] = ()) -> Iterator[Holder]:
        """Whom ``accepts`` takes of several queues, in the order in which they are tried: no more is looked at than
        is asked for. Of queues that come to be in ``spared`` nobody more is listed.

        Among those of one queue with admission fair sharing, local queues that used more come first: they share the
        places that these holders have in the order without it.
        """
        merged = _merged((filter(accepts, self.of(node)) for node in nodes), spared)
        if self.world.snapshot.afs is None:
            return merged
        return self._with_turns(merged, accepts)

    def _with_turns(self, merged: Iterator[Holder], accepts: Accepts) -> Iterator[Holder]:
        by_node: dict[int, Iterator[Holder]] = {}
        for holder in merged:
            node = holder.node
            if not self.world.queues[self.world.tree.names[node]].afs:
                yield holder
                continue
            if node not in by_node:
                by_node[node] = filter(accepts, self._present(self._turned(node), node))
            yield next(by_node[node])

    def _turned(self, node: int) -> list[Holder]:
        known = self._by_turns.get(node)
        if known is None:
            turns = self.turns
            known = self._by_turns[node] = sorted(
                self._listed(node), key=lambda h: (h.place[0], -turns.use(h.local_queue), h.place)
            )
        return known

    def _read(self, node: int) -> list[Holder]:
        name = self.world.tree.names[node]
        shield = self.world.queues[name].min_run_time
        found = [
            self._holder(node, a)
            for a in self._by_queue.get(name, ())
            if a.evicted or (a.preemptible and (not shield or self.now >= a.started_at + shield))
        ]
        found.sort(key=_place)
        return found

    def _holder(self, node: int, a: Admitted) -> Holder:
        held = self._holdings[a.key]
        place, cells = self._place(a), self._cells_of(a)
        return Holder(a.key, node, held, a.priority, a.queued_at, a.evicted, a.local_queue, place, cells)

    def _cells_of(self, a: Admitted) -> frozenset[Cell]:
        given = tuple(tuple(x.flavors.items()) for x in a.assignments)
        known = self._cells.get(given)
        if known is None:
            cells = self.world.tree.cells
            found = (cells.get((flavor, resource)) for flavors in given for resource, flavor in flavors)
            known = self._cells[given] = frozenset(cell for cell in found if cell is not None)
        return known

    def _place(self, a: Admitted) -> Place:
        """Who goes first: on its way out; low priority; newest; fewest lost GPU-seconds."""
        gpus = sum(s.usage.get(GPU, 0) for s in a.assignments)
        lost = gpus * max(0.0, self.now - a.started_at) if gpus else 0.0
        first, second = (lost, -a.reserved_at) if self._least_lost else (-a.reserved_at, lost)
        return (not a.evicted, a.priority, first, second, a.uid or a.key)

    def shares_at(self, quotas: QuotaState, root: int) -> dict[int, Share]:
        """Shares below ``root`` that are known on its present use; whoever computes more puts them here."""
        key = (quotas, root, quotas.version[root])
        if self._shares[0] != key:
            self._shares = (key, {})
        return self._shares[1]

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


_place = attrgetter("place")


def _merged(sources: Iterable[Iterator[Holder]], spared: Container[int]) -> Iterator[Holder]:
    heap = [(h.place, i, h, rest) for i, rest in enumerate(sources) if (h := next(rest, None)) is not None]
    heapq.heapify(heap)
    while heap:
        _, i, holder, rest = heap[0]
        if holder.node not in spared:
            yield holder
            if holder.node not in spared and (following := next(rest, None)) is not None:
                heapq.heapreplace(heap, (following.place, i, following, rest))
                continue
        heapq.heappop(heap)


def may_take(policy: PreemptionPolicy, pending: Pending, holder: Holder) -> bool:
    """Does ``policy`` let the workload preempt this holder?"""
    if policy is PreemptionPolicy.ANY:
        return True
    if policy is PreemptionPolicy.NEVER:
        return False
    if pending.priority != holder.priority or policy is PreemptionPolicy.LOWER_PRIORITY:
        return pending.priority > holder.priority
    return pending.queued_at < holder.queued_at
