"""Volumes without mounts: where containers cannot have mounts, paths are rewritten to where the volume is.

Wherever the container's command, arguments, environment values or working directory name the mountPath (or something
below it), the volume's path is put in its place. Besides, ``GLEBE_VOLUME_NAME`` holds the path, and the default working
directory has a symbolic link at the same relative place (``/data`` is ``./data``).
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
            variable = "GLEBE_VOLUME_" + re.sub(r"[^A-Z0-9]", "_", mount["name"].upper())
            self.variables[variable] = str(real)
        self._paths.sort(key=lambda pair: -len(pair[0]))

    def apply(self, text: str) -> str:
        """``text`` with a leading mount path (also after ``=`` or ``:``) replaced."""
        for mount, real in self._paths:
            if mount and mount in text:
                safe = real.replace("\\", r"\\")
                return re.sub(rf"(^|(?<=[=:])){re.escape(mount)}(?=/|$|:)", safe, text)
        return text

    def link(self, root: Path) -> None:
        """Symbolic links below ``root`` at the same relative places."""
        for mount, real in reversed(self._paths):
            link = root / mount.lstrip("/")
            if mount and not os.path.lexists(link):
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(real)
