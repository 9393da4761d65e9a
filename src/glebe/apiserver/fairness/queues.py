"""Fair queues within fair queues: start-time fair queueing (Goyal, Vin, Cheng 1997) at every level of a tree.

Each child has a tag, the virtual time at which its next work starts. The child with the lowest goes next and its tag
moves by cost over weight; who comes back after a rest starts at the present, so that nobody saves up a claim.
"""

from __future__ import annotations

import asyncio
from collections import deque
from heapq import heappop, heappush, heapreplace

WAITING, STARTED, REFUSED = range(3)


class Waiter:
    """A request that waits for its turn."""

    __slots__ = ("cost", "future", "seats", "state")

    def __init__(self, future: asyncio.Future[None], cost: float, seats: int) -> None:
        self.future = future
        self.cost = cost
        self.seats = seats
        self.state = WAITING


_NOBODY: deque[Waiter] = deque(maxlen=0)


class Fair:
    """A node whose children take turns. A leaf holds waiters instead of children.

    ``live`` counts the waiters below that have not given up.
    """

    __slots__ = ("_heap", "_now", "_order", "active", "key", "live", "queue", "tag", "weight")

    def __init__(self, key: object = None, weight: float = 1.0, *, leaf: bool = False) -> None:
        self.key = key
        self.weight = weight
        self.tag = 0.0
        self.active = False
        """It stands in its parent's order."""
        self.live = 0
        self.queue: deque[Waiter] = deque() if leaf else _NOBODY  # even an empty one takes 0.6 KiB
        self._heap: list[tuple[float, int, Fair]] = []
        self._now = 0.0
        self._order = 0

    @property
    def now(self) -> float:
        """The virtual time: the tag of what started last."""
        return self._now

    def add(self, child: Fair) -> None:
        """``child`` has something to do from now on."""
        if not child.active:
            child.active = True
            if child.tag < self._now:
                child.tag = self._now
            self._order += 1
            heappush(self._heap, (child.tag, self._order, child))

    def head(self) -> Fair | None:
        """The child whose turn it is."""
        return self._heap[0][2] if self._heap else None

    def charge(self, cost: float, more: bool) -> None:
        """The head did something; ``more``: it has more to do."""
        tag, _, child = self._heap[0]
        self._now = tag
        child.tag = tag + cost / child.weight
        if more:
            self._order += 1
            heapreplace(self._heap, (child.tag, self._order, child))
        else:
            self.leave()

    def leave(self) -> None:
        """The head cannot do anything for now."""
        heappop(self._heap)[2].active = False

    def spend(self, child: Fair, cost: float) -> None:
        """``child``, which does not wait, did something without waiting."""
        start = child.tag if child.tag > self._now else self._now
        if not self._heap:
            self._now = start
        child.tag = start + cost / child.weight
