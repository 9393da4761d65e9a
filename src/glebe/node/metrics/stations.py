"""The latest two samples of each node, taken when somebody asks and not before.

A rate needs two samples. While somebody asks again and again, the sample before is used; who asks after a long pause
waits for a second one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from glebe.kube.clock import Clock
from glebe.node.metrics.model import NodeSample

FRESH = 15.0  # seconds for which a sample is good (the metrics server's resolution)
OLD = 90.0  # seconds after which the sample before tells nothing of the present
_PAUSE = 1.0  # seconds between two samples when there was none before

Take = Callable[[], Awaitable[NodeSample]]


@dataclass(slots=True)
class Pair:
    """Two samples, the later of which is new enough."""

    before: NodeSample
    last: NodeSample


@dataclass(slots=True)
class Station:
    """One node's samples."""

    before: NodeSample | None = None
    last: NodeSample | None = None
    taken: float = -1e9
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def pair(self, take: Take, clock: Clock) -> Pair:
        """
        Whatever ``take`` raises is raised.
        """
        async with self.lock:
            now = clock.now()
            if self.before is not None and self.last is not None and 0 <= now - self.taken < FRESH:
                return Pair(self.before, self.last)
            if self.last is None or not 0 <= now - self.taken < OLD:
                self.last = await take()
                await asyncio.sleep(_PAUSE)
            elif now - self.taken < _PAUSE:
                await asyncio.sleep(_PAUSE)
            fresh = await take()
            self.before, self.last, self.taken = self.last, fresh, clock.now()
            return Pair(self.before, self.last)
