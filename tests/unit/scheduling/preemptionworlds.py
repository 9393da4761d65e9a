"""Random full worlds for preemption: trees of cohorts with limits, holders within them, and one who wants in."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from fractions import Fraction

from glebe.scheduling.model import (
    Admitted,
    ClusterQueue,
    Cohort,
    FairSharing,
    FairStrategy,
    FlavorQuotas,
    Pending,
    PodSet,
    PodSetAssignment,
    Preemption,
    PreemptionPolicy,
    Quota,
    ResourceGroup,
    RunTime,
    Snapshot,
    Victim,
)
from glebe.scheduling.preemption.roster import Roster
from glebe.scheduling.preemption.search import victims
from glebe.scheduling.preemption.trial import Want
from glebe.scheduling.world import Holding, State, World

WITHIN = (PreemptionPolicy.NEVER, PreemptionPolicy.LOWER_PRIORITY, PreemptionPolicy.LOWER_OR_NEWER_EQUAL_PRIORITY)
RECLAIM = (PreemptionPolicy.NEVER, PreemptionPolicy.LOWER_PRIORITY, PreemptionPolicy.ANY, PreemptionPolicy.ANY)
STRATEGIES = (
    (FairStrategy.FINAL_SHARE, FairStrategy.INITIAL_SHARE),
    (FairStrategy.FINAL_SHARE,),
    (FairStrategy.INITIAL_SHARE,),
)
NOW = 1000.0


def groups(rng: random.Random, resources: tuple[str, ...], most: int) -> tuple[ResourceGroup, ...]:
    def limit() -> int | None:
        return rng.choice((None, None, None, rng.randint(0, most)))

    quotas = {r: Quota(rng.randint(0, most), limit(), limit()) for r in resources}
    return (ResourceGroup(resources, (FlavorQuotas("f", quotas),)),)


def preemption(rng: random.Random) -> Preemption:
    borrow = rng.choice((PreemptionPolicy.NEVER, PreemptionPolicy.LOWER_PRIORITY))
    return Preemption(rng.choice(WITHIN), rng.choice(RECLAIM), borrow, rng.choice((None, 0, 1)))


@dataclass
class Scene:
    """A world with its state, and what a workload wants in it."""

    world: World
    state: State
    holdings: dict[str, Holding]
    roster: Roster
    want: Want

    def victims(self) -> tuple[Victim, ...]:
        return victims(self.world, self.state, self.roster, self.want)

    def fits(self, gone: set[str], borrowing: bool = True) -> bool:
        """Does the workload fit without those holders? Asked on a copy."""
        state = self.state.copy()
        for key in gone:
            state.release(self.holdings[key])
        node, quotas = self.want.node, state.quotas
        within = all(quotas.usage[node][c] + n <= self.world.tree.nominal[node][c] for c, n in self.want.need)
        return quotas.fits(node, self.want.need) and (borrowing or within)


def asked(world: World, state: State, p: Pending) -> Want:
    """With every resource short of which not enough is available."""
    node = world.tree.queue_index[p.queue]
    (pods,) = p.pod_sets
    need = tuple(sorted((world.tree.cells["f", r], n) for r, n in pods.requests.items()))
    short = frozenset(c for c, n in need if n > state.quotas.available(node, c))
    return Want(p, node, need, short)


def held(p: Pending, number: int = 0, **more: object) -> Admitted:
    (pods,) = p.pod_sets
    assignment = PodSetAssignment("main", 1, dict.fromkeys(pods.requests, "f"), pods.requests)
    made = Admitted(p.key, p.queue, p.priority, NOW - 100 + number, p.pod_sets, (assignment,), RunTime(1, 1))
    return replace(made, uid=p.key, queued_at=p.queued_at, reserved_at=made.started_at, **more)  # type: ignore[arg-type]


def scene(snapshot: Snapshot) -> Scene:
    """For the snapshot's one pending workload."""
    world = World(snapshot)
    state, holdings = world.state(snapshot.admitted)
    roster = Roster(world, snapshot.admitted, holdings, NOW)
    return Scene(world, state, holdings, roster, asked(world, state, snapshot.pending[0]))


def workload(rng: random.Random, key: str, queue: str, resources: tuple[str, ...], most: int) -> Pending:
    some = rng.sample(resources, rng.randint(1, len(resources)))
    pods = PodSet("main", 1, {r: rng.randint(1, most) for r in sorted(some)})
    return Pending(key, queue, rng.randint(-1, 1), float(rng.randint(0, 9)), (pods,), RunTime(1, 1))


def snapshot(
    seed: int, fair: bool, resources: tuple[str, ...] = ("cpu",), deep: bool = True, limits: bool = True
) -> Snapshot:
    """As full as it gets with random workloads, and one that waits. CPUs in millicores, so that 1 is small."""
    rng = random.Random(seed)
    cohorts = [
        Cohort(
            f"c{i}",
            None if i == 0 else f"c{rng.randint(0, i - 1)}",
            groups(rng, resources, 4) if rng.random() < 0.3 else (),
            rng.choice((Fraction(1), Fraction(1), Fraction(2), Fraction(0))),
        )
        for i in range(rng.randint(1, 4) if deep else 1)
    ]
    names = [f"q{i}" for i in range(rng.randint(2, 5))]
    queues = [
        ClusterQueue(
            name,
            groups(rng, resources, 6),
            rng.choice(cohorts).name if rng.random() < 0.95 else None,
            weight=rng.choice((Fraction(1), Fraction(1), Fraction(1, 2), Fraction(3), Fraction(0))),
            preemption=preemption(rng),
            min_run_time=rng.choice((0.0, 0.0, 0.0, 95.0)) if limits else 0.0,
        )
        for name in names
    ]
    sharing = FairSharing(rng.choice(STRATEGIES)) if fair else None
    empty = Snapshot(queues=tuple(queues), cohorts=tuple(cohorts), fair_sharing=sharing)
    world = World(empty)
    state, _ = world.state(())
    admitted = []
    for i in range(rng.randint(3, 16)):
        p = workload(rng, f"w{i:02}", rng.choice(names), resources, 4)
        a = held(p, i, evicted=rng.random() < 0.1)
        holding = world.holding(a)
        if state.quotas.fits(holding.node, holding.need):
            state.hold(holding)
            admitted.append(a)
    p = workload(rng, "in", rng.choice(names), resources, 6)
    return replace(empty, admitted=tuple(admitted), pending=(p,))
