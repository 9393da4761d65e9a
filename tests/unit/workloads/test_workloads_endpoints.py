"""Endpoints and EndpointSlices of Services, on the real API server, under virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store.memory import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import internal
from glebe.kube.informer import Informers
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import EVERY, Object
from glebe.kube.resources import EVENTS, NAMESPACES, NODES, PODS, SERVICES
from glebe.kube.transport import ConnectionLost, Request, Response
from glebe.workloads.endpoints.kinds import ENDPOINTS, SLICES
from glebe.workloads.endpoints.slices import build
from glebe.workloads.garbage import collector


class Faulty(InProcessTransport):
    """Loses requests and answers of writes, and ends watches."""

    rate = 0.0
    rng = random.Random(1)

    async def send(self, request: Request) -> Response:
        if request.method == "GET":
            response = await super().send(request)
            if response.stream is not None and self.rate:
                response.stream = self._cut(response.stream)
            return response
        if self.rng.random() > self.rate:
            return await super().send(request)
        kind = self.rng.randrange(3)
        if kind == 0:
            raise ConnectionLost("refused")
        response = await super().send(request)
        if kind == 1:
            raise ConnectionLost("lost answer")
        del response
        raise internal("etcd")

    async def _cut(self, stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """A watch that breaks: what comes next is lost, until the watcher begins again."""
        left = self.rng.randrange(1, 12)
        async for chunk in stream:
            if left == 0 and self.rate:
                raise ConnectionLost("cut")
            left -= 1
            yield chunk


class World:
    def __init__(self, server: ApiServer, client: Client, env: Env) -> None:
        self.server, self.client, self.env = server, client, env
        self.transport = Faulty(server.handle)
        self.tasks: list[asyncio.Task[Any]] = []

    def __getattr__(self, cluster: str) -> Client:
        return self.client.for_cluster(cluster)

    def start(self) -> None:
        every = Client(self.transport, cluster=EVERY)
        informers = Informers(every, self.env)
        made = [*build(every, informers, self.env), collector.build(every, informers, self.env)]
        self.tasks = [asyncio.create_task(informers.run()), *(asyncio.create_task(c.run()) for c in made)]

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@asynccontextmanager
async def running(*clusters: str, seed: int = 7) -> AsyncIterator[World]:
    env = Env.seeded(seed)
    server = ApiServer(MemoryStore(), env, TypeRegistry())
    await server.start()
    world = World(server, Client(InProcessTransport(server.handle), cluster=EVERY), env)
    world.transport.rng = random.Random(seed)
    world.start()
    for name in clusters:
        await server.clusters.create(name)
    for name in ("root", *clusters):
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": {ZONE: "z1"}}}
        await world.client.for_cluster(name).create(NODES, node)
    try:
        yield world
    finally:
        await world.stop()
        await server.close()


ZONE = "topology.kubernetes.io/zone"


async def until(what: Callable[[], Awaitable[Any]], seconds: float = 30.0) -> Any:
    for _ in range(int(seconds * 10)):
        if value := await what():
            return value
        await asyncio.sleep(0.1)
    raise AssertionError("it did not come about")


def service(name: str = "web", **spec: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "labels": {"team": "x"}},
        "spec": {
            "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}, {"name": "raw", "port": 9000}],
            **spec,
        },
    }


async def add_pod(client: Client, name: str, ip: str = "10.0.0.1", *, ready: bool = True, **spec: Any) -> Object:
    ports = spec.pop("ports", [{"name": "http", "containerPort": 8080}])
    body: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "main", "image": "x", "ports": ports}], **spec},
    }
    await client.create(PODS, body)
    return await set_ready(client, name, ready, ip)


async def set_ready(client: Client, name: str, ready: bool, ip: str = "10.0.0.1") -> Object:
    condition = {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": "2026-01-01T00:00:05Z"}
    status = {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [condition]}
    return await client.patch(PODS, name, {"status": status}, "default", subresource="status")


async def slices(client: Client, name: str = "web") -> list[Object]:
    selector = f"kubernetes.io/service-name={name}"
    return (await client.list(SLICES, "default", label_selector=selector)).items


async def addresses(client: Client, name: str = "web") -> list[str]:
    return sorted(a for s in await slices(client, name) for e in s.get("endpoints") or () for a in e["addresses"])


async def test_a_service_with_pods_has_slices_and_endpoints() -> None:
    async with running("a") as world:
        made = await world.a.create(SERVICES, service())
        one = await add_pod(world.a, "one", "10.0.0.1")
        two = await add_pod(world.a, "two", "10.0.0.2", ready=False)

        async def both() -> bool:
            return await addresses(world.a) == ["10.0.0.1", "10.0.0.2"]

        await until(both)
        (slice_,) = await slices(world.a)
        assert slice_["addressType"] == "IPv4"
        assert slice_["metadata"]["labels"] == {
            "team": "x",
            "kubernetes.io/service-name": "web",
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        }
        assert slice_["metadata"]["name"].startswith("web-")
        assert slice_["metadata"]["ownerReferences"] == [
            {
                "apiVersion": "v1",
                "kind": "Service",
                "name": "web",
                "uid": made["metadata"]["uid"],
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]
        assert sorted((p["name"], p["port"], p["protocol"]) for p in slice_["ports"]) == [
            ("http", 8080, "TCP"),
            ("raw", 9000, "TCP"),
        ]
        assert sorted(slice_["endpoints"], key=lambda e: str(e["addresses"])) == [
            {
                "addresses": ["10.0.0.1"],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "targetRef": {"kind": "Pod", "namespace": "default", "name": "one", "uid": one["metadata"]["uid"]},
                "nodeName": "n1",
                "zone": "z1",
            },
            {
                "addresses": ["10.0.0.2"],
                "conditions": {"ready": False, "serving": False, "terminating": False},
                "targetRef": {"kind": "Pod", "namespace": "default", "name": "two", "uid": two["metadata"]["uid"]},
                "nodeName": "n1",
                "zone": "z1",
            },
        ]
        old = await world.a.get(ENDPOINTS, "web", "default")
        assert old["metadata"]["labels"] == {
            "team": "x",
            "endpoints.kubernetes.io/managed-by": "endpoint-controller",
        }
        (subset,) = old["subsets"]
        assert [a["ip"] for a in subset["addresses"]] == ["10.0.0.1"]
        assert [a["ip"] for a in subset["notReadyAddresses"]] == ["10.0.0.2"]
        assert [(p["name"], p["port"]) for p in subset["ports"]] == [("http", 8080), ("raw", 9000)]
        assert await slices(world.root) == []


async def test_nothing_is_written_twice_and_nothing_without_need() -> None:
    async with running() as world:
        await world.root.create(SERVICES, service())
        await add_pod(world.root, "one")
        await asyncio.sleep(5)
        before = await slices(world.root), await world.root.get(ENDPOINTS, "web", "default")
        await world.root.patch(PODS, "one", {"metadata": {"annotations": {"x": "y"}}}, "default")
        await world.root.patch(SERVICES, "web", {"metadata": {"annotations": {"x": "y"}}}, "default")
        await asyncio.sleep(5)
        assert (await slices(world.root), await world.root.get(ENDPOINTS, "web", "default")) == before


async def test_changes_are_followed() -> None:
    async with running() as world:
        await world.root.create(SERVICES, service())
        await add_pod(world.root, "one")

        async def state() -> Any:
            found = [(e["conditions"]["ready"]) for s in await slices(world.root) for e in s.get("endpoints") or ()]
            subsets = (await world.root.get(ENDPOINTS, "web", "default")).get("subsets") or [{}]
            return found, sorted(subsets[0])

        async def ready() -> bool:
            return await state() == ([True], ["addresses", "ports"])

        async def unready() -> bool:
            return await state() == ([False], ["notReadyAddresses", "ports"])

        async def empty() -> bool:
            return await state() == ([], [])

        await asyncio.sleep(1)
        await until(ready)
        await set_ready(world.root, "one", False)
        await until(unready)
        await set_ready(world.root, "one", True)
        await until(ready)
        await world.root.patch(PODS, "one", {"metadata": {"labels": {"app": "other"}}}, "default")
        await until(empty)
        (slice_,) = await slices(world.root)
        assert not slice_.get("ports")
        await world.root.patch(PODS, "one", {"metadata": {"labels": {"app": "web"}}}, "default")
        await until(ready)
        await world.root.patch(SERVICES, "web", {"spec": {"selector": {"app": "none"}}}, "default")
        await until(empty)
        await world.root.patch(SERVICES, "web", {"spec": {"selector": {"app": "web"}}}, "default")
        await until(ready)
        await world.root.patch(PODS, "one", {"status": {"phase": "Succeeded"}}, "default", subresource="status")
        await until(empty)


async def test_a_terminating_pod_serves_but_is_not_ready() -> None:
    async with running() as world:
        await world.root.create(SERVICES, service())
        await add_pod(world.root, "one")
        await asyncio.sleep(1)
        await world.root.delete(PODS, "one", "default", grace_period=30)
        await asyncio.sleep(1)
        (slice_,) = await slices(world.root)
        (endpoint,) = slice_["endpoints"]
        assert endpoint["conditions"] == {"ready": False, "serving": True, "terminating": True}
        assert "subsets" not in await world.root.get(ENDPOINTS, "web", "default")


async def test_headless_services_name_hosts_and_publish_what_is_not_ready() -> None:
    async with running() as world:
        spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "ports": []}
        await world.root.create(SERVICES, service("db", **spec))
        await add_pod(world.root, "db-0", ready=False, hostname="db-0", subdomain="db", nodeName="unknown")
        await asyncio.sleep(1)
        (slice_,) = await slices(world.root, "db")
        assert slice_["metadata"]["labels"]["service.kubernetes.io/headless"] == ""
        assert not slice_.get("ports")
        (endpoint,) = slice_["endpoints"]
        assert endpoint["hostname"] == "db-0"
        assert endpoint["conditions"]["ready"] is True
        old = await world.root.get(ENDPOINTS, "db", "default")
        assert old["metadata"]["labels"]["service.kubernetes.io/headless"] == ""
        assert old["subsets"][0]["addresses"][0]["hostname"] == "db-0"
        assert "ports" not in old["subsets"][0]


async def test_pods_of_a_node_that_is_not_there_wait_for_it() -> None:
    async with running() as world:
        await world.root.create(SERVICES, service())
        await add_pod(world.root, "one", nodeName="late")
        await asyncio.sleep(3)
        assert await addresses(world.root) == []
        await world.root.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "late"}})
        await asyncio.sleep(1)
        assert await addresses(world.root) == ["10.0.0.1"]


async def test_deletion_takes_everything_along() -> None:
    async with running("a") as world:
        await world.a.create(SERVICES, service())
        await asyncio.sleep(1)
        (slice_,) = await slices(world.a)
        assert not slice_.get("endpoints")
        await world.a.delete(SERVICES, "web", "default")

        async def gone() -> bool:
            left = (await world.a.list(ENDPOINTS, "default")).items
            return not await slices(world.a) and "web" not in [e["metadata"]["name"] for e in left]

        await until(gone)


async def test_ports_that_differ_by_pod_make_slices_of_their_own() -> None:
    async with running() as world:
        await world.root.create(SERVICES, service())
        await add_pod(world.root, "one", "10.0.0.1")
        await add_pod(world.root, "two", "10.0.0.2", ports=[{"name": "http", "containerPort": 8081}])
        await asyncio.sleep(1)
        found = {}
        for slice_ in await slices(world.root):
            (endpoint,) = slice_["endpoints"]
            found[endpoint["addresses"][0]] = {p["name"]: p["port"] for p in slice_["ports"]}
        assert found == {"10.0.0.1": {"http": 8080, "raw": 9000}, "10.0.0.2": {"http": 8081, "raw": 9000}}
        subsets = (await world.root.get(ENDPOINTS, "web", "default"))["subsets"]
        assert [([a["ip"] for a in s["addresses"]], [p["port"] for p in s["ports"]]) for s in subsets] == [
            (["10.0.0.1"], [8080]),
            (["10.0.0.2"], [8081]),
            (["10.0.0.1", "10.0.0.2"], [9000]),
        ]


async def test_services_without_selector_are_left_alone_and_their_endpoints_mirrored() -> None:
    async with running("a", "b") as world:
        bare = service("ext")
        del bare["spec"]["selector"]
        body: Object = {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {"name": "ext", "namespace": "default", "labels": {"l": "1"}, "annotations": {"n": "2"}},
            "subsets": [{"addresses": [{"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}], "ports": [{"port": 80}]}],
        }
        await world.a.create(SERVICES, bare)
        await asyncio.sleep(1)
        assert await slices(world.a, "ext") == []
        await world.a.create(ENDPOINTS, body)
        await asyncio.sleep(1)
        found = {s["addressType"]: s for s in await slices(world.a, "ext")}
        assert sorted(found) == ["IPv4", "IPv6"]
        four = found["IPv4"]
        assert four["metadata"]["labels"] == {
            "l": "1",
            "kubernetes.io/service-name": "ext",
            "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io",
        }
        assert four["metadata"]["annotations"] == {"n": "2"}
        assert [e["addresses"] for e in four["endpoints"]] == [["192.0.2.1"]]
        assert [p["port"] for p in four["ports"]] == [80]
        change = {"subsets": [{"addresses": [{"ip": "192.0.2.9"}], "ports": [{"port": 81}]}]}
        await world.a.patch(ENDPOINTS, "ext", change, "default")
        await asyncio.sleep(1)
        (slice_,) = await slices(world.a, "ext")
        assert slice_["metadata"]["uid"] == four["metadata"]["uid"]
        assert ([p["port"] for p in slice_["ports"]], slice_["endpoints"][0]["addresses"]) == ([81], ["192.0.2.9"])
        assert await slices(world.b, "ext") == []
        await world.a.delete(ENDPOINTS, "ext", "default")
        await asyncio.sleep(1)
        assert await slices(world.a, "ext") == []


async def test_many_pods_fill_slices_of_a_hundred_and_truncate_endpoints() -> None:
    async with running() as world:
        await world.root.create(SERVICES, service())
        for number in range(1005):
            await add_pod(world.root, f"p{number}", f"10.1.{number >> 8}.{number & 255}")
        await asyncio.sleep(5)
        sizes = [len(s["endpoints"]) for s in await slices(world.root)]
        assert sum(sizes) == 1005
        assert max(sizes) <= 100
        old = await world.root.get(ENDPOINTS, "web", "default")
        assert [len(s["addresses"]) for s in old["subsets"]] == [1000]
        assert old["metadata"]["annotations"]["endpoints.kubernetes.io/over-capacity"] == "truncated"
        version = old["metadata"]["resourceVersion"]
        await set_ready(world.root, "p1004", False, "10.1.3.236")
        await asyncio.sleep(5)
        again = await world.root.get(ENDPOINTS, "web", "default")
        assert again["metadata"]["resourceVersion"] == version, "what does not show is not written"


@pytest.mark.parametrize("seed", range(4))
async def test_faults_crashes_and_lost_answers_leave_nothing_wrong(seed: int) -> None:
    rng = random.Random(seed)
    async with running("a", seed=seed) as world:
        world.transport.rate = 0.3
        await world.a.create(SERVICES, service())
        pods: set[str] = set()
        for step in range(40):
            if not pods or rng.random() < 0.6:
                await add_pod(world.a, f"p{step}", f"10.0.1.{step}", ready=rng.random() < 0.5)
                pods.add(f"p{step}")
            else:
                name = rng.choice(sorted(pods))
                pods.remove(name)
                await world.a.delete(PODS, name, "default", grace_period=0)
            await asyncio.sleep(rng.choice([0.0, 0.01, 1.0]))
            if rng.random() < 0.15:
                await world.stop()
                world.start()
        world.transport.rate = 0.0
        await asyncio.sleep(120)
        wanted = sorted(f"10.0.1.{name[1:]}" for name in pods)
        assert await addresses(world.a) == wanted
        subsets = (await world.a.get(ENDPOINTS, "web", "default")).get("subsets") or []
        listed = {a["ip"] for s in subsets for f in ("addresses", "notReadyAddresses") for a in s.get(f) or ()}
        assert sorted(listed) == wanted
        assert len([e for e in (await world.a.list(EVENTS, "default")).items if e["reason"] == "x"]) == 0


async def test_an_ending_namespace_is_no_reason_to_try_for_ever() -> None:
    async with running() as world:
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "t"}}
        await world.root.create(NAMESPACES, space)
        await world.root.create(SERVICES, {**service(), "metadata": {"name": "web", "namespace": "t"}})
        await asyncio.sleep(1)
        await world.root.delete(NAMESPACES, "t")
        for one in (await world.root.list(SLICES, "t")).items:
            await world.root.delete(SLICES, one["metadata"]["name"], "t")
        await asyncio.sleep(10)
        assert (await world.root.list(SLICES, "t")).items == []
        assert (await world.root.list(EVENTS, "t")).items == []
