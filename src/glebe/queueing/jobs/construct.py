"""From a job to its Workload: pure."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from glebe.kube.objects import Object, annotations_of, labels_of, owner_reference
from glebe.kube.resources import PRIORITY_CLASSES, WORKLOAD_CLASSES, WORKLOAD_PRIORITY_CLASSES, WORKLOADS, Resource
from glebe.queueing import labels
from glebe.queueing.jobkinds.shapes import Unreadable
from glebe.queueing.jobs import integrations
from glebe.queueing.jobs.foreign import with_shares
from glebe.queueing.jobs.integrations import Find, Integration, PodSetView, read
from glebe.queueing.picture.runtimes import seconds_label

#: Annotations of a job that its waiting workload follows.
FOLLOWED = (labels.EXPECTED_RUN_TIME, labels.CHECKPOINT_GRACE, labels.ADMISSION_GATED_BY)


@dataclass(frozen=True, slots=True)
class Priority:
    """A priority and the class it comes from; ``missing`` names a class that the job asks for and that is not there."""

    value: int
    ref: dict[str, str] | None = None
    missing: str = ""


def workload_name(integration: Integration, job: Object) -> str:
    """``job-NAME-HASH``: stable for one job object, different for another job of the same name."""
    return name_for(integration, job, job["metadata"]["name"])


def name_for(integration: Integration, job: Object, name: str) -> str:
    """The same for a part of the job."""
    prefix = f"{integration.resource.kind.lower()}-{name}"
    uid = job["metadata"].get("uid", "")
    seed = "\n".join((integration.resource.kind, integration.resource.group, name, uid))
    digest = hashlib.sha1(seed.encode(), usedforsecurity=False).hexdigest()[:5]
    return f"{prefix[:247]}-{digest}"


def workload_for(
    integration: Integration, job: Object, priority: Priority, find: Find | None = None, copied: Sequence[str] = ()
) -> Object:
    """The Workload that queues ``job``.

    :param copied: labels of the job that it gets as well.
    :raises glebe.queueing.jobkinds.shapes.Unreadable: its pods cannot be told yet.
    """
    views = integrations.pod_sets(integration, job, find)
    spec: dict[str, Any] = {
        "podSets": [pod_set(view) for view in views],
        "queueName": integrations.queue_of(integration, job) or labels.DEFAULT_QUEUE,
        "priority": priority.value,
        "active": True,
    }
    return workload_of(job, workload_name(integration, job), spec, priority, copied)


def workload_of(job: Object, name: str, spec: dict[str, Any], priority: Priority, copied: Sequence[str] = ()) -> Object:
    """A Workload that belongs to ``job``, with what labels and annotations of the job say of it."""
    meta = job["metadata"]
    if priority.ref:
        spec["priorityClassRef"] = dict(priority.ref)
    bound = seconds_label(labels_of(job), labels.MAX_EXEC_TIME)
    if bound is not None:
        spec["maximumExecutionTimeSeconds"] = bound
    kept = {k: v for k, v in labels_of(job).items() if k in (labels.CLASS, labels.QUEUE_NAME, *copied)}
    workload: Object = {
        "apiVersion": WORKLOADS.api_version,
        "kind": WORKLOADS.kind,
        "metadata": {
            "name": name,
            "namespace": meta["namespace"],
            "labels": {labels.JOB_UID: meta["uid"], **kept},
            "ownerReferences": [owner_reference(job)],
        },
        "spec": spec,
    }
    notes = annotations_of(job)
    told = {k: notes[k] for k in (*FOLLOWED, labels.SUBMITTED_BY) if k in notes}
    if priority.missing:
        told[labels.MISSING_CLASS] = priority.missing
    if told:
        workload["metadata"]["annotations"] = told
    return workload


def pod_set(view: PodSetView) -> dict[str, Any]:
    """``spec.podSets[]`` of a Workload."""
    template = copy.deepcopy(with_shares(view.template))
    meta = {k: v for k, v in (template.get("metadata") or {}).items() if k in ("labels", "annotations") and v}
    out: dict[str, Any] = {
        "name": view.name,
        "count": view.count,
        "template": {"metadata": meta, "spec": template.get("spec") or {}},
    }
    if view.min_count is not None:
        out["minCount"] = view.min_count
    request = topology_request(meta.get("annotations") or {})
    if request is not None:
        if view.pod_index:
            request["podIndexLabel"] = view.pod_index
        if view.group_index and view.groups is not None:
            request.update(subGroupIndexLabel=view.group_index, subGroupCount=view.groups)
        out["topologyRequest"] = request
    return out


def topology_request(annotations: dict[str, str]) -> dict[str, Any] | None:
    """``topologyRequest`` from the annotations of a pod template."""
    cut = _slices(annotations)
    group = {"podSetGroupName": name} if (name := annotations.get(labels.POD_SET_GROUP)) else {}
    if level := annotations.get(labels.REQUIRED_TOPOLOGY):
        return {"required": level, **cut, **group}
    if level := annotations.get(labels.PREFERRED_TOPOLOGY):
        return {"preferred": level, **cut, **group}
    if annotations.get(labels.UNCONSTRAINED_TOPOLOGY) == "true":
        return {"unconstrained": True, **cut}
    return cut or None


def _slices(annotations: dict[str, str]) -> dict[str, Any]:
    """The slices' part of a request; a size that is no number is 0, which no flavor takes, and says so."""
    if text := annotations.get(labels.SLICE_CONSTRAINTS):
        try:
            parts = slice_constraints(text)
        except ValueError:
            parts = [{"topology": "unreadable", "size": 0}]
        return {"podsetSliceRequiredTopologyConstraints": parts}
    if level := annotations.get(labels.SLICE_TOPOLOGY):
        size = annotations.get(labels.SLICE_SIZE, "")
        return {"podSetSliceRequiredTopology": level, "podSetSliceSize": int(size) if size.isdecimal() else 0}
    return {}


