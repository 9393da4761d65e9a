"""A pod that somebody else has ended stays ended, whatever a node says that has not heard of it."""

from __future__ import annotations

from typing import Any

import pytest

from glebe.kube.errors import modified
from glebe.kube.objects import Object
from glebe.node.podwrites import write_status
from glebe.node.status import Exit, PodState, containers_of, pod_status

NOW = 1767225600.0  # 2026-01-01T00:00:00Z


def pod(version: str, **status: Any) -> Object:
    meta = {"name": "p", "namespace": "n", "uid": "u", "resourceVersion": version}
    return {"metadata": meta, "spec": {"containers": [{"name": "main"}]}, "status": {"phase": "Pending", **status}}


class Server:
    """One pod: patches of its status must carry its resourceVersion."""

    def __init__(self, now: Object) -> None:
        self.pod = now
        self.written: list[dict[str, Any]] = []

    async def patch(self, _: Any, name: str, patch: Any, *__: Any, **___: Any) -> Object:
        if patch["metadata"]["resourceVersion"] != self.pod["metadata"]["resourceVersion"]:
            raise modified("", "pods", name)
        self.written.append(patch["status"])
        return self.pod

    async def get(self, *_: Any) -> Object:
        return self.pod


def running() -> PodState:
    init, main = containers_of(pod("1"))
    main[0].start(NOW)
    return PodState(init, main, NOW)


async def write(server: Server, seen: Object, state: PodState) -> bool:
    client: Any = server
    return await write_status(client, seen, lambda current: pod_status(current, state, NOW + 9))


@pytest.mark.parametrize("deaf", [True, False])
async def test_a_node_that_was_cut_off_does_not_bring_a_pod_back_to_life(deaf: bool) -> None:
    server = Server(pod("2", phase="Failed", reason="NodeLost"))
    assert await write(server, pod("1") if deaf else server.pod, running())
    assert server.written == []


async def test_what_has_not_ended_is_written_after_a_conflict() -> None:
    server = Server(pod("2"))
    assert await write(server, pod("1"), running())
    assert [status["phase"] for status in server.written] == ["Running"]


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
async def test_the_end_that_was_written_first_counts_and_the_containers_are_told(phase: str) -> None:
    server = Server(pod("2", phase=phase))
    state = running()
    state.final = True
    state.main[0].end(Exit(0 if phase == "Failed" else 1, NOW + 5, NOW))
    assert await write(server, pod("1"), state)
    (status,) = server.written
    assert status["phase"] == phase
    assert "terminated" in status["containerStatuses"][0]["state"]
