"""Shares in the statuses of ClusterQueues and Cohorts: as quota is taken, given back, and its limits change."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.informer import Informers
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import Object
from glebe.kube.resources import Resource
from glebe.platform import bootstrap
from glebe.queueing.telling import queuestatus

GPU = "nvidia.com/gpu"


def made(kind: Resource, name: str, spec: dict[str, Any], **meta: Any) -> Object:
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name, **meta}, "spec": spec}


def groups(nominal: int) -> list[dict[str, Any]]:
    resources = [{"name": GPU, "nominalQuota": nominal}]
    return [{"coveredResources": [GPU], "flavors": [{"name": "h100", "resources": resources}]}]


def queue(name: str, nominal: int, cohort: str = "", weight: str = "1") -> Object:
    spec: dict[str, Any] = {"namespaceSelector": {}, "resourceGroups": groups(nominal)}
    if cohort:
        spec |= {"cohortName": cohort, "fairSharing": {"weight": weight}}
    return made(r.CLUSTER_QUEUES, name, spec)


def holding(queue: str, gpus: int) -> dict[str, Any]:
    pods = {"name": "main", "count": 1, "flavors": {GPU: "h100"}, "resourceUsage": {GPU: str(gpus)}}
    now = "2026-01-01T00:00:00Z"
    reserved = {"type": "QuotaReserved", "status": "True", "reason": "R", "message": "", "lastTransitionTime": now}
    return {"admission": {"clusterQueue": queue, "podSetAssignments": [pods]}, "conditions": [reserved]}


async def test_shares_follow_use_limits_and_weights() -> None:
    env = Env.seeded(1)
    server = ApiServer(MemoryStore(), env, TypeRegistry())
    await server.start()
    client = Client(InProcessTransport(server.handle))
    await bootstrap.install_crds(client)

    async def share(kind: Resource, name: str) -> int | None:
        await asyncio.sleep(1)
        status = (await client.get(kind, name)).get("status") or {}
        return (status.get("fairSharing") or {}).get("weightedShare")

    await client.create(r.COHORTS, made(r.COHORTS, "all", {"resourceGroups": groups(10)}))
    await client.create(r.COHORTS, made(r.COHORTS, "team", {"parentName": "all"}))
    for item in (queue("a", 10, "team"), queue("b", 20, "all"), queue("alone", 5)):
        await client.create(r.CLUSTER_QUEUES, item)
    container = {"name": "c", "image": "i"}
    pod_set = {"name": "main", "count": 1, "template": {"spec": {"containers": [container]}}}
    work = made(r.WORKLOADS, "w", {"podSets": [pod_set], "queueName": "gone"}, namespace="default")
    work = await client.create(r.WORKLOADS, work)

    informers = Informers(client, env)
    controllers = queuestatus.build(client, informers, env)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(informers.run()), *(group.create_task(c.run()) for c in controllers)]
        assert await share(r.CLUSTER_QUEUES, "a") == 0
        assert await share(r.CLUSTER_QUEUES, "alone") is None
        assert await share(r.COHORTS, "team") == 0
        work = await client.update_status(r.WORKLOADS, {**work, "status": holding("a", 14)})
        # 4 above the 10 of its own; all that can be lent is 10 + 10 + 20
        assert await share(r.CLUSTER_QUEUES, "a") == 100
        assert await share(r.COHORTS, "team") == 100, "its own quota is that of its queue"
        assert await share(r.COHORTS, "all") == 0, "a root borrows from nobody"
        assert await share(r.CLUSTER_QUEUES, "b") == 0
        await client.patch(r.CLUSTER_QUEUES, "a", {"spec": {"fairSharing": {"weight": "500m"}}})
        assert await share(r.CLUSTER_QUEUES, "a") == 200
        await client.patch(r.CLUSTER_QUEUES, "b", {"spec": {"resourceGroups": groups(0)}})
        assert await share(r.CLUSTER_QUEUES, "a") == 400, "less can be lent"
        assert await share(r.COHORTS, "team") == 200
        await client.patch(r.CLUSTER_QUEUES, "a", {"spec": {"fairSharing": {"weight": "0"}}})
        assert await share(r.CLUSTER_QUEUES, "a") == 2**63 - 1
        await client.delete(r.WORKLOADS, "w", "default")
        assert await share(r.CLUSTER_QUEUES, "a") == 0
        assert await share(r.COHORTS, "team") == 0
        for task in tasks:
            task.cancel()
    with contextlib.suppress(Exception):
        await server.close()
