"""The request path of a client: address, send, decode, and refusals as errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson

from glebe.kube.errors import bad_request
from glebe.kube.objects import Object
from glebe.kube.resources import Resource
from glebe.kube.transport import Request, Response, Transport
from glebe.kube.wire import Query, decode, read_error, read_whole, warnings_of

PATCH_TYPES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
}
APPLY_TYPE = "application/apply-patch+yaml"
_READ_HEADERS = {"accept": "application/json"}
_HEADERS = {
    content_type: {"accept": "application/json", "content-type": content_type}
    for content_type in ("application/json", APPLY_TYPE, *PATCH_TYPES.values())
}
_MAX_THROTTLED = 5  # attempts of a read that is answered with 429
_MAX_RETRY_AFTER = 30.0  # seconds


def address(resource: Resource, namespace: str | None, name: str, subresource: str | None = None) -> str:
    """The path of one object.

    :raises ApiError: 400 for a name that would address something else: an empty one would mean the collection.
    """
    if not name or "/" in name or name in (".", ".."):
        raise bad_request(f"{resource.kind} name {name!r} is invalid: it must not be empty, '.', '..' or contain '/'")
    return resource.path(namespace, name, subresource)


class Caller:
    """Sends requests for one cluster through one transport."""

    __slots__ = ("_manager", "_prefix", "cluster", "field_manager", "on_warning", "transport")

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
        self.on_warning = on_warning
        self._prefix = f"/clusters/{cluster}" if cluster else ""
        self._manager = ("fieldManager", field_manager)

    def _write_query(self, dry_run: bool, manager: str | None = None) -> Query:
        query = [("fieldManager", manager) if manager else self._manager]
        if dry_run:
            query.append(("dryRun", "All"))
        return query

    async def _read(self, path: str, query: Query) -> Object:
        response = await self._send("GET", path, query)
        return decode(response.body if response.stream is None else await read_whole(response))

    async def _write(
        self, method: str, path: str, query: Query, body: Any, content_type: str = "application/json"
    ) -> Object:
        data = orjson.dumps(body) if body is not None else b""
        response = await self._send(method, path, query, data, _HEADERS[content_type])
        return decode(response.body if response.stream is None else await read_whole(response))

    async def _send(
        self, method: str, path: str, query: Query, body: bytes = b"", headers: dict[str, str] = _READ_HEADERS
    ) -> Response:
        """A 2xx response; anything else is an ApiError. Reads that were throttled (429, Retry-After) are repeated."""
        attempt = 1
        while True:
            response = await self.transport.send(Request(method, self._prefix + path, query, headers, body))
            if self.on_warning is not None:
                for text in warnings_of(response):
                    self.on_warning(text)
            if 200 <= response.status < 300:
                return response
            error = await read_error(response)
            if method != "GET" or error.code != 429 or error.retry_after is None or attempt == _MAX_THROTTLED:
                raise error
            await asyncio.sleep(min(max(error.retry_after, 0), _MAX_RETRY_AFTER))
            attempt += 1
