"""What a run uses, from its cgroups or, without, from /proc."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glebe.node.containers import cgroups
from glebe.node.containers.supervise import system

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGESIZE")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a run has used: processor seconds since its start, bytes it needs now, processes it has."""

    cpu_seconds: float
    memory_working_set: int
    processes: int


def of(group: dict[str, Any], supervisor: int) -> Usage | None:
    """Of a run with these cgroups (``run.json``'s ``cgroup``), else of all that descends from its supervisor."""
    counted = cgroups.usage(group) if group else None
    return Usage(*counted) if counted is not None else _summed(supervisor)


def _summed(supervisor: int) -> Usage | None:
    pids = system.descendants(supervisor)
    if not pids:
        return None
    cpu, memory = 0.0, 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            continue
        cpu += sum(map(int, fields[11:15])) / _TICKS  # its own and that of the children it has waited for
        memory += int(fields[21]) * _PAGE
    return Usage(cpu, memory, len(pids))
