"""What the simulation allows the ledger: to have been deaf for as long as a watch can be, and no more."""

from __future__ import annotations

from typing import Any

import pytest

from glebe.kube.objects import Object
from glebe.metering import report
from glebe.metering.book import Totals
from glebe.platform.simulation.invariants import Checker
from glebe.platform.simulation.settled import ledger_disagrees

GPUS, UID = 4, "uid-p"


def pod(phase: str) -> Object:
    containers = [{"resources": {"requests": {"nvidia.com/gpu": str(GPUS)}}}]
    spec: dict[str, Any] = {"containers": containers, "nodeName": "n1"}
    return {"metadata": {"name": "p", "namespace": "a", "uid": UID}, "spec": spec, "status": {"phase": phase}}


def node() -> Object:
    ready = [{"type": "Ready", "status": "True"}]
    return {"metadata": {"name": "n1"}, "status": {"allocatable": {"nvidia.com/gpu": "8"}, "conditions": ready}}


@pytest.mark.parametrize(
    ("charged_until", "recorded", "problem"),
    [
        (50, {UID: None}, ""),  # it heard of the end
        (140, {UID: 140}, ""),  # it found the pod gone, and cannot know that it had ended long before that
        (140, {UID: None}, "allocated 560 GPU-s, independently 200"),  # it says that it knows
        (140, {UID: 60}, "allocated 560 GPU-s, independently 200"),  # the report is not what the file says
        (260, {UID: 260}, "long after their end"),
        (0, {}, ""),  # never seen
    ],
)
def test_pods_that_ended_and_were_removed_unheard(
    charged_until: int, recorded: dict[str, int | None], problem: str
) -> None:
    now = 0.0
    checker = Checker(lambda: now)
    checker.observe("nodes", "", "n1", node(), 1)
    checker.observe("pods", "a", "p", pod("Running"), 2)
    now = 50.0
    checker.observe("pods", "a", "p", pod("Succeeded"), 3)
    now = 130.0
    checker.observe("pods", "a", "p", None, 4)
    now = 300.0
    seconds = {"owned": 8 * 300, "allocated": GPUS * charged_until, "unhealthy": 0}
    seconds["idle"] = seconds["owned"] - seconds["allocated"]
    totals = Totals(300, seconds, {"owned": 8, "allocated": 0, "idle": 8, "unhealthy": 0}, {})
    published = {**report.object_of(0), "status": report.status_of(totals)}
    checker.observe("usagereports.glebe.dev", "", published["metadata"]["name"], published, 5)
    verdict = ledger_disagrees(checker, recorded, now)
    assert problem in verdict
    assert bool(verdict) == bool(problem)
