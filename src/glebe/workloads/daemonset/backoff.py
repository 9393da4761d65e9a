"""How long a failed daemon pod stays before it is replaced, for each set, generation and node.

1 s, doubling up to 15 minutes, forgotten after half an hour without a failure. A controller and a kubelet that rejects
its pods would otherwise keep each other busy.
"""

from __future__ import annotations

FIRST = 1.0
LONGEST = 900.0

Place = tuple[str, int, str]
"""Uid of the set, its observed generation, name of the node."""


class FailedPods:
    """In memory: after a restart every node has its first attempt again."""

    def __init__(self) -> None:
        self._delays: dict[Place, tuple[float, float]] = {}  # place -> delay, since when

    def wait(self, place: Place, now: float) -> float:
        """Seconds until the next failed pod there may be replaced."""
        delay, since = self._delays.get(place, (0.0, 0.0))
        return max(0.0, since + delay - now)

    def failed(self, place: Place, now: float) -> None:
        """A failed pod is being replaced there."""
        delay, since = self._delays.get(place, (0.0, 0.0))
        again = delay and now - since <= 2 * LONGEST
        self._delays[place] = (min(delay * 2, LONGEST) if again else FIRST, now)

    def forget(self, now: float) -> None:
        """Drop what is too long ago to matter."""
        self._delays = {p: (d, at) for p, (d, at) in self._delays.items() if now - at <= 2 * LONGEST}

    def __len__(self) -> int:
        return len(self._delays)
