"""Budgets of requests and watches: of a logical cluster (``spec.budget``), and of each of its users (options)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from glebe.apiserver.fairness.buckets import Bucket
from glebe.apiserver.fairness.options import FairnessOptions
from glebe.apiserver.fairness.tenants import WATCH, Lane, Tenant
from glebe.apiserver.request.routing import Route
from glebe.apiserver.request.told import Told
from glebe.kube import errors
from glebe.kube.transport import Response

if TYPE_CHECKING:
    from glebe.apiserver.clusters.logical import LogicalCluster

_LATER = 5
"""Seconds after which one may ask again for a watch."""
_MOST_USERS = 1024
_BURST = 2.0
"""Seconds' worth of requests that may come at once, unless the budget says how many."""


def take(cluster: LogicalCluster | None, options: FairnessOptions, lane: Lane, now: float) -> None:
    """Count a request against the budgets.

    :raises ApiError: 429: one of them is used up.
    """
    tenant = lane.tenant
    budget = cluster.budget if cluster is not None else None
    if budget is not None or options.cluster_requests or tenant.bucket is not None:
        rate = options.cluster_requests or None
        if budget is not None and budget.requests is not None:
            rate = budget.requests
        _of_cluster(tenant, rate, budget.burst if budget is not None else None, now)
    if options.user_requests:
        _of_user(tenant, lane.user, options.user_requests, now)
    if lane.kind == WATCH:
        most = budget.watches if budget is not None and budget.watches is not None else options.cluster_watches or None
        _watches(tenant, lane.user, most, options.user_watches)


def _of_cluster(tenant: Tenant, rate: float | None, burst: float | None, now: float) -> None:
    if rate is None:
        tenant.bucket = None
        return
    most = float(burst if burst is not None else max(1, math.ceil(rate * _BURST)))
    bucket = tenant.bucket
    if bucket is None or bucket.rate != rate or bucket.burst != most:
        bucket = tenant.bucket = Bucket(rate, most, now)
    if (wait := bucket.take(now)) > 0:
        raise Exceeded(
            "cluster-requests",
            f'the budget of logical cluster "{tenant.name}" is used up: limited: requests={rate:g} per second, with '
            f"bursts of {most:g}; ask less often, or have spec.budget.requests of the LogicalCluster raised",
            wait,
        )


def _of_user(tenant: Tenant, user: str, rate: float, now: float) -> None:
    bucket = tenant.user_buckets.get(user)
    if bucket is None:
        if len(tenant.user_buckets) >= _MOST_USERS:
            tenant.user_buckets = {u: b for u, b in tenant.user_buckets.items() if not b.full(now)}
        bucket = tenant.user_buckets[user] = Bucket(rate, max(1.0, math.ceil(rate * _BURST)), now)
    if (wait := bucket.take(now)) > 0:
        raise Exceeded(
            "user-requests",
            f'user "{user}" asks too often: limited: requests={rate:g} per second for each user, with bursts of '
            f"{bucket.burst:g}; ask less often, or have the server's --max-requests-per-user raised",
            wait,
        )


def _watches(tenant: Tenant, user: str, most: int | None, of_user: int) -> None:
    if most is not None and tenant.watches >= most:
        raise Exceeded(
            "cluster-watches",
            f'exceeded the budget of logical cluster "{tenant.name}": requested: watches=1, used: '
            f"watches={tenant.watches}, limited: watches={most}; end some, or have spec.budget.watches of the "
            "LogicalCluster raised",
            _LATER,
        )
    if of_user and tenant.user_watches.get(user, 0) >= of_user:
        raise Exceeded(
            "user-watches",
            f'user "{user}" has too many watches: requested: watches=1, used: watches={tenant.user_watches[user]}, '
            f"limited: watches={of_user} for each user; end some, or have the server's --max-watches-per-user raised",
            _LATER,
        )


class Exceeded(errors.ApiError):
    """A budget is used up; ``budget`` says which: cluster or user, requests or watches."""

    def __init__(self, budget: str, message: str, wait: float) -> None:
        super().__init__(429, "TooManyRequests", message, retry_after=max(1, math.ceil(wait)))
        self.budget = budget


def rests(tenant: Tenant, now: float) -> bool:
    """Nothing would be different if its budgets were counted anew."""
    return (tenant.bucket is None or tenant.bucket.full(now)) and all(b.full(now) for b in tenant.user_buckets.values())


class Watching:
    """Counts open watches, by cluster, user and resource."""

    def __init__(self) -> None:
        self.open: dict[tuple[str, str, str], int] = {}
        """By group, version, resource."""

    def reserve(self, lane: Lane) -> None:
        """A watch is on its way; it counts from now on, so that many cannot pass together."""
        tenant, user = lane.tenant, lane.user
        tenant.watches += 1
        tenant.user_watches[user] = tenant.user_watches.get(user, 0) + 1

    def release(self, lane: Lane) -> None:
        """The watch ended, or did not begin."""
        tenant, user = lane.tenant, lane.user
        tenant.watches -= 1
        tenant.user_watches[user] -= 1
        if not tenant.user_watches[user]:
            del tenant.user_watches[user]

    def begin(self, lane: Lane, route: Route, response: Response) -> None:
        """``response`` is the reserved watch, until its stream ends."""
        assert response.stream is not None
        what = (route.group, route.version, route.resource)
        self.open[what] = self.open.get(what, 0) + 1

        def over() -> None:
            self.release(lane)
            self.open[what] -= 1
            if not self.open[what]:
                del self.open[what]

        response.stream = Told(response.stream, over)
