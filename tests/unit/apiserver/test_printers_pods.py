"""The columns READY, STATUS and RESTARTS of pods with sidecars, as upstream's printer has them."""

from __future__ import annotations

from typing import Any

import pytest

from glebe.apiserver.printers.pod import pod_cells

RUNNING = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}


def ended(code: int) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}}


def one(name: str, state: dict[str, Any], restarts: int = 0) -> dict[str, Any]:
    on = "running" in state
    return {"name": name, "state": state, "ready": on, "started": on, "restartCount": restarts}


@pytest.mark.parametrize(
    ("initialized", "init", "main", "cells"),
    [
        ("True", [one("s", RUNNING, 2)], [one("c", RUNNING, 1)], ["2/2", "Running", "3"]),
        ("True", [one("s", ended(143))], [one("c", ended(0))], ["0/2", "Completed", "0"]),
        ("True", [one("s", ended(143))], [one("c", ended(3))], ["0/2", "Error", "0"]),
        ("True", [one("s", RUNNING)], [one("c", ended(0))], ["1/2", "Completed", "0"]),
        (
            "False",
            [one("s", ended(1))],
            [one("c", {"waiting": {"reason": "PodInitializing"}})],
            ["0/2", "Init:Error", "0"],
        ),
        ("False", [one("s", {"waiting": {}})], [one("c", {"waiting": {}})], ["0/2", "Init:0/1", "0"]),
    ],
)
def test_sidecars_count(initialized: str, init: Any, main: Any, cells: list[str]) -> None:
    status = {
        "phase": "Running",
        "conditions": [{"type": "Initialized", "status": initialized}],
        "initContainerStatuses": init,
        "containerStatuses": main,
    }
    spec = {"containers": [{"name": "c"}], "initContainers": [{"name": "s", "restartPolicy": "Always"}]}
    assert pod_cells({"metadata": {"name": "p"}, "spec": spec, "status": status}, 0.0, "1s")[1:4] == cells
