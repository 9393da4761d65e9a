"""Connections that stop speaking HTTP: for handlers that answer 101 (see ``Response.upgrade``)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
_WINDOW = 256 * 1024


def as_streams(talk: Talk) -> Callable[[asyncio.Transport], asyncio.Protocol]:
    """An upgrade to a coroutine with a reader and a writer; the connection is closed when it ends."""

    async def until_done(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        finally:
            writer.close()

    def make(transport: asyncio.Transport) -> asyncio.Protocol:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_WINDOW, loop=loop)
        return asyncio.StreamReaderProtocol(reader, until_done, loop=loop)

    return make
