"""The shortcuts of the core give the answers of the long way: bits for asks, lists for arrays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import schedulingworlds as w
from hypothesis import given, settings
from hypothesis import strategies as st

from glebe.scheduling import decide
from glebe.scheduling.decide import settle
from glebe.scheduling.model import (
    GPU,
    ClusterQueue,
    Flavor,
    FlavorQuotas,
    Fungibility,
    Outcome,
    Quota,
    ResourceGroup,
    Snapshot,
    TryNext,
)
from glebe.scheduling.placement import topology
from glebe.scheduling.placement.placement import placeable

rooms = st.lists(st.integers(0, 9), min_size=1, max_size=30).filter(any)


@settings(max_examples=100, deadline=None)
@given(w.worlds())
def test_an_asks_bit_is_open_exactly_when_the_pod_set_can_be_placed(snapshot: Snapshot) -> None:
    plateau = settle(snapshot)
    asks = plateau.world.asks
    for line in plateau.lines:
        for plan in {id(g.plan): g.plan for g in line.group_of}.values():
            first = plan.sets[0]
            for option in first.options:
                bit = asks.mask((option,), first.pod_set.count)
                is_open = bool(asks.open(plateau.state.nodes, bit))
                assert is_open == placeable(first, option, plateau.state, plateau.world)


@settings(max_examples=200, deadline=None)
@given(rooms, st.integers(1, 60), st.booleans())
def test_domains_are_chosen_alike_from_lists_and_arrays(given_rooms: list[int], count: int, scattered: bool) -> None:
    array = np.array(given_rooms, dtype=np.int64)
    assert topology._tightest(given_rooms, count) == topology._tightest(array, count)
    if count <= sum(given_rooms):
        picked, taken = topology._pick(given_rooms, count, scattered)
        assert (picked, taken) == topology._pick(array, count, scattered)
        assert sum(taken) == count
        assert all(0 < pods <= given_rooms[at] for at, pods in zip(picked, taken, strict=True))


def test_a_queue_that_borrows_last_takes_the_flavor_that_it_owns() -> None:
    nodes = [w.node("a", "b", "r"), w.node("b", "b", "r")]
    cpu = Quota(10**9)
    listed = tuple(FlavorQuotas(f, {GPU: Quota(gpus), "cpu": cpu}) for f, gpus in (("gpu", 0), ("spare", 8)))
    lender = w.queue("lender", 8, "c")
    for turn, flavor in ((TryNext.STOP, "gpu"), (TryNext.NEXT, "spare")):
        mine = ClusterQueue("mine", (ResourceGroup((GPU, "cpu"), listed),), "c", fungibility=Fungibility(turn))
        snapshot = w.snapshot(nodes, [mine, lender], [w.pending("job", "mine", 1, 8)])
        flavors = (w.GPU_FLAVOR, Flavor("spare", {}, topology="default"))
        (decision,) = decide(replace(snapshot, flavors=flavors), 0.0)
        assert decision.outcome is Outcome.ADMIT
        assert decision.assignments[0].flavors[GPU] == flavor
