"""A client for one Kubernetes API: verbs in, dictionaries out, every refusal an :class:`ApiError`.

It speaks through a :class:`~glebe.kube.transport.Transport`, so it is the same over HTTP and inside one process. It
retries nothing by itself, except reads that the server answered with 429 and a Retry-After; whoever calls knows
better what a repetition means.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Literal

import orjson

from glebe.kube.caller import APPLY_TYPE, PATCH_TYPES, Caller, address
from glebe.kube.errors import ApiError
from glebe.kube.objects import CLUSTER, EVERY, Object
from glebe.kube.resources import PODS, Resource
from glebe.kube.transport import Response
from glebe.kube.wire import (
    Lines,
    ObjectList,
    Selectors,
    WatchEvent,
    delete_options,
    no_chunks,
    read_event,
    read_list,
    read_whole,
    selector_query,
)

__all__ = ["Client", "ObjectList", "PatchKind", "WatchEvent"]

PatchKind = Literal["merge", "json", "strategic"]


class Client(Caller):
    """Verbs over a transport.

    :param cluster: the logical cluster whose API to speak (paths get the prefix ``/clusters/NAME``); ``""`` for a
        server that is one cluster, and for a transport whose base URL already names it; :data:`EVERY` to list and
        watch over all clusters of a Glebe server. What is read so knows its cluster (``key_of``), and ``create``,
        ``update`` and ``apply`` write it there and answer with what knows it, too; for other verbs see :meth:`at`.
    :param field_manager: the name under which this client's writes are recorded in ``managedFields``.
    :param on_warning: called with the text of each Warning header.
    """

    __slots__ = ()

    def for_cluster(self, name: str) -> Client:
        """The same transport and settings, another logical cluster."""
        return Client(self.transport, cluster=name, field_manager=self.field_manager, on_warning=self.on_warning)

    def at(self, cluster: str) -> Client:
        """The client for what lives in ``cluster``: this one, unless it speaks to all clusters."""
        return self.for_cluster(cluster) if self.cluster == EVERY else self

    def _placed(self, obj: Object) -> tuple[Client, Object]:
        """Whom to write ``obj`` through, and what to send."""
        meta = obj.get("metadata") or {}
        if CLUSTER not in meta:
            return self, obj
        sent = {**obj, "metadata": {field: value for field, value in meta.items() if field != CLUSTER}}
        return self.at(meta[CLUSTER]), sent

    def with_field_manager(self, name: str) -> Client:
        """The same, writing under another field manager."""
        return Client(self.transport, cluster=self.cluster, field_manager=name, on_warning=self.on_warning)

    async def close(self) -> None:
        """Close the transport (also for all clients made from this one)."""
        await self.transport.close()

    # --- reads

    async def get(
        self, resource: Resource, name: str, namespace: str | None = None, *, subresource: str | None = None
    ) -> Object:
        """One object.

        :raises ApiError: e.g. 404.
        :raises ConnectionLost: no answer.
        """
        return await self._read(address(resource, namespace, name, subresource), [])

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
        query = selector_query(label_selector, field_selector)
        if limit:
            query.append(("limit", str(limit)))
        if continue_:
            query.append(("continue", continue_))
        if resource_version:
            query.append(("resourceVersion", resource_version))
        body = await self._read(resource.path(namespace), query)
        return read_list(resource, body)

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
        path = address(resource, space, name, subresource) if name is not None else resource.path(space)
        query = self._write_query(dry_run)
        if field_validation:
            query.append(("fieldValidation", field_validation))
        client, sent = self._placed(obj)
        return _there(await client._write("POST", path, query, sent), obj)

    async def update(
        self, resource: Resource, obj: Object, *, subresource: str | None = None, dry_run: bool = False
    ) -> Object:
        """Replace ``obj``; its ``metadata.resourceVersion`` is the optimistic lock (409 when it is not the latest)."""
        meta = obj["metadata"]
        path = address(resource, meta.get("namespace"), meta["name"], subresource)
        client, sent = self._placed(obj)
        return _there(await client._write("PUT", path, self._write_query(dry_run), sent), obj)

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
        path = address(resource, namespace, name, subresource)
        return await self._write("PATCH", path, self._write_query(dry_run), patch, PATCH_TYPES[kind])

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
        path = address(resource, meta.get("namespace"), meta["name"], subresource)
        client, sent = self._placed(obj)
        return _there(await client._write("PATCH", path, query, sent, APPLY_TYPE), obj)

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
        options = delete_options(grace_period, propagation, uid, resource_version)
        query = [("dryRun", "All")] if dry_run else []
        return await self._write("DELETE", address(resource, namespace, name), query, options)

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
        query = selector_query(label_selector, field_selector)
        options = delete_options(grace_period, propagation, None, None)
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
        query = [("watch", "true"), *selector_query(label_selector, field_selector)]
        if resource_version:
            query.append(("resourceVersion", resource_version))
        if bookmarks:
            query.append(("allowWatchBookmarks", "true"))
        if timeout is not None:
            query.append(("timeoutSeconds", str(max(1, round(timeout)))))
        response = await self._send("GET", resource.path(namespace), query)
        try:
            lines = Lines()
            for line in lines.feed(response.body):
                yield read_event(line)
            async for chunk in response.stream or no_chunks():
                for line in lines.feed(chunk):
                    yield read_event(line)
            for line in lines.end():
                yield read_event(line)
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
        async for chunk in self.stream("GET", address(PODS, namespace, name, "log"), query=query):
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
        """The lines of any response, without their ends and without empty ones."""
        lines = Lines()
        async with aclosing(self.stream(method, path, query=query)) as chunks:
            async for chunk in chunks:
                for line in lines.feed(chunk):
                    yield line
        for line in lines.end():
            yield line

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
        response.body = await read_whole(response)
        response.stream = None
        return response


def _there(written: Object, given: Object) -> Object:
    """What was written, in the cluster of what was given."""
    cluster = (given.get("metadata") or {}).get(CLUSTER)
    if cluster is not None and isinstance(written.get("metadata"), dict):
        written["metadata"][CLUSTER] = cluster
    return written
