"""Jobs that take each other's place, and persons who decide: what a seed adds to its load, and what must hold of it."""

from __future__ import annotations

import random
import re
from typing import Any

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object, condition_is_true, get_condition
from glebe.platform.simulation import world as w
from glebe.platform.simulation.world import World
from glebe.queueing.admissionchecks.approvals import decided, undecided
from glebe.queueing.life import checks

CHECK = "boss"
_WORKLOADS = "workloads.kueue.x-k8s.io"
_UID = re.compile(r"\(UID: ([^,)]+)")
#: More often than this no job of a seed can be preempted: there are not so many others.
_MOST = 12


def take_part(rng: random.Random, queues: list[Object], jobs: list[Object]) -> None:
    """Priorities, policies of preemption, time to save one's work, and now and then a person to be asked."""
    kueue = "kueue.x-k8s.io/v1beta2"
    for name, value in (("low", -10), ("high", 100)):
        queues.insert(
            0, {"apiVersion": kueue, "kind": "WorkloadPriorityClass", "metadata": {"name": name}, "value": value}
        )
    person = rng.random() < 0.3
    if person:
        check: Object = {"apiVersion": kueue, "kind": "AdmissionCheck", "metadata": {"name": CHECK}}
        queues.insert(0, {**check, "spec": {"controllerName": "glebe.dev/approval"}})
    for queue in (q for q in queues if q["kind"] == "ClusterQueue"):
        queue["spec"]["preemption"] = {
            "withinClusterQueue": rng.choice(("Never", "LowerPriority", "LowerOrNewerEqualPriority")),
            "reclaimWithinCohort": rng.choice(("Never", "LowerPriority", "Any")),
        }
        if rng.random() < 0.2:
            queue["metadata"]["annotations"] = {"glebe.dev/minimum-run-time": f"{rng.randrange(5, 30)}s"}
        if person and rng.random() < 0.6:
            queue["spec"]["admissionChecksStrategy"] = {"admissionChecks": [{"name": CHECK}]}
    for job in jobs:
        priority = rng.choice((None, None, "low", "high"))
        if priority:
            job["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] = priority
        if rng.random() < 0.3:
            job["metadata"]["annotations"]["glebe.dev/checkpoint-grace"] = f"{rng.randrange(1, 25)}s"


def configuration(rng: random.Random) -> dict[str, Any]:
    """Sometimes pods must be ready soon, and sometimes shares decide."""
    out: dict[str, Any] = {}
    if rng.random() < 0.3:
        strategy = {"backoffBaseSeconds": 5, "backoffMaxSeconds": 40}
        out["waitForPodsReady"] = {"timeout": "60s", "recoveryTimeout": "60s", "requeuingStrategy": strategy}
    if rng.random() < 0.25:
        out["fairSharing"] = {}
    return out


def decisions(rng: random.Random, span: float) -> list[tuple[float, str, str]]:
    """When the person looks in, and how he is disposed."""
    return [(rng.uniform(5, span), "decide", rng.choice(("yes", "yes", "yes", "no"))) for _ in range(12)]


async def decide(client: Client, world: World, answer: str, now: float) -> None:
    """The person answers one question that is open: the oldest."""
    for workload in list(world.all(_WORKLOADS)):
        if condition_is_true(workload, "Finished") or not (names := undecided(workload, [CHECK])):
            continue
        try:
            await client.update_status(r.WORKLOADS, decided(workload, names, answer == "yes", "simulation", "", now))
        except ApiError as error:
            if error.code not in (404, 409):
                raise
        if answer != "yes":
            return


def denied(world: World) -> list[tuple[str, str]]:
    """(name, namespace) of jobs that a person has stopped: they stay as they are until somebody removes them."""
    out = []
    for job in world.all("jobs.batch"):
        workload = world.workload_of_job(job["metadata"]["uid"])
        if workload is not None and workload["spec"].get("active") is False and not w.is_finished(job):
            out.append((job["metadata"]["name"], job["metadata"]["namespace"]))
    return out


def quota_returns_when_the_pods_are_gone(world: World, old: Object | None, new: Object | None) -> str:
    """Who is evicted keeps his quota as long as a pod of his runs."""
    if old is None or new is None or not w.holds_quota(old) or w.holds_quota(new) or condition_is_true(new, "Finished"):
        return ""
    pods = world.pods_of_job(w.owner_uid(new))
    left = [p for p in pods if p["spec"].get("nodeName") and w.phase(p) not in w.TERMINAL and not w.is_deleting(p)]
    return f"gave its quota back while {left[0]['metadata']['name']} runs" if left else ""


def nobody_runs_before_all_checks_have_passed(world: World, old: Object | None, new: Object | None) -> str:
    if new is None or not condition_is_true(new, "Admitted"):
        return ""
    if open_checks := [c["name"] for c in checks.listed(new) if c.get("state") != checks.READY]:
        was = old is not None and condition_is_true(old, "Admitted")
        return "" if was else f"admitted though {', '.join(open_checks)} did not pass"
    return ""


def nobody_takes_turns(world: World, old: Object | None, new: Object | None) -> str:
    """No two workloads preempt each other, and none is preempted without end."""
    if new is None or not condition_is_true(new, "Preempted") or (old and condition_is_true(old, "Preempted")):
        return ""
    found = _UID.search((get_condition(new, "Preempted") or {}).get("message", ""))
    uid = new["metadata"]["uid"]
    by = found[1] if found else ""
    if (by, uid) in world.preempted:
        return f"preempted by {by}, which it had preempted before"
    world.preempted[uid, by] = world.preempted.get((uid, by), 0) + 1
    often = sum(count for (victim, _), count in world.preempted.items() if victim == uid)
    return f"preempted for the {often}th time" if often > _MOST else ""
