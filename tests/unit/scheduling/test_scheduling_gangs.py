"""Gangs on nodes: even spreading, preferences, elastic slices, second looks at running workloads."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import schedulingworlds as w
from hypothesis import given, settings
from hypothesis import strategies as st
from test_scheduling_slices import KIND, asks, exists, fleets, table_of, valid

from glebe.scheduling import decide
from glebe.scheduling.model import (
    GPU,
    Admitted,
    Expression,
    Gates,
    Node,
    Outcome,
    Pending,
    PodSetAssignment,
    Preferred,
    Reason,
    RunTime,
    Slice,
    Snapshot,
    TopologyMode,
    TopologyRequest,
)
from glebe.scheduling.placement import slices
from glebe.scheduling.placement.topology import Ask

RACKS = [w.node(f"n{i}", "b", f"r{i // 2}", 4) for i in range(6)]


def world(nodes: list[Node], work: list[Pending] | None = None, *running: Admitted, **gates: bool) -> Snapshot:
    found = w.snapshot(nodes, [w.queue("q", 100)], work or [])
    return replace(found, admitted=running, gates=Gates(**gates))


def held(job: Pending, nodes: tuple[tuple[str, int], ...], **more: object) -> Admitted:
    """``job`` as it runs on ``nodes``."""
    (pod_set,) = job.pod_sets
    usage = {r: n * pod_set.count for r, n in pod_set.requests.items()}
    assigned = PodSetAssignment(pod_set.name, pod_set.count, dict.fromkeys(usage, "gpu"), usage, nodes)
    if "delayed" in more:
        assigned = replace(assigned, delayed=str(more.pop("delayed")))
    return Admitted(job.key, job.queue, 0, 0.0, job.pod_sets, (assigned,), RunTime(1, 1), **more)  # type: ignore[arg-type]


@settings(max_examples=150, deadline=None)
@given(fleets(), asks().filter(lambda a: not a.required and not a.scattered), st.integers(1, 4), st.booleans())
def test_balanced_placement_is_found_whenever_any_is(nodes: tuple[Node, ...], ask: Ask, times: int, led: bool) -> None:
    ask = replace(ask, balanced=True)
    count = times * (ask.layers[0][1] if ask.layers else 1)
    state, table = table_of(nodes)
    leader = None
    if led:
        shape = state.fleet.vector({GPU: 1})
        assert shape is not None
        leader = slices.lead(state, KIND, shape, KIND, shape)
    placed = slices.choose(table, ask, count, leader)
    if not led:
        assert (placed is not None) == exists(nodes, [n.allocatable[GPU] for n in nodes], ask, count)
    if placed is None:
        return
    pods = {nodes[n].name: pods for n, pods in placed.spots}
    used = Counter(pods)
    if led:
        used[nodes[placed.leader].name] += 1
    assert sum(pods.values()) == count
    assert all(used[n.name] <= n.allocatable[GPU] for n in nodes)
    assert valid(ask, pods, {n.name: n for n in nodes})


def test_balanced_pods_are_spread_evenly_over_as_few_nodes_as_needed() -> None:
    job = w.pending("j", "q", 10, 1, topology=TopologyRequest(TopologyMode.PREFERRED, w.RACK))
    for balanced, wanted in ((False, [2, 4, 4]), (True, [3, 3, 4])):
        (decision,) = decide(world(RACKS, [job], balanced_placement=balanced), 0.0)
        assert sorted(n for _, n in decision.assignments[0].nodes) == wanted


def test_preferred_affinity_counts_when_its_gate_is_on() -> None:
    like = (Preferred(5, (Expression(w.RACK, "In", ("r2",)),)),)
    job = w.pending("j", "q", 2, 1, topology=w.required(w.RACK))
    job = replace(job, pod_sets=(replace(job.pod_sets[0], preferred=like),))
    for on, rack in ((False, {"n0", "n1"}), (True, {"n4", "n5"})):
        (decision,) = decide(world(RACKS, [job], preferred_affinity=on), 0.0)
        assert {n for n, _ in decision.assignments[0].nodes} <= rack


def test_unconstrained_pods_fill_nodes_or_fit_tightly_by_their_gate() -> None:
    nodes = [w.node("a", "b", "r0", 4), w.node("b", "b", "r0", 2), w.node("c", "b", "r1", 3)]
    job = w.pending("j", "q", 6, 1, topology=TopologyRequest(TopologyMode.UNCONSTRAINED))
    for mixed, wanted in ((True, {"b": 2, "c": 3, "a": 1}), (False, {"a": 4, "b": 2})):
        (decision,) = decide(world(nodes, [job], profile_mixed=mixed), 0.0)
        assert dict(decision.assignments[0].nodes) == wanted


@pytest.mark.parametrize(("count", "wanted"), [(2, (("n3", 2),)), (3, (("n3", 2), ("n1", 1)))])
def test_a_smaller_slice_keeps_its_first_ranks(count: int, wanted: tuple[tuple[str, int], ...]) -> None:
    anywhere = TopologyRequest(TopologyMode.UNCONSTRAINED)
    old = held(w.pending("old", "q", 4, 1, topology=anywhere), (("n3", 2), ("n1", 2)))
    new = replace(w.pending("new", "q", count, 1, topology=anywhere), replaces="old")
    (decision,) = decide(world(RACKS, [new], old), 0.0)
    assert decision.outcome is Outcome.ADMIT
    assert decision.replaces == "old"
    assert decision.assignments[0].nodes == wanted


def test_a_larger_slice_keeps_its_nodes_and_its_required_rack() -> None:
    rack = w.required(w.RACK)
    old = held(w.pending("old", "q", 3, 1, topology=rack), (("n3", 2), ("n2", 1)))
    new = replace(w.pending("new", "q", 6, 1, topology=rack), replaces="old")
    (decision,) = decide(world(RACKS, [new], old), 0.0)
    nodes = decision.assignments[0].nodes
    assert nodes[0] == ("n3", 2)
    assert Counter(dict(nodes[1:]) | {"n3": sum(n for name, n in nodes if name == "n3")}) == {"n2": 3, "n3": 3} or (
        sum(n for _, n in nodes) == 6 and {name for name, _ in nodes} == {"n2", "n3"}
    )
    full = held(w.pending("full", "q", 4, 1, topology=rack), (("n2", 3), ("n3", 1)))
    decisions = decide(world(RACKS, [new], old, full), 0.0)
    assert decisions[0].outcome is not Outcome.ADMIT  # its rack has one place left, others would do


def test_a_slice_of_an_elastic_workload_may_be_placed_anew_without_the_gate() -> None:
    anywhere = TopologyRequest(TopologyMode.UNCONSTRAINED)
    old = held(w.pending("old", "q", 2, 1, topology=anywhere), (("n5", 2),))
    new = replace(w.pending("new", "q", 3, 1, topology=anywhere), replaces="old")
    (decision,) = decide(world(RACKS, [new], old, elastic_with_topology=False), 0.0)
    assert dict(decision.assignments[0].nodes) == {"n0": 3}


def test_a_delayed_placement_is_made_in_the_second_pass_with_the_quota_that_is_held() -> None:
    job = w.pending("j", "q", 4, 1, topology=w.required(w.RACK))
    waiting = held(job, (), delayed="Pending", second_pass=True)
    (decision,) = decide(world(RACKS, [], waiting), 0.0)
    assert decision.outcome is Outcome.ADMIT
    (assigned,) = decision.assignments
    assert (assigned.nodes, assigned.delayed) == ((("n0", 4),), "Ready")
    other = w.pending("other", "q", 4, 1, topology=w.required(w.HOST))
    decisions = decide(world(RACKS[:1], [other], waiting), 0.0)  # who was promised quota first goes first
    assert [(d.key, d.outcome) for d in decisions] == [("j", Outcome.ADMIT), ("other", Outcome.WAIT)]
    (decision,) = decide(world([], [], waiting), 0.0)
    assert decision.outcome is Outcome.WAIT


def test_pods_of_a_failed_node_move_and_nobody_changes_rank() -> None:
    job = w.pending("j", "q", 6, 1, topology=w.required(w.BLOCK))
    running = held(job, (("n0", 2), ("n3", 2), ("n1", 2)), unhealthy=("n3",), second_pass=True)
    nodes = [replace(n, ready=n.name != "n3") for n in RACKS]
    (decision,) = decide(world(nodes, [], running), 0.0)
    (assigned,) = decision.assignments
    names = [name for name, n in assigned.nodes for _ in range(n)]
    assert (names[:2], names[4:]) == (["n0", "n0"], ["n1", "n1"])
    assert "n3" not in names
    assert "n3 failed" in decision.message


@pytest.mark.parametrize("fail_fast", [False, True])
def test_without_another_node_it_is_evicted_or_waits_for_one(fail_fast: bool) -> None:
    job = w.pending("j", "q", 8, 1, topology=w.required(w.RACK))
    running = held(job, (("n0", 4), ("n1", 4)), unhealthy=("n1",), second_pass=True)
    nodes = [n for n in RACKS if n.name != "n1"]
    (decision,) = decide(world(nodes, [], running, fail_fast=fail_fast), 0.0)
    assert decision.outcome is (Outcome.EVICT if fail_fast else Outcome.WAIT)
    assert decision.reason is (Reason.NODE_FAILURES if fail_fast else Reason.TOPOLOGY_PLACEMENT_FAILED)
    alone = replace(running, owned_by_pod=True)
    (decision,) = decide(world(nodes, [], alone, fail_fast=fail_fast), 0.0)
    assert (decision.outcome, decision.assignments) == (Outcome.ADMIT, running.assignments)


def test_nodes_that_fail_together_are_replaced_together() -> None:
    job = w.pending("j", "q", 4, 1, topology=w.required(w.BLOCK))
    running = held(job, (("n0", 1), ("n2", 1), ("n1", 1), ("n3", 1)), unhealthy=("n2",), second_pass=True)
    nodes = [n for n in RACKS if n.name not in ("n1", "n2")]  # of n1 nobody has said anything yet
    (decision,) = decide(world(nodes, [], running), 0.0)
    names = [name for name, n in decision.assignments[0].nodes for _ in range(n)]
    assert (names[0], names[3], len(names)) == ("n0", "n3", 4)
    sliced = replace(
        running,
        pod_sets=(
            replace(job.pod_sets[0], topology=TopologyRequest(TopologyMode.REQUIRED, w.BLOCK, (Slice(w.RACK, 2),))),
        ),
    )
    (decision,) = decide(world(nodes, [], sliced), 0.0)  # both slices are broken: who goes where is not known
    assert decision.outcome is Outcome.EVICT
