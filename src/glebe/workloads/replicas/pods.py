"""What one pod says to whoever keeps replicas, and which of several is missed least."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from glebe.kube.clock import parse_time
from glebe.kube.objects import Object, annotations_of, get_condition, is_deleting
from glebe.kube.pods import has_ended, phase_of

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_PHASES = {"Pending": 0, "Unknown": 1, "Running": 2}
_MAX_COST = 2**31


def is_active(pod: Object) -> bool:
    return not has_ended(pod) and not is_deleting(pod)


def is_terminating(pod: Object) -> bool:
    return is_deleting(pod) and not has_ended(pod)


def ready_since(pod: Object) -> float | None:
    """When the pod became ready; ``None`` while it is not, 0 when it does not say since when."""
    condition = get_condition(pod, "Ready")
    if condition is None or condition.get("status") != "True":
        return None
    since = condition.get("lastTransitionTime")
    return parse_time(since) if since else 0.0


def available_in(pod: Object, min_ready: int, now: float) -> float | None:
    """Seconds until the pod counts as available: 0 when it does, ``None`` while it is not ready."""
    since = ready_since(pod)
    if since is None:
        return None
    if min_ready <= 0:
        return 0.0
    return max(0.0, since + min_ready - now) if since else None


def deletion_cost(pod: Object) -> int:
    """The annotation's value; what cannot be read counts as 0."""
    text = annotations_of(pod).get(DELETION_COST, "")
    digits = text[1:] if text[:1] in ("-",) else text
    if not digits.isascii() or not digits.isdigit() or (len(digits) > 1 and digits[0] == "0"):
        return 0
    value = int(text)
    return value if -_MAX_COST <= value < _MAX_COST else 0


def crowding(related: Iterable[Object]) -> Mapping[str, int]:
    """Active pods by node."""
    out: dict[str, int] = {}
    for pod in related:
        node = (pod.get("spec") or {}).get("nodeName", "")
        if is_active(pod):
            out[node] = out.get(node, 0) + 1
    return out


def removal_rank(now: float, crowd: Mapping[str, int]) -> Callable[[Object], tuple[Any, ...]]:
    """A sort key: what goes first when there are too many.

    Unassigned, pending, not ready, cheap to delete, in a crowd on one node, ready for a short time, often restarted,
    young. Times count by their order of magnitude, and within it the uid decides: so the oldest pods are not always
    the ones that stay.
    """

    def key(pod: Object) -> tuple[Any, ...]:
        node = (pod.get("spec") or {}).get("nodeName", "")
        since = ready_since(pod)
        created = pod["metadata"].get("creationTimestamp")
        return (
            bool(node),
            _PHASES.get(phase_of(pod), 2),
            since is not None,
            deletion_cost(pod),
            -crowd.get(node, 0),
            _magnitude(now - since) if since is not None else 0,
            *(-count for count in _restarts(pod)),
            _magnitude(now - parse_time(created)) if created else -2,
            pod["metadata"].get("uid", ""),
        )

    return key


def _magnitude(seconds: float) -> int:
    return int(math.log2(seconds * 1e9)) if seconds > 0 else -1


def _restarts(pod: Object) -> tuple[int, int]:
    """The most restarts of any container, and of any sidecar."""
    status, spec = pod.get("status") or {}, pod.get("spec") or {}
    sidecars = {c.get("name") for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"}
    inits = status.get("initContainerStatuses") or ()
    return (
        max((int(c.get("restartCount", 0)) for c in status.get("containerStatuses") or ()), default=0),
        max((int(c.get("restartCount", 0)) for c in inits if c.get("name") in sidecars), default=0),
    )
