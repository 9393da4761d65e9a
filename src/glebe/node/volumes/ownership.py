"""``fsGroup``: volumes belong to the pod's group, where the node may say so (as root)."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, Final

_WRITE: Final = 0o660
_READ: Final = 0o440
_ENTER: Final = 0o110


def group_of(pod_spec: dict[str, Any]) -> int | None:
    """The pod's ``fsGroup``; ``None`` also where this process may not give files to groups."""
    group = (pod_spec.get("securityContext") or {}).get("fsGroup")
    return int(group) if group is not None and os.geteuid() == 0 else None


def give(root: Path, group: int, *, read_only: bool) -> None:
    """Everything below ``root`` (without following links) to ``group``, readable or also writable for it.

    :raises OSError: the file system refuses.
    """
    give_one(root, group, read_only)
    for base, directories, files in os.walk(root):
        for name in (*directories, *files):
            give_one(Path(base, name), group, read_only)


def belongs(root: Path, group: int, *, read_only: bool) -> bool:
    """Whether the top is as :func:`give` leaves it (``fsGroupChangePolicy: OnRootMismatch``)."""
    found = root.lstat()
    mask = (_READ if read_only else _WRITE) | _ENTER
    return found.st_gid == group and found.st_mode & mask == mask and bool(found.st_mode & stat.S_ISGID)


def give_one(path: Path, group: int, read_only: bool) -> None:
    """One file or directory."""
    found = path.lstat()
    os.chown(path, -1, group, follow_symlinks=False)
    if stat.S_ISLNK(found.st_mode):
        return
    mask = _READ if read_only else _WRITE
    if stat.S_ISDIR(found.st_mode):
        mask |= stat.S_ISGID | _ENTER
    os.chmod(path, stat.S_IMODE(found.st_mode) | mask)
