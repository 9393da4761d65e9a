"""A platform under virtual time for tests of job kinds: server, queue, Kubernetes' controllers, simulated nodes."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from glebe import queueing, workloads
from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError, is_already_exists
from glebe.kube.informer import Informers
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import Object, condition_is_true
from glebe.kube.resources import Resource
from glebe.node.simulated.nodes import SimulatedNodes
from glebe.node.spec import NodeSpec
from glebe.queueing.gatekeeping.admission import QueueAdmission

CRDS = Path(queueing.__file__).parent.parent / "crds"
KUEUE = "kueue.x-k8s.io/v1beta2"
NAMESPACE = "team-a"
TOLERATION = {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}
POOL = {"glebe.dev/pool": "gpu"}


class KindWorld:
    """What a test does and asks."""

    def __init__(self, client: Client, env: Env, queue: queueing.Queueing, warnings: list[str]) -> None:
        self.client = client
        self.env = env
        self.queue = queue
        self.warnings = warnings

    async def until(self, what: Callable[[], Awaitable[Any]], limit: float = 120.0) -> Any:
        async with asyncio.timeout(limit):
            while True:
                if value := await what():
                    return value
                await asyncio.sleep(0.05)

    async def workloads(self) -> list[Object]:
        return (await self.client.list(r.WORKLOADS, NAMESPACE)).items

    async def workload(
        self, test: Callable[[Object], Any] = lambda _: True, *, of: str = "", limit: float = 120.0
    ) -> Object:
        """The first workload that passes; ``of``: whose name begins so."""

        async def look() -> Object | None:
            for found in await self.workloads():
                if found["metadata"]["name"].startswith(of) and test(found):
                    return found
            return None

        return await self.until(look, limit)  # type: ignore[no-any-return]

    async def get(self, resource: Resource, name: str, test: Callable[[Object], Any] = lambda _: True) -> Object:
        async def look() -> Object | None:
            found = await self.client.get(resource, name, NAMESPACE)
            return found if test(found) else None

        return await self.until(look)  # type: ignore[no-any-return]

    async def set_status(self, resource: Resource, name: str, status: dict[str, Any]) -> None:
        found = await self.client.get(resource, name, NAMESPACE)
        await self.client.update_status(resource, {**found, "status": status})

    async def pods(self, selector: str = "") -> list[Object]:
        return (await self.client.list(r.PODS, NAMESPACE, label_selector=selector)).items

    async def all_pods(self, test: Callable[[Object], Any], count: int, selector: str = "") -> list[Object]:
        """Wait until there are ``count`` pods and all pass."""

        async def look() -> list[Object] | None:
            found = await self.pods(selector)
            return found if len(found) == count and all(map(test, found)) else None

        return await self.until(look)  # type: ignore[no-any-return]

    async def used(self, queue: str = "main") -> dict[str, str]:
        """What the ClusterQueue has reserved, by resource."""
        found = await self.client.get(r.CLUSTER_QUEUES, queue)
        flavors = (found.get("status") or {}).get("flavorsReservation") or [{"resources": []}]
        return {item["name"]: item["total"] for item in flavors[0]["resources"]}

    async def holds(self, gpus: int) -> None:
        """Wait until so many GPUs are reserved."""

        async def look() -> bool:
            return (await self.used()).get("nvidia.com/gpu") == str(gpus)

        await self.until(look)

    async def free(self) -> None:
        """Wait until nothing is reserved."""

        async def look() -> bool:
            used = await self.used()
            return bool(used) and all(amount == "0" for amount in used.values())

        await self.until(look)

    async def apply(self, resource: Resource, obj: Object) -> Object:
        return await self.client.create(resource, obj)

    async def evict(self, workload: Object) -> None:
        """By hand: ``spec.active: false``."""
        await self.activate(workload, False)

    async def activate(self, workload: Object, active: bool = True) -> None:
        meta = workload["metadata"]
        await self.client.patch(r.WORKLOADS, meta["name"], {"spec": {"active": active}}, meta["namespace"])


@asynccontextmanager
async def kind_world(
    *, nodes: int = 4, gpus: int = 8, topology: bool = False, queue: bool = True
) -> AsyncIterator[KindWorld]:
    """One queue ``main`` over ``nodes`` nodes, with or without a topology of racks of two.

    :param queue: whether the queue's controllers run.
    """
    env = Env.seeded(1)
    admission = QueueAdmission()
    server = ApiServer(MemoryStore(), env, TypeRegistry(), admission=(admission,))
    admission.read = server.read
    await server.start()
    warnings: list[str] = []
    client = Client(InProcessTransport(server.handle), on_warning=warnings.append)
    informers = Informers(client, env)
    specs = [
        NodeSpec(
            f"gpu-{n:02d}",
            {"cpu": "64", "memory": "512Gi", "nvidia.com/gpu": str(gpus), "pods": "110"},
            {"kubernetes.io/hostname": f"gpu-{n:02d}", "rack": f"rack-{n // 2}", **POOL},
        )
        for n in range(nodes)
    ]
    try:
        for definition in definitions():
            await client.create(r.CUSTOM_RESOURCE_DEFINITIONS, copy.deepcopy(definition))
        for name in ("default", "kube-system", "kube-node-lease", "glebe-system", NAMESPACE):
            try:
                await client.create(r.NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
            except ApiError as error:
                if not is_already_exists(error):
                    raise
        sim = SimulatedNodes(client, env, specs, informers=informers)
        made = queueing.Queueing(client, informers, env)
        admission.oracle = made.never_starts if queue else None
        async with asyncio.TaskGroup() as group:
            parts = (*(made.controllers if queue else ()), *workloads.controllers(client, informers, env), sim)
            tasks = [group.create_task(part.run()) for part in parts]
            tasks.append(group.create_task(informers.run()))
            await _make_queue(client, nodes * gpus, topology)
            try:
                yield KindWorld(client, env, made, warnings)
            finally:
                for task in tasks:
                    task.cancel()
    finally:
        await server.close()


async def _make_queue(client: Client, gpus: int, topology: bool) -> None:
    flavor: dict[str, Any] = {"nodeLabels": POOL, "tolerations": [TOLERATION]}
    if topology:
        levels = [{"nodeLabel": "rack"}, {"nodeLabel": "kubernetes.io/hostname"}]
        await client.create(r.TOPOLOGIES, queue_object("Topology", "fabric", {"levels": levels}))
        flavor["topologyName"] = "fabric"
    await client.create(r.RESOURCE_FLAVORS, queue_object("ResourceFlavor", "gpu", flavor))
    amounts = {"nvidia.com/gpu": gpus, "cpu": 1000, "memory": "1Ti", "glebe.dev/gpu-milli": 1000 * gpus}
    quotas = [{"name": name, "nominalQuota": amount} for name, amount in amounts.items()]
    group = {"coveredResources": list(amounts), "flavors": [{"name": "gpu", "resources": quotas}]}
    spec = {"namespaceSelector": {}, "resourceGroups": [group]}
    await client.create(r.CLUSTER_QUEUES, queue_object("ClusterQueue", "main", spec))
    local = queue_object("LocalQueue", "main", {"clusterQueue": "main"})
    local["metadata"]["namespace"] = NAMESPACE
    await client.create(r.LOCAL_QUEUES, local)


@lru_cache(maxsize=1)
def definitions() -> tuple[Object, ...]:
    """The queue's own kinds; read once, for that takes longer than most tests."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return tuple(yaml.load(path.read_text(), loader) for path in sorted(CRDS.glob("*.yaml")))


