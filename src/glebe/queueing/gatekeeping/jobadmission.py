"""What happens to a queued job when it is created: checks and changes, pure.

Everything that the queue ever writes into a job besides ``spec.suspend`` is written here, at CREATE: so later writes
cannot fight with GitOps, and pods that appear before their gang may start are gated from birth.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from glebe.kube.errors import Cause
from glebe.kube.objects import Object, annotations_of, labels_of
from glebe.kube.pods import requests_of
from glebe.kube.quantity import QuantityError, to_int
from glebe.kube.resources import WORKLOAD_CLASSES
from glebe.queueing import labels
from glebe.queueing.jobkinds.paths import path_text
from glebe.queueing.jobkinds.shapes import Unreadable
from glebe.queueing.jobs import integrations
from glebe.queueing.jobs.construct import priority_of, slice_constraints
from glebe.queueing.jobs.integrations import Find, Integration, PodSetView, read
from glebe.queueing.picture.runtimes import parse_expected, seconds_label

#: Of one workload.
MAX_POD_SETS = 18
_NUMBERS = (("spec", "parallelism"), ("spec", "completions"))
_TOPOLOGY = (labels.REQUIRED_TOPOLOGY, labels.PREFERRED_TOPOLOGY, labels.UNCONSTRAINED_TOPOLOGY)


def suspend_and_gate(integration: Integration, job: Object, user: str = "") -> None:
    """Change ``job`` in place: suspended, and its pods gated and labelled where its kind has them so from birth."""
    _put(job, integration.suspend, True)
    queue = integrations.queue_of(integration, job)
    for rule in integration.pod_sets if integration.gated else ():
        template = read(job, rule.template)
        if not isinstance(template, dict):
            continue  # validation says what is wrong
        meta = _child(template, "metadata")
        _child(meta, "labels").update({labels.POD_SET: rule.name, labels.LOCAL_QUEUE: queue})
        if user:
            _child(meta, "annotations").setdefault(labels.SUBMITTED_BY, user)
        spec = _child(template, "spec")
        gates = spec.get("schedulingGates") or []
        if all(g.get("name") != labels.GATE for g in gates):
            spec["schedulingGates"] = [*gates, {"name": labels.GATE}]
    if user:
        _child(job["metadata"], "annotations").setdefault(labels.SUBMITTED_BY, user)


def check(integration: Integration, job: Object, find: Find) -> list[Cause]:
    """What is wrong with a queued job, by field."""
    causes: list[Cause] = []
    job_labels, notes = labels_of(job), annotations_of(job)
    for path in _NUMBERS:
        value = read(job, path)
        if integration.gated and isinstance(value, int) and value < 0:
            message = f"Invalid value: {value}: must be greater than or equal to 0"
            causes.append(Cause("FieldValueInvalid", message, path_text(path)))
    causes.extend(_check_pod_sets(integration, job, find))
    name = job_labels.get(labels.CLASS)
    if name and find(WORKLOAD_CLASSES, name) is None:
        why = (
            f'Invalid value: "{name}": there is no such WorkloadClass: see kubectl get workloadclasses, or leave it out'
        )
        causes.append(Cause("FieldValueInvalid", why, f"metadata.labels[{labels.CLASS}]"))
    elif missing := priority_of(integration, job, find).missing:
        why = f"Invalid value: there is no {missing}: create it, or name one that exists"
        causes.append(Cause("FieldValueInvalid", why, f"metadata.labels[{labels.PRIORITY_CLASS}]"))
    if labels.MAX_EXEC_TIME in job_labels and seconds_label(job_labels, labels.MAX_EXEC_TIME) is None:
        why = f'Invalid value: "{job_labels[labels.MAX_EXEC_TIME]}": must be whole seconds above zero, e.g. "3600"'
        causes.append(Cause("FieldValueInvalid", why, f"metadata.labels[{labels.MAX_EXEC_TIME}]"))
    if expected := notes.get(labels.EXPECTED_RUN_TIME):
        try:
            parse_expected(expected)
        except ValueError as error:
            field = f"metadata.annotations[{labels.EXPECTED_RUN_TIME}]"
            causes.append(Cause("FieldValueInvalid", f"Invalid value: {error}", field))
    return causes


def _check_pod_sets(integration: Integration, job: Object, find: Find) -> list[Cause]:
    try:
        views = integrations.pod_sets(integration, job, find)
    except Unreadable:
        return []  # what they are described by may come later
    causes: list[Cause] = []
    if len(views) > MAX_POD_SETS:
        why = f"Too many: {len(views)}: a job has at most {MAX_POD_SETS} sets of pods"
        causes.append(Cause("FieldValueTooMany", why, "spec"))
    for view in views:
        causes.extend(_check_template(view))
    return causes


def _check_template(view: PodSetView) -> list[Cause]:
    notes = read(view.template, ("metadata", "annotations"), {})
    where = path_text(view.place) or f"pod set {view.name}"
    field = f"{where}.metadata.annotations"
    given = [a for a in _TOPOLOGY if a in notes]
    if len(given) > 1:
        why = f"Invalid value: {', '.join(given)}: at most one of them may be given"
        return [Cause("FieldValueInvalid", why, field)]
    if why := _fault_of_slices(notes):
        return [Cause("FieldValueInvalid", f"Invalid value: {why}", field)]
    spec = view.template.get("spec") or {}
    try:
        asked = requests_of(spec)
    except (QuantityError, AttributeError, TypeError):
        return []  # the schema says it better
    if all(amount >= 0 for amount in asked.values()):
        return []
    return list(_negative_amounts(spec, f"{where}.spec"))


def _fault_of_slices(notes: dict[str, str]) -> str:
    level, size = notes.get(labels.SLICE_TOPOLOGY), notes.get(labels.SLICE_SIZE)
    nested = notes.get(labels.SLICE_CONSTRAINTS)
    if nested is not None:
        if level is not None or size is not None:
            return f"{labels.SLICE_CONSTRAINTS}: not together with {labels.SLICE_TOPOLOGY} or {labels.SLICE_SIZE}"
        try:
            slice_constraints(nested)
        except ValueError as error:
            return f"{labels.SLICE_CONSTRAINTS}: {error}"
        return ""
    if (level is None) != (size is None):
        return f"{labels.SLICE_TOPOLOGY} and {labels.SLICE_SIZE} must be given together"
    if size is not None and not (size.isdecimal() and int(size) > 0):
        return f"{labels.SLICE_SIZE}: must be a whole number above zero"
    return ""


def _negative_amounts(spec: dict[str, Any], where: str) -> Iterator[Cause]:
    for group in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(group) or ()):
            for kind, amounts in (container.get("resources") or {}).items():
                for resource, amount in amounts.items() if isinstance(amounts, dict) else ():
                    if to_int(amount, resource) < 0:
                        why = f'Invalid value: "{amount}": must be greater than or equal to 0'
                        field = f"{where}.{group}[{index}].resources.{kind}[{resource}]"
                        yield Cause("FieldValueInvalid", why, field)


def _child(obj: dict[str, Any], name: str) -> dict[str, Any]:
    value = obj.get(name)
    if not isinstance(value, dict):
        value = obj[name] = {}
    return value


def _put(obj: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        obj = _child(obj, name)
    obj[path[-1]] = value
