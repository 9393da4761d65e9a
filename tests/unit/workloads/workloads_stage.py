"""The real API server with chosen controllers for all logical clusters, and a kubelet, under virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store.memory import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env, format_time
from glebe.kube.controller import Controller
from glebe.kube.errors import ApiError, is_not_found
from glebe.kube.informer import Informers
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import EVERY, Object, cluster_of
from glebe.kube.resources import EVENTS, PODS, Resource

Build = Callable[[Client, Informers, Env], Controller]


class Stage:
    """``stage["a"]`` is the client of cluster a."""

    def __init__(self, server: ApiServer, every: Client, informers: Informers, env: Env) -> None:
        self.server, self.every, self.informers, self.env = server, every, informers, env
        self.ready = True  # whether the kubelet's pods become ready
        self.broken: set[str] = set()  # images that never become ready
        self.fails: set[str] = set()  # names of pods that fail as soon as they run
        self.history: list[tuple[str, str]] = []  # what happened to pods: verb, name

    def __getitem__(self, cluster: str) -> Client:
        return self.every.for_cluster(cluster)

    @property
    def root(self) -> Client:
        return self["root"]

    def _seen(self, old: Object | None, new: Object | None) -> None:
        verb = "create" if old is None else "delete" if new is None else ""
        if verb:
            self.history.append((verb, (new or old or {})["metadata"]["name"]))

    async def kubelet(self) -> None:
        """Runs what is bound (and what is not, too), ends what is deleted."""
        pods = self.informers.get(PODS)
        pods.add_handler(self._seen)
        while True:
            await asyncio.sleep(0.2)
            for pod in pods.store.values():
                try:
                    await self._step(pod)
                except ApiError as error:
                    if error.code not in (404, 409):
                        raise

    async def _step(self, pod: Object) -> None:
        meta, client = pod["metadata"], self.every.at(cluster_of(pod))
        name, space, status = meta["name"], meta["namespace"], pod.get("status") or {}
        if "deletionTimestamp" in meta:
            await client.delete(PODS, name, space, grace_period=0, uid=meta["uid"])
            return
        if status.get("phase") in ("Succeeded", "Failed"):
            return
        phase = "Failed" if name in self.fails else "Running"
        fine = self.ready and pod["spec"]["containers"][0].get("image") not in self.broken
        ready = "True" if fine and phase == "Running" else "False"
        have = next((c["status"] for c in status.get("conditions") or () if c["type"] == "Ready"), "")
        if (status.get("phase"), have) == (phase, ready):
            return
        now = format_time(self.env.clock.now())
        new = {"phase": phase, "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": now}]}
        body = {"metadata": {"uid": meta["uid"]}, "status": new}
        await client.patch(PODS, name, body, space, kind="strategic", subresource="status")


@asynccontextmanager
async def stage(builds: Sequence[Build], *clusters: str, kubelet: bool = True) -> AsyncIterator[Stage]:
    env = Env.seeded(11)
    server = ApiServer(MemoryStore(), env, TypeRegistry())
    await server.start()
    every = Client(InProcessTransport(server.handle), cluster=EVERY)
    informers = Informers(every, env)
    here = Stage(server, every, informers, env)
    made = [build(every, informers, env) for build in builds]
    for name in clusters:
        await server.clusters.create(name)
    tasks = [asyncio.create_task(c.run()) for c in made]
    tasks.append(asyncio.create_task(informers.run()))
    if kubelet:
        tasks.append(asyncio.create_task(here.kubelet()))
    try:
        yield here
    finally:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result
        await server.close()


async def until(what: Callable[[], Awaitable[Any]], seconds: float = 60.0) -> Any:
    for _ in range(int(seconds * 10)):
        if value := await what():
            return value
        await asyncio.sleep(0.1)
    raise AssertionError("it did not come about")


async def names(client: Client, resource: Resource = PODS, namespace: str = "default") -> list[str]:
    return sorted(o["metadata"]["name"] for o in (await client.list(resource, namespace)).items)


async def events(client: Client, namespace: str = "default") -> list[tuple[str, str]]:
    return [(e["reason"], e["message"]) for e in (await client.list(EVENTS, namespace)).items]


async def gone(client: Client, resource: Resource, name: str, namespace: str | None = "default") -> bool:
    try:
        await client.get(resource, name, namespace)
    except ApiError as error:
        return is_not_found(error)
    return False
