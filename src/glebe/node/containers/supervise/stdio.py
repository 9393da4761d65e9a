"""A container's standard streams, from the supervisor's side: into the log, to those attached, and from them."""

# ruff: noqa: SIM105 - contextlib is not imported here
from __future__ import annotations

import fcntl
import os
import select
import struct
import termios

from glebe.node.containers.supervise import crifile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_INPUT_LIMIT = 256 * 1024  # bytes of input that wait for the container until attached clients have to
_CHUNK = 64 * 1024


class Stdio:
    """:param run: ``tty``, ``stdin``, ``stdinOnce``, ``oci`` of ``run.json``."""

    def __init__(self, run: dict[str, Any], log: crifile.Log) -> None:
        self._run = run
        self._log = log
        self._input = bytearray()
        self._last_input = False  # somebody who gave input has left
        self.input_fd = -1
        self.terminal = -1
        self.streams: dict[int, str] = {}
        self.tell: Callable[[int, bytes], None] = lambda stream, data: None

    def open(self) -> list[int]:
        """The container's ends of its standard input, output and error; ours are remembered."""
        if self._run.get("tty") and self._run.get("oci"):  # the runtime makes the terminal, in the container
            return [os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)] * 3
        if self._run.get("tty"):
            terminal, slave = os.openpty()
            self.use_terminal(terminal)
            return [slave, slave, slave]
        if self._run.get("stdin"):
            in_r, self.input_fd = os.pipe()
            os.set_blocking(self.input_fd, False)
        else:
            in_r = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        out_r, out_w = os.pipe()
        err_r, err_w = os.pipe()
        self.streams = {out_r: "stdout", err_r: "stderr"}
        return [in_r, out_w, err_w]

    def use_terminal(self, terminal: int) -> None:
        """Our end of the container's terminal."""
        self.terminal = terminal
        self.streams = {terminal: "stdout"}
        self.input_fd = terminal if self._run.get("stdin") else -1
        os.set_blocking(terminal, False)

    # --- output

    def pass_on(self, fd: int) -> bool:
        """Take what there is; ``False``: this stream has ended."""
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return True
        except OSError:  # EIO: nobody holds the terminal any more
            data = b""
        name = self.streams[fd]
        self._log.feed(name, data)
        if data:
            self.tell(1 if name == "stdout" else 2, data)
        else:
            del self.streams[fd]
            if fd != self.terminal:
                os.close(fd)
        return bool(data)

    def drain(self) -> None:
        """What the command wrote before it ended; a left-over child that holds the pipe does not delay us."""
        for fd in list(self.streams):
            while select.select([fd], [], [], 0)[0] and self.pass_on(fd):
                pass
            if fd in self.streams:
                self._log.feed(self.streams[fd], b"")

    # --- input

    @property
    def waiting(self) -> bool:
        """Whether there is input that the container has not taken."""
        return bool(self._input) and self.input_fd >= 0

    @property
    def full(self) -> bool:
        """Whether those who give input have to wait."""
        return len(self._input) > _INPUT_LIMIT

    def give(self, data: bytes) -> None:
        """Input for the container."""
        if self.input_fd >= 0:
            self._input += data
            self.feed()

    def feed(self) -> None:
        """Hand on what waits, as far as it goes."""
        try:
            while self._input and self.input_fd >= 0:
                del self._input[: os.write(self.input_fd, self._input[:_CHUNK])]
        except BlockingIOError:
            return
        except OSError:  # it reads no more
            self._input.clear()
            self._close_input()
        if self._last_input:
            self.last_input()

    def last_input(self) -> None:
        """Somebody who gave input gives no more: with ``stdinOnce`` that is the end of the container's input."""
        self._last_input = True
        if self._run.get("stdinOnce") and not self._input:
            self._close_input()

    def _close_input(self) -> None:
        if self.input_fd < 0:
            return
        if self.input_fd == self.terminal:
            try:
                os.write(self.terminal, b"\x04")
            except OSError:
                pass
        else:
            os.close(self.input_fd)
        self.input_fd = -1

    def resize(self, columns: int, rows: int) -> None:
        """The size of the container's terminal."""
        if self.terminal >= 0:
            try:
                fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            except OSError:
                pass
