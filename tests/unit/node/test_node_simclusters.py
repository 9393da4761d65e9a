"""One simulator for the nodes of many logical clusters, under virtual time."""

from __future__ import annotations

import asyncio

from node_world import World, world

from glebe.kube.client import Client
from glebe.kube.errors import ApiError
from glebe.kube.objects import EVERY, Object
from glebe.kube.resources import LEASES, NODES, PODS
from glebe.node.fleet import parse_fleet
from glebe.node.simulated.nodes import SimulatedNodes
from glebe.node.simulated.plan import RUN_TIME

FLEET = """\
apiVersion: glebe.dev/v1alpha1
kind: Fleet
pools:
- {name: home, count: 1}
- {name: own, count: 2, clusters: [a, b]}
- {name: all, count: 1, clusters: "*"}
"""


async def begin(w: World) -> tuple[SimulatedNodes, Client]:
    every = Client(w.client.transport, cluster=EVERY)
    made = SimulatedNodes(every, w.env, parse_fleet(FLEET).nodes)
    w.spawn(made.run())
    await made.wait_registered()
    return made, every


async def names(client: Client) -> list[str]:
    return [n["metadata"]["name"] for n in (await client.list(NODES)).items]


async def pod(client: Client, node: str) -> Object:
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default", "annotations": {RUN_TIME: "30s"}},
        "spec": {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never", "nodeName": node},
    }
    return await client.create(PODS, body)


async def test_nodes_are_in_the_clusters_that_the_fleet_names_also_in_later_ones() -> None:
    async with world() as w:
        await w.server.clusters.create("a")
        nodes, every = await begin(w)
        await asyncio.sleep(5)
        assert await names(w.client) == ["all-00", "home-00"]
        assert await names(every.at("a")) == ["all-00", "own-00", "own-01"]
        await w.server.clusters.create("b")
        await w.server.clusters.create("c")
        await asyncio.sleep(5)
        assert await names(every.at("b")) == ["all-00", "own-00", "own-01"]
        assert await names(every.at("c")) == ["all-00"]
        lease = await every.at("c").get(LEASES, "all-00", "kube-node-lease")
        await asyncio.sleep(25)
        assert (await every.at("c").get(LEASES, "all-00", "kube-node-lease"))["spec"]["renewTime"] > lease["spec"][
            "renewTime"
        ]
        assert len(nodes.presence) == 2 + 3 + 3 + 1
        await w.server.clusters.delete("a")
        await asyncio.sleep(5)
        assert len(nodes.presence) == 2 + 3 + 1


async def test_pods_run_in_their_own_cluster_and_faults_hit_one_cluster_alone() -> None:
    async with world() as w:
        for name in ("a", "b"):
            await w.server.clusters.create(name)
        nodes, every = await begin(w)
        await asyncio.sleep(5)
        for name in ("a", "b"):
            await pod(every.at(name), "own-00")
        foreign = await pod(w.client, "own-00")  # the root cluster has no such node
        await asyncio.sleep(5)
        nodes.fail_node("own-00", cluster="b")
        await asyncio.sleep(60)
        assert (await every.at("a").get(PODS, "p", "default"))["status"]["phase"] == "Succeeded"
        assert (await every.at("b").get(PODS, "p", "default"))["status"]["phase"] == "Running"
        assert not (await w.client.get(PODS, "p", "default")).get("status", {}).get("containerStatuses")
        nodes.recover_node("own-00", cluster="b")
        await asyncio.sleep(5)
        lost = await every.at("b").get(PODS, "p", "default")
        assert (lost["status"]["phase"], lost["status"]["reason"]) == ("Failed", "NodeLost")
        assert not nodes.runs(foreign | {"metadata": {**foreign["metadata"], "clusterName": "root"}})


async def test_a_cluster_that_is_made_anew_under_its_name_gets_its_nodes_anew() -> None:
    async with world() as w:
        await w.server.clusters.create("a")
        _, every = await begin(w)
        await asyncio.sleep(5)
        await w.server.clusters.delete("a")
        for _ in range(100):
            try:
                await w.server.clusters.create("a")
                break
            except ApiError:
                await asyncio.sleep(0.1)
        await asyncio.sleep(10)
        assert await names(every.at("a")) == ["all-00", "own-00", "own-01"]
