"""Which pods stand in the queue together, and what they ask for: pure.

Sources: kueue:pkg/controller/jobs/pod/pod_controller.go, statefulset_reconciler.go, leaderworkerset_reconciler.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from glebe.kube.clock import parse_time
from glebe.kube.objects import Object, annotations_of, condition_is_true, is_deleting, labels_of
from glebe.kube.pods import has_ended, phase_of
from glebe.queueing import labels
from glebe.queueing.jobkinds.model import JobKind
from glebe.queueing.jobkinds.paths import number, read
from glebe.queueing.jobs.integrations import PodSetView
from glebe.queueing.pods.holding import is_held, is_unretriable, role_of, total_of

LWS_NAME = "leaderworkerset.sigs.k8s.io/name"
LWS_GROUP = "leaderworkerset.sigs.k8s.io/group-index"
LWS_WORKER = "leaderworkerset.sigs.k8s.io/worker-index"
_SPEC = (
    "initContainers",
    "containers",
    "nodeSelector",
    "affinity",
    "tolerations",
    "runtimeClassName",
    "priority",
    "priorityClassName",
    "topologySpreadConstraints",
    "overhead",
    "resourceClaims",
    "resources",
    "restartPolicy",
    "schedulerName",
)
_CONTAINER = ("name", "image", "resources", "ports", "restartPolicy")


@dataclass(frozen=True, slots=True)
class Hold:
    """Pods that are admitted together.

    :param about: the object whose labels speak for all: queue, class, priority.
    :param owners: what the workload belongs to. :param sets: empty while they cannot be told yet, ``why`` says why.
    :param roles: the pod set of each pod, by uid. :param serving: it never ends by itself.
    :param fast: admitted before all of them are there.
    """

    about: Object
    owners: tuple[Object, ...]
    pods: tuple[Object, ...]
    sets: tuple[PodSetView, ...] = ()
    roles: dict[str, str] = field(default_factory=dict)
    why: str = ""
    total: int = 1
    group: bool = False
    fast: bool = False
    serving: bool = False
    idle: bool = False
    """Scaled to nothing: it asks for nothing."""
    index: str = ""
    """Which group of a LeaderWorkerSet it is."""


def single(pod: Object) -> Hold:
    """One pod for itself."""
    view = view_of(pod, labels.DEFAULT_POD_SET, 1)
    return Hold(pod, (pod,), (pod,), (view,), {pod["metadata"]["uid"]: view.name})


def group(pods: Sequence[Object]) -> Hold:
    """The pods of one group."""
    pods = sorted(pods, key=_age)
    first = next((p for p in pods if is_runnable(p)), pods[0])
    total = total_of(first) or 1
    serving = annotations_of(first).get(labels.POD_GROUP_SERVING) == "true"
    fast = annotations_of(first).get(labels.POD_GROUP_FAST) == "true"
    live = [p for p in pods if is_runnable(p)]
    roles = {p["metadata"]["uid"]: role_of(p) for p in pods}
    why = _fault(live, total, fast)
    views: list[PodSetView] = []
    if fast and live:
        views = [view_of(live[0], role_of(live[0]), total)]
    elif not why:
        kept = live[:total]
        for role in sorted({roles[p["metadata"]["uid"]] for p in kept}):
            mine = [p for p in kept if roles[p["metadata"]["uid"]] == role]
            views.append(view_of(mine[0], role, len(mine)))
    return Hold(
        first, tuple(pods), tuple(pods), tuple(views), roles, why, total, group=True, fast=fast, serving=serving
    )


def _fault(live: Sequence[Object], total: int, fast: bool) -> str:
    """Why a group cannot be told yet."""
    if not live:
        return "no pod of the group can run"
    for name, get in (("queue", _queue), ("total count", total_of)):
        if len({get(p) for p in live}) > 1:
            return f"pods of the group disagree on its {name}"
    if len(live) < total and not fast:
        return f"{len(live)} of the group's {total} pods are there"
    return ""


def _queue(pod: Object) -> str:
    return labels_of(pod).get(labels.QUEUE_NAME, "")


def stateful(kind: JobKind, owner: Object, pods: Sequence[Object]) -> Hold:
    """All pods of a StatefulSet."""
    replicas = number(read(owner, ("spec", "replicas")))
    replicas = 1 if replicas is None else replicas
    rule = kind.pod_sets[0]
    template = read(owner, rule.template, {})
    view = PodSetView(rule.name, replicas, _bare(template), (), pod_index=rule.pod_index)
    roles = {p["metadata"]["uid"]: rule.name for p in pods}
    return Hold(
        owner, (owner,), tuple(pods), (view,), roles, total=replicas, group=True, serving=True, idle=replicas == 0
    )


def leader_worker(kind: JobKind, owner: Object, pods: Sequence[Object], index: str) -> Hold:
    """One group (replica) of a LeaderWorkerSet."""
    size = number(read(owner, ("spec", "leaderWorkerTemplate", "size")))
    size = 1 if size is None else size
    leader, worker = kind.pod_sets
    views: list[PodSetView] = []
    head = read(owner, leader.template)
    if head is not None:
        views.append(PodSetView(leader.name, 1, _bare(head), ()))
    rest = size - len(views)
    name = worker.name if head is not None else labels.DEFAULT_POD_SET
    if rest > 0:
        body = read(owner, worker.template, {})
        views.append(PodSetView(name, rest, _bare(body), (), pod_index=worker.pod_index))
    roles = {
        p["metadata"]["uid"]: leader.name if head is not None and labels_of(p).get(LWS_WORKER, "0") == "0" else name
        for p in pods
    }
    return Hold(owner, (owner,), tuple(pods), tuple(views), roles, total=size, group=True, serving=True, index=index)


def view_of(pod: Object, name: str, count: int) -> PodSetView:
    """The pod set of pods that are like this one."""
    template = {"metadata": pod["metadata"], "spec": pod["spec"]}
    return PodSetView(name, count, _bare(template), (), pod_index=labels.POD_GROUP_INDEX)


def _bare(template: dict[str, Any]) -> dict[str, Any]:
    """What of a pod decides where it may run and what it takes."""
    spec = template.get("spec") or {}
    out = {name: spec[name] for name in _SPEC if spec.get(name) is not None}
    for group_name in ("initContainers", "containers"):
        if group_name in out:
            out[group_name] = [{f: c[f] for f in _CONTAINER if f in c} for c in out[group_name]]
    notes = read(template, ("metadata", "annotations"), {})
    own = (labels.PREFIX, "gpu-", "sim.glebe.dev/")
    kept = {k: v for k, v in notes.items() if k.startswith(own) and k not in (labels.ROLE_HASH, labels.WORKLOAD)}
    return {"metadata": {"annotations": kept} if kept else {}, "spec": out}


# --- what is the matter with them


def is_runnable(pod: Object) -> bool:
    """It runs, may still run, or has succeeded."""
    if is_deleting(pod) and not pod["spec"].get("nodeName"):
        return False
    return phase_of(pod) != "Failed" and not (is_deleting(pod) and has_ended(pod) and phase_of(pod) != "Succeeded")


def is_active(hold: Hold, now: float) -> bool:
    """Whether a pod of them runs; one that should be gone for longer than its grace counts no more."""
    return any(_runs(pod, now) for pod in hold.pods)


def _runs(pod: Object, now: float) -> bool:
    if phase_of(pod) != "Running":
        return False
    # metadata.deletionTimestamp is when its grace ends
    return not is_deleting(pod) or now <= parse_time(pod["metadata"]["deletionTimestamp"])


def ended(hold: Hold) -> tuple[str, str] | None:
    """(reason, message) of the end of all of them."""
    if hold.serving:
        return None
    if not hold.group:
        pod = hold.pods[0]
        if not has_ended(pod):
            return None
        message = str((pod.get("status") or {}).get("message") or f"pod {phase_of(pod).lower()}")
        return ("Succeeded" if phase_of(pod) == "Succeeded" else "Failed"), message
    succeeded = sum(phase_of(p) == "Succeeded" for p in hold.pods)
    going_on = any(not has_ended(p) for p in hold.pods)
    if succeeded >= hold.total or (not going_on and any(map(is_unretriable, hold.pods))):
        return "Succeeded", f"Pods succeeded: {succeeded}/{hold.total}."
    return None


def all_ready(hold: Hold) -> bool:
    live = [p for p in hold.pods if not is_deleting(p)]
    if hold.group and len([p for p in live if is_runnable(p)]) < hold.total:
        return False
    return all(condition_is_true(p, "Ready") or phase_of(p) == "Succeeded" for p in live if is_runnable(p)) and bool(
        live
    )


def done(hold: Hold) -> list[dict[str, Any]]:
    """``status.reclaimablePods``: members that have succeeded, by role."""
    if not hold.group or hold.serving:
        return []
    counts: dict[str, int] = {}
    for pod in hold.pods:
        if phase_of(pod) == "Succeeded":
            role = hold.roles[pod["metadata"]["uid"]]
            counts[role] = counts.get(role, 0) + 1
    return [{"name": name, "count": count} for name, count in sorted(counts.items())]


@dataclass(frozen=True, slots=True)
class Surplus:
    """Pods that are too many: ``excess`` are to go, ``replaced`` have a successor and may be forgotten."""

    excess: tuple[Object, ...]
    replaced: tuple[Object, ...]
    absent: int
    stranger: bool  # a pod of a role that the workload does not know


def surplus(hold: Hold, pod_sets: Iterable[dict[str, Any]]) -> Surplus:
    """Compare the pods with the workload's pod sets."""
    excess: list[Object] = []
    replaced: list[Object] = []
    absent, known = 0, set()
    for item in pod_sets:
        name, count = item.get("name", labels.DEFAULT_POD_SET), int(item.get("count", 1))
        known.add(name)
        mine = [p for p in hold.pods if hold.roles[p["metadata"]["uid"]] == name]
        live = sorted((p for p in mine if is_runnable(p)), key=_stays)
        dead = sorted((p for p in mine if not is_runnable(p)), key=_age)
        excess += [p for p in live[count:] if not is_deleting(p)]
        spare = max(0, min(len(dead), len(dead) + len(live) - count))
        replaced += dead[:spare]
        missing = max(0, count - len(live))
        absent += missing if not hold.fast or not live else 0
    stranger = any(hold.roles[p["metadata"]["uid"]] not in known for p in hold.pods if is_runnable(p))
    return Surplus(tuple(excess), tuple(replaced), absent, stranger)


def _age(pod: Object) -> tuple[str, str]:
    return pod["metadata"].get("creationTimestamp", ""), pod["metadata"]["name"]


def _stays(pod: Object) -> tuple[bool, bool, str, str]:
    """Those who keep their place first: with finalizer, released, old."""
    kept = labels.MANAGED_FINALIZER in (pod["metadata"].get("finalizers") or ())
    return not kept, is_held(pod), *_age(pod)
