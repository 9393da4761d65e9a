"""What a node's silence means for its conditions and taints. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from glebe.kube.clock import format_time
from glebe.kube.objects import Object, get_condition, set_condition

GRACE = 40.0
"""Seconds without a heartbeat after which nobody knows how a node is."""
NOT_READY, UNREACHABLE = "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"
_REPORTED = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")


@dataclass(frozen=True, slots=True)
class Verdict:
    """``conditions`` and ``taints`` are whole new lists, or ``None`` when they stay as they are."""

    conditions: list[Object] | None = None
    taints: list[Object] | None = None


def heartbeat_of(node: Object, lease: Object | None) -> tuple[str, str]:
    """Changes with every sign of life. Its meaning as a time is not used: the node's clock may be wrong."""
    ready = get_condition(node, "Ready") or {}
    renewed = ((lease or {}).get("spec") or {}).get("renewTime") or ""
    return str(ready.get("lastHeartbeatTime") or ""), str(renewed)


def assess(node: Object, silent: float, now: float) -> Verdict:
    """What to write, given that the node has been ``silent`` for so many seconds."""
    conditions = _conditions(node, now) if silent >= GRACE else None
    ready = get_condition({"status": {"conditions": conditions}} if conditions is not None else node, "Ready")
    return Verdict(conditions, _taints(node, (ready or {}).get("status"), now))


def _conditions(node: Object, now: float) -> list[Object] | None:
    old = (node.get("status") or {}).get("conditions") or []
    new = old
    for kind in _REPORTED:
        condition = get_condition(node, kind)
        if condition is None:
            reason, text = "NodeStatusNeverUpdated", "Kubelet never posted node status."
        elif condition.get("status") != "Unknown":
            reason, text = "NodeStatusUnknown", "Kubelet stopped posting node status."
        else:
            continue
        new = set_condition(new, kind, "Unknown", reason, text, format_time(now))
        heartbeat = (condition or {}).get("lastHeartbeatTime")
        if heartbeat:
            new = [{**c, "lastHeartbeatTime": heartbeat} if c["type"] == kind else c for c in new]
    return new if new != old else None


def _taints(node: Object, ready: str | None, now: float) -> list[Object] | None:
    old = (node.get("spec") or {}).get("taints") or []
    if ready is None:
        return None  # it has just registered and said nothing yet: the binder leaves it alone
    wanted = {"True": None, "False": NOT_READY}.get(ready, UNREACHABLE)
    ours = [t for t in old if t.get("key") in (NOT_READY, UNREACHABLE)]
    kept = [t for t in ours if t["key"] == wanted]
    if len(ours) == len(kept) == (2 if wanted else 0):
        return None
    rest = [t for t in old if t not in ours]
    if wanted is None:
        return rest
    execute = next((t for t in kept if t.get("effect") == "NoExecute"), None)
    schedule = next((t for t in kept if t.get("effect") == "NoSchedule"), None)
    since = format_time(now)
    return [
        *rest,
        schedule or {"key": wanted, "effect": "NoSchedule", "timeAdded": since},
        execute or {"key": wanted, "effect": "NoExecute", "timeAdded": since},
    ]
