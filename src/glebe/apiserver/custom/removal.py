"""The end of a custom kind: its definition goes when its last object is gone."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import orjson

from glebe.apiserver.request.call import Call
from glebe.apiserver.request.options import DeleteOptions
from glebe.apiserver.request.routing import Route
from glebe.apiserver.store import Entry, Key, Mismatch
from glebe.apiserver.strategy.kinds import CLEANUP
from glebe.apiserver.verbs.deleting import delete_one
from glebe.apiserver.verbs.writing import encoder
from glebe.kube import errors
from glebe.kube.transport import PLATFORM, Request

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer

log = logging.getLogger("glebe.apiserver")

DEFINITIONS = "customresourcedefinitions.apiextensions.k8s.io"


async def clean_up(call: Call) -> None:
    """After a deletion of a definition, or of an object of a kind whose definition is ending: go on with it."""
    if call.route.verb not in ("delete", "deletecollection", "update", "patch"):
        return
    server = call.server
    if call.info.is_custom:
        name = call.info.group_resource
    else:
        name = call.route.name
    entry = server.store.get(Key(DEFINITIONS, call.cluster, "", name))
    if entry is None or "deletionTimestamp" not in entry.view()["metadata"]:
        return
    if await _delete_objects(call, entry):
        await _release(call, name)


async def resume(server: ApiServer) -> None:
    """Go on with definitions whose end was interrupted by the end of the process."""
    for cluster in server.clusters.names():
        info = server.registry.lookup(cluster, "apiextensions.k8s.io", "v1", "customresourcedefinitions")
        assert info is not None
        for entry in server.store.range(DEFINITIONS, cluster).entries:
            meta = entry.view()["metadata"]
            if "deletionTimestamp" not in meta:
                continue
            route = Route(cluster, "", "delete", info.group, info.version, info.plural, name=meta["name"])
            request = Request("DELETE", "", [], {}, b"", PLATFORM)
            try:
                await clean_up(Call(server, request, route, info, PLATFORM))
            except errors.ApiError as error:
                log.warning("%s in cluster %s cannot end yet: %s", meta["name"], cluster, error)


async def _delete_objects(call: Call, entry: Entry) -> bool:
    """Delete every object of the kind; True when none is left."""
    spec, server = entry.view()["spec"], call.server
    version = next((v["name"] for v in spec["versions"] if v.get("served")), "")
    info = server.registry.lookup(call.cluster, spec["group"], version, spec["names"]["plural"])
    if info is None:  # no version is served: nobody can ask, or be asked, what holds them
        for found in server.store.range(entry.view()["metadata"]["name"], call.cluster).entries:
            await _drop(server, call.cluster, entry.view()["metadata"]["name"], found)
        return True
    for found in server.store.range(info.group_resource, call.cluster).entries:
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
    return not server.store.range(info.group_resource, call.cluster, limit=1).entries


async def _drop(server: ApiServer, cluster: str, resource: str, found: Entry) -> None:
    obj = found.load()
    meta = obj["metadata"]

    def make(revision: int) -> bytes:
        meta["resourceVersion"] = str(revision)
        return orjson.dumps(obj)

    with contextlib.suppress(Mismatch):
        await server.store.delete(Key(resource, cluster, meta.get("namespace", ""), meta["name"]), make, None)


async def _release(call: Call, name: str) -> None:
    """Take the cleanup finalizer away, and the definition with it when that was the last."""
    server = call.server
    key = Key(DEFINITIONS, call.cluster, "", name)
    info = server.registry.lookup(call.cluster, "apiextensions.k8s.io", "v1", "customresourcedefinitions")
    assert info is not None
    inner = Call(server, call.request, call.route, info, call.user)
    while (entry := server.store.get(key)) is not None:
        obj = entry.load()
        finalizers = [f for f in obj["metadata"].get("finalizers") or () if f != CLEANUP]
        obj["metadata"]["finalizers"] = finalizers
        try:
            if finalizers:
                done = await server.store.put(key, encoder(inner, obj), entry.revision)
                server.written(inner, done, entry)
                return
            obj["metadata"].pop("finalizers")
            await server.store.delete(key, encoder(inner, obj), entry.revision)
            server.written(inner, None, entry)
            return
        except Mismatch:
            continue
