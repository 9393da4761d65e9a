"""batch/v1 Job."""

from __future__ import annotations

from glebe.apiserver.strategy.base import Strategy
from glebe.apiserver.types.registry import ResourceInfo
from glebe.kube.errors import Cause
from glebe.kube.objects import Object, condition_is_true

_CONDITIONS = "status.conditions"


class JobStrategy(Strategy):
    """Whoever keeps a Job's status (our controller or one named by ``managedBy``) must end it in an orderly way."""

    def __init__(self, info: ResourceInfo) -> None:
        super().__init__(info)
        self.default_orphans = True

    def validate_update(self, obj: Object, old: Object, subresource: str) -> list[Cause]:
        if subresource != "status":
            return []
        return [*_conditions(obj, old), *_end(obj, old)]


def _conditions(job: Object, old: Object) -> list[Cause]:
    """An end is final, announced before it comes, and one of two."""
    is_true, was_true = _true(job), _true(old)
    causes = [
        _invalid(_CONDITIONS, f"cannot disable the terminal {kind}=True condition")
        for kind in ("Failed", "Complete", "FailureTarget")
        if kind in was_true and kind not in is_true
    ]
    changed = is_true ^ was_true
    for end, sign in (("Failed", "FailureTarget"), ("Complete", "SuccessCriteriaMet")):
        if changed & {end, sign} and end in is_true and sign not in is_true:
            causes.append(_invalid(_CONDITIONS, f"cannot set {end}=True condition without the {sign}=true condition"))
    for one, other in (("Complete", "Failed"), ("Complete", "FailureTarget"), ("SuccessCriteriaMet", "FailureTarget")):
        if changed & {one, other} and {one, other} <= is_true:
            causes.append(_invalid(_CONDITIONS, f"cannot set {one}=True and {other}=true conditions"))
    return causes


def _end(job: Object, old: Object) -> list[Cause]:
    """What a Job that has just ended must say, and must not."""
    ends, ended = _true(job) & {"Complete", "Failed"}, _true(old) & {"Complete", "Failed"}
    if not ends or ended:
        return []
    status = job.get("status") or {}
    uncounted = status.get("uncountedTerminatedPods") or {}
    causes = [
        _invalid(f"status.{field}", f"{field}>0 is invalid for finished job")
        for field in ("active", "terminating")
        if status.get(field)
    ]
    if uncounted.get("succeeded") or uncounted.get("failed"):
        causes.append(_invalid("status.uncountedTerminatedPods", "must be empty for finished job"))
    if not status.get("startTime"):
        causes.append(_required("status.startTime", "startTime is required for finished job"))
    if "Complete" in ends and not status.get("completionTime"):
        causes.append(_required("status.completionTime", "completionTime is required for Complete jobs"))
    if "Complete" not in ends and status.get("completionTime"):
        why = "cannot set completionTime when there is no Complete=True condition"
        causes.append(_invalid("status.completionTime", why))
    return causes


def _true(job: Object) -> set[str]:
    kinds = ("Complete", "Failed", "FailureTarget", "SuccessCriteriaMet")
    return {kind for kind in kinds if condition_is_true(job, kind)}


def _invalid(path: str, why: str) -> Cause:
    return Cause("FieldValueInvalid", f"Invalid value: {why}", path)


def _required(path: str, why: str) -> Cause:
    return Cause("FieldValueRequired", f"Required value: {why}", path)
