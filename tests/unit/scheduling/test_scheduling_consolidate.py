"""Consolidation: whom to move, whom not, and that a plan leaves nobody without a place."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from schedulingworlds import RACK, node, node_use, pending, preferred, queue, required, snapshot, start

from glebe.scheduling import decide
from glebe.scheduling.consolidate import Bounds, Consolidation, consolidations
from glebe.scheduling.model import Admitted, Outcome, Snapshot

HOSTS = tuple(node(f"n{i}", "b", f"r{i // 2}") for i in range(4))


def scattered(per_node: int = 4) -> Snapshot:
    """Each of four 8-GPU nodes runs a job of ``per_node`` GPUs (w0..w3, w0 the oldest); ``big`` wants a whole node."""
    jobs = [pending(f"w{i}", "q", 1, per_node, topology=required(RACK)) for i in range(4)]
    world = snapshot(HOSTS, (queue("q", 32),), jobs)
    running = {a.key: a for a in start(world, decide(world, 0.0), 0.0).admitted}
    placed = tuple(
        replace(a, started_at=10.0 * i, assignments=(replace(a.assignments[0], nodes=((f"n{i}", 1),)),))
        for i, a in ((i, running[f"w{i}"]) for i in range(4))
    )
    big = pending("big", "q", 1, 8, topology=preferred(RACK), queued_at=1.0, p50=2000.0)
    return replace(world, admitted=placed, pending=(big,))


def apply(world: Snapshot, plan: Consolidation) -> Snapshot:
    moves = {m.key: m.after for m in plan.moves}

    def moved(a: Admitted) -> Admitted:
        if a.key not in moves:
            return a
        return replace(a, assignments=(replace(a.assignments[0], nodes=moves[a.key]),))

    return replace(world, admitted=tuple(moved(a) for a in world.admitted))


def test_one_job_moves_so_that_another_has_a_node_of_its_own() -> None:
    world = scattered()
    assert all(d.outcome is Outcome.WAIT for d in decide(world, 100.0))
    (plan,) = consolidations(world, 100.0)
    assert plan.key == "big"
    (move,) = plan.moves
    assert move.key == "w3"  # it has run shortest: 70 s with 4 GPUs
    assert (move.lost, plan.lost) == (280.0, 280.0)
    assert move.before == plan.nodes
    assert move.after != move.before
    (decision,) = decide(apply(world, plan), 100.0)
    assert decision.outcome is Outcome.ADMIT


def test_who_may_not_be_preempted_stays() -> None:
    world = scattered()
    fixed = replace(world, admitted=tuple(replace(a, preemptible=a.key == "w1") for a in world.admitted))
    (plan,) = consolidations(fixed, 100.0)
    assert [m.key for m in plan.moves] == ["w1"]
    none = replace(world, admitted=tuple(replace(a, preemptible=False) for a in world.admitted))
    assert not consolidations(none, 100.0)


def test_protected_run_time_is_kept() -> None:
    world = scattered()
    guarded = replace(world, queues=tuple(replace(q, min_run_time=95.0) for q in world.queues))
    (plan,) = consolidations(guarded, 100.0)
    assert [m.key for m in plan.moves] == ["w0"]


def test_costs_are_bounded() -> None:
    world = scattered()
    assert not consolidations(world, 100.0, Bounds(lost=0.01))
    assert not consolidations(world, 100.0, Bounds(gpus=0.4))
    assert not consolidations(world, 100.0, Bounds(most_moves=0))


def test_there_is_no_plan_where_nobody_has_another_place() -> None:
    assert not consolidations(scattered(per_node=5), 100.0)


def test_who_waits_for_quota_is_not_helped() -> None:
    world = scattered()
    assert not consolidations(replace(world, queues=(queue("q", 16),)), 100.0)


def test_plans_count_on_each_other() -> None:
    world = scattered()
    second = replace(world.pending[0], key="second", queued_at=2.0)
    found = consolidations(replace(world, pending=(*world.pending, second)), 100.0)
    assert [p.key for p in found] == ["big"]  # of one class, the first
    other = pending("other", "q", 2, 4, topology=required(RACK), queued_at=3.0, p50=2000.0)
    for plan in consolidations(replace(world, pending=(*world.pending, other)), 100.0):
        assert len({m.key for m in plan.moves}) == len(plan.moves)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=4, max_size=4), st.integers(2, 8))
def test_a_plan_never_gives_a_gpu_twice(held: list[int], wanted: int) -> None:
    world = scattered()
    sizes = dict(zip(("w0", "w1", "w2", "w3"), held, strict=True))
    running = []
    for a in world.admitted:
        (pod_set,), (given_,) = a.pod_sets, a.assignments
        requests = {**pod_set.requests, "nvidia.com/gpu": sizes[a.key]}
        usage = {**given_.usage, "nvidia.com/gpu": sizes[a.key]}
        running.append(
            replace(a, pod_sets=(replace(pod_set, requests=requests),), assignments=(replace(given_, usage=usage),))
        )
    big = pending("big", "q", 1, wanted, topology=preferred(RACK), p50=10_000.0)
    before = replace(world, admitted=tuple(running), pending=(big,))
    for plan in consolidations(before, 100.0):
        after = apply(before, plan)
        (decision,) = decide(after, 100.0)
        assert decision.outcome is Outcome.ADMIT
        for used in node_use(start(after, [decision], 100.0)).values():
            assert used.get("nvidia.com/gpu", 0) <= 8
