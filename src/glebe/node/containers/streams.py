"""The agent's end of a process somebody talks to: pipes or a terminal, read and written without blocking."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
import termios
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

_CHUNK = 64 * 1024
_AHEAD = 8  # chunks read before somebody takes them
_LINGER = 0.2  # seconds of silence after the process' end until a pipe that a left-over child holds counts as ended


class Closed(ConnectionError):
    """The other end takes no more input."""


class FdStreams:
    """Talks to a process through file descriptors, which it owns from now on.

    :param stdin: to write to, -1: none. :param outputs: from which descriptor comes which stream (1 or 2).
    :param terminal: a pseudo-terminal's master, which may be ``stdin`` and in ``outputs`` as well.
    :param exit_code: gives the exit code once; it is awaited exactly once. :param end: ends the process.
    """

    def __init__(
        self,
        stdin: int,
        outputs: dict[int, int],
        exit_code: Awaitable[int],
        end: Callable[[], Awaitable[None]],
        terminal: int = -1,
    ) -> None:
        self._stdin = stdin
        self._outputs = dict(outputs)
        self._terminal = terminal
        self._end = end
        self._ready: deque[tuple[int, bytes]] = deque()
        self._news = asyncio.Event()
        self._paused = False
        self._closed = False
        self._written = asyncio.Lock()
        for fd in {stdin, terminal, *outputs} - {-1}:
            os.set_blocking(fd, False)
        self._exit = asyncio.ensure_future(exit_code)
        self._exit.add_done_callback(lambda _: self._linger())
        self._read_on()

    # --- input

    async def write(self, data: bytes) -> None:
        """To its standard input; waits while that is full.

        :raises Closed: nobody reads it any more.
        """
        async with self._written:
            view = memoryview(data)
            while view:
                if self._stdin < 0:
                    raise Closed("standard input is closed")
                try:
                    view = view[os.write(self._stdin, view) :]
                except BlockingIOError:
                    await self._writable()
                except OSError as error:
                    raise Closed(str(error)) from None

    async def _writable(self) -> None:
        loop, fd = asyncio.get_running_loop(), self._stdin
        free = asyncio.Event()
        loop.add_writer(fd, free.set)
        waits = {asyncio.ensure_future(free.wait()), self._exit}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_writer(fd)
            (waits - {self._exit}).pop().cancel()
        if not free.is_set():
            raise Closed("the process has ended")

    async def close_input(self) -> None:
        """End of its standard input; on a terminal, what Ctrl-D says."""
        async with self._written:
            fd, self._stdin = self._stdin, -1
            if fd < 0:
                return
            if fd == self._terminal:
                with contextlib.suppress(OSError):
                    os.write(fd, b"\x04")
            else:
                os.close(fd)

    # --- output

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """``(stream, bytes)`` until all streams have ended."""
        while True:
            while self._ready:
                item = self._ready.popleft()
                if self._paused and len(self._ready) < _AHEAD:
                    self._read_on()
                yield item
            if not self._outputs:
                return
            self._news.clear()
            await self._news.wait()

    def _read_on(self) -> None:
        self._paused = False
        for fd in self._outputs:
            asyncio.get_running_loop().add_reader(fd, self._take, fd)

    def _take(self, fd: int) -> None:
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError:  # EIO: a terminal that nobody holds any more
            data = b""
        if data:
            self._ready.append((self._outputs[fd], data))
        else:
            self._finish(fd)
        if len(self._ready) >= _AHEAD and not self._paused:
            self._paused = True
            for other in self._outputs:
                asyncio.get_running_loop().remove_reader(other)
        self._news.set()

    def _finish(self, fd: int) -> None:
        asyncio.get_running_loop().remove_reader(fd)
        self._outputs.pop(fd, None)
        if fd != self._terminal:
            os.close(fd)

    def _linger(self, seen: int = -1) -> None:
        """After the end of the process: a child that it left behind must not hold its streams open for ever."""
        if self._closed or not self._outputs:
            return
        quiet = not self._ready and not self._paused and seen == 0
        if quiet:
            for fd in list(self._outputs):
                self._finish(fd)
            self._news.set()
            return
        asyncio.get_running_loop().call_later(_LINGER, self._linger, len(self._ready))

    # --- the rest

    async def resize(self, columns: int, rows: int) -> None:
        """The size of its terminal; nothing without one."""
        if self._terminal >= 0:
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def wait(self) -> int:
        """Its exit code."""
        return await asyncio.shield(self._exit)

    async def close(self) -> None:
        """End the process, if it still runs, and let go of everything."""
        if self._closed:
            return
        self._closed = True
        loop = asyncio.get_running_loop()
        await self._end()
        fds = {self._stdin, self._terminal, *self._outputs} - {-1}
        self._stdin = self._terminal = -1
        for fd in fds:
            loop.remove_reader(fd)
            loop.remove_writer(fd)
            os.close(fd)
        self._outputs.clear()
        self._news.set()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(5.0):
                await asyncio.shield(self._exit)
