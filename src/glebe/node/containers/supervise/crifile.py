"""A container's log as CRI lines (``TIME STREAM F|P TEXT``).

Rotated by size, between lines: LOG becomes LOG.1, the next one LOG.2 and so on, numbers are never used again, so that
who follows need not race with renames; the newest few are kept.
"""

from __future__ import annotations

import os
import time

SIZE = 10 * 1024 * 1024  # bytes; then it is rotated (the kubelet's containerLogMaxSize)
FILES = 5  # with the current one (containerLogMaxFiles)
LINE_LIMIT = 16 * 1024  # longer lines are split and tagged P, as container runtimes do


class Log:
    """Takes a container's output and writes complete lines."""

    def __init__(self, path: str, size: int = SIZE, files: int = FILES) -> None:
        self._path = path
        self._size = size
        self._files = files
        self._number = 0
        self._file = self._open()
        self._rest = {"stdout": b"", "stderr": b""}

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)

    def feed(self, stream: str, data: bytes) -> None:
        """Take output as it comes; a line is written when it is complete. No data: the stream has ended."""
        lines = (self._rest[stream] + data).split(b"\n")
        rest = lines.pop()
        head = f"{_stamp()} {stream} ".encode()
        out = []
        for line in lines:
            while len(line) > LINE_LIMIT:
                out.append(head + b"P " + line[:LINE_LIMIT])
                line = line[LINE_LIMIT:]
            out.append(head + b"F " + line)
        while len(rest) > LINE_LIMIT:
            out.append(head + b"P " + rest[:LINE_LIMIT])
            rest = rest[LINE_LIMIT:]
        if rest and not data:
            out.append(head + b"P " + rest)  # it has no end of line, and readers are shown none
            rest = b""
        self._rest[stream] = rest
        if out:
            self._write(b"\n".join(out) + b"\n")

    def _write(self, data: bytes) -> None:
        try:
            os.write(self._file, data)
            if os.fstat(self._file).st_size >= self._size:
                self._rotate()
        except OSError:
            pass  # a full disk must not end the container

    def _rotate(self) -> None:
        self._number += 1
        os.replace(self._path, f"{self._path}.{self._number}")
        os.close(self._file)
        self._file = self._open()
        old = self._number - max(0, self._files - 1)
        if old > 0:
            os.unlink(f"{self._path}.{old}")


def _stamp() -> str:
    now = time.time_ns()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)) + f".{now % 10**9:09d}Z"
