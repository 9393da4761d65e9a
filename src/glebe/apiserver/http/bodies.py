"""Bodies that are known: whole or in parts, compressed or not, onto one connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from glebe.apiserver.http import responses
from glebe.apiserver.http.sink import Sink
from glebe.apiserver.request.routing import split_cluster
from glebe.apiserver.sharing.pieces import pieces
from glebe.kube.transport import Parts, Request, Response

if TYPE_CHECKING:
    from glebe.apiserver.http.listener import HttpServer

_SLICE = 256 * 1024
"""Large bodies are compressed in such pieces."""
_WHOLE = 64 * 1024
"""Bodies up to this size go out with their head in one piece."""


class _Slices:
    """A body as :class:`Parts`."""

    def __init__(self, body: bytes) -> None:
        self._view = memoryview(body)
        self.size = len(body)

    def pieces(self, least: Callable[[], int]) -> Iterator[bytes]:
        start = 0
        while start < self.size:
            end = start + least()
            yield self._view[start:end]  # type: ignore[misc]  # what takes bytes to write takes a view
            start = end


async def send(
    front: HttpServer, transport: asyncio.Transport, sink: Sink, request: Request, response: Response, close: bool
) -> None:
    """Write head and body of a response that is no stream; returns when the client has taken most of it.

    :raises ConnectionResetError: the client is gone.
    """
    body, parts = response.body, response.parts
    size = len(body) if parts is None else parts.size
    if size >= front.limits.compress and "content-encoding" not in response.headers:
        response.headers["vary"] = "Accept-Encoding"
        if responses.accepts_gzip(request.headers.get("accept-encoding", "")):
            whole = (body,) if parts is None else parts.pieces(lambda: _SLICE)
            body, parts = await asyncio.to_thread(responses.compress, whole), None
            response.headers["content-encoding"] = "gzip"
            size = len(body)
    head = responses.head(response.status, response.headers, front.date(), size, close)
    if request.method == "HEAD":
        transport.write(head)
    elif parts is None and size <= _WHOLE:
        transport.write(head + body)
    else:
        transport.write(head)
        await _in_pieces(transport, sink, request, parts or _Slices(body))
    if sink.full:
        await sink.drained()


async def _in_pieces(transport: asyncio.Transport, sink: Sink, request: Request, parts: Parts) -> None:
    """Each when the one before it has left, and others have had their turn."""
    cluster, _ = split_cluster(request.path)
    share = pieces()
    for piece in parts.pieces(lambda: share.bytes):
        if sink.full:
            await sink.drained()
        await share.turn(cluster)
        transport.write(piece)
