"""How long nodes may keep what they have read, by the size of their cluster."""

from __future__ import annotations

import asyncio

import pytest
from workloads_stage import stage, until

from glebe.kube.client import Client
from glebe.kube.objects import annotations_of
from glebe.kube.resources import NODES
from glebe.workloads.nodes.lifetimes import ANNOTATION, Lifetimes, step


@pytest.mark.parametrize(
    ("nodes", "now", "then"),
    [(1, 0, 0), (100, 0, 0), (101, 0, 1), (95, 1, 1), (89, 1, 0), (5000, 0, 4), (1799, 4, 3), (1850, 4, 4), (0, 4, 0)],
)
def test_steps_overlap(nodes: int, now: int, then: int) -> None:
    assert step(nodes, now) == then


async def add(client: Client, start: int, end: int) -> None:
    for number in range(start, end):
        await client.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"n{number}"}})


async def shown(client: Client) -> set[str | None]:
    return {annotations_of(node).get(ANNOTATION) for node in (await client.list(NODES)).items}


async def test_nodes_of_each_cluster_say_what_its_size_asks_for() -> None:
    async with stage([lambda *given: Lifetimes(*given).controller()], "a", "b", kubelet=False) as here:
        await add(here["a"], 0, 101)
        await add(here["b"], 0, 3)

        async def both() -> bool:
            return await shown(here["a"]) == {"15"} and await shown(here["b"]) == {"0"}

        await until(both)
        body = {"metadata": {"annotations": {ANNOTATION: "7"}}}
        await here["a"].patch(NODES, "n0", body)
        await until(both)
        for number in range(20):
            await here["a"].delete(NODES, f"n{number}")
        await asyncio.sleep(5)
        assert await shown(here["a"]) == {"15"}  # others learn of it at their next heartbeat
        await here["a"].patch(NODES, "n50", {"metadata": {"labels": {"beat": "1"}}})

        async def lower() -> bool:
            return await shown(here["a"]) == {"15", "0"}

        await until(lower)
