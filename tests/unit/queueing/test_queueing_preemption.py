"""Preemption end to end: who makes room, what he is told, when the other one starts, and that he comes back."""

from __future__ import annotations

import asyncio
from typing import Any

from test_queueing_story import Cluster, admitted, cluster, job

from glebe.kube import resources as r
from glebe.kube.clock import format_time, parse_time
from glebe.kube.objects import Object, annotations_of, condition_is_true, get_condition
from glebe.queueing import labels


async def allow(c: Cluster, *, lend: bool = False, **preemption: Any) -> None:
    """Let the queue of team-a preempt as said; unless ``lend``, team-b uses its half itself."""
    if not lend:
        await c.client.create(r.JOBS, job("other", "team-b", 1, 8, 3000))
        await c.wait_workload("other", "team-b", admitted)
    await c.client.patch(r.CLUSTER_QUEUES, "team-a", {"spec": {"preemption": preemption}})
    urgent = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "WorkloadPriorityClass"}
    await c.client.create(r.WORKLOAD_PRIORITY_CLASSES, {**urgent, "metadata": {"name": "urgent"}, "value": 100})


def ready(workload: Object) -> bool:
    return condition_is_true(workload, "PodsReady")


async def events(c: Cluster, name: str, namespace: str) -> dict[str, str]:
    found = await c.client.list(r.EVENTS, namespace)
    return {e["reason"]: e["message"] for e in found.items if e["involvedObject"]["name"] == name}


async def test_an_urgent_job_takes_the_place_of_one_that_comes_back() -> None:
    async with cluster(nodes=2) as c:
        await allow(c, withinClusterQueue="LowerPriority")
        await c.client.create(r.JOBS, job("low", "team-a", 1, 8, 300))
        await c.wait_workload("low", "team-a", ready)
        urgent = job("high", "team-a", 1, 8, 60, **{labels.PRIORITY_CLASS: "urgent"})
        await c.client.create(r.JOBS, urgent)
        high = await c.wait_workload("high", "team-a", admitted)
        low = await c.workload("low", "team-a")
        evicted, preempted = (get_condition(low, kind) or {} for kind in ("Evicted", "Preempted"))
        assert (evicted["status"], evicted["reason"]) == ("True", "Preempted")
        assert (preempted["status"], preempted["reason"]) == ("True", "InClusterQueue")
        assert evicted["message"] == preempted["message"]
        assert f"(UID: {high['metadata']['uid']}, JobUID: " in evicted["message"]
        assert evicted["message"].endswith("preemptor path: /all/team-a; preemptee path: /all/team-a")
        requeued = get_condition(low, "Requeued") or {}
        assert (requeued["status"], requeued["reason"]) == ("True", "Preempted")
        assert low["status"]["schedulingStats"]["evictions"] == [
            {"reason": "Preempted", "underlyingCause": "", "count": 1}
        ]
        stopped = await c.client.get(r.JOBS, "low", "team-a")
        assert stopped["spec"]["suspend"] is True
        await c.wait_workload("high", "team-a", lambda w: condition_is_true(w, "Finished"))
        low = await c.wait_workload("low", "team-a", ready)
        for kind in ("Evicted", "Preempted"):
            condition = get_condition(low, kind) or {}
            assert (condition["status"], condition["reason"]) == ("False", "QuotaReserved")
            assert condition["message"] == f"Previously: {evicted['message']}"
        said = await events(c, low["metadata"]["name"], "team-a")
        assert said["EvictedDueToPreempted"] == evicted["message"]
        ranks = "preemptor effective priority: 100 (base: 100, boost: 0); preemptee effective priority: 0"
        assert f"; {ranks}" in said["Preempted"]
        assert "Preempted workload team-a/" in (await events(c, "high", "team-a"))["PreemptedWorkload"]


async def test_quota_is_taken_back_from_who_borrowed_it_when_his_pods_are_gone() -> None:
    async with cluster(nodes=2) as c:
        await allow(c, lend=True, reclaimWithinCohort="Any")
        borrower = job("borrower", "team-b", 2, 8, 300)
        borrower["metadata"]["annotations"][labels.CHECKPOINT_GRACE] = "5s"
        await c.client.create(r.JOBS, borrower)
        await c.wait_workload("borrower", "team-b", ready)
        await c.client.create(r.JOBS, job("owner", "team-a", 1, 8, 60))
        seen: list[bool] = []

        async def started() -> bool:
            """Whoever waits does not start while a pod of the other one is there."""
            owner, borrower = await c.workload("owner", "team-a"), await c.workload("borrower", "team-b")
            if owner and admitted(owner):
                return True
            if borrower.get("status", {}).get("admission") and condition_is_true(borrower, "Evicted"):
                seen.append(True)
            return False

        await c.until(started)
        assert seen, "it kept its quota until its pods were gone"
        borrower = await c.workload("borrower", "team-b")
        assert (get_condition(borrower, "Preempted") or {})["reason"] == "InCohortReclamation"
        await c.wait_workload("borrower", "team-b", ready)


