"""Containers on this machine: what the rest of the node asks for, whatever the machine allows."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import termios
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from glebe.node.containers import supervisor
from glebe.node.containers.rundir import Run
from glebe.node.containers.streams import FdStreams
from glebe.node.contracts import ContainerSpec, Streams


class NotRunning(Exception):
    """There is no running process to talk to."""


class CannotExecute(Exception):
    """The command could not be started in the container; ``exit_code`` as a shell says it (127, 126)."""

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Usage:
    """What a run has used: processor seconds since its start, bytes it needs now, processes it has."""

    cpu_seconds: float
    memory_working_set: int
    processes: int


@dataclass(frozen=True, slots=True)
class Abilities:
    """What this machine allows, found by doing it."""

    mounts: bool = False
    cgroups: int = 0  # 0: none are writable, else 1 or 2
    networks: bool = False
    runtimes: Mapping[str, str] = None  # type: ignore[assignment]  # name (crun, runc) -> path


class Containers:
    """Starts containers and talks to them.

    :param agent_file: names the agent that runs now; :param window: how long containers go on without one (seconds).
    """

    runtime = "process"  # in containerID: RUNTIME://...

    def __init__(self, agent_file: Path, window: float) -> None:
        self._agent_file = agent_file
        self._window = window
        self.abilities = Abilities(runtimes={})

    @property
    def mounts(self) -> bool:
        """Whether mounts appear in containers; where not, paths are rewritten."""
        return self.abilities.mounts

    def prepare(self, spec: ContainerSpec, run: Run) -> None:
        """Write down what is to run, once; a run that was prepared before keeps what it has."""
        run.prepare(
            {
                "argv": list(spec.argv),
                "env": dict(spec.env),
                "cwd": spec.cwd,
                "log": str(run.log),
                "agent": str(self._agent_file),
                "grace": spec.grace,
                "window": self._window,
            }
        )

    async def execute(self, run: Run, argv: Sequence[str], *, tty: bool = False, stdin: bool = False) -> Streams:
        """Start a further process in a running container: its environment, directory, user and namespaces.

        It is ended with the container and by ``close`` of what is returned. With ``tty`` everything comes as stream 1.

        :raises NotRunning: the container has ended or has not begun.
        :raises CannotExecute: the command cannot be started.
        """
        command = run.command
        if command is None or not command.alive or run.exit is not None:
            raise NotRunning("container not running")
        spec = orjson.loads((run.path / "run.json").read_bytes())
        env = {**spec["env"], supervisor.MARK: str(run.path)}
        if tty:
            env.setdefault("TERM", "xterm")
        return _spawn(list(argv), env, spec["cwd"], tty, stdin)

    async def attach(self, run: Run, *, stdin: bool = False) -> Streams:
        """Talk to the container's own process, beside its log.

        :raises NotRunning: it has ended or has not begun.
        """
        raise NotRunning("this node cannot attach to containers yet")

    async def usage(self, run: Run) -> Usage | None:
        """What the run uses; ``None`` when it does not run."""
        return None

    def oom(self, run: Run) -> bool:
        """Whether the kernel killed a process of the run for its memory limit."""
        end = run.exit
        return end is not None and end.reason == "OOMKilled"


def _spawn(argv: list[str], env: dict[str, str], cwd: str, tty: bool, stdin: bool) -> FdStreams:
    ours: list[int] = []
    theirs: list[int] = []
    if tty:
        master, slave = os.openpty()
        ours, theirs = [master], [slave, slave, slave]
    else:
        for index in range(3):
            if index == 0 and not stdin:
                ours.append(-1)
                theirs.append(os.open(os.devnull, os.O_RDONLY))
            else:
                read, write = os.pipe()
                ours.append(write if index == 0 else read)
                theirs.append(read if index == 0 else write)

    def terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    try:
        child = subprocess.Popen(
            argv,
            stdin=theirs[0],
            stdout=theirs[1],
            stderr=theirs[2],
            env=env,
            cwd=cwd,
            start_new_session=True,
            preexec_fn=terminal if tty else None,
        )
    except OSError as error:
        for fd in set(ours) - {-1}:
            os.close(fd)
        raise CannotExecute(127 if isinstance(error, FileNotFoundError) else 126, str(error)) from None
    finally:
        for fd in set(theirs):
            os.close(fd)

    async def end() -> None:
        with contextlib.suppress(OSError):
            os.killpg(child.pid, signal.SIGKILL)

    code = _exit_code(child)
    if tty:
        return FdStreams(ours[0], {ours[0]: 1}, code, end, terminal=ours[0])
    return FdStreams(ours[0], {ours[1]: 1, ours[2]: 2}, code, end)


async def _exit_code(child: subprocess.Popen[bytes]) -> int:
    fd = os.pidfd_open(child.pid)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(fd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)
    code = child.wait()
    return 128 - code if code < 0 else code
