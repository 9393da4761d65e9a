"""A client for one Kubernetes API: verbs in, dictionaries out, every refusal an :class:`ApiError`.

It speaks through a :class:`~glebe.kube.transport.Transport`, so it is the same over HTTP and inside one process. It
retries nothing by itself, except reads that the server answered with 429 and a Retry-After; whoever calls knows
better what a repetition means.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

import orjson

from glebe.kube.errors import ApiError
from glebe.kube.objects import Object
from glebe.kube.resources import PODS, Resource
from glebe.kube.transport import ConnectionLost, Request, Response, Transport

PatchKind = Literal["merge", "json", "strategic"]
Query = list[tuple[str, str]]

_PATCH_TYPES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
}
_READ_HEADERS = {"accept": "application/json"}
_HEADERS = {
    content_type: {"accept": "application/json", "content-type": content_type}
    for content_type in ("application/json", "application/apply-patch+yaml", *_PATCH_TYPES.values())
}
_WARNING = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')
_MAX_THROTTLED = 5  # attempts of a read that is answered with 429
_MAX_RETRY_AFTER = 30.0  # seconds


@dataclass(slots=True)
class ObjectList:
    """One page (or all) of a collection at ``resource_version``. Items carry ``apiVersion`` and ``kind``."""

    items: list[Object]
    resource_version: str = ""
    continue_: str = ""
    remaining: int | None = None


@dataclass(slots=True)
class WatchEvent:
    """``type`` is ADDED, MODIFIED, DELETED or BOOKMARK (then ``object`` has only kind and resourceVersion)."""

    type: str
    object: Object


@dataclass(slots=True)
class _Shared:
    """What all clients made from one share."""

    on_warning: Callable[[str], None] | None = None
    user_agent: str = field(default="glebe")


class Selectors(TypedDict):
    """The two selectors that lists and watches take."""

    label_selector: str
    field_selector: str


class Client:
    """Verbs over a transport.

    :param cluster: the logical cluster whose API to speak (paths get the prefix ``/clusters/NAME``); ``""`` for a
        server that is one cluster, and for a transport whose base URL already names it.
    :param field_manager: the name under which this client's writes are recorded in ``managedFields``.
    :param on_warning: called with the text of each Warning header.
    """

    __slots__ = ("_manager", "_prefix", "_shared", "cluster", "field_manager", "transport")

    def __init__(
        self,
        transport: Transport,
        *,
        cluster: str = "",
        field_manager: str = "glebe",
        on_warning: Callable[[str], None] | None = None,
    ) -> None:
        self.transport = transport
        self.cluster = cluster
        self.field_manager = field_manager
        self._prefix = f"/clusters/{cluster}" if cluster else ""
        self._manager = ("fieldManager", field_manager)
        self._shared = _Shared(on_warning)

    def for_cluster(self, name: str) -> Client:
        """The same transport and settings, another logical cluster."""
        other = Client(self.transport, cluster=name, field_manager=self.field_manager)
        other._shared = self._shared
        return other

    def with_field_manager(self, name: str) -> Client:
        """The same, writing under another field manager."""
        other = Client(self.transport, cluster=self.cluster, field_manager=name)
        other._shared = self._shared
        return other

    async def close(self) -> None:
        """Close the transport."""
        await self.transport.close()

    # --- reads

    async def get(
        self, resource: Resource, name: str, namespace: str | None = None, *, subresource: str | None = None
    ) -> Object:
        """One object.

        :raises ApiError: e.g. 404.
        :raises ConnectionLost: no answer.
        """
        return await self._read(resource.path(namespace, name, subresource), [])

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
        continue_: str = "",
        resource_version: str = "",
    ) -> ObjectList:
        """One page of a collection; everything when ``limit`` is 0. No namespace: all namespaces."""
        query = _selectors(label_selector, field_selector)
        if limit:
            query.append(("limit", str(limit)))
        if continue_:
            query.append(("continue", continue_))
        if resource_version:
            query.append(("resourceVersion", resource_version))
        body = await self._read(resource.path(namespace), query)
        return _object_list(resource, body)

    async def list_all(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        page_size: int = 500,
    ) -> ObjectList:
        """A whole collection, fetched in pages that all show one revision.

        When the server has forgotten that revision between two pages (410), it is fetched again in one piece.
        """
        selectors = Selectors(label_selector=label_selector, field_selector=field_selector)
        page = await self.list(resource, namespace, limit=page_size, **selectors)
        items, version = page.items, page.resource_version
        while page.continue_:
            try:
                page = await self.list(resource, namespace, limit=page_size, continue_=page.continue_, **selectors)
            except ApiError as error:
                if error.code != 410:
                    raise
                return await self.list(resource, namespace, **selectors)
            items.extend(page.items)
        return ObjectList(items, version)

    # --- writes

    async def create(
        self,
        resource: Resource,
        obj: Object,
        namespace: str | None = None,
        *,
        name: str | None = None,
        subresource: str | None = None,
        dry_run: bool = False,
        field_validation: str = "",
    ) -> Object:
        """Create ``obj``; the namespace defaults to the object's own. ``name`` and ``subresource`` are for virtual
        creations such as ``pods/NAME/binding`` or ``serviceaccounts/NAME/token``.
        """
        space = namespace or obj["metadata"].get("namespace")
        query = self._write_query(dry_run)
        if field_validation:
            query.append(("fieldValidation", field_validation))
        return await self._write("POST", resource.path(space, name, subresource), query, obj)

    async def update(
        self, resource: Resource, obj: Object, *, subresource: str | None = None, dry_run: bool = False
    ) -> Object:
        """Replace ``obj``; its ``metadata.resourceVersion`` is the optimistic lock (409 when it is not the latest)."""
        meta = obj["metadata"]
        path = resource.path(meta.get("namespace"), meta["name"], subresource)
        return await self._write("PUT", path, self._write_query(dry_run), obj)

    async def update_status(self, resource: Resource, obj: Object) -> Object:
        """Replace the status of ``obj``."""
        return await self.update(resource, obj, subresource="status")

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Any,
        namespace: str | None = None,
        *,
        kind: PatchKind = "merge",
        subresource: str | None = None,
        dry_run: bool = False,
    ) -> Object:
        """Patch one object with a merge patch, a JSON patch (a list of operations) or a strategic merge patch."""
        path = resource.path(namespace, name, subresource)
        return await self._write("PATCH", path, self._write_query(dry_run), patch, _PATCH_TYPES[kind])

    async def apply(
        self,
        resource: Resource,
        obj: Object,
        *,
        field_manager: str | None = None,
        force: bool = False,
        subresource: str | None = None,
        dry_run: bool = False,
    ) -> Object:
        """Server-side apply: create the object or make the given fields so; 409 when another manager owns one."""
        meta = obj["metadata"]
        query = self._write_query(dry_run, field_manager)
        query.append(("force", "true" if force else "false"))
        path = resource.path(meta.get("namespace"), meta["name"], subresource)
        return await self._write("PATCH", path, query, obj, "application/apply-patch+yaml")

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        grace_period: int | None = None,
        propagation: str | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
        dry_run: bool = False,
    ) -> Object:
        """Delete one object. ``uid`` and ``resource_version`` are preconditions (409 when they do not hold).

        :param propagation: ``Background``, ``Foreground`` or ``Orphan``.
        """
        options = _delete_options(grace_period, propagation, uid, resource_version)
        query = [("dryRun", "All")] if dry_run else []
        return await self._write("DELETE", resource.path(namespace, name), query, options)

    async def delete_collection(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        grace_period: int | None = None,
        propagation: str | None = None,
    ) -> Object:
        """Delete every selected object."""
        query = _selectors(label_selector, field_selector)
        options = _delete_options(grace_period, propagation, None, None)
        return await self._write("DELETE", resource.path(namespace), query, options)

    # --- streams

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str = "",
        label_selector: str = "",
        field_selector: str = "",
        timeout: float | None = None,
        bookmarks: bool = True,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Changes after ``resource_version``, until the server ends the stream (after ``timeout`` seconds).

        Close it (``contextlib.aclosing``) when you stop early.

        :raises ApiError: the request was refused or an ERROR event came; 410 means: list again.
        :raises ConnectionLost: the connection broke, or a frame could not be read.
        """
        query = [("watch", "true"), *_selectors(label_selector, field_selector)]
        if resource_version:
            query.append(("resourceVersion", resource_version))
        if bookmarks:
            query.append(("allowWatchBookmarks", "true"))
        if timeout is not None:
            query.append(("timeoutSeconds", str(max(1, round(timeout)))))
        response = await self._send("GET", resource.path(namespace), query)
        try:
            lines = _Lines()
            for line in lines.feed(response.body):
                yield _event(line)
            async for chunk in response.stream or _no_chunks():
                for line in lines.feed(chunk):
                    yield _event(line)
            for line in lines.end():
                yield _event(line)
        finally:
            await response.close()

    async def logs(
        self,
        name: str,
        namespace: str,
        *,
        container: str | None = None,
        follow: bool = False,
        tail: int | None = None,
        since: int | None = None,
        previous: bool = False,
        timestamps: bool = False,
        limit_bytes: int | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """The log of a pod's container, in chunks as they come (not lines). ``since`` is in seconds."""
        options = {
            "container": container,
            "follow": "true" if follow else None,
            "tailLines": tail,
            "sinceSeconds": since,
            "previous": "true" if previous else None,
            "timestamps": "true" if timestamps else None,
            "limitBytes": limit_bytes,
        }
        query = [(key, str(value)) for key, value in options.items() if value is not None]
        async for chunk in self.stream("GET", PODS.path(namespace, name, "log"), query=query):
            yield chunk

    async def stream(
        self, method: str, path: str, *, query: Sequence[tuple[str, str]] = ()
    ) -> AsyncGenerator[bytes, None]:
        """The chunks of any response."""
        response = await self._send(method, path, list(query), headers={"accept": "*/*"})
        try:
            if response.body:
                yield response.body
            if response.stream is not None:
                async for chunk in response.stream:
                    yield chunk
        finally:
            await response.close()

    async def stream_lines(
        self, method: str, path: str, *, query: Sequence[tuple[str, str]] = ()
    ) -> AsyncGenerator[bytes, None]:
        """The lines of any response, without their ends."""
        response = await self._send(method, path, list(query), headers={"accept": "*/*"})
        try:
            lines = _Lines()
            for line in lines.feed(response.body):
                yield line
            async for chunk in response.stream or _no_chunks():
                for line in lines.feed(chunk):
                    yield line
            for line in lines.end():
                yield line
        finally:
            await response.close()

    # --- anything else

    async def raw(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Response:
        """One request to a path below this cluster's root, answered whole; ``body`` is bytes or JSON-able.

        :raises ApiError: for every answer that is not 2xx.
        """
        headers = {"accept": accept}
        data = b""
        if body is not None:
            headers["content-type"] = content_type
            data = body if isinstance(body, bytes) else orjson.dumps(body)
        response = await self._send(method, path, list(query), data, headers)
        response.body = await _whole(response)
        response.stream = None
        return response

    # --- the request path

    def _write_query(self, dry_run: bool, manager: str | None = None) -> Query:
        query = [("fieldManager", manager) if manager else self._manager]
        if dry_run:
            query.append(("dryRun", "All"))
        return query

    async def _read(self, path: str, query: Query) -> Object:
        response = await self._send("GET", path, query)
        return _decode(response.body if response.stream is None else await _whole(response))

    async def _write(
        self, method: str, path: str, query: Query, body: Any, content_type: str = "application/json"
    ) -> Object:
        data = orjson.dumps(body) if body is not None else b""
        response = await self._send(method, path, query, data, _HEADERS[content_type])
        return _decode(response.body if response.stream is None else await _whole(response))

    async def _send(
        self, method: str, path: str, query: Query, body: bytes = b"", headers: dict[str, str] = _READ_HEADERS
    ) -> Response:
        """A 2xx response; anything else is an ApiError."""
        attempt = 1
        while True:
            response = await self.transport.send(Request(method, self._prefix + path, query, headers, body))
            if self._shared.on_warning is not None:
                self._warn(response)
            if 200 <= response.status < 300:
                return response
            error = await _error(response)
            if method != "GET" or error.code != 429 or error.retry_after is None or attempt == _MAX_THROTTLED:
                raise error
            await asyncio.sleep(min(max(error.retry_after, 0), _MAX_RETRY_AFTER))
            attempt += 1

    def _warn(self, response: Response) -> None:
        header = response.headers.get("warning")
        if header and self._shared.on_warning is not None:
            for text in _WARNING.findall(header):
                self._shared.on_warning(re.sub(r"\\(.)", r"\1", text))


def _selectors(label_selector: str, field_selector: str) -> Query:
    query: Query = []
    if label_selector:
        query.append(("labelSelector", label_selector))
    if field_selector:
        query.append(("fieldSelector", field_selector))
    return query


def _delete_options(
    grace_period: int | None, propagation: str | None, uid: str | None, resource_version: str | None
) -> Object | None:
    options: Object = {}
    if grace_period is not None:
        options["gracePeriodSeconds"] = grace_period
    if propagation:
        options["propagationPolicy"] = propagation
    preconditions = {"uid": uid, "resourceVersion": resource_version}
    if any(preconditions.values()):
        options["preconditions"] = {key: value for key, value in preconditions.items() if value}
    return {"apiVersion": "v1", "kind": "DeleteOptions", **options} if options else None


def _object_list(resource: Resource, body: Object) -> ObjectList:
    items: list[Object] = body.get("items") or []
    if items and "kind" not in items[0]:
        api_version, kind = resource.api_version, resource.kind
        items = [{"apiVersion": api_version, "kind": kind, **item} for item in items]
    meta = body.get("metadata") or {}
    return ObjectList(items, meta.get("resourceVersion", ""), meta.get("continue", ""), meta.get("remainingItemCount"))


def _decode(body: bytes) -> Object:
    try:
        decoded = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ConnectionLost(f"the server's answer is not JSON: {error}") from error
    if not isinstance(decoded, dict):
        raise ConnectionLost("the server's answer is not a JSON object")
    return decoded


async def _whole(response: Response) -> bytes:
    if response.stream is None:
        return response.body
    try:
        return response.body + b"".join([chunk async for chunk in response.stream])
    finally:
        await response.close()


async def _error(response: Response) -> ApiError:
    """The error in a response that is not 2xx, from its Status or, failing that, from its text."""
    body = await _whole(response)
    error: ApiError
    try:
        status = orjson.loads(body)
    except orjson.JSONDecodeError:
        status = None
    if isinstance(status, dict) and status.get("kind") == "Status":
        error = ApiError.from_status(status, response.status)
    else:
        text = body[:500].decode("utf-8", "replace").strip()
        error = ApiError(response.status, "Unknown", text or f"the server answered {response.status}")
    retry_after = response.headers.get("retry-after", "")
    if retry_after.isdigit() and error.retry_after is None:
        error.details["retryAfterSeconds"] = int(retry_after)
    return error


def _event(line: bytes) -> WatchEvent:
    frame = _decode(line)
    try:
        kind, obj = frame["type"], frame["object"]
    except KeyError as error:
        raise ConnectionLost(f"not a watch event: {line[:200]!r}") from error
    if kind == "ERROR":
        raise ApiError.from_status(obj, 500)
    return WatchEvent(kind, obj)


class _Lines:
    """Cuts chunks into lines."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that ``chunk`` completes, without their ends and without empty ones."""
        if self._rest:
            chunk = self._rest + chunk
        lines = chunk.split(b"\n")
        self._rest = lines.pop()
        return [line for line in lines if line] if b"" in lines else lines

    def end(self) -> list[bytes]:
        """What stands after the last line end."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []


async def _no_chunks() -> AsyncGenerator[bytes, None]:
    return
    yield b""
