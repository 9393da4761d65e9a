"""Where images are kept: blobs by their digest, unpacked roots by their configuration's, names in one table.

``blobs/ALGORITHM/HEX`` (verified; ``HEX.part`` while it comes, to go on with later), ``roots/HEX/rootfs`` (one image's
file system, read only for containers), ``names.json`` (name -> what it is). Everything can be removed at any time
except roots in use.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import orjson

from glebe.node.containers.images import documents
from glebe.node.containers.images.documents import Config, Descriptor, Manifest
from glebe.node.containers.images.errors import BrokenImage
from glebe.node.containers.images.reference import Reference

if TYPE_CHECKING:
    from glebe.node.containers.images.extract import Bound


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is ready to run. ``id`` is its configuration's digest, ``ref`` what a pod's status says."""

    id: str
    ref: str
    root: Path
    config: Config
    size: int


class Store:
    """:param now: seconds since the epoch. :param bound: makes a bound on what one image may unpack to."""

    def __init__(self, directory: Path, now: Callable[[], float], bound: Callable[[], Bound] | None = None) -> None:
        self.directory = directory
        self._now = now
        self._bound = bound
        self._coming: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._names: dict[str, dict[str, Any]] | None = None
        self._guard = threading.RLock()  # of the table: images are taken in by threads

    # --- blobs

    def coming(self, digest: str) -> asyncio.Lock:
        """Held by who brings a blob."""
        return self._coming.setdefault(digest, asyncio.Lock())

    def blob(self, digest: str) -> Path:
        """Where a blob is, or will be."""
        documents.new_hash(digest)
        algorithm, _, value = digest.partition(":")
        return self.directory / "blobs" / algorithm / value

    def has(self, wanted: Descriptor) -> bool:
        """Whether the blob is there whole."""
        try:
            return self.blob(wanted.digest).stat().st_size == wanted.size
        except OSError:
            return False

    def put(self, digest: str, data: bytes) -> None:
        """Keep a document that was checked."""
        path = self.blob(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_bytes(data)
        temporary.replace(path)

    def finish(self, digest: str, partial: Path) -> None:
        """Check what has come and keep it.

        :raises BrokenImage: it is something else; it is removed.
        """
        made = documents.new_hash(digest)
        with partial.open("rb") as file:
            while chunk := file.read(1 << 20):
                made.update(chunk)
        if made.hexdigest() != digest.partition(":")[2]:
            partial.unlink()
            raise BrokenImage(f"content does not have the digest {digest}")
        partial.replace(self.blob(digest))

    # --- names

    def _table(self) -> dict[str, dict[str, Any]]:
        if self._names is None:
            try:
                self._names = orjson.loads((self.directory / "names.json").read_bytes())
            except (OSError, orjson.JSONDecodeError):
                self._names = {}
        assert self._names is not None
        return self._names

    def _save(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        temporary = self.directory / "names.json.tmp"
        temporary.write_bytes(orjson.dumps(self._names, option=orjson.OPT_INDENT_2))
        temporary.replace(self.directory / "names.json")

    def get(self, name: Reference) -> Image | None:
        """The image of this name, when it is here and unpacked."""
        with self._guard:
            entry = self._table().get(str(name))
        if entry is None:
            return None
        try:
            config = documents.config(documents.load(self._config_of(entry).read_bytes()))
        except (OSError, BrokenImage):
            return None
        root = Path(entry["root"]) if entry.get("plain") else self._root(entry["id"])
        if not root.is_dir():
            return None
        return Image(entry["id"], entry["ref"], root, config, int(entry["size"]))

    def _config_of(self, entry: dict[str, Any]) -> Path:
        return (
            self.directory / "plain" / entry["id"].partition(":")[2] if entry.get("plain") else self.blob(entry["id"])
        )

    def list(self) -> list[dict[str, Any]]:
        """What ``node.status.images`` says: the largest first."""
        by_id: dict[str, dict[str, Any]] = {}
        with self._guard:
            entries = sorted(self._table().items())
        for name, entry in entries:
            item = by_id.setdefault(entry["id"], {"names": [], "sizeBytes": int(entry["size"])})
            item["names"] += [text for text in (entry["ref"], name) if text not in item["names"]]
        return sorted(by_id.values(), key=lambda item: (-item["sizeBytes"], item["names"]))

    def used(self, name: Reference) -> None:
        """Note that the image is wanted now."""
        with self._guard:
            entry = self._table().get(str(name))
            if entry is not None:
                entry["usedAt"] = self._now()
                self._save()

    # --- whole images

    def unpack(self, manifest: Manifest, config: Config, open_layer: Callable[[Descriptor], IO[bytes]]) -> Path:
        """The image's root directory, unpacked unless it is there (blocking; run it in a thread).

        :raises BrokenImage: a layer is damaged or unsafe.
        """
        from glebe.node.containers.images import extract  # here: with the modules for archives

        root = self._root(manifest.config.digest)
        if root.is_dir():
            return root
        if config.layers and len(config.layers) != len(manifest.layers):
            raise BrokenImage("the image's configuration and its manifest disagree about its layers")
        parent = self.directory / "roots"
        parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix="new.", dir=parent))
        try:
            into = temporary / "rootfs"
            into.mkdir(mode=0o755)
            bound = self._bound() if self._bound is not None else extract.Bound()
            for index, layer in enumerate(manifest.layers):
                with open_layer(layer) as file:
                    extract.unpack(file, layer.compression, config.layers[index] if config.layers else "", into, bound)
            temporary.chmod(0o755)
            os.rename(temporary, root.parent)
        except OSError:
            if not root.is_dir():  # else another was faster
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return root

    def unpacked(self, identity: str) -> bool:
        """Whether the image with this configuration has its root directory."""
        return self._root(identity).is_dir()

    def _root(self, identity: str) -> Path:
        return self.directory / "roots" / identity.partition(":")[2] / "rootfs"

    def name(self, name: Reference, identity: str, ref: str, size: int) -> None:
        """Give an unpacked image a name."""
        with self._guard:
            self._table()[str(name)] = {"id": identity, "ref": ref, "size": size, "usedAt": self._now()}
            self._save()

    def name_plain(self, name: Reference, root: Path, config: bytes) -> None:
        """Give a root directory of the machine a name; it stays where it is."""
        made = documents.new_hash("sha256:" + "0" * 64)
        made.update(os.fsencode(root) + b"\0" + config)
        identity = f"sha256:{made.hexdigest()}"
        path = self.directory / "plain" / made.hexdigest()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(config)
        entry = {"id": identity, "ref": identity, "size": 0, "usedAt": self._now(), "plain": True, "root": str(root)}
        with self._guard:
            self._table()[str(name)] = entry
            self._save()

    def collect(self, in_use: Iterable[Path], older_than: float) -> int:
        """Remove images that nobody uses and nobody has used since ``older_than``, and what belongs to no image.

        :returns: bytes of blobs that were freed.
        """
        kept_roots = {str(path) for path in in_use}
        with self._guard:
            table = self._table()
            for name, entry in list(table.items()):
                root = entry["root"] if entry.get("plain") else str(self._root(entry["id"]))
                if root not in kept_roots and entry["usedAt"] < older_than:
                    del table[name]
            self._save()
            ids = {entry["id"].partition(":")[2] for entry in table.values()}
        for path in (self.directory / "roots").glob("*"):
            if path.name not in ids and str(path / "rootfs") not in kept_roots:
                shutil.rmtree(path, ignore_errors=True)
        for path in (self.directory / "plain").glob("*"):
            if path.name not in ids:
                path.unlink(missing_ok=True)
        return self._collect_blobs(ids)

    def _collect_blobs(self, ids: set[str]) -> int:
        """Unpacked layers are not needed again: only configurations (and manifests, which are small) stay."""
        freed = 0
        for path in (self.directory / "blobs").glob("*/*"):
            if path.name in ids or path.suffix == ".part":
                continue
            freed += path.stat().st_size
            path.unlink(missing_ok=True)
        return freed
