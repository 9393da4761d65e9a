"""Run times learned from what ran before: calibrated quantiles by user, group, image, GPU count and declared limit.

A ``History`` is a fold over starts and ends in the order of time: fed with the same runs it predicts the same, so it
can be rebuilt from finished work after a restart. It keeps a bounded window of recent runs per *rung*: everything, a
GPU count, a group, a group's user, down to one user's runs of one image at one size. A prediction climbs down from the
general to the particular: at each rung the runs seen there are joined by what the rung above predicts, with the weight
of a few runs; so three runs of one's own count for something, thirty decide.

Running work is censored, not ignored: that a run has lasted for two hours says that it takes longer. (Without that, the
short runs of a burst, which end first, would be all that is known of it.) The estimate is Kaplan and Meier's (1958),
with newer runs weighing more. For work that runs already, only runs that lasted as long count.

What was submitted together runs alike: in Philly's trace the logarithms of run times differ by 1.3 to 2.4 (standard
deviation) within a queue and GPU count, by 0.5 within a *batch* whose submissions follow each other within a minute.
So batches, and sessions of several batches, are the last rungs; run times of one batch are drawn together
(``RunTime.kin``) while it is not known how long they take; and before its first run a batch is like other batches of
its size: of these each has only a few votes, or else the last one would speak for all.

Promises are checked: whether a run had ended when its promised P50 and P90 passed moves the levels at which the next
ones are read (adaptive conformal inference, Gibbs and Candès 2021), so that P90 keeps meaning nine of ten.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from glebe.scheduling.model import RunTime

Floats = npt.NDArray[np.float64]
Rung = tuple[object, ...]

POINTS = 20  # of a curve
LEVELS: Floats = (np.arange(POINTS) + 0.5) / POINTS
WINDOW = 192  # runs that a rung remembers
RUNGS = 4096  # rungs remembered; the longest unused are forgotten
ABOVE = 4.0  # the weight, in runs, of what the rung above says
HALF_LIFE = 32.0  # a run with so many later ones at its rung counts half
_FADE: Floats = 0.5 ** (np.arange(WINDOW) / HALF_LIFE)
_AGE_STEPS = 4.0  # per doubling: ages at which predictions of running work are renewed


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known about work before it runs. Empty means not known. ``limit``: declared maximum, in seconds."""

    group: str = ""
    user: str = ""
    image: str = ""
    gpus: int = 0
    limit: float | None = None


BATCH_GAP = 60.0  # seconds between two submissions of one batch, at most
SESSION_GAP = 900.0
_VOTES = 3  # runs of a batch that speak for others; after these every 8th, 16th, 32nd ...


@dataclass(slots=True, eq=False)
class _Batch:
    """Work with equal facts, submitted in quick succession."""

    session: float  # when the session and the batch began
    began: float
    last: float
    count: int = 0
    started: int = 0

    def vote(self) -> bool:
        """Does the run that starts now speak for others than its batch?"""
        self.started += 1
        return self.started <= _VOTES or (self.started >= 8 and self.started & (self.started - 1) == 0)


@dataclass(slots=True, eq=False)
class _Run:
    started: float
    ended: float | None = None
    cut: bool = False  # it did not end by itself: it would have taken longer


@dataclass(slots=True, eq=False)
class _Work:
    """Work that waits or runs."""

    facts: Facts
    batch: _Batch
    run: _Run | None = None
    rungs: tuple[Rung, ...] = ()  # at which its run was entered


@dataclass(slots=True, eq=False)
class _Window:
    """Recent runs of one rung, the newest last, and the curves drawn from them."""

    runs: deque[_Run] = field(default_factory=lambda: deque(maxlen=WINDOW))
    changes: int = 0
    curves: dict[float, tuple[int, Floats]] = field(default_factory=dict)  # by age: at which change, the points


@dataclass(slots=True)
class _Levels:
    """The levels at which P50 and P90 are read, moved by how often they held."""

    at: list[float] = field(default_factory=lambda: [0.5, 0.9])

    def learn(self, which: int, held: bool) -> None:
        target = TARGETS[which]
        low, high = _RANGE[which]
        self.at[which] = min(high, max(low, self.at[which] + _RATE * (target - held)))


