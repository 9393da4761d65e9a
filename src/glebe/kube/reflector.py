"""List, then watch, for ever: a faithful copy of one collection, whatever the connection does.

The reflector lists consistently (in pages), watches from the list's revision, follows bookmarks, and after a broken
or silent watch resumes from the last revision it saw. Only when the server has forgotten that revision (410), or
refuses the watch for another reason, does it list again; what vanished in between is reported as deleted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from glebe.kube.backoff import Backoff
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object, cluster_of
from glebe.kube.resources import Resource
from glebe.kube.transport import ConnectionLost
from glebe.kube.wire import Selectors, WatchEvent

log = logging.getLogger("glebe.kube.reflector")

_BATCH = 256  # events after which others may run
_TURN = 0.004  # seconds, likewise


class Sink(Protocol):
    """Where a reflector puts what it sees. Must not raise."""

    def replace(self, items: list[Object]) -> None:
        """The whole collection, as of now."""
        ...

    def upsert(self, obj: Object) -> None: ...

    def remove(self, obj: Object) -> None: ...

    def forget(self, cluster: str, limit: int) -> bool:
        """Drop up to ``limit`` objects of a logical cluster that is gone; whether there are more."""
        ...


@dataclass(slots=True)
class ReflectorStats:
    """Counters since the start."""

    lists: int = 0
    watches: int = 0
    events: int = 0
    bookmarks: int = 0
    restarts: int = 0  # lists after the first: resumption was not possible
    failures: int = 0  # refused or broken lists and watches
    dead: int = 0  # watches given up because nothing came


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. ``silence`` must exceed the server's interval between bookmarks (a minute upstream)."""

    watch_min: float = 300.0
    watch_max: float = 600.0
    silence: float = 150.0
    backoff_initial: float = 0.2
    backoff_max: float = 30.0
    healthy: float = 1.0  # a watch that lived this long was no failure


class _Relist(Exception):
    """The watch cannot be resumed."""


class Reflector:
    """Keeps ``sink`` equal to a collection. One ``run`` at a time."""

    def __init__(
        self,
        client: Client,
        resource: Resource,
        env: Env,
        sink: Sink,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        timing: Timing | None = None,
        page_size: int = 500,
        on_error: Callable[[Exception], None] | None = None,
    ) -> None:
        self._client = client
        self._resource = resource
        self._env = env
        self._sink = sink
        self._namespace = namespace
        self._selectors = Selectors(label_selector=label_selector, field_selector=field_selector)
        self._timing = timing or Timing()
        self._page_size = page_size
        self._on_error = on_error
        self._backoff = Backoff(env.rng, self._timing.backoff_initial, self._timing.backoff_max)
        self._last_problem = ""
        self.version = ""
        self.stats = ReflectorStats()

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            try:
                await self._list()
                while True:
                    await self._watch()
            except _Relist:
                continue
            except (ApiError, ConnectionLost, TimeoutError) as error:
                await self._pause(error)
            except Exception as error:  # an object that is none: a server's fault must not end the copy
                log.exception("%s: unexpected failure", self._name)
                await self._pause(error, quiet=True)

    async def _list(self) -> None:
        self.stats.lists += 1
        if self.stats.lists > 1 and self.version:
            self.stats.restarts += 1
        page = await self._client.list_all(
            self._resource, self._namespace, page_size=self._page_size, **self._selectors
        )
        self.version = page.resource_version
        self._sink.replace(page.items)
        self._recovered()

    async def _watch(self) -> None:
        """One watch, from start to end. Returns when the next one may start from ``self.version``.

        :raises _Relist: it may not.
        """
        loop = asyncio.get_running_loop()
        began, before = loop.time(), self.version
        self.stats.watches += 1
        try:
            await self._follow()
            problem: Exception | None = None
        except ApiError as error:
            if error.code == 410:
                log.debug("%s: the server forgot revision %s: listing again", self._name, self.version)
                problem = error
            elif error.code == 429 or error.code >= 500:
                problem = error
            else:
                raise
        except (ConnectionLost, TimeoutError) as error:
            problem = error
        if loop.time() - began >= self._timing.healthy or self.version != before:
            self._backoff.reset()
            if problem is None:
                return
        gone = isinstance(problem, ApiError) and problem.code == 410
        await self._pause(problem, quiet=gone)
        if gone:
            raise _Relist

    async def _follow(self) -> None:
        timing, rng = self._timing, self._env.rng
        duration = timing.watch_min + (timing.watch_max - timing.watch_min) * rng.random()
        loop = asyncio.get_running_loop()
        armed = turn = loop.time()
        stream = self._client.watch(
            self._resource,
            self._namespace,
            resource_version=self.version,
            timeout=duration,
            **self._selectors,
        )
        try:
            async with asyncio.timeout_at(armed + timing.silence) as watchdog, aclosing(stream) as events:
                async for event in events:
                    if event.type == "DROPPED":
                        await self._drop(event.object)
                    else:
                        self._take(event)
                    now = loop.time()
                    if now - turn > _TURN or self.stats.events % _BATCH == 0:
                        await asyncio.sleep(0)  # a stream that always has more ready never gives way
                        turn = now = loop.time()
                    if now - armed > timing.silence / 8:  # not at each event: re-arming costs a timer
                        armed = now
                        watchdog.reschedule(armed + timing.silence)
        except TimeoutError:
            self.stats.dead += 1
            raise TimeoutError(f"nothing came for {timing.silence:.0f} s") from None

    def _take(self, event: WatchEvent) -> None:
        obj = event.object
        version = obj.get("metadata", {}).get("resourceVersion")
        match event.type:
            case "MODIFIED" | "ADDED":
                self._sink.upsert(obj)
            case "DELETED":
                self._sink.remove(obj)
            case "BOOKMARK":
                self.stats.bookmarks += 1
            case _:
                log.warning("%s: unknown watch event %r ignored", self._name, event.type)
        self.stats.events += 1
        if version:
            self.version = version

    async def _drop(self, mark: Object) -> None:
        """A whole logical cluster is gone. However much it held, others get their turn in between."""
        self.stats.events += 1
        more = True
        while more:
            more = self._sink.forget(cluster_of(mark), _BATCH)
            await asyncio.sleep(0)
        self.version = mark["metadata"]["resourceVersion"]

    async def _pause(self, problem: Exception | None, *, quiet: bool = False) -> None:
        self.stats.failures += 1
        delay = self._backoff.next()
        text = str(problem) if problem else "the watch ended at once"
        if text != self._last_problem and not quiet:  # once per change, not once per attempt
            self._last_problem = text
            log.warning("%s: %s; trying again in %.1f s", self._name, text, delay)
        if problem is not None and self._on_error is not None:
            self._on_error(problem)
        await asyncio.sleep(delay)

    def _recovered(self) -> None:
        if self._last_problem:
            log.info("%s: recovered", self._name)
            self._last_problem = ""

    @property
    def _name(self) -> str:
        where = f"{self._client.cluster}/" if self._client.cluster else ""
        return where + self._resource.group_resource
