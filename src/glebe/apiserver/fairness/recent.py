"""How much work there was lately."""

from __future__ import annotations

_WINDOW = 0.5  # seconds


class Recent:
    """Work of the running window and the one before, in the cost of one GET each."""

    __slots__ = ("_before", "_now", "_until")

    def __init__(self) -> None:
        self._before = self._now = 0.0
        self._until = 0.0

    def add(self, cost: float, now: float) -> None:
        """``now`` is the loop's time."""
        if now >= self._until:
            self._before = self._now if now < self._until + _WINDOW else 0.0
            self._now = 0.0
            self._until = now + _WINDOW
        self._now += cost

    @property
    def rate(self) -> float:
        """Of up to two windows; to be compared with what was counted at the same times."""
        return self._before + self._now
