"""Volumes without mounts: where containers cannot have mounts, paths are rewritten to where the volume is.

Wherever the container's command, arguments, environment values or working directory name the mountPath (or something
below it), also as a word of a shell script, the volume's path is put in its place. Besides, ``GLEBE_VOLUME_NAME`` holds
the path, and the default working directory has a symbolic link at the same relative place (``/data`` is ``./data``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glebe.node.values.downward import ConfigError
from glebe.node.volumes import subpaths


class PathMap:
    """Where a container's mount paths really are. ``env`` is for ``subPathExpr``."""

    def __init__(
        self, container: dict[str, Any], volumes: Mapping[str, Path], env: Mapping[str, str] | None = None
    ) -> None:
        self.variables: dict[str, str] = {}
        self._paths: list[tuple[str, str]] = []
        for mount in container.get("volumeMounts") or ():
            real = volumes.get(mount["name"])
            if real is None:
                raise ConfigError(f'cannot find volume "{mount["name"]}" to mount into container "{container["name"]}"')
            if part := subpaths.sub_path(mount, env or {}):
                subpaths.resolve(real, part)  # that it is there, and inside
                real = real / part
            self._paths.append((mount["mountPath"].rstrip("/"), str(real)))
            self.variables[_variable(mount["name"])] = str(real)
        self._paths.sort(key=lambda pair: -len(pair[0]))
        self._where = {mount: real for mount, real in reversed(self._paths) if mount}

    def apply(self, text: str) -> str:
        """``text`` with mount paths replaced, where they are words or begin or end one (``a=/data/x:/data/y``)."""
        return replace_paths(text, self._where)

    def link(self, root: Path) -> None:
        """Symbolic links below ``root`` at the same relative places."""
        for mount, real in reversed(self._paths):
            link = root / mount.lstrip("/")
            if mount and not os.path.lexists(link):
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(real)


def _variable(volume: str) -> str:
    return "GLEBE_VOLUME_" + re.sub(r"[^A-Z0-9]", "_", volume.upper())


def places(container: Mapping[str, Any], env: Mapping[str, str]) -> dict[str, str]:
    """Where a running container's mounts are, as its environment says.

    Volumes of which it has several parts are left out: they share a variable.
    """
    parts: dict[str, set[str]] = {}
    for mount in container.get("volumeMounts") or ():
        parts.setdefault(mount["name"], set()).add(mount.get("subPathExpr") or mount.get("subPath") or "")
    return {
        mount["mountPath"].rstrip("/"): env[variable]
        for mount in container.get("volumeMounts") or ()
        if len(parts[mount["name"]]) == 1 and (variable := _variable(mount["name"])) in env
    }


_BEFORE, _AFTER = r"""(?<![^\s=:,;|&<>()"'`{@])""", r"""(?![^/\s:,;|&<>()"'`}])"""


def replace_paths(text: str, where: Mapping[str, str]) -> str:
    """``text`` with each path of ``where`` that is named in it, or of which a part is, replaced; the longest counts."""
    named = sorted((path for path in where if path and path in text), key=len, reverse=True)
    if not named:
        return text
    pattern = f"{_BEFORE}({'|'.join(map(re.escape, named))}){_AFTER}"
    return re.sub(pattern, lambda found: where[found[1]], text)
