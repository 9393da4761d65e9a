"""``hostPath``: which paths pods may have, and what has to be there."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from glebe.node.contracts import VolumeError

_KINDS: Final[dict[str, tuple[str, Callable[[int], bool]]]] = {
    "DirectoryOrCreate": ("directory", stat.S_ISDIR),
    "Directory": ("directory", stat.S_ISDIR),
    "FileOrCreate": ("file", stat.S_ISREG),
    "File": ("file", stat.S_ISREG),
    "Socket": ("socket file", stat.S_ISSOCK),
    "CharDevice": ("character device", stat.S_ISCHR),
    "BlockDevice": ("block device", stat.S_ISBLK),
}


def allowed(path: str, prefixes: tuple[str, ...] | None) -> bool:
    """Whether pods may have ``path``, with links followed; ``None``: all."""
    if prefixes is None:
        return True
    real = os.path.realpath(path)
    return any(real == p.rstrip("/") or real.startswith(p.rstrip("/") + "/") for p in map(os.path.realpath, prefixes))


def find(source: dict[str, Any], prefixes: tuple[str, ...] | None) -> Path:
    """The path of a ``hostPath`` source; made where its type says so, or (as container runtimes do) where it has none.

    :raises VolumeError: it is not allowed, or not what the type says.
    """
    path, kind = Path(source["path"]), source.get("type") or ""
    if not allowed(str(path), prefixes):
        raise VolumeError(f"hostPath {path} is not among the paths that this node lets pods have")
    if kind and kind not in _KINDS:
        raise VolumeError(f"{kind} is an invalid volume type")
    try:
        if kind in ("", "DirectoryOrCreate") and not path.exists():
            path.mkdir(parents=True, mode=0o755)
        elif kind == "FileOrCreate" and not path.exists():
            path.touch(mode=0o644)
        mode = path.stat().st_mode
    except OSError as error:
        if kind:
            raise VolumeError(f"hostPath type check failed: {path} is not a {_KINDS[kind][0]}") from error
        raise VolumeError(f"hostPath {path} cannot be made: {error.strerror}") from error
    if kind and not _KINDS[kind][1](mode):
        raise VolumeError(f"hostPath type check failed: {path} is not a {_KINDS[kind][0]}")
    return path
