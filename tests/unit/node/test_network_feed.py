"""What proxies are told, from a real API server in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence

from network_view import endpoint, service, slices
from node_world import World, world

from glebe.kube.informer import Informers
from glebe.kube.objects import Object
from glebe.kube.pods import BY_NODE, node_of
from glebe.kube.resources import NODES, PODS, SERVICES
from glebe.node.network.cluster import SLICES, Cluster
from glebe.node.network.hostnames import host_names
from glebe.node.network.servicefeed import ServiceFeed
from glebe.node.network.services import Balancer


class Told:
    """The proxy's view: everything that is in force, and how often it was told."""

    def __init__(self) -> None:
        self.now: dict[str, list[tuple[str, int, list[str]]]] = {}
        self.rounds = 0

    async def apply(self, wanted: Mapping[str, Sequence[Balancer]]) -> None:
        self.rounds += 1
        for owner, listed in wanted.items():
            self.now[owner] = [(b.front.address, b.front.port, [a for a, _ in b.targets]) for b in listed]
            if not listed:
                del self.now[owner]


@contextlib.asynccontextmanager
async def feeding(on_loopback: bool = False) -> AsyncIterator[tuple[World, Told, ServiceFeed, Cluster]]:
    async with world() as w:
        informers = Informers(w.client, w.env)
        cluster = Cluster(informers)
        pods = informers.get(PODS, indexers={BY_NODE: node_of})
        feed = ServiceFeed(cluster, pods, "local", {"pod": "10.1.0.5"}.get)
        feed.on_loopback = on_loopback
        w.spawn(informers.run())
        await cluster.wait_synced()
        told = Told()
        w.spawn(feed.run(told.apply))
        await asyncio.sleep(1)
        yield w, told, feed, cluster


def written(obj: Object) -> Object:
    """As a client sends it."""
    meta = {k: v for k, v in obj["metadata"].items() if k != "uid"}
    return {**obj, "metadata": meta}


async def make(w: World, name: str, address: str, *endpoints: Object) -> Object:
    made = await w.client.create(SERVICES, written(service(name, address)))
    await w.client.create(SLICES, written(slices(made, *endpoints)))
    await asyncio.sleep(0.2)
    return made


async def test_services_come_change_and_go() -> None:
    async with feeding() as (w, told, _, _):
        await make(w, "web", "10.96.0.77", endpoint("10.1.0.2"))
        assert told.now["default/web"] == [("10.96.0.77", 80, ["10.1.0.2"])]
        await w.client.patch(SLICES, "web-1x", {"endpoints": [endpoint("10.1.0.3")]}, "default", kind="merge")
        await asyncio.sleep(0.2)
        assert told.now["default/web"] == [("10.96.0.77", 80, ["10.1.0.3"])]
        await w.client.delete(SLICES, "web-1x", "default")
        await asyncio.sleep(0.2)
        assert told.now["default/web"] == [("10.96.0.77", 80, [])]
        await w.client.delete(SERVICES, "web", "default")
        await asyncio.sleep(0.2)
        assert "default/web" not in told.now


async def test_changes_that_come_together_are_told_together() -> None:
    async with feeding() as (w, told, _, _):
        before = told.rounds
        await asyncio.gather(*(w.client.create(SERVICES, written(service(f"s{n}", ""))) for n in range(50)))
        await asyncio.sleep(0.5)
        assert len([owner for owner in told.now if owner.startswith("default/s")]) == 50
        assert told.rounds - before <= 3


async def test_services_lead_nowhere_on_the_machine_itself() -> None:
    addresses = [endpoint(a) for a in ("127.0.0.1", "169.254.169.254", "10.1.0.2")]
    async with feeding() as (w, told, _, _):
        await make(w, "web", "10.96.0.77", *addresses)
        assert told.now["default/web"][0][2] == ["10.1.0.2"]
        assert told.now["default/kubernetes"][0][2] == ["127.0.0.1"]  # the server itself says where it is
    async with feeding(on_loopback=True) as (w, told, _, _):
        await make(w, "web", "10.96.0.77", endpoint("127.1.2.3"))
        assert told.now["default/web"][0][2] == ["127.1.2.3"]


async def test_simulated_pods_are_nobodys_target() -> None:
    async with feeding() as (w, told, _, _):
        labels = {"glebe.dev/node-kind": "simulated"}
        await w.client.create(
            NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "sim", "labels": labels}}
        )
        await make(w, "web", "10.96.0.77", endpoint("10.1.0.2"), endpoint("10.0.0.9", node="sim"))
        assert told.now["default/web"][0][2] == ["10.1.0.2"]


async def test_everything_is_told_again_on_demand() -> None:
    async with feeding() as (w, told, feed, _):
        await make(w, "web", "10.96.0.77", endpoint("10.1.0.2"))
        told.now.clear()
        feed.want_all()
        await asyncio.sleep(0.2)
        assert sorted(told.now) == ["default/kubernetes", "default/web"]


async def test_names_for_pods_that_can_ask_nobody() -> None:
    async with feeding() as (w, _, _, cluster):
        await make(w, "web", "10.96.0.77", endpoint("10.1.0.2"))
        await make(w, "db", "None", endpoint("10.1.0.3", host="db-0"), endpoint("10.1.0.4", ready=False))
        names = dict(host_names(cluster, "default"))
        assert names["10.96.0.77"] == "web web.default web.default.svc web.default.svc.cluster.local"
        lines = [line for line in host_names(cluster, "other") if line[0] == "10.1.0.3"]
        assert sorted(lines) == [
            ("10.1.0.3", "db-0.db.default db-0.db.default.svc db-0.db.default.svc.cluster.local"),
            ("10.1.0.3", "db.default db.default.svc db.default.svc.cluster.local"),
        ]
        assert "10.1.0.4" not in names
