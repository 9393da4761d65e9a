"""Which pods have to leave a node, when and how. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from glebe.kube.clock import parse_time
from glebe.kube.objects import Object, is_deleting
from glebe.kube.pods import has_ended
from glebe.workloads.binder.needs import tolerates

QUARANTINE = 40.0
"""Seconds a node must have been gone before its pods are taken for lost (its object may just be late)."""


class Way(Enum):
    """How a pod leaves."""

    ASK = "ask"  # the node lives: it stops the pod within its grace period
    LOSE = "lose"  # nobody will confirm: mark it Failed and remove it
    REMOVE = "remove"  # it has ended already: just remove it


@dataclass(frozen=True, slots=True)
class Eviction:
    """One pod's departure at time ``at``."""

    pod: Object
    at: float
    way: Way
    reason: str  # of the condition DisruptionTarget
    message: str


def evictions(node: Object | None, gone_since: float, pods: list[Object], now: float) -> list[Eviction]:
    """All departures, due or to come, from one node.

    :param node: ``None`` when there is no such node; since ``gone_since``.
    """
    if node is None:
        return [_from_missing(pod, gone_since + QUARANTINE) for pod in pods]
    found = (_from_tainted(node, pod, now) or _from_dead(node, pod) for pod in pods)
    return [e for e in found if e is not None]


def is_dead(node: Object) -> bool:
    """Whether nobody answers for the node."""
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Ready" and c.get("status") == "Unknown" for c in conditions)


def _from_missing(pod: Object, at: float) -> Eviction:
    way = Way.REMOVE if has_ended(pod) else Way.LOSE
    return Eviction(pod, at, way, "DeletionByPodGC", "PodGC: node no longer exists")


def _from_tainted(node: Object, pod: Object, now: float) -> Eviction | None:
    """Taint-based eviction; pods that have ended stay as they are."""
    if has_ended(pod) or is_deleting(pod):
        return None
    taints = [t for t in (node.get("spec") or {}).get("taints") or () if t.get("effect") == "NoExecute"]
    due = [at for taint in taints if (at := _leaves_at(pod, taint, now)) is not None]
    if not due:
        return None
    way = Way.LOSE if is_dead(node) else Way.ASK
    text = "Taint manager: deleting due to NoExecute taint"
    return Eviction(pod, min(due), way, "DeletionByTaintManager", text)


def _leaves_at(pod: Object, taint: Object, now: float) -> float | None:
    """When this taint drives the pod out: at once, after the tolerated seconds, or never (``None``)."""
    matching = [t for t in (pod.get("spec") or {}).get("tolerations") or () if tolerates(t, taint)]
    since = parse_time(taint["timeAdded"]) if taint.get("timeAdded") else now
    if not matching:
        return since
    limits = [max(0.0, float(t["tolerationSeconds"])) for t in matching if t.get("tolerationSeconds") is not None]
    return since + min(limits) if limits else None


def _from_dead(node: Object, pod: Object) -> Eviction | None:
    """A pod that was already asked to end will never confirm it: it is lost when its grace period is over."""
    if not is_dead(node) or not is_deleting(pod):
        return None
    at = parse_time(pod["metadata"]["deletionTimestamp"])
    way = Way.REMOVE if has_ended(pod) else Way.LOSE
    return Eviction(pod, at, way, "DeletionByPodGC", "PodGC: the node that should end it is unresponsive")
