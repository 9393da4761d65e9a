"""Further processes in a running container."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from glebe.node.containers import supervisor
from glebe.node.containers.containers import CannotExecute, Containers, NotRunning
from glebe.node.containers.rundir import Run
from glebe.node.contracts import ContainerSpec, Streams

pytestmark = pytest.mark.realtime


@contextlib.asynccontextmanager
async def running(tmp: Path) -> AsyncIterator[tuple[Containers, Run]]:
    agent = tmp / "agent"
    agent.write_text(f"{os.getpid()} {supervisor.start_time(os.getpid())}")
    containers = Containers(agent, window=2.0)
    made = Run(tmp / "run")
    env = {"PATH": os.environ["PATH"], "X": "y"}
    containers.prepare(ContainerSpec(["sleep", "60"], env, str(tmp), grace=0.2), made)
    await made.start()
    try:
        yield containers, made
    finally:
        made.stop(0)
        await made.wait()


async def said(streams: Streams) -> dict[int, bytes]:
    out: dict[int, bytes] = {}
    async with asyncio.timeout(5):
        async for stream, data in streams.output():
            out[stream] = out.get(stream, b"") + data
    return out


async def test_same_environment_directory_and_exit_code(tmp_path: Path) -> None:
    async with running(tmp_path) as (containers, run):
        streams = await containers.execute(run, ["sh", "-c", "echo $X $PWD; echo no >&2; cat; exit 3"])
        assert await said(streams) == {1: f"y {tmp_path}\n".encode(), 2: b"no\n"}
        assert await streams.wait() == 3
        await streams.close()


async def test_input_larger_than_a_pipe_comes_back(tmp_path: Path) -> None:
    async with running(tmp_path) as (containers, run):
        streams = await containers.execute(run, ["cat"], stdin=True)
        text = os.urandom(1_000_000)

        async def feed() -> None:
            await streams.write(text)
            await streams.close_input()

        feeding = asyncio.create_task(feed())
        assert await said(streams) == {1: text}
        await feeding
        assert await streams.wait() == 0
        await streams.close()


async def test_terminal_with_a_size(tmp_path: Path) -> None:
    async with running(tmp_path) as (containers, run):
        streams = await containers.execute(run, ["sh", "-c", "read x; stty size; exit 5"], tty=True, stdin=True)
        await streams.resize(101, 33)
        await streams.write(b"go\n")
        assert await said(streams) == {1: b"go\r\n33 101\r\n"}
        assert await streams.wait() == 5
        await streams.close()


async def test_commands_that_cannot_run(tmp_path: Path) -> None:
    async with running(tmp_path) as (containers, run):
        with pytest.raises(CannotExecute) as not_found:
            await containers.execute(run, ["/no/such"])
        assert not_found.value.exit_code == 127
        with pytest.raises(CannotExecute) as no_program:
            await containers.execute(run, ["/etc/passwd"])
        assert no_program.value.exit_code == 126


async def test_close_ends_it_and_left_over_children_hold_nobody_up(tmp_path: Path) -> None:
    async with running(tmp_path) as (containers, run):
        streams = await containers.execute(run, ["sh", "-c", "echo $$; sleep 60"])
        pid = int((await anext(aiter(streams.output())))[1])
        await streams.close()
        assert not supervisor.start_time(pid)
        assert await streams.wait() == 137
        streams = await containers.execute(run, ["sh", "-c", "sleep 60 & echo a"])
        assert await said(streams) == {1: b"a\n"}
        await streams.close()


async def test_only_running_containers(tmp_path: Path) -> None:
    async with running(tmp_path) as (containers, run):
        other = Run(tmp_path / "other")
        with pytest.raises(NotRunning):
            await containers.execute(other, ["true"])
        run.stop(0)
        await run.wait()
        with pytest.raises(NotRunning):
            await containers.execute(run, ["true"])


async def test_long_environments_and_too_long_commands(tmp_path: Path) -> None:
    agent = tmp_path / "agent"
    agent.write_text(f"{os.getpid()} {supervisor.start_time(os.getpid())}")
    containers, run = Containers(agent, window=2.0), Run(tmp_path / "long")
    env = {"PATH": os.environ["PATH"], **{f"V{i}": "x" * 100_000 for i in range(8)}}
    containers.prepare(ContainerSpec(["sh", "-c", "echo ${#V7}; sleep 60"], env, str(tmp_path), grace=0.2), run)
    await run.start()
    try:
        streams = await containers.execute(run, ["sh", "-c", "echo ${#V0} $TERM"], tty=True)
        assert await said(streams) == {1: b"100000 xterm\r\n"}
        await streams.close()
        with pytest.raises(CannotExecute, match="too long") as error:
            await containers.execute(run, ["echo", "x" * 1_000_000])
        assert error.value.exit_code == 126
        assert run.exit is None
    finally:
        run.stop(0)
        await run.wait()
