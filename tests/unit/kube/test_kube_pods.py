"""The words that all rooms share about pods."""

from __future__ import annotations

from typing import Any

import pytest

from glebe.kube.pods import has_ended, node_of, phase_of, requests_of


def asks(restart: str | None = None, **amounts: str) -> dict[str, Any]:
    container: dict[str, Any] = {"resources": {"requests": amounts}}
    return {**container, "restartPolicy": restart} if restart else container


@pytest.mark.parametrize(
    ("phase", "ended"), [("Succeeded", True), ("Failed", True), ("Running", False), ("Unknown", False), (None, False)]
)
def test_phases(phase: str | None, ended: bool) -> None:
    pod: dict[str, Any] = {"metadata": {}, "spec": {}, "status": {"phase": phase}}
    assert (phase_of(pod), has_ended(pod), node_of(pod)) == (phase or "Pending", ended, [])
    assert node_of({"spec": {"nodeName": "n"}}) == ["n"]
    assert not has_ended({"metadata": {}})


def test_requests_add_up_as_kubernetes_does() -> None:
    spec = {
        "initContainers": [asks("Always", cpu="200m"), asks(cpu="2", memory="1Ki")],
        "containers": [asks(cpu="1", gpu="1"), {"resources": {"limits": {"cpu": "500m"}}}],
        "overhead": {"cpu": "50m"},
    }
    assert requests_of(spec) == {"cpu": 2250, "gpu": 1, "memory": 1024}
    assert requests_of(spec, "gpu") == {"gpu": 1}
    assert requests_of({**spec, "resources": {"requests": {"cpu": "4"}}})["cpu"] == 4050
    assert requests_of({}) == {}


def test_requests_of_nothing_are_named_where_that_matters() -> None:
    spec = {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1", "nvidia.com/gpu": "0"}}}]}
    assert requests_of(spec) == {"cpu": 1000}
    assert requests_of(spec, zeros=True) == {"cpu": 1000, "nvidia.com/gpu": 0}
