"""Replay of Kueue's own scheduling cases, as far as the core goes today: no preemption, slices, partial admission."""

from __future__ import annotations

from pathlib import Path

import kueuecases as k
import pytest

from glebe.scheduling.decide import decide_one_cycle
from glebe.scheduling.model import (
    ClusterQueue,
    FlavorQuotas,
    Outcome,
    Pending,
    Quota,
    ResourceGroup,
    RunTime,
    Snapshot,
    TopologyMode,
    TopologyRequest,
)


def place(case: k.Case) -> str:
    """Kind ``topology``: one workload in a queue without quota limits; pods see the flavor's own use."""
    base = k.base_snapshot(case)
    pod_sets = tuple(k.pod_set(p) for p in case["input"]["podSets"])
    pod_sets = tuple(
        p if p.topology else type(p)(p.name, p.count, p.requests, p.node_selector, p.tolerations, _anywhere())
        for p in pod_sets
    )
    resources = tuple(sorted({r for p in pod_sets for r in p.requests}))
    group = ResourceGroup(resources, (FlavorQuotas("tas", {r: Quota(10**15) for r in resources}),))
    snapshot = Snapshot(
        base.nodes,
        base.topologies,
        base.flavors,
        (ClusterQueue("q", (group,)),),
        pending=(Pending("w", "q", 0, 0.0, pod_sets, RunTime(1, 1)),),
    )
    (decision,) = decide_one_cycle(snapshot, 0.0)
    expected = case["expect"]["podSets"]
    fits = all(e["assignment"] for e in expected.values())
    if (decision.outcome is Outcome.ADMIT) != fits:
        return f"{decision.outcome} ({decision.message}), expected {expected}"
    nodes = {n.name: n for n in base.nodes}
    for a in decision.assignments:
        if not k.same_topology(expected[a.pod_set]["assignment"], a, nodes):
            return f"{a.pod_set} on {a.nodes}, expected {expected[a.pod_set]['assignment']}"
    return ""


def _anywhere() -> TopologyRequest:
    return TopologyRequest(TopologyMode.UNCONSTRAINED)


def cycle(case: k.Case) -> str:
    snapshot = k.cycle_snapshot(case)
    return k.judge_cycle(case, snapshot, decide_one_cycle(snapshot, k.time(case["now"])))


def flavors(case: k.Case) -> str:
    """Kind ``flavorAssignment``; the mode ``Preempt`` does not exist here yet."""
    (decision,) = decide_one_cycle(k.flavor_snapshot(case), k.time(case["now"]))
    return k.judge_flavors(case, decision)


@pytest.mark.parametrize(
    ("family", "replay", "floor"),
    [
        ("TestFindTopologyAssignments", place, 0.98),
        ("TestAssignFlavors", flavors, 0.85),
        ("TestSchedule", cycle, 0.80),
        ("TestScheduleForTAS", cycle, 0.80),
        ("TestScheduleForTASCohorts", cycle, 0.70),
    ],
)
def test_agreement_with_kueue(
    shared_data: Path, capsys: pytest.CaptureFixture[str], family: str, replay: object, floor: float
) -> None:
    cases = k.load(shared_data, family)
    told = [c for c in cases if k.in_scope(c)]
    differences = {c["name"]: replay(c) for c in told}  # type: ignore[operator]
    wrong = {name: why for name, why in differences.items() if why}
    share = 1 - len(wrong) / len(told)
    with capsys.disabled():
        print(
            f"\n{family}: {len(told) - len(wrong)}/{len(told)} in scope agree ({share:.0%}), {len(cases)} cases in all"
        )
        for name, why in sorted(wrong.items()):
            print(f"  differs: {name}: {why}")
    assert share >= floor
