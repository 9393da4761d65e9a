"""The controllers on the real API server, in one process, under virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from glebe import workloads
from glebe.apiserver.server import ApiServer
from glebe.apiserver.store.memory import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env, format_time
from glebe.kube.errors import ApiError
from glebe.kube.informer import Informers
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import Object, condition_is_true, get_condition
from glebe.kube.resources import CONFIGMAPS, EVENTS, JOBS, NAMESPACES, NODES, PODS, SERVICE_ACCOUNTS


@asynccontextmanager
async def running() -> AsyncIterator[Client]:
    env = Env.seeded(7)
    server = ApiServer(MemoryStore(), env, TypeRegistry())
    await server.start()
    client = Client(InProcessTransport(server.handle))
    informers = Informers(client, env)
    controllers = workloads.controllers(client, informers, env, root_ca="PEM")
    tasks = [asyncio.create_task(informers.run()), *(asyncio.create_task(c.run()) for c in controllers)]
    try:
        yield client
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.close()


async def until(what: Callable[[], Awaitable[Any]], seconds: float = 60.0) -> Any:
    for _ in range(int(seconds * 10)):
        if value := await what():
            return value
        await asyncio.sleep(0.1)
    raise AssertionError("it did not come about")


def job(name: str = "train", **spec: Any) -> Object:
    requests = {"cpu": "1", "nvidia.com/gpu": "8"}
    container = {"name": "main", "image": "x", "resources": {"requests": requests, "limits": requests}}
    template = {"spec": {"containers": [container], "restartPolicy": "Never"}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"template": template, **spec},
    }


def node(name: str) -> Object:
    amounts = {"cpu": "64", "memory": "64Gi", "pods": "110", "nvidia.com/gpu": "8"}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": {"allocatable": amounts}}


async def add_node(client: Client, name: str) -> None:
    created = await client.create(NODES, node(name))
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}
    await client.update_status(NODES, {**created, "status": {**node(name)["status"], "conditions": [ready]}})


async def end_pod(client: Client, pod: Object, phase: str) -> None:
    end = {"exitCode": 0 if phase == "Succeeded" else 1, "finishedAt": format_time(Env.seeded(0).clock.now())}
    states = [{"name": "main", "ready": False, "image": "x", "imageID": "", "restartCount": 0}]
    status = {"phase": phase, "containerStatuses": [{**states[0], "state": {"terminated": end}}]}
    meta = pod["metadata"]
    await client.patch(PODS, meta["name"], {"status": status}, meta["namespace"], subresource="status")


async def bound(client: Client, count: int) -> list[Object] | None:
    pods = [p for p in (await client.list(PODS, "default")).items if p["spec"].get("nodeName")]
    return pods if len(pods) == count else None


async def test_a_job_runs_from_creation_to_completion() -> None:
    async with running() as client:
        for name in ("a", "b"):
            await add_node(client, name)
        await client.create(JOBS, job(parallelism=2, completions=2, completionMode="Indexed"))
        pods = await until(lambda: bound(client, 2))
        assert {p["spec"]["nodeName"] for p in pods} == {"a", "b"}
        assert {p["spec"]["hostname"] for p in pods} == {"train-0", "train-1"}
        for pod in pods:
            await end_pod(client, pod, "Succeeded")

        async def complete() -> Object | None:
            found = await client.get(JOBS, "train", "default")
            return found if condition_is_true(found, "Complete") else None

        done = await until(complete)
        assert done["status"]["completedIndexes"] == "0,1"
        assert done["status"]["succeeded"] == 2
        assert done["status"]["uncountedTerminatedPods"] == {}
        reasons = {e["reason"] for e in (await client.list(EVENTS, "default")).items}
        assert {"SuccessfulCreate", "Scheduled", "Completed"} <= reasons


async def test_a_pod_without_room_says_so_and_a_suspended_job_has_none() -> None:
    async with running() as client:
        await add_node(client, "a")
        await client.create(JOBS, job("one"))
        await client.create(JOBS, job("two", suspend=True))
        await until(lambda: bound(client, 1))

        async def suspended() -> bool:
            return condition_is_true(await client.get(JOBS, "two", "default"), "Suspended")

        await until(suspended)
        assert len((await client.list(PODS, "default")).items) == 1
        await client.patch(JOBS, "two", {"spec": {"suspend": False}}, "default")

        async def refused() -> Object | None:
            for pod in (await client.list(PODS, "default")).items:
                condition = get_condition(pod, "PodScheduled")
                if condition and condition["status"] == "False":
                    return condition
            return None

        condition = await until(refused)
        why = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
        nobody = "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
        assert condition["message"] == f"{why} {nobody}"


async def test_a_namespace_gets_its_account_and_goes_with_its_content() -> None:
    async with running() as client:
        await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})

        async def furnished() -> bool:
            accounts = (await client.list(SERVICE_ACCOUNTS, "team")).items
            maps = (await client.list(CONFIGMAPS, "team")).items
            return bool(accounts and maps)

        await until(furnished)
        body = job()
        body["metadata"]["namespace"] = "team"
        await client.create(JOBS, body)

        async def pods() -> list[Object]:
            return (await client.list(PODS, "team")).items

        await until(pods)
        await client.delete(NAMESPACES, "team")

        async def gone() -> bool:
            try:
                await client.get(NAMESPACES, "team")
            except ApiError as error:
                return error.code == 404
            return False

        await until(gone)
        assert not await pods()


async def test_deleting_a_job_takes_its_pods_along_or_leaves_them() -> None:
    async with running() as client:
        await add_node(client, "a")
        for name, policy in (("gone", "Background"), ("first", "Foreground"), ("left", "Orphan")):
            body = job(name)
            body["spec"]["template"]["spec"]["containers"][0].pop("resources")
            await client.create(JOBS, body)
            await until(lambda: bound(client, 1))
            await client.delete(JOBS, name, "default", propagation=policy)

            async def settled(name: str = name) -> bool:
                """No node ends these pods: a pod that is asked to go is as good as gone."""
                jobs = [j for j in (await client.list(JOBS, "default")).items if j["metadata"]["name"] == name]
                pods = (await client.list(PODS, "default")).items
                for pod in pods:
                    if "deletionTimestamp" in pod["metadata"]:
                        await client.delete(PODS, pod["metadata"]["name"], "default", grace_period=0)
                    elif name == "left":
                        return not jobs and not pod["metadata"].get("ownerReferences")
                return not jobs and not pods

            await until(settled)


async def test_a_job_survives_the_death_of_a_node() -> None:
    async with running() as client:
        await add_node(client, "a")
        await add_node(client, "b")
        await client.create(JOBS, job(parallelism=1, completions=1))
        (pod,) = await until(lambda: bound(client, 1))
        dead = pod["spec"]["nodeName"]
        other = "b" if dead == "a" else "a"

        async def keep_alive() -> None:
            while True:
                ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
                beat = {"lastHeartbeatTime": format_time(Env.seeded(0).clock.now())}
                status = {"status": {"conditions": [{**ready, **beat}]}}
                await client.patch(NODES, other, status, subresource="status")
                await asyncio.sleep(10)

        beating = asyncio.create_task(keep_alive())

        async def moved() -> bool:
            pods = (await client.list(PODS, "default")).items
            return any(p["spec"].get("nodeName") == other and p["status"]["phase"] == "Pending" for p in pods)

        await until(moved, 80)
        found = await client.get(JOBS, "train", "default")
        assert found["status"]["failed"] == 1
        beating.cancel()
