"""Production decisions with preemption over time: books balance, and the driving out comes to an end."""

from __future__ import annotations

import random

import preemptingcourse as c
import pytest

from glebe.scheduling import decide
from glebe.scheduling.cycle import thorough

SEEDS = range(30)


@pytest.mark.parametrize("nodes", [False, True])
@pytest.mark.parametrize("fair", [False, True])
def test_books_balance_while_work_comes_and_goes(fair: bool, nodes: bool) -> None:
    evictions = 0
    for seed in SEEDS:
        rng = random.Random(seed)
        course = c.Course(c.world(rng, fair=fair, nodes=nodes, shield=rng.choice((0.0, 0.0, 6.0))), rng)
        number = 0
        for _ in range(20):
            for _ in range(rng.randint(0, 2)):
                course.arrive(c.workload(rng, number, course.now, nodes=nodes))
                number += 1
            if rng.random() < 0.2:
                course.grow(f"w{number:03}")
                number += 1
            if course.snapshot.admitted and rng.random() < 0.3:
                course.end(rng.choice(course.snapshot.admitted).key)
            course.step()
        evictions += course.evictions
    assert evictions > 10  # else nothing was tested


@pytest.mark.parametrize("nodes", [False, True])
@pytest.mark.parametrize("fair", [False, True])
def test_without_arrivals_and_ends_it_comes_to_rest(fair: bool, nodes: bool) -> None:
    """No preemption cycles: with everything running for ever, evictions and admissions come to an end."""
    for seed in SEEDS:
        rng = random.Random(1000 + seed)
        course = c.Course(c.world(rng, fair=fair, nodes=nodes), rng)
        for number in range(14):
            course.arrive(c.workload(rng, number, float(number), nodes=nodes))
            if number % 3 == 0:
                course.step()
        before = -1
        for _ in range(60):
            course.step()
            moved = course.admissions + course.evictions
            if moved == before and course.quiet:
                break
            before = moved
        else:
            pytest.fail(f"seed {seed}: still {course.admissions} admissions, {course.evictions} evictions")


@pytest.mark.parametrize("nodes", [False, True])
def test_shortcuts_of_the_full_search_change_nothing(nodes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is not asked, because somebody else was refused or because nobody's leaving helps, would be refused."""
    compared = 0
    for seed in range(40):
        rng = random.Random(2000 + seed)
        course = c.Course(c.world(rng, fair=seed % 2 == 0, nodes=nodes), rng)
        for number in range(16):
            course.arrive(c.workload(rng, number, float(number), nodes=nodes))
            if number % 4 == 3:
                with monkeypatch.context() as patch:
                    patch.setattr(thorough, "PATIENCE", 0)
                    quick = decide(course.snapshot, course.now)
                    patch.setattr(thorough, "PATIENCE", 1 << 30)
                    patch.setattr(thorough, "harder", lambda _known, _vector: False)
                    assert decide(course.snapshot, course.now) == quick, f"seed {seed}"
                compared += any(d.victims for d in quick)
                course.step()
    assert compared > 5
