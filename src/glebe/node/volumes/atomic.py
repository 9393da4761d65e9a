"""Directories whose whole content changes at once, as the kubelet's do.

Files are in a directory with a name of its own; ``..data`` is a symbolic link to it, and what readers see are links
``NAME -> ..data/NAME``. New content is written beside the old, then ``..data`` is replaced in one step: a reader sees
all of the old or all of the new.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Final

from glebe.node.volumes.payload import Files

DATA: Final = "..data"
_NEXT: Final = "..data_tmp"
_PREFIX: Final = "..glebe_"


def write(root: Path, files: Files, finish: Callable[[Path], None] = lambda _: None) -> bool:
    """Make ``files`` the content of ``root``; whether anything changed.

    :param finish: called for the new directory before it is shown (ownership).
    :raises OSError: e.g. the disk is full; the old content stays.
    """
    root.mkdir(parents=True, exist_ok=True)
    old = _current(root)
    if old is not None and _same(old, files):
        _links(root, files)  # a crash may have come between the switch and the links
        return False
    new = _fresh(root)
    for relative, file in files.items():
        target = new / relative
        for parent in reversed(target.relative_to(new).parents[:-1]):
            (new / parent).mkdir(mode=0o755, exist_ok=True)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(file.content)
            os.fchmod(descriptor, file.mode)
            if file.owner is not None and os.geteuid() == 0:
                os.fchown(descriptor, file.owner, -1)
    finish(new)
    temporary = root / _NEXT
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(new.name)
    temporary.replace(root / DATA)
    _links(root, files)
    for left in root.glob(_PREFIX + "*"):
        if left.name != new.name:
            shutil.rmtree(left, ignore_errors=True)
    return True


def _fresh(root: Path) -> Path:
    number = max((int(p.name.removeprefix(_PREFIX)) for p in root.glob(_PREFIX + "[0-9]*")), default=0) + 1
    path = root / f"{_PREFIX}{number}"
    path.mkdir(mode=0o755)
    path.chmod(0o755)
    return path


def _current(root: Path) -> Path | None:
    try:
        name = os.readlink(root / DATA)
    except OSError:
        return None
    # Only what was written here: a container may have put a link to elsewhere in its place.
    path = root / name
    return path if name.startswith(_PREFIX) and "/" not in name and path.is_dir() and not path.is_symlink() else None


def _same(directory: Path, files: Files) -> bool:
    found = {
        os.path.relpath(os.path.join(base, name), directory) for base, _, names in os.walk(directory) for name in names
    }
    if found != {str(PurePosixPath(path)) for path in files}:
        return False
    for relative, file in files.items():
        path = directory / relative
        try:
            if path.is_symlink() or path.read_bytes() != file.content:
                return False
        except OSError:
            return False
    return True


def _links(root: Path, files: Files) -> None:
    """Links for what is there, none for what is not."""
    tops = dict.fromkeys(PurePosixPath(path).parts[0] for path in files)
    for entry in list(os.scandir(root)):
        if entry.name not in tops and not entry.name.startswith(".."):
            _remove(Path(entry.path))
    for top in tops:
        link, wanted = root / top, f"{DATA}/{top}"
        if link.is_symlink() and os.readlink(link) == wanted:
            continue
        _remove(link)
        link.symlink_to(wanted)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
