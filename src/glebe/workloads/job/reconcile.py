"""One reconciliation of one Job: facts in, plan out. Pure; the steps run in the order of ``STEPS``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from glebe.kube.clock import format_time, parse_time
from glebe.kube.objects import Object, get_condition, set_condition
from glebe.kube.pods import has_ended, phase_of
from glebe.workloads.job import attempts, backoff
from glebe.workloads.job.facts import Facts
from glebe.workloads.job.indexes import format_indexes, parse_indexes
from glebe.workloads.job.outcome import Verdict, judge
from glebe.workloads.job.plan import Event, Plan
from glebe.workloads.job.pods import is_active

DEFAULT_MANAGER = "kubernetes.io/job-controller"
MANAGED_BY = DEFAULT_MANAGER
"""Jobs whose ``spec.managedBy`` says something else are another controller's."""
MAX_UNCOUNTED = 500
"""Uids in the status at once; a bigger Job is counted in several rounds."""


@dataclass
class Work:
    """One reconciliation under way."""

    f: Facts
    plan: Plan = field(default_factory=Plan)
    conditions: list[dict[str, Any]] = field(default_factory=list)
    start_time: str | None = None
    completion_time: str | None = None
    failed_indexes: set[int] = field(default_factory=set)
    held: set[str] = field(default_factory=set)  # uids of failed pods that still carry their index's failure count
    verdict: Verdict | None = None
    counted: dict[str, int] = field(default_factory=dict)  # succeeded, failed
    uncounted: dict[str, list[str]] = field(default_factory=dict)

    def set(self, kind: str, status: str, reason: str, message: str) -> None:
        self.conditions = set_condition(self.conditions, kind, status, reason, message, format_time(self.f.now))


def reconcile(f: Facts) -> Plan:
    """What to do for the Job now."""
    if (f.spec.get("managedBy") or DEFAULT_MANAGER) != MANAGED_BY:
        return Plan()
    if f.deleting or f.finished:
        return _after_the_end(f)
    w = Work(f, conditions=list(f.status.get("conditions") or ()), start_time=f.status.get("startTime"))
    for step in STEPS:
        step(w)
    return w.plan


def _after_the_end(f: Facts) -> Plan:
    plan = Plan(release=list(f.tracked.values()))
    ttl = f.spec.get("ttlSecondsAfterFinished")
    if f.deleting or ttl is None:
        return plan
    end = next(c for kind in ("Complete", "Failed") if (c := get_condition(f.job, kind)) and c["status"] == "True")
    left = parse_time(end["lastTransitionTime"]) + ttl - f.now
    if left > 0:
        plan.wake_after(left)
    else:
        plan.delete_job = True
    return plan


def judge_indexes(w: Work) -> None:
    """Which indexes have failed for good, and which failed pods must stay until they are replaced."""
    if not w.f.indexed or w.f.per_index_limit is None:
        return
    w.failed_indexes = parse_indexes(w.f.status.get("failedIndexes"), w.f.completions)
    failed, w.held = attempts.failed_indexes(w.f, w.failed_indexes)
    w.failed_indexes |= failed


def judge_job(w: Work) -> None:
    """Whether the Job goes on."""
    w.verdict = judge(w.f, w.failed_indexes)


def account(w: Work) -> None:
    """Move pods: with finalizer and finished -> uncounted list -> (finalizer gone) -> counters."""
    f = w.f
    succeeded = [u for u in f.uncounted_succeeded if u in f.tracked]
    failed = [u for u in f.uncounted_failed if u in f.tracked]
    w.counted = {
        "succeeded": int(f.status.get("succeeded", 0)) + len(f.uncounted_succeeded) - len(succeeded),
        "failed": int(f.status.get("failed", 0)) + len(f.uncounted_failed) - len(failed),
    }
    w.uncounted = {"succeeded": succeeded, "failed": failed}
    known = {*succeeded, *failed}
    for uid, pod in f.tracked.items():
        if len(w.plan.release) >= MAX_UNCOUNTED:
            break
        if uid in known:
            w.plan.release.append(pod)
        elif phase_of(pod) == "Succeeded":
            if not f.indexed:  # an index needs no uid: it is counted once by being a set's member
                succeeded.append(uid)
            w.plan.release.append(pod)
        elif f.has_failed(pod) or (w.verdict and not w.verdict.success):
            if uid in w.held and not w.verdict:
                continue
            if f.counts_as_failed(pod):
                failed.append(uid)
            w.plan.release.append(pod)
        elif w.verdict and not is_active(pod):
            w.plan.release.append(pod)  # ends after success: counts as nothing


def stop_pods(w: Work) -> None:
    """A Job that has ended or is suspended has no active pods."""
    if w.verdict and not w.verdict.success:
        w.plan.delete = list(w.f.active)  # counted as failed by now
    elif w.verdict or w.f.suspended:
        w.plan.discard = list(w.f.active)


