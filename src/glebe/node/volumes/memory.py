"""``emptyDir`` of medium ``Memory``: a tmpfs where this process may mount one, a directory on disk elsewhere."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

_NOSUID: Final = 2
_NODEV: Final = 4
_DETACH: Final = 2


def mounted_below(directory: Path) -> list[str]:
    """Mount points at or below ``directory``, deepest first."""
    base = os.path.realpath(directory)
    found = []
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        point = line.split(" ")[4].encode().decode("unicode_escape")
        if point == base or point.startswith(base + "/"):
            found.append(point)
    return sorted(found, key=len, reverse=True)


def mount(path: Path, size: int | None) -> bool:
    """Mount a tmpfs of at most ``size`` bytes at ``path`` unless there is one; ``False``: not allowed here."""
    if os.geteuid() != 0:
        return False
    if os.path.realpath(path) in mounted_below(path):
        return True
    options = "mode=1777" + (f",size={size}" if size else "")
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.mount(b"tmpfs", os.fsencode(path), b"tmpfs", _NOSUID | _NODEV, options.encode())
    return bool(done == 0)


def unmount_all(directory: Path) -> None:
    """Unmount everything below ``directory``, also what is in use."""
    points = mounted_below(directory)
    if points:
        libc = ctypes.CDLL(None, use_errno=True)
        for point in points:
            libc.umount2(os.fsencode(point), _DETACH)
