"""Which pods have to leave a node, when and how. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from glebe.kube.clock import parse_time
from glebe.kube.nodes import tolerates
from glebe.kube.objects import Object, get_condition, is_deleting
from glebe.kube.pods import has_ended

QUARANTINE = 40.0
"""Seconds a node must have been gone before its pods are taken for lost (its object may just be late)."""
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
"""The key of the taint by which people say that a node is down for good."""


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
    reason: str  # of the condition DisruptionTarget; "": none
    message: str

    @property
    def by_taint(self) -> bool:
        return self.reason == "DeletionByTaintManager"


def evictions(
    node: Object | None, gone_since: float, pods: list[Object], now: float, seen: Mapping[str, float] | None = None
) -> list[Eviction]:
    """All departures, due or to come, from one node.

    :param node: ``None`` when there is no such node; since ``gone_since``.
    :param seen: when it was first seen that taints drive a pod (uid) out: it counts where a taint has no time.
    """
    if node is None:
        return [_from_missing(pod, gone_since + QUARANTINE) for pod in pods]
    seen = seen or {}
    found = (
        _from_tainted(node, pod, seen.get(pod["metadata"].get("uid", ""), now))
        or _out_of_service(node, pod, now)
        or _from_dead(node, pod)
        for pod in pods
    )
    return [e for e in found if e is not None]


def is_dead(node: Object) -> bool:
    """Whether nobody answers for the node."""
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Ready" and c.get("status") == "Unknown" for c in conditions)


def _from_missing(pod: Object, at: float) -> Eviction:
    way = Way.REMOVE if has_ended(pod) else Way.LOSE
    return Eviction(pod, at, way, "DeletionByPodGC", "PodGC: node no longer exists")


def driving_out(node: Object | None) -> list[Object]:
    """The node's taints that running pods must tolerate."""
    taints = ((node or {}).get("spec") or {}).get("taints") or ()
    return [t for t in taints if t.get("effect") == "NoExecute"]


def _from_tainted(node: Object, pod: Object, seen: float) -> Eviction | None:
    """Taint-based eviction; pods that have ended stay as they are."""
    if has_ended(pod) or is_deleting(pod):
        return None
    due = [at for taint in driving_out(node) if (at := _leaves_at(pod, taint, seen)) is not None]
    if not due:
        return None
    way = Way.LOSE if is_dead(node) else Way.ASK
    text = "Taint manager: deleting due to NoExecute taint"
    return Eviction(pod, min(due), way, "DeletionByTaintManager", text)


def _leaves_at(pod: Object, taint: Object, seen: float) -> float | None:
    """When this taint drives the pod out: at once, after the tolerated seconds, or never (``None``).

    The seconds count from the taint, or from the pod's coming if that was later.
    """
    matching = [t for t in (pod.get("spec") or {}).get("tolerations") or () if tolerates(t, taint)]
    since = parse_time(taint["timeAdded"]) if taint.get("timeAdded") else seen
    if not matching:
        return since
    bound = (get_condition(pod, "PodScheduled") or {}).get("lastTransitionTime")
    if bound:
        since = max(since, parse_time(bound))
    limits = [max(0.0, float(t["tolerationSeconds"])) for t in matching if t.get("tolerationSeconds") is not None]
    return since + min(limits) if limits else None


def _out_of_service(node: Object, pod: Object, now: float) -> Eviction | None:
    """Pods that are to end on a node that people have declared dead are gone (KEP-2268)."""
    declared = any(t.get("key") == OUT_OF_SERVICE for t in (node.get("spec") or {}).get("taints") or ())
    if not declared or not is_deleting(pod) or (get_condition(node, "Ready") or {}).get("status") == "True":
        return None
    return Eviction(pod, now, Way.REMOVE if has_ended(pod) else Way.LOSE, "", "")


def _from_dead(node: Object, pod: Object) -> Eviction | None:
    """A pod that was already asked to end will never confirm it: it is lost when its grace period is over."""
    if not is_dead(node) or not is_deleting(pod):
        return None
    at = parse_time(pod["metadata"]["deletionTimestamp"])
    way = Way.REMOVE if has_ended(pod) else Way.LOSE
    return Eviction(pod, at, way, "DeletionByPodGC", "PodGC: the node that should end it is unresponsive")
