"""The ledger's arithmetic against a second-by-second model."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from glebe.metering.intervals import DAY, Allocation, Line, Point, day_of, integrate

times = st.integers(0, 60)
points = st.lists(st.builds(Point, times, st.integers(0, 8), st.booleans()), max_size=6, unique_by=lambda p: p.at)
allocations = st.lists(
    st.builds(
        Allocation,
        st.uuids().map(str),
        times,
        st.none() | times,
        st.integers(1, 6),
        st.sampled_from(["red", "green", "blue"]),
    ),
    max_size=8,
)


def model(points: list[Point], held: list[Allocation[str]], start: int, end: int) -> dict[str, int]:
    """Look at every second on its own."""
    out = {"owned": 0, "idle": 0, "unhealthy": 0}
    for second in range(start, end):
        known = [p for p in sorted(points, key=lambda p: p.at) if p.at <= second]
        if not known:
            continue
        point = known[-1]
        out["owned"] += point.gpus
        if not point.ready:
            out["unhealthy"] += point.gpus
            continue
        free = point.gpus
        for a in sorted(held, key=lambda a: (a.start, a.uid)):
            if a.start <= second and (a.end is None or second < a.end):
                given_gpus = min(free, a.gpus)
                free -= given_gpus
                out[a.row] = out.get(a.row, 0) + given_gpus
        out["idle"] += free
    return out


@settings(max_examples=300, deadline=None)
@given(points, allocations, times, st.integers(0, 80), st.randoms())
def test_equals_the_sum_over_all_seconds_at_any_later_moment(  # type: ignore[no-untyped-def]
    nodes, held, start, later, rng
) -> None:
    rng.shuffle(nodes)
    rng.shuffle(held)
    usage = integrate(nodes, held, start, start + DAY)
    now = usage.at + later
    expected = model(nodes, held, start, now)
    assert usage.owned.value(now) == expected["owned"]
    assert usage.idle.value(now) == expected["idle"]
    assert usage.unhealthy.value(now) == expected["unhealthy"]
    for row, line in usage.rows.items():
        assert line.value(now) == expected.get(row, 0)
    whole = usage.allocated.value(now) + usage.idle.value(now) + usage.unhealthy.value(now)
    assert whole == usage.owned.value(now)
    assert usage.owned.rate == usage.allocated.rate + usage.idle.rate + usage.unhealthy.rate


def test_a_day_begins_with_what_was_held_before() -> None:
    usage = integrate([Point(0, 8, True)], [Allocation("a", 10, DAY + 100, 3, "r")], DAY, 2 * DAY)
    assert (usage.at, usage.owned.base, usage.idle.base) == (DAY + 100, 800, 500)
    assert usage.rows["r"] == Line(DAY + 100, 300, 0)


def test_days_are_utc() -> None:
    assert day_of(1_767_225_600 + 86_399) == 1_767_225_600
