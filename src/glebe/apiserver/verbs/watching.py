"""watch: from a subscription of the store to a stream of frames."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import orjson

from glebe.apiserver.request import media, selection
from glebe.apiserver.request.call import Call, partial, served, stored_version, table_of
from glebe.apiserver.sharing.pieces import pieces
from glebe.apiserver.store import EVERY_CLUSTER, Compacted, Entry, Event, Key, Subscription
from glebe.apiserver.verbs.pushing import push
from glebe.apiserver.verbs.reading import invalid_options, revision_of
from glebe.kube.errors import ApiError, Cause, gone
from glebe.kube.objects import Object
from glebe.kube.transport import Response, StreamSink

#: How often a watcher that asked for bookmarks gets one.
BOOKMARK_SECONDS = 60.0
#: Watches without a timeout of their own end after this long at least, and twice that at most.
MIN_TIMEOUT = 1800.0

#: The annotation of the bookmark after the initial events.
INITIAL_EVENTS_END = "k8s.io/initial-events-end"
_TYPES = {"ADDED": b'{"type":"ADDED","object":', "MODIFIED": b'{"type":"MODIFIED","object":'}
_TYPES["DELETED"] = b'{"type":"DELETED","object":'
_CHUNK = 256
"""At most so many frames go into one chunk."""


async def watch(call: Call) -> Response:
    chosen = selection.parse(call.request, call.info)
    if call.route.name and not chosen.name:
        chosen = _Named(call.route.name, chosen)
    plan = Plan(call)
    protobuf = call.wanted.media == media.PROTOBUF
    content_type = f"{media.PROTOBUF};stream=watch" if protobuf else media.JSON
    if call.wanted.shape and not protobuf:
        content_type += f";as={call.wanted.shape};v={call.wanted.version};g=meta.k8s.io"
    headers = {"content-type": content_type, "cache-control": "no-cache, private"}
    try:
        subscription = _subscribe(call, plan, chosen.name)
    except Compacted as error:
        status = gone(str(error)).status()
        return Response(200, headers, stream=_one(_frame_of(call, "ERROR", status)))
    stream = _Stream(call, plan, chosen, subscription)
    return Response(200, headers, stream=stream)


class _Named:
    """A watch on one object by its path."""

    all = True

    def __init__(self, name: str, inner: selection.Selection) -> None:
        self.name = name
        self._inner = inner
        self.all = inner.all

    def matches(self, entry: Entry) -> bool:
        return self._inner.matches(entry)


class Plan:
    """What the watch's parameters mean.

    :raises ApiError: 422 for combinations that upstream refuses.
    """

    def __init__(self, call: Call) -> None:
        request = call.request
        self.bookmarks = request.param("allowWatchBookmarks") in ("true", "1")
        send, match = request.param("sendInitialEvents"), request.param("resourceVersionMatch")
        text = request.param("resourceVersion")
        self.revision = revision_of(text)
        if send:
            if match != "NotOlderThan":
                message = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
                raise invalid_options([Cause("FieldValueForbidden", f"Forbidden: {message}", "resourceVersionMatch")])
            self.initial = send in ("true", "1")
        else:
            if match:
                message = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
                raise invalid_options([Cause("FieldValueForbidden", f"Forbidden: {message}", "resourceVersionMatch")])
            self.initial = self.revision == 0
        self.mark_end = bool(send) and self.initial and self.bookmarks
        seconds = request.param("timeoutSeconds")
        if seconds.isascii() and seconds.isdigit() and int(seconds) > 0:
            self.timeout = float(seconds)
        else:
            self.timeout = MIN_TIMEOUT * (1.0 + call.server.env.rng.random())


def _subscribe(call: Call, plan: Plan, name: str) -> Subscription:
    store = call.server.store
    namespace = call.route.namespace if call.info.namespaced else ""
    start = store.revision if plan.initial or plan.revision == 0 else plan.revision
    return store.watch(call.info.stored_as, call.cluster, namespace, name, revision=start)


def _present(call: Call, namespace: str, name: str) -> list[Entry]:
    """What is there now; of one name where only that is asked for and known where to be."""
    store, resource = call.server.store, call.info.stored_as
    if name and (namespace or not call.info.namespaced) and call.cluster != EVERY_CLUSTER:
        entry = store.get(Key(resource, call.cluster, namespace, name))
        return [] if entry is None else [entry]
    found = store.range(resource, call.cluster, namespace).entries
    return [each for each in found if each.view()["metadata"]["name"] == name] if name else found


async def _one(chunk: bytes) -> AsyncIterator[bytes]:
    yield chunk


def _frame_of(call: Call, kind: str, obj: Object) -> bytes:
    """One event of a decoded object, in the form that the watcher wants."""
    if call.wanted.media == media.PROTOBUF:
        from glebe.apiserver.protobuf import encode as protobuf  # late: many servers are never asked for it

        return protobuf.watch_frame(kind, protobuf.encode(obj))
    return frame(kind, orjson.dumps(obj))


def frame(kind: str, value: bytes) -> bytes:
    """One line of a watch stream."""
    return b"".join((_TYPES.get(kind) or b'{"type":"%s","object":' % kind.encode(), value, b"}\n"))


class _Stream:
    """One watcher's stream. An iterator of its own: a generator that never started would not clean up."""

    def __init__(self, call: Call, plan: Plan, chosen: selection.Selection, subscription: Subscription) -> None:
        self._call = call
        self._plan = plan
        self._chosen = chosen
        self._subscription = subscription
        self._columns_sent = False
        wanted = call.wanted
        self._plain = not wanted.shape and wanted.media != media.PROTOBUF and stored_version(call.info)
        #: names the form under which an event's frames are shared; "" when each watcher has its own
        self._form = "" if wanted.shape == "Table" else f"{call.info.api_version} {wanted.media} {wanted.shape}"
        self._initial: list[Entry] = []
        store_revision = call.server.store.revision
        if plan.initial:
            namespace = call.route.namespace if call.info.namespaced else ""
            # Taken here, together with the subscription: nothing may happen between the two.
            self._initial = _present(call, namespace, chosen.name)
        self._start = store_revision
        metrics = call.server.metrics
        info = call.info
        self._sent = metrics.events.cell(info.group, info.version, info.plural) if metrics is not None else [0]
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
        if not self._call.info.converts:
            push(self._subscription, sink, self._frame, _CHUNK, self._call.cluster, self._sent)

    async def _run(self) -> AsyncGenerator[bytes, None]:
        subscription, plan = self._subscription, self._plan
        loop = asyncio.get_running_loop()
        end = loop.time() + plan.timeout
        next_mark = loop.time() + BOOKMARK_SECONDS if plan.bookmarks else end
        try:
            converts = self._call.info.converts
            if converts:
                from glebe.apiserver.custom.versions import present, present_event  # late: most kinds need it never

                self._initial = await present(self._call, self._initial)
            async for chunk in self._initial_chunks():
                yield chunk
            queue = subscription.queue
            while True:
                if queue:
                    frames: list[bytes] = []
                    while queue and len(frames) < _CHUNK:
                        event = queue.popleft()
                        if converts:
                            event = await present_event(self._call, event)
                        line = self._frame(event)
                        if line:
                            frames.append(line)
                    if frames:
                        self._sent[0] += len(frames)
                        yield b"".join(frames)
                    continue
                now = loop.time()
                if subscription.ended or now >= end:
                    return
                if plan.bookmarks and now >= next_mark:
                    next_mark = now + BOOKMARK_SECONDS
                    yield self._bookmark(self._call.server.store.revision, False)
                    continue
                await subscription.wait(min(end, next_mark))
        except ApiError as error:
            yield _frame_of(self._call, "ERROR", error.status())
        finally:
            subscription.close()

    async def _initial_chunks(self) -> AsyncGenerator[bytes, None]:
        """What is there at the beginning, in pieces."""
        chosen, initial = self._chosen, self._initial
        self._initial = []
        share, start = pieces(), 0
        while start < len(initial):
            end = start + share.objects
            if end < len(initial) or start:
                await share.turn(self._call.cluster)
            frames = [self._encode("ADDED", each) for each in initial[start:end] if chosen.all or chosen.matches(each)]
            start = end
            if frames:
                self._sent[0] += len(frames)
                yield b"".join(frames)
        if self._plan.mark_end:
            yield self._bookmark(self._start, True)

    def _frame(self, event: Event) -> bytes:
        """The event as this watcher sees it; b"" when it does not."""
        if self._chosen.all:
            return self._shared(event.type, event)
        before = event.previous is not None and self._chosen.matches(event.previous)
        if event.deleted:
            return self._shared("DELETED", event) if before else b""
        after = self._chosen.matches(event.entry)
        if after:
            return self._shared("MODIFIED" if before else "ADDED", event)
        if before and event.previous is not None:
            # It left the selection: the watcher sees the state that it knew vanish, at this event's revision.
            gone_object = event.previous.load()
            gone_object["metadata"]["resourceVersion"] = str(event.revision)
            return self._encode("DELETED", Entry(event.revision, orjson.dumps(gone_object)))
        return b""

    def _shared(self, kind: str, event: Event) -> bytes:
        """An event's frame, encoded once for all who want this form of it."""
        if self._plain:
            form = kind
        elif self._form:
            form = f"{kind} {self._form}"
        else:
            return self._encode(kind, event.entry)
        line = event.frames.get(form)
        if line is None:
            line = event.frames[form] = self._encode(kind, event.entry)
        return line

    def _encode(self, kind: str, entry: Entry) -> bytes:
        if self._plain:
            return frame(kind, entry.value)
        obj = served(self._call.info, entry.load())
        return _frame_of(self._call, kind, self._shape(obj))

    def _shape(self, obj: Object) -> Object:
        wanted = self._call.wanted
        if wanted.shape == "Table":
            table = table_of(self._call, [obj], {"resourceVersion": obj["metadata"].get("resourceVersion", "")})
            if self._columns_sent:
                table.pop("columnDefinitions", None)
            self._columns_sent = True
            return table
        return partial(obj, wanted.version) if wanted.shape else obj

    def _bookmark(self, revision: int, initial_end: bool) -> bytes:
        meta: dict[str, Any] = {"resourceVersion": str(revision), "creationTimestamp": None}
        if initial_end:
            meta["annotations"] = {INITIAL_EVENTS_END: "true"}
        obj: Object = {"kind": self._call.info.kind, "apiVersion": self._call.info.api_version, "metadata": meta}
        if self._call.wanted.shape == "Table":
            row = {"cells": [], "object": partial(obj)}
            obj = {"kind": "Table", "apiVersion": f"meta.k8s.io/{self._call.wanted.version}", "rows": [row]}
            obj["metadata"] = {"resourceVersion": str(revision)}
        elif self._call.wanted.shape:
            obj = partial(obj, self._call.wanted.version)
        return _frame_of(self._call, "BOOKMARK", obj)
