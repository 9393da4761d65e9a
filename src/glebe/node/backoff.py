"""CrashLoopBackOff: how long a container that ended waits for its next start."""

from __future__ import annotations

FIRST = 10.0  # seconds
LIMIT = 300.0
RESET_AFTER = 600.0  # a run this long makes the next failure the first again


class CrashLoop:
    """10 s, doubling to 5 minutes; the first restart is immediate, as the kubelet's is."""

    __slots__ = ("_delay",)

    def __init__(self) -> None:
        self._delay = 0.0

    def after(self, ran_for: float) -> float:
        """Seconds to wait after a run of ``ran_for`` seconds."""
        if ran_for >= RESET_AFTER:
            self._delay = 0.0
        wait = self._delay
        self._delay = min(max(FIRST, self._delay * 2), LIMIT)
        return wait

    def resume(self, restarts: int) -> None:
        """Continue where a container with so many restarts stood."""
        self._delay = min(FIRST * 2 ** max(0, restarts - 1), LIMIT) if restarts else 0.0


def text(delay: float) -> str:
    """``10s``, ``2m40s``: as the kubelet's message has it."""
    minutes, seconds = divmod(round(delay), 60)
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
