"""Elastic jobs, partial admission and pods that are done, end to end."""

from __future__ import annotations

import asyncio
from typing import Any

from test_queueing_story import Cluster, admitted, cluster, job

from glebe.kube import resources as r
from glebe.kube.objects import Object, annotations_of, condition_is_true, get_condition
from glebe.queueing import labels
from glebe.queueing.jobs import elastic
from glebe.queueing.picture import convert


def growing(name: str, namespace: str, parallelism: int, seconds: int = 300) -> Object:
    made = job(name, namespace, parallelism, 8, seconds)
    made["metadata"]["annotations"][labels.ELASTIC_JOB] = "true"
    made["spec"].update(completionMode="NonIndexed", completions=4)
    return made


async def slices(c: Cluster, name: str, namespace: str) -> list[Object]:
    found = (await c.client.list(r.WORKLOADS, namespace)).items
    return [w for w in found if w["metadata"]["ownerReferences"][0]["name"] == name and not convert.is_finished(w)]


async def running(c: Cluster, name: str, namespace: str) -> int:
    pods = await c.pods(namespace, name)
    return sum(1 for p in pods if p["status"].get("phase") == "Running" and "deletionTimestamp" not in p["metadata"])


async def scale(c: Cluster, name: str, namespace: str, parallelism: int) -> None:
    await c.client.patch(r.JOBS, name, {"spec": {"parallelism": parallelism}}, namespace)


async def test_a_running_job_grows_and_shrinks_without_a_stop() -> None:
    async with cluster(nodes=4) as c:
        await c.client.create(r.JOBS, growing("web", "team-a", 1))

        async def has(count: int) -> bool:
            return await running(c, "web", "team-a") == count

        await c.until(lambda: has(1))
        (one,) = await slices(c, "web", "team-a")
        (first,) = [p["metadata"]["uid"] for p in await c.pods("team-a", "web")]
        await scale(c, "web", "team-a", 3)
        await c.until(lambda: has(3))
        (two,) = await slices(c, "web", "team-a")
        assert annotations_of(two)[labels.REPLACEMENT_FOR] == f"team-a/{one['metadata']['name']}"
        assert two["status"]["admission"]["podSetAssignments"][0]["count"] == 3
        old = await c.client.get(r.WORKLOADS, one["metadata"]["name"], "team-a")
        assert (get_condition(old, "Finished") or {})["reason"] == elastic.REPLACED
        assert first in {p["metadata"]["uid"] for p in await c.pods("team-a", "web")}, "who ran runs on"
        await scale(c, "web", "team-a", 2)
        await c.until(lambda: has(2))
        (same,) = await slices(c, "web", "team-a")
        assert same["metadata"]["name"] == two["metadata"]["name"]
        assert elastic.counts(same) == {"main": 2}
        (given,) = convert.assignments(same)
        assert given.usage["nvidia.com/gpu"] == 16, "the quota of the third pod is free"


async def test_a_job_runs_on_with_its_size_until_there_is_room_for_more() -> None:
    async with cluster(nodes=2) as c:
        await c.client.create(r.JOBS, job("other", "team-b", 1, 8, 60))
        await c.wait_workload("other", "team-b", admitted)
        await c.client.create(r.JOBS, growing("web", "team-a", 1, 400))

        async def has(count: int) -> bool:
            return await running(c, "web", "team-a") == count

        await c.until(lambda: has(1))
        await scale(c, "web", "team-a", 2)
        await asyncio.sleep(20)
        assert await running(c, "web", "team-a") == 1
        assert len(await slices(c, "web", "team-a")) == 2
        await c.until(lambda: has(2))
        assert len(await slices(c, "web", "team-a")) == 1


