"""Run times, their history, forecasts drawn from it, calibration, and reservations that backfill never delays."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
import schedulingworlds as w
from hypothesis import given, settings
from hypothesis import strategies as st

from glebe.scheduling import forecast
from glebe.scheduling.foresight.calibration import Calibration
from glebe.scheduling.foresight.course import Course
from glebe.scheduling.foresight.history import Facts, History
from glebe.scheduling.foresight.runtime import quantile, remaining
from glebe.scheduling.model import Backfill, RunTime, Strategy
from glebe.scheduling.replay.engine import Replay, Truth
from glebe.scheduling.replay.trace import Job

PRIOR = RunTime(3600.0, 14_400.0)
CURVES = st.lists(st.floats(1.0, 1e6), min_size=20, max_size=20).map(sorted)


@given(CURVES, st.floats(0.0, 1e6), st.floats(0.05, 0.94), st.floats(0.0, 0.05))
def test_more_cautious_levels_end_later(curve: list[float], age: float, level: float, more: float) -> None:
    run_time = RunTime(curve[9], curve[17], tuple(curve))
    assert quantile(run_time, level) <= quantile(run_time, level + more)
    assert 0 < remaining(run_time, age, level) <= remaining(run_time, age, level + more)


@given(CURVES, st.floats(10.0, 1e6), st.floats(0.0, 2e6))
def test_what_the_platform_ends_at_its_limit_lasts_no_longer(curve: list[float], bound: float, age: float) -> None:
    run_time = RunTime(curve[9], curve[17], tuple(curve), bound)
    assert quantile(run_time, 0.99) <= bound
    assert remaining(run_time, age, 0.99) <= max(bound - age, 0.001)


def taught(history: History, lengths: list[float], facts: Facts, start: float = 0.0) -> float:
    """Runs one after the other; returns the time."""
    at = start
    for i, length in enumerate(lengths):
        key = f"{facts}-{start}-{i}"
        history.arrived(key, facts, at)
        history.started(key, at)
        at += length
        history.ended(key, at)
        at += 1000.0
    return at


def test_history_is_about_whose_work_it_is() -> None:
    history = History(PRIOR)
    quick, slow = Facts("q", user="quick", gpus=1), Facts("q", user="slow", gpus=1)
    at = taught(history, [60.0] * 30, quick)
    at = taught(history, [36_000.0] * 30, slow, at)
    assert 50 < history.like(quick, at).p50 < 80
    assert 30_000 < history.like(slow, at).p50 < 40_000
    other = history.like(Facts("other", gpus=8), at)
    assert 60 < other.p50 <= 36_000, "of strangers only what all say is known"


def test_unknown_work_is_given_the_prior() -> None:
    said = History(PRIOR).like(Facts("q"), 0.0)
    assert said.p50 == pytest.approx(PRIOR.p50, rel=0.1)
    assert said.p90 == pytest.approx(PRIOR.p90, rel=0.15)


def test_running_work_counts_as_lasting_at_least_so_long() -> None:
    """Of 20 runs that began together the 5 short ones have ended: the rest is not like these."""
    history = History(PRIOR)
    facts = Facts("q", gpus=1)
    for i in range(20):
        history.arrived(f"j{i}", facts, 0.0)
        history.started(f"j{i}", 0.0)
    for i in range(5):
        history.ended(f"j{i}", 100.0)
    history.arrived("j20", facts, 1.0)
    assert history.predict("j20", 50_000.0).p50 > 10_000
    assert history.predict("j7", 50_000.0).p50 > 50_000, "it has lasted that long already"


def test_a_batch_is_judged_by_its_first_runs() -> None:
    history = History(PRIOR)
    facts = Facts("q", gpus=1)
    at = taught(history, [30_000.0] * 20, facts)
    for i in range(40):
        history.arrived(f"b{i}", facts, at + i)
    before = history.predict("b39", at + 40).p50
    for i in range(10):
        history.started(f"b{i}", at + 50)
        history.ended(f"b{i}", at + 110 + i)
    after = history.predict("b39", at + 200)
    assert before > 10_000
    assert after.p50 < 200
    assert after.kin == history.predict("b38", at + 200).kin


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.3, 2.0))
def test_promised_run_times_hold_as_often_as_they_say(seed: int, spread: float) -> None:
    """Also after the distribution has changed: the levels follow."""
    rng = random.Random(seed)
    history = History(PRIOR)
    facts = Facts("q", gpus=1)
    at = 0.0
    for i in range(600):
        key = f"j{i}"
        history.arrived(key, facts, at)
        history.started(key, at)
        length = math.exp(rng.gauss(7.0 if i < 300 else 5.0, spread))
        history.ended(key, at + length)
        at += length + 100.0
    for which, target in enumerate((0.5, 0.9)):
        assert abs(history.held[which] / history.checked[which] - target) < 0.08


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 8), st.floats(1.0, 1e5)), min_size=1, max_size=60))
@settings(max_examples=30, deadline=None)
def test_a_history_told_the_same_says_the_same(runs: list[tuple[str, int, float]]) -> None:
    """So it can be rebuilt from finished work."""
    said = []
    for _ in range(2):
        history = History(PRIOR)
        at = 0.0
        for i, (user, gpus, length) in enumerate(runs):
            history.arrived(str(i), Facts("q", user, gpus=gpus), at)
            history.started(str(i), at)
            history.ended(str(i), at + length)
            at += length
        said.append([history.like(Facts("q", user, gpus=1), at) for user in "abcd"])
        assert all(a <= b for r in said[-1] for a, b in pairwise(r.curve))
    assert said[0] == said[1]


def test_forecasts_from_history_have_a_median_and_a_margin() -> None:
    """Eight equal jobs of unknown length ahead on one node: independent, so their sum is less uncertain than each."""
    curve = tuple(quantile(RunTime(1000.0, 4000.0), (i + 0.5) / 20) for i in range(20))
    known = RunTime(1000.0, 4000.0, curve)
    jobs = [w.pending(f"j{i}", "q", 1, 8, queued_at=float(i)) for i in range(9)]
    jobs = [type(j)(**{**{f: getattr(j, f) for f in j.__slots__}, "run_time": known}) for j in jobs]
    told = {f.key: f for f in forecast(w.snapshot([w.node("n", "b", "r")], [w.queue("q", 8)], jobs), 0.0)}
    second, last = told["j1"], told["j8"]
    assert second.start_p50 == pytest.approx(1000.0, rel=0.01)
    assert second.start_p90 == pytest.approx(4000.0, rel=0.1)
    assert last.start_p50 is not None
    assert last.start_p90 is not None
    assert last.start_p50 > 8 * 1000.0, "the sum of eight skewed run times is more than eight medians"
    assert last.start_p90 < 8 * 4000.0
    assert last.start_p90 > last.start_p50


def test_long_queues_are_forecast_with_few_runs_and_agree_with_many() -> None:
    rng = random.Random(3)
    nodes = [w.node(f"n{i}", "b", "r") for i in range(8)]

    def job(i: int) -> object:
        p50 = rng.uniform(500, 1500)
        curve = tuple(quantile(RunTime(p50, 2 * p50), (k + 0.5) / 20) for k in range(20))
        plain = w.pending(f"j{i}", "q", 1, 4, queued_at=float(i))
        return type(plain)(
            **{**{f: getattr(plain, f) for f in plain.__slots__}, "run_time": RunTime(p50, 2 * p50, curve)}
        )

    jobs = [job(i) for i in range(2100)]
    few = forecast(w.snapshot(nodes, [w.queue("q", 64)], jobs), 0.0)  # type: ignore[arg-type]
    many = forecast(w.snapshot(nodes, [w.queue("q", 64)], jobs[:1900]), 0.0)  # type: ignore[arg-type]
    for at in (200, 1000, 1800):
        a, b = few[at], many[at]
        assert a.key == b.key
        assert a.start_p50 == pytest.approx(b.start_p50, rel=0.15)
        assert a.start_p90 is not None
        assert a.start_p50 is not None
        assert a.start_p90 > a.start_p50


def test_promises_are_stretched_until_nine_of_ten_hold() -> None:
    rng = random.Random(5)
    calibration = Calibration()
    at, held = 0.0, []
    for i in range(400):
        at += 1000.0
        raw = (at + 1000.0, at + 1200.0)
        half, late = calibration.corrected("q", at, raw)
        calibration.promised(f"j{i}", "q", at, raw, late)
        start = at + 1000.0 * math.exp(rng.gauss(0.0, 0.5))
        assert half == raw[0]
        assert late is not None
        if i >= 100:
            held.append(start <= late)
        calibration.started(f"j{i}", start)
    assert 0.85 <= sum(held) / len(held) <= 0.95
    assert calibration.corrected("q", at, (at, at)) == (at, at), "what starts now starts now"


def test_an_overdue_promise_counts_before_it_is_kept() -> None:
    calibration = Calibration()
    for i in range(30):
        calibration.promised(f"j{i}", "q", i * 1000.0, (i * 1000.0 + 500.0, i * 1000.0 + 600.0), i * 1000.0 + 600.0)
    now = 40_000.0
    raw = (now + 500.0, now + 600.0)
    _, late = calibration.corrected("q", now, raw)
    _, fresh = Calibration().corrected("q", now, raw)
    assert late is not None
    assert fresh is not None
    assert late > fresh


# --- reservations

JOBS = st.lists(
    st.tuples(st.integers(0, 300), st.sampled_from((1, 2, 3, 4, 8, 16)), st.integers(1, 200), st.booleans()),
    min_size=2,
    max_size=25,
)


class Watch:
    """Every reserved start that was ever given."""

    def __init__(self) -> None:
        self.reserved: dict[str, list[float]] = {}

    def step(self, replay: Replay, now: float, started: object) -> None:
        for key, at in replay.course.reserved.items():
            self.reserved.setdefault(key, []).append(at)


def replayed(jobs: list[Job], backfill: Backfill, queues: int = 1) -> tuple[Replay, Watch]:
    names = [f"q{i}" for i in range(queues)]
    world = w.snapshot(
        [w.node(f"n{i}", "b", "r") for i in range(2)],
        [w.queue(n, 16 // queues, "all" if queues > 1 else None, backfill=backfill) for n in names],
        [],
    )
    watch = Watch()
    replay = Replay(world, jobs, Truth())
    replay.run([watch])
    return replay, watch


@settings(max_examples=60, deadline=None)
@given(JOBS)
def test_a_reserved_start_is_never_delayed_by_backfill(rows: list[tuple[int, int, int, bool]]) -> None:
    """Run times are known and enforced here: then a reserved start only moves nearer, whoever comes later."""
    jobs = [
        Job(f"j{i:02}", float(at), float(length), gpus, "q0", limit=float(length) if limited else None)
        for i, (at, gpus, length, limited) in enumerate(sorted(rows))
    ]
    replay, watch = replayed(jobs, Backfill.RESERVE)
    for key, starts in watch.reserved.items():
        assert all(a >= b for a, b in pairwise(starts))
        started = replay.of[key].started
        assert started is not None
        assert started <= starts[0]


@settings(max_examples=40, deadline=None)
@given(JOBS)
def test_with_reservations_every_job_starts_no_later_than_all_before_it_let_it(
    rows: list[tuple[int, int, int, bool]],
) -> None:
    """No starvation: a job waits at most for what was there when it came."""
    jobs = [
        Job(f"j{i:02}", float(at), float(length), gpus, "q0", limit=float(length))
        for i, (at, gpus, length, _) in enumerate(sorted(rows))
    ]
    replay, _ = replayed(jobs, Backfill.RESERVE)
    for i, life in enumerate(replay.lives):
        assert life.started is not None
        before = sum(j.duration for j in jobs[:i])
        assert life.started <= life.job.submitted + before + 1e-6


def test_a_large_job_starves_under_greedy_backfill_and_not_with_a_reservation() -> None:
    stream = [Job(f"s{i:03}", i * 10.0, 100.0, 4, "q0", limit=100.0) for i in range(200)]
    big = Job("big", 55.0, 100.0, 16, "q0", limit=100.0)
    greedy, _ = replayed([*stream[:6], big, *stream[6:]], Backfill.GREEDY)
    fair, watch = replayed([*stream[:6], big, *stream[6:]], Backfill.RESERVE)
    assert greedy.of["big"].wait is not None
    assert fair.of["big"].wait is not None
    assert greedy.of["big"].wait > 1500.0
    assert fair.of["big"].wait <= 200.0
    assert fair.of["big"].started == watch.reserved["big"][0]


def test_work_that_is_gone_in_time_fills_the_gap() -> None:
    """16 GPUs: 8 run until 100; the head needs all; a job of 90 s fills the gap, one of 110 s does not."""
    first = Job("first", 0.0, 100.0, 8, "q0", limit=100.0)
    head = Job("head", 1.0, 50.0, 16, "q0", limit=50.0)
    short, long = Job("short", 2.0, 90.0, 4, "q0", limit=90.0), Job("long", 2.0, 110.0, 4, "q0", limit=110.0)
    replay, _ = replayed([first, head, long, short], Backfill.RESERVE)
    assert replay.of["short"].started == 2.0
    assert replay.of["head"].started == 100.0
    assert replay.of["long"].started == 150.0


def test_without_a_limit_only_predictions_let_work_fill_gaps() -> None:
    first = Job("first", 0.0, 100.0, 8, "q0")
    head = Job("head", 1.0, 50.0, 16, "q0")
    short = Job("short", 2.0, 60.0, 4, "q0")
    by_limits, _ = replayed([first, head, short], Backfill.RESERVE)
    trusting, _ = replayed([first, head, short], Backfill.RESERVE_PREDICTED)
    assert by_limits.of["short"].started == 150.0
    assert trusting.of["short"].started == 2.0
    assert trusting.of["head"].started == 100.0


def test_other_queues_do_not_borrow_what_a_reserved_start_needs() -> None:
    first = Job("first", 0.0, 100.0, 12, "q0", limit=100.0)
    head = Job("head", 1.0, 50.0, 8, "q0", limit=50.0)
    borrower = Job("borrower", 2.0, 500.0, 16, "q1", limit=500.0)
    replay, watch = replayed([first, head, borrower], Backfill.RESERVE, queues=2)
    assert watch.reserved["head"][0] <= 100.0
    assert replay.of["head"].started is not None
    assert replay.of["head"].started <= 100.0


@settings(max_examples=40, deadline=None)
@given(JOBS, st.booleans())
def test_a_course_starts_whom_repeated_decisions_start(rows: list[tuple[int, int, int, bool]], strict: bool) -> None:
    """Looking only at arrivals when nothing was freed loses nobody."""
    strategy = Strategy.STRICT_FIFO if strict else Strategy.BEST_EFFORT_FIFO
    world = w.snapshot([w.node("n0", "b", "r"), w.node("n1", "b", "r")], [w.queue("q", 16, strategy=strategy)], [])
    course, anew = Course(world), Course(world)
    rng = random.Random(len(rows))
    running: list[str] = []
    for i, (at, gpus, _, _) in enumerate(sorted(rows)):
        for c in (course, anew):
            c.arrive(w.pending(f"j{i}", "q", -(-gpus // 8), min(gpus, 8), queued_at=float(at)))
        anew._freed = True
        if running and rng.random() < 0.4:
            gone = running.pop(rng.randrange(len(running)))
            course.end(gone)
            anew.end(gone)
        anew._cycle = None
        started = [s.pending.key for s in course.run(float(at))]
        assert started == [s.pending.key for s in anew.run(float(at))]
        running += started
