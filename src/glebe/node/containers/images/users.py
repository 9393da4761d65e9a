"""Who ``USER`` of an image is: names are looked up in the image's own ``/etc/passwd`` and ``/etc/group``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from glebe.node.contracts import CreateError, Identity

_MAX_FILE = 4 * 1024 * 1024


def identity(root: Path, user: str, asked: Identity) -> Identity:
    """The identity for a container: what the pod asks for, else what the image says, else root.

    :raises CreateError: the image names somebody whom it does not know.
    """
    name, _, group = user.partition(":") if asked.user is None else (str(asked.user), "", "")
    uid, gid, known = _user(root, name)
    if group:
        gid = _group(root, group)
    if asked.group is not None:
        gid = asked.group
    own = _memberships(root, known) if known else []
    groups = tuple(dict.fromkeys((*own, *asked.groups)))
    return replace(asked, user=uid, group=gid, groups=groups)


def _user(root: Path, name: str) -> tuple[int, int, str]:
    """Number, first group and name."""
    if not name:
        return 0, 0, "root"
    for fields in _lines(root, "etc/passwd", 4):
        if name in (fields[0], fields[2]) and fields[2].isdigit() and fields[3].isdigit():
            return int(fields[2]), int(fields[3]), fields[0]
    if name.isdigit() and int(name) < 2**32 - 1:
        return int(name), 0, ""
    raise CreateError(f"unable to find user {name}: no matching entries in passwd file")


def _group(root: Path, name: str) -> int:
    for fields in _lines(root, "etc/group", 3):
        if name in (fields[0], fields[2]) and fields[2].isdigit():
            return int(fields[2])
    if name.isdigit() and int(name) < 2**32 - 1:
        return int(name)
    raise CreateError(f"unable to find group {name}: no matching entries in group file")


def _memberships(root: Path, name: str) -> list[int]:
    found = [f for f in _lines(root, "etc/group", 4) if name in f[3].split(",")]
    return [int(fields[2]) for fields in found if fields[2].isdigit()]


def _lines(root: Path, path: str, fields: int) -> Iterator[list[str]]:
    """The lines of a file of the image; a link is not followed, as it may lead out of it."""
    try:
        directory = os.open(root / "etc", os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY)
        try:
            fd = os.open(path.partition("/")[2], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
        finally:
            os.close(directory)
        with os.fdopen(fd, "rb") as file:
            text = file.read(_MAX_FILE).decode(errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        parts = line.strip().split(":")
        if len(parts) >= fields:
            yield parts
