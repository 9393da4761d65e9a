"""What happens to pods that are to be queued, and to templates of such, when they are created. Pure.

As Kueue's webhooks (kueue:pkg/controller/jobs/{pod,deployment,statefulset,leaderworkerset}).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import orjson

from glebe.kube.errors import Cause
from glebe.kube.objects import Object, annotations_of, labels_of
from glebe.queueing import labels
from glebe.queueing.jobkinds.model import JobKind
from glebe.queueing.jobkinds.paths import number, path_text, read
from glebe.queueing.jobs.integrations import queue_of

_TOTAL = f"metadata.annotations[{labels.POD_GROUP_TOTAL}]"
_GROUP = f"metadata.labels[{labels.POD_GROUP}]"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
#: What of a pod's spec tells its role: pods that ask for the same are alike.
_SHAPE = (
    "nodeSelector",
    "affinity",
    "tolerations",
    "runtimeClassName",
    "priority",
    "topologySpreadConstraints",
    "overhead",
    "resourceClaims",
)


def group_of(pod: Object) -> str:
    """The name of the pod's group; empty for a single pod."""
    return annotations_of(pod).get(labels.POD_GROUP) or labels_of(pod).get(labels.POD_GROUP) or ""


def total_of(pod: Object) -> int | None:
    """How many pods its group has."""
    total = number(annotations_of(pod).get(labels.POD_GROUP_TOTAL))
    return total if total is not None and total > 0 else None


def is_held(pod: Object) -> bool:
    """Whether the pod waits for its admission."""
    return any(g.get("name") == labels.ADMISSION_GATE for g in pod["spec"].get("schedulingGates") or ())


def parent_of(pod: Object) -> str:
    """The kind of object that had the pod queued; empty when it was the pod itself."""
    return annotations_of(pod).get(labels.SUSPENDING_PARENT, "")


def is_managed(pod: Object) -> bool:
    return labels_of(pod).get(labels.MANAGED) == "true" or bool(parent_of(pod))


