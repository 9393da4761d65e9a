"""A small course of events for the production decisions with preemption: work arrives, starts, is evicted, ends.

Victims leave some steps after their eviction, as they do in life, and are queued again. After every step the books are
checked by an account of their own: quota over the whole cohort tree, nodes, gangs.
"""

from __future__ import annotations

import random
from dataclasses import replace

import schedulingworlds as w

from glebe.scheduling import decide
from glebe.scheduling.model import (
    GPU,
    Admitted,
    ClusterQueue,
    Cohort,
    Decision,
    FairSharing,
    Flavor,
    FlavorQuotas,
    Fungibility,
    Outcome,
    Pending,
    PodSet,
    Preemption,
    PreemptionPolicy,
    Preference,
    Quota,
    Reason,
    ResourceGroup,
    RunTime,
    Snapshot,
    Strategy,
    TryNext,
)
from glebe.scheduling.quotas.quota import QuotaState, QuotaTree
from glebe.scheduling.world import World

WITHIN = (PreemptionPolicy.NEVER, PreemptionPolicy.LOWER_PRIORITY, PreemptionPolicy.LOWER_OR_NEWER_EQUAL_PRIORITY)
RECLAIM = (PreemptionPolicy.NEVER, PreemptionPolicy.LOWER_PRIORITY, PreemptionPolicy.ANY)
FLAVORS = ("gpu", "spare")


def _groups(rng: random.Random, most: int) -> tuple[ResourceGroup, ...]:
    def limit() -> int | None:
        return rng.choice((None, None, None, rng.randint(0, most)))

    listed = tuple(
        FlavorQuotas(f, {GPU: Quota(rng.randint(0, most), limit(), limit()), "cpu": Quota(10**9)})
        for f in FLAVORS[: rng.choice((1, 1, 2))]
    )
    return (ResourceGroup((GPU, "cpu"), listed),)


def _queue(rng: random.Random, name: str, cohort: str | None, min_run_time: float) -> ClusterQueue:
    never, lower = PreemptionPolicy.NEVER, PreemptionPolicy.LOWER_PRIORITY
    policy = Preemption(rng.choice(WITHIN), rng.choice(RECLAIM), rng.choice((never, never, lower)))
    fungible = Fungibility(rng.choice(list(TryNext)), rng.choice(list(TryNext)), rng.choice(list(Preference)))
    return ClusterQueue(
        name,
        _groups(rng, 16),
        cohort,
        rng.choice(list(Strategy)),
        preemption=policy,
        fungibility=fungible,
        min_run_time=min_run_time,
    )


def world(rng: random.Random, *, fair: bool, nodes: bool, shield: float = 0.0) -> Snapshot:
    """Four queues in a cohort tree with limits, with or without a fleet on which pods are placed."""
    fleet = tuple(w.node(f"n{i}", f"b{i // 4}", f"r{i // 2}") for i in range(rng.randint(3, 8))) if nodes else ()
    cohorts = (Cohort("root", None, _groups(rng, 8)), Cohort("sub", "root"))
    queues = tuple(_queue(rng, f"q{i}", rng.choice(("root", "sub", "sub", None)), shield) for i in range(4))
    flavors = tuple(Flavor(f, {"pool": "gpu"}, topology="default" if nodes else None) for f in FLAVORS)
    sharing = FairSharing() if fair else None
    return Snapshot(fleet, (w.TOPOLOGY,), flavors, queues, cohorts, fair_sharing=sharing)


def workload(rng: random.Random, number: int, now: float, *, nodes: bool) -> Pending:
    pods, gpus = rng.randint(1, 4), rng.choice((1, 2, 4, 8))
    ask = rng.choice((None, w.UNCONSTRAINED, w.required(w.RACK), w.preferred(w.BLOCK))) if nodes else None
    least = rng.choice((None, None, max(1, pods - 2)))
    pod_set = PodSet("main", pods, {GPU: gpus, "cpu": 1000}, topology=ask, min_count=least)
    run_time = RunTime(50.0, 80.0)
    return Pending(
        f"w{number:03}", f"q{rng.randrange(4)}", rng.randint(0, 2), now, (pod_set,), run_time, created_at=now
    )


