"""Containers on the machine's own file system: what a supervisor does through the process inside."""

# ruff: noqa: SIM105 - contextlib is not imported here
from __future__ import annotations

import _socket
import errno
import os

from glebe.node.containers.supervise import inside, system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class CannotStart(Exception):
    """Nothing runs; ``exit_code`` is what a shell would say (127 not found, 126 not executable)."""

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def cannot_start(failed: dict[str, Any]) -> CannotStart:
    """What a step's failure means for who reads the pod's status."""
    if "error" in failed:
        return CannotStart(failed["code"], failed["error"])
    number, stage, what = failed["errno"], failed["stage"], failed["what"]
    text = os.strerror(number)
    if stage == "chdir":
        return CannotStart(128, f'workingDir "{what}": {text}')
    if stage == "exec" and number == errno.ENOENT:
        return CannotStart(127, f'command "{what}" not found on this machine')
    if stage == "exec":
        return CannotStart(126, f'command "{what}" cannot be executed: {text}')
    return CannotStart(128, f"{stage} {what}: {text}" if what else f"{stage}: {text}")


class Native:
    """:param mark: variables that everything in the run inherits; :param procs: open ``cgroup.procs`` files."""

    def __init__(self, run: dict[str, Any], mark: dict[str, str], procs: list[int]) -> None:
        self._run = run
        self._mark = mark
        self._procs = procs
        self._inside = 0  # pid
        self.console = -1  # our end of the terminal is the supervisor's own
        self._ended: Callable[[int, int], None] = lambda number, status: None
        self._began: Callable[[int, dict[str, Any]], None] = lambda number, message: None
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self.channel, self._theirs = ours, theirs

    def listen(self, began: Callable[[int, dict[str, Any]], None], ended: Callable[[int, int], None]) -> None:
        """Who is told that something began (or failed to), and that it ended."""
        self._began, self._ended = began, ended

    def open(self) -> None:
        """Make the container's namespaces.

        :raises CannotStart: a step failed.
        """
        spaces = self._run.get("namespaces") or {}
        try:
            if spaces.get("user"):
                system.map_self()
            if spaces.get("pid"):
                system.unshare(system.CLONE_NEWPID)
        except OSError as error:
            raise CannotStart(128, f"namespaces: {error.strerror}") from error
        parent = os.getpid()
        self._inside = os.fork()
        if self._inside == 0:
            self.channel.close()
            seen = 0 if spaces.get("pid") else parent
            inside.Inside(self._run, self._theirs, self._mark, self._procs).main(parent, seen)
        self._theirs.close()
        said, _ = inside.receive(self.channel)
        if said is None:
            raise CannotStart(128, "the process inside ended before it was ready")
        if "failed" in said:
            raise cannot_start(said)

    def start_main(self, fds: list[int]) -> int:
        """Start the container's own process; its pid on the machine.

        :raises CannotStart: it cannot be executed.
        """
        self.execute(0, self._run["argv"], bool(self._run.get("tty")), tuple(fds))
        said, _ = inside.receive(self.channel)
        if said is None:
            raise CannotStart(128, "the process inside ended before it could start anything")
        if "failed" in said:
            raise cannot_start(said)
        return self._outer(said["pid"])

    def _outer(self, pid: int) -> int:
        """The machine's number of a process that the one inside knows by another."""
        for other in system.children(self._inside):
            try:
                with open(f"/proc/{other}/status") as file:
                    numbers = next(line for line in file if line.startswith("NSpid:")).split()[1:]
            except (OSError, StopIteration):
                continue
            if int(numbers[-1]) == pid:
                return other
        return self._inside if (self._run.get("namespaces") or {}).get("pid") else pid  # it has ended already

    def execute(self, number: int, argv: list[str], tty: bool, fds: tuple[int, ...]) -> None:
        """Start a further process; whether it began is told later."""
        # Environment and directory are known inside: together they may be more than a packet holds.
        message = {"start": number, "argv": argv if number else None, "tty": tty}
        try:
            inside.send(self.channel, message, fds)
        except OSError as error:
            failed = {"failed": number, "error": f"command: {error.strerror}", "code": 126}
            self._began(number, failed)

    def signal(self, number: int, to: int = 0) -> None:
        """Send a signal to the group of a process."""
        try:
            inside.send(self.channel, {"signal": number, "to": to})
        except OSError:
            pass

    def hear(self) -> bool:
        """Take one message; ``False``: there will be no more."""
        try:
            said, _ = inside.receive(self.channel)
        except OSError:
            said = None
        if said is None:
            return False
        if "ended" in said:
            self._ended(said["ended"], said["status"])
        elif "started" in said:
            self._began(said["started"], said)
        elif "failed" in said:
            self._began(said["failed"], said)
        return True

    def reaped(self, pid: int, status: int) -> None:
        """A child of the supervisor has ended: when it is the one inside, the container has."""
        if pid == self._inside:
            while self.hear():
                pass
            self._ended(0, status)

    def close(self) -> None:
        """End everything; in a PID namespace this is the kernel's work."""
        if self._inside > 0:
            try:
                os.kill(self._inside, system.SIGKILL)
                os.waitpid(self._inside, 0)
            except OSError:
                pass
            self._inside = -1
