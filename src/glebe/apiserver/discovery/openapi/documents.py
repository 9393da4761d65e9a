"""The documents themselves, as bytes: pieces are made once per content and shared by all clusters.

Building everything at once would hold up the server for a tenth of a second, so that it is done group by group.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import orjson

from glebe.apiserver.custom.sharing import CustomKind
from glebe.apiserver.discovery import groups as discovery
from glebe.apiserver.discovery.openapi import definitions as d
from glebe.apiserver.discovery.openapi.paths import Paths, needed_definitions
from glebe.apiserver.types import release
from glebe.apiserver.types.registry import ResourceInfo, TypeRegistry, builtins

_SECURITY = {
    "BearerToken": {
        "description": "Bearer Token authentication",
        "type": "apiKey",
        "name": "authorization",
        "in": "header",
    }
}
_SLICE = 12
"""So many definitions are written between two breaths."""

Infos = tuple[ResourceInfo, ...]


def _title() -> dict[str, str]:
    return {"title": "Kubernetes", "version": release.chosen()}


def _inner(content: dict[str, Any]) -> bytes:
    """The JSON of an object without its braces."""
    return orjson.dumps(content)[1:-1]


def _join(parts: list[bytes]) -> bytes:
    return b",".join(part for part in parts if part)


# ------------------------------------------------------------------------------------------------------------ v2


class _Builtin:
    """What is the same in every cluster: paths and definitions of the built-in kinds; made when first asked for."""

    def __init__(self) -> None:
        self._made: tuple[bytes, bytes] | None = None

    async def pieces(self) -> tuple[bytes, bytes]:
        if self._made is None:
            paths: list[bytes] = []
            writer = Paths(d.PREFIX_V2)
            for infos in _by_version():
                paths.extend(_inner(dict(writer.of(info))) for info in infos)
                await asyncio.sleep(0)
            definitions = []
            names = d.reachable(n for i in builtins() for n in needed_definitions(i))
            for start in range(0, len(names), _SLICE):
                some = names[start : start + _SLICE]
                definitions.append(_inner({name: d.builtin(name, d.PREFIX_V2) for name in some}))
                await asyncio.sleep(0)
            self._made = _join(paths), _join(definitions)
        return self._made


_builtin = _Builtin()


def _by_version() -> list[Infos]:
    found: dict[tuple[str, str], list[ResourceInfo]] = {}
    for info in builtins():
        found.setdefault((info.group, info.version), []).append(info)
    return [tuple(infos) for infos in found.values()]


def v2_etag(registry: TypeRegistry, cluster: str) -> str:
    """Of the document's content, known without making it."""
    digest = hashlib.sha512(release.chosen().encode() + registry.fingerprint(cluster).encode())
    for group, version in sorted({(i.group, i.version) for i in builtins()}):
        digest.update(_data_hash(group, version))
    return digest.hexdigest().upper()


async def v2(registry: TypeRegistry, cluster: str) -> bytes:
    """``/openapi/v2``: one document of everything."""
    paths, definitions = await _builtin.pieces()
    own_paths, own_definitions = [], []
    for kind in registry.custom_kinds(cluster):
        kind_paths, kind_definitions = _custom_v2(kind)
        own_paths.append(kind_paths)
        own_definitions.append(kind_definitions)
        await asyncio.sleep(0)
    head = _inner({"swagger": "2.0", "info": _title()})
    tail = _inner({"securityDefinitions": _SECURITY, "security": [{"BearerToken": []}]})
    return b"".join(
        (
            b"{",
            head,
            b',"paths":{',
            _join([paths, *own_paths]),
            b'},"definitions":{',
            _join([definitions, *own_definitions]),
            b"},",
            tail,
            b"}",
        )
    )


@lru_cache(maxsize=256)
def _custom_v2(kind: CustomKind) -> tuple[bytes, bytes]:
    writer, infos = Paths(d.PREFIX_V2), kind.served
    paths: dict[str, Any] = {path: item for info in infos for path, item in writer.of(info)}
    definitions: dict[str, Any] = {}
    for info in infos:
        definitions.update(d.custom(info, d.PREFIX_V2))
    return _inner(paths), _inner(definitions)


# ------------------------------------------------------------------------------------------------------------ v3


@lru_cache(maxsize=256)
def _data_hash(group: str, version: str) -> bytes:
    """Of the data files that a built-in group version is described by."""
    digest = hashlib.sha256()
    packages = {i.definition.rpartition(".")[0] for i in builtins() if (i.group, i.version) == (group, version)}
    for name in sorted(packages | {d.META}):
        for kind in ("schema", "docs"):
            digest.update(orjson.dumps(release.content(f"{kind}-{name}")))
    return digest.digest()


def _hash(infos: Iterable[ResourceInfo]) -> str:
    digest = hashlib.sha512(release.chosen().encode())
    for info in infos:
        digest.update(_builtin_hash(info) if info.custom is None else info.custom.digest.encode())
    return digest.hexdigest().upper()


@lru_cache(maxsize=512)
def _builtin_hash(info: ResourceInfo) -> bytes:
    return repr(info).encode() + _data_hash(info.group, info.version)


def v3_index(registry: TypeRegistry, cluster: str) -> dict[str, Any]:
    """``/openapi/v3``: where each group version's document is; the address changes with its content."""
    paths = {}
    for group, versions in discovery.groups(registry, cluster).items():
        for version, infos in versions.items():
            name = f"apis/{group}/{version}" if group else f"api/{version}"
            paths[name] = {"serverRelativeURL": f"/openapi/v3/{name}?hash={_hash(infos)}"}
    return {"paths": dict(sorted(paths.items()))}


def v3_etag(registry: TypeRegistry, cluster: str, group: str, version: str) -> str:
    """The hash of one group version's document; "" when it is not served."""
    infos = discovery.groups(registry, cluster).get(group, {}).get(version)
    return _hash(infos) if infos else ""


async def v3_group(registry: TypeRegistry, cluster: str, group: str, version: str) -> bytes:
    """The document of one group version that is served."""
    infos = tuple(discovery.groups(registry, cluster)[group][version])
    key = f"{group}/{version} {_hash(infos)}"
    held = _documents.get(key)
    if held is None:
        held = await _make_v3(infos)
        while len(_documents) >= _KEPT:
            del _documents[next(iter(_documents))]
        _documents[key] = held
    return held


_documents: dict[str, bytes] = {}
_KEPT = 32


async def _make_v3(infos: Infos) -> bytes:
    writer = Paths(d.PREFIX_V3)
    paths = _inner({path: item for info in infos for path, item in writer.of(info)})
    await asyncio.sleep(0)
    schemas: list[bytes] = []
    names = d.reachable(n for i in infos for n in needed_definitions(i))
    for start in range(0, len(names), _SLICE):
        schemas.append(_inner({name: d.builtin(name, d.PREFIX_V3) for name in names[start : start + _SLICE]}))
        await asyncio.sleep(0)
    schemas.extend(_inner(d.custom(info, d.PREFIX_V3)) for info in infos if info.is_custom)
    head = _inner({"openapi": "3.0.0", "info": _title()})
    tail = _inner({"securitySchemes": _SECURITY})
    return b"".join(
        (b"{", head, b',"paths":{', paths, b'},"components":{"schemas":{', _join(schemas), b"},", tail, b"}}")
    )
