"""``/clusters/*/...``: lists and watches over all logical clusters at once, for the platform's own controllers.

A list carries ``clusters``, parallel to its ``items``; a watch event carries ``cluster``. The end of a whole cluster is
one event of type ``DROPPED`` with the cluster and no object of its own. What clusters have without anybody having
written it (:mod:`.defaults`) is left out, so that the cost of a wildcard grows with objects, not with clusters. Custom
resources come in the version in which each cluster stores them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import orjson

from glebe.apiserver.request import media, selection
from glebe.apiserver.request.call import Call, served, stored_version
from glebe.apiserver.request.listbody import ListBody
from glebe.apiserver.request.routing import Route
from glebe.apiserver.store import Compacted, Entry, Event, Subscription
from glebe.apiserver.verbs import reading, watching
from glebe.apiserver.verbs.pushing import push
from glebe.kube import errors
from glebe.kube.objects import Object
from glebe.kube.transport import Response, StreamSink, User

MASTERS = "system:masters"
_PAGE = 1000
"""Objects between two moments at which others may run, when each must be looked at."""
_CHUNK = 256
_HEADERS = {"content-type": media.JSON, "cache-control": "no-cache, private"}


def check_user(user: User) -> None:
    """Whoever the server does not trust must himself (not as somebody else) be a member of system:masters.

    No role can give this right: roles belong to a cluster, and this is about all of them.

    :raises ApiError: 403.
    """
    if MASTERS not in user.groups:
        why = "forbidden: only members of system:masters may read over all logical clusters"
        raise errors.ApiError(403, "Forbidden", why)


def check_route(route: Route) -> None:
    """:raises ApiError: 405 for everything but lists and watches of whole collections."""
    if route.verb not in ("list", "watch") or route.subresource:
        raise errors.method_not_allowed()


def _value(call: Call, entry: Entry) -> bytes:
    if stored_version(call.info) or call.info.is_custom:
        return entry.value
    return orjson.dumps(served(call.info, entry.load()))


# -- list ------------------------------------------------------------------------------------------------------------


async def list_objects(call: Call) -> Response:
    """One page of a collection in all clusters, in the order of cluster, namespace and name."""
    _need_json(call)
    chosen = selection.parse(call.request, call.info)
    limit = reading.number(call, "limit")
    entries, clusters, revision, after, remaining = await _find(call, chosen, limit)
    meta: Object = {"resourceVersion": str(revision)}
    if after is not None:
        meta["continue"] = reading.token(call, revision, after)
        if remaining is not None:
            meta["remainingItemCount"] = remaining
    info = call.info
    head = orjson.dumps(
        {"kind": info.list_kind, "apiVersion": info.api_version, "metadata": meta, "clusters": clusters}
    )
    values = [_value(call, entry) for entry in entries]
    return Response(200, {"content-type": media.JSON}, ListBody(head, values).whole())


async def _find(
    call: Call, chosen: selection.Selection, limit: int
) -> tuple[list[Entry], list[str], int, tuple[str, ...] | None, int | None]:
    """(entries, their clusters, revision, where the next page starts, how many more there are if that is known)."""
    namespace = call.route.namespace if call.info.namespaced else ""
    revision, after = reading.start(call)
    if chosen.all and not chosen.name:
        page = reading.page_of(call, namespace, after, limit, revision)
        return page.entries, page.clusters or [], page.revision, page.next_key, page.remaining
    entries: list[Entry] = []
    clusters: list[str] = []
    while True:
        page = reading.page_of(call, namespace, after, _PAGE, revision)
        for entry, cluster in zip(page.entries, page.clusters or (), strict=True):
            meta = entry.view()["metadata"] if chosen.name or limit else {}
            if (chosen.name and meta["name"] != chosen.name) or not chosen.matches(entry):
                continue
            entries.append(entry)
            clusters.append(cluster)
            if limit and len(entries) == limit:
                more = page.next_key is not None or entry is not page.entries[-1]
                last = (cluster, meta.get("namespace", ""), meta["name"])
                return entries, clusters, page.revision, last if more else None, None
        if page.next_key is None:
            return entries, clusters, page.revision, None, None
        after, revision = page.next_key, page.revision
        await asyncio.sleep(0)


def _need_json(call: Call) -> None:
    if call.wanted.shape or call.wanted.media != media.JSON:
        message = f"only {media.JSON} is served over all clusters, without tables or partial objects"
        raise errors.ApiError(406, "NotAcceptable", message)


# -- watch -----------------------------------------------------------------------------------------------------------


async def watch(call: Call) -> Response:
    """Changes of a collection in all clusters."""
    _need_json(call)
    chosen = selection.parse(call.request, call.info)
    plan = watching.Plan(call)
    store = call.server.store
    namespace = call.route.namespace if call.info.namespaced else ""
    begin = store.revision if plan.initial or plan.revision == 0 else plan.revision
    try:
        subscription = store.watch(call.info.stored_as, call.cluster, namespace, chosen.name, revision=begin)
    except Compacted as error:
        return Response(
            200, dict(_HEADERS), stream=_one(_frame("ERROR", "", orjson.dumps(errors.gone(str(error)).status())))
        )
    return Response(200, dict(_HEADERS), stream=_Stream(call, plan, chosen, subscription, namespace))


async def _one(chunk: bytes) -> AsyncIterator[bytes]:
    yield chunk


def _frame(kind: str, cluster: str, value: bytes) -> bytes:
    if not cluster:
        return b'{"type":"%s","object":%s}\n' % (kind.encode(), value)
    return b'{"type":"%s","cluster":"%s","object":%s}\n' % (kind.encode(), cluster.encode(), value)


class _Stream:
    """One watcher's stream. An iterator of its own: a generator that never started would not clean up."""

    def __init__(
        self,
        call: Call,
        plan: watching.Plan,
        chosen: selection.Selection,
        subscription: Subscription,
        namespace: str,
    ) -> None:
        self._call = call
        self._plan = plan
        self._chosen = chosen
        self._subscription = subscription
        info = call.info
        self._form = "*" if stored_version(info) or info.is_custom else f"* {info.api_version}"
        self._start = call.server.store.revision
        self._initial: list[tuple[Entry, str]] = []
        if plan.initial:
            # Taken here, together with the subscription: nothing may happen between the two.
            page = call.server.store.range(info.stored_as, call.cluster, namespace)
            self._initial = list(zip(page.entries, page.clusters or (), strict=True))
        self._frames = self._run()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        return await self._frames.__anext__()

    async def aclose(self) -> None:
        self._subscription.close()
        await self._frames.aclose()

    def push_to(self, sink: StreamSink) -> None:
        """See :class:`StreamSink`."""
        push(self._subscription, sink, self._line, _CHUNK, self._call.cluster, [0])

    async def _run(self) -> AsyncGenerator[bytes, None]:
        subscription, plan = self._subscription, self._plan
        queue, loop = subscription.queue, asyncio.get_running_loop()
        end = loop.time() + plan.timeout
        next_mark = loop.time() + watching.BOOKMARK_SECONDS if plan.bookmarks else end
        try:
            for chunk in self._initial_chunks():
                yield chunk
            while True:
                if queue:
                    lines = [self._line(queue.popleft()) for _ in range(min(len(queue), _CHUNK))]
                    if chunk := b"".join(lines):
                        yield chunk
                    continue
                now = loop.time()
                if subscription.ended or now >= end:
                    return
                if plan.bookmarks and now >= next_mark:
                    next_mark = now + watching.BOOKMARK_SECONDS
                    yield self._bookmark(self._call.server.store.revision, False)
                    continue
                await subscription.wait(min(end, next_mark))
        finally:
            subscription.close()

    def _initial_chunks(self) -> list[bytes]:
        chosen = self._chosen
        lines = []
        for entry, cluster in self._initial:
            if chosen.name and entry.view()["metadata"]["name"] != chosen.name:
                continue
            if chosen.all or chosen.matches(entry):
                lines.append(_frame("ADDED", cluster, _value(self._call, entry)))
        self._initial = []
        if self._plan.mark_end:
            lines.append(self._bookmark(self._start, True))
        return [b"".join(lines[i : i + _CHUNK]) for i in range(0, len(lines), _CHUNK)]

    def _line(self, event: Event) -> bytes:
        """The event as this watcher sees it; b"" when it does not."""
        if not event.name:
            return _frame("DROPPED", event.cluster, orjson.dumps(self._mark(event.revision)))
        if self._chosen.all:
            return self._shared(event.type, event)
        before = event.previous is not None and self._chosen.matches(event.previous)
        after = not event.deleted and self._chosen.matches(event.entry)
        if after:
            return self._shared("MODIFIED" if before else "ADDED", event)
        if before and event.deleted:
            return self._shared("DELETED", event)
        if before and event.previous is not None:
            left = event.previous.load()
            left["metadata"]["resourceVersion"] = str(event.revision)
            return _frame("DELETED", event.cluster, _value(self._call, Entry(event.revision, orjson.dumps(left))))
        return b""

    def _shared(self, kind: str, event: Event) -> bytes:
        """An event's frame. Only what must be converted is kept for others who watch all clusters: there are few of
        them, and the history would hold every object twice.
        """
        if self._form == "*":
            return _frame(kind, event.cluster, event.entry.value)
        form = self._form + kind
        line = event.frames.get(form)
        if line is None:
            line = event.frames[form] = _frame(kind, event.cluster, _value(self._call, event.entry))
        return line

    def _mark(self, revision: int) -> Object:
        meta: dict[str, Any] = {"resourceVersion": str(revision), "creationTimestamp": None}
        return {"kind": self._call.info.kind, "apiVersion": self._call.info.api_version, "metadata": meta}

    def _bookmark(self, revision: int, initial_end: bool) -> bytes:
        obj = self._mark(revision)
        if initial_end:
            obj["metadata"]["annotations"] = {watching.INITIAL_EVENTS_END: "true"}
        return _frame("BOOKMARK", "", orjson.dumps(obj))


VERBS = {"list": list_objects, "watch": watch}
