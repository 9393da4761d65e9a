"""A small, honest API server for the tests of ``glebe.kube``: one revision counter, a bounded history, real watches.

It is a transport. It knows nothing of kinds; what it does, it does as Kubernetes does: optimistic locking, pages that
show one revision, 410 for what was compacted, selectors that turn a change into a deletion. Its faults are switched
on from outside.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from glebe.kube import errors
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object
from glebe.kube.selectors import LabelSelector
from glebe.kube.transport import ConnectionLost, Request, Response


def make(name: str, namespace: str = "default", **labels: str) -> Object:
    meta: dict[str, Any] = {"name": name, "namespace": namespace}
    if labels:
        meta["labels"] = labels
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta}


@dataclass(frozen=True)
class Change:
    revision: int
    type: str
    collection: str
    obj: Object
    old: Object | None


@dataclass
class Watcher:
    """One open watch; ``frozen`` swallows what should be sent, as a dead connection does."""

    collection: str
    namespace: str
    selector: LabelSelector
    frozen: bool = False
    queue: asyncio.Queue[bytes | Exception | None] = field(default_factory=asyncio.Queue)

    def offer(self, change: Change) -> None:
        if change.collection != self.collection or self.frozen:
            return
        if self.namespace and change.obj["metadata"].get("namespace") != self.namespace:
            return
        now = change.type != "DELETED" and self.selector.matches(change.obj["metadata"].get("labels"))
        before = change.old is not None and self.selector.matches(change.old["metadata"].get("labels"))
        if now or before:
            kind = "DELETED" if not now else "MODIFIED" if before else "ADDED"
            self.queue.put_nowait(frame(kind, change.obj))


def frame(kind: str, obj: Object) -> bytes:
    return orjson.dumps({"type": kind, "object": obj}) + b"\n"


class FakeServer:
    """The server and its transport in one."""

    def __init__(self, page_cap: int = 10**6, bookmark_period: float = 60.0) -> None:
        self.revision = 10
        self.compacted = 10  # watches and pages at an older revision get 410
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.history: list[Change] = []
        self.watchers: list[Watcher] = []
        self.requests: list[Request] = []
        self.bookmark_period = bookmark_period
        self.page_cap = page_cap
        self._pages: dict[str, tuple[int, list[Object]]] = {}
        self._uids = 0
        #: called before each request; may raise ConnectionLost or ApiError, or return a response instead
        self.fault: Callable[[Request], Response | None] = lambda request: None
        #: called after a write took effect; may raise ConnectionLost: the answer is lost
        self.fault_after: Callable[[Request], None] = lambda request: None

    # --- what tests do to it

    def put(self, obj: Object, collection: str = "pods") -> Object:
        """Create or replace directly."""
        key = (collection, obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        return self._store(key, copy.deepcopy(obj))

    def drop(self, name: str, namespace: str = "default", collection: str = "pods") -> None:
        self._delete((collection, namespace, name))

    def compact(self) -> None:
        """Forget all history and all half-read lists."""
        self.compacted = self.revision
        self.history.clear()
        self._pages.clear()

    def break_watches(self, error: Exception | None = None, *, tail: bytes = b"") -> int:
        """End all watches: cleanly, or with ``error``; ``tail`` is the part of a frame that still got through."""
        watchers, self.watchers = self.watchers, []
        for watcher in watchers:
            if tail:
                watcher.queue.put_nowait(tail)
            watcher.queue.put_nowait(error)
        return len(watchers)

    def send_to_watches(self, data: bytes) -> None:
        for watcher in self.watchers:
            watcher.queue.put_nowait(data)

    def freeze_watches(self) -> None:
        for watcher in self.watchers:
            watcher.frozen = True

    def state(self, collection: str = "pods") -> dict[tuple[str, str], str]:
        """(namespace, name) -> resourceVersion."""
        return {
            (key[1], key[2]): obj["metadata"]["resourceVersion"]
            for key, obj in self.objects.items()
            if key[0] == collection
        }

    # --- Transport

    async def send(self, request: Request) -> Response:
        await asyncio.sleep(0)
        self.requests.append(request)
        try:
            answer = self.fault(request)
            if answer is not None:
                return answer
            response = self._handle(request)
            if request.method != "GET":
                self.fault_after(request)
            return response
        except ApiError as error:
            return Response(error.code, {}, orjson.dumps(error.status()))

    async def close(self) -> None:
        self.break_watches(ConnectionLost("closed"))

    def _handle(self, request: Request) -> Response:
        collection, namespace, name, _subresource = split(request.path)
        key = (collection, namespace, name)
        if request.method == "GET" and not name:
            return self._watch(request) if request.param("watch") == "true" else self._list(request)
        if request.method == "POST":
            obj = orjson.loads(request.body)
            key = (collection, namespace, obj["metadata"]["name"])
            if key in self.objects:
                raise errors.already_exists("", collection, key[2])
            return answer(self._store(key, obj), 201)
        if key not in self.objects:
            raise errors.not_found("", collection, name)
        if request.method == "GET":
            return answer(self.objects[key])
        if request.method == "DELETE":
            return answer(self._delete(key))
        body = orjson.loads(request.body)
        live = self.objects[key]
        if request.method == "PUT":
            if body["metadata"].get("resourceVersion", "") not in ("", live["metadata"]["resourceVersion"]):
                raise errors.modified("", collection, name)
            return answer(self._store(key, body))
        return answer(self._store(key, merge(live, body)))

    def _store(self, key: tuple[str, str, str], obj: Object) -> Object:
        old = self.objects.get(key)
        self.revision += 1
        if old is None:
            self._uids += 1
        meta = obj["metadata"] = {**obj["metadata"], "resourceVersion": str(self.revision)}
        meta["uid"] = old["metadata"]["uid"] if old else f"uid-{self._uids}"
        if key[1]:
            meta["namespace"] = key[1]
        self.objects[key] = obj
        self._publish(Change(self.revision, "MODIFIED" if old else "ADDED", key[0], obj, old))
        return obj

    def _delete(self, key: tuple[str, str, str]) -> Object:
        old = self.objects.pop(key)
        self.revision += 1
        last = {**old, "metadata": {**old["metadata"], "resourceVersion": str(self.revision)}}
        self._publish(Change(self.revision, "DELETED", key[0], last, old))
        return last

    def _publish(self, change: Change) -> None:
        self.history.append(change)
        for watcher in self.watchers:
            watcher.offer(change)

    def _list(self, request: Request) -> Response:
        collection, namespace, _, _ = split(request.path)
        token = request.param("continue")
        if token:
            if token not in self._pages:
                raise errors.gone("The provided continue parameter is too old")
            revision, rest = self._pages.pop(token)
        else:
            selector = LabelSelector.parse(request.param("labelSelector"))
            revision = self.revision
            rest = [
                self.objects[key]
                for key in sorted(self.objects)
                if key[0] == collection
                and namespace in ("", key[1])
                and selector.matches(self.objects[key]["metadata"].get("labels"))
            ]
        limit = min(int(request.param("limit", "0")) or 10**6, self.page_cap if request.param("limit") else 10**6)
        items, rest = rest[:limit], rest[limit:]
        meta = {"resourceVersion": str(revision)}
        if rest:
            meta["continue"] = f"token-{len(self.requests)}"
            self._pages[meta["continue"]] = (revision, rest)
        bare = [{k: v for k, v in item.items() if k not in ("kind", "apiVersion")} for item in items]
        return answer({"kind": "PodList", "apiVersion": "v1", "metadata": meta, "items": bare})

    def _watch(self, request: Request) -> Response:
        collection, namespace, _, _ = split(request.path)
        since = int(request.param("resourceVersion", "0"))
        if since < self.compacted:
            gone = errors.gone(f"too old resource version: {since} ({self.compacted})")
            return Response(200, {}, frame("ERROR", gone.status()))
        watcher = Watcher(collection, namespace, LabelSelector.parse(request.param("labelSelector")))
        for change in self.history:
            if change.revision > since:
                watcher.offer(change)
        self.watchers.append(watcher)
        return Response(200, {}, b"", self._stream(watcher, float(request.param("timeoutSeconds", "1800"))))

    async def _stream(self, watcher: Watcher, duration: float) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        end = loop.time() + duration
        try:
            while loop.time() < end:
                try:
                    async with asyncio.timeout(min(self.bookmark_period, end - loop.time())):
                        item = await watcher.queue.get()
                except TimeoutError:
                    if not watcher.frozen:
                        meta = {"resourceVersion": str(self.revision)}
                        yield frame("BOOKMARK", {"kind": "Pod", "apiVersion": "v1", "metadata": meta})
                    continue
                if item is None:
                    return
                if isinstance(item, Exception):
                    raise item
                yield item
            if watcher.frozen:  # a dead connection does not end by itself
                await asyncio.Event().wait()
        finally:
            if watcher in self.watchers:
                self.watchers.remove(watcher)


def answer(obj: Object, status: int = 200) -> Response:
    return Response(status, {"content-type": "application/json"}, orjson.dumps(obj))


def split(path: str) -> tuple[str, str, str, str]:
    """(collection, namespace, name, subresource) of a path; a cluster prefix is dropped."""
    parts = path.strip("/").split("/")
    if parts[0] == "clusters":
        parts = parts[2:]
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 2:
        namespace, parts = parts[1], parts[2:]
    collection, name, subresource = [*parts, "", ""][:3]
    return collection, namespace, name, subresource


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    out = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merge(out.get(key), value)
    return out
