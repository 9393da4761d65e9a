"""What must hold in every world: conservation, gangs, limits, order, determinism, honest words and exact forecasts."""

from __future__ import annotations

import random
from dataclasses import replace

import schedulingworlds as w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glebe.scheduling import decide, forecast
from glebe.scheduling.model import Outcome, Reason, Snapshot, Strategy, TopologyMode

CHECKED = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def run(snapshot: Snapshot, now: float = 0.0) -> Snapshot:
    return w.start(snapshot, decide(snapshot, now), now)


@CHECKED
@given(w.worlds())
def test_every_pending_workload_gets_one_decision_with_words(snapshot: Snapshot) -> None:
    decisions = decide(snapshot, 0.0)
    assert sorted(d.key for d in decisions) == sorted(p.key for p in snapshot.pending)
    for d in decisions:
        assert d.message
        assert (d.outcome is Outcome.ADMIT) == bool(d.assignments)


@CHECKED
@given(w.worlds())
def test_no_node_is_overcommitted(snapshot: Snapshot) -> None:
    after = run(snapshot)
    nodes = {n.name: n for n in snapshot.nodes}
    for name, used in w.node_use(after).items():
        assert nodes[name].ready
        for resource, amount in used.items():
            assert amount + nodes[name].other_use.get(resource, 0) <= nodes[name].allocatable[resource], (
                name,
                resource,
            )


@CHECKED
@given(w.worlds())
def test_gangs_start_whole(snapshot: Snapshot) -> None:
    for a in run(snapshot).admitted:
        assert [(x.pod_set, x.count) for x in a.assignments] == [(s.name, s.count) for s in a.pod_sets]
        for s, x in zip(a.pod_sets, a.assignments, strict=True):
            assert sum(pods for _, pods in x.nodes) == s.count
            assert len({n for n, _ in x.nodes}) == len(x.nodes)
            assert x.usage == {r: n * s.count for r, n in s.requests.items()}


@CHECKED
@given(w.worlds())
def test_required_topology_is_honoured(snapshot: Snapshot) -> None:
    labels = {n.name: n.labels for n in snapshot.nodes}
    for a in run(snapshot).admitted:
        for s, x in zip(a.pod_sets, a.assignments, strict=True):
            if s.topology is not None and s.topology.mode is TopologyMode.REQUIRED:
                assert len({labels[n][s.topology.level] for n, _ in x.nodes}) == 1


@CHECKED
@given(w.worlds(), st.randoms(use_true_random=False))
def test_input_order_does_not_matter(snapshot: Snapshot, rng: random.Random) -> None:
    def mixed(items: tuple) -> tuple:  # type: ignore[type-arg]
        return tuple(rng.sample(items, len(items)))

    other = replace(
        snapshot,
        nodes=mixed(snapshot.nodes),
        flavors=mixed(snapshot.flavors),
        queues=mixed(snapshot.queues),
        cohorts=mixed(snapshot.cohorts),
        pending=mixed(snapshot.pending),
    )
    assert decide(snapshot, 0.0) == decide(other, 0.0)
    assert forecast(snapshot, 0.0) == forecast(other, 0.0)


def effective(snapshot: Snapshot) -> None:
    """Check use against quota at every node of the tree, by definition instead of incrementally."""
    cohorts = {c.name: c for c in snapshot.cohorts}
    parents = {c.name: c.parent for c in snapshot.cohorts}
    for q in snapshot.queues:
        if q.cohort and q.cohort not in parents:
            parents[q.cohort] = None
    members: dict[str, list[str]] = {name: [] for name in parents}
    for name, parent in parents.items():
        if parent:
            members[parent].append(name)
    queues = {q.name: q for q in snapshot.queues}
    of_cohort = {name: [q.name for q in snapshot.queues if q.cohort == name] for name in parents}
    use = w.quota_use(snapshot)
    cells = {(f, r) for _, f, r in use}

    def own(groups: tuple, cell: tuple[str, str]):  # type: ignore[type-arg, no-untyped-def]
        return next((fq.quotas.get(cell[1]) for g in groups for fq in g.flavors if fq.flavor == cell[0]), None)

    def node(groups: tuple, has_parent: bool, below: list[tuple[int, int]], used_here: int, cell: tuple[str, str]):  # type: ignore[type-arg, no-untyped-def]
        """(what it offers its parent, what it draws from it) after checking its own limits."""
        quota = own(groups, cell)
        total = (quota.nominal if quota else 0) + sum(offer for offer, _ in below)
        used = used_here + sum(draw for _, draw in below)
        if not has_parent:
            assert used <= total, (cell, used, total)
            return 0, 0
        kept = max(0, total - quota.lending_limit) if quota and quota.lending_limit is not None else 0
        if quota and quota.borrowing_limit is not None:
            assert used <= total + quota.borrowing_limit, (cell, used, total)
        return total - kept, max(0, used - kept)

    def cohort(name: str, cell: tuple[str, str]):  # type: ignore[no-untyped-def]
        below = [cohort(c, cell) for c in members[name]]
        below += [node(queues[q].resource_groups, True, [], use.get((q, *cell), 0), cell) for q in of_cohort[name]]
        groups = cohorts[name].resource_groups if name in cohorts else ()
        return node(groups, parents[name] is not None, below, 0, cell)

    for cell in cells:
        for name, parent in parents.items():
            if parent is None:
                cohort(name, cell)
        for q in snapshot.queues:
            if q.cohort is None:
                node(q.resource_groups, False, [], use.get((q.name, *cell), 0), cell)


