"""What a node's silence means for its conditions and taints. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from glebe.kube.clock import format_time
from glebe.kube.objects import Object, get_condition, set_condition

GRACE = 40.0
"""Seconds without a heartbeat after which nobody knows how a node is."""
NOT_READY, UNREACHABLE = "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
_TROUBLES = {
    "MemoryPressure": "node.kubernetes.io/memory-pressure",
    "DiskPressure": "node.kubernetes.io/disk-pressure",
    "PIDPressure": "node.kubernetes.io/pid-pressure",
    "NetworkUnavailable": "node.kubernetes.io/network-unavailable",
}
"""Conditions that keep new pods away when they are True, and the taints by which."""
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


def troubles(node: Object) -> tuple[str, ...]:
    """The keys of the taints, other than those of its readiness, that a node's spec and conditions ask for."""
    held = [key for kind, key in _TROUBLES.items() if (get_condition(node, kind) or {}).get("status") == "True"]
    return (*held, *((UNSCHEDULABLE,) if (node.get("spec") or {}).get("unschedulable") else ()))


def _taints(node: Object, ready: str | None, now: float) -> list[Object] | None:
    old = (node.get("spec") or {}).get("taints") or []
    wanted = [(key, "NoSchedule") for key in troubles(node)]
    ours = {(key, "NoSchedule") for key in (*_TROUBLES.values(), UNSCHEDULABLE)}
    if ready is not None:  # else it has just registered and said nothing yet: the binder leaves it alone
        ours |= {(key, effect) for key in (NOT_READY, UNREACHABLE) for effect in ("NoSchedule", "NoExecute")}
        if ready != "True":
            key = NOT_READY if ready == "False" else UNREACHABLE
            wanted += [(key, "NoSchedule"), (key, "NoExecute")]
    named = [((t.get("key"), t.get("effect")), t) for t in old]
    new = [taint for name, taint in named if name in wanted or name not in ours]
    missing = [name for name in wanted if name not in dict(named)]
    new += [{"key": key, "effect": effect, "timeAdded": format_time(now)} for key, effect in missing]
    return new if new != old else None
