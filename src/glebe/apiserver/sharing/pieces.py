"""Big work in pieces: a little of anybody's in each turn of the loop, the clusters in turn.

Long lists, the beginnings of watches, events for many watchers and the ends of many writes are cut into pieces that
each take well under a millisecond, smaller ones while several clusters ask. Whoever asks for something small meanwhile
waits for one piece and not for all of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from weakref import WeakKeyDictionary

from glebe.apiserver.sharing.courtesy import Courtesy, courtesy

Job = Callable[[], None]

_BYTES, _FEW_BYTES = 256 * 1024, 64 * 1024
"""About what one piece copies or encrypts; and in company."""
_OBJECTS, _FEW_OBJECTS = 100, 12
"""How many objects one piece looks at; and in company."""
_JOBS, _FEW_PUSHES, _FEW_ENDS = 16, 1, 4
"""So many small jobs are done in one turn; and in company."""


class Line:
    """Jobs that wait in one loop: ``most`` in each turn, ``few`` in company, the clusters in turn.

    A job must not raise.
    """

    def __init__(self, manners: Courtesy, most: int, few: int) -> None:
        self._manners = manners
        self._most, self._few = most, few
        self._lines: dict[str, deque[Job]] = {}
        self._turning = self._resting = False

    def add(self, cluster: str, job: Job) -> None:
        """Have ``job`` done soon."""
        line = self._lines.get(cluster)
        if line is None:
            line = self._lines[cluster] = deque()
        line.append(job)
        if not self._turning:
            self._begin()
        elif self._resting and not self._manners.holds(cluster):
            self._go_on()

    def _begin(self) -> None:
        self._turning = True
        self._manners.busy += 1
        asyncio.get_running_loop().call_soon(self._turn)

    def _go_on(self) -> None:
        if self._resting:
            self._resting = False
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        lines, manners = self._lines, self._manners
        if not lines:
            self._turning = False
            manners.busy -= 1
            return
        left = self._few if manners.company else self._most
        clusters = [each for each in lines if not manners.holds(each)]
        if not clusters:
            self._resting = True
            manners.afterwards(self._go_on)
            return
        asyncio.get_running_loop().call_soon(self._turn)
        chosen = clusters[:left]
        for position, cluster in enumerate(chosen):
            left -= self._some(cluster, max(1, left // (len(chosen) - position)))

    def _some(self, cluster: str, share: int) -> int:
        """Up to ``share`` jobs of the cluster, which then stands behind the others; how many there were."""
        line = self._lines.pop(cluster)
        number = min(share, len(line))
        for _ in range(number):
            line.popleft()()
        if line:
            newer = self._lines.get(cluster)  # what the jobs themselves have added
            if newer is not None:
                line.extend(newer)
                del self._lines[cluster]
            self._lines[cluster] = line
        return number


class Pieces(Line):
    """Pieces of big work: one in each turn."""

    def __init__(self, manners: Courtesy) -> None:
        super().__init__(manners, 1, 1)

    @property
    def bytes(self) -> int:
        """How many one piece should copy or encrypt."""
        return _FEW_BYTES if self._manners.company else _BYTES

    @property
    def objects(self) -> int:
        """How many one piece should look at."""
        return _FEW_OBJECTS if self._manners.company else _OBJECTS

    async def turn(self, cluster: str) -> None:
        """Return when ``cluster`` may do its next piece: at once when nobody else did one in this turn."""
        if not self._turning and not self._manners.holds(cluster):
            self._begin()
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def grant() -> None:
            if not granted.done():
                granted.set_result(None)

        self.add(cluster, grant)
        await granted


_OF_LOOPS: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[Pieces, Line, Line]] = WeakKeyDictionary()


def _of_loop() -> tuple[Pieces, Line, Line]:
    loop = asyncio.get_running_loop()
    found = _OF_LOOPS.get(loop)
    if found is None:
        manners = courtesy()
        lines = [Line(manners, _JOBS, few) for few in (_FEW_PUSHES, _FEW_ENDS)]
        found = _OF_LOOPS[loop] = (Pieces(manners), lines[0], lines[1])
    return found


def pieces() -> Pieces:
    """Those of the running loop: its time is what is shared, whatever servers run in it."""
    return _of_loop()[0]


def pushes() -> Line:
    """Writes to watchers that wait."""
    return _of_loop()[1]


def ends() -> Line:
    """Ends of writes that were committed together."""
    return _of_loop()[2]
