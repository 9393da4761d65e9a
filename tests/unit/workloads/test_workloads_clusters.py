"""One set of controllers for all logical clusters, on the real API server, under virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from glebe import workloads
from glebe.apiserver.server import ApiServer
from glebe.apiserver.store.memory import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller
from glebe.kube.errors import ApiError, is_not_found
from glebe.kube.informer import Informers, InformersView
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import EVERY, Object, cluster_of, key_of
from glebe.kube.resources import (
    CONFIGMAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    EVENTS,
    JOBS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    SERVICE_ACCOUNTS,
    Resource,
)
from glebe.workloads.binder import controller as binder


class World:
    def __init__(self, server: ApiServer, every: Client, informers: Informers, made: list[Controller]) -> None:
        self.server = server
        self.every = every
        self.informers = informers
        self.controllers = made

    def __getattr__(self, cluster: str) -> Client:
        return self.every.for_cluster(cluster)


@asynccontextmanager
async def running(*clusters: str) -> AsyncIterator[World]:
    env = Env.seeded(7)
    server = ApiServer(MemoryStore(), env, TypeRegistry())
    server.clusters.root_ca = "PEM"
    await server.start()
    every = Client(InProcessTransport(server.handle), cluster=EVERY)
    informers = Informers(every, env)
    made = workloads.controllers(every, informers, env, root_ca="PEM")
    tasks = [asyncio.create_task(informers.run()), *(asyncio.create_task(c.run()) for c in made)]
    for name in clusters:
        await server.clusters.create(name)
    try:
        yield World(server, every, informers, made)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.close()


async def until(what: Callable[[], Awaitable[Any]], seconds: float = 30.0) -> Any:
    for _ in range(int(seconds * 10)):
        if value := await what():
            return value
        await asyncio.sleep(0.1)
    raise AssertionError("it did not come about")


async def names(client: Client, resource: Resource, namespace: str = "default") -> list[str]:
    return [o["metadata"]["name"] for o in (await client.list(resource, namespace)).items]


async def gone(client: Client, resource: Resource, name: str, namespace: str | None = "default") -> bool:
    try:
        await client.get(resource, name, namespace)
    except ApiError as error:
        return is_not_found(error)
    return False


def job(name: str = "train") -> Object:
    template = {"spec": {"containers": [{"name": "main", "image": "x"}], "restartPolicy": "Never"}}
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {"template": template, "parallelism": 2}}


def config(name: str, *owners: Object, namespace: str = "default") -> Object:
    references = [
        {"apiVersion": o["apiVersion"], "kind": o["kind"], "name": o["metadata"]["name"], "uid": o["metadata"]["uid"]}
        for o in owners
    ]
    meta: Object = {"name": name, "namespace": namespace}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": meta | ({"ownerReferences": references} if owners else {}),
    }


async def test_jobs_run_in_their_own_cluster() -> None:
    async with running("a", "b") as world:
        await world.a.create(JOBS, job())
        await world.b.create(JOBS, job())
        for client in (world.a, world.b):

            async def two(client: Client = client) -> bool:
                return len(await names(client, PODS)) == 2

            await until(two)
        assert await names(world.root, PODS) == []
        pod = (await world.a.list(PODS, "default")).items[0]
        await world.a.patch(
            PODS, pod["metadata"]["name"], {"status": {"phase": "Succeeded"}}, "default", subresource="status"
        )

        async def counted() -> bool:
            status = (await world.a.get(JOBS, "train", "default"))["status"]
            return bool(status.get("succeeded") == 1)

        await until(counted)
        assert "succeeded" not in (await world.b.get(JOBS, "train", "default"))["status"]
        events = (await world.a.list(EVENTS, "default")).items
        assert {e["involvedObject"]["name"].partition("-")[0] for e in events} == {"train"}
        assert all("clusterName" not in str(o) for o in [*events, await world.a.get(JOBS, "train", "default"), pod])

        await world.a.delete(JOBS, "train", "default", propagation="Background")

        async def none() -> bool:
            return not await names(world.a, PODS)

        await until(none)
        assert len(await names(world.b, PODS)) == 2


async def test_namespaces_live_and_end_in_every_cluster() -> None:
    async with running("a", "b") as world:
        for client in (world.a, world.b):
            await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})
            await client.create(CONFIGMAPS, config("c", namespace="team"))

        async def furnished() -> bool:
            return await names(world.a, SERVICE_ACCOUNTS, "team") == ["default"] and await names(
                world.a, CONFIGMAPS, "team"
            ) == ["c", "kube-root-ca.crt"]

        await until(furnished)
        await world.a.delete(NAMESPACES, "team")
        await until(lambda: gone(world.a, NAMESPACES, "team", None))
        assert "c" in await names(world.b, CONFIGMAPS, "team")


async def test_what_every_cluster_has_is_put_back() -> None:
    async with running("a") as world:
        await asyncio.sleep(2)
        before = world.server.store.revision
        await world.server.clusters.create("b")
        await asyncio.sleep(5)
        assert world.server.store.revision == before + 1  # a new cluster moves nobody
        await world.a.delete(SERVICE_ACCOUNTS, "default", "kube-system")
        await world.a.delete(CONFIGMAPS, "kube-root-ca.crt", "kube-system")

        async def back() -> bool:
            return (
                await names(world.a, SERVICE_ACCOUNTS, "kube-system"),
                await names(world.a, CONFIGMAPS, "kube-system"),
            ) == (
                ["default"],
                ["kube-root-ca.crt"],
            )

        await until(back)


async def test_an_owner_in_another_cluster_is_none() -> None:
    async with running("a", "b") as world:
        owner = await world.a.create(CONFIGMAPS, config("owner"))
        await world.a.create(CONFIGMAPS, config("mine", owner))
        await world.b.create(CONFIGMAPS, config("stranger", owner))
        await until(lambda: gone(world.b, CONFIGMAPS, "stranger"))
        await asyncio.sleep(5)
        assert not await gone(world.a, CONFIGMAPS, "mine")
        # The same name in b does not make it the owner; deleting it moves nothing in a.
        namesake = await world.b.create(CONFIGMAPS, config("owner"))
        await world.b.create(CONFIGMAPS, config("his", namesake))
        await world.b.delete(CONFIGMAPS, "owner", "default")
        await until(lambda: gone(world.b, CONFIGMAPS, "his"))
        assert not await gone(world.a, CONFIGMAPS, "mine")
        await world.a.delete(CONFIGMAPS, "owner", "default", propagation="Foreground")
        await until(lambda: gone(world.a, CONFIGMAPS, "owner"))
        assert await gone(world.a, CONFIGMAPS, "mine")


async def test_a_given_object_owns_like_any_other() -> None:
    async with running("a") as world:
        owner = await world.a.get(SERVICE_ACCOUNTS, "default", "default")
        await world.a.create(CONFIGMAPS, config("mine", {**owner, "apiVersion": "v1", "kind": "ServiceAccount"}))
        await asyncio.sleep(5)
        assert not await gone(world.a, CONFIGMAPS, "mine")
        await world.a.delete(SERVICE_ACCOUNTS, "default", "default")
        await until(lambda: gone(world.a, CONFIGMAPS, "mine"))


def definition(plural: str, scope: str) -> Object:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.example.org"},
        "spec": {
            "group": "example.org",
            "scope": scope,
            "names": {"plural": plural, "kind": "Widget", "singular": "widget", "listKind": "WidgetList"},
            "versions": [version],
        },
    }


async def test_custom_owners_of_one_kind_and_different_scope() -> None:
    widgets, wide = (
        Resource("example.org", "v1", "widgets", "Widget"),
        Resource("example.org", "v1", "wides", "Widget", False),
    )
    async with running("a", "b") as world:
        await world.a.create(CUSTOM_RESOURCE_DEFINITIONS, definition("widgets", "Namespaced"))
        await world.b.create(CUSTOM_RESOURCE_DEFINITIONS, definition("wides", "Cluster"))
        await asyncio.sleep(2)
        one = {"apiVersion": "example.org/v1", "kind": "Widget", "metadata": {"name": "w", "namespace": "default"}}
        other = {"apiVersion": "example.org/v1", "kind": "Widget", "metadata": {"name": "w"}}
        await world.a.create(CONFIGMAPS, config("mine", await world.a.create(widgets, one)))
        await world.b.create(CONFIGMAPS, config("mine", await world.b.create(wide, other)))
        await asyncio.sleep(5)
        assert not await gone(world.a, CONFIGMAPS, "mine")
        assert not await gone(world.b, CONFIGMAPS, "mine")
        await world.a.delete(widgets, "w", "default")
        await until(lambda: gone(world.a, CONFIGMAPS, "mine"))
        assert not await gone(world.b, CONFIGMAPS, "mine")
        await world.b.delete(wide, "w")
        await until(lambda: gone(world.b, CONFIGMAPS, "mine"))


async def test_a_deleted_cluster_leaves_nothing_in_any_cache() -> None:
    async with running("a", "b") as world:
        await world.a.create(JOBS, job())
        await world.b.create(CONFIGMAPS, config("stays"))

        async def two() -> bool:
            return len(await names(world.a, PODS)) == 2

        await until(two)
        told: list[str] = []
        configs = world.informers.get(PODS)
        configs.add_handler(lambda old, new: told.append(cluster_of(old or {})) if new is None else None)
        await world.server.clusters.delete("a")
        await asyncio.sleep(2)
        held = {cluster_of(obj) for informer in world.informers for obj in informer.store.values()}
        assert held <= {"root", "b"}
        assert told == ["a", "a"]
        assert any("stays" in str(o) for o in world.informers.get(CONFIGMAPS).store.values())


async def test_the_number_of_informers_and_tasks_does_not_grow_with_clusters() -> None:
    async with running() as world:
        await asyncio.sleep(1)
        tasks, informers = len(asyncio.all_tasks()), len(list(world.informers))
        held = sum(len(i.store) for i in world.informers)
        for number in range(100):
            await world.server.clusters.create(f"c{number}")
        await asyncio.sleep(1)
        assert (len(asyncio.all_tasks()), len(list(world.informers))) == (tasks, informers)
        assert sum(len(i.store) for i in world.informers) == held
        assert all(not c.queue for c in world.controllers)


async def test_a_view_shows_one_cluster_of_a_shared_informer() -> None:
    async with running("a", "b") as world:
        view = InformersView(world.informers, "a", world.a)
        told: list[tuple[str, str]] = []
        informer = view.get(CONFIGMAPS, indexers={"name": lambda o: [o["metadata"]["name"]]})
        informer.add_handler(
            lambda old, new: told.append(("-" if new is None else "+", (new or old or {})["metadata"]["name"]))
        )
        await informer.wait_synced()
        await world.a.create(CONFIGMAPS, config("one"))
        await world.b.create(CONFIGMAPS, config("two"))
        await asyncio.sleep(0.5)
        assert [key_of(o, "a").name for o in informer.store.values()] == ["one"]
        assert [k.cluster for k, _ in informer.store.items()] == ["a"]
        assert len(informer.store.by_index("name", "one")) == 1
        await world.a.delete(CONFIGMAPS, "one", "default")
        await asyncio.sleep(0.5)
        assert told == [("+", "one"), ("-", "one")]
        with pytest.raises(KeyError):
            informer.store.by_index("other", "x")


async def test_pods_of_an_ending_namespace_go_first_and_it_says_what_it_waits_for() -> None:
    async with running("a") as world:
        await world.a.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "p", "namespace": "team", "finalizers": ["example.com/hold"]},
            "spec": {"containers": [{"name": "main", "image": "x"}]},
        }
        await world.a.create(PODS, pod)
        await world.a.create(CONFIGMAPS, config("c", namespace="team"))
        await world.a.delete(NAMESPACES, "team")

        async def told() -> Any:
            return ((await world.a.get(NAMESPACES, "team"))["status"]).get("conditions")

        conditions = {c["type"]: (c["status"], c["reason"], c["message"]) for c in await until(told)}
        assert conditions == {
            "NamespaceDeletionDiscoveryFailure": (
                "False",
                "ResourcesDiscovered",
                "All resources successfully discovered",
            ),
            "NamespaceDeletionGroupVersionParsingFailure": (
                "False",
                "ParsedGroupVersions",
                "All legacy kube types successfully parsed",
            ),
            "NamespaceDeletionContentFailure": (
                "False",
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization",
            ),
            "NamespaceContentRemaining": (
                "True",
                "SomeResourcesRemain",
                "Some resources are remaining: pods. has 1 resource instances",
            ),
            "NamespaceFinalizersRemaining": (
                "True",
                "SomeFinalizersRemain",
                "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances",
            ),
        }
        await asyncio.sleep(5)
        assert "c" in await names(world.a, CONFIGMAPS, "team")
        await world.a.patch(PODS, "p", {"metadata": {"finalizers": None}}, "team")
        await until(lambda: gone(world.a, NAMESPACES, "team", None))


def ready_node(name: str) -> Object:
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""}
    amounts = {"cpu": "8", "memory": "32Gi", "pods": "110"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "status": {"conditions": [ready], "allocatable": amounts, "capacity": amounts},
    }


async def test_pods_go_to_the_nodes_of_their_own_cluster_and_a_cluster_without_pods_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[binder.Binder] = []
    build = binder.Binder.controller

    def remember(self: binder.Binder) -> Controller:
        made.append(self)
        return build(self)

    monkeypatch.setattr(binder.Binder, "controller", remember)
    async with running("a", "b", "c") as world:
        (the_binder,) = made
        for client, name in ((world.root, "r"), (world.a, "n"), (world.b, "n"), (world.c, "n")):
            await client.create(NODES, ready_node(name))
        await asyncio.sleep(2)
        spec = {"containers": [{"name": "main", "image": "x"}], "terminationGracePeriodSeconds": 0}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"}, "spec": spec}
        picky = {**pod, "spec": {**spec, "nodeSelector": {"kubernetes.io/hostname": "elsewhere"}}}
        for client, body in ((world.root, pod), (world.a, pod), (world.b, picky)):
            await client.create(PODS, body)
        await asyncio.sleep(5)
        assert (await world.root.get(PODS, "p", "default"))["spec"]["nodeName"] == "r"
        assert (await world.a.get(PODS, "p", "default"))["spec"]["nodeName"] == "n"
        waiting = await world.b.get(PODS, "p", "default")
        assert "nodeName" not in waiting["spec"]
        (condition,) = waiting["status"]["conditions"]
        assert condition["message"].startswith("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity")
        events = [e["reason"] for e in (await world.a.list(EVENTS, "default")).items]
        assert events == ["Scheduled"]
        assert sorted(the_binder.clusters) == ["a", "b", "root"]
        await world.a.delete(PODS, "p", "default", grace_period=0)
        await world.server.clusters.delete("b")
        await asyncio.sleep(binder.LINGER + 5)
        assert the_binder.clusters == ["root"]


async def test_a_dead_nodes_pods_are_evicted_in_their_own_cluster_only() -> None:
    async with running("a", "b") as world:
        spec = {"containers": [{"name": "main", "image": "x"}]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"}, "spec": spec}
        for client in (world.a, world.b):
            await client.create(NODES, ready_node("n"))
            await client.create(PODS, pod)
        for beat in range(12):
            await asyncio.sleep(5)
            stamp = f"2026-01-01T00:{beat:02}:00.000000Z"
            lease = {"metadata": {"name": "n", "namespace": "kube-node-lease"}, "spec": {"renewTime": stamp}}
            await world.b.apply(
                LEASES, {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **lease}, field_manager="n"
            )
        assert await gone(world.a, PODS, "p"), "dead for 60 s"
        (lost,) = (await world.a.list(NODES)).items
        assert {t["key"] for t in lost["spec"]["taints"]} == {"node.kubernetes.io/unreachable"}
        alive = await world.b.get(PODS, "p", "default")
        assert alive["spec"]["nodeName"] == "n"
        assert "deletionTimestamp" not in alive["metadata"]
