"""Keeps a mirror up with etcd: loads it, follows the watch, starts anew where the watch cannot go on."""

from __future__ import annotations

import asyncio
import logging
from base64 import b64decode
from collections.abc import Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from glebe.apiserver.store.base import Key, StoreUnavailable
from glebe.apiserver.store.etcd.gateway import Gateway, Json, b64, revision_of
from glebe.apiserver.store.etcd.layout import TICK, Layout

log = logging.getLogger("glebe.apiserver.store")

_PAGE = 1000
_PAUSES = (0.02, 0.1, 0.3, 1.0)
"""Seconds before the next attempt to watch."""


@dataclass(frozen=True, slots=True)
class Change:
    """One key's part in a revision. ``key`` is bytes for the store's own keys; ``value`` None: deleted."""

    key: Key | bytes
    value: bytes | None


Apply = Callable[[int, list[Change]], None]
"""Told of each revision with all that changed in it; or of a revision up to which nothing (more) changed: []."""
Item = tuple[Key, int, bytes]
Replace = Callable[[list[Item], int], None]
"""Told of the whole state as of a revision, when the watch cannot tell what happened since."""


class _TooOld(Exception):
    """etcd no longer knows what followed our revision."""


class Feed:
    """One task that follows etcd."""

    def __init__(self, gateway: Gateway, layout: Layout, apply: Apply, replace: Replace) -> None:
        self._gateway = gateway
        self._layout = layout
        self._apply = apply
        self._replace = replace
        self._revision = 0
        self._task: asyncio.Task[None] | None = None
        self._stream: asyncio.Task[None] | None = None
        self.failure = ""
        """Why the watch does not run; "" while it does."""

    async def start(self) -> None:
        """Load everything, then follow.

        :raises StoreUnavailable: etcd cannot be read.
        """
        await self._load()
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        for task in (self._stream, self._task):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def reconnect(self) -> None:
        """The watch seems dead: try another connection."""
        if self._stream is not None:
            self._stream.cancel()

    async def _load(self) -> None:
        """All objects as of one revision, page by page."""
        items: list[Item] = []
        revision, start = 0, self._layout.start
        while True:
            body: Json = {"key": b64(start), "range_end": b64(self._layout.end), "limit": str(_PAGE)}
            if revision:
                body["revision"] = str(revision)
            answer = await self._gateway.read("/kv/range", body)
            revision = revision or revision_of(answer)
            found = answer.get("kvs", ())
            for kv in found:
                key = self._layout.parse(b64decode(kv["key"]))
                if isinstance(key, Key):
                    items.append((key, int(kv["mod_revision"]), b64decode(kv.get("value", ""))))
            if not answer.get("more"):
                break
            start = b64decode(found[-1]["key"]) + b"\0"
            await asyncio.sleep(0)
        self._revision = revision
        self._replace(items, revision)

    async def _run(self) -> None:
        attempt = 0
        while True:
            before = self._revision
            self._stream = asyncio.create_task(self._follow())
            try:
                await asyncio.wait([self._stream])
            except asyncio.CancelledError:
                self._stream.cancel()
                raise
            error = None if self._stream.cancelled() else self._stream.exception()
            if isinstance(error, _TooOld):
                error = await self._reload()
            if error is not None:
                if not isinstance(error, StoreUnavailable):
                    log.error("the watch at etcd failed", exc_info=error)
                elif not self.failure:
                    log.warning("%s; trying again", error)
                self.failure = str(error) or type(error).__name__
            self._gateway.turn()
            moved = error is None or self._revision > before
            attempt = 0 if moved else min(attempt + 1, len(_PAUSES) - 1)
            await asyncio.sleep(_PAUSES[attempt])

    async def _reload(self) -> BaseException | None:
        log.warning("etcd does not know what followed revision %d any more: reading everything anew", self._revision)
        try:
            await self._load()
        except Exception as error:  # whatever it is: this task must go on, and say so
            return error
        return None

    async def _follow(self) -> None:
        layout = self._layout
        results = self._gateway.watch(layout.start, layout.end, self._revision + 1)
        async with aclosing(results) as stream:  # type: ignore[type-var]
            async for result in stream:
                self.failure = ""
                if result.get("canceled"):
                    if int(result.get("compact_revision", 0)) > self._revision:
                        raise _TooOld
                    raise StoreUnavailable(f"etcd ended the watch: {result.get('cancel_reason', 'no reason given')}")
                events = result.get("events")
                if events:
                    self._take(events)
                elif result.get("created"):
                    await self._check_continuity(revision_of(result))
                else:
                    # A progress notice: everything up to here was delivered.
                    self._advance(revision_of(result), [])

    async def _check_continuity(self, revision: int) -> None:
        """An etcd that was put back to an older state has yet to reach our revision: it would stay silent until then.

        :raises _TooOld: so it is. (A member that is merely behind the others is not.)
        """
        if revision < self._revision:
            key = {"key": b64(self._layout.own(TICK)), "keys_only": True}
            if revision_of(await self._gateway.read("/kv/range", key)) < self._revision:
                raise _TooOld

    def _take(self, events: Iterable[Any]) -> None:
        """Hand on the events, those of one revision together (etcd never splits a revision)."""
        current = 0
        changes: list[Change] = []
        for event in events:
            kv = event["kv"]
            revision = int(kv["mod_revision"])
            if revision != current:
                if changes:
                    self._advance(current, changes)
                current, changes = revision, []
            value = None if event.get("type") == "DELETE" else b64decode(kv.get("value", ""))
            changes.append(Change(self._layout.parse(b64decode(kv["key"])), value))
        self._advance(current, changes)

    def _advance(self, revision: int, changes: list[Change]) -> None:
        if revision > self._revision:  # a new stream may repeat what the last one brought
            self._apply(revision, changes)
            self._revision = revision
