"""How flavors are chosen and fewer pods are taken, in production decisions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import schedulingworlds as w

from glebe.scheduling import decide
from glebe.scheduling.model import (
    GPU,
    Admitted,
    ClusterQueue,
    Decision,
    Flavor,
    FlavorQuotas,
    Fungibility,
    Gates,
    Outcome,
    Pending,
    PodSet,
    PodSetAssignment,
    Preemption,
    PreemptionPolicy,
    Preference,
    Quota,
    QuotaCheck,
    Reason,
    ResourceGroup,
    RunTime,
    Snapshot,
    TryNext,
    Victim,
    VictimReason,
)

LOWER = PreemptionPolicy.LOWER_PRIORITY
STOP, NEXT = TryNext.STOP, TryNext.NEXT


def queue(name: str, first: Quota, second: Quota | None = None, **more: object) -> ClusterQueue:
    listed = [FlavorQuotas("one", {GPU: first})] + ([FlavorQuotas("two", {GPU: second})] if second else [])
    return ClusterQueue(name, (ResourceGroup((GPU,), tuple(listed)),), "c", **more)  # type: ignore[arg-type]


def job(key: str, queue: str, gpus: int, pods: int = 1, **more: object) -> Pending:
    pod_set = PodSet("main", pods, {GPU: gpus}, min_count=more.pop("least", None))  # type: ignore[arg-type]
    return Pending(key, queue, 0, 0.0, (pod_set,), RunTime(10.0, 10.0), **more)  # type: ignore[arg-type]


def running(key: str, queue: str, flavor: str, gpus: int, priority: int = 0) -> Admitted:
    held = PodSetAssignment("main", 1, {GPU: flavor}, {GPU: gpus})
    return Admitted(key, queue, priority, 0.0, (PodSet("main", 1, {GPU: gpus}),), (held,), RunTime(10.0, 10.0))


def world(*queues: ClusterQueue, admitted: tuple[Admitted, ...] = (), pending: tuple[Pending, ...] = ()) -> Snapshot:
    return Snapshot(flavors=(Flavor("one"), Flavor("two")), queues=queues, admitted=admitted, pending=pending)


def only(snapshot: Snapshot) -> Decision:
    (decision,) = decide(snapshot, 1.0)
    return decision


@pytest.mark.parametrize(
    ("fungible", "flavor"),
    [
        (Fungibility(), "two"),  # the second has room: nobody is stopped
        (Fungibility(when_can_preempt=STOP), ""),  # rather preempt in the first
        (Fungibility(NEXT, NEXT, Preference.BORROWING), "two"),
        (Fungibility(NEXT, NEXT, Preference.PREEMPTION), ""),  # the second would have to be borrowed
    ],
)
def test_preempting_in_one_flavor_against_borrowing_in_another(fungible: Fungibility, flavor: str) -> None:
    mine = queue("mine", Quota(4), Quota(0), preemption=Preemption(LOWER), fungibility=fungible)
    lender = queue("lender", Quota(0), Quota(4))
    low = running("low", "mine", "one", 4, priority=-1)
    found = only(world(mine, lender, admitted=(low,), pending=(job("w", "mine", 4),)))
    if flavor:
        assert found.outcome is Outcome.ADMIT
        assert found.assignments[0].flavors[GPU] == flavor
    else:
        assert found.reason is Reason.WAITING_FOR_PREEMPTED
        assert found.victims == (Victim("low", VictimReason.IN_CLUSTER_QUEUE),)


@pytest.mark.parametrize(("free", "pods"), [(8, 4), (7, 3), (4, 2), (3, 0)])
def test_as_many_pods_as_fit_but_no_fewer_than_asked_for_at_least(free: int, pods: int) -> None:
    held = (running("r", "mine", "one", 8 - free),) if free < 8 else ()
    found = only(world(queue("mine", Quota(8)), admitted=held, pending=(job("w", "mine", 2, 4, least=2),)))
    if pods:
        assert found.outcome is Outcome.ADMIT
        assert (found.assignments[0].count, found.assignments[0].usage[GPU]) == (pods, 2 * pods)
    else:
        assert found.outcome is Outcome.WAIT


def test_who_may_be_smaller_is_never_too_large_for_its_quota() -> None:
    full = (running("r", "mine", "one", 4),)
    large = job("w", "mine", 2, 4, least=2)
    assert only(world(queue("mine", Quota(4)), admitted=full, pending=(large,))).outcome is Outcome.WAIT
    assert only(world(queue("mine", Quota(4)), pending=(large,))).assignments[0].count == 2
    assert only(world(queue("mine", Quota(3)), pending=(large,))).outcome is Outcome.NEVER


def test_equal_but_for_their_least_count_is_not_equal() -> None:
    waiting = (job("a", "mine", 2, 4), replace(job("b", "mine", 2, 4, least=2), queued_at=1.0))
    found = {d.key: d for d in decide(world(queue("mine", Quota(4)), pending=waiting), 1.0)}
    assert found["a"].outcome is Outcome.NEVER
    assert found["b"].assignments[0].count == 2


def test_all_pods_by_preemption_come_before_fewer_without() -> None:
    mine = queue("mine", Quota(8), preemption=Preemption(LOWER))
    low = running("low", "mine", "one", 4, priority=-1)
    found = only(world(mine, admitted=(low,), pending=(job("w", "mine", 2, 4, least=1),)))
    assert found.victims == (Victim("low", VictimReason.IN_CLUSTER_QUEUE),)


def test_a_new_slice_takes_the_place_of_the_old_one_in_its_flavor() -> None:
    mine = queue("mine", Quota(8), Quota(8))
    old = running("old", "mine", "two", 6)
    found = only(world(mine, admitted=(old,), pending=(job("new", "mine", 8, replaces="old"),)))
    assert found.outcome is Outcome.ADMIT
    assert found.assignments[0].flavors[GPU] == "two"
    assert found.replaces == "old"


def test_a_slice_that_does_not_fit_waits_with_the_old_one_in_place() -> None:
    mine = queue("mine", Quota(8))
    held = (running("old", "mine", "one", 4), running("other", "mine", "one", 4))
    found = only(world(mine, admitted=held, pending=(job("new", "mine", 6, replaces="old"),)))
    assert found.outcome is Outcome.WAIT


@pytest.mark.parametrize(
    ("check", "outcome"),
    [(QuotaCheck.IGNORE_UNDECLARED, Outcome.ADMIT), (QuotaCheck.BLOCK_UNDECLARED, Outcome.NEVER)],
)
def test_resources_that_the_queue_does_not_list(check: QuotaCheck, outcome: Outcome) -> None:
    pod_set = PodSet("main", 1, {GPU: 1, "cpu": 1000})
    waiting = Pending("w", "mine", 0, 0.0, (pod_set,), RunTime(1.0, 1.0))
    found = only(replace(world(queue("mine", Quota(8)), pending=(waiting,)), quota_check=check))
    assert found.outcome is outcome


def test_quota_may_count_other_amounts_than_nodes_give() -> None:
    pod_set = PodSet("main", 2, {GPU: 4}, charged={GPU: 1}, topology=w.UNCONSTRAINED)
    waiting = Pending("w", "q", 0, 0.0, (pod_set,), RunTime(1.0, 1.0))
    flavors = (replace(w.GPU_FLAVOR, name="one"),)
    s = replace(world(queue("q", Quota(2)), pending=(waiting,)), flavors=flavors, topologies=(w.TOPOLOGY,))
    s = replace(s, nodes=(w.node("n0", "b0", "r0", 4), w.node("n1", "b0", "r0", 4)))
    found = only(s)
    assert found.outcome is Outcome.ADMIT
    assert found.assignments[0].usage[GPU] == 2
    assert dict(found.assignments[0].nodes) == {"n0": 1, "n1": 1}


def variants_world(*pending: Pending, admitted: tuple[Admitted, ...] = (), last: str = "") -> Snapshot:
    mine = queue("mine", Quota(8), Quota(8), migrate_from=last)
    return replace(world(mine, admitted=admitted, pending=pending), gates=Gates(concurrent_admission=True))


def variant(key: str, flavor: str) -> Pending:
    return job(key, "mine", 4, flavors=(flavor,), variant_of="parent")


def test_one_variant_of_a_workload_starts_at_a_time() -> None:
    found = decide(variants_world(variant("a", "one"), variant("b", "two")), 1.0)
    started = [d for d in found if d.outcome is Outcome.ADMIT]
    assert len(started) == 1
    assert {d.reason for d in found if d not in started} == {Reason.PENDING_EVALUATION}


def test_a_variant_on_a_better_flavor_takes_over() -> None:
    held = replace(running("b", "mine", "two", 4), flavors=("two",), variant_of="parent")
    better = only(variants_world(variant("a", "one"), admitted=(held,)))
    assert better.victims == (Victim("b", VictimReason.FLAVOR_MIGRATION),)
    held = replace(running("a", "mine", "one", 4), flavors=("one",), variant_of="parent")
    assert only(variants_world(variant("b", "two"), admitted=(held,))).reason is Reason.PENDING_EVALUATION
