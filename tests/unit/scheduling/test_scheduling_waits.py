"""Decisions without those to merely wait: everything else is as with them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from glebe.scheduling import decide
from glebe.scheduling.model import (
    ClusterQueue,
    Flavor,
    FlavorQuotas,
    Outcome,
    Pending,
    PodSet,
    Quota,
    ResourceGroup,
    RunTime,
    Snapshot,
)


def snapshot(jobs: list[tuple[str, int, int]]) -> Snapshot:
    groups = (ResourceGroup(("cpu",), (FlavorQuotas("f", {"cpu": Quota(10)}),)),)
    queues = tuple(ClusterQueue(name, groups, "c") for name in ("q0", "q1"))
    pending = tuple(
        Pending(f"w{i}", queue, priority, float(i), (PodSet("main", 1, {"cpu": cpu}),), RunTime(60, 120))
        for i, (queue, cpu, priority) in enumerate(jobs)
    )
    return Snapshot((), (), (Flavor("f"),), queues, (), (), pending)


def test_to_wait_is_not_told_never_is() -> None:
    found = decide(
        snapshot([("q0", 10, 0), ("q1", 10, 0), ("q1", 5, 0), ("q0", 21, 0), ("gone", 1, 0)]), 0.0, waits=False
    )
    assert [(d.key, d.outcome) for d in found] == [
        ("w0", Outcome.ADMIT),
        ("w1", Outcome.ADMIT),
        ("w4", Outcome.NEVER),
        ("w3", Outcome.NEVER),
    ]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["q0", "q1", "gone"]), st.integers(1, 25), st.integers(0, 2)), max_size=12))
def test_the_rest_is_the_same(jobs: list[tuple[str, int, int]]) -> None:
    world = snapshot(jobs)
    told = [d for d in decide(world, 0.0) if d.outcome is not Outcome.WAIT or d.victims]
    assert decide(world, 0.0, waits=False) == told
