"""One reconciliation of one CronJob: facts in, plan out. Pure."""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from glebe.kube.clock import format_time, parse_time
from glebe.kube.cron import Schedule, ScheduleError, location, parse
from glebe.kube.events import NORMAL, WARNING
from glebe.kube.objects import Object, condition_is_true, is_deleting, owner_reference
from glebe.kube.resources import CRON_JOBS, JOBS
from glebe.workloads.cronjob.plan import Plan
from glebe.workloads.cronjob.times import MANY, NeverDue, look, until_next

SCHEDULED = "batch.kubernetes.io/cronjob-scheduled-timestamp"
_TZ_HINT = "https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/"


@dataclass
class Facts:
    """A CronJob, its Jobs, and the time. ``lost``: uids of active Jobs that are gone for certain."""

    owner: Object
    jobs: list[Object]
    now: float
    lost: Collection[str] = ()

    @property
    def spec(self) -> dict[str, Any]:
        return dict(self.owner["spec"])

    @property
    def name(self) -> str:
        return str(self.owner["metadata"]["name"])

    @property
    def status(self) -> dict[str, Any]:
        return dict(self.owner.get("status") or {})

    @property
    def last_schedule(self) -> float | None:
        text = self.status.get("lastScheduleTime")
        return parse_time(text) if text else None

    @property
    def since(self) -> float:
        """When the schedule began to count: at the last time that was acted on, or the creation."""
        created = self.owner["metadata"].get("creationTimestamp")
        return self.last_schedule or (parse_time(created) if created else self.now)


@dataclass
class Work:
    """One reconciliation under way."""

    f: Facts
    plan: Plan = field(default_factory=Plan)


def outcome(job: Object) -> str:
    """``Complete``, ``Failed``, or "" when the Job has not finished."""
    return next((kind for kind in ("Complete", "Failed") if condition_is_true(job, kind)), "")


def reconcile(f: Facts) -> Plan:
    """What to do for the CronJob now."""
    w = Work(f)
    w.plan.active = list(f.status.get("active") or ())
    w.plan.last_success = f.status.get("lastSuccessfulTime")
    tidy(w)
    count(w)
    if not is_deleting(f.owner):
        start(w)
    return w.plan


def tidy(w: Work) -> None:
    """Keep only as many finished Jobs as the limits of history say."""
    for kind, limit in (("Complete", "successfulJobsHistoryLimit"), ("Failed", "failedJobsHistoryLimit")):
        allowed = w.f.spec.get(limit)
        if allowed is None:
            continue
        ended = sorted((j for j in w.f.jobs if outcome(j) == kind and not is_deleting(j)), key=_age)
        w.plan.remove += ended[: max(0, len(ended) - int(allowed))]


def _age(job: Object) -> tuple[bool, str, str]:
    began = (job.get("status") or {}).get("startTime")
    return began is None, str(began or ""), str(job["metadata"]["name"])


def count(w: Work) -> None:
    """Bring the list of active Jobs and the last success up to date."""
    p = w.plan
    active = {ref.get("uid") for ref in p.active}
    for job in w.f.jobs:
        uid, name, result = job["metadata"].get("uid"), job["metadata"]["name"], outcome(job)
        if not result and uid not in active:
            text = f"Saw a job that the controller did not create or forgot: {name}"
            p.events.append((WARNING, "UnexpectedJob", text))
        if result and uid in active:
            _forget(p, str(uid))
            p.events.append((NORMAL, "SawCompletedJob", f"Saw completed job: {name}, condition: {result}"))
        ended = (job.get("status") or {}).get("completionTime")
        if result == "Complete" and ended and (not p.last_success or parse_time(ended) > parse_time(p.last_success)):
            p.last_success = ended
    for ref in list(p.active):
        if ref.get("uid") in w.f.lost:
            _forget(p, str(ref.get("uid")))
            p.events.append((NORMAL, "MissingJob", f"Active job went missing: {ref.get('name')}"))


