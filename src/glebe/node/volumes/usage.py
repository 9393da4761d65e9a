"""How much of the disk a pod holds, and whether it may: ``sizeLimit`` and limits of ephemeral-storage.

What counts lies in the pod's directory: emptyDirs on disk, logs, and what containers of images write beside their
image. What a process writes elsewhere on the machine is not seen.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from glebe.kube.objects import Object
from glebe.kube.quantity import from_int, parse, to_int

_RESOURCE: Final = "ephemeral-storage"


def is_limited(pod: Object) -> bool:
    """Whether there is anything to measure."""
    return bool(_limited_volumes(pod)) or any(True for _ in _limits(pod))


def _limited_volumes(pod: Object) -> list[dict[str, Any]]:
    volumes = pod["spec"].get("volumes") or ()
    return [v for v in volumes if parse((v.get("emptyDir") or {}).get("sizeLimit") or "0") > 0]


def _limits(pod: Object) -> Iterator[tuple[str, str]]:
    """Containers and how much each may hold."""
    for container in pod["spec"].get("containers") or ():
        limit = ((container.get("resources") or {}).get("limits") or {}).get(_RESOURCE)
        if limit is not None:
            yield container["name"], str(limit)


def size_of(root: Path) -> int:
    """Bytes on disk below ``root``, each file once; links are not followed, nor what is mounted from elsewhere."""
    total, seen = 0, set()
    try:
        device = os.lstat(root).st_dev
    except OSError:
        return 0
    for base, directories, files in os.walk(root):
        for name in (*directories, *files):
            try:
                found = os.lstat(os.path.join(base, name))
            except OSError:
                continue
            if found.st_dev != device:
                if name in directories:
                    directories.remove(name)
                continue
            if found.st_nlink > 1:
                if (found.st_dev, found.st_ino) in seen:
                    continue
                seen.add((found.st_dev, found.st_ino))
            total += found.st_blocks * 512
    return total


def excess(pod: Object, pod_dir: Path) -> str:
    """What the kubelet says when the pod holds more than it may, ``""`` otherwise."""
    for volume in _limited_volumes(pod):
        limit = volume["emptyDir"]["sizeLimit"]
        if size_of(pod_dir / "volumes" / volume["name"]) > parse(limit):
            return f'Usage of EmptyDir volume "{volume["name"]}" exceeds the limit "{limit}". '
    limits = list(_limits(pod))
    if not limits:
        return ""
    total = sum(to_int(limit, _RESOURCE) for _, limit in limits)
    if size_of(pod_dir) > total:
        text = from_int(total, _RESOURCE)
        return f"Pod ephemeral local storage usage exceeds the total limit of containers {text}. "
    for name, limit in limits:
        if size_of(pod_dir / name) > parse(limit):
            return f'Container {name} exceeded its local ephemeral storage limit "{limit}". '
    return ""