def suspend_or_resume(w: Work) -> None:
    """Condition Suspended; ``startTime`` counts from the last resumption."""
    if w.verdict:
        w.start_time = w.start_time or format_time(w.f.now)  # a finished Job must have one
        return
    old = get_condition(w.f.job, "Suspended")
    if w.f.suspended:
        if not old or old["status"] != "True":
            w.set("Suspended", "True", "JobSuspended", "Job suspended")
            w.plan.events.append(Event("Normal", "Suspended", "Job suspended"))
        w.start_time = None
        return
    if old and old["status"] == "True":
        w.set("Suspended", "False", "JobResumed", "Job resumed")
        w.plan.events.append(Event("Normal", "Resumed", "Job resumed"))
        w.start_time = format_time(w.f.now)
    if w.start_time is None:
        w.start_time = format_time(w.f.now)


def watch_deadline(w: Work) -> None:
    limit = w.f.spec.get("activeDeadlineSeconds")
    if limit is not None and w.start_time is not None and not w.verdict:
        w.plan.wake_after(parse_time(w.start_time) + limit - w.f.now)


def scale(w: Work) -> None:
    """Create what is missing, remove what is too much."""
    if w.verdict or w.f.suspended or not w.f.settled:
        return
    w.plan.discard = attempts.surplus(w.f, w.failed_indexes)
    if w.plan.discard:
        return
    missing = attempts.missing(w.f, w.failed_indexes)
    if missing <= 0:
        return
    if w.f.per_index_limit is None:
        ended = [p for p in w.f.pods if has_ended(p) and (phase_of(p) == "Succeeded" or w.f.counts_as_failed(p))]
        left = backoff.remaining(ended, w.f.now)
        if left > 0:
            w.plan.wake_after(left)
            return
    w.plan.create, wait = attempts.replacements(w.f, w.failed_indexes, missing, w.start_time or "")
    if wait > 0:
        w.plan.wake_after(wait)


def conclude(w: Work) -> None:
    """The interim condition at once; the final one when every pod is counted and gone."""
    v = w.verdict
    if v is None:
        return
    if not w.f.verdict:
        w.set(v.condition, "True", v.reason, v.message)
    busy = w.f.active or w.f.terminating or w.f.tracked or w.uncounted["succeeded"] or w.uncounted["failed"]
    if busy:
        return
    if v.success:
        w.set("Complete", "True", v.reason, v.message)
        w.completion_time = format_time(w.f.now)
        w.plan.events.append(Event("Normal", "Completed", "Job completed"))
    else:
        w.set("Failed", "True", v.reason, v.message)
        w.plan.events.append(Event("Warning", v.reason, v.message))
    ttl = w.f.spec.get("ttlSecondsAfterFinished")
    if ttl is not None:
        w.plan.wake_after(ttl)


def write_status(w: Work) -> None:
    """The whole status, if anything in it changed. ``active`` already counts what the plan is about to create."""
    f, old = w.f, w.f.status
    status: Object = {k: v for k, v in old.items() if k not in _WRITTEN}
    active = len(f.active) - len(w.plan.discard) - len(w.plan.delete) + len(w.plan.create)
    if not f.settled and not w.verdict and not f.suspended:
        active = int(old.get("active", 0))  # half of the pods are not in the cache yet: do not count them one by one
    succeeded = len(f.succeeded_indexes) if f.indexed else w.counted["succeeded"]
    values = {
        "conditions": w.conditions,
        "startTime": w.start_time,
        "completionTime": w.completion_time or old.get("completionTime"),
        "active": active,
        "succeeded": succeeded,
        "failed": w.counted["failed"],
        "completedIndexes": format_indexes(f.succeeded_indexes) if f.indexed else None,
        "failedIndexes": format_indexes(w.failed_indexes) if f.per_index_limit is not None else None,
    }
    status.update({k: v for k, v in values.items() if v})
    if f.per_index_limit is not None:
        status.setdefault("failedIndexes", "")
    status["ready"] = min(f.ready, active)
    status["terminating"] = f.terminating
    status["uncountedTerminatedPods"] = {k: v for k, v in w.uncounted.items() if v}
    if status != dict(old):
        w.plan.status = status


_WRITTEN = frozenset({
    "conditions", "startTime", "completionTime", "active", "succeeded", "failed", "completedIndexes",
    "failedIndexes", "ready", "terminating", "uncountedTerminatedPods",
})  # fmt: skip

STEPS: tuple[Callable[[Work], None], ...] = (
    judge_indexes,
    judge_job,
    account,
    stop_pods,
    suspend_or_resume,
    watch_deadline,
    scale,
    conclude,
    write_status,
)
