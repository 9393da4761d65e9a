"""Real processes under a real supervisor."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from glebe.node.containers import supervisor
from glebe.node.containers.crilog import read_log
from glebe.node.containers.rundir import Process, Run, place_of, runs_in

pytestmark = pytest.mark.realtime


async def until(what: Callable[[], Any], seconds: float = 5.0) -> Any:
    async with asyncio.timeout(seconds):
        while not what():  # noqa: ASYNC110 - files and processes give no event
            await asyncio.sleep(0.01)
    return what()


def spec(tmp: Path, *argv: str, grace: float = 5.0, window: float = 5.0, cwd: str = "/") -> dict[str, Any]:
    tmp.mkdir(exist_ok=True)
    agent = tmp / "agent"
    if not agent.exists():
        agent.write_text(f"{os.getpid()} {supervisor.start_time(os.getpid())}")
    run = tmp / "run"
    return {
        "argv": list(argv),
        "env": {"PATH": os.environ["PATH"], "X": "y"},
        "cwd": cwd,
        "log": str(run / "log"),
        "agent": str(agent),
        "grace": grace,
        "window": window,
    }


async def started(tmp: Path, *argv: str, **options: Any) -> Run:
    run = Run(tmp / "run")
    run.prepare(spec(tmp, *argv, **options))
    await run.start()
    return run


async def text_of(run: Run) -> bytes:
    return b"".join([chunk async for chunk in read_log(run.log, follow=False, finished=lambda: True)])


async def test_output_and_exit_code(tmp_path: Path) -> None:
    run = await started(tmp_path, "sh", "-c", "echo out $X; echo err >&2; printf tail; exit 3")
    end = await run.wait()
    assert end is not None
    assert (end.code, end.signal, end.reason) == (3, 0, "")
    assert end.started_at is not None
    assert end.started_at <= end.finished_at
    assert sorted((await text_of(run)).split(b"\n")) == [b"err", b"out y", b"tail"]
    line = run.log.read_text().splitlines()[0]
    assert line.split()[1:3] in (["stdout", "F"], ["stderr", "F"])


@pytest.mark.parametrize(("command", "code"), [("/no/such/command", 127), ("nosuchcommand", 127), ("/etc/passwd", 126)])
async def test_command_that_cannot_start(tmp_path: Path, command: str, code: int) -> None:
    run = await started(tmp_path, command)
    end = await run.wait()
    assert end is not None
    assert (end.code, end.reason) == (code, "StartError")
    assert command in end.message


async def test_missing_working_directory(tmp_path: Path) -> None:
    run = await started(tmp_path, "true", cwd="/no/such/dir")
    end = await run.wait()
    assert end is not None
    assert (end.code, end.reason) == (128, "StartError")


async def test_graceful_stop_then_kill(tmp_path: Path) -> None:
    polite = await started(tmp_path / "a", "sh", "-c", "trap 'echo bye; exit 0' TERM; sleep 60 & wait")
    polite.stop(5)
    end = await polite.wait()
    assert end is not None
    assert end.code == 0
    stubborn = await started(tmp_path / "b", "sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done")
    await until(lambda: stubborn.log.read_bytes())
    stubborn.stop(0.1)
    end = await stubborn.wait()
    assert end is not None
    assert (end.code, end.signal) == (137, signal.SIGKILL)


async def test_nothing_survives_the_container(tmp_path: Path) -> None:
    hide = "import os,time,sys\nos.setsid()\nprint(os.getpid(), flush=True)\ntime.sleep(60)"
    script = f"setsid {sys.executable} -c '{hide}' & sleep 0.01; while ! [ -s {tmp_path}/go ]; do sleep 0.01; done"
    run = await started(tmp_path, "sh", "-c", script.replace("os.setsid()\n", ""))
    line = await until(lambda: run.log.read_bytes())
    hidden = int(line.split()[3])
    assert supervisor.start_time(hidden)
    (tmp_path / "go").write_text("x")
    await run.wait()
    assert not supervisor.start_time(hidden)


async def test_a_run_starts_once_whoever_asks(tmp_path: Path) -> None:
    first, second = Run(tmp_path / "run"), Run(tmp_path / "run")
    first.prepare(spec(tmp_path, "sh", "-c", "echo once"))
    first._spawn()
    second._spawn()
    await asyncio.gather(first.start(), second.start())
    await asyncio.gather(first.wait(), second.wait())
    third = Run(tmp_path / "run")
    await third.start()
    assert await third.wait() is not None
    assert await text_of(third) == b"once\n"


async def test_container_ends_when_no_platform_comes_back(tmp_path: Path) -> None:
    gone = await asyncio.create_subprocess_exec("true")
    await gone.wait()
    (tmp_path / "agent").write_text(f"{gone.pid} 1")
    run = await started(tmp_path, "sleep", "60", window=0.2)
    end = await run.wait()
    assert end is not None
    assert (end.signal, end.reason) == (signal.SIGTERM, "PlatformGone")


async def test_container_goes_on_when_another_platform_comes_in_time(tmp_path: Path) -> None:
    platform = await asyncio.create_subprocess_exec("sleep", "60")
    (tmp_path / "agent").write_text(f"{platform.pid} {supervisor.start_time(platform.pid)}")
    run = await started(tmp_path, "sleep", "60", window=0.6)
    platform.kill()
    await platform.wait()
    (tmp_path / "agent").write_text(f"{os.getpid()} {supervisor.start_time(os.getpid())}")
    await asyncio.sleep(0.9)
    assert run.exit is None
    run.stop(1)
    assert await run.wait() is not None


async def test_killed_supervisor_takes_the_container_with_it(tmp_path: Path) -> None:
    run = await started(tmp_path, "sleep", "60")
    holder, command = run.supervisor, run.command
    assert holder is not None
    assert command is not None
    os.kill(holder.pid, signal.SIGKILL)
    assert await run.wait() is None
    await until(lambda: not command.alive)


async def test_killed_supervisor_leaves_no_grandchildren(tmp_path: Path) -> None:
    run = await started(tmp_path, "sh", "-c", "setsid sleep 60 & echo $!; sleep 61")
    hidden = int((await until(lambda: run.log.read_bytes())).split()[3])
    holder = run.supervisor
    assert holder is not None
    os.kill(holder.pid, signal.SIGKILL)
    assert await run.wait() is None
    await until(lambda: not supervisor.start_time(hidden))


def test_process_identity_includes_its_start_time() -> None:
    start = supervisor.start_time(os.getpid())
    assert Process(os.getpid(), start).alive
    assert not Process(os.getpid(), start + 1).alive
    assert not Process(2**22 + 1, 5).alive


async def test_a_supervisor_that_cannot_even_begin_is_noticed_at_once(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.prepare({**spec(tmp_path, "true"), "log": str(tmp_path / "none" / "log")})
    async with asyncio.timeout(5):
        await run.start()
        assert await run.wait() is None


def test_what_lies_in_a_volume_is_no_run(tmp_path: Path) -> None:
    """A pod could name any process in a ``claim`` there, and the node would end it."""
    for path in ("c/0", "volumes/0", "volumes_/3", "c/work"):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "run.json").write_text("{}")
    assert sorted(str(run.path.relative_to(tmp_path)) for run in runs_in(tmp_path)) == ["c/0", "volumes_/3"]
    assert place_of(tmp_path, "volumes") == tmp_path / "volumes_"
    assert place_of(tmp_path, "c") == tmp_path / "c"
