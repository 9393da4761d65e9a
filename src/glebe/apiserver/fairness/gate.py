"""The filter: classification, budgets, turns and deadlines around every request that is not the platform's own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from glebe.apiserver.clusters.firstobjects import LEVEL_NAMES, SCHEMA_NAMES
from glebe.apiserver.fairness import limits, work
from glebe.apiserver.fairness.options import FairnessOptions
from glebe.apiserver.fairness.schemas import LEVELS, SCHEMAS, Plan
from glebe.apiserver.fairness.tenants import LONG, WATCH, WRITE, Lane, LevelUse, Tally, Tenant
from glebe.apiserver.fairness.turns import Refused, Turns
from glebe.apiserver.flight import Flight, Onward
from glebe.apiserver.metrics.families import Histogram
from glebe.apiserver.request.routing import ROOT
from glebe.apiserver.sharing.courtesy import courtesy
from glebe.apiserver.store import Event, Follower
from glebe.kube import errors
from glebe.kube.duration import parse_duration
from glebe.kube.transport import Request, Response

if TYPE_CHECKING:
    from glebe.apiserver.assembly import Assembly
    from glebe.apiserver.server import ApiServer

log = logging.getLogger("glebe.apiserver.fairness")

_CHECK_SECONDS = 1.0
_REST_SECONDS = 5.0
_STRANGER = ""
"""Stands for all names of clusters that do not exist."""
_TIMEOUT = "request did not complete within the allotted timeout"
OTHER = "other"
_WAITS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30)

Counts = dict[tuple[str, ...], int]


class Gate:
    """See the module."""

    def __init__(self, server: ApiServer, options: FairnessOptions) -> None:
        self._server = server
        self.options = options
        self.turns = Turns(options)
        self.tenants: dict[str, Tenant] = {}
        self._running: dict[asyncio.Task[object], float] = {}
        """Requests in progress and when (the loop's time) they have taken too long."""
        self._expired: set[asyncio.Task[object]] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._next_rest = 0.0
        self._longest = options.request_seconds
        self._latest = 0.0
        """When a request that begins now has taken too long, to the second."""
        self._bounds = bool(options.cluster_requests or options.cluster_watches)
        self._bounds = self._bounds or bool(options.user_requests or options.user_watches)
        self._given_plan: list[Plan] = []
        """Of all clusters that changed none of the schemas and levels that they were given."""
        self.tallies: dict[tuple[str, str], Tally] = {}
        """By (level, schema)."""
        self.rejected: Counts = {}
        """By (level, schema, reason)."""
        self.waits = Histogram(
            "apiserver_flowcontrol_request_wait_duration_seconds",
            "How long requests waited that had to, by priority level and whether they began.",
            ("priority_level", "execute"),
            _WAITS,
        )
        self.over_budget: Counts = {}
        self.terminated: Counts = {}
        """By the code with which the server ended a request in self-defence."""
        self.writes = self.reads = 0
        """In progress."""
        self.watching = limits.Watching()
        server.clusters.on_delete(self._forget)
        self._followers: tuple[Follower, ...] = ()

    def follow(self) -> None:
        """Hear of changed schemas and levels. The store must have been started."""
        store = self._server.store
        self.turns.manners = courtesy()
        self._followers = tuple(store.follow(resource, self._changed) for resource in (SCHEMAS, LEVELS))

    async def __call__(self, flight: Flight, onward: Onward) -> Response:
        request = flight.request
        if request.user is not None:
            return await onward(flight)
        lane = self._lane(flight)
        kind = lane.kind
        if kind == LONG:
            return await onward(flight)
        loop = asyncio.get_running_loop()
        cluster = lane.tenant.cluster
        if (self._bounds or (cluster is not None and cluster.budget is not None)) and not lane.free:
            self._take(lane, loop.time())
        task = asyncio.current_task()
        assert task is not None
        timer = self._begin(task, request, loop) if request.query else None
        if self._sweeper is None:
            self._latest = loop.time() + self._longest
            self._sweeper = loop.call_later(_CHECK_SECONDS, self._sweep, loop)
        self._running[task] = self._latest
        watches = kind == WATCH
        if watches:
            self.watching.reserve(lane)
        entered = False
        try:
            if kind == WRITE or lane.counts:
                cost, seats = work.estimate(self._server, flight, lane)
            else:
                cost, seats = 1.0, 1
            if not lane.free and not self.turns.enter(lane, cost, seats, loop.time()):
                await self._wait(lane, cost, seats)
            entered = True
            lane.tally.dispatched += 1
            if kind == WRITE:
                response = await self._write(flight, onward, lane, seats)
            else:
                self.reads += 1
                try:
                    response = await onward(flight)
                finally:
                    self.reads -= 1
                    if not lane.free:
                        self.turns.leave(lane, seats)
                if watches and response.stream is not None:
                    watches = False
                    self.watching.begin(lane, flight.route, response)
        except asyncio.CancelledError:
            if task not in self._expired:
                raise
            self._expired.discard(task)
            task.uncancel()
            self.terminated[("504",)] = self.terminated.get(("504",), 0) + 1
            raise errors.ApiError(504, "Timeout", f"Timeout: {_TIMEOUT}" if not entered else _TIMEOUT) from None
        finally:
            del self._running[task]
            if watches:
                self.watching.release(lane)
            if timer is not None:
                timer.cancel()
        response.headers.update(lane.headers)
        return response

    def _take(self, lane: Lane, now: float) -> None:
        """Count the request against the budgets.

        :raises Exceeded: one is used up.
        """
        try:
            limits.take(lane.tenant.cluster, self.options, lane, now)
        except limits.Exceeded as over:
            self.over_budget[(over.budget,)] = self.over_budget.get((over.budget,), 0) + 1
            raise

    def _lane(self, flight: Flight) -> Lane:
        user, route = flight.user, flight.route
        tenant = self.tenants.get(route.cluster)
        if tenant is None:
            tenant = self._tenant(route.cluster)
        what = route.resource or route.path
        key = (user.name, user.groups, route.verb, what, route.group, route.subresource, route.namespace)
        lane = tenant.lanes.get(key)
        if lane is None:
            lane = tenant.lane(self._server, self.options, user, route, self._tally, self._given_plan)
            tenant.lanes[key] = lane
        return lane

    def _tally(self, level: str, schema: str) -> Tally:
        """Bounded: tenants choose the names of their schemas and levels."""
        return self.tallies.setdefault(common(level, schema), Tally())

    def by_level(self, measure: Callable[[LevelUse], float]) -> dict[str, float]:
        """The sum over all clusters, by level."""
        out = dict.fromkeys((*sorted(LEVEL_NAMES), OTHER), 0.0)
        for tenant in self.tenants.values():
            for name, use in tenant.levels.items():
                out[name if name in LEVEL_NAMES else OTHER] += measure(use)
        return out

    def nominal(self) -> dict[str, float]:
        """Seats of the levels as the root cluster has them."""
        plan = (self.tenants.get(ROOT) or self._tenant(ROOT)).plan_of(self._server, self.options, self._given_plan)
        return {name: float(level.nominal) for name, level in plan.levels.items() if name in LEVEL_NAMES}

    def _tenant(self, cluster: str) -> Tenant:
        name = cluster
        if not self._server.clusters.exists(cluster):
            # The register and wildcards are the root cluster's; other names are strangers' guesses.
            name = ROOT if cluster in ("", "*") else _STRANGER
            found = self.tenants.get(name)
            if found is not None:
                return found
        tenant = self.tenants[name] = Tenant(name, self._server.clusters.get(name))
        return tenant

    def _forget(self, cluster: str) -> None:
        tenant = self.tenants.pop(cluster, None)
        if tenant is not None:
            tenant.end()

    def _changed(self, event: Event) -> None:
        if not event.name:
            return
        tenant = self.tenants.get(event.cluster)
        if tenant is not None:
            tenant.forget_plan()

    # -- turns -----------------------------------------------------------------------------------------------------

    async def _wait(self, lane: Lane, cost: float, seats: int) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        level, _ = common(lane.level.level.name, "")
        try:
            await self.turns.wait(lane, cost, seats)
            self.waits.of(level, "true").observe(loop.time() - began)
        except Refused as refused:
            self.waits.of(level, "false").observe(loop.time() - began)
            key = (*common(lane.level.level.name, lane.schema.name), refused.reason)
            self.rejected[key] = self.rejected.get(key, 0) + 1
            self.terminated[("429",)] = self.terminated.get(("429",), 0) + 1
            raise errors.too_many_requests("Too many requests, please try again later.") from None

    async def _write(self, flight: Flight, onward: Onward, lane: Lane, seats: int) -> Response:
        """A write runs to its end even when nobody waits for its answer any more."""
        self.writes += 1
        inner = asyncio.ensure_future(onward(flight))
        inner.add_done_callback(lambda _: self._written(lane, seats))
        try:
            return await asyncio.shield(inner)
        except asyncio.CancelledError:
            inner.add_done_callback(_outlived)
            raise

    def _written(self, lane: Lane, seats: int) -> None:
        self.writes -= 1
        if not lane.free:
            self.turns.leave(lane, seats)

    # -- deadlines -------------------------------------------------------------------------------------------------

    def _begin(
        self, task: asyncio.Task[object], request: Request, loop: asyncio.AbstractEventLoop
    ) -> asyncio.TimerHandle | None:
        """Have the request end at the time that it asks for itself.

        :raises ApiError: 400 for a bad ``timeout``.
        """
        text = request.param("timeout")
        if not text:
            return None
        try:
            asked = parse_duration(text)
        except ValueError:
            raise errors.bad_request("invalid timeout specified in the request URL") from None
        return loop.call_later(asked, self._expire, task) if 0 < asked < self._longest else None

    def _expire(self, task: asyncio.Task[object]) -> None:
        if task in self._running and task not in self._expired:
            self._expired.add(task)
            task.cancel()

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """End what has taken too long, forget who rests. The oldest request comes first."""
        now = loop.time()
        self._latest = now + self._longest
        for task, deadline in list(self._running.items()):
            if deadline > now:
                break
            self._expire(task)
        if now >= self._next_rest:
            self._next_rest = now + _REST_SECONDS
            for name, tenant in list(self.tenants.items()):
                if tenant.rests and limits.rests(tenant, now):
                    del self.tenants[name]
                    tenant.end()
        busy = bool(self._running) or bool(self.tenants)
        self._sweeper = loop.call_later(_CHECK_SECONDS, self._sweep, loop) if busy else None

    def close(self) -> None:
        """Stop. The store may be closed already."""
        for follower in self._followers:
            follower.close()
        self._followers = ()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None


def common(level: str, schema: str) -> tuple[str, str]:
    """(level, schema) for counters: what is not in every cluster is "other"."""
    return level if level in LEVEL_NAMES else OTHER, schema if schema in SCHEMA_NAMES else OTHER


def _outlived(inner: asyncio.Future[Response]) -> None:
    """The end of a write whose client was told that it took too long."""
    if not inner.cancelled() and (error := inner.exception()) is not None and not isinstance(error, errors.ApiError):
        log.error("a write failed after its request timed out", exc_info=error)


def contribute(assembly: Assembly) -> None:
    """Put the gate in, unless the options say otherwise."""
    options = assembly.options.fairness
    server = assembly.server
    if server.gate is not None:
        server.gate.close()
        server.gate = None
    if not options.enabled:
        return
    gate = server.gate = Gate(server, options)
    assembly.filter("fairness", gate)
    if server.ready:
        gate.follow()
