"""What would start a job sooner: only what the engine confirms is said, and it is so."""

from __future__ import annotations

from dataclasses import replace

import pytest
import schedulingworlds as w

from glebe.scheduling import decide, forecast
from glebe.scheduling.foresight.counterfactuals import counterfactuals
from glebe.scheduling.model import Outcome


def test_fewer_pods_start_where_there_is_room() -> None:
    nodes = [w.node(f"n{i}", "b", "r") for i in range(4)]
    busy = w.pending("busy", "q", 3, 8, p50=3600.0)
    jobs = [busy, w.pending("big", "q", 4, 8, queued_at=1.0)]
    found = counterfactuals(w.snapshot(nodes, [w.queue("q", 32)], jobs), "big", 10.0)
    said = {c.change: c.start_p50 for c in found}
    assert said["1 instead of 4 pods"] == 10.0
    assert "2 instead of 4 pods" not in said


def test_a_looser_topology() -> None:
    nodes = [w.node("n0", "b0", "r0"), w.node("n1", "b1", "r1")]
    held = w.pending("held", "q", 1, 4, p50=7200.0, topology=w.required(w.RACK), selector={w.RACK: "r0"})
    other = w.pending("other", "q", 1, 4, p50=7200.0, topology=w.required(w.RACK), selector={w.RACK: "r1"})
    gang = w.pending("gang", "q", 2, 4, queued_at=1.0, topology=w.required(w.RACK))
    found = counterfactuals(w.snapshot(nodes, [w.queue("q", 16)], [held, other, gang]), "gang", 10.0)
    assert {c.change: c.start_p50 for c in found}["its topology preferred instead of required"] == 10.0


def test_borrowing_and_a_higher_class() -> None:
    nodes = [w.node("n0", "b", "r"), w.node("n1", "b", "r")]
    queues = [w.queue("q", 8, "all", borrow=0), w.queue("idle", 8, "all")]
    jobs = [w.pending(f"j{i}", "q", 1, 8, queued_at=float(i), p50=1000.0) for i in range(3)]
    found = counterfactuals(w.snapshot(nodes, queues, jobs), "j2", 10.0)
    said = {c.change: c.start_p50 for c in found}
    assert said["no borrowing limit in queue q"] <= 1010.0
    assert said["a class of priority 1"] == 10.0 + 1000.0 or said["a class of priority 1"] == 10.0
    assert [c.start_p50 for c in found] == sorted(c.start_p50 for c in found)


def test_what_is_said_is_so() -> None:
    """Each change, made for real, gives the start that was said."""
    nodes = [w.node(f"n{i}", "b", "r") for i in range(2)]
    jobs = [w.pending("a", "q", 1, 8, p50=500.0), w.pending("b", "q", 2, 8, queued_at=1.0, p50=500.0)]
    snapshot = w.snapshot(nodes, [w.queue("q", 16)], jobs)
    (smaller,) = [c for c in counterfactuals(snapshot, "b", 10.0) if c.change == "1 instead of 2 pods"]
    half = replace(jobs[1], pod_sets=(replace(jobs[1].pod_sets[0], count=1),))
    told = {f.key: f for f in forecast(replace(snapshot, pending=(jobs[0], half)), 10.0)}
    assert told["b"].start_p50 == smaller.start_p50
    assert {d.key: d.outcome for d in decide(replace(snapshot, pending=(jobs[0], half)), 10.0)}["b"] is Outcome.ADMIT


def test_nothing_helps_who_starts_now() -> None:
    snapshot = w.snapshot([w.node("n", "b", "r")], [w.queue("q", 8)], [w.pending("a", "q", 1, 1)])
    assert counterfactuals(snapshot, "a", 0.0) == []
    with pytest.raises(KeyError):
        counterfactuals(snapshot, "nobody", 0.0)
