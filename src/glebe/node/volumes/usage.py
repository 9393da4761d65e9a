"""How much an emptyDir holds, and whether that is more than it may."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from glebe.kube.objects import Object
from glebe.kube.quantity import parse


def limited(pod: Object) -> list[dict[str, Any]]:
    """The emptyDir volumes that have a ``sizeLimit``."""
    volumes = pod["spec"].get("volumes") or ()
    return [v for v in volumes if parse((v.get("emptyDir") or {}).get("sizeLimit") or "0") > 0]


def size_of(root: Path) -> int:
    """Bytes on disk below ``root``, each file once; links are not followed."""
    total, seen = 0, set()
    for base, directories, files in os.walk(root):
        for name in (*directories, *files):
            try:
                found = os.lstat(os.path.join(base, name))
            except OSError:
                continue
            if found.st_nlink > 1:
                if (found.st_dev, found.st_ino) in seen:
                    continue
                seen.add((found.st_dev, found.st_ino))
            total += found.st_blocks * 512
    return total


def excess(pod: Object, root: Path) -> str:
    """What the kubelet says when a volume below ``root`` is over its limit, ``""`` otherwise."""
    for volume in limited(pod):
        limit = volume["emptyDir"]["sizeLimit"]
        if size_of(root / volume["name"]) > parse(limit):
            return f'Usage of EmptyDir volume "{volume["name"]}" exceeds the limit "{limit}". '
    return ""
