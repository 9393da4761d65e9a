"""What must be true once faults have stopped and the platform had time: nothing undone, nothing left over."""

from __future__ import annotations

from collections.abc import Mapping

from glebe.kube.objects import Object, condition_is_true, get_condition
from glebe.metering import report
from glebe.platform.simulation import appchecks
from glebe.platform.simulation import world as w
from glebe.platform.simulation.applications import NAMESPACE
from glebe.platform.simulation.invariants import Checker
from glebe.platform.simulation.world import World

#: Reasons of a workload that never starts as it is written: its job may stay suspended for ever.
NEVER = frozenset({"ExceedsMaxQuota", "ExceedsCapacity", "NoMatchingFlavor"})


def outcome(job: Object) -> str:
    """One word for a job: Complete, Failed, Suspended or Active."""
    for condition in ("Complete", "Failed"):
        if condition_is_true(job, condition):
            return condition
    return "Suspended" if job["spec"].get("suspend") else "Active"


def unfinished(world: World) -> list[str]:
    """What still has to happen, in words; empty when the platform is at rest."""
    left: list[str] = []
    jobs = {job["metadata"]["uid"]: job for job in world.all("jobs.batch")}
    for uid, job in jobs.items():
        if not w.is_finished(job):
            left.append(f"job {job['metadata']['name']} is {outcome(job)}: {_why(world, uid)}")
    for pod in world.all("pods"):
        name, owner = pod["metadata"]["name"], w.owner_uid(pod)
        if not any(r["kind"] == "Job" for r in pod["metadata"].get("ownerReferences") or ()):
            continue  # an application's
        if owner not in jobs:
            held = ", ".join(pod["metadata"].get("finalizers") or ()) or "nothing"
            left.append(f"pod {name} ({w.phase(pod)}, deleting: {w.is_deleting(pod)}, held by {held}) outlived its job")
        elif w.phase(pod) not in w.TERMINAL and w.is_finished(jobs[owner]):
            left.append(f"pod {name} still runs, its job is {outcome(jobs[owner])}")
    for workload in world.all("workloads.kueue.x-k8s.io"):
        job_of = jobs.get(w.owner_uid(workload))
        if job_of is None:
            left.append(f"workload {workload['metadata']['name']} outlived its job")
        elif w.is_finished(job_of) and w.holds_quota(workload):
            left.append(f"workload {workload['metadata']['name']} holds quota for a finished job")
    return [*left, *_left_of_volumes(world), *appchecks.unfinished(world)]


def _left_of_volumes(world: World) -> list[str]:
    """Claims that outlived their pods, volumes that outlived their claims."""
    pods = {pod["metadata"]["uid"] for pod in world.all("pods")}
    claims = {claim["metadata"]["uid"]: claim for claim in world.all("persistentvolumeclaims")}
    passing = [c for c in claims.values() if c["metadata"]["namespace"] != NAMESPACE]  # others' are to stay
    left = [f"claim {c['metadata']['name']} outlived its pod" for c in passing if w.owner_uid(c) not in pods]
    volumes = world.all("persistentvolumes")
    lost = [v for v in volumes if (v["spec"].get("claimRef") or {}).get("uid") not in claims]
    return left + [f"volume {v['metadata']['name']} outlived its claim" for v in lost]


def never_starting(world: World) -> list[tuple[str, str]]:
    """(name, namespace) of jobs that were told they can never start; in a StrictFIFO queue they hold up the rest."""
    jobs = world.all("jobs.batch")
    stuck = [j["metadata"] for j in jobs if not w.is_finished(j) and _never_starts(world, j["metadata"]["uid"])]
    return [(meta["name"], meta["namespace"]) for meta in stuck]


def _never_starts(world: World, job_uid: str) -> bool:
    workload = world.workload_of_job(job_uid)
    condition = get_condition(workload, "QuotaReserved") if workload else None
    return condition is not None and condition["status"] == "False" and condition["reason"] in NEVER


def _why(world: World, job_uid: str) -> str:
    workload = world.workload_of_job(job_uid)
    if workload is None:
        return "it has no workload"
    condition = get_condition(workload, "QuotaReserved")
    return f"{condition['status']} {condition['reason']}: {condition['message']}" if condition else "not looked at"


#: A ledger behind a silent watch (given up after 150 s) or restarting may never see a pod that was gone by then.
DEAF_SECONDS = 200.0


def ledger_disagrees(checker: Checker, recorded: Mapping[str, int | None], now: float) -> str:
    """Compare the ledger's published reports with the checker's own integral; a text when they differ.

    Kubernetes' timestamps have whole seconds, so each change of a pod or node may be off by one second. ``recorded``
    are the uids of all pods in the ledger: whatever was visible for longer than a watch can be deaf must be there. Its
    values are the ends that the ledger estimated, having found a pod gone: they may be later than the end that it never
    heard of (the pod's own, before it was removed) by as long, and no longer.
    """
    reports = list(checker.world.all("usagereports.glebe.dev"))
    if not reports:
        return "the ledger published no report"
    usage = report.at(reports, now)
    parts = usage.allocated_gpu_seconds + usage.idle_gpu_seconds + usage.unhealthy_gpu_seconds
    if usage.owned_gpu_seconds != parts:
        return f"ledger: owned {usage.owned_gpu_seconds} GPU-s, states add up to {parts}"
    mine = checker.allocated_gpu_seconds()
    unseen = [pod for pod in checker.vanished if pod.gpus and pod.uid not in recorded]
    missed = [pod.uid for pod in unseen if pod.visible > DEAF_SECONDS]
    if missed:
        return f"ledger: pods that held GPUs are not in it: {', '.join(missed)}"
    late = {pod: (recorded.get(pod.uid) or 0) - pod.ended_at for pod in checker.vanished if pod.gpus}
    overdue = [pod.uid for pod, seconds in late.items() if seconds > DEAF_SECONDS]
    if overdue:
        return f"ledger: pods were charged long after their end: {', '.join(overdue)}"
    slack = checker.gpu_changes * 2.0 + sum(pod.gpus * pod.held for pod in unseen)
    slack += sum(pod.gpus * seconds for pod, seconds in late.items() if seconds > 0)
    if abs(usage.allocated_gpu_seconds - mine) > slack:
        return f"ledger: allocated {usage.allocated_gpu_seconds} GPU-s, independently {mine:.0f} (slack {slack:.0f})"
    return ""