def role_of(pod: Object) -> str:
    """Eight digits that pods of one role share (and pods of different roles do not)."""
    if known := annotations_of(pod).get(labels.ROLE_HASH):
        return known
    spec = pod.get("spec") or {}
    shape: dict[str, Any] = {name: spec.get(name) for name in _SHAPE}
    for group in ("initContainers", "containers"):
        shape[group] = [
            {"requests": (c.get("resources") or {}).get("requests"), "ports": c.get("ports")}
            for c in spec.get(group) or ()
        ]
    if spec.get("resources"):
        shape["resources"] = spec["resources"].get("requests")
    shape["shares"] = {name: annotations_of(pod).get(name) for name in (labels.KAI_GPU_FRACTION, labels.KAI_GPU_MEMORY)}
    text = orjson.dumps(shape, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()[:8]


def hold(pod: Object, user: str = "") -> None:
    """Gate a pod that is to be queued, in place."""
    meta, spec = pod["metadata"], pod["spec"]
    notes = _child(meta, "annotations")
    if not parent_of(pod):
        _child(meta, "labels")[labels.MANAGED] = "true"
        finalizers = meta.get("finalizers") or []
        if labels.MANAGED_FINALIZER not in finalizers:
            meta["finalizers"] = [*finalizers, labels.MANAGED_FINALIZER]
        if user:
            notes.setdefault(labels.SUBMITTED_BY, user)
    gates = spec.get("schedulingGates") or []
    names = {gate.get("name") for gate in gates}
    more = [{"name": name} for name in (labels.ADMISSION_GATE, labels.GATE) if name not in names]
    spec["schedulingGates"] = [*gates, *more]
    if index := notes.get(labels.POD_GROUP_INDEX_LABEL):
        _child(meta, "labels")[labels.POD_GROUP_INDEX] = labels_of(pod).get(index, "")
    notes[labels.ROLE_HASH] = role_of(pod)


def check(pod: Object) -> list[Cause]:
    """What is wrong with a queued pod, by field."""
    group, notes = group_of(pod), annotations_of(pod)
    both = f'both the annotation "{labels.POD_GROUP_TOTAL}" and the label "{labels.POD_GROUP}" should be set'
    if labels_of(pod).get(labels.MANAGED, "true") != "true":
        why = f'Invalid value: the label "{labels.MANAGED}" can only be "true"'
        return [Cause("FieldValueForbidden", why, f"metadata.labels[{labels.MANAGED}]")]
    if not group:
        return (
            [Cause("FieldValueRequired", f"Required value: {both}", _GROUP)] if labels.POD_GROUP_TOTAL in notes else []
        )
    if not _NAME.fullmatch(group) or len(group) > 253:
        return [Cause("FieldValueInvalid", f'Invalid value: "{group}": must be a lowercase RFC 1123 subdomain', _GROUP)]
    if labels.POD_GROUP_TOTAL not in notes:
        return [Cause("FieldValueRequired", f"Required value: {both}", _TOTAL)]
    if total_of(pod) is None:
        why = f'Invalid value: "{notes[labels.POD_GROUP_TOTAL]}": must be a whole number above zero'
        return [Cause("FieldValueInvalid", why, _TOTAL)]
    return []


def check_change(old: Object, new: Object) -> list[Cause]:
    """What must not change of a queued pod."""
    if group_of(old) and group_of(old) != group_of(new):
        return [Cause("FieldValueInvalid", f'Invalid value: "{group_of(new)}": field is immutable', _GROUP)]
    if group_of(new) and is_unretriable(old) and not is_unretriable(new):
        why = "Forbidden: unretriable pod group can't be converted to retriable"
        return [Cause("FieldValueForbidden", why, f"metadata.annotations[{labels.RETRIABLE}]")]
    return []


def is_unretriable(pod: Object) -> bool:
    return annotations_of(pod).get(labels.RETRIABLE) == "false"


def mark(kind: JobKind, obj: Object) -> None:
    """Have the pods of a Deployment, StatefulSet or LeaderWorkerSet that names a queue be held, in place."""
    queue = queue_of(kind, obj)
    for rule in kind.pod_sets:
        template = read(obj, rule.template)
        if not isinstance(template, dict):
            continue
        meta = _child(template, "metadata")
        notes = _child(meta, "annotations")
        notes[labels.SUSPENDING_PARENT] = parent_word(kind)
        own = _child(meta, "labels")
        own[labels.QUEUE_NAME] = queue
        if name := labels_of(obj).get(labels.PRIORITY_CLASS):
            own[labels.PRIORITY_CLASS] = name
        if kind.held_by_pods == "each":
            own[labels.MANAGED] = "true"
        elif kind.held_by_pods == "groups":
            notes[labels.POD_GROUP_SERVING] = "true"


def parent_word(kind: JobKind) -> str:
    """The kind as pods name it that it had queued (Kueue's framework names)."""
    if kind.crd:
        return f"{kind.resource.group}/{kind.resource.kind.lower()}"
    return kind.resource.kind.lower()


def _child(obj: dict[str, Any], name: str) -> dict[str, Any]:
    value = obj.get(name)
    if not isinstance(value, dict):
        value = obj[name] = {}
    return value


def moved(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether a Deployment or set names another queue now, while pods of it are ready."""
    before, after = (((o.get("metadata") or {}).get("labels") or {}).get(labels.QUEUE_NAME) for o in (old, new))
    return before != after and bool(read(old, ("status", "readyReplicas"), 0))


def check_serving(kind: JobKind, old: Object, new: Object) -> list[Cause]:
    """What must not change of a queued StatefulSet or LeaderWorkerSet: what its quota was given for.

    Scaling a StatefulSet to zero and back is a change that it takes.
    """
    if kind.held_by_pods == "each" or not queue_of(kind, old):
        return []
    causes = []
    for rule in kind.pod_sets:
        before, after = (_pod_of(obj, rule.template) for obj in (old, new))
        if (before is None) != (after is None) or (before and after and role_of(before) != role_of(after)):
            why = "Invalid value: what pods ask for cannot change while they are queued"
            causes.append(Cause("FieldValueInvalid", why, path_text(rule.template)))
    sizes = ("spec", "replicas") if kind.held_by_pods == "set" else ("spec", "leaderWorkerTemplate", "size")
    had, has = (number(read(obj, sizes, 1)) for obj in (old, new))
    if had != has and had and has:
        why = f'Invalid value: "{has}": field is immutable while its pods are queued'
        causes.append(Cause("FieldValueInvalid", why, path_text(sizes)))
    return causes


def _pod_of(obj: Object, path: tuple[str, ...]) -> Object | None:
    """The template as a pod, without what marks it."""
    template = read(obj, path)
    if not isinstance(template, dict):
        return None
    notes = {k: v for k, v in (read(template, ("metadata", "annotations"), {})).items() if k != labels.ROLE_HASH}
    return {"metadata": {"annotations": notes}, "spec": template.get("spec") or {}}