TARGETS = (0.5, 0.9)
_RANGE = ((0.2, 0.8), (0.7, 0.985))
_RATE = 0.02


class History:
    """What ran, and what that says about what will run. Times are seconds since the epoch.

    Arrivals and starts are told in order of time. Memory is bounded but for the work that waits or runs.

    :param prior: P50 and P90 of work about which nothing is known yet.
    """

    def __init__(self, prior: RunTime) -> None:
        self._scale = prior.p50
        self._slope = math.log(9.0) / math.log(max(1.01, prior.p90 / prior.p50))  # log-logistic through both
        self._windows: OrderedDict[Rung, _Window] = OrderedDict()
        self._batches: OrderedDict[Facts, _Batch] = OrderedDict()  # the latest of each kind
        self._work: dict[str, _Work] = {}
        self._due: list[tuple[float, int, int, str, _Run]] = []  # when, sequence, which target, group, run
        self._levels: dict[str, _Levels] = {}
        self._sequence = 0
        self.checked = [0, 0]  # promises whose time has come, for P50 and P90
        self.held = [0, 0]

    def arrived(self, key: str, facts: Facts, at: float) -> None:
        """``key`` waits from now on; a key that is known is ignored."""
        if key in self._work:
            return
        batch = self._batches.pop(facts, None)
        gap = math.inf if batch is None else at - batch.last
        if batch is None or gap > BATCH_GAP:
            session = at if batch is None or gap > SESSION_GAP else batch.session
            batch = _Batch(session, at, at)
        batch.last = max(batch.last, at)
        batch.count += 1
        self._batches[facts] = batch
        if len(self._batches) > RUNGS:
            self._batches.popitem(last=False)
        self._work[key] = _Work(facts, batch)

    def started(self, key: str, at: float) -> None:
        """``key`` begins to run (again); unknown and running keys are ignored."""
        work = self._work.get(key)
        if work is None or work.run is not None:
            return
        self.settle(at)
        promised = self.predict(key, at)
        run = work.run = _Run(at)
        for which, length in enumerate((promised.p50, promised.p90)):
            self._sequence += 1
            heapq.heappush(self._due, (at + length, self._sequence, which, work.facts.group, run))
        own, others = ladder(work.facts, work.batch)
        work.rungs = (*others, *own) if work.batch.vote() else tuple(own)
        for rung in work.rungs:
            window = self._windows.get(rung)
            if window is None:
                window = self._windows[rung] = _Window()
                if len(self._windows) > RUNGS:
                    self._windows.popitem(last=False)
            else:
                self._windows.move_to_end(rung)
            window.runs.append(run)

    def ended(self, key: str, at: float, *, cut: bool = False, again: bool = False) -> None:
        """``key`` has ended by itself, or was ``cut`` short and is forgotten or waits ``again``.

        That of a key that never started, or is unknown, is only forgotten.
        """
        work = self._work.get(key)
        if work is None:
            return
        run, work.run = work.run, None
        if not again:
            del self._work[key]
        if run is None:
            return
        run.ended, run.cut = max(at, run.started), cut
        for rung in work.rungs:
            window = self._windows.get(rung)
            if window is not None:
                window.changes += 1
        self.settle(at)

    def settle(self, now: float) -> None:
        """Check the promises whose time has come."""
        while self._due and self._due[0][0] <= now:
            due, _, which, group, run = heapq.heappop(self._due)
            if run.cut and run.ended is not None and run.ended < due:
                continue  # nobody knows
            held = run.ended is not None and run.ended <= due
            self.checked[which] += 1
            self.held[which] += held
            self._levels.setdefault(group, _Levels()).learn(which, held)

    def predict(self, key: str, now: float) -> RunTime:
        """The total run time of known work that waits, or runs already.

        :raises KeyError: for work of which nobody told.
        """
        work = self._work[key]
        return self._climb(work.facts, work.batch, now, 0.0 if work.run is None else now - work.run.started)

    def like(self, facts: Facts, now: float) -> RunTime:
        """The run time of one workload that would be submitted now."""
        return self._climb(facts, _Batch(now, now, now, 1), now, 0.0)

    def _climb(self, facts: Facts, batch: _Batch, now: float, age: float) -> RunTime:
        step = 0.0 if age < 1.0 else 2.0 ** (math.floor(math.log2(age) * _AGE_STEPS) / _AGE_STEPS)
        points = self._prior(step)
        own, others = ladder(facts, batch)
        for rung in (*others, *own):
            window = self._windows.get(rung)
            if window is not None:
                points = self._drawn(window, now, step, points)
        levels = self._levels.get(facts.group)
        if levels is not None:
            points = _read_at(points, levels.at)
        half, late = np.interp(TARGETS, LEVELS, points).tolist()
        if facts.limit is not None:
            half, late = min(half, facts.limit), min(late, facts.limit)
        kin = f"{facts.group}/{facts.user}/{facts.image}/{facts.gpus}/{batch.began:.0f}"
        return RunTime(half, late, tuple(points.tolist()), facts.limit, kin)

    def _prior(self, age: float) -> Floats:
        """Log-logistic: beyond the prior's P90 its tail is that of Lindy's law."""
        odds = (1 + (age / self._scale) ** self._slope) / (1 - LEVELS) - 1
        return np.asarray(self._scale * odds ** (1 / self._slope), dtype=np.float64)

    @staticmethod
    def _drawn(window: _Window, now: float, age: float, above: Floats) -> Floats:
        known = window.curves.get(age)
        if known is not None and window.changes - known[0] <= len(window.runs) // 16:
            return known[1]
        points = estimate(window.runs, now, age, above)
        if len(window.curves) > _AGE_STEPS * 24:
            window.curves.clear()
        window.curves[age] = (window.changes, points)
        return points