def queue_object(kind: str, name: str, spec: dict[str, Any]) -> Object:
    return {"apiVersion": KUEUE, "kind": kind, "metadata": {"name": name}, "spec": spec}


def crd(resource: Resource) -> Object:
    """A small definition of our own: any fields, with a status subresource."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": resource.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }
    names = {"plural": resource.plural, "kind": resource.kind, "singular": resource.kind.lower()}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": resource.group_resource,
            "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"},
        },
        "spec": {
            "group": resource.group,
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "names": names,
            "versions": [version],
        },
    }


def container(gpus: int = 1, name: str = "main", **more: Any) -> dict[str, Any]:
    amounts = {"cpu": "1", **({"nvidia.com/gpu": str(gpus)} if gpus else {})}
    return {"name": name, "image": "train", "resources": {"requests": amounts, "limits": amounts}, **more}


def template(gpus: int = 1, seconds: int = 60, **annotations: str) -> dict[str, Any]:
    """A pod template that asks for GPUs and runs for a while on simulated nodes."""
    return {
        "metadata": {"annotations": {"sim.glebe.dev/run-time": f"{seconds}s", **annotations}},
        "spec": {"restartPolicy": "Never", "containers": [container(gpus)]},
    }


def job(resource: Resource, name: str, spec: dict[str, Any], *, queue: str = "main", **labels: str) -> Object:
    meta = {"name": name, "namespace": NAMESPACE, "labels": {"kueue.x-k8s.io/queue-name": queue, **labels}}
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta, "spec": spec}


def admitted(workload: Object) -> bool:
    return condition_is_true(workload, "Admitted")


def finished(workload: Object) -> bool:
    return condition_is_true(workload, "Finished")
