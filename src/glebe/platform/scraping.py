"""``/metrics`` of ``glebe controller``: plain HTTP, at an address that the operator chooses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from glebe.apiserver.http import HttpServer
from glebe.apiserver.metrics.families import CONTENT_TYPE, Families
from glebe.kube.transport import Request, Response


@asynccontextmanager
async def scraped(families: Families, listen: str) -> AsyncIterator[str]:
    """Serve while the block runs; yields the URL, "" where nobody asked for it.

    :param listen: HOST:PORT, or nothing.
    :raises OSError: the address cannot be had.
    """
    if not listen:
        yield ""
        return

    async def answer(request: Request) -> Response:
        if request.path != "/metrics" or request.method != "GET":
            return Response(404)
        return Response(200, {"content-type": CONTENT_TYPE}, families.text())

    host, _, port = listen.rpartition(":")
    server = HttpServer(answer, host=host.strip("[]") or "127.0.0.1", port=int(port))
    await server.start()
    try:
        yield f"{server.url}/metrics"
    finally:
        await server.close()
