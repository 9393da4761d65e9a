"""Talking to a container's own process, and its logs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from container_world import lines, said, until, world

from glebe.node.containers.containers import NotRunning
from glebe.node.containers.supervise.crifile import Log

pytestmark = pytest.mark.realtime


async def test_several_are_attached_and_all_see_what_comes_from_now_on(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        script = "echo before; while read x; do echo got $x; echo err >&2; done; echo over"
        run = await w.start("sh", "-c", script, stdin=True, stdin_once=True)
        await until(run.log.read_bytes)
        one = await w.containers.attach(run, stdin=True)
        two = await w.containers.attach(run)
        await one.write(b"a\n")
        hears = asyncio.create_task(said(two))
        assert await anext(aiter(one.output())) in ((1, b"got a\n"), (2, b"err\n"))
        await two.write(b"ignored\n")
        await one.close_input()
        assert await hears == {1: b"got a\nover\n", 2: b"err\n"}
        end = await run.wait()
        assert end is not None
        assert end.code == 0
        assert await two.wait() == 0
        for streams in (one, two):
            await streams.close()
        assert sorted(lines(run).split("\n")) == ["", "before", "err", "got a", "over"]
        with pytest.raises(NotRunning):
            await w.containers.attach(run)


async def test_input_stays_open_for_the_next_who_attaches(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        run = await w.start("cat", stdin=True)
        for word in (b"first\n", b"second\n"):
            streams = await w.containers.attach(run, stdin=True)
            await streams.write(word)
            assert await anext(aiter(streams.output())) == (1, word)
            await streams.close_input()
            await streams.close()
        assert run.exit is None


async def test_more_input_than_the_container_takes_at_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        run = await w.start("sh", "-c", "sleep 0.2; wc -c", stdin=True, stdin_once=True)
        streams = await w.containers.attach(run, stdin=True)
        for _ in range(40):
            await streams.write(b"x" * 65536)
        await streams.close_input()
        assert await said(streams) == {1: b"2621440\n"}
        await streams.close()


async def test_a_terminal(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        run = await w.start("sh", "-c", "read x; stty size; tty > /dev/null && echo tty", tty=True, stdin=True)
        streams = await w.containers.attach(run, stdin=True)
        await streams.resize(91, 17)
        await streams.write(b"go\n")
        assert await said(streams) == {1: b"go\r\n17 91\r\ntty\r\n"}
        await streams.close()
        assert lines(run).replace("\r", "") == "go\n17 91\ntty\n"


async def test_who_is_too_slow_is_dropped_and_holds_nobody_up(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        run = await w.start("sh", "-c", "read x; head -c 20000000 /dev/zero; echo; echo end", stdin=True)
        slow = await w.containers.attach(run, stdin=True)
        await slow.write(b"go\n")
        end = await run.wait()
        assert end is not None
        assert end.code == 0
        size = sum([len(data) async for _, data in slow.output()])
        assert size < 20_000_000
        await slow.close()


def test_logs_rotate_between_lines_and_numbers_are_not_used_again(tmp_path: Path) -> None:
    log = Log(str(tmp_path / "log"), size=1000, files=3)
    for index in range(100):
        log.feed("stdout", f"line {index:03d} {'x' * 50}\n".encode())
    names = sorted(path.name for path in tmp_path.iterdir())
    numbers = sorted(int(name.split(".")[1]) for name in names if "." in name)
    assert names[0] == "log"
    assert len(numbers) == 2
    assert numbers[1] == numbers[0] + 1 > 2
    text = b"".join((tmp_path / f"log.{n}").read_bytes() for n in numbers) + (tmp_path / "log").read_bytes()
    seen = [int(line.split()[4]) for line in text.decode().splitlines()]
    assert seen == list(range(seen[0], 100))
