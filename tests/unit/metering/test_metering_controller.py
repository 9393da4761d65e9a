"""The ledger's controller against the real API server, under virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from glebe import metering
from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env, format_time
from glebe.kube.crdgen import custom_resource_definition
from glebe.kube.informer import Informers
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.resources import CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, NODES, PODS, USAGE_REPORTS
from glebe.metering import report
from glebe.metering.intervals import DAY
from glebe.metering.kinds import KINDS
from glebe.metering.ledger import Ledger


class World:
    def __init__(self, ledger: Path | None) -> None:
        self.env = Env.seeded(1)
        self.server = ApiServer(MemoryStore(), self.env, TypeRegistry())
        self.client = Client(InProcessTransport(self.server.handle))
        self.ledger = ledger

    async def begin(self) -> None:
        await self.server.start()
        with contextlib.suppress(Exception):
            await self.client.create(
                NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}
            )
        for kind in KINDS:
            await self.client.create(CUSTOM_RESOURCE_DEFINITIONS, custom_resource_definition(kind))

    def start(self) -> asyncio.Task[None]:
        informers = self.informers = Informers(self.client, self.env)

        async def run() -> None:
            (controller,) = metering.controllers(self.client, informers, self.env, self.ledger)
            async with asyncio.TaskGroup() as group:
                informers.start(group)
                group.create_task(controller.run())

        return asyncio.create_task(run())

    async def node(self, name: str, gpus: int) -> None:
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": format_time(self.env.clock.now())}
        status = {"capacity": {"nvidia.com/gpu": str(gpus)}, "conditions": [ready]}
        await self.client.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
        await self.client.patch(NODES, name, {"status": status}, subresource="status")

    async def ready(self, name: str, status: str) -> None:
        ready = {"type": "Ready", "status": status, "lastTransitionTime": format_time(self.env.clock.now())}
        await self.client.patch(NODES, name, {"status": {"conditions": [ready]}}, subresource="status")

    async def pod(self, name: str, node: str, gpus: int) -> None:
        container = {"name": "c", "image": "i", "resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}
        meta = {"name": name, "namespace": "default", "labels": {"kueue.x-k8s.io/queue-name": "q"}}
        spec = {"containers": [container], "nodeName": node, "restartPolicy": "Never"}
        await self.client.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
        await self.status(name, {"phase": "Running", "startTime": format_time(self.env.clock.now())})

    async def finish(self, name: str) -> None:
        state = {"terminated": {"exitCode": 0, "finishedAt": format_time(self.env.clock.now())}}
        status = {"name": "c", "image": "", "imageID": "", "ready": False, "restartCount": 0, "state": state}
        await self.status(name, {"phase": "Succeeded", "containerStatuses": [status]})

    async def status(self, name: str, status: dict[str, Any]) -> None:
        await self.client.patch(PODS, name, {"status": status}, "default", subresource="status")

    async def usage(self) -> report.Usage:
        reports = await self.client.list_all(USAGE_REPORTS)
        return report.at(reports.items, self.env.clock.now())


async def stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def story(w: World, *, restart: bool) -> None:
    await w.begin()
    task = w.start()
    await w.node("a", 8)
    await asyncio.sleep(100)
    await w.pod("p", "a", 4)
    await asyncio.sleep(50)
    if restart:
        await stop(task)
    await asyncio.sleep(10)
    await w.finish("p")
    await asyncio.sleep(10)
    if restart:
        task = w.start()
    await asyncio.sleep(30)
    await w.ready("a", "Unknown")
    await asyncio.sleep(20)
    usage = await w.usage()
    assert (usage.owned_gpu_seconds, usage.allocated_gpu_seconds, usage.unhealthy_gpu_seconds) == (1760, 240, 160)
    assert usage.idle_gpu_seconds == 1760 - 240 - 160
    (row,) = usage.rows
    assert (row.namespace, row.queue, row.gpu_seconds, row.gpus, row.workloads) == ("default", "q", 240, 0, 1)
    await stop(task)


async def test_usage_is_exact_without_periodic_writes() -> None:
    w = World(None)
    await story(w, restart=False)
    first = (await w.client.list_all(USAGE_REPORTS)).resource_version
    task = w.start()
    await asyncio.sleep(10_000)
    writes = int((await w.client.list_all(USAGE_REPORTS)).resource_version) - int(first)
    assert writes <= 1
    assert (await w.usage()).owned_gpu_seconds == 8 * (220 + 10_000)
    await stop(task)


async def test_a_restart_continues_from_the_ledger_file(tmp_path: Path) -> None:
    await story(World(tmp_path / "ledger.db"), restart=True)


async def test_a_restart_without_a_ledger_continues_from_the_report() -> None:
    await story(World(None), restart=True)


async def test_the_day_rolls_over() -> None:
    w = World(None)
    await w.begin()
    task = w.start()
    await w.node("a", 8)
    await w.pod("p", "a", 3)
    await asyncio.sleep(DAY + 500)
    reports = (await w.client.list_all(USAGE_REPORTS)).items
    assert [r["metadata"]["name"] for r in reports] == ["usage-2026-01-01", "usage-2026-01-02"]
    assert reports[0]["status"]["ownedGpus"] == 0
    assert reports[0]["status"]["ownedGpuSeconds"] == 8 * DAY
    usage = await w.usage()
    assert (usage.owned_gpu_seconds, usage.allocated_gpu_seconds) == (8 * (DAY + 500), 3 * (DAY + 500))
    await stop(task)


async def test_vanished_pods_and_nodes_end() -> None:
    w = World(None)
    await w.begin()
    task = w.start()
    await w.node("a", 8)
    await w.pod("p", "a", 3)
    await asyncio.sleep(10)
    await w.client.delete(PODS, "p", "default", grace_period=0)
    await asyncio.sleep(10)
    await w.client.delete(NODES, "a")
    await asyncio.sleep(10)
    usage = await w.usage()
    assert (usage.owned_gpu_seconds, usage.allocated_gpu_seconds, usage.owned_gpus) == (160, 30, 0)
    await stop(task)


async def test_an_end_that_was_not_seen_is_estimated(tmp_path: Path) -> None:
    w = World(tmp_path / "ledger.db")
    await w.begin()
    task = w.start()
    await w.node("a", 8)
    for name in ("seen", "missed"):
        await w.pod(name, "a", 2)
    await asyncio.sleep(10)
    await w.client.delete(PODS, "seen", "default", grace_period=0)
    await asyncio.sleep(10)
    w.informers.get(PODS).replace([])  # the watch was deaf, and the next list does not have it
    await asyncio.sleep(10)
    await stop(task)
    ledger = Ledger(tmp_path / "ledger.db")
    found = {e.pod: (e.estimated, (e.allocation.end or 0) - e.allocation.start) for e in ledger.allocations(0)}
    ledger.close()
    assert found == {"seen": (False, 10), "missed": (True, 20)}
