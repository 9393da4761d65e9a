"""Time as a dependency: no other module of Glebe reads a clock of its own.

Everything that needs the time of day takes a :class:`Clock`. Waiting is always done through asyncio
(``asyncio.sleep``, ``asyncio.timeout``, ``loop.call_later``), so that the event loop alone decides how fast time
runs: under :mod:`glebe.kube.virtualtime` a week passes in milliseconds, and deterministically.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Says what time it is."""

    def now(self) -> float:
        """Seconds since the Unix epoch (UTC)."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        return time.time()


class LoopClock:
    """Time of day derived from the running event loop, for virtual time: ``epoch + loop.time()``.

    The default epoch is a fixed date, so that a replay prints the same times.
    """

    EPOCH = 1_767_225_600.0  # 2026-01-01T00:00:00Z

    def __init__(self, epoch: float = EPOCH) -> None:
        self._epoch = epoch

    def now(self) -> float:
        return self._epoch + asyncio.get_running_loop().time()


class FixedClock:
    """A clock that a test sets by hand."""

    def __init__(self, now: float = LoopClock.EPOCH) -> None:
        self.value = now

    def now(self) -> float:
        return self.value


@dataclass(frozen=True, slots=True)
class Env:
    """What the outside world hands to a component: time, randomness and fresh identifiers."""

    clock: Clock
    rng: random.Random
    new_uid: Callable[[], str]

    @classmethod
    def system(cls) -> Env:
        """The real clock, real randomness and random UUIDs."""
        return cls(SystemClock(), random.Random(), _random_uids())

    @classmethod
    def seeded(cls, seed: int, clock: Clock | None = None) -> Env:
        """Everything derived from ``seed``: two runs with one seed see the same values in the same order."""
        rng = random.Random(seed)
        return cls(clock or LoopClock(), rng, lambda: str(uuid.UUID(int=rng.getrandbits(128), version=4)))


def _random_uids() -> Callable[[], str]:
    """Random UUIDs; entropy is fetched for many at once, since each fetch is a system call."""
    pool = b""

    def new() -> str:
        nonlocal pool
        if not pool:
            pool = os.urandom(16 * 256)
        taken, pool = pool[:16], pool[16:]
        return str(uuid.UUID(bytes=taken, version=4))

    return new


def format_time(seconds: float) -> str:
    """Unix seconds as Kubernetes' ``metav1.Time`` (RFC 3339, UTC, whole seconds): ``2026-01-01T00:00:00Z``."""
    return datetime.fromtimestamp(int(seconds), UTC).isoformat()[:19] + "Z"


def format_micro_time(seconds: float) -> str:
    """Unix seconds as Kubernetes' ``metav1.MicroTime`` (RFC 3339, UTC, microseconds)."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")[:26] + "Z"


def parse_time(text: str) -> float:
    """Inverse of :func:`format_time` and :func:`format_micro_time`; any RFC 3339 time is accepted.

    :raises ValueError: when ``text`` is not a time.
    """
    return datetime.fromisoformat(text).timestamp()
