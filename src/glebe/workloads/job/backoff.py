"""How long a Job waits before it replaces failed pods: 10 s, doubling with every failure since the last success.

Upstream keeps this in memory; here it is a function of the pods that exist, so that a restarted controller waits for
exactly as long as its predecessor would have.
"""

from __future__ import annotations

from collections.abc import Iterable

from glebe.kube.objects import Object
from glebe.kube.pods import phase_of
from glebe.workloads.job.pods import finish_time

FIRST = 10.0
LONGEST = 360.0


def delay(failures: int) -> float:
    """Seconds between the last of ``failures`` consecutive failures and the next attempt."""
    if failures <= 0:
        return 0.0
    return float(min(FIRST * 2 ** min(failures - 1, 16), LONGEST))


def remaining(ended: Iterable[Object], now: float) -> float:
    """Seconds still to wait, given a Job's (or index's) finished pods that count."""
    ends = sorted((finish_time(p) or now, phase_of(p) != "Succeeded") for p in ended)
    failures, last = 0, now
    for when, failed in ends:
        failures = failures + 1 if failed else 0
        last = when
    return max(0.0, last + delay(failures) - now)
