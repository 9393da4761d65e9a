"""What people ask about jobs, queues and nodes, read out of the objects: pure functions, shared by every front end.

Nothing is decided here. A job's place, start and reason are the ones that its Workload's status carries; this
module only joins Job, Workload, Pods and Nodes into one flat record per thing. The records are what ``-o json`` prints,
so their field names are an interface: times are RFC 3339 texts, durations are seconds.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from glebe.kube.objects import Object, annotations_of, get_condition, is_deleting, labels_of
from glebe.kube.pods import requests_of
from glebe.platform.jobspec import GPU_RESOURCE
from glebe.queueing import labels as names


class State(StrEnum):
    """Where a job is, in the words that every front end uses."""

    WAITING = "Waiting"
    NEVER = "Never starts"
    STARTING = "Starting"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    STOPPED = "Stopped"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    DELETING = "Deleting"


ENDED = frozenset({State.SUCCEEDED, State.FAILED, State.STOPPED})


@dataclass(frozen=True, slots=True)
class JobView:
    """One job of any kind that the queue knows, or a Job that bypasses the queue (then ``queue`` is empty)."""

    name: str
    namespace: str
    kind: str
    state: State
    queue: str
    cluster_queue: str
    job_class: str
    priority: int
    pods: int
    pods_ready: int
    gpus: int
    position: int | None  # from 1, within the ClusterQueue, while it waits
    gpus_ahead: int | None
    start_p50: str | None
    start_p90: str | None
    expected_run_time: str
    created: str
    started: str | None
    finished: str | None
    reason: str  # machine reason
    message: str  # the binding constraint, or how it ended, in one sentence
    remedy: str  # what would help
    computed_at: str | None
    nodes: tuple[str, ...]  # where it runs or is placed
    workload: str
    reserved_start: str | None = None  # kept for it, whatever comes later
    checks: tuple[Mapping[str, Any], ...] = ()  # name, state, message of each admission check
    sooner: tuple[Mapping[str, Any], ...] = ()  # change, startP50, startP90: what would start it sooner
    evictions: tuple[Mapping[str, Any], ...] = ()  # reason, underlyingCause, count
    preempted: str = ""  # for whom it was stopped last


def job_views(jobs: Iterable[Object], workloads: Iterable[Object], pods: Iterable[Object] = ()) -> list[JobView]:
    """One view per job; workloads whose job is not among ``jobs`` stand for themselves. Oldest first."""
    by_owner: dict[str, Object] = {}
    alone: list[Object] = []
    for workload in workloads:
        owner = _owner(workload)
        if owner is None:
            alone.append(workload)
        else:
            by_owner[owner["uid"]] = workload
    pods_of = _pods_by_owner(pods)
    views = []
    for job in jobs:
        uid = job["metadata"].get("uid", "")
        views.append(job_view(job, by_owner.pop(uid, None), pods_of.get(uid, ())))
    views += [job_view(None, workload) for workload in [*by_owner.values(), *alone]]
    return sorted(views, key=lambda view: (view.created, view.namespace, view.name))


def job_view(job: Object | None, workload: Object | None, pods: Iterable[Object] = ()) -> JobView:
    """Join one job with its workload and pods; either of job and workload may be missing, not both."""
    whole = job or workload
    assert whole is not None
    owner = _owner(workload) if workload else None
    status = (workload or {}).get("status") or {}
    spec = (workload or {}).get("spec") or {}
    forecast = forecast_of(workload)
    admission = status.get("admission") or {}
    pod_sets = spec.get("podSets") or ([_job_pod_set(job)] if job else [])
    own_pods = [pod for pod in pods if not is_deleting(pod)]
    state, reason, message = _state(job, workload)
    waiting = state in (State.WAITING, State.NEVER)
    meta = whole["metadata"]
    return JobView(
        name=meta["name"] if job or owner is None else owner["name"],
        namespace=meta.get("namespace", ""),
        kind=job["kind"] if job else (owner or whole)["kind"],
        state=state,
        queue=spec.get("queueName") or labels_of(whole).get(names.QUEUE_NAME, ""),
        cluster_queue=admission.get("clusterQueue") or forecast.get("clusterQueue", ""),
        job_class=labels_of(whole).get(names.CLASS, ""),
        priority=int(spec.get("priority") or 0),
        pods=sum(int(pod_set.get("count", 1)) for pod_set in pod_sets),
        pods_ready=sum(1 for pod in own_pods if (pod.get("status") or {}).get("phase") == "Running"),
        gpus=sum(int(pod_set.get("count", 1)) * pod_gpus(pod_set["template"]["spec"]) for pod_set in pod_sets),
        position=forecast.get("position") if state is State.WAITING else None,
        gpus_ahead=forecast.get("gpusAhead") if state is State.WAITING else None,
        start_p50=forecast.get("startP50"),
        start_p90=forecast.get("startP90"),
        expected_run_time=annotations_of(whole).get(names.EXPECTED_RUN_TIME, ""),
        created=meta.get("creationTimestamp", ""),
        started=None if waiting else _started(job, workload, own_pods),
        finished=_finished(job, workload),
        reason=reason,
        message=message,
        remedy=forecast.get("remedy", "") if waiting else "",
        computed_at=forecast.get("computedAt"),
        nodes=tuple(sorted({n for p in own_pods if (n := (p.get("spec") or {}).get("nodeName"))})),
        workload=workload["metadata"]["name"] if workload else "",
        reserved_start=forecast.get("reservedStart") if state is State.WAITING else None,
        checks=tuple(
            {k: c.get(k, "") for k in ("name", "state", "message")} for c in status.get("admissionChecks") or ()
        ),
        sooner=tuple(forecast.get("counterfactuals") or ()) if waiting else (),
        evictions=tuple((status.get("schedulingStats") or {}).get("evictions") or ()),
        preempted=_preempted(workload) if waiting else "",
    )


def forecast_of(workload: Object | None) -> Mapping[str, Any]:
    """Its forecast: of its status, or of its annotation where the status is another queue's (advisory mode)."""
    told = ((workload or {}).get("status") or {}).get("forecast")
    text = annotations_of(workload).get(names.FORECAST) if workload and not told else None
    if text:
        with suppress(ValueError):
            told = json.loads(text)
    return told if isinstance(told, dict) else {}


