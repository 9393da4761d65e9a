"""CrashLoopBackOff: how long a container that ended waits for its next start."""

from __future__ import annotations

FIRST = 10.0  # seconds
LIMIT = 300.0
RESET_AFTER = 600.0  # a run this long makes the next failure the first again


class CrashLoop:
    """10 s, doubling to 5 minutes; the first restart is immediate, as the kubelet's is.

    ``next`` is what the next end would cost, unless the run before it was long.
    """

    __slots__ = ("next",)

    def __init__(self, next: float = 0.0) -> None:
        self.next = next

    @classmethod
    def resumed(cls, restarts: int) -> CrashLoop:
        """Where a container with so many restarts stands, if none of its runs was long."""
        return cls(min(FIRST * 2 ** max(0, restarts - 1), LIMIT) if restarts else 0.0)

    def after(self, ran_for: float) -> float:
        """Seconds to wait after a run of ``ran_for`` seconds."""
        if ran_for >= RESET_AFTER:
            self.next = 0.0
        wait = self.next
        self.next = min(max(FIRST, self.next * 2), LIMIT)
        return wait

    def resume(self, restarts: int) -> None:
        """Continue where a container with so many restarts stood."""
        self.next = CrashLoop.resumed(restarts).next


def text(delay: float) -> str:
    """``10s``, ``2m40s``: as the kubelet's message has it."""
    minutes, seconds = divmod(round(delay), 60)
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