def slice_constraints(text: str) -> list[dict[str, Any]]:
    """Nested slices as annotations have them: a JSON list of ``{"topology": LEVEL, "size": PODS}``.

    :raises ValueError: when it is anything else.
    """
    items = json.loads(text)
    if not isinstance(items, list) or not items:
        raise ValueError("must be a JSON list with at least one item")
    for item in items:
        if not isinstance(item, dict) or set(item) != {"topology", "size"}:
            raise ValueError("each item must have topology and size")
        if not item["topology"] or not isinstance(item["topology"], str):
            raise ValueError("topology must be a node label")
        if type(item["size"]) is not int or item["size"] < 1:
            raise ValueError("size must be a whole number above zero")
    return items


def priority_of(integration: Integration, job: Object, find: Find) -> Priority:
    """The first that is given: the priority-class label, the class, the pods' priorityClassName; else 0."""
    if (named := _named_priority(job, find)) is not None:
        return named
    for path in integration.priority:
        if isinstance(name := read(job, path), str) and name:
            return _from(find, PRIORITY_CLASSES, name, ("value",))
    try:
        views = integrations.pod_sets(integration, job, find)
    except Unreadable:
        return Priority(0)  # nothing is made of it before they are told
    return _priority_of_sets(views, find)


def priority_of_pods(about: Object, views: Sequence[PodSetView], find: Find) -> Priority:
    """The same for pods that are queued themselves."""
    named = _named_priority(about, find)
    return named if named is not None else _priority_of_sets(views, find)


def _named_priority(obj: Object, find: Find) -> Priority | None:
    own = labels_of(obj)
    if name := own.get(labels.PRIORITY_CLASS):
        return _from(find, WORKLOAD_PRIORITY_CLASSES, name, ("value",))
    if name := own.get(labels.CLASS):
        return _from(find, WORKLOAD_CLASSES, name, ("spec", "priority"))
    return None


def _priority_of_sets(views: Sequence[PodSetView], find: Find) -> Priority:
    for view in views:
        if name := read(view.template, ("spec", "priorityClassName")):
            return _from(find, PRIORITY_CLASSES, name, ("value",))
    return Priority(0)


def class_text(kind: str, name: str) -> str:
    """How a class is named in messages and in the annotation that says that it is missing."""
    return f'{kind} "{name}"'


def missing_class(integration: Integration, job: Object, find: Find) -> str:
    """The class that ``job`` names and that does not exist, as :func:`class_text`; empty when all are there."""
    return missing_class_of(job, find) or priority_of(integration, job, find).missing


def missing_class_of(obj: Object, find: Find) -> str:
    """The WorkloadClass that ``obj`` names and that does not exist."""
    name = labels_of(obj).get(labels.CLASS)
    return class_text(WORKLOAD_CLASSES.kind, name) if name and find(WORKLOAD_CLASSES, name) is None else ""


def _from(find: Find, resource: Resource, name: str, path: tuple[str, ...]) -> Priority:
    obj = find(resource, name)
    if obj is None:
        return Priority(0, missing=class_text(resource.kind, name))
    return Priority(int(read(obj, path, 0)), {"group": resource.group, "kind": resource.kind, "name": name})


def in_sync(workload: Object, desired: Object) -> bool:
    """Whether the workload still says what its job says (priority and activity may be set by hand)."""
    have, want = workload["spec"], desired["spec"]
    return all(have.get(f) == want.get(f) for f in ("podSets", "queueName", "maximumExecutionTimeSeconds")) and all(
        (workload["metadata"].get("annotations") or {}).get(a) == (desired["metadata"].get("annotations") or {}).get(a)
        for a in (*FOLLOWED, labels.MISSING_CLASS)
    )


def still_fits(workload: Object, desired: Object) -> bool:
    """Whether a job that holds quota is still the one that it was given for.

    Pod templates carry what the admission added, and operators add defaults: as in Kueue, numbers and containers count
    (kueue:pkg/util/equality). Where fewer pods were admitted than asked for, the number admitted counts as well.
    """
    have, want = workload["spec"], desired["spec"]
    if any(have.get(f) != want.get(f) for f in ("queueName", "maximumExecutionTimeSeconds")):
        return False
    if len(have["podSets"]) != len(want["podSets"]):
        return False
    given = {a.get("name"): a.get("count") for a in read(workload, ("status", "admission", "podSetAssignments"), ())}
    for old, new in zip(have["podSets"], want["podSets"], strict=True):
        if old.get("name") != new["name"] or new["count"] not in (old.get("count"), given.get(old.get("name"))):
            return False
        before, after = read(old, ("template", "spec"), {}), new["template"]["spec"]
        if any((before.get(f) or []) != (after.get(f) or []) for f in ("containers", "initContainers")):
            return False
    return True
