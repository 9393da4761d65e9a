"""What a recommendation may become: stabilized over time, limited in rate, within minimum and maximum. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

DOWNSCALE_STABILIZATION = 300.0
"""Seconds for which the highest recommendation counts, where the spec says nothing else."""
MOST = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Sample:
    """At ``time``: a recommendation, or by how many replicas something was scaled."""

    time: float
    replicas: int


@dataclass(slots=True)
class History:
    """What happened to one autoscaler's target, as far as its spec still looks back."""

    recommendations: list[Sample] = field(default_factory=list)
    ups: list[Sample] = field(default_factory=list)
    downs: list[Sample] = field(default_factory=list)

    def scaled(self, behavior: Mapping[str, Any] | None, before: int, after: int, now: float) -> None:
        """Remember a change of scale, for as long as a policy counts it."""
        if behavior is None:
            return
        rising = after > before
        rules = behavior.get("scaleUp" if rising else "scaleDown") or {}
        longest = max((p["periodSeconds"] for p in rules.get("policies") or ()), default=0)
        events = self.ups if rising else self.downs
        events[:] = [e for e in events if e.time >= now - longest]
        events.append(Sample(now, abs(after - before)))


@dataclass(frozen=True, slots=True)
class Limited:
    """A number of replicas, and what the conditions AbleToScale and ScalingLimited say of it."""

    replicas: int
    able: tuple[str, str]
    limited: bool
    limit: tuple[str, str]


_MATCHES = ("ReadyForNewScale", "recommended size matches current size")
_DOWN_STABILIZED = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
)
_UP_STABILIZED = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
)
_WITHIN = ("DesiredWithinRange", "the desired count is within the acceptable range")
_TOO_MANY = ("TooManyReplicas", "the desired replica count is more than the maximum replica count")
_TOO_FEW = ("TooFewReplicas", "the desired replica count is less than the minimum replica count")
_UP_LIMIT = ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate")
_DOWN_LIMIT = ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate")


def normalize(
    behavior: Mapping[str, Any] | None,
    history: History,
    current: int,
    desired: int,
    least: int,
    most: int,
    now: float,
) -> Limited:
    """What to scale to when the metrics ask for ``desired``; the recommendation is put into ``history``."""
    if behavior is None:
        stable, able = _stabilize_down(history, desired, now)
        replicas, limit = _within(current, stable, least, most)
    else:
        up, down = behavior.get("scaleUp") or {}, behavior.get("scaleDown") or {}
        stable, able = _stabilize(history, up, down, current, desired, now)
        replicas, limit = _rate_limited(history, up, down, current, stable, least, most, now)
    return Limited(replicas, _MATCHES if stable == desired else able, replicas != stable, limit)


def _stabilize_down(history: History, desired: int, now: float) -> tuple[int, tuple[str, str]]:
    recent = [s for s in history.recommendations if s.time >= now - DOWNSCALE_STABILIZATION]
    history.recommendations = [*recent, Sample(now, desired)]
    return max(desired, *(s.replicas for s in recent)) if recent else desired, _DOWN_STABILIZED


def _stabilize(
    history: History, up: Mapping[str, Any], down: Mapping[str, Any], current: int, desired: int, now: float
) -> tuple[int, tuple[str, str]]:
    """Not above the least recommendation of one window, not below the greatest of the other."""
    rise_since = now - up.get("stabilizationWindowSeconds", 0)
    fall_since = now - down.get("stabilizationWindowSeconds", DOWNSCALE_STABILIZATION)
    samples = history.recommendations
    ceiling = min([desired, *(s.replicas for s in samples if s.time > rise_since)])
    floor = max([desired, *(s.replicas for s in samples if s.time > fall_since)])
    kept = [s for s in samples if s.time >= min(rise_since, fall_since)]
    history.recommendations = [*kept, Sample(now, desired)]
    stable = min(max(current, ceiling), floor)
    return stable, _UP_STABILIZED if desired >= current else _DOWN_STABILIZED


def _within(current: int, desired: int, least: int, most: int) -> tuple[int, tuple[str, str]]:
    """Without ``behavior``: at most twice as many as there are, or 4."""
    limit = max(2 * current, 4)
    highest, reason = (limit, _UP_LIMIT) if most > limit else (most, _TOO_MANY)
    if desired < least:
        return least, _TOO_FEW
    if desired > highest:
        return highest, reason
    return desired, _WITHIN


def _rate_limited(
    history: History,
    up: Mapping[str, Any],
    down: Mapping[str, Any],
    current: int,
    desired: int,
    least: int,
    most: int,
    now: float,
) -> tuple[int, tuple[str, str]]:
    if desired > current:
        limit = max(current, _limit(up, history, current, now, rising=True))
        highest, reason = (limit, _UP_LIMIT) if most > limit else (most, _TOO_MANY)
        if desired > highest:
            return highest, reason
    elif desired < current:
        limit = min(current, _limit(down, history, current, now, rising=False))
        lowest, reason = (limit, _DOWN_LIMIT) if least < limit else (least, _TOO_FEW)
        if desired < lowest:
            return lowest, reason
    return desired, _WITHIN


def _limit(rules: Mapping[str, Any], history: History, current: int, now: float, *, rising: bool) -> int:
    """How far the policies let the replicas go from where they stood when each one's period began."""
    select = rules.get("selectPolicy") or "Max"
    if select == "Disabled":
        return current
    limits = []
    for policy in rules.get("policies") or ():
        since = now - policy["periodSeconds"]
        start = current - _sum(history.ups, since) + _sum(history.downs, since)
        limits.append(_step(policy, start, rising))
    if not limits:
        return MOST if rising == (select == "Min") else -MOST
    return max(limits) if rising == (select == "Max") else min(limits)


def _step(policy: Mapping[str, Any], start: int, rising: bool) -> int:
    value = int(policy["value"])
    if policy["type"] == "Pods":
        return start + value if rising else start - value
    if rising:  # rounded up, or few replicas would never become more
        return min(MOST, math.ceil(start * (1 + value / 100)))
    return int(start * (1 - value / 100))


def _sum(samples: Sequence[Sample], since: float) -> int:
    return sum(s.replicas for s in samples if s.time > since)
