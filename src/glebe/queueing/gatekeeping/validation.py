"""What is wrong with a queue, a cohort, a flavor or a workload beyond what its schema says: Kueue's webhooks, pure.

Objects are those of v1beta2. :mod:`.kindpolicy` has the same rules for queues, cohorts and flavors in CEL, for clusters
that are not embedded. Source: kueue:pkg/webhooks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Any

from glebe.kube.errors import Cause
from glebe.kube.objects import Object, condition_is_true
from glebe.kube.quantity import QuantityError, parse
from glebe.kube.resources import CLUSTER_QUEUES, COHORTS, RESOURCE_FLAVORS, WORKLOADS
from glebe.queueing import labels

_MOST_FLAVORS, _MOST_RESOURCES, _MOST_PAIRS = 256, 256, 512
_LEAST_WEIGHT = Fraction(1, 10**9)
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_NAME = re.compile(
    r"([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
)
Faults = Iterator[Cause]


def faults(kind: str, new: Object, old: Object | None) -> list[Cause]:
    """What is wrong with an object that is created (``old`` None) or changed."""
    check = _CHECKS.get(kind)
    return list(check(new, old)) if check is not None else []


def _wrong(field: str, value: Any, why: str) -> Cause:
    shown = f'"{value}"' if isinstance(value, str) else value
    return Cause("FieldValueInvalid", f"Invalid value: {shown}: {why}", field)


def _unknown(field: str, value: Any, known: Iterable[str]) -> Cause:
    listed = ", ".join(f'"{name}"' for name in sorted(known))
    return Cause("FieldValueNotSupported", f'Unsupported value: "{value}": supported values: {listed}', field)


def _twice(field: str, value: Any) -> Cause:
    return Cause("FieldValueDuplicate", f'Duplicate value: "{value}"', field)


# --- queues and cohorts


def _cluster_queue(new: Object, old: Object | None) -> Faults:
    spec = new.get("spec") or {}
    groups = spec.get("resourceGroups") or []
    yield from _groups(groups, "spec.resourceGroups", bounded_lending=True)
    yield from _sizes(groups, "spec.resourceGroups")
    yield from _weight(spec, "spec.fairSharing")
    known = {flavor["name"] for group in groups for flavor in group["flavors"]}
    checks = (spec.get("admissionChecksStrategy") or {}).get("admissionChecks") or ()
    for i, check in enumerate(checks):
        for j, name in enumerate(check.get("onFlavors") or ()):
            if name not in known:
                yield _unknown(f"spec.admissionChecksStrategy.admissionChecks[{i}].onFlavors[{j}]", name, known)
    yield from _selector((spec.get("namespaceSelector") or {}), "spec.namespaceSelector")


def _cohort(new: Object, old: Object | None) -> Faults:
    spec = new.get("spec") or {}
    yield from _groups(spec.get("resourceGroups") or [], "spec.resourceGroups", bounded_lending=False)
    yield from _weight(spec, "spec.fairSharing")


def _groups(groups: list[dict[str, Any]], path: str, *, bounded_lending: bool) -> Faults:
    resources: dict[str, None] = {}
    flavors: dict[str, None] = {}
    for i, group in enumerate(groups):
        covered = group["coveredResources"]
        for j, name in enumerate(covered):
            if not _NAME.fullmatch(name):
                yield _wrong(f"{path}[{i}].coveredResources[{j}]", name, "must be the name of a resource")
            if name in resources:
                yield _twice(f"{path}[{i}].coveredResources[{j}]", name)
            resources[name] = None
        for j, flavor in enumerate(group["flavors"]):
            at = f"{path}[{i}].flavors[{j}]"
            if flavor["name"] in flavors:
                yield _twice(f"{at}.name", flavor["name"])
            flavors[flavor["name"]] = None
            yield from _quotas(flavor["resources"], covered, at, bounded_lending)


def _quotas(quotas: list[dict[str, Any]], covered: list[str], at: str, bounded_lending: bool) -> Faults:
    for k, (quota, name) in enumerate(zip(quotas, covered, strict=False)):
        if quota["name"] != name:
            yield _wrong(f"{at}.resources[{k}].name", quota["name"], "must match the name in coveredResources")
        lent = quota.get("lendingLimit")
        if bounded_lending and lent is not None and parse(lent) > parse(quota["nominalQuota"]):
            yield _wrong(f"{at}.resources[{k}].lendingLimit", lent, "must be less than or equal to the nominalQuota")


def _sizes(groups: list[dict[str, Any]], path: str) -> Faults:
    flavors = sum(len(group["flavors"]) for group in groups)
    resources = sum(len(group["coveredResources"]) for group in groups)
    if flavors > _MOST_FLAVORS:
        yield _wrong(path, flavors, f"all resourceGroups together have at most {_MOST_FLAVORS} flavors")
    if resources > _MOST_RESOURCES:
        yield _wrong(path, resources, f"all resourceGroups together cover at most {_MOST_RESOURCES} resources")
    for i, group in enumerate(groups):
        pairs = sum(len(flavor["resources"]) for flavor in group["flavors"])
        if pairs > _MOST_PAIRS:
            yield _wrong(f"{path}[{i}]", pairs, f"a resourceGroup has at most {_MOST_PAIRS} quotas")


def _weight(spec: dict[str, Any], field: str) -> Faults:
    weight = (spec.get("fairSharing") or {}).get("weight")
    if weight is not None and 0 < parse(weight) <= _LEAST_WEIGHT:
        yield _wrong(field, weight, "when not 0, weight must be greater than 10^-9")


def _selector(selector: dict[str, Any], field: str) -> Faults:
    for i, one in enumerate(selector.get("matchExpressions") or ()):
        given, needed = bool(one.get("values")), one["operator"] in ("In", "NotIn")
        at = f"{field}.matchExpressions[{i}].values"
        if needed and not given:
            yield Cause("FieldValueRequired", "Required value: must be specified when operator is In or NotIn", at)
        if given and not needed:
            yield Cause(
                "FieldValueForbidden", "Forbidden: may not be specified when operator is Exists or DoesNotExist", at
            )


# --- flavors


def _flavor(new: Object, old: Object | None) -> Faults:
    spec = new.get("spec") or {}
    for key, value in (spec.get("nodeLabels") or {}).items():
        if not _NAME.fullmatch(key) or not _LABEL_VALUE.fullmatch(value) or len(value) > 63:
            yield _wrong("spec.nodeLabels", f"{key}={value}", "must be a label")
    seen: dict[tuple[str, str], None] = {}
    for i, taint in enumerate(spec.get("nodeTaints") or ()):
        at, mark = f"spec.nodeTaints[{i}]", (taint["key"], taint["effect"])
        if not _NAME.fullmatch(taint["key"]):
            yield _wrong(f"{at}.key", taint["key"], "must be the key of a label")
        if not _LABEL_VALUE.fullmatch(taint.get("value", "")):
            yield _wrong(f"{at}.value", taint["value"], "must be the value of a label")
        if mark in seen:
            yield Cause("FieldValueDuplicate", "Duplicate value: taints must be unique by key and effect pair", at)
        seen[mark] = None
    for i, toleration in enumerate(spec.get("tolerations") or ()):
        if toleration.get("key") and not _NAME.fullmatch(toleration["key"]):
            yield _wrong(f"spec.tolerations[{i}].key", toleration["key"], "must be the key of a label")


# --- workloads


def _workload(new: Object, old: Object | None) -> Faults:
    sets = (new.get("spec") or {}).get("podSets") or []
    yield from _pod_sets(sets)
    yield from _given(new, {s.get("name", labels.DEFAULT_POD_SET): s for s in sets})
    if old is not None and condition_is_true(old, labels.QUOTA_RESERVED):
        yield from _kept(new, old)


def _pod_sets(sets: list[dict[str, Any]]) -> Faults:
    variable = sum("minCount" in s for s in sets)
    if variable > 1:
        yield _wrong("spec.podSets", variable, "at most one podSet can use minCount")
    for i, pods in enumerate(sets):
        request, at = pods.get("topologyRequest") or {}, f"spec.podSets[{i}].topologyRequest.podSetSliceSize"
        if ("podSetSliceRequiredTopology" in request) and ("podSetSliceSize" not in request):
            yield Cause("FieldValueRequired", "Required value: must be set with podSetSliceRequiredTopology", at)
        if ("podSetSliceSize" in request) and ("podSetSliceRequiredTopology" not in request):
            yield Cause("FieldValueForbidden", "Forbidden: may not be set without podSetSliceRequiredTopology", at)
        spec = (pods.get("template") or {}).get("spec") or {}
        for group in ("initContainers", "containers"):
            for j, container in enumerate(spec.get(group) or ()):
                yield from _amounts(container.get("resources") or {}, f"spec.podSets[{i}].template.spec.{group}[{j}]")


def _amounts(resources: dict[str, Any], at: str) -> Faults:
    for kind in ("requests", "limits"):
        for name, amount in (resources.get(kind) or {}).items():
            field = f"{at}.resources.{kind}[{name}]"
            if name == "pods":
                yield _wrong(field, name, "the key is reserved for internal use")
            try:
                if parse(amount) < 0:
                    yield _wrong(field, amount, "must be greater than or equal to 0")
            except QuantityError:
                yield _wrong(field, amount, "must be a quantity")


def _given(new: Object, sets: dict[str, dict[str, Any]]) -> Faults:
    """What the status says of pod sets is of those that there are."""
    status = new.get("status") or {}
    for i, given in enumerate((status.get("admission") or {}).get("podSetAssignments") or ()):
        if given.get("name", labels.DEFAULT_POD_SET) not in sets:
            yield _unknown(f"status.admission.podSetAssignments[{i}].name", given.get("name", ""), sets)
    for i, done in enumerate(status.get("reclaimablePods") or ()):
        pods = sets.get(done["name"])
        if pods is None:
            yield _unknown(f"status.reclaimablePods[{i}].name", done["name"], sets)
        elif done["count"] > pods.get("count", 1):
            yield _wrong(f"status.reclaimablePods[{i}].count", done["count"], f"at most {pods.get('count', 1)}")
    for i, check in enumerate(status.get("admissionChecks") or ()):
        for j, update in enumerate(check.get("podSetUpdates") or ()):
            if update["name"] not in sets:
                yield _unknown(f"status.admissionChecks[{i}].podSetUpdates[{j}].name", update["name"], sets)


def _kept(new: Object, old: Object) -> Faults:
    """What may not change while quota is reserved."""
    before, after = old.get("spec") or {}, new.get("spec") or {}
    if len(before.get("podSets") or ()) != len(after.get("podSets") or ()):
        yield _wrong("spec.podSets", len(after.get("podSets") or ()), "field is immutable while quota is reserved")
        return
    for i, (was, now) in enumerate(zip(before["podSets"], after["podSets"], strict=True)):
        fewer = now.get("count", 1) < was.get("count", 1)  # an elastic job gives pods back
        if {**now, "count": was.get("count", 1)} != {**was, "count": was.get("count", 1)} or (
            now.get("count", 1) != was.get("count", 1) and not fewer
        ):
            yield _wrong(f"spec.podSets[{i}]", now.get("name", ""), "field is immutable while quota is reserved")
    still = condition_is_true(new, labels.QUOTA_RESERVED)
    if still and before.get("queueName") != after.get("queueName"):
        yield _wrong("spec.queueName", after.get("queueName", ""), "field is immutable while quota is reserved")
    was, now = before.get("priorityClassRef") or {}, after.get("priorityClassRef") or {}
    if (was.get("group"), was.get("kind")) != (now.get("group"), now.get("kind")):
        yield _wrong("spec.priorityClassRef", now.get("name", ""), "field is immutable while quota is reserved")


_CHECKS: dict[str, Callable[[Object, Object | None], Faults]] = {
    CLUSTER_QUEUES.kind: _cluster_queue,
    COHORTS.kind: _cohort,
    RESOURCE_FLAVORS.kind: _flavor,
    WORKLOADS.kind: _workload,
}
