"""Images made by hand: layers, layouts, a root with busybox."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

LAYER = "application/vnd.oci.image.layer.v1.tar"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0, mode: int = 0o644
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode = kind, link, size, mode
    info.uid, info.gid = os.getuid(), os.getgid()
    return info


def layer(*entries: tuple[str, str | bytes | None] | tarfile.TarInfo) -> bytes:
    """A layer of files (name, content), directories (name, None) and whatever else."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                tar.addfile(entry, io.BytesIO(b"\0" * entry.size))
                continue
            name, content = entry
            if content is None:
                tar.addfile(member(name, tarfile.DIRTYPE, mode=0o755))
            else:
                data = content.encode() if isinstance(content, str) else content
                tar.addfile(member(name, size=len(data), mode=0o755), io.BytesIO(data))
    return out.getvalue()


def tree(root: Path) -> dict[str, str]:
    """Paths below a root: content of files, ``-> TARGET`` of links, ``/`` of directories."""
    out = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        out[name] = f"-> {os.readlink(path)}" if path.is_symlink() else "/" if path.is_dir() else path.read_text()
    return out


class Blobs:
    """What an image consists of: digest -> content."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    def add(self, data: bytes, media_type: str) -> dict[str, Any]:
        self.blobs[digest(data)] = data
        return {"mediaType": media_type, "digest": digest(data), "size": len(data)}

    def image(self, layers: list[bytes], *, compression: str = "gzip", **config: Any) -> dict[str, Any]:
        """The descriptor of an image's manifest."""
        parts = []
        for data in layers:
            packed = _compress(data, compression)
            parts.append(self.add(packed, LAYER + (f"+{compression}" if compression else "")))
        settings = {"config": config, "rootfs": {"type": "layers", "diff_ids": [digest(data) for data in layers]}}
        about = self.add(json.dumps(settings).encode(), CONFIG)
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": about, "layers": parts}
        return self.add(json.dumps(manifest).encode(), MANIFEST)

    def index(self, *manifests: tuple[dict[str, Any], str]) -> dict[str, Any]:
        """The descriptor of an index of (manifest, architecture)."""
        items = [{**m, "platform": {"os": "linux", "architecture": a}} for m, a in manifests]
        return self.add(json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": items}).encode(), INDEX)

    def write(self, directory: Path, *tagged: tuple[dict[str, Any], str]) -> Path:
        """An OCI layout with these descriptors under these names."""
        blobs = directory / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        for name, data in self.blobs.items():
            (blobs / name.partition(":")[2]).write_bytes(data)
        (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        items = [{**d, "annotations": {"org.opencontainers.image.ref.name": n} if n else {}} for d, n in tagged]
        (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": items}))
        return directory


def _compress(data: bytes, compression: str) -> bytes:
    if compression == "gzip":
        return gzip.compress(data, mtime=0)
    if compression == "zstd":
        import zstandard

        return zstandard.ZstdCompressor().compress(data)
    return data


def busybox() -> bytes | None:
    """A layer with a static busybox under some of its names, when this machine has one."""
    path = shutil.which("busybox")
    if path is None or b"/ld-linux" in Path(path).read_bytes()[:4096]:
        return None
    words = "sh ls cat echo id sleep true touch grep mkdir stty head dd hostname mknod"
    names = words.split(" ")
    links = [member(f"bin/{name}", tarfile.SYMTYPE, "busybox", mode=0o777) for name in names]
    passwd = "root:x:0:0::/root:/bin/sh\nweb:x:101:102::/:/bin/sh\n"
    program: tuple[str, str | bytes | None] = ("bin/busybox", Path(path).read_bytes())
    files: list[tuple[str, str | bytes | None]] = [program, ("etc/passwd", passwd), ("etc/group", "more:x:7:web\n")]
    return layer(("bin", None), ("etc", None), *files, *links)
