"""Ending a connection without losing what is still on its way to a slow reader."""

from __future__ import annotations

import asyncio
import fcntl
import struct
from contextlib import suppress

_TIOCOUTQ = 0x5411  # bytes that the other side's kernel has not acknowledged yet
_LONGEST_PAUSE = 0.5
_PATIENCE = 900.0
_GRACE = 2.0  # seconds for TLS to say goodbye


async def until_taken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float = _PATIENCE) -> None:
    """Until the other side has everything that was written to it, or has left; what it says meanwhile is dropped.

    A socket that is closed with unread input is reset, and what was on its way with it: so it is read to the last.
    """
    dropping = asyncio.ensure_future(_drop(reader))
    pause = 0.005
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not dropping.done() and _on_its_way(writer):
                    await asyncio.wait({dropping}, timeout=pause)
                    pause = min(pause * 2, _LONGEST_PAUSE)
    finally:
        dropping.cancel()
        await asyncio.gather(dropping, return_exceptions=True)


def close_soon(writer: asyncio.StreamWriter) -> None:
    """Close; TLS does not wait for long for an answer to its goodbye."""
    writer.close()
    asyncio.get_running_loop().call_later(_GRACE, writer.transport.abort)


async def _drop(reader: asyncio.StreamReader) -> None:
    with suppress(OSError):
        while await reader.read(65536):
            pass


def _on_its_way(writer: asyncio.StreamWriter) -> bool:
    transport = writer.transport
    if transport.is_closing():
        return False
    if transport.get_write_buffer_size():
        return True
    sock = writer.get_extra_info("socket")
    try:
        (left,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), _TIOCOUTQ, b"\0\0\0\0"))
    except (OSError, AttributeError, ValueError):
        return False  # not a TCP socket, or not on Linux
    return bool(left)
