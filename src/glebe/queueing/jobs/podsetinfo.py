"""What an admission adds to the pods of a set, and how it is put into a pod template and taken out again. Pure.

As Kueue (``pkg/podset``): labels and tolerations of the flavors, what admission checks ask for
(``status.admissionChecks[].podSetUpdates``), the names of workload, queues and pod set, and the gate that holds pods
until they have a place. What contradicts the template cannot start.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from glebe.kube.objects import Object
from glebe.queueing import labels
from glebe.queueing.jobkinds.paths import read

#: Finds a ResourceFlavor by name.
FlavorOf = Callable[[str], Object | None]
#: Fields of a template that an admission may change: where, and what is there when nothing is.
_FIELDS: tuple[tuple[str, str, type], ...] = (
    ("metadata", "labels", dict),
    ("metadata", "annotations", dict),
    ("spec", "nodeSelector", dict),
    ("spec", "tolerations", list),
    ("spec", "schedulingGates", list),
)


class CannotStart(Exception):
    """What was assigned contradicts the pod template or another check, and always will."""


class FlavorGone(Exception):
    """A flavor of the assignment does not exist (any more): to be tried again."""


@dataclass(slots=True)
class PodSetInfo:
    """What is added to the pods of one set."""

    name: str
    count: int
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: list[dict[str, Any]] = field(default_factory=list)
    gates: list[dict[str, str]] = field(default_factory=list)


def infos(workload: Object, flavor_of: FlavorOf) -> list[PodSetInfo]:
    """One for each pod set of an admitted workload, in their order.

    :raises CannotStart: checks contradict each other or a flavor. :raises FlavorGone: see there.
    """
    status = workload["status"]
    queue_labels = {labels.LOCAL_QUEUE: workload["spec"].get("queueName") or labels.DEFAULT_QUEUE}
    queue = status["admission"]["clusterQueue"]
    if len(queue) <= 63:
        queue_labels[labels.CLUSTER_QUEUE] = queue
    requests = {p.get("name", labels.DEFAULT_POD_SET): p.get("topologyRequest") for p in workload["spec"]["podSets"]}
    out = []
    for assigned in status["admission"].get("podSetAssignments") or ():
        name = assigned.get("name", labels.DEFAULT_POD_SET)
        info = PodSetInfo(name, int(assigned.get("count", 0)))
        info.labels.update({labels.POD_SET: name, **queue_labels})
        info.annotations[labels.WORKLOAD] = workload["metadata"]["name"]
        if assigned.get("topologyAssignment"):
            info.gates.append({"name": labels.GATE})
            request = requests.get(name) or {}
            if not any(request.get(mode) for mode in ("required", "preferred", "unconstrained")):
                info.annotations[labels.UNCONSTRAINED_TOPOLOGY] = "true"
        _add_flavors(info, assigned, flavor_of)
        _add_checks(info, status.get("admissionChecks") or ())
        out.append(info)
    return out


def _add_flavors(info: PodSetInfo, assigned: Mapping[str, Any], flavor_of: FlavorOf) -> None:
    for flavor in dict.fromkeys((assigned.get("flavors") or {}).values()):
        found = flavor_of(flavor)
        if found is None:
            raise FlavorGone(f'ResourceFlavor "{flavor}" does not exist')
        spec = found.get("spec") or {}
        info.node_selector.update(spec.get("nodeLabels") or {})
        info.tolerations += [t for t in spec.get("tolerations") or () if t not in info.tolerations]


def _add_checks(info: PodSetInfo, checks: Any) -> None:
    for check in checks:
        for update in check.get("podSetUpdates") or ():
            if update.get("name") != info.name:
                continue
            where = f'admission check "{check.get("name")}"'
            _join(info.labels, update.get("labels"), f"{where}: label")
            _join(info.annotations, update.get("annotations"), f"{where}: annotation")
            _join(info.node_selector, update.get("nodeSelector"), f"{where}: node selector")
            info.tolerations += [t for t in update.get("tolerations") or () if t not in info.tolerations]
            break


def _join(into: dict[str, str], more: Mapping[str, str] | None, what: str) -> None:
    for key, value in (more or {}).items():
        if into.get(key, value) != value:
            raise CannotStart(f'{what} {key}: "{value}" contradicts "{into[key]}"')
        into[key] = value


def merge(template: dict[str, Any], info: PodSetInfo, *, gates: bool = True) -> None:
    """Put the info into a pod template (or a pod), in place.

    :raises CannotStart: the template says something else.
    """
    meta, spec = _child(template, "metadata"), _child(template, "spec")
    wanted = (("labels", meta, info.labels), ("annotations", meta, info.annotations))
    for name, holder, more in (*wanted, ("nodeSelector", spec, info.node_selector)):
        if more:
            _join(_child(holder, name), more, f"pod set {info.name}: {name}")
    lists = (("tolerations", info.tolerations), ("schedulingGates", info.gates if gates else []))
    for name, items in lists:
        have = list(spec.get(name) or ())
        have += [copy.deepcopy(item) for item in items if item not in have]
        if have:
            spec[name] = have


def originals(template: Mapping[str, Any]) -> dict[str, Any]:
    """What the template says in the fields that :func:`merge` may change."""
    out: dict[str, Any] = {}
    for part, name, _ in _FIELDS:
        if value := read(template, (part, name)):
            out[name] = copy.deepcopy(value)
    return out


def restore(template: dict[str, Any], original: Mapping[str, Any]) -> None:
    """Put these fields back as they were, in place."""
    for part, name, kind in _FIELDS:
        value = original.get(name)
        if isinstance(value, kind) and value:
            _child(template, part)[name] = copy.deepcopy(value)
        elif isinstance(template.get(part), dict):
            template[part].pop(name, None)
            if part == "metadata" and not template[part]:
                del template[part]


def _child(obj: dict[str, Any], name: str) -> dict[str, Any]:
    value = obj.get(name)
    if not isinstance(value, dict):
        value = obj[name] = {}
    return value