def _preempted(workload: Object | None) -> str:
    condition = get_condition(workload, "Preempted") if workload else None
    return condition.get("message", "") if condition and condition.get("status") == "True" else ""


def _state(job: Object | None, workload: Object | None) -> tuple[State, str, str]:
    """State, machine reason and sentence, most final first."""
    whole = job or workload
    assert whole is not None
    for kind, state in (("Failed", State.FAILED), ("Complete", State.SUCCEEDED)):
        condition = get_condition(job, kind) if job else None
        if condition and condition.get("status") == "True":
            return state, condition.get("reason", ""), condition.get("message", "")
    finished = get_condition(workload, "Finished") if workload else None
    if finished and finished.get("status") == "True":
        state = State.FAILED if finished.get("reason") == "Failed" else State.SUCCEEDED
        return state, finished.get("reason", ""), finished.get("message", "")
    if is_deleting(whole):
        return State.DELETING, "Deleting", "it is being deleted"
    if workload is not None and (workload.get("spec") or {}).get("active") is False:
        return _switched_off(workload)
    if workload is not None and not (workload.get("status") or {}).get("admission"):
        return _waiting(workload)
    if workload is not None and (open_checks := _open_checks(workload)):
        return State.WAITING, "UnsatisfiedAdmissionChecks", f"quota is reserved; not passed yet: {open_checks}"
    evicted = get_condition(workload, "Evicted") if workload else None
    if evicted and evicted.get("status") == "True":
        return State.WAITING, evicted.get("reason", ""), f"{evicted.get('message', '')}; its pods are being stopped"
    if job is not None and (job.get("spec") or {}).get("suspend"):
        if labels_of(job).get(names.QUEUE_NAME):
            return State.WAITING, "Accepted", "accepted; the queue has not looked at it yet"
        return State.SUSPENDED, "Suspended", "spec.suspend is true and it is in no queue"
    status = (job or {}).get("status") or {}
    if job is not None:
        wanted = int((job.get("spec") or {}).get("parallelism") or 1)
        ready = int(status.get("ready") or 0)
        if ready + int(status.get("succeeded") or 0) < wanted:
            failed = int(status.get("failed") or 0)
            lost = f"; {failed} failed so far" if failed else ""
            return State.STARTING, "Starting", f"{ready} of {wanted} pods are ready{lost}"
        return State.RUNNING, "Running", f"{ready} of {wanted} pods are running"
    ready_condition = get_condition(whole, "PodsReady")
    if ready_condition and ready_condition.get("status") == "True":
        return State.RUNNING, "Running", ready_condition.get("message", "")
    return State.STARTING, "Admitted", "admitted; its pods are starting"


