"""metrics.k8s.io on a whole platform with simulated nodes, in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from glebe.apiserver.store import MemoryStore
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object
from glebe.kube.resources import PODS, Resource
from glebe.node.fleet import parse_fleet
from glebe.platform.embedded import Platform, PlatformConfig

POD_METRICS = Resource("metrics.k8s.io", "v1beta1", "pods", "PodMetrics")
NODE_METRICS = Resource("metrics.k8s.io", "v1beta1", "nodes", "NodeMetrics", namespaced=False)
FLEET = """
apiVersion: glebe.dev/v1alpha1
kind: Fleet
pools: [{name: a, count: 2, cpu: "8"}]
"""


def pod(name: str, cpu: str, **annotations: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name[0]}, "annotations": annotations},
        "spec": {
            "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu, "memory": "1Mi"}}}],
            "restartPolicy": "Always",
        },
    }


async def until_running(client: Client, *names: str) -> None:
    for name in names:
        while ((await client.get(PODS, name, "default")).get("status") or {}).get("phase") != "Running":  # noqa: ASYNC110
            await asyncio.sleep(0.5)
    await asyncio.sleep(1.0)  # until the caches know


def brief(items: list[Object]) -> dict[str, list[Any]]:
    return {i["metadata"]["name"]: [c["usage"] for c in i["containers"]] for i in items}


async def test_pods_and_nodes_of_simulated_machines() -> None:
    async with Platform(PlatformConfig(parse_fleet(FLEET, "here")), Env.seeded(1), MemoryStore()) as platform:
        client = platform.client
        await client.create(PODS, pod("a1", "250m"))
        await client.create(PODS, pod("b1", "1", **{"sim.glebe.dev/cpu-usage": "10%"}))
        await until_running(client, "a1", "b1")
        everything = (await client.list(POD_METRICS, "default")).items
        assert brief(everything) == {
            "a1": [{"cpu": "250000000n", "memory": "1024Ki"}],
            "b1": [{"cpu": "100000000n", "memory": "1024Ki"}],
        }
        assert everything[0]["window"] == "15s"
        assert everything[0]["metadata"]["labels"] == {"app": "a"}
        assert list(brief((await client.list(POD_METRICS, label_selector="app=b")).items)) == ["b1"]
        assert list(brief((await client.list(POD_METRICS, field_selector="metadata.name=a1")).items)) == ["a1"]
        assert (await client.get(POD_METRICS, "a1", "default"))["kind"] == "PodMetrics"
        nodes = {n["metadata"]["name"]: n["usage"] for n in (await client.list(NODE_METRICS)).items}
        assert sorted(nodes) == ["a-0", "a-1"] or sorted(nodes) == ["a-00", "a-01"]
        assert sum(int(u["cpu"].rstrip("n") or 0) for u in nodes.values()) == 350_000_000
        await client.patch(PODS, "b1", {"metadata": {"annotations": {"sim.glebe.dev/cpu-usage": "5m"}}}, "default")
        await asyncio.sleep(1)
        assert (await client.get(POD_METRICS, "b1", "default"))["containers"][0]["usage"]["cpu"] == "5000000n"


async def test_what_cannot_be_asked() -> None:
    async with Platform(PlatformConfig(parse_fleet(FLEET, "here")), Env.seeded(1), MemoryStore()) as platform:
        client = platform.client
        await asyncio.sleep(1)

        async def refused(work: Any) -> ApiError:
            with pytest.raises(ApiError) as error:
                await work
            return error.value

        assert (await refused(client.get(POD_METRICS, "no", "default"))).code == 404
        assert str(await refused(client.get(NODE_METRICS, "no"))) == 'nodes "no" not found'
        await client.create(PODS, pod("a1", "250m") | {"spec": {**pod("a1", "1")["spec"], "nodeSelector": {"x": "y"}}})
        missing = await refused(client.get(POD_METRICS, "a1", "default"))
        assert str(missing) == 'podmetrics.metrics.k8s.io "default/a1" not found'
        assert (await refused(client.list(POD_METRICS, label_selector="a in"))).code == 400
        assert (await refused(client.delete(POD_METRICS, "a1", "default"))).code == 405
        groups = (await client.raw("GET", "/apis/metrics.k8s.io/v1beta1")).body
        assert b'"NodeMetrics"' in groups
        assert b"PodMetrics" in (await client.raw("GET", "/openapi/v3/apis/metrics.k8s.io/v1beta1")).body
        tenant = client.for_cluster("root")
        assert (await tenant.list(POD_METRICS)).items == []
        assert (await refused(client.for_cluster("*").list(POD_METRICS))).code == 405
