"""The arithmetic of a disruption budget. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glebe.kube.clock import parse_time
from glebe.kube.objects import Object, condition_is_true, is_deleting, set_condition

DELETION_TIMEOUT = 120.0
"""Seconds after which an eviction that was granted and did not happen counts no more."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What a budget's status says."""

    expected: int
    desired: int
    healthy: int
    allowed: int
    disrupted: dict[str, str]
    recheck_after: float | None
    """Seconds until an entry of ``disrupted`` runs out."""


def scaled(value: Any, total: int) -> int:
    """An integer, or a percentage of ``total`` rounded up (``intstr.GetScaledValueFromIntOrPercent``).

    :raises ValueError: it is neither.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = str(value)
    if not text.endswith("%") or not text[:-1].isascii() or not text[:-1].isdigit():
        raise ValueError(f"invalid value for IntOrString: invalid type: string is not a percentage: {text!r}")
    return math.ceil(int(text[:-1]) * total / 100)


def needs_scale(spec: Mapping[str, Any]) -> bool:
    """Whether the number of pods that there should be must be learned from their controllers."""
    return spec.get("maxUnavailable") is not None or isinstance(spec.get("minAvailable"), str)


def wanted(spec: Mapping[str, Any], pods: int, scale: int) -> tuple[int, int]:
    """(expected pods, healthy pods that there must be); ``scale`` as the pods' controllers have it.

    :raises ValueError: the budget's number cannot be understood.
    """
    if spec.get("maxUnavailable") is not None:
        return scale, max(0, scale - scaled(spec["maxUnavailable"], scale))
    least = spec.get("minAvailable")
    if least is None:
        return 0, 0
    if isinstance(least, int):
        return pods, least
    return scale, scaled(least, scale)


def count(
    pods: Sequence[Object], expected: int, desired: int, disrupted: Mapping[str, str] | None, now: float
) -> Counts:
    """What the pods amount to; ``disrupted``: evictions that were granted, with their times."""
    kept: dict[str, str] = {}
    healthy, soonest = 0, math.inf
    for pod in pods:
        if is_deleting(pod):
            continue
        name = pod["metadata"]["name"]
        granted = (disrupted or {}).get(name)
        ends = parse_time(granted) + DELETION_TIMEOUT if granted else -math.inf
        if granted and ends >= now:
            kept[name] = granted
            soonest = min(soonest, ends)
        if not (granted and ends > now) and condition_is_true(pod, "Ready"):
            healthy += 1
    allowed = healthy - desired if expected > 0 else 0
    recheck = None if soonest == math.inf else max(0.0, soonest - now)
    return Counts(expected, desired, healthy, max(0, allowed), kept, recheck)


def status_of(counts: Counts, old: Mapping[str, Any], generation: int, now: str) -> dict[str, Any]:
    """The budget's new status, with its condition ``DisruptionAllowed``."""
    status: dict[str, Any] = {
        "currentHealthy": counts.healthy,
        "desiredHealthy": counts.desired,
        "disruptionsAllowed": counts.allowed,
        "expectedPods": counts.expected,
        "observedGeneration": generation,
    }
    if counts.disrupted:
        status["disruptedPods"] = counts.disrupted
    some = counts.allowed > 0
    value, reason = ("True", "SufficientPods") if some else ("False", "InsufficientPods")
    status["conditions"] = with_condition(old.get("conditions") or [], value, reason, "", generation, now)
    return status


def with_condition(
    conditions: list[dict[str, Any]], value: str, reason: str, message: str, generation: int, now: str
) -> list[dict[str, Any]]:
    """The conditions with ``DisruptionAllowed`` set."""
    return set_condition(conditions, "DisruptionAllowed", value, reason, message, now, generation)
