"""What a replay amounts to: waits, use of the fleet, fairness, and how good the forecasts were. Plain numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from glebe.scheduling.replay.engine import Life
from glebe.scheduling.replay.foretelling import Foretold

PERCENTILES = (50, 90, 99)
_SHORT = 600.0  # seconds: shorter runs count as that long in slowdowns, or one of a second would decide everything


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest rank; 0 of nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(percent / 100 * len(ordered)) - 1))]


def scores(lives: Sequence[Life], gpus: int, told: Iterable[Foretold] = (), reserved: int = 0) -> dict[str, Any]:
    """One document per replay; times in seconds.

    ``utilisation`` is the share of the fleet's GPU time in use from the first submission to the last; ``fairness`` is
    Jain's index of the mean slowdowns of users (of queues where the trace names no users): 1 when all fare alike.
    """
    started = [life for life in lives if life.started is not None]
    waits = [life.wait or 0.0 for life in started]
    return {
        "jobs": len(lives),
        "neverStarted": len(lives) - len(started),
        "waited": sum(w > 0 for w in waits) / len(waits) if waits else 0.0,
        "wait": {"mean": sum(waits) / len(waits) if waits else 0.0}
        | {f"p{p}": percentile(waits, p) for p in PERCENTILES},
        "makespan": _makespan(started),
        "utilisation": _utilisation(lives, gpus),
        "fairness": _fairness(started),
        "reservedStarts": reserved,
        "forecast": forecast_scores(lives, told),
    }


def _makespan(started: Sequence[Life]) -> float:
    if not started:
        return 0.0
    return max(life.ended or 0.0 for life in started) - min(life.job.submitted for life in started)


def _utilisation(lives: Sequence[Life], gpus: int) -> float:
    if not lives or gpus <= 0:
        return 0.0
    begin, end = lives[0].job.submitted, lives[-1].job.submitted
    used = sum(
        life.job.gpus * max(0.0, min(end, life.ended or end) - life.started)
        for life in lives
        if life.started is not None and life.started < end
    )
    return used / (gpus * (end - begin)) if end > begin else 0.0


def _fairness(started: Sequence[Life]) -> float:
    of: dict[str, list[float]] = {}
    for life in started:
        run = max(_SHORT, (life.ended or 0.0) - (life.started or 0.0))
        of.setdefault(life.job.user or life.job.queue, []).append(((life.wait or 0.0) + run) / run)
    means = [sum(s) / len(s) for s in of.values()]
    return sum(means) ** 2 / (len(means) * sum(m * m for m in means)) if means else 1.0


def forecast_scores(lives: Iterable[Life], told: Iterable[Foretold]) -> dict[str, Any]:
    """Of first forecasts for jobs that then waited: how often P50 and P90 held, and the median error of P50.

    The same error for the moving average of waits and for declared limits, where these were worked out.
    """
    starts = {life.job.key: life.started for life in lives}
    judged = [(t, at) for t in told if (at := starts[t.key]) is not None]
    return {
        "told": len(judged),
        "p50Held": _share([t.p50 is not None and at <= t.p50 + 1e-6 for t, at in judged]),
        "p90Held": _share([t.p90 is None or at <= t.p90 + 1e-6 for t, at in judged]),
        "medianError": _median_error([(t.p50, at) for t, at in judged]),
        "medianErrorMovingAverage": _median_error([(t.average, at) for t, at in judged]),
        "medianErrorDeclaredLimits": _median_error([(t.declared, at) for t, at in judged]),
    }


def _share(held: Sequence[bool]) -> float | None:
    return sum(held) / len(held) if held else None


def _median_error(pairs: Iterable[tuple[float | None, float]]) -> float | None:
    errors = [abs(said - came) for said, came in pairs if said is not None]
    return percentile(errors, 50) if errors else None
