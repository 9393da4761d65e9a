"""Odd but legal inputs: nothing at all, no nodes, empty pod sets, work of queues and nodes that are gone."""

from __future__ import annotations

from dataclasses import replace

import schedulingworlds as w

from glebe.scheduling import decide, forecast, prepare
from glebe.scheduling.foresight.runtime import predicted_end
from glebe.scheduling.model import Admitted, Outcome, PodSet, PodSetAssignment, Reason, RunTime, Snapshot


def test_empty_snapshot() -> None:
    assert decide(Snapshot(), 0.0) == []
    assert forecast(Snapshot(), 0.0) == []


def test_no_nodes_is_never_and_says_so() -> None:
    snapshot = w.snapshot([], [w.queue("q", 8)], [w.pending("job", "q", 1, 1)])
    (decision,) = decide(snapshot, 0.0)
    assert decision.outcome is Outcome.NEVER
    assert decision.reason is Reason.EXCEEDS_CAPACITY


def test_a_resource_without_quota_is_to_be_dropped_or_covered() -> None:
    job = w.pending("job", "q", 1, 1)
    asked = {**job.pod_sets[0].requests, "ephemeral-storage": 1 << 30}
    job = replace(job, pod_sets=(replace(job.pod_sets[0], requests=asked),))
    (decision,) = decide(w.snapshot([w.node("n", "b", "r")], [w.queue("q", 8)], [job]), 0.0)
    assert decision.reason is Reason.NO_MATCHING_FLAVOR
    assert decision.remedy == (
        "drop the request for ephemeral-storage, or add ephemeral-storage to coveredResources of queue q"
    )


def test_work_that_never_starts_is_not_ahead_of_anybody() -> None:
    jobs = [w.pending("giant", "q", 100, 8, queued_at=1.0), w.pending("job", "q", 1, 8, queued_at=2.0)]
    running = w.pending("other", "q", 1, 8)
    found = {f.key: f for f in forecast(w.snapshot([w.node("n", "b", "r")], [w.queue("q", 8)], [running, *jobs]), 0.0)}
    assert found["giant"].decision.outcome is Outcome.NEVER
    assert (found["job"].position, found["job"].gpus_ahead) == (3, 8)


def test_nobody_is_told_to_ask_for_nothing() -> None:
    snapshot = w.snapshot([w.node("n", "b", "r")], [w.queue("q", 0)], [w.pending("job", "q", 1, 8)])
    (decision,) = decide(snapshot, 0.0)
    assert decision.reason is Reason.EXCEEDS_MAX_QUOTA
    assert decision.remedy.startswith("use a queue that has nvidia.com/gpu, or raise nominalQuota")


def test_pod_set_without_pods_starts() -> None:
    job = w.pending("job", "q", 0, 1)
    (decision,) = decide(w.snapshot([w.node("n", "b", "r")], [w.queue("q", 8)], [job]), 0.0)
    assert decision.outcome is Outcome.ADMIT
    assert decision.assignments[0].nodes == ()


def test_work_of_a_deleted_queue_still_holds_its_nodes() -> None:
    held = PodSetAssignment("main", 1, {"nvidia.com/gpu": "gpu"}, {"nvidia.com/gpu": 8}, (("n", 1), ("gone", 1)))
    pods = (PodSet("main", 2, {"nvidia.com/gpu": 8}),)
    old = Admitted("old", "deleted", 0, 0.0, pods, (held,), RunTime(60.0, 90.0))
    snapshot = w.snapshot([w.node("n", "b", "r")], [w.queue("q", 8)], [w.pending("job", "q", 1, 1)], admitted=(old,))
    (decision,) = decide(snapshot, 10.0)
    assert decision.outcome is Outcome.WAIT
    (predicted,) = forecast(snapshot, 10.0)
    assert (predicted.start_p50, predicted.start_p90, predicted.blockers) == (60.0, 90.0, ("old",))


def test_horizon_and_limit() -> None:
    jobs = [w.pending(f"j{i}", "q", 1, 8, queued_at=float(i), p50=100.0) for i in range(4)]
    snapshot = w.snapshot([w.node("n", "b", "r")], [w.queue("q", 8)], jobs)
    assert [f.start_p50 for f in forecast(snapshot, 0.0)] == [0.0, 100.0, 200.0, 300.0]
    assert [f.start_p50 for f in forecast(snapshot, 0.0, horizon=150.0)] == [0.0, 100.0, None, None]
    assert [f.key for f in forecast(snapshot, 0.0, limit=2)] == ["j0", "j1"]


def test_prepared_arrays_of_other_nodes_are_not_used() -> None:
    small = w.snapshot([w.node("n", "b", "r")], [w.queue("q", 64)], [w.pending("job", "q", 2, 8)])
    large = replace(small, nodes=(*small.nodes, w.node("m", "b", "r")))
    assert decide(large, 0.0, fleet=prepare(small))[0].outcome is Outcome.ADMIT
    assert decide(small, 0.0, fleet=prepare(large))[0].outcome is Outcome.NEVER


def test_overdue_work_is_expected_to_double_its_overrun() -> None:
    assert predicted_end(0.0, RunTime(100.0, 100.0), 50.0) == 100.0
    assert predicted_end(0.0, RunTime(100.0, 100.0), 110.0) == 170.0  # at least a minute
    assert predicted_end(0.0, RunTime(100.0, 100.0), 400.0) == 700.0
    assert predicted_end(0.0, RunTime(86_400.0, 86_400.0), 86_500.0) == 86_500.0 + 0.05 * 86_400.0
