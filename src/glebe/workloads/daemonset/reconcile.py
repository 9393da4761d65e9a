"""One reconciliation of one DaemonSet: facts in, plan out. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from glebe.kube.events import NORMAL, WARNING
from glebe.kube.objects import Object, is_deleting
from glebe.kube.pods import phase_of
from glebe.workloads.availability import is_ready, next_available
from glebe.workloads.daemonset.facts import Facts
from glebe.workloads.daemonset.plan import Plan
from glebe.workloads.daemonset.rolling import roll
from glebe.workloads.daemonset.template import build_pod

MAX_PER_ROUND = 250
"""Pods created or deleted in one reconciliation (as upstream)."""


@dataclass
class Work:
    """One reconciliation under way."""

    f: Facts
    plan: Plan = field(default_factory=Plan)
    nodes: list[str] = field(default_factory=list)  # that need a pod


def reconcile(f: Facts) -> Plan:
    """What to do for the set now."""
    w = Work(f)
    for node in f.nodes:
        _look_at(w, node["metadata"]["name"])
    _drop_pods_of_missing_nodes(w)
    if f.rolling and not w.nodes and not w.plan.delete:
        step = roll(f)
        w.plan.delete, w.nodes = step.delete, step.nodes
    w.plan.create = [_new_pod(f, node) for node in w.nodes[:MAX_PER_ROUND]]
    if len(w.nodes) > MAX_PER_ROUND or len(w.plan.delete) > MAX_PER_ROUND:
        w.plan.wake_after(0.0)
    w.plan.delete = w.plan.delete[:MAX_PER_ROUND]
    if f.min_ready_seconds and (left := next_available(f.pods, f.min_ready_seconds, f.now)) is not None:
        w.plan.wake_after(left)
    _write_status(w)
    return w.plan


def _new_pod(f: Facts, node: str) -> Object:
    return build_pod(f.owner, node, f.revision, salt=repr(f.now))  # a name that no pod there had before


# --- node by node


def _look_at(w: Work, node: str) -> None:
    start, stay = w.f.verdicts[node]
    pods = w.f.by_node.get(node)
    if start and pods is None:
        w.nodes.append(node)
    elif stay:
        running = [p for p in pods or () if not is_deleting(p) and not _bury(w, node, p)]
        if not w.f.surges:
            w.plan.delete += running[1:]
        elif not running:
            w.nodes += [node] if start else []
        else:
            _keep_pair(w, running)
    else:
        w.plan.delete += [p for p in pods or () if not is_deleting(p)]


def _bury(w: Work, node: str, pod: Object) -> bool:
    """Whether the pod has ended; then it goes, unless its node has had too many of these lately."""
    meta, phase = pod["metadata"], phase_of(pod)
    where = f"daemon pod {meta['namespace']}/{meta['name']} on node {node}, will try to"
    if phase == "Succeeded":
        w.plan.events.append((NORMAL, "SucceededDaemonPod", f"Found succeeded {where} delete it"))
        w.plan.delete.append(pod)
        return True
    if phase != "Failed":
        return False
    if (left := w.f.wait(node)) > 0:
        w.plan.wake_after(left)
        return True
    w.plan.events.append((WARNING, "FailedDaemonPod", f"Found failed {where} kill it"))
    w.plan.failed.append(node)
    w.plan.delete.append(pod)
    return True


def _keep_pair(w: Work, running: list[Object]) -> None:
    """Of several pods on a node stay the oldest new one and, until that is available, the oldest old one."""
    new = next((p for p in running if w.f.is_updated(p)), None)
    old = next((p for p in running if not w.f.is_updated(p)), None)
    w.plan.delete += [p for p in running if p is not new and p is not old]
    if new is not None and old is not None and (not is_ready(old) or w.f.is_available(new)):
        w.plan.delete.append(old)


def _drop_pods_of_missing_nodes(w: Work) -> None:
    """Pods made for a node that is gone would wait for it for ever; nobody else removes them."""
    for node, pods in w.f.by_node.items():
        if node not in w.f.verdicts:
            w.plan.delete += [p for p in pods if not p["spec"].get("nodeName") and not is_deleting(p)]


# --- status


def _write_status(w: Work) -> None:
    """The whole status, if anything in it changed."""
    f = w.f
    current = misplaced = ready = available = updated = 0
    for node, (start, _) in f.verdicts.items():
        pods = f.by_node.get(node)
        if not pods:
            continue
        if not start:
            misplaced += 1
            continue
        current += 1
        ready += is_ready(pods[0])
        available += f.is_available(pods[0])
        updated += f.is_updated(pods[0])
    counts = {
        "currentNumberScheduled": current,
        "numberMisscheduled": misplaced,
        "desiredNumberScheduled": f.desired,
        "numberReady": ready,
        "updatedNumberScheduled": updated,
        "numberAvailable": available,
        "numberUnavailable": f.desired - available,
    }
    status: Object = {k: v for k, v in f.status.items() if k not in _WRITTEN}
    status |= {k: v for k, v in counts.items() if v or k in _ALWAYS}
    status["observedGeneration"] = int(f.owner["metadata"].get("generation") or 0)
    if f.collisions:
        status["collisionCount"] = f.collisions
    if status != dict(f.status):
        w.plan.status = status


_ALWAYS = frozenset({"currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"})
_WRITTEN = _ALWAYS | {
    "updatedNumberScheduled", "numberAvailable", "numberUnavailable", "observedGeneration", "collisionCount",
}  # fmt: skip