async def test_a_job_gets_the_time_that_it_asks_for_to_save_its_work() -> None:
    async with cluster(nodes=2) as c:
        await allow(c, withinClusterQueue="LowerPriority")
        low = job("low", "team-a", 1, 8, 300)
        low["metadata"]["annotations"][labels.CHECKPOINT_GRACE] = "40s"
        await c.client.create(r.JOBS, low)
        await c.wait_workload("low", "team-a", ready)
        await c.client.create(r.JOBS, job("high", "team-a", 1, 8, 60, **{labels.PRIORITY_CLASS: "urgent"}))
        evicted = await c.wait_workload("low", "team-a", lambda w: condition_is_true(w, "Evicted"))
        at = parse_time((get_condition(evicted, "Evicted") or {})["lastTransitionTime"]) + 40
        await asyncio.sleep(20)
        told = await c.client.get(r.JOBS, "low", "team-a")
        assert annotations_of(told)[labels.STOP_AT] == format_time(at)
        assert told["spec"]["suspend"] is False
        pods = await c.pods("team-a", "low")
        assert {annotations_of(p).get(labels.STOP_AT) for p in pods} == {format_time(at)}
        assert "Save your work" in (await events(c, "low", "team-a"))["CheckpointRequested"]
        high = await c.wait_workload("high", "team-a", admitted)
        start = parse_time((get_condition(high, "Admitted") or {})["lastTransitionTime"])
        assert at <= start < at + 10
        await c.wait_workload("low", "team-a", ready)

        async def forgotten() -> bool:
            return labels.STOP_AT not in annotations_of(await c.client.get(r.JOBS, "low", "team-a"))

        await c.until(forgotten)


async def test_who_has_saved_his_work_is_stopped_at_once() -> None:
    async with cluster(nodes=2) as c:
        await allow(c, withinClusterQueue="LowerPriority")
        low = job("low", "team-a", 1, 8, 300)
        low["metadata"]["annotations"][labels.CHECKPOINT_GRACE] = "200s"
        await c.client.create(r.JOBS, low)
        await c.wait_workload("low", "team-a", ready)
        await c.client.create(r.JOBS, job("high", "team-a", 1, 8, 60, **{labels.PRIORITY_CLASS: "urgent"}))
        began = c.env.clock.now()

        async def told() -> str:
            return annotations_of(await c.client.get(r.JOBS, "low", "team-a")).get(labels.STOP_AT, "")

        at = await c.until(told)
        await c.client.patch(r.JOBS, "low", {"metadata": {"annotations": {labels.CHECKPOINT_SAVED: at}}}, "team-a")
        await c.wait_workload("high", "team-a", admitted)
        assert c.env.clock.now() < began + 30


async def test_a_job_that_ends_in_its_grace_has_ended() -> None:
    async with cluster(nodes=2) as c:
        await allow(c, withinClusterQueue="LowerPriority")
        low = job("low", "team-a", 1, 8, 30)
        low["metadata"]["annotations"][labels.CHECKPOINT_GRACE] = "2m"
        await c.client.create(r.JOBS, low)
        await c.wait_workload("low", "team-a", ready)
        await c.client.create(r.JOBS, job("high", "team-a", 1, 8, 60, **{labels.PRIORITY_CLASS: "urgent"}))
        done = await c.wait_workload("low", "team-a", lambda w: condition_is_true(w, "Finished"))
        assert (get_condition(done, "Finished") or {})["reason"] == "Succeeded"
        await c.wait_workload("high", "team-a", admitted)


async def test_who_has_just_begun_is_left_alone_for_the_minimum_run_time() -> None:
    async with cluster(nodes=2) as c:
        await allow(c, withinClusterQueue="LowerPriority")
        note = {"metadata": {"annotations": {labels.MINIMUM_RUN_TIME: "60s"}}}
        await c.client.patch(r.CLUSTER_QUEUES, "team-a", note)
        await c.client.create(r.JOBS, job("low", "team-a", 1, 8, 300))
        low = await c.wait_workload("low", "team-a", ready)
        began = parse_time((get_condition(low, "PodsReady") or {})["lastTransitionTime"])
        await c.client.create(r.JOBS, job("high", "team-a", 1, 8, 60, **{labels.PRIORITY_CLASS: "urgent"}))
        high = await c.wait_workload("high", "team-a", admitted)
        assert parse_time((get_condition(high, "Admitted") or {})["lastTransitionTime"]) >= began + 60
