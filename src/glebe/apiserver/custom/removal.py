"""The end of a custom kind: its definition goes when its last object is gone.

Also what follows every write of a definition: names are settled (:mod:`glebe.apiserver.custom.naming`), watches of what
is no longer served in the same way end.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import orjson

from glebe.apiserver.custom import naming
from glebe.apiserver.custom.naming import DEFINITIONS
from glebe.apiserver.request.call import Call
from glebe.apiserver.request.options import DeleteOptions
from glebe.apiserver.request.routing import Route
from glebe.apiserver.store import EVERY_CLUSTER, Entry, Event, Key, Mismatch
from glebe.apiserver.strategy.definition import CLEANUP
from glebe.apiserver.types.definitionfacts import has_condition
from glebe.apiserver.verbs.deleting import delete_one
from glebe.apiserver.verbs.writing import encoder
from glebe.kube import errors
from glebe.kube.objects import Object, set_condition
from glebe.kube.transport import PLATFORM, Request

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer

log = logging.getLogger("glebe.apiserver")

_WRITES = ("create", "update", "patch", "delete", "deletecollection")


async def clean_up(call: Call) -> None:
    """After a write of a definition, or of an object of a kind whose definition is ending: go on with it."""
    if call.route.verb not in _WRITES or call.dry_run:
        return
    info = call.info
    if info.is_custom:
        if (info.custom is not None and info.custom.terminating) or call.route.verb != "create":
            await _go_on(call, info.group_resource)
        return
    await naming.settle(call)
    if call.route.verb == "create":
        return
    if call.route.name:
        await _go_on(call, call.route.name)
        return
    for entry in call.server.store.range(DEFINITIONS, call.cluster).entries:
        await _go_on(call, entry.view()["metadata"]["name"])


async def _go_on(call: Call, name: str) -> None:
    entry = call.server.store.get(Key(DEFINITIONS, call.cluster, "", name))
    if entry is None:
        return
    meta = entry.view()["metadata"]
    finalizers = meta.get("finalizers") or ()
    if "deletionTimestamp" not in meta or (finalizers and CLEANUP not in finalizers):
        return
    if not has_condition(entry.view(), "Established"):
        await _release(call, name, "NeverEstablished", "resource was never established")
    elif await _delete_objects(call, entry):
        await _release(call, name, "InstanceDeletionCompleted", "removed all instances")
    elif any(c.get("reason") == "InstanceDeletionPending" for c in entry.view()["status"]["conditions"]):
        await _mark(call, name, "True", "InstanceDeletionInProgress", "CustomResource deletion is in progress")


async def resume(server: ApiServer) -> None:
    """Go on with what the end of the process interrupted: names to settle, definitions that were ending."""
    page = server.store.range(DEFINITIONS, EVERY_CLUSTER)
    found: dict[str, list[Entry]] = {}
    for cluster, entry in zip(page.clusters or (), page.entries, strict=True):
        found.setdefault(cluster, []).append(entry)
    for cluster, entries in sorted(found.items()):
        info = server.registry.lookup(cluster, "apiextensions.k8s.io", "v1", "customresourcedefinitions")
        if info is None or not server.clusters.exists(cluster) or not any(_unfinished(e.view()) for e in entries):
            continue
        route = Route(cluster, "", "delete", info.group, info.version, info.plural)
        call = Call(server, Request("DELETE", "", [], {}, b"", PLATFORM), route, info, PLATFORM)
        await naming.settle(call)
        for entry in entries:
            name = entry.view()["metadata"]["name"]
            try:
                await _go_on(replace(call, route=replace(route, name=name)), name)
            except errors.ApiError as error:
                log.warning("%s in cluster %s cannot end yet: %s", name, cluster, error)


def _unfinished(crd: Object) -> bool:
    return "deletionTimestamp" in crd["metadata"] or not naming.is_settled(crd)


def definition_changed(server: ApiServer, event: Event) -> None:
    """A definition was written, by this process or another one: serve what it says now."""
    cluster, registry = event.cluster, server.registry
    if not event.name:  # the whole cluster went
        registry.remove_cluster(cluster)
        return
    before = registry.custom_kind(cluster, event.name)
    if event.deleted:
        registry.remove_crd(cluster, event.name)
    else:
        registry.set_crd(cluster, event.entry.load())
    after = registry.custom_kind(cluster, event.name)
    if before is not None and before is not after and not before.reads_like(after):
        # Who watches must come again: what he was promised (a version, its conversion) may be no more.
        server.store.end_watches(cluster, event.name)


async def _delete_objects(call: Call, entry: Entry) -> bool:
    """Delete every object of the kind; True when none is left."""
    crd, server = entry.view(), call.server
    resource = crd["metadata"]["name"]
    kind = server.registry.custom_kind(call.cluster, resource)
    info = kind.versions.get(kind.storage_version) if kind is not None else None
    if info is None or kind is None or not kind.served:  # nobody can ask, or be asked, what holds them
        for found in server.store.range(resource, call.cluster).entries:
            await _drop(server, call.cluster, resource, found)
        return True
    for found in server.store.range(resource, call.cluster).entries:
        meta = found.view()["metadata"]
        if "deletionTimestamp" in meta:
            continue
        namespace, name = meta.get("namespace", ""), meta["name"]
        route = replace(call.route, namespace=namespace, name=name, verb="delete", subresource="")
        inner = Call(server, call.request, route, info, call.user)
        try:
            await delete_one(inner, inner.key(), DeleteOptions())
        except errors.ApiError as error:
            if not errors.is_not_found(error):
                raise
    return not server.store.range(resource, call.cluster, limit=1).entries


async def _drop(server: ApiServer, cluster: str, resource: str, found: Entry) -> None:
    obj = found.load()
    meta = obj["metadata"]

    def make(revision: int) -> bytes:
        meta["resourceVersion"] = str(revision)
        return orjson.dumps(obj)

    with contextlib.suppress(Mismatch):
        await server.store.delete(Key(resource, cluster, meta.get("namespace", ""), meta["name"]), make, None)


def _ending(obj: Object, status: str, reason: str, message: str, now: str) -> None:
    conditions = list((obj.get("status") or {}).get("conditions") or ())
    obj.setdefault("status", {})["conditions"] = set_condition(conditions, "Terminating", status, reason, message, now)


async def _mark(call: Call, name: str, status: str, reason: str, message: str) -> None:
    inner = naming.call_on(call, name)
    entry = call.server.store.get(inner.key())
    if entry is None:
        return
    obj = entry.load()
    _ending(obj, status, reason, message, call.server.now_text())
    with contextlib.suppress(Mismatch):
        done = await call.server.store.put(inner.key(), encoder(inner, obj), entry.revision)
        call.server.written(inner, done, entry)


async def _release(call: Call, name: str, reason: str, message: str) -> None:
    """Take the cleanup finalizer away, and the definition with it when that was the last."""
    server = call.server
    inner = naming.call_on(call, name)
    while (entry := server.store.get(inner.key())) is not None:
        obj = entry.load()
        finalizers = [f for f in obj["metadata"].get("finalizers") or () if f != CLEANUP]
        obj["metadata"]["finalizers"] = finalizers
        _ending(obj, "False", reason, message, server.now_text())
        try:
            if finalizers:
                done = await server.store.put(inner.key(), encoder(inner, obj), entry.revision)
                server.written(inner, done, entry)
                return
            obj["metadata"].pop("finalizers")
            await server.store.delete(inner.key(), encoder(inner, obj), entry.revision)
            server.written(inner, None, entry)
        except Mismatch:
            continue
        await naming.settle(inner)  # its names are free
        return
