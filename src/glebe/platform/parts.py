"""The parts of a platform as named, restartable units.

A part is built from nothing each time it starts: its own transport, client and caches, so that stopping one at any
point and starting it again is what a crash and a restart of a process would be. The embedded platform, where parts
never crash alone, may let them share one cache.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.informer import Informers, InformersView
from glebe.kube.objects import EVERY
from glebe.kube.transport import Transport
from glebe.workloads import ROOT

log = logging.getLogger("glebe.platform")

_RESTART_SECONDS = (0.2, 1.0, 5.0, 15.0)


class Runnable(Protocol):
    """Anything that works until it is cancelled: a controller, a set of nodes."""

    def run(self) -> Awaitable[None]: ...


@dataclass(frozen=True, slots=True)
class Wiring:
    """What a part is built from."""

    client: Client
    informers: Informers
    env: Env


@dataclass(frozen=True, slots=True)
class Part:
    """``build`` makes the part's runnables anew; ``close`` frees what outlives them.

    A part that is ``everywhere`` works in all logical clusters, with one set of informers; others see the root only.
    """

    name: str
    build: Callable[[Wiring], Sequence[Runnable]]
    close: Callable[[], Awaitable[None]] | None = None
    everywhere: bool = False


class Parts:
    """Runs parts, each in a task of its own, and starts again what fails."""

    def __init__(
        self, parts: Sequence[Part], transport: Callable[[str], Transport], env: Env, *, shared_cache: bool
    ) -> None:
        self._parts = {part.name: part for part in parts}
        self._transport = transport
        self._env = env
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._shared: Informers | None = None
        self._root: Informers | None = None
        """The root cluster's part of the shared cache."""
        self._cache: asyncio.Task[None] | None = None
        if shared_cache:
            client = Client(transport("cache"), cluster=EVERY, field_manager="glebe")
            self._shared = Informers(client, env)
            self._root = InformersView(self._shared, ROOT, client.for_cluster(""))

    @property
    def names(self) -> list[str]:
        """All parts, running or not."""
        return list(self._parts)

    def running(self, name: str) -> bool:
        return name in self._tasks and not self._tasks[name].done()

    def start(self, name: str) -> None:
        """Start a part that does not run.

        :raises KeyError: there is no such part. :raises RuntimeError: it runs already.
        """
        part = self._parts[name]
        if self.running(name):
            raise RuntimeError(f"the part {name} runs already")
        if self._shared is not None and self._cache is None:
            self._cache = asyncio.create_task(self._shared.run(), name="part cache")
        self._tasks[name] = asyncio.create_task(self._supervise(part), name=f"part {name}")

    async def stop(self, name: str) -> None:
        """Cancel a part wherever it is and wait until it is gone. Harmless when it does not run."""
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def stop_all(self) -> None:
        """Stop everything, in the reverse order of the start, and free what the parts hold."""
        for name in reversed(list(self._tasks)):
            await self.stop(name)
        if self._cache is not None:
            self._cache.cancel()
            with suppress(asyncio.CancelledError):
                await self._cache
        for part in self._parts.values():
            if part.close is not None:
                await part.close()

    async def _supervise(self, part: Part) -> None:
        failures = 0
        while True:
            began = self._env.clock.now()
            try:
                await self._run(part)
                log.warning("the part %s ended by itself; it is started again", part.name)
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                failures = 0 if self._env.clock.now() - began > 60 else failures
                log.error("the part %s failed and is started again", part.name, exc_info=error)
            await asyncio.sleep(_RESTART_SECONDS[min(failures, len(_RESTART_SECONDS) - 1)])
            failures += 1

    async def _run(self, part: Part) -> None:
        transport = self._transport(part.name)
        client = Client(transport, cluster=EVERY if part.everywhere else "", field_manager=f"glebe-{part.name}")
        informers = (self._shared if part.everywhere else self._root) or Informers(client, self._env)
        try:
            runnables = part.build(Wiring(client, informers, self._env))
            async with asyncio.TaskGroup() as group:
                if self._shared is None:
                    informers.start(group)
                for runnable in runnables:
                    group.create_task(_as_coroutine(runnable))
        finally:
            await transport.close()


async def _as_coroutine(runnable: Runnable) -> None:
    await runnable.run()
