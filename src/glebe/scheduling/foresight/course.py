"""A course of events: work arrives, starts and ends, and the production cycle decides, without a snapshot each time.

A ``Course`` keeps one world and one state. Between two calls of ``run`` work arrives and ends; ``run`` looks only at
what that may have changed: after an end at everything, after arrivals alone at these (what was refused on a state is
refused again on the same state). Forecasts and replays are courses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from glebe.scheduling.cycle.cycle import Cycle
from glebe.scheduling.cycle.order import lines, queue_key
from glebe.scheduling.cycle.reservation import Reservations, starts
from glebe.scheduling.foresight.runtime import predicted_end
from glebe.scheduling.model import Backfill, Pending, PodSetAssignment, Snapshot, Strategy
from glebe.scheduling.placement.fleet import Fleet
from glebe.scheduling.placement.placement import assignments
from glebe.scheduling.world import Holding, World


class Started(NamedTuple):
    """Work that starts now, with what it holds from now on."""

    pending: Pending
    holding: Holding
    assignments: tuple[PodSetAssignment, ...]


class Course:
    """Begins with what a snapshot says; ``holdings`` and ``waiting`` are current at all times, by key."""

    def __init__(self, snapshot: Snapshot, fleet: Fleet | None = None) -> None:
        self.world = World(snapshot, fleet)
        self.state, self.holdings = self.world.state(snapshot.admitted)
        self.waiting: dict[str, Pending] = {}
        self.reserved: dict[str, float] = {}  # starts of blocked heads, as of the last run
        self._fresh: list[Pending] = list(snapshot.pending)
        self._freed = False
        self._cycle: Cycle | None = None  # knows all that waits; none while somebody has arrived since
        self._ends = {a.key: (a.started_at, a.run_time) for a in snapshot.admitted}
        self._now = 0.0
        self._keeping = {
            q.name for q in snapshot.queues if q.strategy is Strategy.STRICT_FIFO or q.backfill is not Backfill.GREEDY
        }

    def arrive(self, pending: Pending) -> None:
        self._fresh.append(pending)

    def end(self, key: str) -> None:
        """The work is gone, and what it held is free."""
        self.state.release(self.holdings.pop(key))
        self._ends.pop(key, None)
        self._freed = True

    def run(self, now: float) -> list[Started]:
        """Who starts now, in order."""
        cycle = self._prepared()
        if cycle is None:
            return []
        self._now = now
        if cycle.reserves is not None:
            cycle.reserves.begin(now)
        started = []
        admissions = cycle.run()
        self.reserved = starts(cycle.reserves)  # before ``_ends`` knows whom it knows of already
        for admission in admissions:
            pending = admission.pending
            self.holdings[pending.key] = admission.holding
            self.waiting.pop(pending.key, None)
            self._ends[pending.key] = (now, pending.run_time)
            placed = assignments(admission.plan, admission.fit, self.world.fleet)
            started.append(Started(pending, admission.holding, placed))
        return started

    def _running(self) -> list[tuple[float, Holding]]:
        now = self._now
        return [(predicted_end(at, length, now), self.holdings[key]) for key, (at, length) in self._ends.items()]

    def _prepared(self) -> Cycle | None:
        """A cycle over those who may profit from what happened since the last one, if there are any."""
        fresh, self._fresh = self._fresh, []
        self.waiting.update((p.key, p) for p in fresh)
        freed, self._freed = self._freed, False
        if fresh:
            self._cycle = None
        if freed:
            if self._cycle is None:
                self._cycle = self._over(self.waiting.values())
            return self._cycle
        if not fresh:
            return None
        fronts = _fronts(self.waiting, self._keeping)
        return self._over({p.key: p for p in (*fronts, *fresh)}.values())

    def _over(self, pending: Iterable[Pending]) -> Cycle:
        cycle = Cycle(self.world, self.state, (queued := lines(self.world, pending)))
        if self.world.reserves:
            cycle.reserves = Reservations(self.world, self.state, queued, self._running)
        return cycle


def _fronts(waiting: Mapping[str, Pending], queues: set[str]) -> list[Pending]:
    """The first of every queue whose blocked head has a say in what others may do."""
    first: dict[str, Pending] = {}
    if queues:
        for pending in waiting.values():
            if pending.queue in queues:
                known = first.get(pending.queue)
                if known is None or queue_key(pending) < queue_key(known):
                    first[pending.queue] = pending
    return list(first.values())
