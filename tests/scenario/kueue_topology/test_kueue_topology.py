"""Kueue's topology cases against the production core; ``not-yet.txt`` lists those that do not hold, with the reason."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import topologycases as cases  # noqa: E402


def not_yet() -> dict[str, str]:
    """Case -> why it does not hold. Lines ``NAME | REASON``; ``#`` starts a comment."""
    lines = (HERE / "not-yet.txt").read_text().splitlines()
    pairs = (line.rsplit(" | ", 1) for line in lines if line.strip() and not line.startswith("#"))
    return {name.strip(): why.strip() for name, why in pairs}


def test_topology_cases_of_kueue(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = not_yet()
    assert all(listed.values()), "each case that is not expected to hold has a reason"
    wrong: dict[str, str] = {}
    found = cases.load(shared_data)
    for case in found:
        wanted = {name: domains for name, (_, domains) in cases.expected(case).items()}
        got = cases.outcome(case)
        if got != wanted:
            wrong[case["name"]] = f"{got} instead of {wanted}"
    plain = [c["name"] for c in found if not (c["internalsOnly"] or c["nonDefaultGates"])]
    gated = [c["name"] for c in found if c["nonDefaultGates"]]
    with capsys.disabled():
        for title, names in (("plain", plain), ("with a gate that is off by default", gated)):
            hold = sum(name not in wrong for name in names)
            print(f"\nKueue's topology cases, {title}: {hold} of {len(names)} hold")
    assert {n: w for n, w in wrong.items() if n not in listed} == {}, "fails and is not listed"
    assert sorted(set(listed) - set(wrong)) == [], "holds now, or is no case: take it off the list"
