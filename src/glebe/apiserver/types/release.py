"""Which release of Kubernetes is served: the main one, or an older one whose differences are data.

One process serves one release. It is chosen once, before anything has been read: :func:`use`.
"""

from __future__ import annotations

import zlib
from functools import cache
from importlib import resources as package_files
from typing import Any

import orjson

#: The release whose data are the ``schema-*`` and ``docs-*`` files and ``resources.json``.
MAIN = "1.36"
#: Its patch release, and those of the older ones.
PATCHES = {"1.36": 2, "1.35": 0, "1.34": 0}

_chosen = MAIN
_read = False


def use(release: str) -> None:
    """Serve ``release`` (``1.35``).

    :raises ValueError: there are no data of it, or another one is in use already.
    """
    global _chosen
    if release == _chosen:
        return
    if release not in PATCHES:
        raise ValueError(f"Kubernetes {release} cannot be served: there are {', '.join(sorted(PATCHES))}")
    if _read:
        raise ValueError(f"this process serves Kubernetes {_chosen} already")
    _chosen = release


def chosen() -> str:
    """The release that is served."""
    return _chosen


def _file(name: str) -> bytes:
    return (package_files.files("glebe.apiserver") / "data" / name).read_bytes()


@cache
def _difference() -> dict[str, Any]:
    if _chosen == MAIN:
        return {}
    loaded: dict[str, Any] = orjson.loads(zlib.decompress(_file(f"release-{_chosen}.json.z")))
    return loaded


def resource_rows() -> list[dict[str, Any]]:
    """One row for each built-in resource, in the order in which discovery lists them."""
    global _read
    _read = True
    rows: list[dict[str, Any]] = _difference().get("resources") or orjson.loads(_file("resources.json"))
    return rows


def content(name: str) -> dict[str, Any]:
    """A data file (``schema-io.k8s.api.batch.v1``, ``docs-io.k8s.api.batch.v1``): kind -> what is said of it.

    :raises FileNotFoundError: no release has it.
    """
    changed: dict[str, Any] = _difference().get("files", {}).get(name, {})
    try:
        data = zlib.decompress(_file(f"{name}.json.z")) if name.startswith("docs-") else _file(f"{name}.json")
        main: dict[str, Any] = orjson.loads(data)
    except FileNotFoundError:
        if not changed:
            raise
        main = {}
    if not changed:
        return main
    return {kind: said for kind, said in {**main, **changed}.items() if said is not None}
