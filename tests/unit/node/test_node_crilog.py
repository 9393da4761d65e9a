from __future__ import annotations

import asyncio
import itertools
import random
from pathlib import Path
from typing import Any

import pytest

from glebe.kube.clock import parse_time
from glebe.node.containers import crilog
from glebe.node.containers.supervise.crifile import Log

LINES = (
    b"2026-01-01T00:00:00.000000001Z stdout F one\n"
    b"2026-01-01T00:00:05.000000000Z stderr P tw\n"
    b"2026-01-01T00:00:05.000000000Z stderr F o\n"
    b"2026-01-01T00:00:09.000000000Z stdout F three\n"
)


async def read(path: Path, **options: Any) -> bytes:
    chunks = crilog.read_log(path, follow=False, finished=lambda: True, **options)
    return b"".join([chunk async for chunk in chunks])


async def test_whole_tail_since_timestamps_and_limit(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(LINES)
    assert await read(path) == b"one\ntwo\nthree\n"
    assert await read(path, tail=1) == b"three\n"
    assert await read(path, tail=0) == b""
    assert await read(path, since=parse_time("2026-01-01T00:00:06Z")) == b"three\n"
    assert await read(path, limit_bytes=5) == b"one\nt"
    assert (await read(path, timestamps=True)).startswith(b"2026-01-01T00:00:00.000000001Z one\n")
    assert await read(tmp_path / "none") == b""


async def test_a_long_log_lets_others_have_their_turns(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(LINES * 30_000)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    assert (await read(path)).count(b"\n") == 90_000
    task.cancel()
    assert turns > 20
    assert await read(path, tail=2) == b"o\nthree\n"


async def test_a_tail_is_what_a_plain_reader_would_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the sizes of files and of what is read at once."""
    rng = random.Random(7)
    for case in range(60):
        directory = tmp_path / str(case)
        directory.mkdir()
        monkeypatch.setattr(crilog, "_CHUNK", rng.choice([1, 2, 3, 7, 50, 4096]))
        lines = [f"{number}{'x' * rng.randrange(9)}" for number in range(rng.randrange(12))]
        cuts = sorted(rng.randrange(len(lines) + 1) for _ in range(rng.randrange(3)))
        pieces = [lines[a:b] for a, b in itertools.pairwise([0, *cuts, len(lines)])]
        for number, piece in enumerate(pieces):
            name = "log" if number == len(pieces) - 1 else f"log.{number + 9}"
            text = "".join(f"2026-01-01T00:00:00Z stdout F {line}\n" for line in piece)
            (directory / name).write_text(text + ("half" if name == "log" and rng.random() < 0.5 else ""))
        count = rng.randrange(14)
        assert (await read(directory / "log", tail=count)).decode().split() == lines[max(0, len(lines) - count) :]
        assert (await read(directory / "log")).decode().split() == lines


async def test_a_follower_loses_nothing_when_the_log_is_rotated_under_it(tmp_path: Path) -> None:
    path, written, ended = tmp_path / "log", 0, False

    class Rotating(Log):
        def rotate(self) -> None:
            self._rotate()

    log = Rotating(str(path))

    async def write() -> None:
        nonlocal written, ended
        rng = random.Random(3)
        for _ in range(60):
            for _line in range(rng.randrange(5)):
                log.feed("stdout", b"%d\n" % written)
                written += 1
            await asyncio.sleep(rng.choice([0.0, 0.05, 0.3]))
            if rng.random() < 0.4:
                log.rotate()
                await asyncio.sleep(rng.choice([0.0, 0.3]))
        ended = True

    writing = asyncio.create_task(write())
    got = b"".join([chunk async for chunk in crilog.read_log(path, follow=True, finished=lambda: ended)])
    await writing
    assert got.decode().split() == [str(number) for number in range(written)]


async def test_one_stream_alone(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(LINES)
    assert await read(path, stream="stderr") == b"two\n"


async def test_a_rotated_log_is_read_first_and_half_a_line_waits(tmp_path: Path) -> None:
    path = tmp_path / "log"
    (tmp_path / "log.1").write_bytes(b"2026-01-01T00:00:00Z stdout F old\n")
    path.write_bytes(LINES + b"2026-01-01T00:00:10Z stdout F unfinis")
    assert await read(path) == b"old\none\ntwo\nthree\n"


async def test_following_sees_what_is_written_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(LINES)
    looks = []

    def finished() -> bool:
        looks.append(1)
        if len(looks) == 3:
            with path.open("ab") as file:
                file.write(b"2026-01-01T00:00:11Z stdout F last\n")
        return len(looks) >= 3

    chunks = [chunk async for chunk in crilog.read_log(path, follow=True, finished=finished, tail=1)]
    assert b"".join(chunks) == b"three\nlast\n"


def test_the_writer_splits_long_lines_and_ends_the_last(tmp_path: Path) -> None:
    log = Log(str(tmp_path / "log"))
    log.feed("stdout", b"a" * 20_000)
    log.feed("stdout", b"b\nrest")
    log.feed("stdout", b"")
    lines = (tmp_path / "log").read_bytes().splitlines()
    assert [line.split(b" ", 3)[2] for line in lines] == [b"P", b"F", b"P"]
    assert b"".join(crilog.render(line, False) for line in lines) == b"a" * 20_000 + b"b\nrest"
    assert crilog.last_lines(tmp_path / "log", lines=1) == "rest"
