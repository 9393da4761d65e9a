"""One watcher's queue between the store and a stream."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from glebe.apiserver.store.base import Event

#: A watcher that lags this many events behind is cut off: it may resume or list again, the server must not pile up.
MAX_LAG = 20_000


class Follower:
    """Calls back for every event; see ``Store.follow``."""

    __slots__ = ("_on_close", "push")

    def __init__(self, callback: Callable[[Event], None], on_close: Callable[[Follower], None]) -> None:
        self.push = callback
        self._on_close = on_close

    def end(self, why: str) -> None:
        """The store closes, or starts anew."""

    def close(self) -> None:
        self._on_close(self)


class Subscription:
    """Events of one table, or of one resource in all clusters, in order, from a revision on.

    Must be closed by whoever opened it.
    """

    __slots__ = (
        "_deadline",
        "_loop",
        "_on_close",
        "_timer",
        "_waiter",
        "ended",
        "name",
        "namespace",
        "on_event",
        "queue",
    )

    def __init__(
        self, namespace: str, name: str, backlog: list[Event], on_close: Callable[[Subscription], None]
    ) -> None:
        self.namespace = namespace
        self.name = name
        self.queue: deque[Event] = deque(e for e in backlog if self._wants(e))
        self.ended = ""
        """Why no more events will come: slow, dropped, closed, changed (the kind), resync; "" while it runs."""
        self.on_event: Callable[[], None] | None = None
        """Called instead of waking the reader that waits, who then is a callback's business (see :meth:`wake`)."""
        self._on_close = on_close
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None

    def _wants(self, event: Event) -> bool:
        if not event.name:
            return True  # the end of a cluster concerns every wildcard watcher
        if self.namespace and event.namespace != self.namespace:
            return False
        return not self.name or event.name == self.name

    def push(self, event: Event) -> None:
        """Called by the store for every change of the table."""
        if (self.namespace or self.name) and not self._wants(event):
            return
        if len(self.queue) >= MAX_LAG:
            self.end("slow")
            return
        self.queue.append(event)
        if self.on_event is not None:
            self.on_event()
        else:
            self.wake()

    def end(self, why: str) -> None:
        """Let the reader finish what is queued and then stop."""
        if not self.ended:
            self.ended = why
            self._on_close(self)
        self.wake()

    def close(self) -> None:
        self.queue.clear()
        self.end("closed")
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def waiting(self) -> bool:
        """Is the reader in :meth:`wait`, and not woken yet?"""
        return self._waiter is not None and not self._waiter.done()

    def wake(self) -> None:
        """Let the reader go on, if it waits."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def wait(self, deadline: float) -> None:
        """Return when there is something in the queue, the subscription ended, or the loop's time is ``deadline``."""
        if self.queue or self.ended:
            return
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        if loop.time() >= deadline:
            return
        # The timer is kept across waits: arming one per event would cost more than the event.
        if self._timer is None or self._deadline > deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._deadline = deadline
            self._timer = loop.call_at(deadline, self._on_timer)
        self._waiter = loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _on_timer(self) -> None:
        self._timer = None
        self.wake()
