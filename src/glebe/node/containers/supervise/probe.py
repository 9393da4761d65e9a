"""What this machine lets a supervisor do, found by doing it: ``python -I -S -m ... DIRECTORY`` prints a JSON object.

Keys: ``user`` (a user namespace is needed), ``mount``, ``pid``, ``hostname``, ``network``, ``overlay`` (booleans).
"""

from __future__ import annotations

import os

from glebe.node.containers.supervise import system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def _works(attempt: Callable[[], None]) -> bool:
    """Whether it does, in a process of its own."""
    pid = os.fork()
    if pid == 0:
        try:
            attempt()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


def _own_mounts() -> None:
    system.unshare(system.CLONE_NEWNS)
    system.mount("", "/", "", system.MS_REC | system.MS_SLAVE)


def probe(directory: str) -> dict[str, bool]:
    """Try everything; nothing of it stays."""

    def mount(user: bool) -> None:
        if user:
            system.map_self()
        _own_mounts()
        system.mount(directory, directory, "", system.MS_BIND)
        system.set_read_only(directory, False)

    direct = _works(lambda: mount(False))
    user = not direct and _works(lambda: mount(True))

    def prepared(attempt: Callable[[], None]) -> bool:
        def whole() -> None:
            if user:
                system.map_self()
            attempt()

        return (direct or user) and _works(whole)

    return {
        "user": user,
        "mount": direct or user,
        "pid": prepared(_pids),
        "hostname": prepared(_hostname),
        "network": direct and _works(lambda: system.enter("/proc/self/ns/net", system.CLONE_NEWNET)),
        "overlay": prepared(lambda: _overlay(directory)),
    }


def _pids() -> None:
    system.unshare(system.CLONE_NEWPID)
    pid = os.fork()
    if pid == 0:
        try:
            _own_mounts()
            system.mount("proc", "/proc", "proc")
            os._exit(0)
        finally:
            os._exit(1)
    if os.waitpid(pid, 0)[1]:
        raise OSError(1, "no /proc in a PID namespace")


def _hostname() -> None:
    system.unshare(system.CLONE_NEWUTS)
    system.set_hostname("probe")


def _overlay(directory: str) -> None:
    _own_mounts()
    names = [os.path.join(directory, name) for name in ("lower", "upper", "work", "merged")]
    for name in names:
        os.mkdir(name)
    system.mount("overlay", names[3], "overlay", 0, "lowerdir={},upperdir={},workdir={}".format(*names))
