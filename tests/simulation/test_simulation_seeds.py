"""The whole platform under virtual time, with faults, from 80 seeds: the invariants hold and everything settles.

``make simulate SEEDS=N`` runs more; one seed alone is ``glebe simulate --seed N``.
"""

from __future__ import annotations

import pytest

from glebe.platform.simulation.faults import FaultRates
from glebe.platform.simulation.harness import simulate

BATCHES = 40
SEEDS_PER_BATCH = 2


@pytest.mark.parametrize("batch", range(BATCHES))
def test_invariants_hold_under_faults(batch: int) -> None:
    first = batch * SEEDS_PER_BATCH
    for seed in range(first, first + SEEDS_PER_BATCH):
        report = simulate(seed)
        assert not report.violation, f"glebe simulate --seed {seed}: {report.violation}"
        assert report.writes > 100
        assert report.outcomes


def test_one_seed_is_one_run() -> None:
    first, second = simulate(7), simulate(7)
    assert first == second
    assert first.faults > 0


def test_two_seeds_are_two_runs() -> None:
    assert simulate(1).digest != simulate(2).digest


def test_without_faults_nothing_is_injected() -> None:
    report = simulate(3, FaultRates.none())
    assert not report.violation
    assert report.faults == 0
