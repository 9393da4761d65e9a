"""A container's log as CRI lines (``TIME STREAM F|P TEXT``), rotated by size: LOG, LOG.1 (newer) ... LOG.4."""

# ruff: noqa: SIM105 - contextlib is not imported here
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
            out.append(head + b"F " + rest)
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
        for index in range(self._files - 2, 0, -1):
            try:
                os.replace(f"{self._path}.{index}", f"{self._path}.{index + 1}")
            except FileNotFoundError:
                pass
        if self._files > 1:
            os.replace(self._path, self._path + ".1")
        else:
            os.unlink(self._path)
        os.close(self._file)
        self._file = self._open()


def _stamp() -> str:
    now = time.time_ns()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)) + f".{now % 10**9:09d}Z"