def _forget(plan: Plan, uid: str) -> None:
    plan.active = [ref for ref in plan.active if ref.get("uid") != uid]


def start(w: Work) -> None:
    """Create the Job that is due, if one is and nothing stands in its way."""
    f = w.f
    if f.spec.get("suspend"):
        return
    schedule = _schedule(w)
    if schedule is None:
        return
    deadline = f.spec.get("startingDeadlineSeconds")
    try:
        due = look(schedule, f.since, f.now, None if deadline is None else float(deadline))
    except NeverDue as error:
        w.plan.events.append((WARNING, "InvalidSchedule", f"invalid schedule: {f.spec['schedule']} : {error}"))
        return
    w.plan.requeue_after = until_next(schedule, f.since, f.now)
    if due.latest is None:
        return
    if due.missed > MANY:
        text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
        w.plan.events.append((WARNING, "TooManyMissedTimes", text))
    if deadline is not None and due.latest + float(deadline) < f.now:
        when = datetime.fromtimestamp(due.latest, UTC).strftime("%a, %d %b %Y %H:%M:%S +0000")
        w.plan.events.append((WARNING, "MissSchedule", f"Missed scheduled time to start a job: {when}"))
        return
    if due.latest == f.last_schedule or any(r.get("name") == job_name(f.owner, due.latest) for r in w.plan.active):
        return
    _start_at(w, due.latest)


def _start_at(w: Work, moment: float) -> None:
    f, policy = w.f, w.f.spec.get("concurrencyPolicy")
    if policy == "Forbid" and w.plan.active:
        text = "Not starting job because prior execution is running and concurrency policy is Forbid"
        w.plan.events.append((NORMAL, "JobAlreadyActive", text))
        return
    if policy == "Replace":
        w.plan.replace, w.plan.active = w.plan.active, []
    w.plan.create, w.plan.scheduled = build_job(f.owner, moment), moment


def _schedule(w: Work) -> Schedule | None:
    """The schedule, or ``None`` and an event that says what is wrong with it."""
    text, zone = str(w.f.spec.get("schedule", "")), str(w.f.spec.get("timeZone") or "")
    try:
        location(zone)
    except ScheduleError as error:
        w.plan.events.append((WARNING, "UnknownTimeZone", f'invalid timeZone: "{zone}": {error}'))
        return None
    if "TZ" in text:
        note = f'CRON_TZ or TZ used in schedule "{text}" is not officially supported, see {_TZ_HINT} for more details'
        w.plan.events.append((WARNING, "UnsupportedSchedule", note))
    try:
        return parse(text, zone)
    except ScheduleError as error:
        w.plan.events.append((WARNING, "UnparseableSchedule", f'unparseable schedule: "{text}" : {error}'))
        return None


def job_name(owner: Object, moment: float) -> str:
    """The name is the minute: one time of a schedule has one Job, however often it is created."""
    return f"{owner['metadata']['name']}-{int(moment) // 60}"


def build_job(owner: Object, moment: float) -> Object:
    """The Job for one time of the schedule."""
    template = owner["spec"]["jobTemplate"]
    given = template.get("metadata") or {}
    local = datetime.fromtimestamp(moment, location(str(owner["spec"].get("timeZone") or "")))
    stamp = format_time(moment) if not local.utcoffset() else local.isoformat(timespec="seconds")
    return {
        "apiVersion": JOBS.api_version,
        "kind": JOBS.kind,
        "metadata": {
            "name": job_name(owner, moment),
            "namespace": owner["metadata"]["namespace"],
            "labels": dict(given.get("labels") or {}),
            "annotations": {**(given.get("annotations") or {}), SCHEDULED: stamp},
            "ownerReferences": [
                owner_reference({**owner, "apiVersion": CRON_JOBS.api_version, "kind": CRON_JOBS.kind})
            ],
        },
        "spec": copy.deepcopy(template.get("spec") or {}),
    }
