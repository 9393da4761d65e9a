"""Volumes without mounts: directories under the pod's own, and paths rewritten to them.

The process runtime has no privilege to mount. A volume is a directory; wherever the container's command, arguments,
environment values or working directory name the mountPath (or something below it), the directory's path is put in its
place. Besides, ``GLEBE_VOLUME_NAME`` holds the path, and the default working directory has a symbolic link at the same
relative place (``/data`` is ``./data``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glebe.kube.objects import Object
from glebe.node.contracts import Mount
from glebe.node.values.environment import ConfigError, Source, field, resource
from glebe.node.values.sources import token_key

ROOT_CA = "kube-root-ca.crt"
_FILE_MODE = 0o644


def materialise(pod: Object, root: Path, source: Source) -> dict[str, Path]:
    """Make all volumes of the pod below ``root``; returns name -> directory (or file, for hostPath).

    :raises ConfigError: a volume's source is missing, or of a kind that this runtime has not.
    """
    out: dict[str, Path] = {}
    for volume in pod["spec"].get("volumes") or ():
        name = volume["name"]
        if "hostPath" in volume:
            out[name] = Path(volume["hostPath"]["path"])
            if not out[name].exists():
                raise ConfigError(f'volume "{name}": hostPath {out[name]} does not exist on this machine')
            continue
        path = root / name
        path.mkdir(parents=True, exist_ok=True)
        _write_files(path, _files(pod, volume, source))
        out[name] = path
    return out


def _write_files(root: Path, files: Mapping[str, tuple[str, int]]) -> None:
    for relative, (text, mode) in files.items():
        target = root / relative
        if ".." in Path(relative).parts or not target.is_relative_to(root):
            raise ConfigError(f'path "{relative}" leaves its volume')
        target.parent.mkdir(parents=True, exist_ok=True)
        # A new file in its place: the old one may be read only, or by now a link to somewhere else.
        fresh = target.with_name(f".{target.name}.new")
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(text.encode("utf-8", "surrogateescape"))
        fresh.chmod(mode)
        fresh.replace(target)


def _files(pod: Object, volume: dict[str, Any], source: Source) -> dict[str, tuple[str, int]]:
    if "emptyDir" in volume:
        return {}
    if "configMap" in volume:
        return _keys(volume["configMap"], "configmap", volume["configMap"].get("name", ""), source)
    if "secret" in volume:
        return _keys(volume["secret"], "secret", volume["secret"].get("secretName", ""), source)
    if "downwardAPI" in volume:
        return _downward(pod, volume["downwardAPI"])
    if "projected" in volume:
        return _projected(pod, volume["projected"], source)
    kinds = ", ".join(sorted(key for key in volume if key != "name")) or "no source"
    supported = "emptyDir, configMap, secret, downwardAPI, projected and hostPath"
    raise ConfigError(f'volume "{volume["name"]}": {kinds} is not supported on a process node, only {supported}')


def _projected(pod: Object, options: dict[str, Any], source: Source) -> dict[str, tuple[str, int]]:
    out: dict[str, tuple[str, int]] = {}
    mode = options.get("defaultMode")
    parts = options.get("sources") or ()
    tokens = {id(p): source("token", token_key(p["serviceAccountToken"])) for p in parts if "serviceAccountToken" in p}
    # A server without certificates and accounts publishes no CA: the volume that every pod gets is then nearly empty.
    bare = bool(tokens) and not any(tokens.values())
    for part in parts:
        for kind in ("configMap", "secret"):
            if kind in part:
                unpublished = bare and part[kind].get("name") == ROOT_CA
                keys = {"defaultMode": mode, **part[kind], **({"optional": True} if unpublished else {})}
                out.update(_keys(keys, kind.lower(), part[kind].get("name", ""), source))
        if "downwardAPI" in part:
            out.update(_downward(pod, part["downwardAPI"]))
        token = tokens.get(id(part))
        if token:
            out[part["serviceAccountToken"].get("path", "token")] = (token["token"], 0o600)
    return out


def _keys(options: dict[str, Any], kind: str, name: str, source: Source) -> dict[str, tuple[str, int]]:
    data = source(kind, name)
    if data is None:
        if options.get("optional"):
            return {}
        raise ConfigError(f'{kind} "{name}" not found')
    mode = options.get("defaultMode")
    mode = _FILE_MODE if mode is None else int(mode)
    items = options.get("items")
    if not items:
        return {key: (text, mode) for key, text in data.items()}
    out = {}
    for item in items:
        if item["key"] not in data:
            if options.get("optional"):
                continue
            raise ConfigError(f'{kind} "{name}" has no key "{item["key"]}"')
        out[item["path"]] = (data[item["key"]], int(item.get("mode", mode)))
    return out


def _downward(pod: Object, options: dict[str, Any]) -> dict[str, tuple[str, int]]:
    out = {}
    for item in options.get("items") or ():
        if "fieldRef" in item:
            text = field(pod, item["fieldRef"].get("fieldPath", ""))
        else:
            text = resource(pod, {}, item.get("resourceFieldRef") or {})
        out[item["path"]] = (text, int(item.get("mode", options.get("defaultMode") or _FILE_MODE)))
    return out


class PathMap:
    """Where a container's mount paths really are."""

    def __init__(self, container: dict[str, Any], volumes: Mapping[str, Path]) -> None:
        self.variables: dict[str, str] = {}
        self.mounts: tuple[Mount, ...] = ()
        self._paths: list[tuple[str, str]] = []
        for mount in container.get("volumeMounts") or ():
            real = volumes.get(mount["name"])
            if real is None:
                raise ConfigError(f'volumeMounts: no volume is called "{mount["name"]}"')
            if mount.get("subPath"):
                real = real / mount["subPath"]
                if ".." in Path(mount["subPath"]).parts or Path(mount["subPath"]).is_absolute():
                    raise ConfigError(f'volumeMounts: subPath "{mount["subPath"]}" leaves its volume')
            self._paths.append((mount["mountPath"].rstrip("/"), str(real)))
            read_only = bool(mount.get("readOnly"))
            self.mounts += (Mount(str(real), mount["mountPath"], read_only),)
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
