"""Connections that stop speaking HTTP: for handlers that answer 101 (see ``Response.upgrade``)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
_WINDOW = 256 * 1024


def as_streams(talk: Talk) -> Callable[[asyncio.Transport], asyncio.Protocol]:
    """An upgrade to a coroutine with a reader and a writer; the connection is closed when it ends."""

    async def until_done(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _be_patient(writer)
        try:
            await talk(reader, writer)
        finally:
            writer.close()

    def make(transport: asyncio.Transport) -> asyncio.Protocol:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_WINDOW, loop=loop)
        return asyncio.StreamReaderProtocol(reader, until_done, loop=loop)

    return make


def _be_patient(writer: asyncio.StreamWriter) -> None:
    """Who stops reading for a while (a paused terminal) must not look like somebody who vanished."""
    sock = writer.get_extra_info("socket")
    if sock is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        with contextlib.suppress(OSError, AttributeError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 0)
