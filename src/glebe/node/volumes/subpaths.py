"""``subPath`` and ``subPathExpr``: a part of a volume, and within it whatever links a container planted."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from glebe.node.values.downward import ConfigError

_REFERENCE = re.compile(r"\$\$|\$\(([^()$]+)\)")


def sub_path(mount: Mapping[str, Any], env: Mapping[str, str]) -> str:
    """The mount's sub-path, ``""`` for the whole volume.

    :raises ConfigError: it is not a path below the volume, or names a variable that is not there.
    """
    text = str(mount.get("subPath") or "")
    if mount.get("subPathExpr"):
        text = _expand(mount["subPathExpr"], env)
    if text.startswith("/"):
        raise ConfigError(f"error SubPath `{text}` must not be an absolute path")
    if ".." in PurePosixPath(text).parts:
        raise ConfigError(f"unable to provision SubPath `{text}`: must not contain '..'")
    return text


def _expand(text: str, env: Mapping[str, str]) -> str:
    def replace(match: re.Match[str]) -> str:
        if match.group(1) is None:
            return "$"
        if not env.get(match.group(1)):
            raise ConfigError(f'missing value for "{match.group(1)}"')
        return env[match.group(1)]

    return _REFERENCE.sub(replace, text)


def resolve(root: Path, relative: str) -> Path:
    """The real path of ``relative`` in ``root``; missing directories are made, with the volume's mode.

    :raises ConfigError: a link leads out of the volume.
    """
    base = Path(os.path.realpath(root))
    here = base
    for part in PurePosixPath(relative).parts:
        following = Path(os.path.realpath(here / part))
        if following != base and base not in following.parents:
            raise ConfigError(f"subpath `{relative}` not within volume path")
        if not following.exists():
            _make(following, base, stat.S_IMODE(base.stat().st_mode))
        here = following
    return here


def _make(path: Path, base: Path, mode: int) -> None:
    missing = [path]
    while not missing[-1].parent.exists() and missing[-1].parent != base:
        missing.append(missing[-1].parent)
    group = base.stat().st_gid
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        each.chmod(mode)
        if os.geteuid() == 0:
            os.chown(each, -1, group)
