"""From ``kueue.x-k8s.io/v1beta1`` to v1beta2 and back, as Kueue converts, and without loss.

A field that the other version has no place for travels in an annotation of the converted object
(:data:`.labels.FIELDS_OF_V1BETA1` and ``FIELDS_OF_V1BETA2``) and stands in its place again when the object comes back:
a client of either version may read, change and write an object, and what it does not know stays.

Source: kueue:apis/kueue/v1beta1/*_conversion.go. Pure.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from glebe.kube.objects import Object
from glebe.kube.resources import CLUSTER_QUEUES, LOCAL_QUEUES, WORKLOADS
from glebe.queueing import labels
from glebe.queueing.jobs.keptfields import Kept, put_back, take_out
from glebe.queueing.picture import topology

GROUP = WORKLOADS.group
#: (namespace, name) of the service that the definitions name: the embedded server itself is it.
SERVICE = ("glebe-system", "glebe-conversion")
OLD, NEW = f"{GROUP}/v1beta1", f"{GROUP}/v1beta2"

_OLD_SOURCES = {
    "kueue.x-k8s.io/workloadpriorityclass": ("kueue.x-k8s.io", "WorkloadPriorityClass"),
    "scheduling.k8s.io/priorityclass": ("scheduling.k8s.io", "PriorityClass"),
}
_NEW_SOURCES = {ref: source for source, ref in _OLD_SOURCES.items()}
#: Where fungibility had other words: field -> the old word for MayStopSearch.
_OLD_WORDS = {"whenCanBorrow": "Borrow", "whenCanPreempt": "Preempt"}


@dataclass(frozen=True, slots=True)
class Form:
    """How the two versions of a kind differ.

    :param forward: rewrites a v1beta1 object in place; returns what it could not say.
    :param back: rewrites a v1beta2 object in place, told what v1beta1 once said; returns what of that still holds, and
        what v1beta1 cannot say.
    :param only_old: paths that only v1beta1 has; ``[]`` stands for the items of a list, told apart by name.
    :param only_new: paths that only v1beta2 has.
    """

    forward: Callable[[Object], Kept]
    back: Callable[[Object, Kept], tuple[Kept, Kept]]
    only_old: tuple[str, ...] = ()
    only_new: tuple[str, ...] = ()


def convert(objects: list[Object], api_version: str) -> list[Object]:
    """Copies of ``objects`` in the other version; those that are in it already are passed on.

    :raises ValueError: another group or version.
    """
    if api_version not in (OLD, NEW):
        raise ValueError(f"{api_version} is not served")
    return [obj if obj.get("apiVersion") == api_version else _converted(obj, api_version) for obj in objects]


def review(body: dict[str, Any]) -> dict[str, Any]:
    """Answer a ``ConversionReview`` of apiextensions.k8s.io/v1."""
    request = body.get("request") or {}
    answer: dict[str, Any] = {"uid": request.get("uid", ""), "convertedObjects": []}
    try:
        answer["convertedObjects"] = convert(request.get("objects") or [], request.get("desiredAPIVersion", ""))
        answer["result"] = {"status": "Success"}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        answer["result"] = {"status": "Failure", "message": f"{type(error).__name__}: {error}"}
    return {"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": answer}


def _converted(obj: Object, api_version: str) -> Object:
    if obj.get("apiVersion") not in (OLD, NEW):
        raise ValueError(f"{obj.get('apiVersion')} is not served")
    out = copy.deepcopy(obj)
    out["apiVersion"] = api_version
    form = FORMS.get(out.get("kind", ""))
    if form is None:
        return out
    if api_version == NEW:
        came_with = _unpack(out, labels.FIELDS_OF_V1BETA2)
        kept = [*take_out(out, form.only_old), *form.forward(out)]
        put_back(out, came_with)
        _pack(out, labels.FIELDS_OF_V1BETA1, kept)
    else:
        came_with = _unpack(out, labels.FIELDS_OF_V1BETA1)
        kept = take_out(out, form.only_new)
        holds, more = form.back(out, came_with)
        put_back(out, holds)
        _pack(out, labels.FIELDS_OF_V1BETA2, [*kept, *more])
    return out


def _unpack(obj: Object, annotation: str) -> Kept:
    notes = (obj.get("metadata") or {}).get("annotations") or {}
    text = notes.pop(annotation, None)
    if text is None:
        return []
    if not notes:
        del obj["metadata"]["annotations"]
    try:
        found = orjson.loads(text)
    except (orjson.JSONDecodeError, TypeError):
        return []  # somebody else wrote it
    well_formed = isinstance(found, list) and all(isinstance(f, list) and len(f) == 2 for f in found)
    return [(path, value) for path, value in found if isinstance(path, list)] if well_formed else []


def _pack(obj: Object, annotation: str, kept: Kept) -> None:
    if kept:
        notes = obj.setdefault("metadata", {}).setdefault("annotations", {})
        notes[annotation] = orjson.dumps(kept).decode()


def _rename(holder: Any, old: str, new: str) -> None:
    if isinstance(holder, dict) and old in holder:
        holder[new] = holder.pop(old)


# --- ClusterQueue


def _queue_forward(obj: Object) -> Kept:
    spec = obj.get("spec") or {}
    kept: Kept = []
    _rename(spec, "cohort", "cohortName")
    names = spec.pop("admissionChecks", None)
    if names:
        spec["admissionChecksStrategy"] = _strategy(names)
    if names is not None:
        kept.append((["spec", "admissionChecks"], names))
    fungibility = spec.get("flavorFungibility") or {}
    for field, word in _OLD_WORDS.items():
        if fungibility.get(field) == word:
            fungibility[field] = "MayStopSearch"
            kept.append((["spec", "flavorFungibility", field], word))
    strategy = spec.get("admissionChecksStrategy")
    if strategy is not None and not strategy.get("admissionChecks"):  # means the same and is not allowed any more
        kept.append((["spec", "admissionChecksStrategy"], spec.pop("admissionChecksStrategy")))
    return kept


def _queue_back(obj: Object, kept: Kept) -> tuple[Kept, Kept]:
    spec = obj.get("spec") or {}
    _rename(spec, "cohortName", "cohort")
    return [entry for entry in kept if _still_means(spec, entry[0], entry[1])], []


def _still_means(spec: dict[str, Any], path: list[Any], value: Any) -> bool:
    """Whether what v1beta1 once said is still what the object means; takes away what says the same in other words."""
    if path == ["spec", "admissionChecks"]:
        if value and spec.get("admissionChecksStrategy") == _strategy(value):
            del spec["admissionChecksStrategy"]
            return True
        return not value
    if path[:2] == ["spec", "flavorFungibility"]:
        fungibility = spec.get("flavorFungibility") or {}
        return fungibility.get(path[-1]) == "MayStopSearch" and bool(fungibility.pop(path[-1]))
    return True


def _strategy(names: list[str]) -> dict[str, Any]:
    return {"admissionChecks": [{"name": name} for name in names]}


# --- LocalQueue


def _local_forward(obj: Object) -> Kept:
    _rename(obj.get("status"), "flavorUsage", "flavorsUsage")
    return []


def _local_back(obj: Object, kept: Kept) -> tuple[Kept, Kept]:
    _rename(obj.get("status"), "flavorsUsage", "flavorUsage")
    return kept, []


# --- Workload


def _workload_forward(obj: Object) -> Kept:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    kept: Kept = []
    name, source = spec.pop("priorityClassName", None), spec.pop("priorityClassSource", None)
    if source in _OLD_SOURCES and name:
        group, kind = _OLD_SOURCES[source]
        spec["priorityClassRef"] = {"group": group, "kind": kind, "name": name}
    else:
        if name is not None:
            kept.append((["spec", "priorityClassName"], name))
        if source:
            kept.append((["spec", "priorityClassSource"], source))
    _rename(status, "accumulatedPastExexcutionTimeSeconds", "accumulatedPastExecutionTimeSeconds")
    for assignment in (status.get("admission") or {}).get("podSetAssignments") or ():
        if (old := assignment.get("topologyAssignment")) is not None:
            found = [(tuple(d["values"]), int(d["count"])) for d in old.get("domains") or ()]
            assignment["topologyAssignment"] = topology.compact(old["levels"], found)
    return kept


def _workload_back(obj: Object, kept: Kept) -> tuple[Kept, Kept]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    more: Kept = []
    if (ref := spec.pop("priorityClassRef", None)) is not None:
        kept = [entry for entry in kept if entry[0][-1] not in ("priorityClassName", "priorityClassSource")]
        source = _NEW_SOURCES.get((ref.get("group"), ref.get("kind")))
        if source is not None:
            spec["priorityClassSource"], spec["priorityClassName"] = source, ref["name"]
        else:  # a WorkloadClass
            more.append((["spec", "priorityClassRef"], ref))
    _rename(status, "accumulatedPastExecutionTimeSeconds", "accumulatedPastExexcutionTimeSeconds")
    for assignment in (status.get("admission") or {}).get("podSetAssignments") or ():
        if (new := assignment.get("topologyAssignment")) is not None:
            domains = [{"values": list(values), "count": count} for values, count in topology.domains(new)]
            assignment["topologyAssignment"] = {"levels": new["levels"], "domains": domains}
    return kept, more


#: The kinds that differ; all others differ by their ``apiVersion`` only.
FORMS: dict[str, Form] = {
    CLUSTER_QUEUES.kind: Form(
        _queue_forward,
        _queue_back,
        only_old=("status.pendingWorkloadsStatus", "status.fairSharing.admissionFairSharingStatus"),
        only_new=("spec.concurrentAdmissionPolicy",),
    ),
    LOCAL_QUEUES.kind: Form(_local_forward, _local_back, only_old=("status.flavors",)),
    WORKLOADS.kind: Form(
        _workload_forward,
        _workload_back,
        only_new=(
            "spec.preemptionGates",
            "status.preemptionGates",
            "spec.podSets[].topologyRequest.podsetSliceRequiredTopologyConstraints",
        ),
    ),
}
