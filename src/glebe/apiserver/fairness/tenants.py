"""What fairness knows of one logical cluster, from its first request until it rests."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from glebe.apiserver.fairness.buckets import Bucket
from glebe.apiserver.fairness.queues import Fair
from glebe.apiserver.fairness.recent import Recent
from glebe.apiserver.fairness.schemas import LEVELS, SCHEMAS, Level, Plan, Schema, compile_plan
from glebe.apiserver.request.routing import ROOT, Route
from glebe.kube.transport import User

if TYPE_CHECKING:
    from glebe.apiserver.clusters.logical import LogicalCluster
    from glebe.apiserver.fairness.options import FairnessOptions
    from glebe.apiserver.server import ApiServer

MASTERS = "system:masters"
_MOST_LANES = 512
_WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
_LONG = frozenset({"attach", "exec", "log", "portforward", "proxy"})
READ, WRITE, WATCH, LONG = range(4)
COUNTED = frozenset({"list", "watch", "deletecollection"})
"""Verbs whose work depends on how many objects there are."""


class Tally:
    """How many requests a schema's level took on; the one object of all clusters' schemas of a name."""

    __slots__ = ("dispatched",)

    def __init__(self) -> None:
        self.dispatched = 0


class LevelUse:
    """A priority level of one cluster: who has seats, who waits."""

    __slots__ = ("flows", "level", "order", "used")

    def __init__(self, level: Level, most: int) -> None:
        self.level = level
        self.order = Fair(self, level.shares)
        self.flows: dict[str, Fair] = {}
        self.used = 0


class Lane:
    """How requests of one kind, from one user, are treated."""

    __slots__ = ("counts", "flow", "free", "headers", "kind", "level", "schema", "tally", "tenant", "user")

    def __init__(self, tenant: Tenant, schema: Schema, use: LevelUse, user: User, route: Route, tally: Tally) -> None:
        self.tenant = tenant
        self.tally = tally
        self.schema = schema
        self.level = use
        self.user = user.name
        self.flow = f"{schema.name}/{schema.flow(user, route)}"
        self.kind = kind_of(route)
        self.counts = route.verb in COUNTED and not route.name
        self.free = use.level.exempt and tenant.name == ROOT
        """Upstream's exempt: it does not wait and is not refused. Elsewhere "exempt" counts within the cluster only."""
        self.headers: dict[str, str] = {}
        """What the answers say of schema and level."""


def kind_of(route: Route) -> int:
    """How long a request may take, and whether it may be cut off."""
    if route.verb == "watch":
        return WATCH
    if route.subresource in _LONG:
        return LONG
    return WRITE if route.resource and route.verb in _WRITES else READ


class Tenant:
    """One logical cluster."""

    __slots__ = (
        "bucket",
        "cluster",
        "lanes",
        "levels",
        "name",
        "order",
        "plan",
        "recent",
        "used",
        "user_buckets",
        "user_watches",
        "waiting",
        "watches",
    )

    def __init__(self, name: str, cluster: LogicalCluster | None) -> None:
        self.name = name
        self.cluster = cluster
        self.order = Fair(self)
        self.recent = Recent()
        self.plan: Plan | None = None
        self.lanes: dict[tuple[object, ...], Lane] = {}
        self.levels: dict[str, LevelUse] = {}
        self.used = 0
        """Seats."""
        self.waiting = 0
        self.watches = 0
        self.bucket: Bucket | None = None
        self.user_buckets: dict[str, Bucket] = {}
        self.user_watches: dict[str, int] = {}

    @property
    def rests(self) -> bool:
        """There is nothing to remember of it."""
        return not (self.used or self.waiting or self.watches)

    def end(self) -> None:
        """It is not known any more. Who rests leaves no circles behind, which only a full collection would find."""
        if self.rests and not self.order.active:
            for use in self.levels.values():
                use.order.key = None
            self.order.key = None
            self.levels.clear()
            self.lanes.clear()

    def forget_plan(self) -> None:
        """A schema or level of the cluster changed. Who has a seat or waits goes on under the old one."""
        self.plan = None
        self.lanes.clear()
        self.levels = {name: use for name, use in self.levels.items() if use.used or use.flows}

    def plan_of(self, server: ApiServer, options: FairnessOptions, shared: list[Plan]) -> Plan:
        """What the cluster's schemas and levels say, compiled; ``shared`` is that of all who changed nothing."""
        plan = self.plan
        if plan is None:
            where = self.where(server)
            given = where != ROOT and all(server.store.untouched(each, where) for each in (SCHEMAS, LEVELS))
            if given and shared:
                plan = shared[0]
            else:
                schemas, levels = server.read_all(where, SCHEMAS), server.read_all(where, LEVELS)
                plan = compile_plan(schemas, levels, options.seats)
                if given:
                    shared.append(plan)
            self.plan = plan
        return plan

    def where(self, server: ApiServer) -> str:
        """The cluster whose schemas count."""
        return self.name if server.clusters.exists(self.name) else ROOT

    def lane(
        self,
        server: ApiServer,
        options: FairnessOptions,
        user: User,
        route: Route,
        tally: Callable[[str, str], Tally],
        shared: list[Plan],
    ) -> Lane:
        """The lane of a request that came the first time."""
        schema, level = self.plan_of(server, options, shared).find(user, route)
        use = self.levels.get(level.name)
        if use is None:
            use = self.levels[level.name] = LevelUse(level, options.seats)
        elif use.level is not level:
            use.level = level
            use.order.weight = level.shares
        if len(self.lanes) >= _MOST_LANES:
            self.lanes.clear()
        lane = Lane(self, schema, use, user, route, tally(level.name, schema.name))
        where = self.where(server)
        for what, resource, name in (("flowschema", SCHEMAS, schema.name), ("prioritylevel", LEVELS, level.name)):
            obj = server.read(where, resource, "", name)
            lane.headers[f"x-kubernetes-pf-{what}-uid"] = obj["metadata"]["uid"] if obj is not None else ""
        return lane
