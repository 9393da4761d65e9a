"""A server in memory and short ways to make what admission looks at."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from glebe.apiserver.assembly import ServerOptions, complete
from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore, Store
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import Object
from glebe.kube.resources import Resource
from glebe.kube.transport import User

QUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota")
LIMITS = Resource("", "v1", "limitranges", "LimitRange")
CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
RUNTIMES = Resource("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", namespaced=False)
STORAGE_CLASSES = Resource("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False)


async def serve(options: ServerOptions | None = None, store: Store | None = None) -> tuple[ApiServer, Client]:
    server = ApiServer(store or MemoryStore(), Env.seeded(1), TypeRegistry())
    if options is not None:
        complete(server, options)
    await server.start()
    warnings: list[str] = []
    client = Client(InProcessTransport(server.handle), on_warning=warnings.append)
    return server, client


def as_user(server: ApiServer, name: str, *groups: str) -> Client:
    return Client(InProcessTransport(server.handle, User(name, tuple(groups))))


def thing(resource: Resource, name: str, namespace: str = "default", **rest: Any) -> Object:
    meta: dict[str, Any] = {"name": name, **rest.pop("meta", {})}
    if resource.namespaced:
        meta["namespace"] = namespace
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta, **rest}


def container(name: str = "main", **resources: dict[str, str]) -> dict[str, Any]:
    out: dict[str, Any] = {"name": name, "image": "example.org/main:1"}
    if resources:
        out["resources"] = resources
    return out


def pod(name: str = "p", namespace: str = "default", *containers: dict[str, Any], **spec: Any) -> Object:
    meta: dict[str, Any] = {"name": name, "namespace": namespace, **spec.pop("meta", {})}
    spec = {"containers": list(containers) or [container()], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


async def refused(call: Any) -> str:
    """The message with which the request is forbidden."""
    with pytest.raises(ApiError) as caught:
        await call
    assert caught.value.code == 403, caught.value.message
    return str(caught.value.message)


async def until(what: Callable[[], Any], timeout: float = 30.0) -> Any:
    async with asyncio.timeout(timeout):
        while True:
            value = await what()
            if value:
                return value
            await asyncio.sleep(0.01)