@CHECKED
@given(w.worlds())
def test_quota_and_limits_hold_at_every_level(snapshot: Snapshot) -> None:
    effective(run(snapshot))


@CHECKED
@given(w.worlds())
def test_strict_fifo_is_never_overtaken(snapshot: Snapshot) -> None:
    outcome = {d.key: d.outcome for d in decide(snapshot, 0.0)}
    for q in snapshot.queues:
        if q.strategy is Strategy.STRICT_FIFO:
            line = sorted(
                (p for p in snapshot.pending if p.queue == q.name), key=lambda p: (-p.priority, p.queued_at, p.key)
            )
            started = [outcome[p.key] is Outcome.ADMIT for p in line]
            assert started == sorted(started, reverse=True)


@CHECKED
@given(w.worlds())
def test_nothing_that_fits_is_left_over(snapshot: Snapshot) -> None:
    """A second look right after the first admits nothing more."""
    after = run(snapshot)
    assert not [d for d in decide(after, 0.0) if d.outcome is Outcome.ADMIT]


@CHECKED
@given(w.worlds())
def test_never_is_never_and_wait_ends_on_an_empty_fleet(snapshot: Snapshot) -> None:
    busy = run(snapshot)
    busy = replace(busy, pending=(*busy.pending,))
    empty_nodes = tuple(replace(n, ready=True, other_use={}) for n in snapshot.nodes)
    by_key = {p.key: p for p in busy.pending}
    for d in decide(busy, 0.0):
        alone = replace(busy, nodes=empty_nodes, admitted=(), pending=(by_key[d.key],))
        (now,) = decide(alone, 0.0)
        if d.outcome is Outcome.NEVER:
            assert now.outcome is Outcome.NEVER
            assert d.remedy
        elif d.reason is not Reason.QUEUE_STOPPED:
            assert now.outcome is Outcome.ADMIT, (d, now)


def simulate(snapshot: Snapshot, now: float) -> dict[str, float]:
    """Starts when ``decide`` is simply called again whenever something ends, with run times exactly P50."""
    starts: dict[str, float] = {}
    while True:
        before = {a.key for a in snapshot.admitted}
        snapshot = w.start(snapshot, decide(snapshot, now), now)
        starts.update({a.key: now for a in snapshot.admitted if a.key not in before})
        ends = {a.key: a.started_at + a.run_time.p50 for a in snapshot.admitted}
        if not ends:
            return starts
        now = min(ends.values())
        snapshot = replace(snapshot, admitted=tuple(a for a in snapshot.admitted if ends[a.key] > now))


@CHECKED
@given(w.worlds(jobs=24))
def test_forecast_equals_actual_start_with_exact_run_times(snapshot: Snapshot) -> None:
    actual = simulate(snapshot, 1000.0)
    for f in forecast(snapshot, 1000.0):
        assert f.start_p50 == actual.get(f.key), f
        if f.start_p50 is not None and f.start_p90 is not None:
            assert f.start_p90 >= f.start_p50


@CHECKED
@given(w.worlds(jobs=20))
def test_forecast_from_the_middle_of_a_run_equals_the_rest_of_it(snapshot: Snapshot) -> None:
    first = run(snapshot, 1000.0)
    ends = sorted(a.started_at + a.run_time.p50 for a in first.admitted)
    if not ends:
        return
    middle = (1000.0 + ends[0]) / 2
    actual = simulate(first, middle)
    assert {f.key: f.start_p50 for f in forecast(first, middle)} == {p.key: actual.get(p.key) for p in first.pending}


@CHECKED
@given(w.worlds(jobs=24))
def test_forecast_agrees_with_decide(snapshot: Snapshot) -> None:
    decisions = {d.key: d for d in decide(snapshot, 50.0)}
    for f in forecast(snapshot, 50.0):
        assert f.decision == decisions[f.key]
        assert (f.start_p50 == 50.0) == (f.decision.outcome is Outcome.ADMIT)
        if f.decision.outcome is Outcome.NEVER:
            assert f.start_p50 is None
            assert f.start_p90 is None
            assert not f.blockers
