"""History grows old: what is more than an interval or two in the past is forgotten, however little has happened since.

Upstream compacts its etcd every five minutes; clients rely on it that lists which they began long ago expire, and that
a server does not keep yesterday's states in memory. Bounds by number and bytes (:mod:`.history`) come on top.
"""

from __future__ import annotations

import asyncio
import contextlib

from glebe.apiserver.store.base import Store

#: Seconds. History reaches back one interval at least, two at most.
INTERVAL = 300.0


class Ageing:
    """Compacts ``store`` regularly while it runs."""

    def __init__(self, store: Store, interval: float = INTERVAL) -> None:
        self._store = store
        self._interval = interval
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; harmless when it runs."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="history grows old")

    async def close(self) -> None:
        """Stop."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        seen = self._store.revision
        while True:
            await asyncio.sleep(self._interval)
            self._store.compact(seen)
            seen = self._store.revision
