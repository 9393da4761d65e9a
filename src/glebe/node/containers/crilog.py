"""Reading container logs: CRI lines (``TIME STREAM F|P TEXT``) to what ``kubectl logs`` shows.

The current file is ``log``; full ones are beside it as ``log.1``, ``log.2`` and so on, the greatest number being the
youngest. A reader holds the files that it reads and knows them by identity, so that it loses nothing when one is
renamed or removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from glebe.kube.clock import format_micro_time

_POLL = 0.2  # seconds between two looks at a log that is followed
_CHUNK = 256 * 1024


def render(line: bytes, timestamps: bool) -> bytes:
    """One CRI line as the reader sees it; a partial line (P) has no newline."""
    parts = line.split(b" ", 3)
    if len(parts) < 4:
        return line + b"\n"
    stamp, _, tag, text = parts
    end = b"" if tag == b"P" else b"\n"
    return (stamp + b" " + text if timestamps else text) + end


def stored(path: Path) -> list[Path]:
    """All files of the log ``path`` that there are, youngest first."""
    numbered = []
    for beside in path.parent.glob(path.name + ".*"):
        number = beside.name[len(path.name) + 1 :]
        if number.isascii() and number.isdigit():
            numbered.append((int(number), beside))
    return [path, *(beside for _, beside in sorted(numbered, reverse=True))]


class _Part:
    """One file of a log, held open."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        stat = os.fstat(file.fileno())
        self.identity = (stat.st_dev, stat.st_ino)
        self._rest = b""

    def lines(self) -> tuple[list[bytes], bool]:
        """(the next complete lines, is there perhaps more)."""
        data = self.file.read(_CHUNK)
        whole, newline, rest = data.rpartition(b"\n")
        if not newline:
            self._rest += data
            return [], bool(data)
        lines = (self._rest + whole).split(b"\n")
        self._rest = rest
        return lines, True

    def seek_tail(self, count: int) -> int:
        """Stand before the last ``count`` complete lines; returns how many there are, at most ``count``."""
        at = self.file.seek(0, os.SEEK_END)
        breaks = 0  # from the end; the first one ends the last line
        while at > 0:
            step = min(at, _CHUNK)
            at -= step
            self.file.seek(at)
            data = self.file.read(step)
            position = len(data)
            while (position := data.rfind(b"\n", 0, position)) >= 0:
                breaks += 1
                if breaks > count:
                    self.file.seek(at + position + 1)
                    return count
        self.file.seek(0)
        return breaks


def _open(path: Path) -> _Part | None:
    try:
        return _Part(path.open("rb"))
    except OSError:
        return None


class _Parts:
    """The files of a log in their order, across rotations."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.parts: list[_Part] = []
        seen = set()
        for each in stored(path):  # youngest first: a rotation meanwhile makes us meet a file twice, and miss none
            part = _open(each)
            if part is not None and part.identity not in seen:
                seen.add(part.identity)
                self.parts.insert(0, part)
            elif part is not None:
                part.file.close()

    def tail(self, count: int) -> None:
        """Drop everything but the last ``count`` lines."""
        kept: list[_Part] = []
        for part in reversed(self.parts):
            kept.insert(0, part)
            count -= part.seek_tail(count)
            if count <= 0:
                break
        for part in self.parts[: len(self.parts) - len(kept)]:
            part.file.close()
        self.parts = kept

    def next(self) -> tuple[list[bytes], bool]:
        """(complete lines, is there perhaps more at once)."""
        if not self.parts:
            self._advance(None)
            return [], bool(self.parts)
        lines, more = self.parts[0].lines()
        if lines or more:
            return lines, True
        if len(self.parts) > 1:
            self.parts.pop(0).file.close()
            return [], True
        return [], self._advance(self.parts[0])

    def _advance(self, part: _Part | None) -> bool:
        """Whether the file was replaced: then what follows it is next, once it has been read to its end."""
        fresh = _Parts(self._path).parts if part is None or not self._is_current(part) else []
        known = [other.identity for other in fresh]
        if part is not None and fresh and known[-1] == part.identity:
            for other in fresh:
                other.file.close()
            return False
        if part is not None and part.identity in known:
            for _ in range(known.index(part.identity) + 1):
                fresh.pop(0).file.close()
        if part is not None and fresh:
            self.parts = [part, *fresh]  # what was written to it before it was replaced is still read
        elif part is None:
            self.parts = fresh
        return bool(fresh)

    def _is_current(self, part: _Part) -> bool:
        try:
            stat = self._path.stat()
        except OSError:
            return True  # between two renames, or the pod goes
        return (stat.st_dev, stat.st_ino) == part.identity

    def close(self) -> None:
        for part in self.parts:
            part.file.close()


async def read_log(
    path: Path,
    *,
    follow: bool,
    finished: Callable[[], bool],
    tail: int | None = None,
    since: float | None = None,
    timestamps: bool = False,
    limit_bytes: int | None = None,
    stream: str = "",
) -> AsyncIterator[bytes]:
    """The log as chunks of rendered lines; with ``follow`` until ``finished()`` says that no more will come.

    :param since: Unix seconds. :param stream: ``stdout`` or ``stderr`` alone.
    """
    out = _Cut(limit_bytes)
    choose = _Choice(since, stream)
    done = finished()  # asked before each look, so that nothing written before the end is missed
    parts = _Parts(path)
    try:
        if tail is not None:
            parts.tail(tail)
        while not out.full:
            lines, more = parts.next()
            for chunk in _chunks(render(line, timestamps) for line in choose(lines)):
                yield out.cut(chunk)
                if out.full:
                    return
            if more:
                await asyncio.sleep(0)  # a log may be long: others must get their turns
            elif not follow or done:
                return
            else:
                done = finished()
                if not done:
                    await asyncio.sleep(_POLL)
    finally:
        parts.close()


class _Choice:
    """Which lines are wanted. Times are compared as text: all lines write them in one form."""

    def __init__(self, since: float | None, stream: str) -> None:
        self._since = b"" if since is None else format_micro_time(max(0.0, since)).encode()[:-1]
        self._stream = stream.encode()

    def __call__(self, lines: list[bytes]) -> Iterable[bytes]:
        if self._since:
            lines = [line for line in lines if line >= self._since]
        if self._stream:
            lines = [line for line in lines if line.split(b" ", 2)[1:2] == [self._stream]]
        return lines


class _Cut:
    """At most so many bytes in all."""

    def __init__(self, limit: int | None) -> None:
        self._left = limit

    @property
    def full(self) -> bool:
        return self._left == 0

    def cut(self, chunk: bytes) -> bytes:
        if self._left is None:
            return chunk
        piece = chunk[: self._left]
        self._left -= len(piece)
        return piece


def _chunks(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Lines gathered into pieces of some tens of kilobytes."""
    buffer = bytearray()
    for line in lines:
        buffer += line
        if len(buffer) >= 32 * 1024:
            yield bytes(buffer)
            buffer.clear()
    if buffer:
        yield bytes(buffer)


def last_lines(path: Path, lines: int = 80, limit: int = 2048) -> str:
    """The end of a log for a termination message (``FallbackToLogsOnError``)."""
    parts = _Parts(path)
    out: list[bytes] = []
    with contextlib.closing(parts):
        parts.tail(lines)
        while True:
            more_lines, more = parts.next()
            out += more_lines
            if not more:
                break
    text = b"".join(render(line, False) for line in out)
    return text[-limit:].decode(errors="replace")
