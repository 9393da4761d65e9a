"""Whether a pod is ready, and has been for long enough to count as available."""

from __future__ import annotations

from collections.abc import Iterable

from glebe.kube.clock import parse_time
from glebe.kube.objects import Object, get_condition
from glebe.kube.pods import phase_of


def is_ready(pod: Object) -> bool:
    """Condition ``Ready`` is true."""
    return ready_since(pod) is not None


def is_running_and_ready(pod: Object) -> bool:
    return phase_of(pod) == "Running" and is_ready(pod)


def is_available(pod: Object, min_ready_seconds: int, now: float) -> bool:
    """Ready for at least ``min_ready_seconds``."""
    since = ready_since(pod)
    return since is not None and (min_ready_seconds == 0 or (since > 0 and since + min_ready_seconds <= now))


def ready_since(pod: Object) -> float | None:
    """Unix seconds; 0 when the pod does not say, ``None`` when it is not ready."""
    condition = get_condition(pod, "Ready")
    if condition is None or condition.get("status") != "True":
        return None
    return parse_time(condition["lastTransitionTime"]) if condition.get("lastTransitionTime") else 0.0


def next_available(pods: Iterable[Object], min_ready_seconds: int, now: float) -> float | None:
    """Seconds until the next pod that is ready becomes available."""
    waits = [
        since + min_ready_seconds - now
        for pod in pods
        if (since := ready_since(pod)) is not None and since + min_ready_seconds > now
    ]
    return min(waits, default=None)
