"""What can be done to a pod besides writing it: bind it to a node, read its logs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Protocol

from glebe.apiserver.pods import logoptions, streams
from glebe.apiserver.request import media, options
from glebe.apiserver.request.call import Call, respond
from glebe.apiserver.verbs import admitting
from glebe.apiserver.verbs.modify import modify
from glebe.kube import errors
from glebe.kube.objects import CLUSTER, Object
from glebe.kube.transport import Response

#: How long the answer to a log request waits for the first line before it starts, in seconds.
_FIRST_CHUNK = 1.0
_SUCCESS = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


class PodLogs(Protocol):
    """Where the lines that containers print come from."""

    def logs(
        self,
        pod: Object,
        container: str,
        *,
        follow: bool,
        tail_lines: int | None,
        since_seconds: int | None,
        previous: bool,
        timestamps: bool,
        limit_bytes: int | None,
        since_time: float | None = None,
        stream: str = "",
    ) -> AsyncIterator[bytes]:
        """``since_time`` in Unix seconds; ``stream``: ``stdout`` or ``stderr`` alone.

        :raises ApiError: with the first chunk, when there is nothing to read.
        """
        ...


async def bind(call: Call) -> Response:
    """``pods/NAME/binding``: give the pod to a node."""
    body = media.decode(call.request.body, call.request.headers.get("content-type", ""))
    return await _bind(call, body)


async def bind_by_collection(call: Call) -> Response:
    """``POST .../bindings``, the old form: the pod's name is in the body."""
    body = media.decode(call.request.body, call.request.headers.get("content-type", ""))
    name = str((body.get("metadata") or {}).get("name") or "")
    info = call.server.registry.lookup(call.cluster, "", "v1", "pods")
    if call.route.verb != "create" or not name or info is None:
        raise errors.method_not_allowed() if name else errors.bad_request("metadata.name: the pod's name is required")
    route = replace(call.route, resource="pods", name=name, subresource="binding")
    return await _bind(replace(call, info=info, route=route), body)


async def _bind(call: Call, body: Object) -> Response:
    call.dry_run = options.dry_run(call.request)
    target, meta = body.get("target") or {}, body.get("metadata") or {}
    name, node = call.route.name, str(target.get("name") or "")
    if target.get("kind") not in (None, "", "Node"):
        cause = errors.Cause(
            "FieldValueNotSupported",
            f'Unsupported value: "{target.get("kind")}": supported values: "Node", "<empty>"',
            "target.kind",
        )
        raise errors.invalid("", "Binding", name, [cause])
    if not node:
        raise errors.invalid("", "Binding", name, [errors.Cause("FieldValueRequired", "Required value", "target.name")])
    body.setdefault("metadata", meta)
    await admitting.mutate(call, "CREATE", body, None)
    await admitting.judge(call)
    meta = body["metadata"]
    now = call.server.now_text()

    def edit(pod: Object) -> None:
        before = pod["metadata"]
        if meta.get("uid") and meta["uid"] != before["uid"]:
            why = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {before['uid']}"
            raise errors.conflict("", "pods/binding", name, why)
        if "deletionTimestamp" in before:
            why = f"pod {name} is being deleted, cannot be assigned to a host"
            raise errors.conflict("", "pods/binding", name, why)
        spec = pod["spec"]
        if spec.get("nodeName"):
            why = f'pod {name} is already assigned to node "{spec["nodeName"]}"'
            raise errors.conflict("", "pods/binding", name, why)
        if spec.get("schedulingGates"):
            raise errors.conflict("", "pods/binding", name, f"pod {name} has non-empty .spec.schedulingGates")
        spec["nodeName"] = node
        for part in ("annotations", "labels"):
            if meta.get(part):
                before[part] = {**(before.get(part) or {}), **meta[part]}
        _scheduled(pod, now)

    await modify(call, edit)
    return respond(_SUCCESS, call.wanted if not call.wanted.shape else media.Wanted(), 201)


def _scheduled(pod: Object, now: str) -> None:
    conditions: list[dict[str, Any]] = pod.setdefault("status", {}).setdefault("conditions", [])
    for condition in conditions:
        if condition.get("type") == "PodScheduled":
            if condition.get("status") != "True":
                condition["lastTransitionTime"] = now
            condition["status"] = "True"
            condition.pop("reason", None)
            condition.pop("message", None)
            return
    conditions.append({"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now})


async def log(call: Call) -> Response:
    """``pods/NAME/log``: the lines of one container as plain text, or in the messages of a WebSocket."""
    answer = await _log(call)
    if "upgrade" not in call.request.headers or answer.upgrade is not None:
        return answer
    from glebe.apiserver.pods.messages import in_messages  # late: hardly anybody asks for logs so

    return in_messages(call.request, answer)


async def _log(call: Call) -> Response:
    source = call.server.pod_logs
    asked = logoptions.read(call)
    entry = call.server.store.get(call.key())
    if entry is None:
        raise call.not_found()
    pod = entry.view()
    container = streams.container_of(call, pod)
    headers = {"content-type": "text/plain"}
    serves = getattr(source, "serves", None)
    placed = {**pod, "metadata": {**pod["metadata"], CLUSTER: call.cluster}}  # its address, for whoever runs it
    elsewhere = source is None or (serves is not None and not serves(placed))
    if elsewhere and pod["spec"].get("nodeName") and streams.has_kubelet(call, pod):
        return await streams.logs(call, pod, container)
    if source is None or not pod["spec"].get("nodeName"):
        return Response(200, headers)
    stream = source.logs(placed, container, **asked)
    # The first chunk decides the status: a source that cannot find its lines says so before anything is sent. A pod
    # that is silent is followed all the same.
    first = asyncio.ensure_future(_next(stream))
    try:
        await asyncio.wait({first}, timeout=_FIRST_CHUNK)
    except asyncio.CancelledError:
        first.cancel()  # nobody else would
        raise
    if first.done() and first.result() is None:
        return Response(200, headers)
    return Response(200, headers, stream=_Started(first, stream))


async def _next(stream: AsyncIterator[bytes]) -> bytes | None:
    return await anext(stream, None)


class _Started:
    """A stream whose first chunk is already being waited for; closing it closes the source."""

    def __init__(self, first: asyncio.Future[bytes | None], stream: AsyncIterator[bytes]) -> None:
        self._first: asyncio.Future[bytes | None] | None = first
        self._stream = stream

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._first is None:
            return await anext(self._stream)
        chunk, self._first = await self._first, None
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        if self._first is not None and not self._first.done():
            self._first.cancel()
            await asyncio.wait({self._first})
        closer = getattr(self._stream, "aclose", None)
        if closer is not None:
            await closer()
