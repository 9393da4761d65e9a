"""Control groups: where this machine lets us make some, and what a container's limits are in them.

Everything lies flat in one directory ``glebe`` per hierarchy, so that what an agent that was killed left behind is
found by its name (``NODE-KEY.UID.CONTAINER.ATTEMPT``).
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glebe.node.containers.supervise import limits as supervised
from glebe.node.containers.supervise import system
from glebe.node.contracts import Limits

PARENT = "glebe"
_WANTED = ("memory", "cpu", "pids")
_PERIOD = 100_000  # microseconds, as the kubelet's
_MIN_QUOTA = 1_000
_UNLIMITED_V1 = -1
_FORGOTTEN = 600.0  # seconds that a group is empty until it counts as left over, whoever made it


@dataclass(frozen=True, slots=True)
class Groups:
    """Where control groups can be made: controller -> directory of its hierarchy that we write to.

    With version 2 there is one hierarchy, so all directories are the same.
    """

    version: int = 0
    bases: tuple[tuple[str, str], ...] = ()
    others: tuple[
        str, ...
    ] = ()  # version 1: hierarchies that we leave alone, and in which runc makes groups all the same

    @property
    def controllers(self) -> frozenset[str]:
        return frozenset(name for name, _ in self.bases)

    def directories(self, name: str) -> dict[str, str]:
        """Controller -> the directory of the group ``name``."""
        return {controller: f"{base}/{PARENT}/{name}" for controller, base in self.bases}


def find(mounts: str | None = None) -> Groups:
    """What can be used here, found by making a group in each hierarchy and removing it."""
    text = mounts if mounts is not None else Path("/proc/self/mounts").read_text()
    unified, separate, every = "", dict[str, str](), dict[str, None]()
    for line in text.splitlines():
        _, target, kind, options, *_ = line.split()
        if kind == "cgroup2":
            unified = unified or target
        elif kind == "cgroup":
            every[target] = None
            for name in set(options.split(",")) & {*_WANTED, "cpuacct"}:
                separate.setdefault(name, target)
    if "memory" in separate or "cpu" in separate:
        usable = sorted((name, base) for name, base in separate.items() if _can_make(base))
        others = tuple(target for target in every if target not in dict(usable).values())
        return Groups(1, tuple(usable), others) if usable else Groups()
    return _find_unified(unified) if unified else Groups()


def _can_make(base: str) -> bool:
    probe = Path(base, PARENT, f"probe.{os.getpid()}")
    try:
        probe.mkdir(parents=True, exist_ok=True)
        return True
    except OSError:
        return False
    finally:
        for directory in (probe, probe.parent):
            with contextlib.suppress(OSError):
                directory.rmdir()


def _find_unified(mount: str) -> Groups:
    """Version 2: a group with processes of its own cannot hand controllers on, so our own group is tried last."""
    own = ""
    with contextlib.suppress(OSError):
        own = next(x[3:] for x in Path("/proc/self/cgroup").read_text().splitlines() if x.startswith("0::"))
    for base in dict.fromkeys((mount, f"{mount}{own.rstrip('/')}", str(Path(f"{mount}{own}").parent))):
        have = _enable(base)
        if have:
            return Groups(2, tuple((name, base) for name in sorted(have)))
    return Groups()


def _enable(base: str) -> set[str]:
    try:
        offered = set(Path(base, "cgroup.controllers").read_text().split()) & set(_WANTED)
    except OSError:
        return set()
    if not offered:
        return set()
    parent = Path(base, PARENT)
    probe = parent / f"probe.{os.getpid()}"
    try:
        for directory in (Path(base), parent):
            directory.mkdir(exist_ok=True)
            system.write(str(directory / "cgroup.subtree_control"), " ".join(f"+{x}" for x in sorted(offered)))
        probe.mkdir(exist_ok=True)
        return set((probe / "cgroup.controllers").read_text().split()) & offered
    except OSError:
        return set()
    finally:
        for directory in (probe, parent):
            with contextlib.suppress(OSError):
                directory.rmdir()


# --- a container's limits


def plan(groups: Groups, name: str, limits: Limits) -> dict[str, Any]:
    """What a supervisor makes of it (see :mod:`glebe.node.containers.supervise.limits`); empty without cgroups."""
    if not groups.version:
        return {}
    at = groups.directories(name)
    directories = list(dict.fromkeys(at.values()))
    make: list[list[str | None]] = []
    if groups.version == 2:
        base = groups.bases[0][1]
        enable = " ".join(f"+{x}" for x in sorted(groups.controllers))
        make += [[f"{base}/cgroup.subtree_control", enable], [f"{base}/{PARENT}", None]]
        make.append([f"{base}/{PARENT}/cgroup.subtree_control", enable])
    make += [[directory, None] for directory in directories]
    make += [[path, text] for path, text in values(groups, name, limits)]
    events = {1: "memory.oom_control", 2: "memory.events"}[groups.version]
    return {
        "version": groups.version,
        "make": make,
        "directories": directories,
        "others": [f"{base}/{PARENT}/{name}" for base in groups.others],
        "procs": [f"{directory}/cgroup.procs" for directory in directories],
        "events": f"{at['memory']}/{events}" if "memory" in at else "",
    }


def values(groups: Groups, name: str, limits: Limits) -> Iterable[tuple[str, str]]:
    """Files and what is to be written into them, as the kubelet computes it from requests and limits."""
    at = groups.directories(name)
    shares = max(2, limits.cpu_request * 1024 // 1000)
    quota = max(_MIN_QUOTA, limits.cpu * _PERIOD // 1000) if limits.cpu else None
    table: dict[tuple[str, int], list[tuple[str, str]]] = {
        ("memory", 1): [("memory.limit_in_bytes", str(limits.memory or _UNLIMITED_V1))],
        ("memory", 2): [("memory.max", str(limits.memory or "max")), ("memory.oom.group", "1")],
        ("cpu", 1): [
            ("cpu.shares", str(shares)),
            ("cpu.cfs_period_us", str(_PERIOD)),
            ("cpu.cfs_quota_us", str(quota or -1)),
        ],
        ("cpu", 2): [("cpu.weight", str(weight(shares))), ("cpu.max", f"{quota or 'max'} {_PERIOD}")],
        ("pids", 1): [("pids.max", str(limits.processes or "max"))],
        ("pids", 2): [("pids.max", str(limits.processes or "max"))],
    }
    for controller in _WANTED:
        for file, text in table[controller, groups.version] if controller in at else ():
            yield f"{at[controller]}/{file}", text


def seen(groups: Groups, name: str) -> dict[str, str]:
    """Where a container finds its own group below ``/sys/fs/cgroup``: place -> directory of the machine."""
    at = groups.directories(name)
    if groups.version == 2:
        return {"": next(iter(at.values()))}
    bases = dict(groups.bases)
    return {place: at[name] for name in at for place in dict.fromkeys((name, os.path.basename(bases[name])))}


def weight(shares: int) -> int:
    """Version 2's weight (1 to 10000) for version 1's shares (2 to 262144), as runtimes convert them."""
    return 1 + (min(max(shares, 2), 262144) - 2) * 9999 // 262142


def group_name(key: str, run: Path) -> str:
    """The group of a run directory ``.../UID/CONTAINER/ATTEMPT`` of the node ``key``."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", ".".join((key, *run.parts[-3:])))