class Course:
    """Steps through time; ``admissions`` and ``evictions`` count what happened."""

    def __init__(self, snapshot: Snapshot, rng: random.Random) -> None:
        self.snapshot = snapshot
        self.rng = rng
        self.now = 0.0
        self.admissions = 0
        self.evictions = 0
        self._leaving: dict[str, float] = {}
        self._asked: dict[str, Pending] = {}

    def arrive(self, pending: Pending) -> None:
        self._asked[pending.key] = pending
        self.snapshot = replace(self.snapshot, pending=(*self.snapshot.pending, pending))

    def grow(self, key: str) -> None:
        """A running workload wants more pods: a slice that replaces it."""
        old = next((a for a in self.snapshot.admitted if not a.evicted), None)
        if old is not None and old.pod_sets[0].min_count is None:
            larger = replace(old.pod_sets[0], count=old.pod_sets[0].count + 1)
            self.arrive(
                replace(self._asked[old.key], key=key, pod_sets=(larger,), queued_at=self.now, replaces=old.key)
            )

    def end(self, key: str) -> None:
        left = tuple(a for a in self.snapshot.admitted if a.key != key)
        self.snapshot = replace(self.snapshot, admitted=left)
        self._leaving.pop(key, None)

    def step(self) -> list[Decision]:
        """Decide, do it, and check the books."""
        self.now += 1.0
        for key in [key for key, at in self._leaving.items() if at <= self.now]:
            self.end(key)
            again = self._asked[key]
            self.snapshot = replace(self.snapshot, pending=(*self.snapshot.pending, again))
        decisions = decide(self.snapshot, self.now)
        self._execute(decisions)
        check(self.snapshot)
        return decisions

    def _execute(self, decisions: list[Decision]) -> None:
        waiting = {p.key: p for p in self.snapshot.pending}
        admitted = {a.key: a for a in self.snapshot.admitted}
        assert sorted(d.key for d in decisions) == sorted(waiting)
        for d in decisions:
            if d.outcome is Outcome.ADMIT:
                p = waiting.pop(d.key)
                admitted[p.key] = _started(p, d, self.now)
                assert d.replaces == p.replaces
                admitted.pop(d.replaces, None)
                self._leaving.pop(d.replaces, None)
                self.admissions += 1
        for d in decisions:
            if d.key in waiting:  # as the condition QuotaReserved tells the next decision
                waits = d.reason is Reason.WAITING_FOR_PREEMPTED
                waiting[d.key] = replace(waiting[d.key], preempting=waits)
            for victim in d.victims:
                a = admitted[victim.key]  # KeyError: it was replaced in the same breath
                if not a.evicted:
                    self._may_leave(a)
                    admitted[victim.key] = replace(a, evicted=True)
                    self._asked[victim.key] = replace(self._asked[victim.key], preempted_by=((d.key, self.now),))
                    self._leaving[victim.key] = self.now + self.rng.choice((1.0, 2.0, 3.0))
                    self.evictions += 1
        self.snapshot = replace(self.snapshot, pending=tuple(waiting.values()), admitted=tuple(admitted.values()))

    def _may_leave(self, a: Admitted) -> None:
        shield = next(q.min_run_time for q in self.snapshot.queues if q.name == a.queue)
        assert self.now >= a.started_at + shield, f"{a.key} is protected"

    @property
    def quiet(self) -> bool:
        return not self._leaving


def _started(p: Pending, d: Decision, now: float) -> Admitted:
    for pod_set, a in zip(p.pod_sets, d.assignments, strict=True):
        least = pod_set.count if pod_set.min_count is None else pod_set.min_count
        assert least <= a.count <= pod_set.count, (p.key, pod_set, a)
        assert not a.nodes or sum(pods for _, pods in a.nodes) == a.count, "a gang starts whole"
    return Admitted(
        p.key,
        p.queue,
        p.priority,
        now,
        p.pod_sets,
        d.assignments,
        p.run_time,
        queued_at=p.queued_at,
        reserved_at=now,
        preempted_by=p.preempted_by,
    )


def check(snapshot: Snapshot) -> None:
    """Nothing is used twice: not on nodes, not of quotas, at no level of the tree."""
    allocatable = {n.name: n.allocatable for n in snapshot.nodes}
    for name, used in w.node_use(snapshot).items():
        for resource, amount in used.items():
            assert amount <= allocatable[name].get(resource, 0), f"{name}: {amount} {resource}"
    world = World(snapshot)
    _, holdings = world.state(snapshot.admitted)
    tree = QuotaTree(snapshot.queues, snapshot.cohorts)
    state = QuotaState(tree)
    for holding in holdings.values():
        state.add(holding.node, holding.need)
    for node, used in enumerate(state.usage):
        for cell, amount in enumerate(used):
            bound = tree.potential(node, cell)
            assert amount <= bound, f"{tree.names[node]} uses {amount} of {tree.cell_names[cell]}, at most {bound}"
