"""What a container may use, held by cgroups, or where there are none by looking now and then (a best effort).

``run.json`` has in ``cgroup``: ``make`` (in this order: [path, null], a directory, or [path, text] to write),
``directories`` (to remove in the end, and then their parents if they are empty), ``procs`` (files that processes
enter), ``events`` (the file whose ``oom_kill N`` counts). In ``memory``: the bound in bytes where no cgroup holds it.
The file ``limits.json`` in the run directory replaces that bound while it runs.
"""

# ruff: noqa: SIM105 - contextlib is not imported here
from __future__ import annotations

import os
import time

from glebe.node.containers.supervise import system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LOOK = 0.5  # seconds between two looks at memory without a cgroup
_PAGE = os.sysconf("SC_PAGESIZE")


class Limits:
    def __init__(self, run: dict[str, Any], run_dir: str) -> None:
        self._group: dict[str, Any] = run.get("cgroup") or {}
        self._bound: int | None = run.get("memory")
        self._changes = os.path.join(run_dir, "limits.json")
        self._changed = 0.0
        self.procs: list[int] = []
        self.exceeded = False

    @property
    def watching(self) -> bool:
        """Whether there is a bound that no cgroup holds."""
        return self._bound is not None

    def open(self) -> None:
        """Make the cgroups.

        :raises OSError: they cannot be made or written.
        """
        for attempt in range(5):
            try:
                for path, text in self._group.get("make") or ():
                    if text is None:
                        os.makedirs(path, exist_ok=True)
                    else:
                        system.write(path, text)
                break
            except FileNotFoundError:  # another's end has removed the common parent just now
                if attempt == 4:
                    raise
        for path in self._group.get("procs") or ():
            self.procs.append(os.open(path, os.O_WRONLY | os.O_CLOEXEC))

    def out_of_memory(self) -> bool:
        """Whether a process was killed for the memory limit."""
        path = self._group.get("events")
        if self.exceeded or not path:
            return self.exceeded
        try:
            with open(path) as file:
                return any(line.startswith("oom_kill ") and int(line.split()[1]) > 0 for line in file)
        except (OSError, ValueError):
            return False

    def look(self) -> bool:
        """Whether the container has more memory than it may (without a cgroup)."""
        if self._bound is None:
            return False
        pids = system.descendants(os.getpid())
        if sum(map(_resident, pids)) <= self._bound:
            return False
        self.exceeded = sum(map(_proportional, pids)) > self._bound  # exact, but dear: shared pages count once
        return self.exceeded

    def refresh(self) -> None:
        """Take over a bound that was changed; whoever changes it wakes the supervisor."""
        try:
            changed = os.stat(self._changes).st_mtime
            if changed != self._changed:
                with open(self._changes) as file:
                    self._bound = system.loads(file.read()).get("memory")
                self._changed = changed
        except (OSError, ValueError, StopIteration):
            pass

    def close(self) -> None:
        """Remove the cgroups; their processes have ended."""
        for fd in self.procs:
            os.close(fd)
        remove(self._group)


def remove(group: dict[str, Any]) -> None:
    """Remove a run's cgroups and, when it was the last, their parent."""
    for directory in (*(group.get("directories") or ()), *(group.get("others") or ())):
        for _ in range(50):
            try:
                os.rmdir(directory)
                break
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(0.01)  # a process that was killed just now still counts
        try:
            os.rmdir(os.path.dirname(directory))
        except OSError:
            pass  # others are there


def _resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _proportional(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            return sum(int(line.split()[1]) * 1024 for line in file if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
    except (OSError, IndexError):
        return _resident(pid)