# --- what is in a group


def read_int(path: str, default: int = 0) -> int:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return default


def read_table(path: str) -> dict[str, int]:
    try:
        return {k: int(v) for k, v in (line.split() for line in Path(path).read_text().splitlines())}
    except (OSError, ValueError):
        return {}


def usage(group: dict[str, Any]) -> tuple[float, int, int] | None:
    """Processor seconds, working set in bytes and number of processes; ``None``: the group is not there."""
    at = {name: d for d in group["directories"] for name in d.split("/")[-3].split(",")}
    directories = group["directories"]
    if not directories or not os.path.isdir(directories[0]):
        return None
    first = directories[0]
    if group["version"] == 2:
        cpu = read_table(f"{first}/cpu.stat").get("usage_usec", 0) / 1e6
        used, idle = read_int(f"{first}/memory.current"), read_table(f"{first}/memory.stat").get("inactive_file", 0)
    else:
        cpu = max(read_int(f"{directory}/cpuacct.usage") for directory in directories) / 1e9
        memory = at.get("memory", first)
        used = read_int(f"{memory}/memory.usage_in_bytes")
        idle = read_table(f"{memory}/memory.stat").get("total_inactive_file", 0)
    return cpu, max(0, used - idle), len(processes(group))


def processes(group: dict[str, Any]) -> list[int]:
    """Who is in the group."""
    found: dict[int, None] = {}
    for path in group.get("procs") or ():
        with contextlib.suppress(OSError, ValueError):
            found.update(dict.fromkeys(map(int, Path(path).read_text().split())))
    return list(found)


def clear(group: dict[str, Any]) -> None:
    """Kill whoever is left in a group and remove it."""
    for _ in range(20):
        pids = [pid for pid in processes(group) if pid > 0]
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if not pids:
            break
    supervised.remove(group)


def left_over(groups: Groups, key: str, known: Iterable[str], now: float) -> list[dict[str, Any]]:
    """The groups of the node ``key`` that belong to no run that is known, and old empty ones of whatever node.

    :param now: seconds since the epoch.
    """
    wanted = set(known)
    names: dict[str, None] = {}
    for _, base in groups.bases:
        with contextlib.suppress(OSError):
            for entry in sorted(os.scandir(f"{base}/{PARENT}"), key=lambda entry: entry.name):
                if entry.is_dir() and (entry.name.startswith(f"{key}.") or _is_forgotten(entry.path, now)):
                    names[entry.name] = None
    return [plan(groups, name, Limits()) for name in names if name not in wanted]


def _is_forgotten(directory: str, now: float) -> bool:
    """A group is empty only for a moment at its run's start; else its supervisor was killed and nobody came back."""
    try:
        return now - os.stat(directory).st_ctime > _FORGOTTEN and not Path(directory, "cgroup.procs").read_text()
    except OSError:
        return False
