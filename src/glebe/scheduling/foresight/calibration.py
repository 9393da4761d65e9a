"""Forecasts kept honest: promised starts against what happened, queue by queue.

A raw forecast knows run times and the queue as it is; it does not know who will still come, be cancelled or be let in
first, nor how wrong all its run times are at once. What that did to earlier promises is learned. Each judged promise
leaves a *score*: by how many of its own spreads (P50 to P90, of the logarithm of the wait) the start missed its P50.
The new P90 stands where the recent scores say, at a level that moves with every promise that held or not (adaptive
conformal inference, Gibbs and Candès 2021).

Jobs that are promised a start at about the same time share their fate: of each quarter of an hour only two promises
count, or else one burst of submissions would be all that is remembered. A promise is judged when its job starts; one
that is overdue counts meanwhile as being as late as it is now, or else only the punctual would be heard.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import OrderedDict, deque
from dataclasses import dataclass, field

Span = tuple[float | None, float | None]

MEMORY = 100  # scores that a queue remembers
QUEUES = 1024  # whose records are kept
_SLOT = 900.0  # seconds: promises made within one share their fate
_PER_SLOT = 2
_PRIOR = (-1.2, -0.7, -0.4, -0.2, 0.0, 0.0, 0.2, 0.5, 0.9, 1.6)  # scores of promises before any was judged
_RATE = 0.02
_RANGE = (0.6, 0.99)
_GRACE = 60.0  # seconds of wait that nobody minds
_LEAST = 0.3  # spread of a forecast


@dataclass(slots=True, eq=False)
class _Promise:
    queue: str
    at: float
    middle: float  # logarithms of waits
    spread: float
    late: float

    @property
    def slot(self) -> int:
        return int(self.at // _SLOT)


@dataclass(slots=True, eq=False)
class _Record:
    """What became of promises to one queue."""

    scores: deque[float] = field(default_factory=deque)
    ordered: list[float] = field(default_factory=lambda: list(_PRIOR))
    slots: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=MEMORY))  # (slot, judged in it)
    level: float = 0.9
    open: OrderedDict[str, _Promise] = field(default_factory=OrderedDict)

    def counts(self, promise: _Promise) -> bool:
        """Is it one of the first of its time to be judged?"""
        for i, (slot, judged) in enumerate(self.slots):
            if slot == promise.slot:
                self.slots[i] = (slot, judged + 1)
                return judged < _PER_SLOT
        self.slots.append((promise.slot, 1))
        return True

    def learn(self, score: float, held: bool) -> None:
        if len(self.scores) == MEMORY:
            del self.ordered[bisect_left(self.ordered, self.scores.popleft())]
        self.scores.append(score)
        insort(self.ordered, score)
        low, high = _RANGE
        self.level = min(high, max(low, self.level + _RATE * (0.9 - held)))

    def stretch(self, now: float) -> float:
        """Spreads between P50 and where nine of ten start."""
        overdue: list[float] = []
        seen: dict[int, int] = {}
        for promise in self.open.values():
            passed = math.log(now - promise.at + _GRACE)
            if passed > promise.middle and seen.setdefault(promise.slot, 0) < _PER_SLOT:
                seen[promise.slot] += 1
                overdue.append((passed - promise.middle) / promise.spread)
        scores = sorted(self.ordered + overdue) if overdue else self.ordered
        return scores[min(len(scores) - 1, int(self.level * len(scores)))]


class Calibration:
    """Learns from promises and corrects new ones; times are seconds since the epoch, in order."""

    def __init__(self) -> None:
        self._records: OrderedDict[str, _Record] = OrderedDict()
        self._queue_of: dict[str, str] = {}
        self._stretches: dict[str, tuple[float, float]] = {}  # by queue: when, how much
        self.judged = 0
        self.held = 0

    def corrected(self, queue: str, at: float, raw: Span) -> Span:
        """The forecast of a start, made at ``at``, as experience with this queue corrects it."""
        half, late = raw
        if half is None or half <= at:
            return raw
        known = self._stretches.get(queue)
        if known is None or known[0] != at:
            record = self._records.get(queue) or _Record()
            known = self._stretches[queue] = (at, record.stretch(at))
        if late is None:
            return raw
        middle, spread = _shape(at, half, late)
        return half, max(half, at + math.exp(middle + known[1] * spread) - _GRACE)

    def promised(self, key: str, queue: str, at: float, raw: Span, late: float | None) -> None:
        """``key`` was told a raw forecast, with ``late`` as its P90; only its first promise counts."""
        if key in self._queue_of or raw[0] is None or raw[1] is None or late is None or raw[0] <= at:
            return
        record = self._records.get(queue)
        if record is None:
            record = self._records[queue] = _Record()
            if len(self._records) > QUEUES:
                gone, old = self._records.popitem(last=False)
                self._stretches.pop(gone, None)
                for other in old.open:
                    del self._queue_of[other]
        middle, spread = _shape(at, raw[0], raw[1])
        record.open[key] = _Promise(queue, at, middle, spread, late)
        self._queue_of[key] = queue

    def started(self, key: str, at: float) -> None:
        """It started: its promise is judged."""
        promise = self._close(key)
        if promise is None:
            return
        held = at <= promise.late + 1e-6
        self.judged += 1
        self.held += held
        record = self._records[promise.queue]
        if record.counts(promise):
            record.learn((math.log(at - promise.at + _GRACE) - promise.middle) / promise.spread, held)

    def gone(self, key: str) -> None:
        """It left the queue without starting: nobody knows."""
        self._close(key)

    def _close(self, key: str) -> _Promise | None:
        queue = self._queue_of.pop(key, None)
        return None if queue is None else self._records[queue].open.pop(key)


def _shape(at: float, half: float, late: float) -> tuple[float, float]:
    middle = math.log(half - at + _GRACE)
    return middle, max(_LEAST, math.log(late - at + _GRACE) - middle)
