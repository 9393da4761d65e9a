"""The admission cycle run forward in time, several times, on different draws of the run times.

One run ahead jumps from one predicted end to the next; at each, what ended is released and the same ``Cycle`` that
decides today runs on whoever could profit. The runs differ in the *levels* at which run times are read:

- If every run time is declared (no history), one run reads all at P50 and one all at P90; a start's P90 is the later of
  both, since a longer run time elsewhere may by chance let something start earlier.
- Otherwise run times are drawn: in ``n`` runs each workload gets the ``n`` levels (i + 0.5) / n in an order of its own
  (a Latin hypercube), and quantiles of a start are those of its ``n`` starts. A hundred jobs ahead do not all take
  their P90; but jobs of one batch are alike, so part of each draw is common to kin.

Long queues get few runs, in which the cycle waits until one in 64 of what runs has ended.
"""

from __future__ import annotations

import heapq
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

from glebe.scheduling.cycle.cycle import Admission, Cycle
from glebe.scheduling.cycle.reservation import Reservations
from glebe.scheduling.decide import Plateau
from glebe.scheduling.foresight.runtime import predicted_end, quantile
from glebe.scheduling.model import Pending, RunTime, Snapshot
from glebe.scheduling.world import Holding

Event = tuple[float, int, Holding]  # (end, sequence, what is released)
Level = Callable[[str, RunTime], float]
Span = tuple[float | None, float | None]  # P50 and P90 of a start; None: not before the horizon

#: (up to so many workloads, running and waiting; so many runs; which share of what runs may end before the cycle is
#: run again). 5 and 15 levels include exactly 0.5 and 0.9.
_EFFORT: tuple[tuple[float, int, float], ...] = (
    (400, 15, 0.0),
    (2000, 5, 0.0),
    (math.inf, 2, 1 / 64),
)
_SECOND = 3000  # starts that the second of two runs looks for
_WINDOW = 25  # neighbours in the queue, to each side, whose spread over two runs is taken together
_LEAST_SPREAD = 0.05  # standard deviation of the logarithm of a wait
_Z90 = 1.2815515655446004


