"""The queue between events and workers: of keys, not of events.

A key that is added many times before a worker takes it is worked on once. A key that is added while a worker has it
is worked on again afterwards, never at the same time. Clusters (``key.cluster``) take turns, so that one noisy
cluster cannot starve the others.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

from glebe.kube.clock import Env

K = TypeVar("K", bound=Hashable)


class QueueShutDown(Exception):
    """The queue is shut down and empty."""


class WorkQueue(Generic[K]):
    """Keys waiting for work.

    :param base_delay: seconds before the first rate-limited retry of a key; doubles with each further one.
    :param max_delay: the longest such delay.
    """

    def __init__(self, env: Env, *, base_delay: float = 0.005, max_delay: float = 60.0) -> None:
        self._rng = env.rng
        self._base = base_delay
        self._max = max_delay
        # clusters that have ready keys, in the order of their turns
        self._ready: OrderedDict[str, deque[K]] = OrderedDict()
        self._queued: set[K] = set()  # in _ready
        self._working: set[K] = set()  # taken by get() and not yet done()
        self._again: dict[K, None] = {}  # added while being worked on
        self._timers: dict[K, tuple[float, asyncio.Handle]] = {}  # and when: uvloop's shortest timers do not know
        self._failures: dict[K, int] = {}
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._idle = asyncio.Event()
        self._idle.set()
        self.shutting_down = False
        self.added = 0

    def __len__(self) -> int:
        """How many keys are ready to be taken."""
        return len(self._queued)

    @property
    def working(self) -> int:
        """How many keys workers have."""
        return len(self._working)

    @property
    def delayed(self) -> int:
        """How many keys wait for their time."""
        return len(self._timers)

    def add(self, key: K) -> None:
        """The key needs work, now."""
        if self.shutting_down or key in self._queued:
            return
        self.added += 1
        if key in self._working:
            self._again[key] = None
            return
        self._enqueue(key)

    def add_after(self, key: K, seconds: float) -> None:
        """The key needs work in ``seconds``; of several pending delays the earliest counts."""
        if self.shutting_down:
            return
        if seconds <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        when = loop.time() + seconds
        timer = self._timers.get(key)
        if timer is not None:
            if timer[0] <= when:
                return
            timer[1].cancel()
        self._timers[key] = when, loop.call_at(when, self._due, key)

    def add_rate_limited(self, key: K) -> None:
        """The key's work failed: again after a delay that grows with each failure until :meth:`forget`."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(self._base * 2.0 ** min(failures, 60), self._max)
        self.add_after(key, delay * (1.0 + 0.1 * self._rng.random()))

    def forget(self, key: K) -> None:
        """The key's work succeeded: its next failure starts with the shortest delay."""
        self._failures.pop(key, None)

    def failures(self, key: K) -> int:
        """How many rate-limited retries the key had since it was last forgotten."""
        return self._failures.get(key, 0)

    async def get(self) -> K:
        """Take the next key; it must be given back with :meth:`done`.

        :raises QueueShutDown: shut down, and nothing is left.
        """
        while not self._queued:
            if self.shutting_down:
                raise QueueShutDown
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake()  # it was this worker's turn: pass it on
                elif waiter in self._waiters:
                    self._waiters.remove(waiter)
                raise
        return self._take()

    def done(self, key: K) -> None:
        """The worker has finished with the key; if it was added meanwhile, it is ready again."""
        self._working.discard(key)
        if key in self._again:
            del self._again[key]
            self._enqueue(key)
        elif not self._working and not self._queued:
            self._idle.set()

    def shutdown(self) -> None:
        """Take no more keys and drop the delayed ones. What is ready may still be got."""
        self.shutting_down = True
        for _, timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        while self._waiters:
            self._wake()

    async def drained(self) -> None:
        """Wait until nothing is ready and no worker has a key (delayed keys do not count)."""
        await self._idle.wait()

    def _due(self, key: K) -> None:
        del self._timers[key]
        self.add(key)

    def _enqueue(self, key: K) -> None:
        self._queued.add(key)
        self._idle.clear()
        cluster = getattr(key, "cluster", "")
        turn = self._ready.get(cluster)
        if turn is None:
            turn = self._ready[cluster] = deque()
        turn.append(key)
        self._wake()

    def _take(self) -> K:
        cluster, turn = next(iter(self._ready.items()))
        key = turn.popleft()
        if turn:
            self._ready.move_to_end(cluster)
        else:
            del self._ready[cluster]
        self._queued.discard(key)
        self._working.add(key)
        return key

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
