"""Forecasts for a queue that somebody else runs: Kueue admits, Glebe tells when.

Reads Kueue's own objects, decides nothing, and writes one thing: the annotation :data:`.labels.FORECAST` of workloads
that wait, with what ``status.forecast`` says elsewhere. Each such write wakes Kueue's controllers for the workload, so
they are few: only what a reader would care about, not again within half a minute, and at most so many a second.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import orjson

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env, parse_time
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey, annotations_of
from glebe.kube.transport import ConnectionLost
from glebe.queueing import labels
from glebe.queueing.configuration import DEFAULT, Configuration
from glebe.queueing.life import transitions
from glebe.queueing.picture.snapshot import WATCHED, SnapshotBuilder
from glebe.queueing.round.notices import Notices
from glebe.queueing.round.planner import Planner
from glebe.queueing.round.publish import ForecastPublisher
from glebe.scheduling.model import Forecast

log = logging.getLogger("glebe.queueing.round.advisory")

#: Kinds that only Glebe has: without it installed nobody has any.
ABSENT = frozenset({r.WORKLOAD_CLASSES})
_PER_SECOND = 5.0
_AGAIN = 30.0


def told(workload: Object) -> Object:
    """The forecast that a workload carries in its annotation; empty without one."""
    try:
        found = orjson.loads(annotations_of(workload).get(labels.FORECAST) or b"{}")
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


class AdvisoryPublisher(ForecastPublisher):
    """Writes forecasts beside the workloads' status, which is Kueue's."""

    def __init__(self, client: Client, env: Env, planner: Planner, builder: SnapshotBuilder) -> None:
        super().__init__(client, env, planner, builder, Notices(client, env), interval=2.0, refresh=60.0)

    def _to_tell(self, forecasts: Sequence[Forecast], now: float) -> list[tuple[ObjectKey, Forecast]]:
        most = max(1, int(_PER_SECOND * max(self._interval, self._took)))
        return super()._to_tell(forecasts, now)[:most]

    async def _publish(self, key: ObjectKey, forecast: Forecast) -> None:
        now = self._env.clock.now()
        workload = self._builder.workload(key)
        if workload is None or not self._due(workload, forecast, now):
            return
        queue = self._builder.cluster_queue(workload)
        said = transitions.wait(_as_told(workload), forecast.decision, forecast, now, queue)["status"]["forecast"]
        meta = workload["metadata"]
        change = {"metadata": {"annotations": {labels.FORECAST: orjson.dumps(said).decode()}, "uid": meta["uid"]}}
        try:
            await self._client.patch(r.WORKLOADS, meta["name"], change, meta["namespace"])
        except (ApiError, ConnectionLost) as error:
            log.debug("the forecast of %s was not written: %s", key, error)
            return
        self.written += 1

    @staticmethod
    def _due(workload: Object, forecast: Forecast, now: float) -> bool:
        before = told(workload)
        at = before.get("computedAt")
        same = before.get("reason") == str(forecast.decision.reason)
        if at is not None and same and now < parse_time(at) + _AGAIN:
            return False
        return ForecastPublisher._due(_as_told(workload), forecast, now)


def _as_told(workload: Object) -> Object:
    """The workload as if its annotation stood in its status."""
    return {**workload, "status": {**(workload.get("status") or {}), "forecast": told(workload)}}


class Advisory:
    """Everything that advises: the picture of the world, and who tells of it."""

    def __init__(
        self, client: Client, informers: Informers, env: Env, planner: Planner, configuration: Configuration = DEFAULT
    ) -> None:
        self.builder = SnapshotBuilder(client.cluster, configuration)
        self.builder.attach(informers, without=ABSENT)
        self.publisher = AdvisoryPublisher(client, env, planner, self.builder)
        key = ObjectKey(client.cluster, "", "advisory")
        watching = Controller("queue-advisory", self._changed, env)
        for resource in WATCHED:
            if resource not in ABSENT:
                watching.watch(informers.get(resource), lambda _: (key,), when=_matters)
        self.controllers = [watching, self.publisher.controller]

    async def _changed(self, key: ObjectKey) -> Result | None:
        self.publisher.poke()
        return None


def _matters(old: Object | None, new: Object | None) -> bool:
    """Our own writes change nothing that we read."""
    if old is None or new is None:
        return True
    return any(old.get(part) != new.get(part) for part in ("spec", "status")) or (
        annotations_of(old).get(labels.FORECAST) == annotations_of(new).get(labels.FORECAST)
    )