def workload(name: str, replaces: str = "", *, quota: bool = False, evicted: bool = False, at: int = 0) -> Object:
    notes = {labels.REPLACEMENT_FOR: f"ns/{replaces}"} if replaces else {}
    meta = {"name": name, "uid": name, "annotations": notes, "creationTimestamp": f"2026-01-01T00:00:{at:02}Z"}
    status: dict[str, Any] = {"conditions": []}
    if quota:
        status["admission"] = {"clusterQueue": "q"}
    if evicted:
        status["conditions"].append({"type": "Evicted", "status": "True", "reason": "x", "message": ""})
    return {"metadata": meta, "spec": {"podSets": []}, "status": status}


def test_what_a_crash_leaves_is_sorted_out() -> None:
    def names(found: elastic.Slices) -> tuple[Any, Any, list[tuple[str, str]]]:
        parts = (w["metadata"]["name"] if w else None for w in (found.holder, found.follower))
        return *parts, [(w["metadata"]["name"], reason) for w, reason, _ in found.surplus]

    one, two = workload("a", quota=True), workload("b", "a", at=1)
    assert names(elastic.sorted_out([two, one])) == ("a", "b", [])
    both = [one, workload("b", "a", quota=True, at=1)]
    assert names(elastic.sorted_out(both)) == ("b", None, [("a", elastic.REPLACED)])
    fork = [one, two, workload("c", "a", quota=True, at=2)]
    assert names(elastic.sorted_out(fork)) == ("c", None, [("a", elastic.REPLACED), ("b", elastic.OUT_OF_SYNC)])
    leaving = [workload("a", quota=True, evicted=True), two]
    assert names(elastic.sorted_out(leaving)) == ("a", "b", [])
    alone = [workload("a"), two]
    assert names(elastic.sorted_out(alone)) == (None, "b", [("a", elastic.REPLACED)])
    assert elastic.sorted_out([]) == elastic.Slices(None, None)


async def test_a_job_starts_with_fewer_pods_where_it_may() -> None:
    async with cluster(nodes=2) as c:
        await c.client.create(r.JOBS, job("other", "team-b", 1, 8, 3000))
        await c.wait_workload("other", "team-b", admitted)
        modest = job("modest", "team-a", 4, 4, 60)
        modest["metadata"]["annotations"]["kueue.x-k8s.io/job-min-parallelism"] = "1"
        modest["spec"]["completionMode"] = "NonIndexed"
        await c.client.create(r.JOBS, modest)
        runs = await c.wait_workload("modest", "team-a", lambda w: condition_is_true(w, "PodsReady"))
        assert runs["status"]["admission"]["podSetAssignments"][0]["count"] == 2
        assert (await c.client.get(r.JOBS, "modest", "team-a"))["spec"]["parallelism"] == 2
        assert await running(c, "modest", "team-a") == 2
        await c.wait_workload("modest", "team-a", lambda w: condition_is_true(w, "Finished"))


async def test_quota_of_pods_that_are_done_is_given_to_others() -> None:
    async with cluster(nodes=2) as c:
        queue = await c.client.get(r.CLUSTER_QUEUES, "team-a")
        queue["spec"]["resourceGroups"][0]["flavors"][0]["resources"][0]["borrowingLimit"] = 0
        await c.client.update(r.CLUSTER_QUEUES, queue)
        uneven = job("uneven", "team-a", 2, 4, 300)
        await c.client.create(r.JOBS, uneven)
        await c.wait_workload("uneven", "team-a", lambda w: condition_is_true(w, "PodsReady"))
        await c.client.create(r.JOBS, job("next", "team-a", 1, 4, 30))
        await asyncio.sleep(10)
        assert not admitted(await c.workload("next", "team-a"))
        pod = (await c.pods("team-a", "uneven"))[0]
        pod["status"]["phase"] = "Succeeded"
        await c.client.update_status(r.PODS, pod)
        await c.wait_workload("next", "team-a", admitted, 60)
        reclaimed = (await c.workload("uneven", "team-a"))["status"]["reclaimablePods"]
        assert reclaimed == [{"name": "main", "count": 1}]
