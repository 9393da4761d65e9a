"""Where a response's stream goes: chunks on one connection, with back-pressure."""

from __future__ import annotations

import asyncio


class Sink:
    """The writing side of one connection. A stream may write as long as :attr:`full` is false."""

    __slots__ = ("_loop", "_transport", "_waiters", "chunked", "full", "gone")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._waiters: list[asyncio.Future[None]] = []
        self.chunked = True
        self.full = False
        """The client takes less than it is given: wait for :meth:`drained`."""
        self.gone = False

    def write(self, chunk: bytes) -> None:
        """Send one chunk of a stream, now. An empty one would end the stream, and is not sent."""
        if not chunk or self.gone:
            return
        if self.chunked:
            chunk = b"%x\r\n%b\r\n" % (len(chunk), chunk)
        self._transport.write(chunk)

    def end(self) -> None:
        """The stream is whole."""
        if self.chunked and not self.gone:
            self._transport.write(b"0\r\n\r\n")

    async def drained(self) -> None:
        """Return when there is room again.

        :raises ConnectionResetError: the client is gone.
        """
        while self.full and not self.gone:
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter
        if self.gone:
            raise ConnectionResetError("the client went away")

    def pause(self) -> None:
        self.full = True

    def resume(self) -> None:
        self.full = False
        self._wake()

    def lost(self) -> None:
        self.gone = True
        self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
