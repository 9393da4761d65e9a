"""A small Kubernetes in memory for testing controllers: objects, revisions, finalizers, and caches that lag.

It has what the controllers rely on (optimistic locking, preconditions, graceful deletion) and can be told to fail.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable
from typing import Any

from glebe.kube.clock import Env, format_time
from glebe.kube.errors import already_exists, conflict, modified, not_found
from glebe.kube.objects import Object, ObjectKey, key_of
from glebe.kube.resources import CONFIGMAPS, CUSTOM_RESOURCE_DEFINITIONS, JOBS, PODS, Resource
from glebe.kube.store import Store
from glebe.kube.transport import Response

KINDS = (CONFIGMAPS, CUSTOM_RESOURCE_DEFINITIONS, JOBS, PODS)
Fault = Callable[[str, Resource, str], BaseException | None]


class FakeApi:
    """The truth. ``client()`` gives what a controller uses; ``informer`` a cache fed with a delay."""

    def __init__(self, env: Env) -> None:
        self.env = env
        self.revision = 0
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.informers: list[FakeInformer] = []
        self.log: list[tuple[str, str, str]] = []  # verb, resource, name

    def collection(self, resource: Resource) -> list[Object]:
        return [o for (plural, _, _), o in sorted(self.objects.items()) if plural == resource.plural]

    def find(self, resource: Resource, name: str, namespace: str = "") -> Object | None:
        return self.objects.get((resource.plural, namespace, name))

    def store(self, resource: Resource, obj: Object) -> Object:
        meta = obj["metadata"]
        key = (resource.plural, meta.get("namespace", ""), meta["name"])
        if "deletionTimestamp" in meta and not meta.get("finalizers") and meta.get("deletionGracePeriodSeconds") == 0:
            return self.drop(resource, key)
        self.revision += 1
        meta["resourceVersion"] = str(self.revision)
        self.objects[key] = obj
        self._tell(resource, obj, gone=False)
        return obj

    def drop(self, resource: Resource, key: tuple[str, str, str]) -> Object:
        obj = self.objects.pop(key)
        self.revision += 1
        self._tell(resource, obj, gone=True)
        return obj

    def _tell(self, resource: Resource, obj: Object, *, gone: bool) -> None:
        for informer in self.informers:
            if informer.resource.plural == resource.plural:
                informer.deliver(copy.deepcopy(obj), gone)

    # --- verbs

    def create(self, resource: Resource, obj: Object) -> Object:
        obj = copy.deepcopy(obj)
        meta = obj["metadata"]
        key = (resource.plural, meta.get("namespace", ""), meta["name"])
        if key in self.objects:
            raise already_exists(resource.group, resource.plural, meta["name"])
        obj.setdefault("apiVersion", resource.api_version)
        obj.setdefault("kind", resource.kind)
        meta["uid"] = self.env.new_uid()
        meta["creationTimestamp"] = format_time(self.env.clock.now())
        meta.setdefault("generation", 1)
        return self.store(resource, obj)

    def read(self, resource: Resource, name: str, namespace: str) -> Object:
        obj = self.find(resource, name, namespace)
        if obj is None:
            raise not_found(resource.group, resource.plural, name)
        return obj

    def update(self, resource: Resource, new: Object, subresource: str | None) -> Object:
        meta = new["metadata"]
        old = self.read(resource, meta["name"], meta.get("namespace", ""))
        if meta.get("resourceVersion") not in (None, old["metadata"]["resourceVersion"]):
            raise modified(resource.group, resource.plural, meta["name"])
        out = copy.deepcopy(old if subresource else new)
        if subresource == "status":
            out["status"] = copy.deepcopy(new.get("status") or {})
        return old if out == old else self.store(resource, out)

    def patch(self, resource: Resource, name: str, namespace: str, patch: Object, subresource: str | None) -> Object:
        old = self.read(resource, name, namespace)
        wanted = (patch.get("metadata") or {}).get("resourceVersion")
        if wanted not in (None, old["metadata"]["resourceVersion"]):
            raise modified(resource.group, resource.plural, name)
        uid = (patch.get("metadata") or {}).get("uid")
        if uid not in (None, old["metadata"]["uid"]):
            raise conflict(resource.group, resource.plural, name, "uid mismatch")
        new = merge(copy.deepcopy(old), patch)
        return old if new == old else self.store(resource, new)

    def bind(self, resource: Resource, name: str, namespace: str, node: str) -> Object:
        pod = copy.deepcopy(self.read(resource, name, namespace))
        if pod["spec"].get("nodeName"):
            raise conflict("", "pods", name, f"pod {name} is already assigned to node {pod['spec']['nodeName']!r}")
        pod["spec"]["nodeName"] = node
        return self.store(resource, pod)

    def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str,
        uid: str | None = None,
        grace: int | None = None,
        propagation: str | None = None,
        version: str | None = None,
    ) -> Object:
        old = self.read(resource, name, namespace)
        if version not in (None, old["metadata"]["resourceVersion"]):
            raise modified(resource.group, resource.plural, name)
        if uid not in (None, old["metadata"]["uid"]):
            raise conflict(resource.group, resource.plural, name, "the UID in the precondition differs")
        new = copy.deepcopy(old)
        meta = new["metadata"]
        mark = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}.get(propagation or "")
        if mark and mark not in meta.get("finalizers", ()):
            meta["finalizers"] = [*meta.get("finalizers", ()), mark]
        bound = resource.plural == "pods" and (new.get("spec") or {}).get("nodeName")
        seconds = grace if grace is not None else (30 if bound else 0)
        if "deletionTimestamp" in meta and meta.get("deletionGracePeriodSeconds", 0) <= seconds:
            return old
        meta.setdefault("deletionTimestamp", format_time(self.env.clock.now()))
        meta["deletionGracePeriodSeconds"] = seconds
        return self.store(resource, new)


def merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    out = target if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merge(out.get(key), value)
    return out


class FakeInformer:
    """A cache that learns of each change after ``lag()`` seconds, in order."""

    def __init__(self, api: FakeApi, resource: Resource, lag: Callable[[], float]) -> None:
        self.api, self.resource, self.lag = api, resource, lag
        self.store = Store({})
        self.cluster = ""
        self.handlers: list[Callable[[Object | None, Object | None], None]] = []
        self.last = 0.0
        self.closed = False
        api.informers.append(self)
        for obj in api.collection(resource):
            self.store.set(key_of(obj), copy.deepcopy(obj))

    def add_handler(self, handler: Callable[[Object | None, Object | None], None]) -> None:
        self.handlers.append(handler)
        for obj in self.store.values():
            handler(None, obj)

    def remove_handler(self, handler: Any) -> None:
        if handler in self.handlers:
            self.handlers.remove(handler)

    @property
    def has_synced(self) -> bool:
        return True

    async def wait_synced(self) -> None:
        return None

    def members(self, cluster: str) -> list[Object]:
        return self.store.values()

    def deliver(self, obj: Object, gone: bool) -> None:
        loop = asyncio.get_running_loop()
        # Timers of one moment have no order: each event gets a moment of its own.
        self.last = max(self.last + 1e-6, loop.time() + self.lag())
        loop.call_at(self.last, self._apply, obj, gone)

    def _apply(self, obj: Object, gone: bool) -> None:
        if self.closed:
            return
        key = key_of(obj)
        if gone:
            old = self.store.delete(key)
            new = None
        else:
            old = self.store.set(key, obj)
            new = obj
        for handler in list(self.handlers):
            handler(old, new)

    def close(self) -> None:
        """As at a crash: nothing more is heard."""
        self.closed = True
        self.api.informers.remove(self)


class FakeInformers:
    def __init__(self, api: FakeApi, lag: Callable[[], float] = lambda: 0.0) -> None:
        self.api, self.lag = api, lag
        self.made: dict[str, FakeInformer] = {}

    def get(self, resource: Resource, *, indexers: Any = None, **_: Any) -> Any:
        informer = self.made.get(resource.group_resource)
        if informer is None:
            informer = self.made[resource.group_resource] = FakeInformer(self.api, resource, self.lag)
        for name, indexer in (indexers or {}).items():
            informer.store.add_indexer(name, indexer)
        return informer

    def close(self) -> None:
        for informer in self.made.values():
            informer.close()


class FakeClient:
    """The client's methods that controllers use. ``fault(verb, resource, name)`` may answer with an error to raise;
    one with attribute ``late`` set is raised after the effect."""

    cluster = ""

    def __init__(self, api: FakeApi, fault: Fault | None = None) -> None:
        self.api = api
        self.fault = fault or (lambda *_: None)

    def at(self, cluster: str) -> FakeClient:
        return self

    async def _do(self, verb: str, resource: Resource, name: str, act: Callable[[], Object]) -> Object:
        await asyncio.sleep(0)
        error = self.fault(verb, resource, name)
        if error is not None and not getattr(error, "late", False):
            raise error
        self.api.log.append((verb, resource.plural, name))
        out = copy.deepcopy(act())
        if error is not None:
            raise error
        await asyncio.sleep(0)
        return out

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Object:
        return await self._do("get", resource, name, lambda: self.api.read(resource, name, namespace or ""))

    async def create(
        self, resource: Resource, obj: Object, namespace: str | None = None, *,
        name: str | None = None, subresource: str | None = None,
    ) -> Object:  # fmt: skip
        if subresource == "binding" and name is not None:
            space, node, pod = namespace or "", obj["target"]["name"], name
            return await self._do("bind", resource, pod, lambda: self.api.bind(resource, pod, space, node))
        name = obj["metadata"].get("name", "")
        return await self._do("create", resource, name, lambda: self.api.create(resource, obj))

    async def update(self, resource: Resource, obj: Object, *, subresource: str | None = None) -> Object:
        name = obj["metadata"]["name"]
        return await self._do("update", resource, name, lambda: self.api.update(resource, obj, subresource))

    async def update_status(self, resource: Resource, obj: Object) -> Object:
        return await self.update(resource, obj, subresource="status")

    async def patch(
        self, resource: Resource, name: str, patch: Any, namespace: str | None = None, *,
        kind: str = "merge", subresource: str | None = None,
    ) -> Object:  # fmt: skip
        space = namespace or ""
        return await self._do(
            "patch", resource, name, lambda: self.api.patch(resource, name, space, patch, subresource)
        )

    async def delete(
        self, resource: Resource, name: str, namespace: str | None = None, *,
        grace_period: int | None = None, propagation: str | None = None, uid: str | None = None,
        resource_version: str | None = None,
    ) -> Object:  # fmt: skip
        space = namespace or ""
        return await self._do(
            "delete",
            resource,
            name,
            lambda: self.api.delete(resource, name, space, uid, grace_period, propagation, resource_version),
        )

    async def raw(self, method: str, path: str) -> Response:
        """Discovery of ``KINDS``."""
        await self._do("get", PODS, "discovery", dict)
        body: Object
        if path == "/apis":
            groups = sorted({(r.group, r.version) for r in KINDS if r.group})
            versions = [{"groupVersion": f"{g}/{v}", "version": v} for g, v in groups]
            body = {"groups": [{"name": g, "versions": [v]} for (g, _), v in zip(groups, versions, strict=True)]}
        else:
            verbs = ["create", "delete", "get", "list", "watch"]
            here = [r for r in KINDS if r.path() == f"{path}/{r.plural}"]
            listed = [{"name": r.plural, "kind": r.kind, "namespaced": r.namespaced, "verbs": verbs} for r in here]
            body = {"resources": listed}
        return Response(200, {}, json.dumps(body).encode())


def key(name: str, namespace: str = "") -> ObjectKey:
    return ObjectKey("", namespace, name)
