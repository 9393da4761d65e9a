"""Quota first, nodes later: placement in a second pass, when an autoscaler has brought the nodes."""

from __future__ import annotations

import asyncio
from typing import Any

from test_queueing_approvals import autoscaler, requests, say
from test_queueing_story import Cluster, admitted, cluster, job

from glebe.kube import resources as r
from glebe.kube.objects import Object, condition_is_true, get_condition
from glebe.queueing.picture import topology


def assigned(workload: Object) -> dict[str, Any]:
    (found,) = (workload["status"].get("admission") or {"podSetAssignments": [{}]})["podSetAssignments"]
    return dict(found)


async def new_node(c: Cluster, like: str, name: str) -> None:
    """A node as an autoscaler makes it; nothing runs on it in the test."""
    old = await c.client.get(r.NODES, like)
    labels = {**old["metadata"]["labels"], "kubernetes.io/hostname": name}
    made = await c.client.create(
        r.NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": {}}
    )
    await c.client.update_status(r.NODES, {**made, "status": old["status"]})


async def test_nodes_are_chosen_when_they_are_there() -> None:
    async with cluster(nodes=2) as c:
        await autoscaler(c)
        queue = {"spec": {"resourceGroups": [_group(48)]}}
        await c.client.patch(r.CLUSTER_QUEUES, "team-a", queue)
        await c.client.create(r.JOBS, job("train", "team-a", 3, 8, 600))
        (request,) = await c.until(lambda: requests(c))
        workload = await c.workload("train", "team-a")
        assert condition_is_true(workload, "QuotaReserved")
        assert (get_condition(workload, "Admitted") or {})["reason"] == "UnsatisfiedAdmissionChecks"
        assert assigned(workload)["delayedTopologyRequest"] == "Pending"
        assert "topologyAssignment" not in assigned(workload)
        await say(c, request, "Provisioned", "nodes are there", pool="gpu")  # but one is late

        def waits(w: Object) -> bool:
            return (get_condition(w, "Admitted") or {}).get("reason") == "PendingDelayedTopologyRequests"

        await c.wait_workload("train", "team-a", waits)
        await asyncio.sleep(20)
        assert not admitted(await c.workload("train", "team-a"))
        await new_node(c, "gpu-00", "gpu-new")
        placed = await c.wait_workload("train", "team-a", admitted)
        assert assigned(placed)["delayedTopologyRequest"] == "Ready"
        nodes = topology.decode(assigned(placed)["topologyAssignment"])
        assert sorted(nodes) == [("gpu-00", 1), ("gpu-01", 1), ("gpu-new", 1)]


def _group(gpus: int) -> dict[str, Any]:
    resources = [{"name": "nvidia.com/gpu", "nominalQuota": gpus}, {"name": "cpu", "nominalQuota": 1000}]
    return {"coveredResources": ["nvidia.com/gpu", "cpu"], "flavors": [{"name": "gpu", "resources": resources}]}
