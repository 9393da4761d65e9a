"""Events in a flood are written late, not lost, and not all at once."""

from __future__ import annotations

import asyncio
from typing import Any

from glebe.kube.clock import Env
from glebe.queueing.round.notices import _BURST, _RATE, Notices


class Client:
    cluster = "root"

    def __init__(self) -> None:
        self.written = 0

    def at(self, cluster: str) -> Client:
        return self

    async def create(self, resource: Any, obj: Any) -> Any:
        self.written += 1
        return obj


def workload(number: int) -> dict[str, Any]:
    meta = {"name": f"w{number}", "namespace": "default", "uid": f"u{number}"}
    return {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "Workload", "metadata": meta}


async def test_a_flood_of_events_takes_its_time() -> None:
    client = Client()
    notices = Notices(client, Env.seeded(1))  # type: ignore[arg-type]
    task = asyncio.create_task(notices.controller.run())
    for number in range(_BURST + 200):
        notices.say(workload(number), "Normal", "Admitted", "it runs")
    await asyncio.sleep(0.5)
    early = client.written
    await asyncio.sleep(200 / _RATE + 1)
    task.cancel()
    assert _BURST <= early <= _BURST + 100
    assert client.written == _BURST + 200
