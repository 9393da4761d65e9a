"""The ledger's arithmetic: which GPU-second was in which state. Pure, in whole seconds, exact.

A node's *timeline* is a set of points (time, GPUs, ready) and a set of allocations (pods) on it. At every second each
of the node's GPUs is in exactly one state: *unhealthy* while the node is not ready, else *allocated* to a pod, else
*idle*. So owned = allocated + idle + unhealthy, by construction and to the second.

Because facts arrive out of order (a restarted platform learns late what ended when), nothing is accumulated as it
comes: a timeline is integrated anew over one day whenever one of its facts changes. The result is linear from the last
change on (:class:`Line`), so that a total can be told for any later moment without looking at the timeline again.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

DAY = 86_400

K = TypeVar("K", bound=Hashable)


def day_of(second: int) -> int:
    """The start of the UTC day that ``second`` (since the epoch) lies in."""
    return second - second % DAY


@dataclass(frozen=True, slots=True)
class Point:
    """From ``at`` on, until the next point, the node has ``gpus`` GPUs and is ``ready`` or not."""

    at: int
    gpus: int
    ready: bool


@dataclass(frozen=True, slots=True)
class Allocation(Generic[K]):
    """``gpus`` GPUs held from ``start`` up to, not including, ``end`` (``None``: still held), charged to ``row``."""

    uid: str
    start: int
    end: int | None
    gpus: int
    row: K


@dataclass(frozen=True, slots=True)
class Line:
    """A sum that grows evenly: ``base`` at time ``at`` and ``rate`` more each second after it."""

    at: int
    base: int
    rate: int

    def value(self, now: int) -> int:
        return self.base + self.rate * max(0, now - self.at)


@dataclass(frozen=True, slots=True)
class Usage(Generic[K]):
    """GPU-seconds of one node in one day, as they stand at ``at``, and the present rates (GPUs)."""

    at: int
    owned: Line
    idle: Line
    unhealthy: Line
    rows: Mapping[K, Line]

    @property
    def allocated(self) -> Line:
        lines = self.rows.values()
        return Line(self.at, sum(line.base for line in lines), sum(line.rate for line in lines))


@dataclass(slots=True)
class _Tally(Generic[K]):
    """GPUs by state during one span."""

    owned: int = 0
    unhealthy: int = 0
    idle: int = 0
    rows: dict[K, int] = field(default_factory=dict)


def integrate(points: Iterable[Point], allocations: Iterable[Allocation[K]], start: int, end: int) -> Usage[K]:
    """Integrate a timeline from ``start`` to ``end``.

    The lines of the result hold at the time of the last change before ``end`` (at least ``start``); beyond it they
    extrapolate. The order of ``points`` and ``allocations`` does not matter; of two points at one time the last wins.
    A pod that ends before it starts counts nothing. If pods together ask for more GPUs than the node has, those
    that started first (then by uid) have them.
    """
    steps = {point.at: point for point in sorted(points, key=lambda p: p.at)}
    # Phase 1: what changes when.
    begins: dict[int, list[Allocation[K]]] = {}
    ends: dict[int, list[Allocation[K]]] = {}
    for allocation in sorted(allocations, key=lambda a: (a.start, a.uid)):
        if (allocation.end is None or allocation.end > max(allocation.start, start)) and allocation.start < end:
            begins.setdefault(max(allocation.start, start), []).append(allocation)
            if allocation.end is not None and allocation.end < end:
                ends.setdefault(allocation.end, []).append(allocation)
    before = [at for at in steps if at <= start]
    point = steps[before[-1]] if before else None
    cuts = sorted({start, *begins, *ends, *(at for at in steps if start < at < end)})
    # Phase 2: sweep over the spans between two changes.
    sums: dict[K, int] = {}
    owned = idle = unhealthy = 0
    tally: _Tally[K] = _Tally()
    active: dict[tuple[int, str], Allocation[K]] = {}
    for index, moment in enumerate(cuts):
        point = steps.get(moment, point)
        for gone in ends.get(moment, ()):
            active.pop((gone.start, gone.uid), None)
        for come in begins.get(moment, ()):
            active[come.start, come.uid] = come
        tally = _divide(point, [active[key] for key in sorted(active)])
        if index + 1 == len(cuts):
            break
        span = cuts[index + 1] - moment
        owned += tally.owned * span
        idle += tally.idle * span
        unhealthy += tally.unhealthy * span
        for row, gpus in tally.rows.items():
            sums[row] = sums.get(row, 0) + gpus * span
    at = cuts[-1]
    rows = {row: Line(at, sums.get(row, 0), tally.rows.get(row, 0)) for row in dict.fromkeys([*sums, *tally.rows])}
    return Usage(
        at,
        Line(at, owned, tally.owned),
        Line(at, idle, tally.idle),
        Line(at, unhealthy, tally.unhealthy),
        rows,
    )


def _divide(point: Point | None, active: list[Allocation[K]]) -> _Tally[K]:
    """Who has which GPUs while nothing changes."""
    if point is None or point.gpus <= 0:
        return _Tally()
    if not point.ready:
        return _Tally(point.gpus, point.gpus)
    free = point.gpus
    rows: dict[K, int] = {}
    for allocation in active:
        given = min(allocation.gpus, free)
        if given > 0:
            free -= given
            rows[allocation.row] = rows.get(allocation.row, 0) + given
    return _Tally(point.gpus, 0, free, rows)
