"""Rules of batch/v1 Job and CronJob: counts, modes, policies, and what may never change."""

from __future__ import annotations

import copy
import re
from typing import Any

from glebe.apiserver.types.placementvalidation import label_selector
from glebe.apiserver.types.podvalidation import template
from glebe.kube import cron
from glebe.kube import names as n
from glebe.kube.errors import Cause
from glebe.kube.objects import Object
from glebe.kube.selectors import LabelSelector

Spec = dict[str, Any]

_COUNTS = (
    "parallelism",
    "completions",
    "activeDeadlineSeconds",
    "backoffLimit",
    "ttlSecondsAfterFinished",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
)
_MAX_INDEXED = 100_000
_ZONE_PART = re.compile(r"(?!-)[A-Za-z.\-_0-9+]{1,14}")
#: Fields that never change.
_IMMUTABLE = ("selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy")
#: Fields of the pod template that may still change while the job has not started.
_DIRECTIVES = ("nodeSelector", "tolerations", "schedulingGates")


def validate_job(obj: Object, old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    if old is not None and spec == old.get("spec"):
        return []
    causes = _job_spec(spec, "spec")
    if old is None:
        causes += _selector(obj, spec)
        causes += _index_names(obj["metadata"].get("name", ""), spec)
        return causes
    return causes + _update(obj, old)


def validate_cron_job(obj: Object, old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    before = (old or {}).get("spec") or {}
    causes += _schedule(spec, before)
    if old is None or before.get("timeZone") != spec.get("timeZone"):
        causes += _time_zone(spec.get("timeZone"))
    for field in ("startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        causes += n.non_negative(f"spec.{field}", spec.get(field))
    if old is None and len(obj["metadata"].get("name", "")) > 52:
        causes.append(n.invalid("metadata.name", obj["metadata"]["name"], "must be no more than 52 characters"))
    return causes + _job_spec((spec.get("jobTemplate") or {}).get("spec") or {}, "spec.jobTemplate.spec")


def _schedule(spec: Spec, before: Spec) -> list[Cause]:
    schedule = spec.get("schedule", "")
    if not schedule:
        return [n.required("spec.schedule")]
    causes: list[Cause] = []
    try:
        cron.parse(schedule)
    except cron.ScheduleError as error:
        causes.append(n.invalid("spec.schedule", schedule, str(error)))
    why = ""
    if "TZ" in schedule and "TZ" not in before.get("schedule", ""):
        why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
    elif "TZ" in schedule and spec.get("timeZone") is not None:
        why = "cannot use both timeZone field and TZ or CRON_TZ in schedule"
    if why:
        causes.append(n.invalid("spec.schedule", schedule, why))
    return causes


def _time_zone(zone: str | None) -> list[Cause]:
    if zone is None:
        return []
    if not zone:
        return [n.invalid("spec.timeZone", zone, "timeZone must be nil or non-empty string")]
    if any(part in (".", "..") or not _ZONE_PART.fullmatch(part) for part in zone.split("/")):
        return [n.invalid("spec.timeZone", zone, f"unknown time zone {zone}")]
    causes: list[Cause] = []
    if zone.lower() == "local":
        why = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
        causes.append(n.invalid("spec.timeZone", zone, why))
    try:
        cron.location(zone)
    except cron.ScheduleError as error:
        if zone != "Local":
            causes.append(n.invalid("spec.timeZone", zone, str(error)))
    return causes


def _job_spec(spec: Spec, path: str) -> list[Cause]:
    causes: list[Cause] = []
    for field in _COUNTS:
        causes += n.non_negative(f"{path}.{field}", spec.get(field))
    indexed = spec.get("completionMode") == "Indexed"
    if indexed:
        causes += _indexed(spec, path)
    elif spec.get("backoffLimitPerIndex") is not None:
        causes.append(
            n.invalid(f"{path}.backoffLimitPerIndex", spec["backoffLimitPerIndex"], "requires indexed completion mode")
        )
    if spec.get("maxFailedIndexes") is not None:
        if spec.get("backoffLimitPerIndex") is None:
            causes.append(n.required(f"{path}.backoffLimitPerIndex", "when maxFailedIndexes is specified"))
        if not indexed:
            causes.append(
                n.invalid(f"{path}.maxFailedIndexes", spec["maxFailedIndexes"], "requires indexed completion mode")
            )
    manager = spec.get("managedBy")
    if manager is not None and ("/" not in manager or n.key_faults(manager)):
        causes.append(n.invalid(f"{path}.managedBy", manager, 'must be a domain-prefixed path (such as "acme.io/foo")'))
    pod = spec.get("template") or {}
    if spec.get("podFailurePolicy") is not None:
        causes += _failure_policy(spec, f"{path}.podFailurePolicy")
    if spec.get("successPolicy") is not None:
        causes += _success_policy(spec, f"{path}.successPolicy")
    label_selector(spec.get("selector"), f"{path}.selector", causes)
    causes += template(pod, f"{path}.template")
    if (pod.get("spec") or {}).get("restartPolicy") not in ("OnFailure", "Never"):
        where = f"{path}.template.spec.restartPolicy"
        causes = [c for c in causes if c.field != where]
        causes.append(n.required(where, 'valid values: "OnFailure", "Never"'))
    return causes


def _indexed(spec: Spec, path: str) -> list[Cause]:
    causes: list[Cause] = []
    if spec.get("completions") is None:
        causes.append(n.required(f"{path}.completions", "when completion mode is Indexed"))
    parallelism = spec.get("parallelism") or 0
    if parallelism > _MAX_INDEXED:
        why = f"must be less than or equal to {_MAX_INDEXED} when completion mode is Indexed"
        causes.append(n.invalid(f"{path}.parallelism", parallelism, why))
    if (spec.get("maxFailedIndexes") or 0) > (spec.get("completions") or 0):
        why = "must be less than or equal to completions"
        causes.append(n.invalid(f"{path}.maxFailedIndexes", spec["maxFailedIndexes"], why))
    return causes


def _failure_policy(spec: Spec, path: str) -> list[Cause]:
    causes: list[Cause] = []
    rules = spec["podFailurePolicy"].get("rules") or ()
    if (spec.get("template") or {}).get("spec", {}).get("restartPolicy") != "Never":
        policy = (spec.get("template") or {}).get("spec", {}).get("restartPolicy", "")
        causes.append(
            n.invalid(
                "spec.template.spec.restartPolicy",
                policy,
                'only "Never" is supported when podFailurePolicy is specified',
            )
        )
    if len(rules) > 20:
        causes.append(
            Cause("FieldValueTooMany", f"Too many: {len(rules)}: must have at most 20 items", f"{path}.rules")
        )
    for index, rule in enumerate(rules):
        where = f"{path}.rules[{index}]"
        if not rule.get("action"):
            allowed = ("Count", "FailIndex", "FailJob", "Ignore")
            causes.append(n.required(f"{where}.action", "valid values: " + ", ".join(n.show(a) for a in allowed)))
        elif rule["action"] == "FailIndex" and spec.get("backoffLimitPerIndex") is None:
            causes.append(n.invalid(f"{where}.action", "FailIndex", "requires the backoffLimitPerIndex to be set"))
        codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions")
        if codes is not None:
            causes += _exit_codes(codes, f"{where}.onExitCodes", spec)
        if codes is not None and conditions:
            why = "specifying both OnExitCodes and OnPodConditions is not supported"
            causes.append(Cause("FieldValueInvalid", f"Invalid value: {why}", where))
        if codes is None and not conditions:
            why = "specifying one of OnExitCodes and OnPodConditions is required"
            causes.append(Cause("FieldValueInvalid", f"Invalid value: {why}", where))
    return causes


def _exit_codes(codes: Spec, path: str, spec: Spec) -> list[Cause]:
    causes: list[Cause] = []
    operator, values = codes.get("operator", ""), codes.get("values") or ()
    if not operator:
        causes.append(n.required(f"{path}.operator", 'valid values: "In", "NotIn"'))
    name = codes.get("containerName")
    pod = (spec.get("template") or {}).get("spec") or {}
    known = [c.get("name") for c in (*(pod.get("containers") or ()), *(pod.get("initContainers") or ()))]
    if name is not None and name not in known:
        causes.append(
            n.invalid(
                f"{path}.containerName", name, "must be one of the container or initContainer names in the pod template"
            )
        )
    if not values:
        causes.append(n.invalid(f"{path}.values", [], "at least one value is required"))
    for index, value in enumerate(values):
        if operator == "In" and value == 0:
            causes.append(n.invalid(f"{path}.values[{index}]", value, "must not be 0 for the In operator"))
        if value in values[:index]:
            causes.append(n.duplicate(f"{path}.values[{index}]", value))
        elif index and value < values[index - 1]:
            causes.append(n.invalid(f"{path}.values", list(values), "must be ordered"))
    return causes


def _success_policy(spec: Spec, path: str) -> list[Cause]:
    policy = spec["successPolicy"]
    if spec.get("completionMode") != "Indexed":
        return [n.invalid(path, policy, "requires indexed completion mode")]
    rules = policy.get("rules") or ()
    if not rules:
        return [n.required(f"{path}.rules", "at least one rules must be specified when the successPolicy is specified")]
    causes: list[Cause] = []
    total = spec.get("completions") or 0
    for index, rule in enumerate(rules):
        where = f"{path}.rules[{index}]"
        count, indexes = rule.get("succeededCount"), rule.get("succeededIndexes")
        if count is None and indexes is None:
            causes.append(n.required(where, "at least one of succeededCount or succeededIndexes must be specified"))
        size: int | None = None
        if indexes is not None:
            size, fault = _index_count(indexes, total)
            if fault:
                causes.append(
                    n.invalid(f"{where}.succeededIndexes", indexes, f"error parsing succeededIndexes: {fault}")
                )
        if count is not None:
            field = f"{where}.succeededCount"
            causes += n.non_negative(field, count)
            if count > total:
                why = f"must be less than or equal to {total} (the number of specified completions)"
                causes.append(n.invalid(field, count, why))
            if size is not None and count > size:
                what = "the number of indexes in the specified succeededIndexes field"
                why = f"must be less than or equal to {size} ({what})"
                causes.append(n.invalid(field, count, why))
    return causes


def _index_count(text: str, completions: int) -> tuple[int, str]:
    """How many indexes ``1,3-5`` names, and what is wrong with it."""
    total, last = 0, -1
    for part in text.split(","):
        first, dash, end = part.partition("-")
        if not first.isdecimal() or (dash and not end.isdecimal()):
            return 0, f'cannot convert string to integer for index: "{part}"'
        low, high = int(first), int(end or first)
        if high >= completions:
            return 0, f'too large index: "{end or first}"'
        if low <= last or (dash and high <= low):
            return 0, f"non-increasing order, previous: {last}, current: {low}"
        total, last = total + high - low + 1, high
    return total, ""


def _selector(obj: Object, spec: Spec) -> list[Cause]:
    """The selector must be the generated one, or asked for with ``manualSelector``, and choose the template's pods."""
    causes: list[Cause] = []
    selector = spec.get("selector")
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    if selector is None:
        causes.append(n.required("spec.selector"))
    uid = obj["metadata"].get("uid")
    if selector is not None and not spec.get("manualSelector") and uid:
        wanted = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
        if selector != wanted:
            causes.append(n.invalid("spec.selector", selector, "`selector` not auto-generated"))
    if selector is None or not LabelSelector.from_object(selector).matches(labels or {}):
        why = "`selector` does not match template `labels`"
        causes.append(n.invalid("spec.template.metadata.labels", labels, why))
    return causes


def _index_names(name: str, spec: Spec) -> list[Cause]:
    """An Indexed job's pods are called NAME-INDEX, which must be a host name."""
    completions = spec.get("completions") or 0
    if spec.get("completionMode") != "Indexed" or completions <= 0:
        return []
    host = f"{name}-{completions - 1}"
    if not n.label_faults(host):
        return []
    return [n.invalid("metadata.name", name, f"will not able to create pod with invalid DNS label: {host}")]


def _update(obj: Object, old: Object) -> list[Cause]:
    spec, before = obj.get("spec") or {}, old.get("spec") or {}
    causes: list[Cause] = []
    if spec.get("completions") != before.get("completions"):
        elastic = spec.get("completionMode") == "Indexed" and spec.get("completions") is not None
        if not elastic:
            causes.append(n.invalid("spec.completions", spec.get("completions"), "field is immutable"))
        elif spec.get("completions") != spec.get("parallelism"):
            why = "can only be modified in tandem with spec.parallelism"
            causes.append(n.invalid("spec.completions", spec["completions"], why))
    causes.extend(
        n.invalid(f"spec.{field}", spec.get(field), "field is immutable")
        for field in _IMMUTABLE
        if spec.get(field) != before.get(field)
    )
    after, template_before = spec.get("template") or {}, before.get("template") or {}
    if after != template_before:
        if before.get("suspend") and not (old.get("status") or {}).get("startTime"):
            after, template_before = _without_directives(after), _without_directives(template_before)
        if after != template_before:
            causes.append(n.invalid("spec.template", spec.get("template"), "field is immutable"))
    return causes


def _without_directives(pod: Spec) -> Spec:
    """A template without what a queue may set before the job starts."""
    out = copy.deepcopy(pod)
    for field in ("labels", "annotations"):
        (out.get("metadata") or {}).pop(field, None)
    if not out.get("metadata"):
        out.pop("metadata", None)
    spec = out.get("spec") or {}
    for field in _DIRECTIVES:
        spec.pop(field, None)
    affinity = spec.get("affinity") or {}
    affinity.pop("nodeAffinity", None)
    if not affinity:
        spec.pop("affinity", None)
    for item in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        item.pop("resources", None)
    return out
