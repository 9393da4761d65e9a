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
    left = limit_bytes if limit_bytes is not None else None
    lines, offset = _stored(path, since, tail)
    done = finished()
    pending = _chunks(render(line, timestamps) for line in lines)
    while True:
        for chunk in pending:
            piece = chunk if left is None else chunk[:left]
            left = None if left is None else left - len(piece)
            if piece:
                yield piece
            if left == 0:
                return
        if not follow or done:
            return
        done = finished()  # asked before the last look, so that nothing written before the end is missed
        lines, offset = _more(path, offset)
        if not lines and not done:
            await asyncio.sleep(_POLL)
        pending = _chunks(render(line, timestamps) for line in lines)


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
