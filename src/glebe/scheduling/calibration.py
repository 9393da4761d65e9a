"""Forecasts kept honest: promised starts against what happened, queue by queue.

A raw forecast knows run times and the queue as it is; it does not know who will still come, be cancelled, or be let in
first. What that does to promises is learned: of each promise one *score* remains, the logarithm of (actual wait / P50
wait). The median score of recent promises shifts P50; the 0.9 quantile of the scores (of what is left) stretches P90,
and the level at which it is read moves with every promise that held or not (adaptive conformal inference).

A promise is judged when its job starts, or once it is late beyond any doubt: when more than its P90 has passed. Who
still waits is thus counted; or else only the punctual would be heard.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass, field

Span = tuple[float | None, float | None]

MEMORY = 200  # promises that a queue remembers
_FEW = 10.0  # promises without error that everybody is thought to have made
_RATE = 0.02
_RANGE = (0.7, 0.99)
_GRACE = 30.0  # seconds of wait that nobody minds: added to both sides of the score
_MOST = 4.0  # of a score, to each side


@dataclass(slots=True, eq=False)
class _Promise:
    queue: str
    at: float
    half: float  # raw P50, seconds from ``at``
    late: float  # promised P90, likewise
    place: int = -1


@dataclass(slots=True)
class _Record:
    """Recent scores of one queue."""

    scores: deque[float] = field(default_factory=lambda: deque(maxlen=MEMORY))
    ordered: list[float] = field(default_factory=list)
    level: float = 0.9

    def add(self, score: float) -> None:
        if len(self.scores) == MEMORY:
            del self.ordered[bisect_left(self.ordered, self.scores[0])]
        self.scores.append(score)
        insort(self.ordered, score)

    def quantile(self, level: float) -> float:
        """Of the scores and a few zeros."""
        count = len(self.ordered) + _FEW
        place = level * count
        zero = bisect_left(self.ordered, 0.0)
        if place < zero:
            return self.ordered[int(place)]
        if place < zero + _FEW:
            return 0.0
        return self.ordered[min(int(place - _FEW), len(self.ordered) - 1)] if self.ordered else 0.0


class Calibration:
    """Learns from promises and corrects new ones; times are seconds since the epoch."""

    def __init__(self) -> None:
        self._open: dict[str, _Promise] = {}
        self._due: list[tuple[float, str]] = []
        self._records: dict[str, _Record] = {}
        self.judged = 0
        self.held = 0

    def told(self, key: str, queue: str, at: float, raw: Span) -> Span:
        """The corrected forecast; it becomes the promise to ``key`` if there was none."""
        half, late = self.corrected(queue, at, raw)
        if key not in self._open and raw[0] is not None and half is not None:
            end = late if late is not None else half
            self._open[key] = _Promise(queue, at, raw[0] - at, end - at)
            heapq.heappush(self._due, (end, key))
        return half, late

    def corrected(self, queue: str, at: float, raw: Span) -> Span:
        half, late = raw
        record = self._records.get(queue)
        if half is None or record is None or half <= at:
            return raw
        wait = half - at + _GRACE
        shift = record.quantile(0.5)
        stretch = record.quantile(record.level)
        middle = max(0.0, wait * math.exp(shift) - _GRACE)
        if late is None:
            return at + middle, None
        own = math.log((late - at + _GRACE) / wait)  # what the draws of run times say themselves
        beyond = max(stretch, shift)
        end = wait * math.exp(max(beyond, shift + 0.0 * own)) - _GRACE
        return at + middle, at + max(middle, end)

    def started(self, key: str, at: float) -> None:
        promise = self._open.pop(key, None)
        if promise is None:
            return
        record = self._records.setdefault(promise.queue, _Record())
        score = math.log((at - promise.at + _GRACE) / (promise.half + _GRACE))
        record.add(max(-_MOST, min(_MOST, score)))
        self._judge(record, at - promise.at <= promise.late)

    def gone(self, key: str) -> None:
        """It left the queue without starting: nobody knows."""
        self._open.pop(key, None)

    def settle(self, now: float) -> None:
        while self._due and self._due[0][0] < now:
            heapq.heappop(self._due)

    def _judge(self, record: _Record, held: bool) -> None:
        self.judged += 1
        self.held += held
        low, high = _RANGE
        record.level = min(high, max(low, record.level + _RATE * (0.9 - held)))
