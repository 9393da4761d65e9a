"""Big work in pieces: one piece of anybody's in each turn of the loop, the clusters in turn.

Long lists, the beginnings of watches and events for many watchers are cut into pieces that each take well under a
millisecond. Whoever asks for something small meanwhile waits for one piece and not for all of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from weakref import WeakKeyDictionary

BYTES = 256 * 1024
"""About what one piece should copy or encrypt."""
OBJECTS = 100
"""How many objects one piece should look at."""
_PUSHES = 16
"""So many watchers are written to in one turn."""

Job = Callable[[], None]


class Pieces:
    """The pieces that wait in one loop."""

    def __init__(self) -> None:
        self._jobs: dict[str, deque[Job]] = {}
        self._turning = False

    async def turn(self, cluster: str) -> None:
        """Return when ``cluster`` may do its next piece: at once when nobody else did one in this turn."""
        loop = asyncio.get_running_loop()
        if not self._turning:
            self._turning = True
            loop.call_soon(self._next, loop)
            return
        granted: asyncio.Future[None] = loop.create_future()

        def grant() -> None:
            if not granted.done():
                granted.set_result(None)

        self._line(cluster, grant)
        await granted

    def _line(self, cluster: str, job: Job) -> None:
        line = self._jobs.get(cluster)
        if line is None:
            line = self._jobs[cluster] = deque()
        line.append(job)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        jobs = self._jobs
        if not jobs:
            self._turning = False
            return
        cluster, line = next(iter(jobs.items()))
        del jobs[cluster]
        job = line.popleft()
        if line:
            jobs[cluster] = line  # behind the others
        loop.call_soon(self._next, loop)
        job()


class Pushes:
    """Writes to watchers that wait in one loop: a few in each turn, the clusters in turn."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[Job]] = {}
        self._turning = False

    def add(self, cluster: str, job: Job) -> None:
        """Have ``job`` done soon; it must not raise."""
        line = self._lines.get(cluster)
        if line is None:
            line = self._lines[cluster] = deque()
        line.append(job)
        if not self._turning:
            self._turning = True
            loop = asyncio.get_running_loop()
            loop.call_soon(self._next, loop)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        lines = self._lines
        left = _PUSHES
        while lines and left:
            share = max(1, left // len(lines))
            for cluster in list(lines)[:left]:
                line = lines.pop(cluster)
                for _ in range(min(share, len(line))):
                    left -= 1
                    line.popleft()()
                if line:
                    lines[cluster] = line
        if lines:
            loop.call_soon(self._next, loop)
        else:
            self._turning = False


_OF_LOOPS: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[Pieces, Pushes]] = WeakKeyDictionary()


def _of_loop() -> tuple[Pieces, Pushes]:
    loop = asyncio.get_running_loop()
    found = _OF_LOOPS.get(loop)
    if found is None:
        found = _OF_LOOPS[loop] = (Pieces(), Pushes())
    return found


def pieces() -> Pieces:
    """Those of the running loop: its time is what is shared, whatever servers run in it."""
    return _of_loop()[0]


def pushes() -> Pushes:
    """Those of the running loop."""
    return _of_loop()[1]
