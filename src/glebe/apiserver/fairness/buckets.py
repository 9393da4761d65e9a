"""Requests per second: a token bucket."""

from __future__ import annotations


class Bucket:
    """``rate`` tokens come per second, ``burst`` at most are kept."""

    __slots__ = ("_then", "_tokens", "burst", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self._tokens = burst
        self._then = now

    def take(self, now: float) -> float:
        """Take one token; 0.0, or the seconds until there is one."""
        tokens = min(self.burst, self._tokens + (now - self._then) * self.rate)
        self._then = now
        if tokens >= 1.0:
            self._tokens = tokens - 1.0
            return 0.0
        self._tokens = tokens
        return (1.0 - tokens) / self.rate if self.rate else 60.0

    def full(self, now: float) -> bool:
        return self._tokens + (now - self._then) * self.rate >= self.burst
