"""How long work runs, as a distribution: its quantiles, and what is left of it at an age.

A ``RunTime`` with a ``curve`` (from history) is that empirical distribution, with a tail that falls as 1/t; without one
it is the log-normal distribution through its P50 and P90; with both equal it is certain. What has outlived all that is
known about it is expected to go on in proportion to what has passed (Lindy's law), which is the same tail.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from statistics import NormalDist

from glebe.scheduling.model import RunTime

OVERDUE_FLOOR = 60.0  # seconds: the least that a job past its prediction is expected to go on
OVERDUE_SHARE = 0.05  # of its P50: the same, for long jobs
_NORMAL = NormalDist()
_Z90 = _NORMAL.inv_cdf(0.9)
_LEAST = 1e-3  # seconds that anything running is expected to go on


def quantile(run_time: RunTime, level: float) -> float:
    """The run time, from the start, that a share ``level`` (0..1, exclusive) of such work does not exceed."""
    if run_time.curve:
        value = _on_curve(run_time.curve, level)
    elif run_time.p90 <= run_time.p50 or level == 0.5:
        value = run_time.p50
    elif level == 0.9:  # exactly what was declared, without rounding
        value = run_time.p90
    else:
        value = run_time.p50 * (run_time.p90 / run_time.p50) ** (_NORMAL.inv_cdf(level) / _Z90)
    return value if run_time.bound is None else min(value, run_time.bound)


def remaining(run_time: RunTime, age: float, level: float) -> float:
    """What is left, at ``level``, of a run that has lasted ``age`` seconds; always above 0.

    History knows how many of those that lasted so long went on, and for how long. What an owner declares is taken at
    its word until it is proved wrong; then the overrun so far is expected to double.
    """
    if run_time.curve:
        ended = _share_on_curve(run_time.curve, age)
        left = _on_curve(run_time.curve, ended + (1 - ended) * level) - age
    else:
        left = quantile(run_time, level) - age
        if left <= 0:
            left = max(-left, OVERDUE_SHARE * run_time.p50, OVERDUE_FLOOR)
    if run_time.bound is not None:
        left = min(left, run_time.bound - age)
    return max(left, _LEAST)


def predicted_end(started_at: float, run_time: RunTime, now: float, level: float = 0.5) -> float:
    """Expected end of a job that runs at ``now``; seconds since the epoch, always after ``now``."""
    return now + remaining(run_time, now - started_at, level)


def reach(run_time: RunTime, *, predicted: bool) -> float:
    """Seconds that it does not exceed: by the limit at which the platform ends it, or else (if ``predicted`` is enough)
    by its P90, rounded up to the next quarter of a power of two; infinity if nothing says so."""
    if run_time.bound is not None:
        return run_time.bound
    if not predicted or run_time.p90 <= 0:
        return math.inf
    return float(2.0 ** (math.ceil(math.log2(run_time.p90) * 4) / 4))


def _on_curve(curve: tuple[float, ...], level: float) -> float:
    count = len(curve)
    place = level * count - 0.5
    if place <= 0:
        return curve[0]
    if place >= count - 1:
        return curve[-1] * max(1.0, 0.5 / count / max(1 - level, 1e-6))
    below = int(place)
    return curve[below] + (curve[below + 1] - curve[below]) * (place - below)


def _share_on_curve(curve: tuple[float, ...], age: float) -> float:
    count = len(curve)
    if age >= curve[-1]:
        return 1 - 0.5 / count * curve[-1] / age
    if age < curve[0]:
        return 0.0
    at = bisect_right(curve, age) - 1
    step = curve[at + 1] - curve[at]
    return (at + 0.5 + (age - curve[at]) / step) / count
