"""How long admission attempts take: a planner around a planner that counts them."""

from __future__ import annotations

import time
from typing import Any

from glebe.apiserver.metrics.families import Families
from glebe.queueing.round.planner import Planner
from glebe.scheduling.model import Decision, Outcome

#: Prometheus' default buckets, as Kueue has them here.
_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_MARKS = ("result", "replica_role")


class Attempts:
    """Counts the decisions that pass through; everything else of the planner is passed on."""

    def __init__(self, families: Families, role: str) -> None:
        self._role = role
        self._total = families.counter(
            "kueue_admission_attempts_total",
            "Looks at the queue, by whether anybody was admitted (success) or nobody (inadmissible).",
            _MARKS,
        )
        self._took = families.histogram(
            "kueue_admission_attempt_duration_seconds", "How long such a look takes.", _MARKS, _BOUNDS
        )

    def around(self, planner: Planner) -> Planner:
        """The same planner, counted."""
        return _Counted(planner, self)

    def count(self, decisions: Any, seconds: float) -> None:
        found = any(isinstance(d, Decision) and d.outcome is Outcome.ADMIT for d in decisions)
        marks = ("success" if found else "inadmissible", self._role)
        self._total.add(marks)
        self._took.of(*marks).observe(seconds)


class _Counted:
    def __init__(self, inner: Planner, attempts: Attempts) -> None:
        self._inner = inner
        self._attempts = attempts

    async def decide(self, *args: Any, **more: Any) -> Any:
        began = time.perf_counter()
        found = await self._inner.decide(*args, **more)
        self._attempts.count(found, time.perf_counter() - began)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
