"""Preemption comes to rest: victims queue again, and after a while nobody leaves for anybody any more."""

from __future__ import annotations

import random
from dataclasses import replace

import preemptionworlds as p
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glebe.scheduling.decide import decide
from glebe.scheduling.model import (
    Admitted,
    ClusterQueue,
    Cohort,
    FairSharing,
    Flavor,
    FlavorQuotas,
    Outcome,
    Pending,
    PodSet,
    Preemption,
    PreemptionPolicy,
    Quota,
    Reason,
    ResourceGroup,
    RunTime,
    Snapshot,
)

STEPS = 80


class Play:
    """Workloads that never finish; victims leave within a step and wait again as they waited before."""

    def __init__(self, snapshot: Snapshot, waiting: list[Pending]) -> None:
        self.snapshot = replace(snapshot, flavors=(Flavor("f"),))
        self.waiting = {w.key: w for w in waiting}
        self.running = {a.key: replace(a, evicted=False) for a in snapshot.admitted}
        self.asked = self.waiting | {a.key: _asked(a) for a in snapshot.admitted}
        self.now = p.NOW
        self.left = 0

    def step(self) -> bool:
        """One cycle; whether anything happened."""
        self.now += 10
        snapshot = replace(
            self.snapshot,
            admitted=tuple(self.running[k] for k in sorted(self.running)),
            pending=tuple(self.waiting[k] for k in sorted(self.waiting)),
        )
        victims: dict[str, str] = {}
        moved = False
        for d in decide(snapshot, self.now):
            if d.outcome is Outcome.ADMIT:
                w = self.waiting.pop(d.key)
                started = p.held(w, preempted_by=w.preempted_by)
                self.running[d.key] = replace(
                    started, assignments=d.assignments, started_at=self.now, reserved_at=self.now
                )
                moved = True
                continue
            promised = d.reason is Reason.WAITING_FOR_PREEMPTED
            self.waiting[d.key] = replace(self.waiting[d.key], preempting=promised)
            victims |= {v.key: d.key for v in d.victims}
        for key, by in victims.items():
            del self.running[key]
            self.waiting[key] = replace(self.asked[key], preempted_by=((by, self.now),))
        self.left += len(victims)
        return moved or bool(victims)


def _asked(a: Admitted) -> Pending:
    return Pending(a.key, a.queue, a.priority, a.queued_at, a.pod_sets, a.run_time)


def play(seed: int, fair: bool, resources: tuple[str, ...]) -> Play:
    snapshot = p.snapshot(seed, fair, resources, limits=False)
    rng = random.Random(seed)
    queues = [q.name for q in snapshot.queues]
    more = [p.workload(rng, f"x{i:02}", rng.choice(queues), resources, 5) for i in range(12)]
    return Play(snapshot, [*snapshot.pending, *more])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.sampled_from([("cpu",), ("cpu", "memory")]))
def test_preemption_comes_to_rest(seed: int, fair: bool, resources: tuple[str, ...]) -> None:
    game = play(seed, fair, resources)
    for _ in range(STEPS):
        if not game.step():
            return
    pytest.fail(f"still moving after {STEPS} steps, {game.left} have left")


@pytest.mark.parametrize("seed", [1022, 1030, 1099, 1145])
def test_circles_of_three_that_the_rules_alone_would_run_in(seed: int) -> None:
    """Found by search: by shares, by reclaim and by priority in turn."""
    game = Play(p.snapshot(seed, True, deep=False, limits=False), [])
    rng = random.Random(seed * 7 + 1)
    for w in game.snapshot.pending:
        game.waiting[w.key] = game.asked[w.key] = w
    for i in range(14):
        w = p.workload(rng, f"x{i:02}", rng.choice(game.snapshot.queues).name, ("cpu",), 5)
        game.waiting[w.key] = game.asked[w.key] = w
    assert any(not game.step() for _ in range(STEPS))


def test_for_whom_others_leave_is_not_passed_by_when_they_are_gone() -> None:
    """Where both fit by turns, priority decides; but not about room that others left for somebody."""

    def quota(amount: int) -> tuple[ResourceGroup, ...]:
        return (ResourceGroup(("cpu",), (FlavorQuotas("f", {"cpu": Quota(amount)}),)),)

    def work(key: str, queue: str, priority: int) -> Pending:
        return Pending(key, queue, priority, 0.0, (PodSet("main", 1, {"cpu": 4}),), RunTime(1, 1))

    low, urgent = work("low", "q0", 0), work("urgent", "q1", 9)
    queues = tuple(ClusterQueue(name, quota(0), "all") for name in ("q0", "q1"))
    for sharing in (None, FairSharing()):
        snapshot = Snapshot((), (), (Flavor("f"),), queues, (Cohort("all", None, quota(4)),), fair_sharing=sharing)

        def starts(*waiting: Pending, world: Snapshot = snapshot) -> list[str]:
            decisions = decide(replace(world, pending=waiting), p.NOW)
            return [d.key for d in decisions if d.outcome is Outcome.ADMIT]

        assert starts(low, urgent) == ["urgent"]
        assert starts(replace(low, preempting=True), urgent) == ["low"]
        same_queue = replace(urgent, queue="q0")
        assert starts(replace(low, preempting=True), same_queue) == ["low"]


def test_nobody_preempts_those_for_whom_it_had_to_leave_lately() -> None:
    base = p.scene(CHAIN)
    assert [v.key for v in base.victims()] == ["a"]
    incoming, between = CHAIN.pending
    remembered = replace(CHAIN, pending=(replace(incoming, preempted_by=(("b", p.NOW - 60),)), between))
    assert p.scene(remembered).victims() == (), "a made b leave, and b made it leave"
    later = replace(CHAIN, pending=(replace(incoming, preempted_by=(("b", p.NOW - 3600),)), between))
    assert [v.key for v in p.scene(later).victims()] == ["a"]


def _one(key: str, priority: int) -> Pending:
    return Pending(key, "q", priority, 0.0, (PodSet("main", 1, {"cpu": 1}),), RunTime(1, 1), uid=key)


_QUEUE = ClusterQueue(
    "q",
    (ResourceGroup(("cpu",), (FlavorQuotas("f", {"cpu": Quota(1)}),)),),
    preemption=Preemption(PreemptionPolicy.LOWER_PRIORITY),
)
CHAIN = Snapshot(
    queues=(_QUEUE,),
    admitted=(p.held(_one("a", 0)),),
    pending=(_one("in", 1), replace(_one("b", 1), preempted_by=(("a", p.NOW - 60),))),
)
