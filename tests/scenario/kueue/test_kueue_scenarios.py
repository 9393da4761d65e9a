"""Replay of Kueue's own scheduling cases through the production core.

``not-yet.txt`` lists the cases whose outcome differs, each under its reason. The test fails when another case differs,
and also when a listed one no longer does: then its line goes.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import kueueworlds as k
import pytest
from kueuejudges import judge

FAMILIES = {  # and how many cases each has
    "TestSchedule": 40,
    "TestScheduleForFairSharing": 4,
    "TestScheduleForAFS": 4,
    "TestScheduleConcurrentAdmission": 1,
    "TestScheduleRecomputePreemptionTargets": 2,
    "TestScheduleForTAS": 32,
    "TestScheduleForTASPreemption": 6,
    "TestScheduleForTASCohorts": 15,
    "TestPreemption": 23,
    "TestHierarchicalPreemptions": 5,
    "TestFairPreemptions": 20,
    "TestAssignFlavors": 31,
    "TestDominantResourceShare": 10,
    "TestFindTopologyAssignments": 67,
    "TestFindTopologyAssignmentsMultiLayerReplacement": 3,
}
PLACEMENT = "TestFindTopology"  # families judged by the tests in kueue_topology, with a list of their own
Verdicts = dict[str, dict[str, tuple[str, str]]]  # by family and case: which column it counts in, what differs


def not_yet() -> dict[tuple[str, str], str]:
    """Reason by (family, case): ``# reason`` lines, each followed by ``family: case`` lines."""
    listed: dict[tuple[str, str], str] = {}
    reason = ""
    for line in (Path(__file__).parent / "not-yet.txt").read_text().splitlines():
        if line.startswith("#"):
            reason = line.lstrip("# ")
        elif line:
            family, _, name = line.partition(": ")
            assert reason, f"{name} is listed without a reason"
            assert (family, name) not in listed, f"{name} is listed twice"
            listed[family, name] = reason
    return listed


def column(case: k.Case) -> str:
    """Who the case is for: everybody, those with gates, or only Kueue itself."""
    return "internal" if case["internalsOnly"] else "gated" if case["nonDefaultGates"] else "plain"


@pytest.fixture(scope="module")
def verdicts(shared_data: Path) -> Verdicts:
    return {
        family: {case["name"]: (column(case), judge(case)) for case in k.load(shared_data, family)}
        for family in FAMILIES
    }


@pytest.mark.parametrize("family", [f for f in FAMILIES if not f.startswith(PLACEMENT)])
def test_outcomes_are_those_of_kueue_but_for_the_listed_ones(verdicts: Verdicts, family: str) -> None:
    listed = {name for of, name in not_yet() if of == family}
    differing = {name: why for name, (_, why) in verdicts[family].items() if why}
    assert len(verdicts[family]) == FAMILIES[family]
    assert {n: why for n, why in differing.items() if n not in listed} == {}, "differ and are not listed"
    assert listed - set(differing) == set(), "hold now: take them off not-yet.txt"


def test_table(verdicts: Verdicts, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints what holds: the figure that the project is measured by."""
    total: Counter[str] = Counter()
    rows = []
    for family, cases in verdicts.items():
        row: Counter[str] = Counter()
        for kind, why in cases.values():
            row[kind] += 1
            row[f"{kind} holds"] += not why
        total += row
        rows.append((family, row))
    with capsys.disabled():
        print(f"\n{'Kueue scenarios that hold':50}{'plain':>10}{'gated':>10}{'internal':>10}")
        for name, row in [*rows, ("all", total)]:
            cells = (f"{row[f'{c} holds']}/{row[c]}" if row[c] else "-" for c in ("plain", "gated", "internal"))
            print(f"{name:50}" + "".join(f"{cell:>10}" for cell in cells))
    assert total["plain"] + total["gated"] + total["internal"] == 263
