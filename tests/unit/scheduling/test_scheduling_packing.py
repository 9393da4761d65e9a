"""Packing: nothing is given twice, costs that are kept are the costs, and moving leaves nobody without a place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glebe.scheduling.packing import Ask, Demand, Machine, Machines, Packer, Spot
from glebe.scheduling.packing.bound import ceiling
from glebe.scheduling.packing.demand import leftovers
from glebe.scheduling.packing.moving import Mover
from glebe.scheduling.packing.score import choices


def fleet(*gpus: int, cpu: int = 64_000) -> Machines:
    return Machines([Machine(f"m{i}", cpu, 1000, n, "a" if i % 2 else "b") for i, n in enumerate(gpus)])


_asks = st.builds(
    lambda cpu, memory, shape: Ask(cpu, memory, *shape),
    st.integers(0, 20_000),
    st.integers(0, 300),
    st.sampled_from([(0, 1000), (1, 1000), (2, 1000), (4, 1000), (1, 810), (1, 470), (1, 160)]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(_asks, max_size=60), st.booleans())
def test_what_is_free_is_what_was_not_given(asks: list[Ask], moving: bool) -> None:
    machines, start = fleet(4, 4, 2, 1), fleet(4, 4, 2, 1)
    packer = Packer(machines)
    mover = Mover(packer)
    placed = [(a, s) for a in asks if (s := (mover if moving else packer).arrive(a)) is not None]
    assert machines.cpu.min() >= 0
    assert machines.memory.min() >= 0
    assert machines.free.min() >= 0
    held = sum(a.milli for a, _ in placed)
    assert machines.free.sum() == start.free.sum() - held
    assert machines.cpu.sum() == start.cpu.sum() - sum(a.cpu for a, _ in placed)
    if moving:
        on = [one for row in mover._on for one in row.values()]
        assert sum(one.ask.milli for one in on) == held
        for one in on:
            machines.give(one.ask, one.spot)
    else:
        for ask, spot in placed:
            machines.give(ask, spot)
    assert (machines.free == start.free).all()
    assert (machines.cpu == start.cpu).all()


@settings(max_examples=40, deadline=None)
@given(st.lists(_asks, min_size=1, max_size=40))
def test_costs_that_are_kept_are_the_costs(asks: list[Ask]) -> None:
    packer = Packer(fleet(4, 4, 2, 1, 0))
    for ask in asks:
        packer.arrive(ask)
    rows = np.arange(5)
    for ask in dict.fromkeys(asks):
        kept = packer._costs(ask)
        fresh = choices(ask, packer.machines, rows, packer._loss, packer._tables)
        np.testing.assert_allclose(kept.cost, fresh.cost)


def test_a_pod_is_dropped_only_when_it_fits_nowhere() -> None:
    packer = Packer(fleet(2, 1))
    assert packer.place(Ask(1, 1, 2)) == Spot(0, (0, 1))
    assert packer.place(Ask(1, 1, 2)) is None
    assert packer.place(Ask(1, 1, 1)) == Spot(1, (0,))
    assert packer.place(Ask(1, 1, 1, 10)) is None
    assert packer.place(Ask(64_000, 1)) is None
    packer.release(Ask(1, 1, 1), Spot(1, (0,)))
    assert packer.place(Ask(1, 1, 1, 10)) == Spot(1, (0,))


def test_models_are_kept_to() -> None:
    packer = Packer(fleet(1, 1, 1))
    found = [packer.place(Ask(1, 1, 1, models=frozenset({"b"}))) for _ in range(3)]
    assert sorted(s.machine for s in found if s) == [0, 2]
    assert found[2] is None


def test_shares_that_complete_a_gpu_go_together() -> None:
    demand = Demand()
    for share in (300, 700):
        demand.add(Ask(1, 1, 1, share), 10)
    demand.add(Ask(1, 1, 1), 10)
    packer = Packer(fleet(1, 1, 1), demand)
    first, second = packer.place(Ask(1, 1, 1, 700)), packer.place(Ask(1, 1, 1, 300))
    assert first == second


def test_cpus_are_kept_for_gpus_that_are_idle() -> None:
    """A pod without GPUs goes where no GPU is left, not where CPUs are scarce beside idle ones."""
    demand = Demand()
    demand.add(Ask(12_000, 100, 1), 20)
    demand.add(Ask(12_000, 100), 5)
    machines = Machines([Machine("scarce", 48_000, 1000, 4), Machine("rich", 96_000, 1000, 2)])
    assert Packer(machines, demand).place(Ask(12_000, 100)) == Spot(1)


def test_leftovers_of_a_gpu() -> None:
    left = leftovers([(400, 1.0), (250, 1.0)])
    assert left[1000] == 0
    assert left[200] == 200
    assert left[300] == 50
    assert left[500] == pytest.approx((100 + 0) / 2)
    assert leftovers([])[999] == 999


def test_others_move_so_that_a_pod_fits() -> None:
    packer = Packer(fleet(1, 1))
    mover = Mover(packer)
    for gpu in (0, 1):  # two half-used GPUs, as departures leave them
        packer.take(Ask(1, 1, 1, 400), Spot(gpu, (0,)))
        mover._put(Ask(1, 1, 1, 400), Spot(gpu, (0,)))
    assert packer.place(Ask(1, 1, 1)) is None
    spot = mover.arrive(Ask(1, 1, 1))
    assert spot is not None
    assert mover.moved == 1
    assert sorted(packer.machines.free.sum(1)) == [0, 200]


def test_a_move_that_costs_more_than_it_brings_is_not_made() -> None:
    packer = Packer(fleet(1, 1))
    mover = Mover(packer, budget=0.3)
    for gpu in (0, 1):
        packer.take(Ask(1, 1, 1, 400), Spot(gpu, (0,)))
        mover._put(Ask(1, 1, 1, 400), Spot(gpu, (0,)))
    assert mover.arrive(Ask(1, 1, 1)) is None
    assert mover.moved == 0


def test_the_ceiling_counts_what_shares_waste() -> None:
    machines = [Machine("m", 1, 1, 10)]
    assert ceiling(machines, [Ask(1, 1, 1)] * 10) == 100
    assert ceiling(machines, [Ask(1, 1, 1, 800)] * 13) == pytest.approx(80)
    assert ceiling(machines, [Ask(1, 1, 1, 800), Ask(1, 1, 1, 200)] * 10) == 100
    assert ceiling(machines, [Ask(1, 1, 1, 500)] * 20) == 100
