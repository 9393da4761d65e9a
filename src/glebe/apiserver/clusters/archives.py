"""Snapshots of everything and exports of one cluster, for members of system:masters of the root cluster.

``GET /snapshot`` streams an archive (:mod:`glebe.apiserver.store.archive`) of everything, ``GET
/snapshot?cluster=NAME`` of one cluster, each as of one moment. ``POST /snapshot?cluster=NAME`` takes lines of such an
archive into a cluster, and replaces what controllers made there meanwhile; with ``&begin=true`` it makes the cluster,
or finds it empty. Objects keep their uids, so that owner references stay true; they get new versions. The path is the
root cluster's: credentials that are good in another cluster only do not reach it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import orjson

from glebe.apiserver.clusters.logical import GROUP, PLURAL
from glebe.apiserver.flight import Flight
from glebe.apiserver.request import media
from glebe.apiserver.store import Entry, Make, Mismatch
from glebe.apiserver.store.archive import Item, Snapshot, parse_line, remade, write
from glebe.kube import errors
from glebe.kube.transport import Response

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer

PATH = "/snapshot"
_MASTERS = "system:masters"
_CHUNK = 64 * 1024


async def serve(server: ApiServer, flight: Flight) -> Response:
    """
    :raises ApiError: 403 for everyone but system:masters; 404 for an unknown cluster, 405; 409 when it is not empty.
    """
    request = flight.request
    if _MASTERS not in flight.user.groups:
        why = "only members of system:masters of the root cluster take or load snapshots"
        raise errors.ApiError(403, "Forbidden", f"forbidden: {why}")
    cluster = request.param("cluster")
    begin = request.method == "POST" and request.param("begin") == "true"
    if cluster and not begin and not server.clusters.exists(cluster):
        raise errors.not_found(GROUP, PLURAL, cluster)
    if request.method == "GET":
        stream = _stream(server.store.snapshot(cluster), server.now_text())
        return Response(200, {"content-type": "application/jsonl"}, stream=stream)
    if request.method == "POST" and cluster:
        return await _load(server, cluster, request.body, begin)
    raise errors.method_not_allowed()


async def _stream(snapshot: Snapshot, created: str) -> AsyncIterator[bytes]:
    chunk: list[bytes] = []
    size = 0
    for line in write(snapshot, created):
        chunk.append(line)
        size += len(line)
        if size >= _CHUNK:
            yield b"".join(chunk)
            chunk, size = [], 0
            await asyncio.sleep(0)  # others have something to do, too
    yield b"".join(chunk)


def _items(body: bytes) -> list[Item]:
    """The lines of an archive of one cluster.

    :raises ApiError: 400 for damaged lines, and for those of several clusters, which would become one.
    """
    items: list[Item] = []
    for count, line in enumerate(body.splitlines(), 1):
        try:
            items.append(parse_line(line))
        except (ValueError, KeyError, TypeError):
            raise errors.bad_request(f"line {count} is no line of an archive") from None
        if items[-1].key.cluster != items[0].key.cluster or not items[-1].key.cluster:
            raise errors.bad_request(f"line {count} is of another cluster: load the archive of one cluster")
    return items


async def _load(server: ApiServer, cluster: str, body: bytes, begin: bool) -> Response:
    items = _items(body)
    if begin and not server.clusters.exists(cluster):
        await server.clusters.create(cluster)
    elif begin and server.store.usage(cluster) != (0, 0):
        raise errors.conflict(GROUP, PLURAL, cluster, "it is not empty; load the archive into a new cluster")
    for item in items:
        await _take(server, replace(item, key=item.key._replace(cluster=cluster)))
    details = {"name": cluster, "group": GROUP, "kind": PLURAL}
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
    return Response(
        200, {"content-type": media.JSON}, orjson.dumps({**status, "message": f"{len(items)} lines were loaded"})
    )


async def _take(server: ApiServer, item: Item) -> None:
    store = server.store
    while True:
        current = store.get(item.key)
        with suppress(Mismatch):
            if item.value is not None:
                await store.put(item.key, remade(item), current.revision if current is not None else 0)
            elif current is not None:
                await store.delete(item.key, _last_state(current), current.revision)
            return


def _last_state(entry: Entry) -> Make:
    obj = entry.load()

    def make(revision: int) -> bytes:
        obj["metadata"]["resourceVersion"] = str(revision)
        return orjson.dumps(obj)

    return make
