"""The log file: written by a thread of its own, bounded in memory, rotated by size and age."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from glebe.apiserver.audit.options import Rotation
from glebe.kube.clock import Clock, SystemClock

log = logging.getLogger("glebe.apiserver.audit")

#: Events that may wait for the disk; more are dropped, and counted.
WAITING = 20_000
WAITING_BYTES = 64 * 1024 * 1024
FLUSH_SECONDS = 0.1


class RotatingFile:
    """Appends lines to a file; a full one is put aside as ``NAME-TIME.EXT`` (as upstream's). ``-`` is standard output.

    Synchronous: for a thread that may wait for the disk.
    """

    def __init__(self, path: str, rotation: Rotation, clock: Clock | None = None) -> None:
        self._path = None if path == "-" else Path(path)
        self._rotation = rotation
        self._clock = clock or SystemClock()
        self._file: BinaryIO | None = None
        self._size = 0

    def write(self, data: bytes) -> None:
        """:raises OSError: the disk does not take it."""
        if self._path is None:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        limit = self._rotation.max_size * 1024 * 1024
        if self._file is not None and limit and self._size and self._size + len(data) > limit:
            self._rotate()
        if self._file is None:
            self._file = self._open()
            if limit and self._size and self._size + len(data) > limit:
                self._rotate()
                self._file = self._open()
        self._file.write(data)
        self._file.flush()
        self._size += len(data)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> BinaryIO:
        assert self._path is not None
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        file = os.fdopen(descriptor, "ab")
        self._size = file.tell()
        return file

    def _rotate(self) -> None:
        self.close()
        assert self._path is not None
        stamp = datetime.fromtimestamp(self._clock.now(), UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")[:-3]
        target = self._path.with_name(f"{self._path.stem}-{stamp}{self._path.suffix}")
        number = 1
        while target.exists():
            target = self._path.with_name(f"{self._path.stem}-{stamp}.{number}{self._path.suffix}")
            number += 1
        self._path.rename(target)
        self._size = 0
        self._clean()

    def _clean(self) -> None:
        """Remove what is too old or too much."""
        assert self._path is not None
        pattern = f"{self._path.stem}-*{self._path.suffix}"
        full = sorted((p for p in self._path.parent.glob(pattern) if p != self._path), reverse=True)
        oldest = self._clock.now() - self._rotation.max_age * 86400
        for position, path in enumerate(full):
            too_many = self._rotation.max_backups and position >= self._rotation.max_backups
            too_old = self._rotation.max_age and path.stat().st_mtime < oldest
            if too_many or too_old:
                path.unlink(missing_ok=True)


class AuditLog:
    """Takes events on the event loop and never waits; one thread writes them in batches."""

    def __init__(self, file: RotatingFile) -> None:
        self._file = file
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._busy = False
        self._executor: ThreadPoolExecutor | None = None
        self._closed = False
        self.written = 0
        self.dropped = 0
        """Events that were not written: too many were waiting, or the disk did not take them."""

    def take(self, line: bytes) -> None:
        """One event, encoded."""
        if self._closed or len(self._lines) >= WAITING or self._bytes + len(line) > WAITING_BYTES:
            self._drop(1)
            return
        self._lines.append(line)
        self._bytes += len(line)
        if self._timer is None and not self._busy:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush)

    def _flush(self) -> None:
        self._timer = None
        if not self._lines or self._closed:
            return
        batch, count = b"".join(self._lines), len(self._lines)
        self._lines.clear()
        self._bytes = 0
        self._busy = True
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="audit")
        loop = asyncio.get_running_loop()
        future = self._executor.submit(self._file.write, batch)
        future.add_done_callback(lambda done: _on_loop(loop, lambda: self._done(count, done.exception())))

    def _done(self, count: int, error: BaseException | None) -> None:
        self._busy = False
        if error is not None:
            log.error("audit log: %s", error)
            self._drop(count)
        else:
            self.written += count
        if self._lines:
            self._flush()

    def _drop(self, count: int) -> None:
        if not self.dropped:
            log.error("audit log: events are dropped; the disk is too slow, full or gone")
        self.dropped += count

    def close(self) -> None:
        """Write what is waiting. The last thing that a server does."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._executor is not None:
            self._executor.shutdown(wait=True)
        try:
            if self._lines:
                self._file.write(b"".join(self._lines))
                self.written += len(self._lines)
        except OSError as error:
            log.error("audit log: %s", error)
            self._drop(len(self._lines))
        self._lines.clear()
        self._file.close()


def _on_loop(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended: nobody counts any more
        loop.call_soon_threadsafe(call)
