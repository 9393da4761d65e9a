"""A small world for node tests: the real API server in memory, and helpers to make and await pods."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import Object
from glebe.kube.resources import NAMESPACES, PODS


class World:
    def __init__(self, env: Env) -> None:
        self.env = env
        self.server = ApiServer(MemoryStore(), env, TypeRegistry())
        self.client = Client(InProcessTransport(self.server.handle))
        self._tasks: list[asyncio.Task[Any]] = []

    def spawn(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(work)
        self._tasks.append(task)
        return task

    async def stop(self, task: asyncio.Task[Any]) -> None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def pod(self, name: str, node: str, annotations: dict[str, str] | None = None, **spec: Any) -> Object:
        """Create a pod that is bound already."""
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "annotations": annotations or {}},
            "spec": {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never", "nodeName": node, **spec},
        }
        return await self.client.create(PODS, body)

    async def get(self, name: str) -> Object:
        return await self.client.get(PODS, name, "default")

    async def until(self, what: Callable[[], Any], *, timeout: float = 1000.0, every: float = 0.05) -> Any:
        """Poll an async condition until it gives something true."""
        async with asyncio.timeout(timeout):
            while True:
                value = await what()
                if value:
                    return value
                await asyncio.sleep(every)

    async def until_phase(self, name: str, phase: str, **options: Any) -> Object:
        async def reached() -> Object | None:
            pod = await self.get(name)
            return pod if (pod.get("status") or {}).get("phase") == phase else None

        return await self.until(reached, **options)


@contextlib.asynccontextmanager
async def world(env: Env | None = None) -> AsyncIterator[World]:
    made = World(env or Env.seeded(1))
    await made.server.start()
    for name in ("default", "kube-node-lease"):
        with contextlib.suppress(Exception):
            await made.client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    try:
        yield made
    finally:
        for task in made._tasks:
            task.cancel()
        results = await asyncio.gather(*made._tasks, return_exceptions=True)
        await made.server.close()
        for result in results:
            if isinstance(result, Exception):
                raise result
