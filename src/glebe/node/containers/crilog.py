"""Reading container logs: CRI lines (``TIME STREAM F|P TEXT``) to what ``kubectl logs`` shows."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from glebe.kube.clock import parse_time

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


def _time_of(line: bytes) -> float:
    try:
        stamp = line.split(b" ", 1)[0].decode()
        return parse_time(stamp[:26].rstrip("Z") + "Z")
    except ValueError:
        return 0.0


def _stored(path: Path, since: float | None, tail: int | None) -> tuple[list[bytes], int]:
    """Complete lines there are now (a rotated predecessor first) and the offset behind them."""
    lines: deque[bytes] | list[bytes] = deque(maxlen=tail) if tail is not None else []
    offset = 0
    for part in (path.with_name(path.name + ".1"), path):
        try:
            file = part.open("rb")
        except OSError:
            continue
        with file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                if part == path:
                    offset += len(line)
                if since is None or _time_of(line) >= since:
                    lines.append(line[:-1])
    return list(lines), offset


async def read_log(
    path: Path,
    *,
    follow: bool,
    finished: Callable[[], bool],
    tail: int | None = None,
    since: float | None = None,
    timestamps: bool = False,
    limit_bytes: int | None = None,
) -> AsyncIterator[bytes]:
    """The log as chunks of rendered lines; with ``follow`` until ``finished()`` says that no more will come."""
    out = _Cut(limit_bytes)
    done = finished()  # asked before each look, so that nothing written before the end is missed
    tails: deque[bytes] = deque(maxlen=tail)
    offset = 0
    for part in (path.with_name(path.name + ".1"), path):
        offset = 0
        while True:
            lines, after = _more(part, offset)
            if after == offset:
                break
            offset = after
            if since is not None:
                lines = [line for line in lines if _time_of(line) >= since]
            if tail is not None:
                tails.extend(lines)
            else:
                for chunk in _chunks(render(line, timestamps) for line in lines):
                    yield out.cut(chunk)
                    if out.full:
                        return
            await asyncio.sleep(0)  # a log may be long: others must get their turns
    lines = list(tails)
    while True:
        for chunk in _chunks(render(line, timestamps) for line in lines):
            yield out.cut(chunk)
            if out.full:
                return
        if not follow or done:
            return
        done = finished()
        lines, offset = _more(path, offset)
        if not lines and not done:
            await asyncio.sleep(_POLL)


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


def _more(path: Path, offset: int) -> tuple[list[bytes], int]:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            file.seek(0 if size < offset else offset)
            data = file.read(_CHUNK)
    except OSError:
        return [], offset
    start = 0 if size < offset else offset
    whole = data.rfind(b"\n") + 1
    return data[:whole].split(b"\n")[:-1] if whole else [], start + whole


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
    stored, _ = _stored(path, None, lines)
    text = b"".join(render(line, False) for line in stored)
    return text[-limit:].decode(errors="replace")
