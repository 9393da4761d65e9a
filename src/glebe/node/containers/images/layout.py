"""Images that lie on this machine: OCI image layouts and plain root directories below one directory.

``DIR/NAME`` is an OCI layout (``oci-layout``, ``index.json``, ``blobs/``), as ``skopeo copy docker://busybox
oci:DIR/busybox:1.36`` makes it, or has a directory ``rootfs`` (and perhaps the image's ``config.json``). NAME is the
image's name and may have slashes (``registry.example.com/team/app``). Tags are the annotation
``org.opencontainers.image.ref.name``, a tag or a whole reference; without any, and for root directories, ``latest``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glebe.node.containers.images import documents, reference
from glebe.node.containers.images.documents import Descriptor
from glebe.node.containers.images.errors import BrokenImage, PullError
from glebe.node.containers.images.reference import InvalidReference, Reference

_REF = "org.opencontainers.image.ref.name"
_FULL = "io.containerd.image.name"
_DEPTH = 6


@dataclass(frozen=True, slots=True)
class Layout:
    """An image layout. ``read`` gives checked content."""

    path: Path

    def blob(self, digest: str) -> Path:
        documents.new_hash(digest)
        algorithm, _, value = digest.partition(":")
        return self.path / "blobs" / algorithm / value

    def read(self, wanted: Descriptor) -> bytes:
        """A document.

        :raises PullError: it is missing or damaged.
        """
        if wanted.size > documents.MAX_DOCUMENT:
            raise BrokenImage("a document of the image is too large")
        try:
            return documents.check(self.blob(wanted.digest).read_bytes(), wanted.digest)
        except OSError as error:
            raise PullError(f"{wanted.digest}: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class Found:
    """Where a reference leads: a manifest (or index) of a layout, or a root directory."""

    layout: Layout | None = None
    descriptor: Descriptor | None = None
    root: Path | None = None
    config: Path | None = None


def find(directory: Path, wanted: Reference) -> Found | None:
    """The image, if it is there.

    :raises PullError: its layout is damaged.
    """
    for name, path in _candidates(directory):
        if (path / "oci-layout").exists():
            for known, item in _references(name, path):
                if _same(known, wanted, str(item.get("digest") or "")):
                    return Found(Layout(path), documents.descriptor(item))
        else:
            plain = _parse(name)
            if plain is not None and plain == Reference(wanted.domain, wanted.path, wanted.tag):
                config = path / "config.json"
                return Found(root=path / "rootfs", config=config if config.exists() else None)
    return None


def _same(known: Reference, wanted: Reference, digest: str) -> bool:
    if known.name != wanted.name:
        return False
    return digest == wanted.digest if wanted.digest else known.tag == wanted.tag


def _candidates(directory: Path, depth: int = _DEPTH, name: str = "") -> Iterator[tuple[str, Path]]:
    if not directory.is_dir() or depth < 0:
        return
    for path in sorted(directory.iterdir()):
        if not path.is_dir() or path.name.startswith("."):
            continue
        full = f"{name}/{path.name}" if name else path.name
        if (path / "oci-layout").exists() or (path / "rootfs").is_dir():
            yield full, path
        else:
            yield from _candidates(path, depth - 1, full)


def _references(name: str, path: Path) -> Iterator[tuple[Reference, dict[str, Any]]]:
    try:
        index = documents.load((path / "index.json").read_bytes())
    except OSError as error:
        raise PullError(f"image layout {name}: {error.strerror}") from error
    items = [item for item in index.get("manifests") or () if isinstance(item, dict)]
    for item in items:
        notes = item.get("annotations") or {}
        given = notes.get(_FULL) or notes.get(_REF) or ""
        for text in (given, f"{name}:{given}" if given else name):
            parsed = _parse(text) if text and (text is not given or "/" in text) else None
            if parsed is not None:
                yield parsed, item


def _parse(text: str) -> Reference | None:
    try:
        return reference.parse(text)
    except InvalidReference:
        return None
