"""One run of one container on this machine, seen from the platform: a directory that a supervisor works in.

See :mod:`glebe.node.containers.supervisor` for the files. Everything here bears being repeated: starting a run that
is started already finds it, in this process or in the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from glebe.node.containers import cgroups, supervisor
from glebe.node.status import Exit

_SCRIPT = Path(supervisor.__file__)
_POLL = 0.01  # seconds, while a supervisor starts (it takes about 20 ms)
_START_TIMEOUT = 20.0


_VOLUMES = "volumes"


def place_of(pod_dir: Path, container: str) -> Path:
    """Where a container's runs are; one that is called ``volumes`` must not meet its pod's volumes."""
    return pod_dir / (f"{container}_" if container == _VOLUMES else container)


def runs_in(pod_dir: Path) -> list[Run]:
    """All runs of a pod. What lies in its volumes is the pod's own, whatever it is called."""
    found = (path.parent for path in pod_dir.glob("*/*/run.json"))
    return [Run(path) for path in found if path.name.isdigit() and path.parent.name != _VOLUMES]


@dataclass(frozen=True, slots=True)
class Process:
    """A process of this boot, told from a later one with the same pid by its start time."""

    pid: int
    start: int

    @property
    def alive(self) -> bool:
        return supervisor.start_time(self.pid) == self.start != 0


class Run:
    """A run directory. ``spec`` is what the supervisor is to do (its ``run.json``)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._child: subprocess.Popen[bytes] | None = None

    def prepare(self, spec: dict[str, Any]) -> None:
        """Write down what is to run, once; a run that was prepared before keeps what it has."""
        self.path.mkdir(parents=True, exist_ok=True)
        if not (self.path / "run.json").exists():
            supervisor.write_json(str(self.path / "run.json"), spec)

    @property
    def prepared(self) -> bool:
        return (self.path / "run.json").exists()

    @property
    def log(self) -> Path:
        return self.path / "log"

    @property
    def spec(self) -> dict[str, Any]:
        """What the supervisor was told; empty before it was prepared."""
        return self._read("run.json") or {}

    # --- what the supervisor says

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            value = orjson.loads((self.path / name).read_bytes())
        except (OSError, orjson.JSONDecodeError):
            return None
        return value if isinstance(value, dict) else None

    @property
    def started_at(self) -> float | None:
        """When the command began to run."""
        started = self._read("started.json")
        return float(started["at"]) if started else None

    @property
    def command(self) -> Process | None:
        """The container's own process."""
        started = self._read("started.json")
        return Process(int(started["pid"]), int(started["start"])) if started else None

    @property
    def supervisor(self) -> Process | None:
        try:
            pid, start = (self.path / "claim").read_text().split()
        except (OSError, ValueError):
            return None
        return Process(int(pid), int(start))

    @property
    def exit(self) -> Exit | None:
        """How the run ended, if it has."""
        value = self._read("exit.json")
        if value is None:
            return None
        started = float(value["startedAt"]) or None
        finished = float(value["finishedAt"])
        return Exit(int(value["code"]), finished, started, value["reason"], value["message"], int(value["signal"]))

    # --- start, wait, stop

    async def start(self) -> None:
        """Start the prepared run unless it was started before; returns when it runs or has ended."""
        if self.supervisor is None and self.exit is None:
            self._spawn()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _START_TIMEOUT
        while self.exit is None and self.started_at is None and loop.time() < deadline:
            holder = self.supervisor
            ended = self._child is not None and self._child.poll() is not None if holder is None else not holder.alive
            if ended and self.exit is None and self.started_at is None and self.supervisor == holder:
                return  # it died in between, perhaps before it could claim the run: ``wait`` says so
            await asyncio.sleep(_POLL)

    def _spawn(self) -> None:
        arguments = [sys.executable, "-I", "-S", str(_SCRIPT), str(self.path)]
        self._child = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={},
            cwd="/",
        )

    async def wait(self) -> Exit | None:
        """Wait for the end; ``None`` when the supervisor vanished without a word (then the command is killed)."""
        holder = self.supervisor
        if self.exit is None and holder is not None:
            await _wait_process(holder)
        if self._child is not None:
            if holder is None:
                self._child.kill()  # it never came so far as to claim the run
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self._child.wait, 5.0)
        if self.exit is None:
            self._kill_orphan()
        return self.exit

    def _kill_orphan(self) -> None:
        """Kill what a supervisor that was killed itself could not: known by the mark that all of the run inherit.

        The kernel ends what is in a PID namespace with the process inside; cgroups stay and are removed here.
        """
        mark = f"{supervisor.MARK}={self.path}".encode()
        for _ in range(20):  # a process may fork while we look
            left = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _has_mark(pid, mark)]
            for pid in left:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            if not left:
                break
        group = self.spec.get("cgroup")
        if group:
            cgroups.clear(group)

    def stop(self, grace: float) -> None:
        """Ask the supervisor to end the container, with SIGKILL after ``grace`` seconds. Repeating can shorten it."""
        holder = self.supervisor
        if self.exit is not None or holder is None or not holder.alive:
            return
        temporary = self.path / "grace.tmp"
        temporary.write_text(f"{grace:g}")
        temporary.replace(self.path / "grace")
        with contextlib.suppress(OSError):
            os.kill(holder.pid, signal.SIGTERM)


def _has_mark(pid: int, mark: bytes) -> bool:
    try:
        return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


async def _wait_process(process: Process) -> None:
    """Until the process has ended."""
    try:
        fd = os.pidfd_open(process.pid)
    except OSError:
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    try:
        if process.alive:
            loop.add_reader(fd, ended.set)
            await ended.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)
