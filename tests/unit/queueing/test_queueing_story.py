"""The whole story of the queue: server, controllers and simulated nodes in one process, under virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from glebe import queueing, workloads
from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env, format_time, parse_time
from glebe.kube.errors import ApiError
from glebe.kube.informer import Informers
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import Object, condition_is_true, get_condition, set_condition
from glebe.node.simulated.nodes import SimulatedNodes
from glebe.node.spec import NodeSpec
from glebe.platform.views import State, job_view
from glebe.queueing import labels
from glebe.queueing.configuration import DEFAULT, Configuration
from glebe.queueing.gatekeeping.admission import QueueAdmission
from glebe.queueing.jobs.dryrun import evaluate
from glebe.queueing.life import evictions

CRDS = Path(queueing.__file__).parent.parent / "crds"
KUEUE = "kueue.x-k8s.io/v1beta2"


class Cluster:
    """One platform under test, with what a reader of it would ask."""

    def __init__(self, client: Client, nodes: SimulatedNodes, env: Env) -> None:
        self.client = client
        self.nodes = nodes
        self.env = env

    async def until(self, what: Callable[[], Awaitable[Any]], limit: float = 300.0) -> Any:
        async with asyncio.timeout(limit):
            while True:
                if value := await what():
                    return value
                await asyncio.sleep(0.05)

    async def workload(self, job: str, namespace: str) -> Object:
        found = await self.client.list(r.WORKLOADS, namespace)
        return next((w for w in found.items if w["metadata"]["ownerReferences"][0]["name"] == job), {})

    async def mark_not_ready(self, node: str) -> None:
        """What the node life cycle controller does with a silent node, without the wait for it."""
        found = await self.client.get(r.NODES, node)
        conditions = found["status"]["conditions"]
        now = format_time(self.env.clock.now())
        found["status"]["conditions"] = set_condition(
            conditions, "Ready", "Unknown", "NodeStatusUnknown", "silent", now
        )
        await self.client.update_status(r.NODES, found)

    async def wait_workload(
        self, job: str, namespace: str, test: Callable[[Object], Any], limit: float = 300.0
    ) -> Object:
        async def look() -> Any:
            workload = await self.workload(job, namespace)
            return workload if workload and test(workload) else None

        return await self.until(look, limit)  # type: ignore[no-any-return]

    async def pods(self, namespace: str, job: str) -> list[Object]:
        found = await self.client.list(r.PODS, namespace, label_selector=f"batch.kubernetes.io/job-name={job}")
        return found.items


def forecast_of(workload: Object) -> dict[str, Any]:
    return (workload.get("status") or {}).get("forecast") or {}


def admitted(workload: Object) -> bool:
    return condition_is_true(workload, "Admitted")


@asynccontextmanager
async def cluster(
    nodes: int = 4, gpus: int = 8, *, checks: bool = True, config: Configuration = DEFAULT
) -> AsyncIterator[Cluster]:
    """``checks``: whether admission looks up other objects; policies of a real cluster cannot."""
    env = Env.seeded(1)
    admission = QueueAdmission()
    server = ApiServer(MemoryStore(), env, TypeRegistry(), admission=(admission,))
    admission.read = server.read if checks else None
    await server.start()
    client = Client(InProcessTransport(server.handle))
    informers = Informers(client, env)
    specs = [
        NodeSpec(
            f"gpu-{n:02d}",
            {"cpu": "64", "memory": "512Gi", "nvidia.com/gpu": str(gpus), "pods": "110"},
            {
                "kubernetes.io/hostname": f"gpu-{n:02d}",
                "glebe.dev/pool": "gpu",
                "topology.glebe.dev/rack": f"rack-{n // 2}",
            },
        )
        for n in range(nodes)
    ]
    try:
        for crd in sorted(CRDS.glob("*.yaml")):
            await client.create(r.CUSTOM_RESOURCE_DEFINITIONS, yaml.safe_load(crd.read_text()))
        for namespace in ("default", "kube-system", "kube-node-lease", "team-a", "team-b"):
            with_name = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
            try:
                await client.create(r.NAMESPACES, with_name)
            except ApiError as error:
                if error.code != 409:
                    raise
        sim = SimulatedNodes(client, env, specs, informers=informers)
        queue = queueing.Queueing(client, informers, env, None, config)
        admission.oracle = queue.never_starts
        found = Cluster(client, sim, env)
        async with asyncio.TaskGroup() as group:
            parts = (*queue.controllers, *workloads.controllers(client, informers, env), sim)
            tasks = [group.create_task(part.run()) for part in parts]
            tasks.append(group.create_task(informers.run()))
            await make_queues(client, nodes * gpus)
            try:
                yield found
            finally:
                for task in tasks:
                    task.cancel()
    finally:
        await server.close()


async def make_queues(client: Client, gpus: int) -> None:
    levels = [{"nodeLabel": "topology.glebe.dev/rack"}, {"nodeLabel": "kubernetes.io/hostname"}]
    await client.create(r.TOPOLOGIES, obj("Topology", "fabric", {"levels": levels}))
    flavor = {"nodeLabels": {"glebe.dev/pool": "gpu"}, "topologyName": "fabric"}
    await client.create(r.RESOURCE_FLAVORS, obj("ResourceFlavor", "gpu", flavor))
    for team in ("a", "b"):
        quotas = [
            {"name": "nvidia.com/gpu", "nominalQuota": gpus // 2},
            {"name": "cpu", "nominalQuota": 1000},
        ]
        spec = {
            "cohortName": "all",
            "namespaceSelector": {},
            "resourceGroups": [
                {"coveredResources": ["nvidia.com/gpu", "cpu"], "flavors": [{"name": "gpu", "resources": quotas}]}
            ],
        }
        await client.create(r.CLUSTER_QUEUES, obj("ClusterQueue", f"team-{team}", spec))
        local = obj("LocalQueue", "main", {"clusterQueue": f"team-{team}"})
        local["metadata"]["namespace"] = f"team-{team}"
        await client.create(r.LOCAL_QUEUES, local)


def obj(kind: str, name: str, spec: dict[str, Any]) -> Object:
    return {"apiVersion": KUEUE, "kind": kind, "metadata": {"name": name}, "spec": spec}


def job(name: str, namespace: str, pods: int, gpus: int, seconds: int = 60, **labels: str) -> Object:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"kueue.x-k8s.io/queue-name": "main", **labels},
            "annotations": {"glebe.dev/expected-run-time": f"{seconds}s"},
        },
        "spec": {
            "completionMode": "Indexed",
            "parallelism": pods,
            "completions": pods,
            "template": {
                "metadata": {"annotations": {"sim.glebe.dev/run-time": f"{seconds}s"}},
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [
                        {
                            "name": "main",
                            "image": "train",
                            "command": ["train"],
                            "resources": {
                                "requests": {"cpu": "1", "nvidia.com/gpu": str(gpus)},
                                "limits": {"nvidia.com/gpu": str(gpus)},
                            },
                        }
                    ],
                },
            },
        },
    }


async def test_gang_starts_whole_and_the_next_waits_with_a_forecast() -> None:
    async with cluster() as c:
        await c.client.create(r.JOBS, job("first", "team-a", 4, 8, 60))
        first = await c.wait_workload("first", "team-a", admitted)
        assignment = first["status"]["admission"]["podSetAssignments"][0]
        assert assignment["resourceUsage"]["nvidia.com/gpu"] == "32"
        began = c.env.clock.now()
        await c.client.create(r.JOBS, job("second", "team-b", 2, 8, 30))
        second = await c.wait_workload("second", "team-b", lambda w: "startP50" in forecast_of(w))
        forecast = second["status"]["forecast"]
        assert forecast["position"] == 1
        assert forecast["clusterQueue"] == "team-b"
        assert forecast["message"] == (get_condition(second, "QuotaReserved") or {})["message"]
        predicted = parse_time(forecast["startP50"])
        assert began + 50 < predicted < began + 75

        async def all_running() -> bool:
            pods = await c.pods("team-a", "first")
            return len(pods) == 4 and all(p["status"].get("phase") == "Running" for p in pods)

        await c.until(all_running)
        by_index = {
            p["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"]: p["spec"]["nodeName"]
            for p in await c.pods("team-a", "first")
        }
        assert [by_index[str(i)] for i in range(4)] == ["gpu-00", "gpu-01", "gpu-02", "gpu-03"]
        started = await c.wait_workload("second", "team-b", admitted)
        at = parse_time((get_condition(started, "Admitted") or {})["lastTransitionTime"])
        assert abs(at - predicted) <= 5
        done = await c.wait_workload("first", "team-a", lambda w: condition_is_true(w, "Finished"))
        assert (get_condition(done, "Finished") or {})["reason"] == "Succeeded"
        await c.wait_workload("second", "team-b", lambda w: condition_is_true(w, "Finished"))

        async def idle() -> bool:
            queue = await c.client.get(r.CLUSTER_QUEUES, "team-b")
            status = queue.get("status") or {}
            return status.get("admittedWorkloads") == 0 and status["flavorsUsage"][0]["resources"][0]["total"] == "0"

        await c.until(idle)


async def queue_of_a(c: Cluster) -> Object | None:
    found = await c.client.list(r.CLUSTER_QUEUES)
    return next((queue for queue in found.items if queue["metadata"]["name"] == "team-a"), None)


async def in_use_by_a(c: Cluster) -> None:
    """A job runs in team-a, and its ClusterQueue has the finalizer."""

    async def guarded() -> bool:
        queue = await queue_of_a(c)
        return queue is not None and queue["metadata"].get("finalizers") == [labels.IN_USE]

    await c.client.create(r.JOBS, job("runs", "team-a", pods=2, gpus=8, seconds=120))
    await c.wait_workload("runs", "team-a", admitted)
    await c.until(guarded)


async def test_a_deleted_queue_stays_until_nothing_holds_its_quota() -> None:
    async with cluster() as c:

        async def gone() -> bool:
            return await queue_of_a(c) is None

        await in_use_by_a(c)
        await c.client.delete(r.CLUSTER_QUEUES, "team-a")
        await c.client.delete(r.LOCAL_QUEUES, "main", "team-a")  # nor does that let go of the quota
        await asyncio.sleep(30)
        left = await queue_of_a(c)
        assert left is not None
        assert (get_condition(left, "Active") or {})["reason"] == "Terminating"
        await c.wait_workload("runs", "team-a", lambda w: condition_is_true(w, "Finished"))
        await c.until(gone)


async def test_nothing_is_admitted_by_a_queue_that_is_being_deleted() -> None:
    async with cluster() as c:
        await in_use_by_a(c)
        await c.client.delete(r.CLUSTER_QUEUES, "team-a")
        await c.client.create(r.JOBS, job("late", "team-a", pods=1, gpus=8))
        late = await c.wait_workload("late", "team-a", lambda w: forecast_of(w).get("reason") == "ClusterQueueNotFound")
        assert forecast_of(late)["message"] == 'ClusterQueue "team-a" is being deleted'
        await c.wait_workload("runs", "team-a", lambda w: condition_is_true(w, "Finished"))
        assert not admitted(await c.workload("late", "team-a"))


async def test_only_suspend_is_written_after_creation() -> None:
    async with cluster() as c:
        created = await c.client.create(r.JOBS, job("one", "team-a", 1, 8))
        assert created["spec"]["suspend"] is True
        assert created["spec"]["template"]["spec"]["schedulingGates"] == [{"name": "kueue.x-k8s.io/topology"}]
        await c.wait_workload("one", "team-a", lambda w: condition_is_true(w, "PodsReady"))
        running = await c.client.get(r.JOBS, "one", "team-a")
        assert running["spec"]["suspend"] is False
        created["spec"]["suspend"] = False
        assert running["spec"] == created["spec"]


async def test_impossible_and_wrong_jobs_are_answered_at_once() -> None:
    async with cluster() as c:
        huge = job("huge", "team-a", 100, 8)
        await c.client.create(r.JOBS, huge)
        workload = await c.wait_workload("huge", "team-a", lambda w: get_condition(w, "QuotaReserved"))
        condition = get_condition(workload, "QuotaReserved") or {}
        assert condition["reason"] in ("ExceedsMaxQuota", "ExceedsCapacity")
        assert "startP50" not in workload["status"]["forecast"]
        assert workload["status"]["forecast"]["clusterQueue"] == "team-a"
        answer = await evaluate(c.client, c.env, huge)
        assert answer.decision.message == condition["message"]
        with pytest.raises(ApiError) as refused:
            await c.client.create(r.JOBS, job("odd", "team-a", 1, 1, **{"glebe.dev/class": "nonsense"}))
        assert refused.value.code == 422
        assert "metadata.labels[glebe.dev/class]" in refused.value.message
        lost = job("lost", "team-a", 1, 1, **{"kueue.x-k8s.io/queue-name": "nowhere"})
        await c.client.create(r.JOBS, lost)
        workload = await c.wait_workload("lost", "team-a", lambda w: get_condition(w, "QuotaReserved"))
        assert 'LocalQueue "nowhere" does not exist' in (get_condition(workload, "QuotaReserved") or {})["message"]


async def test_a_missing_class_is_told_and_waited_for_where_admission_cannot_know() -> None:
    async with cluster(checks=False) as c:
        for name, label in (("a", "glebe.dev/class"), ("b", "kueue.x-k8s.io/priority-class")):
            await c.client.create(r.JOBS, job(name, "team-a", 1, 1, **{label: "urgent"}))
        for name, kind in (("a", "WorkloadClass"), ("b", "WorkloadPriorityClass")):
            workload = await c.wait_workload(name, "team-a", lambda w: get_condition(w, "QuotaReserved"))
            condition = get_condition(workload, "QuotaReserved") or {}
            message = f'{kind} "urgent" does not exist'
            assert (condition["status"], condition["reason"]) == ("False", "Misconfigured")
            assert condition["message"] == message
            assert job_view(None, workload).state is State.NEVER

            async def told(name: str = name, message: str = message) -> bool:
                events = (await c.client.list(r.EVENTS, "team-a")).items
                about = {e["involvedObject"]["kind"] for e in events if e["message"].startswith(message)}
                return about == {"Job", "Workload"}

            await c.until(told)
        expected = {"p50Seconds": 60, "p90Seconds": 90}
        spec = {"description": "", "priority": 70, "expectedRunTime": expected}
        meta = {"name": "urgent"}
        kind = r.WORKLOAD_CLASSES.kind
        await c.client.create(
            r.WORKLOAD_CLASSES,
            {"apiVersion": r.WORKLOAD_CLASSES.api_version, "kind": kind, "metadata": meta, "spec": spec},
        )
        started = await c.wait_workload("a", "team-a", admitted)
        assert started["spec"]["priority"] == 70
        assert "glebe.dev/missing-class" not in started["metadata"].get("annotations", {})
        await c.client.patch(r.JOBS, "b", {"metadata": {"labels": {"kueue.x-k8s.io/priority-class": None}}}, "team-a")
        await c.wait_workload("b", "team-a", admitted)


async def test_a_class_that_vanishes_later_stops_nothing() -> None:
    async with cluster() as c:
        kind = r.WORKLOAD_PRIORITY_CLASSES
        urgent = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": "urgent"}, "value": 9}
        await c.client.create(kind, urgent)
        for name in ("first", "second"):
            wanted = job(name, "team-a", 4, 8, 200, **{"kueue.x-k8s.io/priority-class": "urgent"})
            await c.client.create(r.JOBS, wanted)
        await c.wait_workload("first", "team-a", lambda w: condition_is_true(w, "PodsReady"))
        await c.client.delete(kind, "urgent")
        await asyncio.sleep(10)
        await c.client.patch(r.JOBS, "second", {"metadata": {"annotations": {"x": "y"}}}, "team-a")
        await asyncio.sleep(10)
        second = await c.workload("second", "team-a")
        assert (second["spec"]["priority"], forecast_of(second)["reason"]) == (9, "WaitingForQuota")
        assert condition_is_true(await c.workload("first", "team-a"), "PodsReady")


async def test_time_limit_deactivates() -> None:
    async with cluster() as c:
        limited = job("long", "team-a", 1, 8, 500, **{"kueue.x-k8s.io/max-exec-time-seconds": "20"})
        await c.client.create(r.JOBS, limited)
        workload = await c.wait_workload("long", "team-a", lambda w: not w.get("spec", {}).get("active", True))
        workload = await c.wait_workload("long", "team-a", lambda w: not (w.get("status") or {}).get("admission"))
        assert (get_condition(workload, "Evicted") or {})["reason"] == "DeactivatedDueToMaximumExecutionTimeExceeded"
        for kind in ("Evicted", "QuotaReserved", "Requeued"):
            message = (get_condition(workload, kind) or {})["message"]
            assert message == "The workload is deactivated due to exceeding the maximum execution time", kind
        assert (get_condition(workload, "Requeued") or {})["status"] == "False"
        assert workload["status"]["schedulingStats"]["evictions"] == [
            {"reason": "Deactivated", "underlyingCause": "MaximumExecutionTimeExceeded", "count": 1}
        ]
        stopped = await c.client.get(r.JOBS, "long", "team-a")
        assert stopped["spec"]["suspend"] is True
        view = job_view(stopped, workload)
        assert (view.state, view.reason) == (State.STOPPED, "MaximumExecutionTimeExceeded")
        assert view.message == "The workload is deactivated due to exceeding the maximum execution time"


async def test_a_crash_while_the_time_limit_is_enforced_does_not_lose_the_cause() -> None:
    async with cluster() as c:
        limited = job("long", "team-a", 1, 8, 500, **{"kueue.x-k8s.io/max-exec-time-seconds": "3600"})
        await c.client.create(r.JOBS, limited)
        workload = await c.wait_workload("long", "team-a", lambda w: condition_is_true(w, "PodsReady"))
        await c.client.update_status(
            r.WORKLOADS, evictions.intend_deactivation(workload, "MaximumExecutionTimeExceeded", "over", 0)
        )  # as one that ended here left it
        workload = await c.wait_workload("long", "team-a", lambda w: not w["status"].get("admission"))
        assert workload["spec"]["active"] is False
        assert (get_condition(workload, "Evicted") or {})["message"] == "The workload is deactivated due to over"
        workload["spec"]["active"] = True
        await c.client.update(r.WORKLOADS, workload)
        again = await c.wait_workload("long", "team-a", lambda w: condition_is_true(w, "PodsReady"))
        assert "accumulatedPastExecutionTimeSeconds" not in again["status"], "by hand it gets its whole time again"


async def test_switched_off_by_hand_is_suspended_not_stopped() -> None:
    async with cluster() as c:
        await c.client.create(r.JOBS, job("run", "team-a", 1, 8, 500))
        workload = await c.wait_workload("run", "team-a", lambda w: condition_is_true(w, "PodsReady"))
        name = workload["metadata"]["name"]
        await c.client.patch(r.WORKLOADS, name, {"spec": {"active": False}}, "team-a")
        workload = await c.wait_workload("run", "team-a", lambda w: not w["status"].get("admission"))
        view = job_view(await c.client.get(r.JOBS, "run", "team-a"), workload)
        assert (view.state, view.reason) == (State.SUSPENDED, "Deactivated")
