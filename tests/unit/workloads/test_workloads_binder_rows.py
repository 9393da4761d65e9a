"""Nodes that change are changed in place; the result is what making everything anew would give."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from test_workloads_binder import fleet_of, node, pod

from glebe.kube.objects import Object
from glebe.workloads.binder.choose import choose
from glebe.workloads.binder.filters import diagnose
from glebe.workloads.binder.fleet import Fleet
from glebe.workloads.binder.needs import Needs

TAINTS = ([], [{"key": "a", "effect": "NoSchedule"}], [{"key": "b", "effect": "PreferNoSchedule"}])
RACK = {"labelSelector": {"matchLabels": {"x": "y"}}, "topologyKey": "rack"}


def some_node(rng: random.Random, name: str) -> Object:
    made = node(
        name,
        gpus=rng.choice((0, 4, 8)),
        cpu=rng.choice(("4", "8")),
        labels=rng.choice(({}, {"rack": "r1"}, {"rack": "r2", "disk": "ssd"})),
        taints=rng.choice(TAINTS),
    )
    if rng.random() < 0.2:
        made["spec"]["unschedulable"] = True
    if rng.random() < 0.2:
        made["status"]["conditions"] = [{"type": "Ready", "status": "Unknown"}]
    return made


def classes() -> list[Needs]:
    weighted = [{"weight": 3, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}}]
    soft = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": weighted}}
    spread = [{**RACK, "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}]
    named = [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]
    pinned = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": named}}}
    shapes: list[dict[str, Any]] = [
        {},
        {"gpus": 4},
        {"nodeSelector": {"rack": "r1"}},
        {"affinity": soft},
        {"tolerations": [{"key": "a", "operator": "Exists"}]},
        {"topologySpreadConstraints": spread},
        {"affinity": pinned},
    ]
    return [Needs.of(pod("p", **shape)) for shape in shapes]


def answers(fleet: Fleet) -> list[object]:
    out: list[object] = []
    for needs in classes():
        found = choose(fleet, needs)
        judged = diagnose(fleet, needs, {})
        out.append((found.node, found.message(), judged.reasons, judged.left.tolist(), judged.curable.tolist()))
    return out


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_changing_a_node_in_place_is_as_good_as_making_everything_anew(seed: int) -> None:
    rng = random.Random(seed)
    nodes = {f"n{i}": some_node(rng, f"n{i}") for i in range(4)}
    fleet = fleet_of(*nodes.values())
    held = {f"u{i}": (rng.choice(list(nodes)), rng.choice(classes())) for i in range(6)}
    for uid, (where, needs) in held.items():
        fleet.hold(uid, where, needs)
    answers(fleet)
    for _ in range(6):
        name = rng.choice(list(nodes))
        nodes[name] = some_node(rng, name)
        fleet.set_node(nodes[name])
        fresh = fleet_of(*nodes.values())
        for uid, (where, needs) in held.items():
            fresh.hold(uid, where, needs)
        assert answers(fleet) == answers(fresh)


def test_a_taint_does_not_make_everything_anew() -> None:
    fleet = fleet_of(node("a"), node("b"))
    fleet.refresh()
    fleet.set_node(node("a", taints=TAINTS[1]))
    assert not fleet.stale
    assert choose(fleet, Needs.of(pod("p"))).node == "b"
    fleet.set_node(node("c"))
    assert fleet.stale
