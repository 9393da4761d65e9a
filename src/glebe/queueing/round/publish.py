"""Publishes forecasts: after each cycle, at most once a second, written only where a reader would care."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object, ObjectKey, get_condition
from glebe.kube.transport import ConnectionLost
from glebe.queueing import labels
from glebe.queueing.life import transitions
from glebe.queueing.picture import convert
from glebe.queueing.picture.learning import Learning
from glebe.queueing.picture.snapshot import SnapshotBuilder
from glebe.queueing.round.notices import Notices, in_full
from glebe.queueing.round.parallel import in_parallel
from glebe.queueing.round.planner import Planner
from glebe.queueing.tenants import tenancy
from glebe.scheduling.foresight.counterfactuals import counterfactuals
from glebe.scheduling.model import Admitted, Forecast, Outcome, Snapshot

log = logging.getLogger("glebe.queueing.forecast")

_PARALLEL_WRITES = 16
#: Counterfactuals are forecasts, too: in one pass of so few workloads, for so many, if they wait for longer than this.
_SMALL = 50
_EXPLAINED = 2
_WORTHWHILE = 120.0
#: While work starts and ends, each place moves all the time: starting the next ones comes before telling the others.
_WHILE_MOVING = 50.0  # forecasts written per second, at most
_SOON = 2.0  # seconds; who starts so soon learns it by starting
_REST = 3.0  # passes last and rest by this proportion


class ForecastPublisher:
    """Runs the core forward and writes ``status.forecast`` of everything that waits.

    :param interval: least seconds between two passes.
    :param refresh: seconds after which forecasts are looked at again although nothing changed.
    """

    def __init__(
        self,
        client: Client,
        env: Env,
        planner: Planner,
        builder: SnapshotBuilder,
        notices: Notices,
        *,
        interval: float = 1.0,
        refresh: float = 30.0,
    ) -> None:
        self._client = client
        self._env = env
        self._planner = planner
        self._builder = builder
        self._notices = notices
        self._interval = interval
        self._refresh = refresh
        self._last = float("-inf")
        self._holding: tuple[Admitted, ...] | None = None  # who held quota at the last pass
        self._moving = False  # whether anything started or ended since the last pass
        self._took = 0.0  # seconds of the last pass: a long queue's forecasts may keep this process half busy, not more
        self._key = ObjectKey(client.cluster, "", "forecast")
        self.controller = Controller("queue-forecast", self._reconcile, env)
        self.compare: Callable[[Object, Forecast], None] | None = None
        """Told what a waiting workload shows and the verdict that is new (for the reasons' accuracy)."""
        self.learning: Learning | None = None
        self.passes = 0
        self.written = 0

    def poke(self) -> None:
        """A cycle has ended: the forecast is due, now or as soon as the interval allows."""
        rest = _REST * self._took if self._moving else self._took
        self.controller.queue.add_after(self._key, self._last + max(self._interval, rest) - self._env.clock.now())

    async def _reconcile(self, key: ObjectKey) -> Result | None:
        now = self._env.clock.now()
        since, self._last = now - self._last, now
        snapshot = self._builder.snapshot()
        self._moving = self._holding is not None and snapshot.admitted is not self._holding
        self._holding = snapshot.admitted
        if not snapshot.pending:
            return None
        if self.learning is not None:
            snapshot = self.learning.applied(snapshot, now, self._declared)
        forecasts = await self._planner.forecast(snapshot, now)
        if self.learning is not None:
            forecasts = self.learning.calibrated(snapshot, forecasts, now)
        listed = self._to_tell(forecasts, now)
        if len(snapshot.pending) + len(snapshot.admitted) <= _SMALL:
            listed = [(key, self._with_sooner(snapshot, f, now, i)) for i, (key, f) in enumerate(listed)]
        limit = int(_WHILE_MOVING * min(max(since, self._interval), 10.0)) if self._moving else len(listed)
        await in_parallel((self._publish(key, f) for key, f in listed[:limit]), _PARALLEL_WRITES)
        self._last = self._env.clock.now()
        self._took = self._last - now
        self.passes += 1
        return Result(requeue_after=self._interval if limit < len(listed) else self._refresh)

    @staticmethod
    def _with_sooner(snapshot: Snapshot, forecast: Forecast, now: float, place: int) -> Forecast:
        """What would start it sooner, for the first few that are told and wait for more than a moment."""
        start = forecast.start_p50
        soon = start is not None and start - now < _WORTHWHILE
        if place >= _EXPLAINED or soon or forecast.decision.outcome is not Outcome.WAIT:
            return forecast
        return replace(forecast, counterfactuals=tuple(counterfactuals(snapshot, forecast.key, now)))

    def _declared(self, name: str) -> bool:
        """Did its owner, or its class, say how long it runs?"""
        key = self._builder.keys.get(name)
        workload = self._builder.workload(key) if key is not None else None
        return workload is None or self._builder.declares_run_time(workload)

    def _to_tell(self, forecasts: Sequence[Forecast], now: float) -> list[tuple[ObjectKey, Forecast]]:
        """Forecasts that are due: first of those who never had one, then by place."""
        known = self._builder.keys
        listed = []
        for forecast in forecasts:
            key = known.get(forecast.key)
            workload = self._builder.workload(key) if key is not None else None
            if key is None or workload is None:
                continue
            if self._builder.strangers:
                forecast = _discreet(forecast, key, known)
            if self.compare is not None and not convert.holds_quota(workload):
                self.compare(workload, forecast)
            if not self._due(workload, forecast, now):
                continue
            if self._moving and forecast.start_p50 is not None and forecast.start_p50 - now < _SOON:
                continue
            told = "forecast" in (workload.get("status") or {})
            listed.append((told, forecast.position, key, forecast))
        listed.sort(key=lambda each: each[:2])
        return [(key, forecast) for _, _, key, forecast in listed]

    async def _publish(self, key: ObjectKey, forecast: Forecast) -> None:
        now = self._env.clock.now()
        if forecast.decision.outcome is Outcome.ADMIT:
            return  # the next cycle admits it
        workload = self._builder.workload(key)
        if workload is None or not self._due(workload, forecast, now):
            return
        before = get_condition(workload, labels.QUOTA_RESERVED) or {}
        wanted = transitions.wait(workload, forecast.decision, forecast, now, self._builder.cluster_queue(workload))
        try:
            written = await self._client.update_status(r.WORKLOADS, wanted)
        except (ApiError, ConnectionLost) as error:
            log.debug("the forecast of %s was not written: %s", key, error)
            self.poke()
            return
        self.written += 1
        if before.get("reason") != str(forecast.decision.reason):
            self._say(written, forecast)

    @staticmethod
    def _due(workload: Object, forecast: Forecast, now: float) -> bool:
        if convert.holds_quota(workload) or convert.is_finished(workload):
            return False
        return transitions.differs_materially(workload, forecast, now)

    def _say(self, workload: Object, forecast: Forecast) -> None:
        decision = forecast.decision
        kind = "Warning" if decision.outcome is Outcome.NEVER else "Normal"
        reason = str(decision.reason) if decision.outcome is Outcome.NEVER else "Pending"
        self._notices.say(workload, kind, reason, in_full(decision))


def _discreet(forecast: Forecast, key: ObjectKey, known: Mapping[str, ObjectKey]) -> Forecast:
    """As the workload's owner may read it."""
    decision = tenancy.told(forecast.decision, key, known)
    return forecast if decision is forecast.decision else replace(forecast, decision=decision)