def _switched_off(workload: Object) -> tuple[State, str, str]:
    """Stopped for good by the platform, with the cause, or suspended by whoever set ``spec.active`` to false."""
    target, evicted = get_condition(workload, "DeactivationTarget") or {}, get_condition(workload, "Evicted") or {}
    if target.get("status") == "True":  # until its pods are told to stop
        return State.STOPPED, target.get("reason", ""), target.get("message", "")
    before, due_to, cause = evicted.get("reason", "").partition("DeactivatedDueTo")
    if evicted.get("status") == "True" and due_to and not before:
        return State.STOPPED, cause, evicted.get("message", "")
    return State.SUSPENDED, "Deactivated", "the workload is deactivated (spec.active is false)"


def _open_checks(workload: Object) -> str:
    """Admission checks that keep a workload with quota from starting, each with its state."""
    if (get_condition(workload, "Admitted") or {}).get("status") == "True" or _is(workload, "Evicted"):
        return ""
    checks = (workload.get("status") or {}).get("admissionChecks") or ()
    return ", ".join(f"{c['name']} ({c.get('state', 'Pending')})" for c in checks if c.get("state") != "Ready")


def _is(workload: Object, kind: str) -> bool:
    return bool((get_condition(workload, kind) or {}).get("status") == "True")


def _waiting(workload: Object) -> tuple[State, str, str]:
    forecast = forecast_of(workload)
    reserved = get_condition(workload, "QuotaReserved") or {}
    reason = forecast.get("reason") or reserved.get("reason") or "Accepted"
    message = forecast.get("message") or reserved.get("message") or "accepted; the queue has not looked at it yet"
    never = forecast.get("startP50") is None and reason in NEVER_REASONS
    return (State.NEVER if never else State.WAITING), reason, message


#: Reasons with which a workload never starts as things are; any other is a wait. (Texts: a front end that shows states
#: need not load the core that has them as an enum; a test compares.)
NEVER_REASONS = frozenset(
    {"ExceedsMaxQuota", "NoMatchingFlavor", "ExceedsCapacity", "ClusterQueueNotFound", "Misconfigured"}
)


def _started(job: Object | None, workload: Object | None, pods: list[Object]) -> str | None:
    """When it was admitted, else when the Job was started, else when the last of its pods began to run.

    Admission is what the forecast promised and what ``--max-time`` counts from, and it stays where it is when a pod
    is replaced; a new admission, after an eviction, is a new run.
    """
    admitted = get_condition(workload, "Admitted") if workload else None
    if admitted and admitted.get("status") == "True" and admitted.get("lastTransitionTime"):
        return str(admitted["lastTransitionTime"])
    if start := ((job or {}).get("status") or {}).get("startTime"):
        return str(start)
    starts = [start for pod in pods if (start := _running_since(pod))]
    return max(starts) if pods and len(starts) == len(pods) else None


def _running_since(pod: Object) -> str | None:
    for container in (pod.get("status") or {}).get("containerStatuses") or ():
        state = container.get("state") or {}
        for phase in ("running", "terminated"):
            if (state.get(phase) or {}).get("startedAt"):
                return str(state[phase]["startedAt"])
    return None


def _finished(job: Object | None, workload: Object | None) -> str | None:
    for obj, kinds in ((job, ("Complete", "Failed")), (workload, ("Finished",))):
        for kind in kinds:
            condition = get_condition(obj, kind) if obj else None
            if condition and condition.get("status") == "True":
                return condition.get("lastTransitionTime")
    return None


def _job_pod_set(job: Object) -> dict[str, Any]:
    spec = job.get("spec") or {}
    count = spec.get("parallelism", 1)
    if spec.get("completions") is not None:
        count = min(count, spec["completions"])
    return {"name": "main", "count": count, "template": spec.get("template") or {"spec": {}}}


def pod_gpus(pod_spec: Mapping[str, Any]) -> int:
    """Whole GPUs that one pod asks for."""
    return requests_of(pod_spec, GPU_RESOURCE).get(GPU_RESOURCE, 0)


def _owner(obj: Object) -> Mapping[str, Any] | None:
    references = obj["metadata"].get("ownerReferences") or ()
    for reference in references:
        if reference.get("controller"):
            return dict(reference)
    return dict(references[0]) if references else None


def _pods_by_owner(pods: Iterable[Object]) -> dict[str, list[Object]]:
    out: dict[str, list[Object]] = defaultdict(list)
    for pod in pods:
        owner = _owner(pod)
        if owner is not None:
            out[owner["uid"]].append(pod)
    return out
