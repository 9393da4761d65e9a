"""The kernel as a supervisor needs it: calls that Python 3.11 does not have, /proc, small JSON files."""

from __future__ import annotations

import ctypes
import os
import sys
from _json import encode_basestring_ascii, make_scanner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = (
    0x20000,
    0x4000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC = 1, 2, 4, 8, 32, 4096, 16384
MS_PRIVATE, MS_SLAVE = 1 << 18, 1 << 19
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 24, 36, 38
SIGKILL = 9

_PIVOT_ROOT = {"x86_64": 155}.get(os.uname().machine, 41)
_MOUNT_SETATTR = 442
_AT_FDCWD, _AT_RECURSIVE, _ATTR_RDONLY = -100, 0x8000, 1

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str = "") -> int:
    """The result of a call.

    :raises OSError: it is -1.
    """
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what or None)
    return result


def prctl(option: int, value: int) -> None:
    """Set something of this process."""
    check(libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0))


def unshare(flags: int) -> None:
    """Leave namespaces for new ones (pids: what is forked from now on)."""
    check(libc.unshare(flags))


def enter(path: str, kind: int) -> None:
    """Join the namespace that ``path`` names."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        check(libc.setns(fd, kind), path)
    finally:
        os.close(fd)


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    words = [word.encode() if word else None for word in (source, target, kind)]
    check(libc.mount(*words, ctypes.c_ulong(flags), data.encode() if data else None), target)


def unmount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2)."""
    check(libc.umount2(target.encode(), flags), target)


def pivot(root: str) -> None:
    """``root``, a mount point, becomes the root; the old one is let go."""
    os.chdir(root)
    check(libc.syscall(ctypes.c_long(_PIVOT_ROOT), b".", b"."), root)
    unmount(".")
    os.chdir("/")


class _Attributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]


def set_read_only(target: str, recursive: bool, on: bool = True) -> None:
    """Make a mount (and those below it) read only, or writable again."""
    attributes = _Attributes(_ATTR_RDONLY if on else 0, 0 if on else _ATTR_RDONLY, 0, 0)
    call = (ctypes.c_long(_MOUNT_SETATTR), _AT_FDCWD, target.encode(), _AT_RECURSIVE if recursive else 0)
    if libc.syscall(*call, ctypes.byref(attributes), ctypes.c_size_t(32)) == 0:
        return
    if ctypes.get_errno() != 38 or recursive:  # ENOSYS: a kernel before 5.12, which cannot do many at once
        check(-1, target)
    kept = os.statvfs(target).f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("", target, "", MS_REMOUNT | MS_BIND | kept | (MS_RDONLY if on else 0))


def set_hostname(name: str) -> None:
    """The host name of this UTS namespace."""
    data = name.encode()
    check(libc.sethostname(data, len(data)))


def map_self() -> None:
    """In a new user namespace: keep the numbers that this process has."""
    user, group = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def be_ordinary() -> None:
    """Leave the real-time class of an agent that has one: no cgroup without a share of it would take us."""
    if os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def mounts_below(directory: str) -> list[str]:
    """Mount points in a directory, the innermost first."""
    found = []
    with open("/proc/self/mounts") as file:
        for line in file:
            target = line.split()[1]
            for code, sign in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
                target = target.replace(code, sign)
            if target.startswith(directory + "/"):
                found.append(target)
    return found[::-1]


def start_time(pid: int) -> int:
    """Field 22 of /proc/PID/stat (clock ticks since boot), 0 when there is no such process or it is a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return 0 if fields[0] in (b"Z", b"X") else int(fields[19])
    except (OSError, IndexError):
        return 0


def children(pid: int) -> list[int]:
    """The children of a single-threaded process."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def descendants(pid: int) -> list[int]:
    """All that descend from a process, as far as their parents live or are reaped by it."""
    found, todo = [], [pid]
    while todo:
        for tasks in _tasks(todo.pop()):
            found.extend(tasks)
            todo.extend(tasks)
    return found


def _tasks(pid: int) -> list[list[int]]:
    out = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                out.append([int(word) for word in file.read().split()])
    except OSError:
        pass
    return out


# --- JSON without the modules that the standard library needs for it (8 ms of a start)


class _Rules:
    strict, object_hook, object_pairs_hook = True, None, None
    parse_float, parse_int, parse_constant = float, int, float
    memo: dict[str, str] = {}  # noqa: RUF012


def loads(text: str) -> Any:
    """The value of a JSON text that begins without white space."""
    return make_scanner(_Rules())(text, 0)[0]  # type: ignore[arg-type]


def dumps(value: Any) -> str:
    """A value of None, bool, int, float, str, list and dict (with str keys) as JSON."""
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return encode_basestring_ascii(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{encode_basestring_ascii(str(k))}: {dumps(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(dumps, value)) + "]"
    return int.__repr__(value) if isinstance(value, int) else float.__repr__(value)


def write_json(path: str, value: dict[str, Any]) -> None:
    """Write a file whole or not at all."""
    with open(path + ".tmp", "w") as file:
        file.write(dumps(value))
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".tmp", path)


def write(path: str, text: str) -> None:
    """Write into a file of the kernel."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def note(text: str) -> None:
    """Something for whoever runs a supervisor by hand."""
    sys.stderr.write(text + "\n")