class Draw:
    """One run's levels: Gaussian, with a part that kin share, stratified over the runs (for two runs: one deviation up
    and down, Rosenblueth's point estimates)."""

    def __init__(self, run: int, runs: int) -> None:
        self._run, self._runs = run, runs
        self._kin: dict[str, float] = {}

    def __call__(self, key: str, run_time: RunTime) -> float:
        kin = run_time.kin
        if not kin:
            return self._level(key)
        shared = self._kin.get(kin)
        if shared is None:
            shared = self._kin[kin] = _TOGETHER * _deviate(self._level(kin))
        return 0.5 * math.erfc(-(shared + _ALONE * _deviate(self._level(key))) / _SQRT2)

    def _level(self, key: str) -> float:
        chance = zlib.crc32(key.encode())
        if self._runs == 2:
            return _UP if (chance >> 7) % 2 == self._run else 1 - _UP
        steps = _STEPS[self._runs]
        return ((chance // 64 + steps[chance % len(steps)] * self._run) % self._runs + 0.5) / self._runs


_STEPS = {n: tuple(s for s in range(1, n) if math.gcd(s, n) == 1) for n in (5, 15)}
_SQRT2 = math.sqrt(2)
_KINSHIP = 0.6  # correlation between kin
_TOGETHER, _ALONE = math.sqrt(_KINSHIP), math.sqrt(1 - _KINSHIP)
_UP = 0.5 * math.erfc(-1 / _SQRT2)
_deviate = cache(NormalDist().inv_cdf)


@dataclass(frozen=True, slots=True)
class Same:
    """All at one level."""

    level: float

    def __call__(self, key: str, run_time: RunTime) -> float:
        return self.level


def spans(plateau: Plateau, now: float, until: float) -> dict[str, Span]:
    """P50 and P90 of the start of everything that waits; the plateau's own state is used up by this."""
    snapshot = plateau.world.snapshot
    if not _uncertain(snapshot):
        late = run_ahead(plateau.fork(), now, until, Same(0.9))
        half = run_ahead(plateau, now, until, Same(0.5))
        return {p.key: _later(half.get(p.key), late.get(p.key)) for p in snapshot.pending}
    size = len(snapshot.pending) + len(snapshot.admitted)
    runs, grain = next((n, g) for limit, n, g in _EFFORT if size <= limit)
    if runs == 2:
        other = run_ahead(plateau.fork(), now, until, Draw(1, 2), grain, _SECOND)
        return _from_two(plateau, run_ahead(plateau, now, until, Draw(0, 2), grain), other, now)
    last = runs - 1
    drawn = [run_ahead(plateau.fork() if i < last else plateau, now, until, Draw(i, runs), grain) for i in range(runs)]
    return {p.key: _quantiles([d.get(p.key) for d in drawn]) for p in snapshot.pending}


def run_ahead(
    plateau: Plateau, now: float, until: float, level: Level, grain: float = 0.0, most: float = math.inf
) -> dict[str, float]:
    """Starts by key when run times are read at ``level``, the first ``most`` of them at least.

    Who is not in it does not start before ``until``.
    """
    world, state = plateau.world, plateau.state
    events: list[Event] = []
    leaving = {v.key for p in plateau.preempting for v in p.victims}
    for sequence, a in enumerate(world.snapshot.admitted):
        if a.key not in leaving:
            end = predicted_end(a.started_at, a.run_time, now, level(a.key, a.run_time))
            events.append((end, sequence, plateau.holdings[a.key]))
    sequence = len(world.snapshot.admitted)
    starts: dict[str, float] = {}
    for pending, holding in _preemptors(plateau):
        starts[pending.key] = now
        events.append((now + quantile(pending.run_time, level(pending.key, pending.run_time)), sequence, holding))
        sequence += 1
    heapq.heapify(events)
    cycle = Cycle(world, state, plateau.lines)
    if world.reserves:
        cycle.reserves = Reservations(world, state, plateau.lines, lambda: [(e[0], e[2]) for e in events])

    def start(admissions: list[Admission], at: float) -> None:
        nonlocal sequence
        for admission in admissions:
            pending = admission.pending
            starts[pending.key] = at
            end = at + quantile(pending.run_time, level(pending.key, pending.run_time))
            heapq.heappush(events, (end, sequence, admission.holding))
            sequence += 1

    start(plateau.admitted, now)
    left = sum(len(line.waiting) for line in plateau.lines) - len(starts)
    while events and left > 0 and len(starts) < most:
        at = events[0][0]
        if at > until:
            break
        together = int(len(events) * grain)
        while events and (together > 0 or events[0][0] == at) and events[0][0] <= until:
            at, _, holding = heapq.heappop(events)
            state.release(holding)
            together -= 1
        if cycle.reserves is not None:
            cycle.reserves.begin(at)
        admissions = cycle.run()
        start(admissions, at)
        left -= len(admissions)
    return starts


def _preemptors(plateau: Plateau) -> list[tuple[Pending, Holding]]:
    """Those for whom others leave now, started: their victims are taken to be gone at once, and do not come back."""
    lines = {line.queue.name: line for line in plateau.lines}
    started = []
    for p in plateau.preempting:
        line = lines[p.line.queue.name]
        group = line.group_of[p.rank]
        for victim in p.victims:
            plateau.state.release(plateau.holdings[victim.key])
        plateau.state.hold(p.holding)
        if group.head == p.rank:
            line.passed(group)
        started.append((line.waiting[p.rank], p.holding))
    return started


def _uncertain(snapshot: Snapshot) -> bool:
    return any(a.run_time.curve for a in snapshot.admitted) or any(p.run_time.curve for p in snapshot.pending)


def _later(half: float | None, late: float | None) -> Span:
    return half, None if half is None or late is None else max(half, late)


def _quantiles(starts: list[float | None]) -> Span:
    """Of ``n`` equally likely starts at the levels (i + 0.5) / n."""
    found = sorted(math.inf if s is None else s for s in starts)
    count = len(found)
    half, late = found[count // 2], found[round(0.9 * count - 0.5)]
    return (None if half == math.inf else half), (None if late == math.inf else late)


def _from_two(plateau: Plateau, one: dict[str, float], other: dict[str, float], now: float) -> dict[str, Span]:
    """Waits are taken as log-normal, with the spread that a workload's neighbours in its line have in the two runs.

    Whom the second run did not reach has the spread of the last ones before it in the line whom it did.
    """
    result: dict[str, Span] = {p.key: (None, None) for p in plateau.world.snapshot.pending}
    for line in plateau.lines:
        keys = [p.key for p in line.waiting if p.key in one]
        logs = [math.log(one[k] - now + 1) for k in keys]
        apart = [math.log(other[k] - now + 1) - a if k in other else None for k, a in zip(keys, logs, strict=True)]
        sums = _running_sums([d * d / 4 for d in apart if d is not None])
        known = len(sums) - 1
        place = 0
        for key, a, d in zip(keys, logs, apart, strict=True):
            low, high = max(0, min(place, known) - _WINDOW), min(known, place + _WINDOW + 1)
            mean = (sums[high] - sums[low]) / (high - low) if high > low else 0.0
            spread = max(_LEAST_SPREAD, math.sqrt(max(0.0, mean)))
            middle = a if d is None else a + d / 2
            half = now + math.expm1(middle)
            result[key] = half, (now + math.expm1(middle + _Z90 * spread) if half > now else now)
            place += d is not None
    return result


def _running_sums(values: Sequence[float]) -> list[float]:
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    return sums
