"""Slices, leaders with workers, and replacement of failed nodes, against brute force on small fleets."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache

import schedulingworlds as w
from hypothesis import given, settings
from hypothesis import strategies as st

from glebe.scheduling import decide
from glebe.scheduling.model import (
    GPU,
    Expression,
    Node,
    Outcome,
    Pending,
    PodSet,
    RunTime,
    Slice,
    TopologyMode,
    TopologyRequest,
)
from glebe.scheduling.placement import slices, topology
from glebe.scheduling.placement.capacity import NodeState, SlotTable
from glebe.scheduling.placement.fleet import Fleet, PodKind
from glebe.scheduling.placement.replacement import replacement
from glebe.scheduling.placement.topology import Ask

LEVELS = (w.BLOCK, w.RACK, w.HOST)
KIND = PodKind((), (), "default")


@st.composite
def fleets(draw: st.DrawFn) -> tuple[Node, ...]:
    """Up to 2 blocks of 2 racks of 2 hosts with 0-4 GPUs."""
    count = draw(st.integers(1, 8))
    return tuple(w.node(f"n{i}", f"b{i // 4}", f"r{i // 2}", draw(st.integers(0, 4))) for i in range(count))


@st.composite
def asks(draw: st.DrawFn) -> Ask:
    layers: tuple[tuple[int, int], ...] = ()
    first = 2
    if draw(st.booleans()):
        first = draw(st.integers(0, 2))
        inner = draw(st.sampled_from([1, 2]))
        layers = ((first, inner * draw(st.sampled_from([1, 2]))),)
        if first < 2 and draw(st.booleans()):
            layers = (*layers, (draw(st.integers(first + 1, 2)), inner))
    mode = draw(st.sampled_from(["required", "preferred", "unconstrained"]))
    level = draw(st.integers(0, first))
    if mode == "unconstrained":
        level = 0 if layers else 2
    return Ask(level, mode == "required", mode == "unconstrained", layers)


def table_of(nodes: tuple[Node, ...], gpus: int = 1) -> tuple[NodeState, SlotTable]:
    fleet = Fleet(nodes, (w.TOPOLOGY,))
    state = NodeState.of(fleet)
    shape = fleet.vector({GPU: gpus})
    assert shape is not None
    return state, state.table(fleet.number((KIND, shape)), KIND, shape)


def domain(node: Node, level: int) -> tuple[str, ...]:
    return tuple(node.labels[key] for key in LEVELS[: level + 1])


def valid(ask: Ask, pods: dict[str, int], by_name: dict[str, Node]) -> bool:
    """Whole slices of every layer, and one domain of a required level."""
    for level, size in ask.layers:
        sums: Counter[tuple[str, ...]] = Counter()
        for name, count in pods.items():
            sums[domain(by_name[name], level)] += count
        if any(count % size for count in sums.values()):
            return False
    return not ask.required or len({domain(by_name[name], ask.level) for name, n in pods.items() if n}) <= 1


def exists(nodes: tuple[Node, ...], rooms: list[int], ask: Ask, count: int) -> bool:
    """Is there any placement at all? Every distribution of the pods is tried."""

    @cache
    def reach(i: int, left: int, held: tuple[tuple[str, int], ...]) -> bool:
        if i == len(nodes):
            return not left and valid(ask, dict(held), {n.name: n for n in nodes})
        return any(
            reach(i + 1, left - n, (*held, (nodes[i].name, n)) if n else held) for n in range(min(left, rooms[i]) + 1)
        )

    return reach(0, count, ())


@settings(max_examples=150, deadline=None)
@given(fleets(), asks(), st.integers(1, 4))
def test_slices_are_whole_and_found_whenever_they_exist(nodes: tuple[Node, ...], ask: Ask, times: int) -> None:
    count = times * (ask.layers[0][1] if ask.layers else 1)
    state, table = table_of(nodes)
    rooms = [n.allocatable[GPU] for n in nodes]
    placed = slices.choose(table, ask, count)
    assert (placed is not None) == exists(nodes, rooms, ask, count) == slices.holds(table, ask, count)
    if placed is not None:
        pods = {nodes[n].name: pods for n, pods in placed.spots}
        assert sum(pods.values()) == count
        assert all(pods[n.name] <= n.allocatable[GPU] for n in nodes if n.name in pods)
        assert valid(ask, pods, {n.name: n for n in nodes})
    assert state.free == NodeState.of(state.fleet).free


@settings(max_examples=200, deadline=None)
@given(fleets(), asks().filter(lambda a: not a.layers), st.integers(1, 20))
def test_without_slices_both_ways_choose_the_same_nodes(nodes: tuple[Node, ...], ask: Ask, count: int) -> None:
    _, table = table_of(nodes)
    placed = slices.choose(table, ask, count)
    assert (placed.spots if placed else None) == topology.choose(table, ask, count)


@settings(max_examples=150, deadline=None)
@given(fleets(), asks(), st.integers(1, 3), st.integers(1, 2), st.integers(1, 4))
def test_a_leader_has_room_beside_its_workers(
    nodes: tuple[Node, ...], ask: Ask, times: int, worker: int, leader: int
) -> None:
    count = times * (ask.layers[0][1] if ask.layers else 1)
    state, table = table_of(nodes, worker)
    fleet = state.fleet
    shape, its = fleet.vector({GPU: worker}), fleet.vector({GPU: leader})
    assert shape is not None
    assert its is not None
    lead = slices.lead(state, KIND, shape, KIND, its)
    placed = slices.choose(table, ask, count, lead)
    gpus = [n.allocatable[GPU] for n in nodes]

    def with_leader_on(host: int) -> bool:
        if gpus[host] < leader:
            return False
        if not ask.required:
            rooms = [(g - leader * (i == host)) // worker for i, g in enumerate(gpus)]
            return exists(nodes, rooms, ask, count)
        mine = domain(nodes[host], ask.level)
        rooms = [
            (g - leader * (i == host)) // worker if domain(nodes[i], ask.level) == mine else 0
            for i, g in enumerate(gpus)
        ]
        return exists(nodes, rooms, ask, count)

    assert (placed is not None) == any(with_leader_on(i) for i in range(len(nodes)))
    if placed is not None:
        assert placed.leader >= 0
        held = Counter({n: pods * worker for n, pods in placed.spots})
        held[placed.leader] += leader
        assert all(amount <= gpus[n] for n, amount in held.items())
        assert valid(ask, {nodes[n].name: pods for n, pods in placed.spots}, {n.name: n for n in nodes})
        if ask.required:
            domains = {domain(nodes[n], ask.level) for n in (*dict(placed.spots), placed.leader)}
            assert len(domains) == 1


@settings(max_examples=150, deadline=None)
@given(fleets(), asks(), st.integers(1, 3), st.data())
def test_a_failed_nodes_pods_move_and_the_rest_stays(
    nodes: tuple[Node, ...], ask: Ask, times: int, data: st.DataObject
) -> None:
    count = times * (ask.layers[0][1] if ask.layers else 1)
    state, table = table_of(nodes)
    placed = slices.choose(table, ask, count)
    if placed is None:
        return
    failed = data.draw(st.sampled_from([n for n, _ in placed.spots]))
    after = tuple(replace(n, ready=i != failed) for i, n in enumerate(nodes))
    state, table = table_of(after)
    kept = tuple(s for s in placed.spots if s[0] != failed)
    shape = state.fleet.vector({GPU: 1})
    assert shape is not None
    state.take(shape, kept)
    moved = replacement(state.table(state.fleet.number((KIND, shape)), KIND, shape), ask, placed.spots, failed)
    if moved is None:
        return
    pods: Counter[int] = Counter()
    for node, more in moved:
        pods[node] += more
    assert failed not in pods
    ranks, now = ([n for n, c in where for _ in range(c)] for where in (placed.spots, moved))
    assert all(after == before for before, after in zip(ranks, now, strict=True) if before != failed)
    assert sum(pods.values()) == count
    assert all(pods[n] >= before for n, before in kept)
    assert all(pods[n] <= nodes[n].allocatable[GPU] for n in pods)
    assert valid(ask, {nodes[n].name: c for n, c in pods.items()}, {n.name: n for n in nodes})


def group(request: TopologyRequest, workers: int, *, leader_gpus: int = 1) -> Pending:
    sets = (
        PodSet("leader", 1, {GPU: leader_gpus, "cpu": 1}, topology=request),
        PodSet("workers", workers, {GPU: 2, "cpu": 1}, topology=request),
    )
    return Pending("gang", "q", 0, 0.0, sets, RunTime(1, 1))


def test_a_group_is_placed_in_one_domain_or_not_at_all() -> None:
    request = TopologyRequest(TopologyMode.REQUIRED, w.RACK, group="g")
    nodes = [w.node("a", "b", "r0", 4), w.node("b", "b", "r1", 4), w.node("c", "b", "r1", 1)]
    (decision,) = decide(w.snapshot(nodes, [w.queue("q", 100)], [group(request, 2)]), 0.0)
    assert {a.pod_set: a.nodes for a in decision.assignments} == {"leader": (("c", 1),), "workers": (("b", 2),)}
    (decision,) = decide(w.snapshot(nodes[:2], [w.queue("q", 100)], [group(request, 2)]), 0.0)
    assert decision.outcome is Outcome.NEVER


def test_a_group_of_three_is_refused_in_words() -> None:
    request = TopologyRequest(TopologyMode.REQUIRED, w.RACK, group="g")
    job = group(request, 2)
    job = replace(job, pod_sets=(*job.pod_sets, replace(job.pod_sets[0], name="third")))
    (decision,) = decide(w.snapshot([w.node("a", "b", "r0")], [w.queue("q", 100)], [job]), 0.0)
    assert decision.outcome is Outcome.NEVER
    assert "pod set group g must be two pod sets, one of them of one pod" in decision.message


def test_slices_that_do_not_fit_are_explained() -> None:
    nodes = [w.node("a", "b", "r0", 3), w.node("b", "b", "r1", 3)]
    request = TopologyRequest(TopologyMode.REQUIRED, w.BLOCK, (Slice(w.RACK, 2),))
    (decision,) = decide(w.snapshot(nodes, [w.queue("q", 100)], [w.pending("j", "q", 6, 1, topology=request)]), 0.0)
    assert decision.outcome is Outcome.NEVER
    assert "6 GPUs in slices of 2 pods within one rack in one block" in decision.message
    assert "holds 4 GPUs" in decision.message
    bad = TopologyRequest(TopologyMode.REQUIRED, w.RACK, (Slice(w.BLOCK, 2),))
    (decision,) = decide(w.snapshot(nodes, [w.queue("q", 100)], [w.pending("j", "q", 2, 1, topology=bad)]), 0.0)
    assert "cannot be wider than level" in decision.message


def test_the_last_slice_may_be_shorter() -> None:
    nodes = [w.node("a", "b", "r0", 4), w.node("b", "b", "r1", 3)]
    request = TopologyRequest(TopologyMode.PREFERRED, w.BLOCK, (Slice(w.RACK, 2),))
    (decision,) = decide(w.snapshot(nodes, [w.queue("q", 100)], [w.pending("j", "q", 5, 1, topology=request)]), 0.0)
    assert decision.assignments[0].nodes == (("a", 4), ("b", 1))


def test_required_node_affinity_is_honoured_by_placement() -> None:
    nodes = [w.node("a", "b", "r0", 8), w.node("b", "b", "r1", 8)]
    cases = {
        Expression(w.RACK, "In", ("r1", "r2")): "b",
        Expression(w.RACK, "NotIn", ("r1",)): "a",
        Expression("absent", "DoesNotExist"): "a",
        Expression("absent", "Exists"): "",
    }
    for expression, wanted in cases.items():
        job = w.pending("j", "q", 1, 1, topology=w.required(w.HOST))
        job = replace(job, pod_sets=(replace(job.pod_sets[0], affinity=((expression,),)),))
        (decision,) = decide(w.snapshot(nodes, [w.queue("q", 100)], [job]), 0.0)
        assert [n for a in decision.assignments for n, _ in a.nodes] == ([wanted] if wanted else [])
    assert "node selector, node affinity and tolerations" in decision.message
