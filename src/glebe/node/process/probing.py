"""What a series of probes means: thresholds, delays, verdicts. Pure; time is handed in. (Upstream: kubelet prober.)"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """As upstream's messages call them."""

    STARTUP = "Startup"
    LIVENESS = "Liveness"
    READINESS = "Readiness"


FIELDS = {Kind.STARTUP: "startupProbe", Kind.LIVENESS: "livenessProbe", Kind.READINESS: "readinessProbe"}


@dataclass(frozen=True, slots=True)
class Probe:
    """One probe of a container, with the defaults that the API server fills in. Times in seconds."""

    kind: Kind
    action: Mapping[str, Any]  # exec, httpGet, tcpSocket or grpc
    delay: float = 0.0
    period: float = 10.0
    timeout: float = 1.0
    successes: int = 1
    failures: int = 3
    grace: float | None = None

    @classmethod
    def of(cls, kind: Kind, body: Mapping[str, Any]) -> Probe:
        grace = body.get("terminationGracePeriodSeconds")
        return cls(
            kind,
            {name: body[name] for name in ("exec", "httpGet", "tcpSocket", "grpc") if body.get(name) is not None},
            float(body.get("initialDelaySeconds") or 0),
            float(body.get("periodSeconds") or 10),
            float(body.get("timeoutSeconds") or 1),
            int(body.get("successThreshold") or 1),
            int(body.get("failureThreshold") or 3),
            None if grace is None else float(grace),
        )


def probes_of(container: Mapping[str, Any]) -> dict[Kind, Probe]:
    """The probes that a container names."""
    return {kind: Probe.of(kind, container[name]) for kind, name in FIELDS.items() if container.get(name)}


class Series:
    """Counts results of one probe against its thresholds."""

    __slots__ = ("_last", "_probe", "_run")

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._last: bool | None = None
        self._run = 0

    def note(self, success: bool) -> bool | None:
        """One more result. Returns what now counts, ``None`` while a threshold is not reached (nothing changes)."""
        self._run = self._run + 1 if success is self._last else 1
        self._last = success
        needed = self._probe.successes if success else self._probe.failures
        return success if self._run >= needed else None


def first_at(probe: Probe, started_at: float, now: float) -> float:
    """When the first probe of a container that counts is due.

    Readiness is asked as soon as it may be. The others come with upstream's tick, which begins with the container: a
    container has one period at least before it can be ended for being slow.
    """
    due = started_at + probe.delay
    if probe.kind is not Kind.READINESS:
        due = started_at + max(1, math.ceil(probe.delay / probe.period)) * probe.period
    if due < now and probe.kind is not Kind.READINESS:
        due += math.ceil((now - due) / probe.period) * probe.period  # an agent that came later keeps the tick
    return max(now, due)


def early(probe: Probe, started_at: float, now: float) -> list[float]:
    """When a startup probe is tried before it counts, so that what starts fast need not wait for a long period."""
    if probe.kind is not Kind.STARTUP:
        return []
    first, begin, times, step = first_at(probe, started_at, now), started_at + probe.delay, [], 0.0
    while begin + step < first:
        if begin + step >= now:
            times.append(begin + step)
        step = step * 2 or 1.0
    return times
