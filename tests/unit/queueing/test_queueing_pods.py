"""Pods that are queued themselves, on simulated nodes: single ones, groups, and those of serving kinds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from jobkindworlds import (
    NAMESPACE,
    POOL,
    KindWorld,
    admitted,
    container,
    crd,
    finished,
    job,
    kind_world,
    template,
)

from glebe.kube import resources as r
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object, condition_is_true, get_condition, is_deleting, owner_reference
from glebe.queueing.jobkinds.registry import shipped
from glebe.queueing.pods.holding import role_of

KINDS = {kind.resource.kind: kind for kind in shipped()}
GROUP = "kueue.x-k8s.io/pod-group-name"
TOTAL = "kueue.x-k8s.io/pod-group-total-count"
FAST = "kueue.x-k8s.io/pod-group-fast-admission"
RETRIABLE = "kueue.x-k8s.io/retriable-in-group"


def pod(name: str, gpus: int = 1, seconds: int = 30, *, group: str = "", total: int = 0, **notes: Any) -> Object:
    meta: dict[str, Any] = {
        "name": name,
        "namespace": NAMESPACE,
        "labels": {"kueue.x-k8s.io/queue-name": "main"},
        "annotations": {"sim.glebe.dev/run-time": f"{seconds}s", **notes},
    }
    if group:
        meta["labels"][GROUP] = group
        meta["annotations"][TOTAL] = str(total)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template(gpus)["spec"]}


def phase(*phases: str) -> Any:
    return lambda p: (p.get("status") or {}).get("phase") in phases


def runs(p: Object) -> bool:
    return bool(phase("Running")(p)) and not is_deleting(p)


async def test_a_single_pod_waits_runs_and_ends() -> None:
    async with kind_world() as w:
        made = await w.apply(r.PODS, pod("one", 2))
        assert [g["name"] for g in made["spec"]["schedulingGates"]] == [
            "kueue.x-k8s.io/admission",
            "kueue.x-k8s.io/topology",
        ]
        assert made["metadata"]["finalizers"] == ["kueue.x-k8s.io/managed"]
        assert made["metadata"]["labels"]["kueue.x-k8s.io/managed"] == "true"
        first = await w.workload(admitted)
        assert first["metadata"]["name"].startswith("pod-one-")
        await w.holds(2)
        (running,) = await w.all_pods(runs, 1)
        assert running["spec"]["nodeSelector"] == POOL
        assert running["metadata"]["labels"]["kueue.x-k8s.io/cluster-queue-name"] == "main"
        await w.workload(lambda o: condition_is_true(o, "PodsReady"))
        (done,) = await w.all_pods(phase("Succeeded"), 1)
        ended = await w.workload(finished)
        assert (get_condition(ended, "Finished") or {})["reason"] == "Succeeded"
        await w.free()
        await w.until(lambda: unpinned(w, done["metadata"]["name"]))


async def unpinned(w: KindWorld, name: str) -> bool:
    return not (await w.client.get(r.PODS, name, NAMESPACE))["metadata"].get("finalizers")


async def test_a_group_starts_when_all_of_it_is_there() -> None:
    async with kind_world() as w:
        for n in range(2):
            await w.apply(r.PODS, pod(f"w-{n}", 4, group="gang", total=3))
        await asyncio.sleep(10)
        assert await w.workloads() == []
        events = (await w.client.list(r.EVENTS, NAMESPACE)).items
        assert any("2 of the group's 3 pods are there" in e["message"] for e in events)
        await w.apply(r.PODS, pod("lead", 1, group="gang", total=3))
        first = await w.workload(admitted)
        assert first["metadata"]["name"] == "gang"
        assert sorted(p["count"] for p in first["spec"]["podSets"]) == [1, 2]
        assert len(first["metadata"]["ownerReferences"]) == 3
        await w.holds(9)
        await w.all_pods(runs, 3)
        ended = await w.workload(finished)
        assert (get_condition(ended, "Finished") or {})["message"] == "Pods succeeded: 3/3."
        await w.free()


async def test_a_failed_pod_of_a_group_is_replaced() -> None:
    async with kind_world() as w:
        await w.apply(r.PODS, pod("good", 1, 60, group="gang", total=2))
        fails = {"sim.glebe.dev/exit-code": "1"}
        await w.apply(r.PODS, pod("bad", 1, 10, group="gang", total=2, **fails))
        waiting = await w.workload(lambda o: condition_is_true(o, "WaitingForReplacementPods"), of="gang")
        assert (get_condition(waiting, "WaitingForReplacementPods") or {})["reason"] == "PodsFailed"
        assert not finished(waiting)
        await w.apply(r.PODS, pod("better", 1, 30, group="gang", total=2))
        await w.until(lambda: unpinned(w, "bad"))
        await w.workload(lambda o: (get_condition(o, "WaitingForReplacementPods") or {})["status"] == "False")
        ended = await w.workload(finished)
        assert (get_condition(ended, "Finished") or {})["message"] == "Pods succeeded: 2/2."
        assert len(ended["metadata"]["ownerReferences"]) == 3


async def test_a_group_that_is_not_retriable_ends_with_its_pods() -> None:
    async with kind_world() as w:
        note = {RETRIABLE: "false"}
        await w.apply(r.PODS, pod("a", 1, 20, group="gang", total=2, **note))
        await w.apply(r.PODS, pod("b", 1, 10, group="gang", total=2, **{"sim.glebe.dev/exit-code": "1"}))
        ended = await w.workload(finished)
        assert (get_condition(ended, "Finished") or {})["message"] == "Pods succeeded: 1/2."
        await w.free()
        with pytest.raises(ApiError) as refused:
            await w.client.patch(r.PODS, "a", {"metadata": {"annotations": {RETRIABLE: None}}}, NAMESPACE)
        assert refused.value.code == 422


async def test_quota_of_pods_that_succeeded_comes_back_while_others_run() -> None:
    async with kind_world() as w:
        await w.apply(r.PODS, pod("short", 2, 10, group="gang", total=2))
        await w.apply(r.PODS, pod("long", 3, 200, group="gang", total=2))
        found = await w.workload(lambda o: (o.get("status") or {}).get("reclaimablePods"))
        short = await w.client.get(r.PODS, "short", NAMESPACE)
        assert found["status"]["reclaimablePods"] == [{"name": role_of(short), "count": 1}]


async def test_an_evicted_group_is_stopped_and_waits_for_new_pods() -> None:
    async with kind_world() as w:
        for n in range(2):
            await w.apply(r.PODS, pod(f"old-{n}", 2, 600, group="gang", total=2))
        await w.all_pods(runs, 2)
        first = await w.workload(admitted)
        await w.evict(first)
        gone = await w.all_pods(is_deleting, 2)
        assert (get_condition(gone[0], "TerminationTarget") or {})["reason"] == "WorkloadEvicted"
        await w.free()
        waiting = await w.workload(lambda o: condition_is_true(o, "WaitingForReplacementPods"))
        await w.activate(waiting)
        for n in range(2):
            await w.apply(r.PODS, pod(f"new-{n}", 2, 20, group="gang", total=2))
        again = await w.workload(lambda o: admitted(o) and o["metadata"]["uid"] == first["metadata"]["uid"])
        assert finished(await w.workload(finished, of=again["metadata"]["name"]))
        await w.free()


async def test_fast_admission_does_not_wait_for_all_pods() -> None:
    async with kind_world() as w:
        fast = {FAST: "true"}
        await w.apply(r.PODS, pod("a", 2, 60, group="gang", total=3, **fast))
        await w.workload(admitted)
        await w.holds(6)
        await w.all_pods(runs, 1)
        for name in ("b", "c"):
            await w.apply(r.PODS, pod(name, 2, 60, group="gang", total=3, **fast))
        await w.all_pods(runs, 3)
        await w.workload(finished)


async def test_pods_beyond_the_total_go() -> None:
    async with kind_world() as w:
        for n in range(2):
            await w.apply(r.PODS, pod(f"w-{n}", 1, 60, group="gang", total=2))
        await w.workload(admitted)
        await w.apply(r.PODS, pod("extra", 1, 60, group="gang", total=2))
        await w.all_pods(runs, 2)
        assert sorted(p["metadata"]["name"] for p in await w.pods()) == ["w-0", "w-1"]


async def test_a_group_that_is_deleted_leaves_nothing() -> None:
    async with kind_world() as w:
        for n in range(2):
            await w.apply(r.PODS, pod(f"w-{n}", 40, 60, group="gang", total=2))
        await w.workload()
        for n in range(2):
            await w.client.delete(r.PODS, f"w-{n}", NAMESPACE)

        async def nothing() -> bool:
            return not await w.pods() and not await w.workloads()

        await w.until(nothing)


async def test_running_pods_that_are_deleted_give_their_quota_back() -> None:
    async with kind_world() as w:
        await w.apply(r.PODS, pod("one", 2, 600))
        await w.all_pods(runs, 1)
        await w.client.delete(r.PODS, "one", NAMESPACE)
        await w.free()
        await w.until(lambda: _no_pods(w))


async def test_an_evicted_pod_goes_and_leaves_nothing() -> None:
    async with kind_world() as w:
        await w.apply(r.PODS, pod("one", 2, 600))
        await w.all_pods(runs, 1)
        await w.evict(await w.workload(admitted))
        await w.until(lambda: _no_pods(w))
        await w.until(lambda: _empty(w))
        await w.free()


async def _no_pods(w: KindWorld) -> bool:
    return not await w.pods()


@pytest.mark.parametrize(
    ("labels", "notes", "field"),
    [
        ({GROUP: "gang"}, {}, TOTAL),
        ({}, {TOTAL: "2"}, GROUP),
        ({GROUP: "Gang"}, {TOTAL: "2"}, GROUP),
        ({GROUP: "gang"}, {TOTAL: "0"}, TOTAL),
        ({"kueue.x-k8s.io/managed": "no"}, {}, "kueue.x-k8s.io/managed"),
    ],
)
async def test_what_is_wrong_with_a_group_is_named(labels: dict[str, str], notes: dict[str, Any], field: str) -> None:
    async with kind_world() as w:
        wrong = pod("one", **notes)
        wrong["metadata"]["labels"].update(labels)
        with pytest.raises(ApiError) as refused:
            await w.apply(r.PODS, wrong)
        assert refused.value.code == 422
        assert field in refused.value.message


async def test_pods_of_a_queued_job_are_not_queued_again() -> None:
    async with kind_world() as w:
        inside = template(1, 30)
        inside["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "main"}
        await w.apply(r.JOBS, job(r.JOBS, "j", {"parallelism": 2, "completions": 2, "template": inside}))
        await w.workload(finished)
        assert [o["metadata"]["name"][:4] for o in await w.workloads()] == ["job-"]


async def test_ranks_of_a_group_get_neighbouring_nodes() -> None:
    async with kind_world(topology=True) as w:
        for n in range(3):
            index = {"kueue.x-k8s.io/pod-group-pod-index-label": "rank"}
            place = {"kueue.x-k8s.io/podset-required-topology": "rack"}
            rank = pod(f"w-{n}", 4, 60, group="gang", total=3, **index, **place)
            rank["metadata"]["labels"]["rank"] = str(2 - n)
            await w.apply(r.PODS, rank)
        found = await w.all_pods(runs, 3)
        nodes = {p["metadata"]["labels"]["rank"]: p["spec"]["nodeName"] for p in found}
        assert nodes == {"0": "gpu-00", "1": "gpu-00", "2": "gpu-01"}
        await w.workload(finished)


async def test_each_pod_of_a_deployment_stands_in_the_queue() -> None:
    async with kind_world() as w:
        spec = {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container(12)]}},
        }
        spec["template"]["spec"]["containers"] = [container(4)]  # type: ignore[index]
        await w.apply(r.DEPLOYMENTS, job(r.DEPLOYMENTS, "web", spec))
        await w.all_pods(runs, 3)
        await w.holds(12)
        found = await w.workloads()
        assert [o["metadata"]["name"][:8] for o in found] == ["pod-web-"] * 3
        assert not any(p["metadata"].get("finalizers") for p in await w.pods())
        # an evicted one is deleted, its successor queues
        await w.evict(found[0])
        await w.until(lambda: _gone(w, found[0]))
        await w.all_pods(runs, 3)
        await w.client.patch(r.DEPLOYMENTS, "web", {"spec": {"replicas": 1}}, NAMESPACE)
        await w.holds(4)


async def _gone(w: KindWorld, workload: Object) -> bool:
    return workload["metadata"]["uid"] not in {o["metadata"]["uid"] for o in await w.workloads()}


async def test_a_statefulset_is_admitted_as_a_whole_and_holds_nothing_when_scaled_to_zero() -> None:
    async with kind_world() as w:
        spec = {
            "replicas": 2,
            "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}},
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [container(6)]}},
        }
        await w.apply(r.STATEFUL_SETS, job(r.STATEFUL_SETS, "db", spec))
        first = await w.workload(admitted)
        assert first["metadata"]["name"].startswith("statefulset-db-")
        await w.holds(12)
        await w.all_pods(runs, 2)
        await w.workload(lambda o: condition_is_true(o, "PodsReady"))
        # evicted: pods go, come back held, and start when it is admitted again
        await w.evict(first)
        await w.free()
        (held,) = await w.all_pods(lambda p: "schedulingGates" in p["spec"] and not is_deleting(p), 1)
        assert held["metadata"]["name"] == "db-0"
        await w.activate(first)
        await w.all_pods(runs, 2)
        for change, field in (
            ({"replicas": 3}, "spec.replicas"),
            ({"template": {"spec": {"containers": [container(7)]}}}, "spec.template"),
        ):
            with pytest.raises(ApiError) as refused:
                await w.client.patch(r.STATEFUL_SETS, "db", {"spec": change}, NAMESPACE)
            assert field in refused.value.message
        await w.client.patch(r.STATEFUL_SETS, "db", {"spec": {"replicas": 0}}, NAMESPACE)
        await w.free()
        waiting = await w.workload(lambda o: (get_condition(o, "QuotaReserved") or {})["status"] == "False")
        assert (get_condition(waiting, "QuotaReserved") or {})["reason"] == "OnHold"
        await w.client.patch(r.STATEFUL_SETS, "db", {"spec": {"replicas": 1}}, NAMESPACE)
        await w.holds(6)
        await w.all_pods(runs, 1)
        await w.client.delete(r.STATEFUL_SETS, "db", NAMESPACE)
        await w.until(lambda: _empty(w))
        await w.free()


async def _empty(w: KindWorld) -> bool:
    return not await w.workloads()


async def test_groups_of_a_leaderworkerset_start_one_by_one() -> None:
    lws = KINDS["LeaderWorkerSet"].resource
    async with kind_world(gpus=4) as w:
        await w.apply(r.CUSTOM_RESOURCE_DEFINITIONS, crd(lws))
        await asyncio.sleep(2)
        both = {
            "size": 3,
            "leaderTemplate": {"spec": {"containers": [container(2)]}},
            "workerTemplate": {"spec": {"containers": [container(4)]}},
        }
        spec = {"replicas": 2, "leaderWorkerTemplate": both}
        made = await w.apply(lws, job(lws, "serve", spec))
        told = made["spec"]["leaderWorkerTemplate"]["workerTemplate"]["metadata"]
        assert told["annotations"]["kueue.x-k8s.io/pod-suspending-parent"] == (
            "leaderworkerset.x-k8s.io/leaderworkerset"
        )

        async def two() -> list[Object] | None:
            found = await w.workloads()
            return found if len(found) == 2 else None

        found = await w.until(two)
        assert {p["name"]: p["count"] for p in found[0]["spec"]["podSets"]} == {"leader": 1, "worker": 2}
        await w.workload(admitted)
        await w.holds(10)  # 16 GPUs: the other group waits
        for group in range(2):
            for index in range(3):
                await w.apply(r.PODS, member(made, group, index))
        running = await w.until(lambda: _running(w, 3))
        assert {p["metadata"]["labels"]["leaderworkerset.sigs.k8s.io/group-index"] for p in running} == {"0"}
        assert {p["metadata"]["labels"]["kueue.x-k8s.io/podset"] for p in running} == {"leader", "worker"}
        first = next(o for o in await w.workloads() if admitted(o))
        await w.evict(first)
        await w.all_pods(runs, 3, "leaderworkerset.sigs.k8s.io/group-index=1")
        await w.client.patch(lws, "serve", {"spec": {"replicas": 1}}, NAMESPACE)
        await w.until(lambda: _left(w, 1))
        await w.client.delete(lws, "serve", NAMESPACE)
        await w.until(lambda: _empty(w))


def member(owner: Object, group: int, index: int) -> Object:
    """A pod as the operator of LeaderWorkerSets makes it."""
    which = "leaderTemplate" if index == 0 else "workerTemplate"
    found = owner["spec"]["leaderWorkerTemplate"][which]
    prefix = "leaderworkerset.sigs.k8s.io/"
    place = {f"{prefix}name": "serve", f"{prefix}group-index": str(group), f"{prefix}worker-index": str(index)}
    meta = {
        "name": f"serve-{group}-{index}",
        "namespace": NAMESPACE,
        "labels": {**found["metadata"]["labels"], **place},
        "annotations": found["metadata"]["annotations"],
        "ownerReferences": [owner_reference(owner)],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": found["spec"]}


async def _running(w: KindWorld, count: int) -> list[Object] | None:
    found = [p for p in await w.pods() if runs(p)]
    return found if len(found) == count else None


async def _left(w: KindWorld, count: int) -> bool:
    return len(await w.workloads()) == count
