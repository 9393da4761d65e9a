"""Containers of a node without the node: runs under real supervisors, with what this machine allows."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from glebe.node.containers import abilities, cgroups, supervisor
from glebe.node.containers.abilities import Abilities
from glebe.node.containers.containers import Containers
from glebe.node.containers.rundir import Run
from glebe.node.contracts import ContainerSpec, Streams

BASE = {"PATH": os.environ.get("PATH", "/usr/bin:/bin")}


@functools.cache
def machine() -> Abilities:
    """What the machine that the tests run on allows."""
    with tempfile.TemporaryDirectory() as directory:
        return abilities.look(Path(directory))


async def until(what: Callable[[], Any], seconds: float = 5.0) -> Any:
    async with asyncio.timeout(seconds):
        while not what():  # noqa: ASYNC110 - files and processes give no event
            await asyncio.sleep(0.01)
    return what()


class World:
    def __init__(self, directory: Path, containers: Containers) -> None:
        self.directory = directory
        self.containers = containers
        self.runs: list[Run] = []

    def prepare(self, *argv: str, **options: Any) -> Run:
        run = Run(self.directory / "pods" / "uid" / f"c{len(self.runs)}" / "0")
        given: dict[str, Any] = {"env": BASE, "cwd": "/", "grace": 0.3, **options}
        self.containers.prepare(ContainerSpec(list(argv), **given), run)
        self.runs.append(run)
        return run

    async def start(self, *argv: str, **options: Any) -> Run:
        run = self.prepare(*argv, **options)
        await run.start()
        return run

    async def say(self, *argv: str, **options: Any) -> str:
        """What a container prints that ends by itself; with its exit code and reason when it fails."""
        run = await self.start(*argv, **options)
        end = await run.wait()
        assert end is not None
        text = lines(run)
        return text if end.code == 0 else f"{text}[{end.code} {end.reason} {end.message}]"


def lines(run: Run) -> str:
    """The container's output without times and streams."""
    return "".join(line.split(" ", 3)[3] + "\n" for line in run.log.read_text().splitlines())


async def said(streams: Streams) -> dict[int, bytes]:
    out: dict[int, bytes] = {}
    async with asyncio.timeout(5):
        async for stream, data in streams.output():
            out[stream] = out.get(stream, b"") + data
    return out


@contextlib.asynccontextmanager
async def world(tmp: Path, *, isolate: bool = True, **options: Any) -> AsyncIterator[World]:
    agent = tmp / "agent"
    agent.write_text(f"{os.getpid()} {supervisor.start_time(os.getpid())}")
    made = World(tmp, Containers(agent, 2.0, isolate=isolate, now=time.time, **options))
    if isolate:
        made.containers.abilities = machine()
    try:
        yield made
    finally:
        for run in made.runs:
            run.stop(0)
        for run in made.runs:
            if run.supervisor is not None:
                await run.wait()


def groups_of(run: Run) -> list[str]:
    """The run's cgroup directories that exist."""
    group = run.spec.get("cgroup") or {}
    return [directory for directory in group.get("directories", ()) if os.path.isdir(directory)]


def in_group(run: Run) -> list[int]:
    return cgroups.processes(run.spec.get("cgroup") or {})
