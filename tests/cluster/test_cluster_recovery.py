"""Nodes of a running gang fail on real Kubernetes: its own controllers and scheduler, only the kubelets are ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from kube_peer import assets, real_kubernetes
from test_cluster_queue import bound, controllers, fleet, gang, install, queues, running, submit, until

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.objects import Object, is_deleting
from glebe.queueing.picture import topology

pytestmark = [pytest.mark.cluster, pytest.mark.realtime]
RANK = "batch.kubernetes.io/job-completion-index"


async def pods_of(client: Client, job: str) -> dict[str, Object]:
    """Its pods that are not on their way out, by rank."""
    found = await client.list(r.PODS, "default", label_selector=f"batch.kubernetes.io/job-name={job}")
    return {p["metadata"]["annotations"][RANK]: p for p in found.items if not is_deleting(p)}


async def starts(client: Client, job: str) -> None:
    """What the kubelets would say."""
    for pod in (await pods_of(client, job)).values():
        if pod["spec"].get("nodeName"):
            await client.patch(
                r.PODS, pod["metadata"]["name"], {"status": {"phase": "Running"}}, "default", subresource="status"
            )


async def assignment(client: Client) -> list[str]:
    (workload,) = (await client.list(r.WORKLOADS, "default")).items
    assert "schedulingStats" not in workload["status"], "it was evicted"
    (given,) = workload["status"]["admission"]["podSetAssignments"]
    return topology.ranks(topology.decode(given["topologyAssignment"]))


async def moved(client: Client, rank: str, away: str) -> dict[str, Object]:
    async def look() -> dict[str, Object] | None:
        pods = await pods_of(client, "gang")
        node = pods[rank]["spec"].get("nodeName") if rank in pods else None
        return pods if node and node != away else None

    return await until(look, 90.0)  # type: ignore[no-any-return]


async def test_one_pod_of_a_gang_moves_and_the_others_stay(tmp_path: Path) -> None:
    with (
        real_kubernetes(tmp_path) as peer,
        controllers(peer, assets(), tmp_path, "pod-garbage-collector-controller"),
    ):
        client, env = peer.client(), Env.system()
        try:
            await peer.ready(client)
            await install(client)
            await fleet(client, 5)
            async with running(client, env):
                await queues(client, 40)
                await submit(client, gang("gang", 3))
                await bound(client, "gang", 3)
                await starts(client, "gang")
                before, ranks = await pods_of(client, "gang"), await assignment(client)
                await client.patch(r.NODES, ranks[1], {"spec": {"unschedulable": True}})
                await client.delete(r.PODS, before["1"]["metadata"]["name"], "default", grace_period=0)
                after = await moved(client, "1", ranks[1])
                now = await assignment(client)
                assert (now[0], now[2]) == (ranks[0], ranks[2])
                assert after["1"]["spec"]["nodeName"] == now[1]
                await client.delete(r.NODES, ranks[2])
                last = await moved(client, "2", ranks[2])
                then = await assignment(client)
                assert then[:2] == now[:2]
                assert last["2"]["spec"]["nodeName"] == then[2]
                assert last["0"]["metadata"]["uid"] == before["0"]["metadata"]["uid"]
                assert last["1"]["metadata"]["uid"] == after["1"]["metadata"]["uid"]
        finally:
            await client.close()
