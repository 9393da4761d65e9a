"""What is in use stays: claims under pods, bound volumes, attribute classes of claims."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from test_workloads_disruption import until

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store.memory import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.informer import Informers
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import EVERY, Object
from glebe.kube.resources import PODS, Resource
from glebe.workloads import protection
from glebe.workloads.protection import CLAIMS, CLASSES, VOLUMES


async def world(run: Any) -> None:
    env = Env.seeded(3)
    server = ApiServer(MemoryStore(), env, TypeRegistry())
    await server.start()
    everywhere = Client(InProcessTransport(server.handle), cluster=EVERY)
    informers = Informers(everywhere, env)
    controllers = protection.build(everywhere, informers, env)
    tasks = [asyncio.create_task(informers.run()), *(asyncio.create_task(c.run()) for c in controllers)]
    try:
        await run(Client(InProcessTransport(server.handle)))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.close()


def claim(name: str = "c", **spec: Any) -> Object:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, **spec}
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": spec}


async def gone(api: Client, resource: Resource, name: str) -> None:
    async def missing() -> bool:
        try:
            await api.get(resource, name, "default" if resource.namespaced else None)
        except ApiError as error:
            return error.code == 404
        return False

    await until(missing)


async def test_a_claim_stays_while_a_pod_has_it() -> None:
    async def run(api: Client) -> None:
        made = await api.create(CLAIMS, claim())
        assert made["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
        volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]
        spec = {"containers": [{"name": "m", "image": "i"}], "nodeName": "n", "volumes": volumes}
        meta = {"name": "p", "namespace": "default"}
        await api.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
        await asyncio.sleep(1)
        await api.delete(CLAIMS, "c", "default")
        await asyncio.sleep(30)
        assert "deletionTimestamp" in (await api.get(CLAIMS, "c", "default"))["metadata"]
        await api.delete(PODS, "p", "default", grace_period=0)
        await gone(api, CLAIMS, "c")
        await api.create(CLAIMS, claim("unused"))
        await api.delete(CLAIMS, "unused", "default")
        await gone(api, CLAIMS, "unused")

    await world(run)


async def test_a_bound_volume_stays() -> None:
    async def run(api: Client) -> None:
        spec = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}
        body = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"}, "spec": spec}
        made = await api.create(VOLUMES, body)
        await api.update_status(VOLUMES, {**made, "status": {"phase": "Bound"}})
        await api.delete(VOLUMES, "v")
        await asyncio.sleep(30)
        made = await api.get(VOLUMES, "v")
        await api.update_status(VOLUMES, {**made, "status": {"phase": "Released"}})
        await gone(api, VOLUMES, "v")

    await world(run)


@pytest.mark.parametrize("used", [True, False])
async def test_an_attributes_class_stays_while_a_claim_names_it(used: bool) -> None:
    async def run(api: Client) -> None:
        body = {"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttributesClass", "metadata": {"name": "fast"}}
        made = await api.create(CLASSES, {**body, "driverName": "d.example.com", "parameters": {"iops": "1"}})
        assert made["metadata"]["finalizers"] == ["kubernetes.io/vac-protection"]
        if used:
            await api.create(CLAIMS, claim(volumeAttributesClassName="fast"))
        await asyncio.sleep(1)
        await api.delete(CLASSES, "fast")
        if used:
            await asyncio.sleep(30)
            await api.get(CLASSES, "fast")
            await api.delete(CLAIMS, "c", "default")
        await gone(api, CLASSES, "fast")

    await world(run)
