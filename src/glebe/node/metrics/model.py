"""Samples of use, and the rates between two of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple


class Place(NamedTuple):
    """A container."""

    namespace: str
    pod: str
    container: str


@dataclass(frozen=True, slots=True)
class Used:
    """Processor seconds since ``started`` (Unix seconds; 0: not known), bytes of memory (working set) now."""

    cpu_seconds: float
    memory: int
    started: float = 0.0


def _nothing() -> Mapping[Place, Used]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class NodeSample:
    """What a node and its containers have used until ``time`` (Unix seconds)."""

    time: float
    node: Used
    containers: Mapping[Place, Used] = field(default_factory=_nothing)


@dataclass(frozen=True, slots=True)
class Rate:
    """``cpu`` in cores, over ``window`` seconds until ``time``; ``memory`` in bytes at that time."""

    cpu: float
    memory: int
    time: float
    window: float


def rate(before: Used | None, before_time: float, now: Used, time: float) -> Rate | None:
    """The rate between two samples; since the start for what was started in between; ``None``: not known yet."""
    again = before is None or now.cpu_seconds < before.cpu_seconds or now.started > before_time
    if again or before is None:
        window = time - now.started
        if not now.started or window <= 0:
            return None
        return Rate(now.cpu_seconds / window, now.memory, time, window)
    window = time - before_time
    if window <= 0:
        return None
    return Rate((now.cpu_seconds - before.cpu_seconds) / window, now.memory, time, window)
