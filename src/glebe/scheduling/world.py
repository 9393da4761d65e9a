"""A snapshot made ready for decisions: the static ``World``, the mutable ``State``, and plans per kind of workload.

Workloads of one queue with equal pod sets share one ``Plan``: they are equivalent, what holds for one holds for all.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from glebe.scheduling.flavoring.flavors import Option, SetPlan, plan_pod_set
from glebe.scheduling.model import Admitted, Backfill, ClusterQueue, PodSet, PodSetAssignment, Snapshot
from glebe.scheduling.placement.asks import ANYTIME, Asks, Bits
from glebe.scheduling.placement.capacity import NodeState, Shape, Spot
from glebe.scheduling.placement.fleet import Fleet
from glebe.scheduling.placement.refine import refine
from glebe.scheduling.quotas.quota import Cell, Need, QuotaState, QuotaTree

if TYPE_CHECKING:
    from glebe.scheduling.flavoring.assigntable import UnitTable

MAX_PLANS = 20_000  # that a world is kept with
MAX_TOUCHED = 1_000_000
Taken = tuple[tuple[Shape, tuple[Spot, ...]], ...]


@dataclass(slots=True, eq=False)
class Plan:
    """How equal workloads of one queue could start."""

    queue: ClusterQueue
    node: int  # in the quota tree
    sets: tuple[SetPlan, ...]
    key: tuple[Cell, int]  # a cell that it needs, and how much, whatever flavors it gets; (-1, 0) if there is none
    ask_number: int  # its one option's, -1 if it has several
    asks: Bits  # of its first pod set: unless one of these can be placed, it does not fit
    simple: bool  # one pod set: "does not fit" stays true until something is freed
    fair: bool = False  # its tree shares fairly
    table: tuple[UnitTable, ...] | None = None  # for the search with preemption, when it is first needed
    possible: bool | None = None  # fits an empty fleet and empty quotas; unknown before it is asked


class Holding(NamedTuple):
    """What a running workload holds, in the terms of ``State``."""

    node: int  # quota tree node, -1 if its queue is gone
    need: Need
    taken: Taken


class State:
    """Quota and nodes in use. ``hold`` and ``release`` are the seam for admission, completion and preemption."""

    __slots__ = ("nodes", "quotas")

    def __init__(self, quotas: QuotaState, nodes: NodeState) -> None:
        self.quotas = quotas
        self.nodes = nodes

    def copy(self) -> State:
        return State(self.quotas.copy(), self.nodes.copy())

    def hold(self, holding: Holding) -> None:
        if holding.node >= 0:
            self.quotas.add(holding.node, holding.need)
        for shape, spots in holding.taken:
            self.nodes.take(shape, spots)

    def release(self, holding: Holding) -> None:
        if holding.node >= 0:
            self.quotas.remove(holding.node, holding.need)
        for shape, spots in holding.taken:
            self.nodes.give(shape, spots)


class World:
    """Static parts of a snapshot: fleet, quota tree, queues, flavors, plans."""

    def __init__(self, snapshot: Snapshot, fleet: Fleet | None = None) -> None:
        if fleet is None or not fleet.matches(snapshot.nodes, snapshot.topologies):
            fleet = Fleet(snapshot.nodes, snapshot.topologies)
        self.snapshot = snapshot
        self.fleet = fleet
        self.tree = QuotaTree(snapshot.queues, snapshot.cohorts)
        aware = snapshot.gates.topology_aware
        self.flavors = {f.name: f if aware else replace(f, topology=None) for f in snapshot.flavors}
        self.queues = {q.name: q for q in snapshot.queues}
        self.misconfigured = {q.name: why for q in snapshot.queues if (why := self._fault(q))}
        self.reserves = any(q.backfill is not Backfill.GREEDY for q in snapshot.queues)
        self.pristine = State(QuotaState(self.tree), NodeState.pristine(fleet))
        self._idle: State | None = None
        self.asks = Asks()
        self._plans: dict[tuple[str, tuple[object, ...]], Plan] = {}
        self._shapes: dict[tuple[tuple[str, int], ...], Shape] = {}

    @staticmethod
    def kept(snapshot: Snapshot, fleet: Fleet | None = None) -> World:
        """The last world made of ``fleet``, for another snapshot, if only its work differs; else a new one.

        So plans, the quota tree and what was found out about them serve many decisions. One thread at a time.
        """
        known = fleet.kept if fleet is not None else None
        if isinstance(known, World) and known._serves(snapshot):
            world = copy(known)
            world.snapshot = snapshot
            return world
        world = World(snapshot, fleet)
        world.fleet.kept = world
        return world

    def _serves(self, snapshot: Snapshot) -> bool:
        mine = self.snapshot
        same = (
            mine.queues is snapshot.queues
            and mine.cohorts is snapshot.cohorts
            and mine.flavors is snapshot.flavors
            and (mine.fair_sharing, mine.quota_check, mine.gates)
            == (snapshot.fair_sharing, snapshot.quota_check, snapshot.gates)
            and self.fleet.matches(snapshot.nodes, snapshot.topologies)
        )
        touched = len(self.pristine.nodes.changed) + (len(self._idle.nodes.changed) if self._idle else 0)
        return same and len(self._plans) < MAX_PLANS and touched < MAX_TOUCHED

    def _fault(self, queue: ClusterQueue) -> str:
        if queue.cohort in self.tree.broken:
            return f"cohort {queue.cohort} is its own ancestor"
        for group in queue.resource_groups:
            for fq in group.flavors:
                flavor = self.flavors.get(fq.flavor)
                if flavor is None:
                    return f"flavor {fq.flavor} does not exist"
                if flavor.topology and flavor.topology not in self.fleet.topologies:
                    return f"topology {flavor.topology} of flavor {fq.flavor} does not exist"
        return ""

    def fair(self, node: int) -> bool:
        """Does the tree of a node share fairly (instantaneously, by shares)?"""
        switch = self.tree.switch[self.tree.top[node]]
        return self.snapshot.fair_sharing is not None if switch is None else switch

    @property
    def idle(self) -> State:
        """As the fleet is today, with no workload on it and no quota in use. Not to be changed."""
        if self._idle is None:
            self._idle = State(QuotaState(self.tree), NodeState.of(self.fleet))
        return self._idle

    def plan(self, queue: ClusterQueue, pod_sets: tuple[PodSet, ...]) -> Plan:
        key = (queue.name, (queue.delays_topology, *(_signature(s) for s in pod_sets)))
        found = self._plans.get(key)
        if found is None:
            if not self.snapshot.gates.topology_aware:
                pod_sets = tuple(replace(s, topology=None) for s in pod_sets)
            check = self.snapshot.quota_check
            planned = [plan_pod_set(s, queue, self.flavors, self.tree, self.fleet, check) for s in pod_sets]
            sets = refine(planned, self.fleet, self.snapshot.gates, queue.delays_topology)
            node = self.tree.queue_index[queue.name]
            only = _only_option(sets)
            quota_key = only.need[0] if only else (-1, 0)
            number = only.ask_number if only else -1
            asks = self.asks.mask(sets[0].options, sets[0].pod_set.count) if sets else ANYTIME
            simple = len(sets) == 1
            found = self._plans[key] = Plan(queue, node, sets, quota_key, number, asks, simple, self.fair(node))
        return found

    def state(self, admitted: Iterable[Admitted]) -> tuple[State, dict[str, Holding]]:
        """The state with ``admitted`` in place, and what each of them holds."""
        state = State(QuotaState(self.tree), NodeState.of(self.fleet))
        holdings = {a.key: self.holding(a) for a in admitted}
        for key in sorted(holdings):
            state.hold(holdings[key])
        return state, holdings

    def holding(self, admitted: Admitted) -> Holding:
        need: dict[Cell, int] = {}
        taken: list[tuple[Shape, tuple[Spot, ...]]] = []
        by_name = {s.name: s for s in admitted.pod_sets}
        for a in admitted.assignments:
            for resource, amount in a.usage.items():
                cell = self.tree.cells.get((a.flavors.get(resource, ""), resource))
                if cell is not None and amount > 0:
                    need[cell] = need.get(cell, 0) + amount
            if a.nodes:
                shape = self._shape_of(by_name.get(a.pod_set), a)
                index = self.fleet.index
                taken.append((shape, tuple((index[n], pods) for n, pods in a.nodes if n in index)))
        return Holding(self.tree.queue_index.get(admitted.queue, -1), tuple(sorted(need.items())), tuple(taken))

    def _shape_of(self, pod_set: PodSet | None, a: PodSetAssignment) -> Shape:
        if pod_set is not None:
            requests = pod_set.requests
        else:  # the pods are unknown: the assignment's totals, spread evenly
            requests = {r: -(-n // max(1, a.count)) for r, n in a.usage.items()}
        key = tuple(requests.items())
        found = self._shapes.get(key)
        if found is None:
            known = {r: n for r, n in requests.items() if r in self.fleet.column}
            found = self._shapes[key] = self.fleet.vector(known) or ()
        return found


def _only_option(sets: tuple[SetPlan, ...]) -> Option | None:
    if len(sets) == 1 and len(sets[0].options) == 1 and sets[0].options[0].need:
        return sets[0].options[0]
    return None


def _signature(s: PodSet) -> tuple[object, ...]:
    selector = tuple(sorted(s.node_selector.items())) if s.node_selector else ()
    requests = tuple(sorted(s.requests.items()))
    charged = None if s.charged is None else tuple(sorted(s.charged.items()))
    where = (selector, s.tolerations, s.topology, s.affinity, s.preferred)
    return (s.name, s.count, s.min_count, requests, charged, *where)