def ladder(facts: Facts, batch: _Batch) -> tuple[list[Rung], list[Rung]]:
    """Rungs of its own batch, and before them those that it shares, from everything to the most particular.

    Rungs about what is not known are left out.
    """
    size = facts.gpus.bit_length()
    rungs: list[Rung] = [(), ("size", size), ("group", facts.group), ("group", facts.group, size)]
    mine: Rung = ("group", facts.group)
    for name, value in (("user", facts.user), ("limit", facts.limit), ("image", facts.image)):
        if value:
            mine = (*mine, name, value)
            rungs += [mine, (*mine, size)]
    rungs.append((*mine, size, "count", batch.count.bit_length()))
    return [(*mine, size, "session", batch.session), (*mine, size, "batch", batch.began)], rungs


def estimate(runs: deque[_Run], now: float, age: float, above: Floats) -> Floats:
    """Quantiles at ``LEVELS`` of the run times beyond ``age``: Kaplan-Meier over ``runs`` and the points ``above``."""
    lengths, over = [], []
    for run in runs:
        ended = run.ended
        lengths.append((now if ended is None or ended > now else ended) - run.started)
        over.append(ended is not None and ended <= now and not run.cut)
    length = np.array(lengths)
    keep = length > age
    count = len(above)
    length = np.concatenate([length[keep], above])
    event = np.concatenate([np.array(over, dtype=bool)[keep], np.ones(count, dtype=bool)])
    weight = np.concatenate([_FADE[: len(runs)][::-1][keep], np.full(count, ABOVE / count)])
    order = np.argsort(length, kind="stable")
    length, event, weight = length[order], event[order], weight[order]
    at_risk = np.cumsum(weight[::-1])[::-1]
    survive = np.cumprod(1 - np.where(event, np.minimum(weight / at_risk, 1.0), 0.0))
    before = np.concatenate([[1.0], survive[:-1]])
    middle = 1 - (before + survive) / 2  # the share that has ended halfway through each step
    points = np.interp(LEVELS, middle[event], length[event])
    left = survive[-1]
    if left > 0:  # the longest is still running: nobody knows the tail
        beyond = 1 - left < LEVELS
        points[beyond] = length[-1] * left / (1 - LEVELS[beyond])
    return np.maximum.accumulate(points)


def _read_at(points: Floats, at: list[float]) -> Floats:
    """The curve whose quantile at each target is the given one's at the learned level."""
    levels = np.interp(LEVELS, [0.0, *TARGETS, 1.0], [0.0, *at, 1.0])
    inside = np.interp(levels, LEVELS, points)
    last = LEVELS[-1]
    beyond = levels > last
    inside[beyond] = points[-1] * (1 - last) / (1 - levels[beyond])
    return np.asarray(inside, dtype=np.float64)
