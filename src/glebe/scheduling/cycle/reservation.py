"""Reservations: a blocked head gets a start, and work behind it fills the time until then without delaying it.

For the first workload of every queue with ``backfill`` Reserve or ReservePredicted that does not fit now, running work
is taken away in the order of its predicted ends until it fits: that is its *reserved start*, with the very quota and
nodes that it will have. Work that comes later in the order may start now only if it is gone by then (by the time limit
at which the platform ends it; with ReservePredicted its P90 is enough where there is no limit), or if the head still
fits beside it. So as long as running work ends as predicted, a reserved start only ever moves nearer.

Later is: everything behind it in its own queue, and in other queues what comes after it in the order between heads
(less borrowing, higher priority, older). Other queues' right to their own quota stays what it is. This is EASY backfill
(Lifka 1995) with one reservation per queue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from glebe.scheduling.cycle.order import Group, HeadKey, Line, head_key
from glebe.scheduling.cycle.projection import fits
from glebe.scheduling.foresight.runtime import quantile, reach
from glebe.scheduling.model import Backfill, Pending
from glebe.scheduling.placement.placement import find, holding, nominate, possible, total_need
from glebe.scheduling.world import Holding, Plan, State, World

Ends = Callable[[], Iterable[tuple[float, Holding]]]  # what runs now, with its predicted ends
_CHUNKS = 24  # ends are taken in so many steps before they are taken one by one


@dataclass(slots=True, eq=False)
class Reservation:
    """``then`` is the state at ``start`` with the head, and what outlasts that moment, in place."""

    line: Line
    pending: Pending
    key: HeadKey
    start: float
    length: float
    holding: Holding
    then: State


class Reservations:
    """The reservations on one state that changes: made when they are asked for, kept while they hold.

    :param ends: predicted ends of what runs at the moment of the call.
    """

    def __init__(self, world: World, state: State, lines: list[Line], ends: Ends) -> None:
        self._world, self._state, self._ends = world, state, ends
        self._lines = [line for line in lines if line.queue.backfill is not Backfill.GREEDY]
        self._made: list[Reservation] | None = None
        self._new: list[tuple[float, Holding]] = []  # what started since ``begin``
        self.now = 0.0

    def begin(self, now: float) -> None:
        """Time has passed, and work has ended; ``ends`` says what runs."""
        self.now = now
        self._made = None
        self._new.clear()

    def made(self) -> list[Reservation]:
        """By the order of their heads, on the state as it is."""
        if self._made is None:
            self._made = self._make()
        return self._made

    def permits(self, line: Line, key: HeadKey, pending: Pending, wanted: Holding) -> bool:
        """May ``pending`` start now and hold ``wanted``?"""
        for r in self.made():
            if r.pending.key == pending.key or not _later(line, key, r):
                continue
            trusting = r.line.queue.backfill is Backfill.RESERVE_PREDICTED
            if self.now + reach(pending.run_time, predicted=trusting) <= r.start:
                continue
            if not all(fits(r.then, wanted)):
                return False
        return True

    def taken(self, line: Line, key: HeadKey, pending: Pending, held: Holding) -> None:
        """``pending`` starts now."""
        self._new.append((self.now + quantile(pending.run_time, 0.5), held))
        if self._made is None:
            return
        first = any(r.pending.key == pending.key or not _later(line, key, r) for r in self._made)
        if first or len(self._made) < len(self._lines):
            self._made = None  # what is left for others, and whose head is blocked now, is worked out anew
            return
        for r in self._made:
            trusting = r.line.queue.backfill is Backfill.RESERVE_PREDICTED
            if self.now + reach(pending.run_time, predicted=trusting) > r.start:
                r.then.hold(held)

    def _make(self) -> list[Reservation]:
        heads = []
        for line in self._lines:
            front = line.front()
            if front is None or not possible(front.plan, self._world):
                continue
            if nominate(front.plan, self._state, self._world) is None:
                heads.append((_key(line, front, self._state), line, front))
        heads.sort(key=lambda h: h[0])
        made: list[Reservation] = []
        events = (
            sorted(((end, 0, held) for end, held in (*self._ends(), *self._new)), key=lambda e: e[0]) if heads else []
        )
        for key, line, front in heads:
            found = self._reserve(key, line, front, events)
            if found is None:
                continue
            made.append(found)
            events = sorted(
                [*events, (found.start, 1, found.holding), (found.start + found.length, 0, found.holding)],
                key=lambda e: e[0],
            )
        return made

    def _reserve(
        self, key: HeadKey, line: Line, front: Group, events: list[tuple[float, int, Holding]]
    ) -> Reservation | None:
        """The first moment at which the head fits, as running work ends and earlier heads start (sign 1)."""
        sim, plan = self._state.copy(), front.plan
        step = max(1, len(events) // _CHUNKS)
        at = 0
        while at < len(events):
            until = min(at + step, len(events))
            _play(sim, events[at:until])
            if step > 1 and nominate(plan, sim, self._world) is not None:
                _play(sim, reversed(events[at:until]), undo=True)
                step = 1
                continue
            at = until
            if step == 1 and (at == len(events) or events[at][0] > events[at - 1][0]):
                found = self._fit(plan, sim)
                if found is not None:
                    sim.hold(found)
                    pending = line.waiting[front.head]
                    length = pending.run_time.p90
                    return Reservation(line, pending, key, max(self.now, events[at - 1][0]), length, found, sim)
        return None

    def _fit(self, plan: Plan, sim: State) -> Holding | None:
        choice = nominate(plan, sim, self._world)
        if choice is None:
            return None
        fit = find(plan, sim, self._world, choice)
        return None if fit is None else holding(plan, fit)


def _play(sim: State, events: Iterable[tuple[float, int, Holding]], *, undo: bool = False) -> None:
    for _, sign, held in events:
        if bool(sign) is not undo:
            sim.hold(held)
        else:
            sim.release(held)


def _key(line: Line, front: Group, state: State) -> HeadKey:
    choice = tuple(s.options[0] for s in front.plan.sets if s.options)
    level = state.quotas.borrowing_level(line.node, total_need(choice))
    return head_key(level, line.waiting[front.head])


def _later(line: Line, key: HeadKey, than: Reservation) -> bool:
    return line is than.line or key > than.key


def starts(reservations: Reservations | None) -> dict[str, float]:
    """Reserved starts by key."""
    return {} if reservations is None else {r.pending.key: r.start for r in reservations.made()}
