"""What goes over the wire and how it is read: lists, watch frames, errors, delete options."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TypeAlias, TypedDict

import orjson

from glebe.kube.errors import ApiError
from glebe.kube.objects import CLUSTER, Object
from glebe.kube.resources import Resource
from glebe.kube.transport import ConnectionLost, Response

Query: TypeAlias = list[tuple[str, str]]

_WARNING = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')


@dataclass(slots=True)
class ObjectList:
    """One page (or all) of a collection at ``resource_version``. Items carry ``apiVersion`` and ``kind``."""

    items: list[Object]
    resource_version: str = ""
    continue_: str = ""
    remaining: int | None = None


@dataclass(slots=True)
class WatchEvent:
    """``type`` is ADDED, MODIFIED, DELETED or BOOKMARK (then ``object`` has only kind and resourceVersion).

    Over all logical clusters also DROPPED: everything in ``cluster_of(object)`` is gone (``object`` as in a BOOKMARK).
    """

    type: str
    object: Object


class Selectors(TypedDict):
    """The two selectors that lists and watches take."""

    label_selector: str
    field_selector: str


def selector_query(label_selector: str, field_selector: str) -> Query:
    query: Query = []
    if label_selector:
        query.append(("labelSelector", label_selector))
    if field_selector:
        query.append(("fieldSelector", field_selector))
    return query


def delete_options(
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


def read_list(resource: Resource, body: Object) -> ObjectList:
    items: list[Object] = body.get("items") or []
    for item, cluster in zip(items, body.get("clusters") or (), strict=False):
        item["metadata"][CLUSTER] = sys.intern(cluster)
    if items and "kind" not in items[0]:
        api_version, kind = resource.api_version, resource.kind
        items = [{"apiVersion": api_version, "kind": kind, **item} for item in items]
    meta = body.get("metadata") or {}
    return ObjectList(items, meta.get("resourceVersion", ""), meta.get("continue", ""), meta.get("remainingItemCount"))


def decode(body: bytes) -> Object:
    try:
        decoded = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ConnectionLost(f"the server's answer is not JSON: {error}") from error
    if not isinstance(decoded, dict):
        raise ConnectionLost("the server's answer is not a JSON object")
    return decoded


async def read_whole(response: Response) -> bytes:
    if response.stream is None:
        return response.body
    try:
        return response.body + b"".join([chunk async for chunk in response.stream])
    finally:
        await response.close()


async def read_error(response: Response) -> ApiError:
    """The error in a response that is not 2xx, from its Status or, failing that, from its text."""
    body = await read_whole(response)
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


def read_event(line: bytes) -> WatchEvent:
    frame = decode(line)
    try:
        kind, obj = frame["type"], frame["object"]
    except KeyError as error:
        raise ConnectionLost(f"not a watch event: {line[:200]!r}") from error
    if kind == "ERROR":
        raise ApiError.from_status(obj, 500)
    if "cluster" in frame:
        obj["metadata"][CLUSTER] = sys.intern(frame["cluster"])
    return WatchEvent(kind, obj)


class Lines:
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


async def no_chunks() -> AsyncGenerator[bytes, None]:
    return
    yield b""


def warnings_of(response: Response) -> list[str]:
    """The texts of the Warning headers (code 299)."""
    header = response.headers.get("warning")
    return [re.sub(r"\\(.)", r"\1", text) for text in _WARNING.findall(header)] if header else []
