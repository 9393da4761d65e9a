"""Victims: enough, minimal, allowed, none protected, nobody who would come back for the preemptor."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import preemptionworlds as p
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glebe.scheduling.model import (
    GPU,
    ClusterQueue,
    Cohort,
    FairSharing,
    FlavorQuotas,
    Pending,
    PodSet,
    Preemption,
    PreemptionPolicy,
    Quota,
    ResourceGroup,
    RunTime,
    Snapshot,
    VictimReason,
)
from glebe.scheduling.preemption.oracle import Possibility, possibility
from glebe.scheduling.preemption.roster import Roster
from glebe.scheduling.preemption.search import victims
from glebe.scheduling.quotas.sharing import fair_sharing
from glebe.scheduling.world import World

CHECKED = settings(max_examples=150, deadline=None)
SNAPSHOTS = st.builds(
    p.snapshot,
    st.integers(0, 10**6),
    st.booleans(),
    st.sampled_from([("cpu",), ("cpu", "memory")]),
)


@CHECKED
@given(SNAPSHOTS)
def test_victims_are_enough_and_minimal_and_the_state_is_restored(snapshot: Snapshot) -> None:
    scene = p.scene(snapshot)
    before = [list(row) for row in scene.state.quotas.usage]
    available = [scene.state.quotas.available(scene.want.node, c) for c, _ in scene.want.need]
    found = {v.key for v in scene.victims()}
    assert scene.state.quotas.usage == before
    assert [scene.state.quotas.available(scene.want.node, c) for c, _ in scene.want.need] == available
    if not found:
        return
    assert scene.fits(found)
    borrowing = not scene.fits(found, borrowing=False)
    for key in found:
        assert not scene.fits(found - {key}, borrowing), f"{key} need not leave"


@CHECKED
@given(SNAPSHOTS)
def test_victims_are_those_that_the_policies_allow(snapshot: Snapshot) -> None:
    scene = p.scene(snapshot)
    queues = {q.name: q for q in snapshot.queues}
    admitted = {a.key: a for a in snapshot.admitted}
    incoming = snapshot.pending[0]
    policy = queues[incoming.queue].preemption
    for v in scene.victims():
        a = admitted[v.key]
        lower = a.priority < incoming.priority
        newer = a.priority == incoming.priority and a.queued_at > incoming.queued_at
        if a.queue == incoming.queue:
            assert v.reason is VictimReason.IN_CLUSTER_QUEUE
            assert lower or (newer and policy.within is PreemptionPolicy.LOWER_OR_NEWER_EQUAL_PRIORITY)
            assert policy.within is not PreemptionPolicy.NEVER
        else:
            assert v.reason is not VictimReason.IN_CLUSTER_QUEUE
            assert policy.reclaim is PreemptionPolicy.ANY or (lower and policy.reclaim is not PreemptionPolicy.NEVER)
        if v.reason is VictimReason.IN_COHORT_WHILE_BORROWING:
            assert lower
            assert policy.max_priority is None or a.priority <= policy.max_priority
        assert a.evicted or a.started_at + queues[a.queue].min_run_time <= p.NOW, "protected"


@settings(max_examples=300, deadline=None)
@given(SNAPSHOTS)
def test_nobody_is_preempted_who_could_preempt_in_return(snapshot: Snapshot) -> None:
    snapshot = replace(snapshot, queues=tuple(replace(q, min_run_time=0.0) for q in snapshot.queues))
    found = p.scene(snapshot).victims()
    gone = {v.key: next(a for a in snapshot.admitted if a.key == v.key) for v in found}
    started = p.held(snapshot.pending[0], 150)
    kept = tuple(a for a in snapshot.admitted if a.key not in gone)
    for a in gone.values():
        again = Pending(a.key, a.queue, a.priority, a.queued_at, a.pod_sets, a.run_time)
        after = p.scene(replace(snapshot, admitted=(*kept, started), pending=(again,)))
        assert started.key not in {v.key for v in after.victims() if after.want.short}


def test_a_corner_in_which_fair_shares_alone_would_go_round_in_circles() -> None:
    """Both holders of ``owner`` would leave for ``guest``, and one alone could take its nominal quota back."""

    def cpu(n: int) -> tuple[ResourceGroup, ...]:
        return (ResourceGroup(("cpu",), (FlavorQuotas("f", {"cpu": Quota(n)}),)),)

    policy = Preemption(PreemptionPolicy.NEVER, PreemptionPolicy.ANY)
    queues = (
        ClusterQueue("owner", cpu(2), "all", weight=Fraction(0), preemption=policy),
        ClusterQueue("guest", cpu(0), "all", weight=Fraction(3), preemption=policy),
        ClusterQueue("idle", cpu(4), "all", preemption=policy),
    )

    def work(key: str, queue: str, amount: int) -> Pending:
        return Pending(key, queue, 0, 0.0, (PodSet("main", 1, {"cpu": amount}),), RunTime(1, 1))

    holders = (p.held(work("a", "owner", 2), 1), p.held(work("b", "owner", 4), 0))
    base = Snapshot(queues=queues, cohorts=(Cohort("all"),), fair_sharing=FairSharing())
    greedy = p.scene(replace(base, admitted=holders, pending=(work("in", "guest", 5),)))
    assert not greedy.victims()
    letter = Roster(greedy.world, holders, greedy.holdings, p.NOW, to_the_letter=True)
    assert {v.key for v in victims(greedy.world, greedy.state, letter, greedy.want)} == {"a", "b"}, "as Kueue would"
    found = p.scene(replace(base, admitted=holders, pending=(work("in", "guest", 4),))).victims()
    assert [v.key for v in found] == ["b"], "what the owner has beyond its quota may be taken"


def gpus(nominal: int) -> tuple[ResourceGroup, ...]:
    return (ResourceGroup((GPU,), (FlavorQuotas("f", {GPU: Quota(nominal)}),)),)


def gang(key: str, amount: int, priority: int = 0, queue: str = "q") -> Pending:
    return Pending(key, queue, priority, 0.0, (PodSet("main", 1, {GPU: amount}),), RunTime(1, 1))


QUEUE = ClusterQueue("q", gpus(8), preemption=Preemption(PreemptionPolicy.LOWER_PRIORITY))


@pytest.mark.parametrize(("least_lost", "victim"), [(False, "young-and-wide"), (True, "old-and-narrow")])
def test_least_lost_work_before_age_where_it_is_asked_for(least_lost: bool, victim: str) -> None:
    old = p.held(gang("old-and-narrow", 1), 0)  # 1 GPU for 100 s
    young = p.held(gang("young-and-wide", 7), 50)  # 7 GPUs for 50 s
    snapshot = Snapshot(queues=(QUEUE,), admitted=(old, young), pending=(gang("in", 1, 1),), least_lost=least_lost)
    assert [v.key for v in p.scene(snapshot).victims()] == [victim]


def test_equal_candidates_lose_the_least() -> None:
    wide, narrow = p.held(gang("a", 6), 0), p.held(gang("b", 2), 0)
    snapshot = Snapshot(queues=(QUEUE,), admitted=(wide, narrow), pending=(gang("in", 1, 1),))
    assert [v.key for v in p.scene(snapshot).victims()] == ["b"]


def test_a_protected_minimum_run_time_holds_until_it_is_over() -> None:
    queue = replace(QUEUE, min_run_time=150.0)
    young, older = p.held(gang("young", 4), 0), p.held(gang("older", 4), -60)
    snapshot = Snapshot(queues=(queue,), admitted=(young, older), pending=(gang("in", 4, 1),))
    scene = p.scene(snapshot)
    assert [v.key for v in scene.victims()] == ["older"]
    assert scene.roster.protected_until == p.NOW + 50
    later = Roster(scene.world, snapshot.admitted, scene.holdings, p.NOW + 50)
    assert later.protected_until is None
    assert [v.key for v in victims(scene.world, scene.state, later, scene.want)] == ["young"]


def test_who_is_on_its_way_out_goes_first_and_who_is_not_preemptible_never() -> None:
    leaving = p.held(gang("leaving", 4, 0), 0, evicted=True, preemptible=False)
    fixed = p.held(gang("fixed", 4, -1), 50, preemptible=False)
    snapshot = Snapshot(queues=(QUEUE,), admitted=(leaving, fixed), pending=(gang("in", 4, 1),))
    assert [v.key for v in p.scene(snapshot).victims()] == ["leaving"]
    assert p.scene(replace(snapshot, pending=(gang("in", 8, 1),))).victims() == ()


def test_nodes_are_asked_only_when_the_quota_fits_and_decide() -> None:
    holders = tuple(p.held(gang(k, 2), i) for i, k in enumerate("abcd"))
    scene = p.scene(Snapshot(queues=(QUEUE,), admitted=holders, pending=(gang("in", 2, 1),)))
    asked = []

    def places(state: object) -> bool:
        asked.append(state)
        return len(asked) == 3

    want = scene.want._replace(places=places)
    found = victims(scene.world, scene.state, scene.roster, want)
    assert [v.key for v in found] == ["d", "c", "b"], "newest first; nobody can be put back"
    assert victims(scene.world, scene.state, scene.roster, want._replace(places=lambda _: False)) == ()


def test_the_oracle_tells_reclaim_from_preemption_and_how_much_is_borrowed_afterwards() -> None:
    policy = Preemption(PreemptionPolicy.LOWER_PRIORITY, PreemptionPolicy.ANY)
    queues = tuple(ClusterQueue(n, gpus(4), "all", preemption=policy) for n in ("q", "other"))
    lent = p.held(gang("lent", 8, 5, "other"), 0)
    base = Snapshot(queues=queues, cohorts=(Cohort("all"),), admitted=(lent,), pending=(gang("in", 4),))

    def said(snapshot: Snapshot, amount: int) -> tuple[Possibility, int]:
        s = p.scene(snapshot)
        outlook = possibility(s.world, s.state, s.roster, snapshot.pending[0], s.want.node, 0, amount)
        return outlook.possibility, outlook.level

    assert said(base, 4) == (Possibility.RECLAIM, 0)
    assert said(base, 5) == (Possibility.NO_CANDIDATES, 1), "priority 5 does not leave for a borrower"
    mine = (p.held(gang("mine", 4, -1), 1), p.held(gang("theirs", 4, 5, "other"), 0))
    assert said(replace(base, admitted=mine), 4) == (Possibility.PREEMPT, 0)


def test_fair_sharing_is_switched_per_root_cohort() -> None:
    queues = tuple(ClusterQueue(f"in-{c}", gpus(1), c) for c in ("on", "off", "unsaid"))
    cohorts = (Cohort("on", fair_sharing=True), Cohort("off", fair_sharing=False), Cohort("unsaid"))
    for configured in (None, FairSharing()):
        world = World(Snapshot(queues=queues, cohorts=cohorts, fair_sharing=configured))
        fair = [fair_sharing(world, world.tree.queue_index[f"in-{c}"]) is not None for c in ("on", "off", "unsaid")]
        assert fair == [True, False, configured is not None]
