"""Connections that stop speaking HTTP (WebSocket, SPDY): once the other side agrees, bytes go both ways."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from glebe.apiserver.http.upgrades import as_streams
from glebe.apiserver.proxying.locations import Location
from glebe.apiserver.request.call import Call
from glebe.kube import errors
from glebe.kube.lingering import close_soon, until_taken
from glebe.kube.transport import Request, Response

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping, Sequence

_CONNECT_SECONDS = 30.0
_LARGEST_HEAD = 64 * 1024
_LARGEST_REFUSAL = 1 << 20
_CHUNK = 64 * 1024


async def upgrade(call: Call, location: Location, path: str, headers: Mapping[str, str]) -> Response:
    """Offer the client's upgrade to ``location``.

    :raises ApiError: 503 when nothing answers there.
    """
    from glebe.apiserver.proxying.forwarding import tls_context

    context = tls_context(call, location) if location.scheme == "https" else None
    pairs = [(name, value) for name, value in headers.items() if name not in ("connection", "host", "upgrade")]
    return await offer(call.request, (location.host, location.number), location.authority, path, pairs, context)


async def offer(
    request: Request,
    address: tuple[str, int],
    authority: str,
    path: str,
    headers: Sequence[tuple[str, str]],
    context: ssl.SSLContext | None = None,
    server_name: str | None = None,
) -> Response:
    """Offer ``request``'s upgrade to ``address``; ``authority`` is its Host header, ``headers`` what else is sent.

    :raises ApiError: 503 when nothing answers there.
    """
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(
                *address, ssl=context, limit=_LARGEST_HEAD, server_hostname=server_name if context else None
            )
            own = [("upgrade", request.headers["upgrade"])] if "upgrade" in request.headers else []
            sent = [*headers, *own, ("connection", "Upgrade"), ("host", authority)]
            lines = [f"{request.method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent)]
            if request.body:
                lines.append(f"content-length: {len(request.body)}")
            writer.write("\r\n".join([*lines, "", ""]).encode() + request.body)
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise errors.ApiError(503, "ServiceUnavailable", f"error dialing backend: {error}") from None
    status, answered = _parse(head)
    if status != 101:
        return await _refused(status, answered, reader, writer)

    async def talk(client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        there = asyncio.ensure_future(_pump(client, writer))
        here = asyncio.ensure_future(_pump(reader, back))
        try:
            await asyncio.wait({there, here}, return_when=asyncio.FIRST_COMPLETED)
            if here.done():
                there.cancel()
                await asyncio.gather(there, return_exceptions=True)
                await until_taken(client, back)
        finally:
            for task in (there, here):
                task.cancel()
            await asyncio.gather(there, here, return_exceptions=True)
            close_soon(writer)
            close_soon(back)

    return Response(101, answered, upgrade=as_streams(talk))


def _parse(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    parts = first.split(" ", 2)
    if len(parts) < 2 or not parts[1].isdigit():
        raise errors.ApiError(503, "ServiceUnavailable", "error dialing backend: malformed HTTP response")
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return int(parts[1]), {name.strip().lower(): value.strip() for name, value in pairs}


async def _refused(
    status: int, headers: dict[str, str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> Response:
    """The other side wants no upgrade: its answer is the client's."""
    body = b""
    length = headers.get("content-length", "")
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            body = await reader.read(min(int(length), _LARGEST_REFUSAL)) if length.isdigit() else b""
    except (OSError, TimeoutError):
        pass
    writer.close()
    kept = {k: v for k, v in headers.items() if k not in ("connection", "content-length", "transfer-encoding")}
    return Response(status, kept, body)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Until the source ends or the sink breaks."""
    with suppress(OSError):
        while chunk := await source.read(_CHUNK):
            sink.write(chunk)
            await sink.drain()
