"""Who asks for little goes first: while its request is in progress, what others have waiting rests.

The work of one turn of the loop is small, but a request takes several turns, and a loud cluster has something for each.
So a cluster that takes a small part of the server has the turns of its request to itself: for a few milliseconds at
most, and for a part of the time, which bounds what the others lose.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from weakref import WeakKeyDictionary

COMPANY_SECONDS = 1.0
"""For so long after two clusters asked, work is cut small."""
_LONGEST = 0.003
"""Seconds that one request is waited for."""
_PART, _SAVED = 0.3, 0.02
"""Of the time; and how many seconds of it may come together."""


class Courtesy:
    """Of one loop."""

    def __init__(self) -> None:
        self.shared_at = -COMPANY_SECONDS
        """When two clusters asked one after the other."""
        self.busy = 0
        """How many kinds of work have something waiting."""
        self.guests: dict[str, int] = {}
        """Clusters that others wait for, and their requests in progress."""
        self._since = 0.0
        self._credit, self._credited = _SAVED, 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._resting: list[Callable[[], None]] = []

    @property
    def company(self) -> bool:
        """Several clusters ask these days."""
        return asyncio.get_running_loop().time() - self.shared_at < COMPANY_SECONDS

    def holds(self, cluster: str) -> bool:
        """Should ``cluster`` wait for a guest?"""
        return bool(self.guests) and cluster not in self.guests

    def begin(self, cluster: str, now: float) -> None:
        """A request of ``cluster``, which asks for little, starts while others are busy."""
        guests = self.guests
        if not guests:
            self._credit = min(_SAVED, self._credit + (now - self._credited) * _PART)
            self._credited = now
            if self._credit <= 0:
                return
            self._since = now
            self._timer = asyncio.get_running_loop().call_later(_LONGEST, self._over)
        guests[cluster] = guests.get(cluster, 0) + 1

    def end(self, cluster: str) -> None:
        """A request of ``cluster`` has ended."""
        left = self.guests.get(cluster)
        if left is None:
            return
        if left > 1:
            self.guests[cluster] = left - 1
            return
        del self.guests[cluster]
        if not self.guests:
            self._over()

    def afterwards(self, go_on: Callable[[], None]) -> None:
        """Call ``go_on`` when nobody has to be waited for."""
        self._resting.append(go_on)

    def _over(self) -> None:
        self.guests.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._credit -= asyncio.get_running_loop().time() - self._since
        resting, self._resting = self._resting, []
        for go_on in resting:
            go_on()


_OF_LOOPS: WeakKeyDictionary[asyncio.AbstractEventLoop, Courtesy] = WeakKeyDictionary()


def courtesy() -> Courtesy:
    """That of the running loop: its time is what is shared, whatever servers run in it."""
    loop = asyncio.get_running_loop()
    found = _OF_LOOPS.get(loop)
    if found is None:
        found = _OF_LOOPS[loop] = Courtesy()
    return found
