"""Preemption and a person's approval on real Kubernetes: its Job controller stops the pods."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from kube_peer import Peer, assets, real_kubernetes
from test_cluster_queue import bound, controllers, fleet, gang, install, queue_object, queues, running, submit, until

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.objects import Object, condition_is_true, get_condition
from glebe.queueing.admissionchecks.approvals import decided, undecided
from glebe.queueing.life import checks

pytestmark = [pytest.mark.cluster, pytest.mark.realtime]


async def workload(client: Client, job: str) -> Object:
    found = (await client.list(r.WORKLOADS, "default")).items
    return next((w for w in found if w["metadata"]["ownerReferences"][0]["name"] == job), {})


async def when(client: Client, job: str, test: Any) -> Object:
    async def look() -> Object | None:
        found = await workload(client, job)
        return found if found and test(found) else None

    return await until(look)  # type: ignore[no-any-return]


async def kubelets(client: Client) -> None:
    """Pods that are to go are gone."""
    while True:
        for pod in (await client.list(r.PODS, "default")).items:
            if "deletionTimestamp" in pod["metadata"]:
                await client.delete(r.PODS, pod["metadata"]["name"], "default", grace_period=0)
        await asyncio.sleep(0.3)


async def story(peer: Peer) -> None:
    client, env = peer.client(), Env.system()
    ends: asyncio.Task[None] | None = None
    try:
        await peer.ready(client)
        await install(client)
        await fleet(client, 2)
        async with running(client, env):
            await queues(client, 16)
            preemption = {"withinClusterQueue": "LowerPriority"}
            await client.patch(r.CLUSTER_QUEUES, "all", {"spec": {"preemption": preemption}})
            urgent = {"apiVersion": r.WORKLOAD_PRIORITY_CLASSES.api_version, "kind": "WorkloadPriorityClass"}
            await client.create(r.WORKLOAD_PRIORITY_CLASSES, {**urgent, "metadata": {"name": "urgent"}, "value": 100})
            await submit(client, gang("low", 2))
            await bound(client, "low", 2)
            check = queue_object("AdmissionCheck", "boss", {"controllerName": "glebe.dev/approval"})
            await client.create(r.ADMISSION_CHECKS, check)
            strategy = {"admissionChecks": [{"name": "boss"}]}
            await client.patch(r.CLUSTER_QUEUES, "all", {"spec": {"admissionChecksStrategy": strategy}})
            ends = asyncio.create_task(kubelets(client))
            high = gang("high", 2)
            high["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] = "urgent"
            await client.create(r.JOBS, high)
            asked = await when(
                client, "high", lambda w: condition_is_true(w, "QuotaReserved") and undecided(w, ["boss"])
            )
            low = await workload(client, "low")
            assert (get_condition(low, "Preempted") or {})["reason"] == "InClusterQueue"
            assert (await client.get(r.JOBS, "low", "default"))["spec"]["suspend"] is True
            assert not condition_is_true(asked, "Admitted")
            asked = await client.get(r.WORKLOADS, asked["metadata"]["name"], "default")
            await client.update_status(r.WORKLOADS, decided(asked, ["boss"], True, "alice", "", env.clock.now()))
            await bound(client, "high", 2)
            assert checks.listed(await workload(client, "high"))[0]["state"] == "Ready"
    finally:
        if ends is not None:
            ends.cancel()
        await client.close()


async def test_a_preemptor_waits_for_the_pods_and_for_the_person(tmp_path: Path) -> None:
    folder = assets()
    with real_kubernetes(tmp_path) as peer, controllers(peer, folder, tmp_path):
        await story(peer)
