"""How well the queue serves: how soon it answers, whom it tells a start, whether that holds, whether its reasons do.

Four service-level indicators, each a ratio of two counters or a quantile of a histogram; docs/metrics.md has the
expressions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from glebe.apiserver.metrics.families import Families, Values
from glebe.kube import resources as r
from glebe.kube.clock import Env, parse_time
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, get_condition
from glebe.kube.store import Store
from glebe.queueing import labels
from glebe.queueing.picture import convert
from glebe.scheduling.model import Forecast, Outcome

_ANSWERS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_ERRORS = (1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 24 * 3600.0)
#: A forecast is looked at again every 30 s; one that is older than this is no longer spoken for.
FRESH = 120.0


class Indicators:
    """Sees every change of a workload, and every forecast before it is told."""

    def __init__(self, families: Families) -> None:
        self._workloads = Store()
        self._now: Callable[[], float] = float
        self._answered = families.histogram(
            "glebe_queue_answer_seconds",
            "From a workload's creation until the queue has admitted it or said why it waits.",
            (),
            _ANSWERS,
        )
        self._starts = families.counter(
            "glebe_queue_forecast_starts_total",
            "Starts by what had been forecast last: by P50, by P90, later, or nothing.",
            ("kept",),
        )
        self._error = families.histogram(
            "glebe_queue_forecast_error_seconds", "Distance of a start from the P50 told last.", (), _ERRORS
        )
        self._reasons = families.counter(
            "glebe_queue_reasons_total",
            "Reasons that waiting workloads show, compared with a new verdict on them: same or outdated.",
            ("compared",),
        )
        self._refuted = families.counter(
            "glebe_queue_never_refuted_total",
            "Workloads that started although they had been told that they never would.",
        )
        families.reading(
            "glebe_queue_forecasts",
            "Waiting workloads by forecast: told (P50 and P90), never (it says why none), stale, missing.",
            ("state",),
            self._coverage,
        )
        for kept in ("p50", "p90", "later", "unknown"):
            self._starts.add((kept,), 0.0)

    def follow(self, informers: Informers, env: Env) -> None:
        """Look at these caches from now on."""
        self._workloads = informers.get(r.WORKLOADS).store
        self._now = env.clock.now

    def see(self, old: Object | None, new: Object | None) -> None:
        """One workload has changed."""
        if new is None or old is None:
            return
        said = get_condition(new, labels.QUOTA_RESERVED)
        if said is not None and get_condition(old, labels.QUOTA_RESERVED) is None:
            self._answered.of().observe(max(0.0, self._now() - convert.queued_at(new)))
        if convert.holds_quota(new) and not convert.holds_quota(old):
            self._started(old)

    def _started(self, before: Object) -> None:
        now, told = self._now(), (before.get("status") or {}).get("forecast") or {}
        p50, p90 = _time(told.get("startP50")), _time(told.get("startP90"))
        if p50 is None or p90 is None:
            self._starts.add(("unknown",))
            if told.get("reason") and not told.get("startP50"):
                self._refuted.add(())
            return
        self._starts.add(("p50" if now <= p50 else "p90" if now <= p90 else "later",))
        self._error.of().observe(abs(now - p50))

    def compare(self, workload: Object, forecast: Forecast) -> None:
        """A new verdict is there, and the workload still shows the last one."""
        told = get_condition(workload, labels.QUOTA_RESERVED)
        if told is not None and forecast.decision.outcome is not Outcome.ADMIT:
            same = told.get("reason") == str(forecast.decision.reason)
            self._reasons.add(("same" if same else "outdated",))

    def _coverage(self) -> Values:
        now = self._now()
        counts: dict[tuple[str, ...], float] = {(state,): 0.0 for state in ("told", "never", "stale", "missing")}
        for workload in self._workloads.values():
            if not (convert.is_finished(workload) or convert.holds_quota(workload) or not convert.is_active(workload)):
                counts[(_state(workload, now),)] += 1.0
        return counts


def _state(workload: Object, now: float) -> str:
    told = (workload.get("status") or {}).get("forecast")
    if not told:
        return "missing"
    at, p50 = _time(told.get("computedAt")), _time(told.get("startP50"))
    if p50 is None:
        return "never"
    return "stale" if p50 + FRESH < now or at is None else "told"


def _time(text: str | None) -> float | None:
    if text:
        with contextlib.suppress(ValueError):
            return parse_time(text)
    return None
