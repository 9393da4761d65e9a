"""Forecasts made during a replay, and what simpler ways would have said at the same moment.

Each job is judged by the first forecast after its submission, if it still waits then: the one that a person acts on.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from glebe.scheduling.decide import settle
from glebe.scheduling.foresight.ahead import Same, Span, run_ahead, spans
from glebe.scheduling.foresight.calibration import Calibration
from glebe.scheduling.foresight.course import Started
from glebe.scheduling.model import Snapshot
from glebe.scheduling.placement.fleet import Fleet
from glebe.scheduling.replay.engine import Replay
from glebe.scheduling.replay.learning import Declared, Learned


@dataclass(slots=True)
class Foretold:
    """What was said about one job when it was first spoken of: seconds since the epoch; ``None``: never."""

    key: str
    queue: str
    at: float
    submitted: float
    p50: float | None
    p90: float | None
    raw: Span = (None, None)  # before calibration
    average: float | None = None  # by the moving average of waits
    declared: float | None = None  # by declared limits
    position: int = 0


class MovingAverage:
    """The mean wait of the last ``count`` jobs that a queue started."""

    def __init__(self, count: int = 20) -> None:
        self._count = count
        self._waits: dict[str, deque[float]] = {}

    def started(self, queue: str, wait: float) -> None:
        self._waits.setdefault(queue, deque(maxlen=self._count)).append(wait)

    def wait(self, queue: str) -> float:
        known = self._waits.get(queue)
        return sum(known) / len(known) if known else 0.0


class Forecaster:
    """Forecasts whenever somebody new waits, at most once in ``every`` seconds; ``told`` has what it said.

    :param slurm: also plan with declared limits, for comparison.
    """

    def __init__(self, oracle: Learned, every: float, *, slurm: Declared | None = None, average: int = 20) -> None:
        self.told: dict[str, Foretold] = {}
        self.calibration = Calibration()
        self.passes = 0
        self._oracle = oracle
        self._every = every
        self._slurm = slurm
        self._average = MovingAverage(average)
        self._last = -math.inf
        self._new: dict[str, None] = {}  # wait, and were not spoken of
        self._fleet: Fleet | None = None

    def step(self, replay: Replay, now: float, started: Sequence[Started]) -> None:
        for one in started:
            p = one.pending
            self._new.pop(p.key, None)
            self._average.started(p.queue, now - p.queued_at)
            self.calibration.started(p.key, now)
        self._new.update((key, None) for key in replay.arrived if key in replay.course.waiting)
        if self._new and now - self._last >= self._every:
            self._last = now
            self._speak(replay, now)

    def _speak(self, replay: Replay, now: float) -> None:
        self.passes += 1
        snapshot = self._view(replay, now)
        if self._fleet is None:
            self._fleet = replay.course.world.fleet
        expected = spans(settle(snapshot, self._fleet), now, math.inf)
        limits = self._by_limits(replay, snapshot, now)
        for p in snapshot.pending:
            if p.key in self.told:
                continue
            raw = expected[p.key]
            half, late = self.calibration.corrected(p.queue, now, raw)
            self.calibration.promised(p.key, p.queue, now, raw, late)
            average = max(now, p.queued_at + self._average.wait(p.queue))
            self.told[p.key] = Foretold(
                p.key, p.queue, now, p.queued_at, half, late, raw, average, limits.get(p.key), len(self._new)
            )
        self._new.clear()

    def _view(self, replay: Replay, now: float) -> Snapshot:
        """What the engine sees, with run times as they are predicted now."""
        seen = replay.view()
        predict = self._oracle.history.predict
        return replace(
            seen,
            admitted=tuple(replace(a, run_time=predict(a.key, now)) for a in seen.admitted),
            pending=tuple(replace(p, run_time=predict(p.key, now)) for p in seen.pending),
        )

    def _by_limits(self, replay: Replay, seen: Snapshot, now: float) -> dict[str, float]:
        slurm = self._slurm
        if slurm is None:
            return {}
        job = {key: replay.of[key].job for key in (*replay.running, *replay.course.waiting)}
        limited = replace(
            seen,
            admitted=tuple(replace(a, run_time=slurm.predict(job[a.key], now)) for a in seen.admitted),
            pending=tuple(replace(p, run_time=slurm.predict(job[p.key], now)) for p in seen.pending),
        )
        return run_ahead(settle(limited, self._fleet), now, math.inf, Same(0.5))
