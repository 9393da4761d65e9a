"""Ended pods beyond the threshold and pods that end without a node are removed, in every cluster."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store.memory import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.informer import Informers
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import EVERY, Object
from glebe.kube.resources import PODS
from glebe.workloads.podgc import build, surplus


def pod(name: str, **meta: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", **meta},
        "spec": {"containers": [{"name": "main", "image": "x"}]},
    }


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=20), st.integers(0, 20))
def test_the_evicted_and_the_oldest_go_first(pods: list[tuple[bool, int]], threshold: int) -> None:
    made = [
        {
            "metadata": {"name": f"p{i}", "creationTimestamp": f"2026-01-0{age}"},
            "status": {"reason": "Evicted" if evicted else ""},
        }
        for i, (evicted, age) in enumerate(pods)
    ]
    gone = surplus(made, threshold)
    assert len(gone) == max(0, len(pods) - threshold)
    kept = [p for p in made if p not in gone]
    for left in gone:
        for stays in kept:
            older = left["metadata"]["creationTimestamp"] <= stays["metadata"]["creationTimestamp"]
            assert older or left["status"]["reason"] == "Evicted"


async def test_every_cluster_keeps_its_threshold_and_homeless_pods_go() -> None:
    env = Env.seeded(3)
    server = ApiServer(MemoryStore(), env, TypeRegistry())
    await server.start()
    every = Client(InProcessTransport(server.handle), cluster=EVERY)
    informers = Informers(every, env)
    tasks = [
        asyncio.create_task(informers.run()),
        *(asyncio.create_task(c.run()) for c in build(every, informers, env, threshold=3)),
    ]
    await server.clusters.create("a")
    await server.clusters.create("b")
    for cluster, number in (("a", 5), ("b", 3)):
        client = every.for_cluster(cluster)
        for i in range(number):
            await client.create(PODS, pod(f"p{i}"))
            await client.patch(PODS, f"p{i}", {"status": {"phase": "Failed"}}, "default", subresource="status")
            await asyncio.sleep(1)
    client = every.for_cluster("a")
    await client.create(PODS, pod("held", finalizers=["x/hold"]))
    await client.delete(PODS, "held", "default", grace_period=30)
    await asyncio.sleep(60)
    names = {c: [p["metadata"]["name"] for p in (await every.for_cluster(c).list(PODS)).items] for c in ("a", "b")}
    assert names["b"] == ["p0", "p1", "p2"]
    held = await client.get(PODS, "held", "default")
    assert held["status"]["phase"] == "Failed"
    assert sorted(names["a"]) == ["held", "p3", "p4"]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await server.close()
