"""An image's documents: indexes, manifests and configurations (OCI image spec 1.1, Docker's schema 2)."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from typing import Any

import orjson

from glebe.node.containers.images.errors import BrokenImage

INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
ACCEPT = ", ".join((*MANIFESTS, *INDEXES))
MAX_DOCUMENT = 4 * 1024 * 1024  # bytes, as registries bound manifests

_LAYERS = re.compile(
    r"application/vnd\.(?:oci\.image\.layer(?:\.nondistributable)?\.v1\.tar(?:\+(gzip|zstd))?"
    r"|docker\.image\.rootfs\.(?:foreign\.)?diff\.tar(?:\.(gzip|zstd))?)"
)
_MACHINES = {"x86_64": ("amd64", ""), "aarch64": ("arm64", "v8"), "armv7l": ("arm", "v7"), "ppc64le": ("ppc64le", "")}
_DIGEST = re.compile(r"sha(?:256:[0-9a-f]{64}|512:[0-9a-f]{128})")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A reference to content. ``size`` in bytes."""

    media_type: str
    digest: str
    size: int
    compression: str = ""  # of layers: "", gzip, zstd


@dataclass(frozen=True, slots=True)
class Manifest:
    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class Config:
    """What an image says about running it."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    working_dir: str = ""
    user: str = ""
    stop_signal: str = ""
    exposed_ports: tuple[str, ...] = ()
    layers: tuple[str, ...] = field(default=())  # digests of the layers' uncompressed content


def new_hash(digest: str) -> Any:
    """The hash to check ``ALGORITHM:HEX`` with.

    :raises BrokenImage: not a digest we know.
    """
    if not _DIGEST.fullmatch(digest):
        raise BrokenImage(f'unsupported digest "{digest[:100]}"')
    return hashlib.new(digest.partition(":")[0])


def check(data: bytes, digest: str) -> bytes:
    """The data, when it has this digest.

    :raises BrokenImage: it has another.
    """
    made = new_hash(digest)
    made.update(data)
    if made.hexdigest() != digest.partition(":")[2]:
        raise BrokenImage(f"content does not have the digest {digest}")
    return data


def load(data: bytes) -> dict[str, Any]:
    """A document.

    :raises BrokenImage: not a JSON object.
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise BrokenImage("a document of the image is not a JSON object")
    return value


def descriptor(value: Any, *, layer: bool = False) -> Descriptor:
    """Read a descriptor.

    :raises BrokenImage: it is none, or a layer of an unknown kind.
    """
    try:
        found = Descriptor(str(value.get("mediaType") or ""), str(value["digest"]), int(value["size"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BrokenImage("a descriptor of the image is not one") from None
    new_hash(found.digest)
    if found.size < 0:
        raise BrokenImage("a descriptor of the image has a negative size")
    if not layer:
        return found
    match = _LAYERS.fullmatch(found.media_type)
    if not match:
        raise BrokenImage(f'unsupported layer "{found.media_type[:100]}"')
    return Descriptor(found.media_type, found.digest, found.size, match[1] or match[2] or "")


def is_index(document: dict[str, Any]) -> bool:
    """Whether it names manifests of several platforms."""
    return document.get("mediaType") in INDEXES or ("manifests" in document and "layers" not in document)


def choose(index: dict[str, Any], machine: str = "") -> Descriptor:
    """The manifest for this machine.

    :raises BrokenImage: there is none.
    """
    architecture, variant = _MACHINES.get(machine or os.uname().machine, (machine or os.uname().machine, ""))
    best: tuple[int, Descriptor] | None = None
    for item in index.get("manifests") or ():
        if not isinstance(item, dict) or item.get("mediaType") not in (*MANIFESTS, *INDEXES, None):
            continue
        platform = item.get("platform") or {}
        if platform and (platform.get("os"), platform.get("architecture")) != ("linux", architecture):
            continue
        score = 0 if not platform else 2 if (platform.get("variant") or variant) == variant else 1
        if best is None or score > best[0]:
            best = score, descriptor(item)
    if best is None:
        raise BrokenImage(f"no match for platform in manifest: linux/{architecture}")
    return best[1]


def manifest(document: dict[str, Any]) -> Manifest:
    """Read a manifest.

    :raises BrokenImage: it is none.
    """
    if document.get("schemaVersion") != 2 or not isinstance(document.get("layers"), list):
        raise BrokenImage("unsupported manifest (schema 1 is not supported)")
    layers = tuple(descriptor(item, layer=True) for item in document["layers"])
    return Manifest(descriptor(document.get("config")), layers)


def config(document: dict[str, Any]) -> Config:
    """Read a configuration.

    :raises BrokenImage: it is none.
    """
    inner = document.get("config") or {}
    try:
        env = [(k, v) for k, _, v in (str(item).partition("=") for item in inner.get("Env") or ())]
        layers = [str(x) for x in (document.get("rootfs") or {}).get("diff_ids") or ()]
        return Config(
            entrypoint=_words(inner.get("Entrypoint")),
            command=_words(inner.get("Cmd")),
            env=tuple(env),
            working_dir=str(inner.get("WorkingDir") or ""),
            user=str(inner.get("User") or ""),
            stop_signal=str(inner.get("StopSignal") or ""),
            exposed_ports=tuple(sorted(inner.get("ExposedPorts") or ())),
            layers=tuple(layers),
        )
    except (TypeError, AttributeError):
        raise BrokenImage("the image's configuration cannot be read") from None


def _words(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(map(str, value or ()))
