"""Exponential back-off with jitter, drawn from the injected randomness."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(slots=True)
class Backoff:
    """Delays that double from ``initial`` to ``maximum`` seconds, each stretched by up to ``jitter``."""

    rng: random.Random
    initial: float = 0.2
    maximum: float = 30.0
    jitter: float = 0.5
    _failures: int = field(default=0, init=False)

    def next(self) -> float:
        """The seconds to wait after one more failure."""
        delay = min(self.initial * 2.0 ** min(self._failures, 60), self.maximum)
        self._failures += 1
        return delay * (1.0 + self.jitter * self.rng.random())

    def reset(self) -> None:
        """Something worked."""
        self._failures = 0
