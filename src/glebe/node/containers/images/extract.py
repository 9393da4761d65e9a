"""Unpacking layers into a root directory, one over the other, so that nothing lands outside of it.

Links in an image are followed inside the image only; device nodes are left out (containers get their own ``/dev``);
owners are kept where we are root; whiteouts (``.wh.NAME``, ``.wh..wh..opq``) remove what lower layers brought.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import shutil
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from glebe.node.containers.images.documents import new_hash
from glebe.node.containers.images.errors import BrokenImage

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_CAPABILITY = "security.capability"
_MAX_LINKS = 40
_MAX_PARTS = 256
_CHUNK = 1 << 20


class Bound:
    """How much an image may unpack to: bytes and entries, over all its layers."""

    def __init__(self, size: int = 64 << 30, entries: int = 4_000_000) -> None:
        self._size, self._entries = size, entries

    def take(self, size: int) -> None:
        """One more entry.

        :raises BrokenImage: it is too much.
        """
        self._size -= size
        self._entries -= 1
        if self._size < 0 or self._entries < 0:
            raise BrokenImage("the image unpacks to more than this node takes")


def unpack(layer: IO[bytes], compression: str, diff_id: str, root: Path, bound: Bound | None = None) -> None:
    """Apply one layer.

    :param diff_id: the digest of the uncompressed content, ``""``: not known.
    :raises BrokenImage: it is damaged, unsafe or not what it should be.
    """
    plain: IO[bytes] = _plain(layer, compression)
    hashed = _Hashed(plain, diff_id)
    try:
        with tarfile.open(fileobj=hashed, mode="r|", bufsize=512 * 128) as tar:
            _Unpacker(root, bound or Bound()).apply(tar)
        while hashed.read(_CHUNK):
            pass
    except BrokenImage:
        raise
    except OSError as error:
        raise BrokenImage(f"a layer cannot be unpacked: {error.strerror or error}") from error
    except Exception as error:  # what decoders raise over damaged input is not to be listed
        raise BrokenImage(f"a layer is damaged: {error}") from error
    hashed.check()


def _plain(layer: IO[bytes], compression: str) -> Any:
    if compression == "gzip":
        return gzip.GzipFile(fileobj=layer)
    if compression == "zstd":
        import zstandard  # here: few images need it

        return zstandard.ZstdDecompressor().stream_reader(layer)
    return layer


class _Hashed(io.RawIOBase):
    def __init__(self, inner: IO[bytes], digest: str) -> None:
        self._inner = inner
        self._digest = digest
        self._hash = new_hash(digest) if digest else None

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._inner.read(size)
        if self._hash is not None:
            self._hash.update(data)
        return data

    def check(self) -> None:
        if self._hash is not None and self._hash.hexdigest() != self._digest.partition(":")[2]:
            raise BrokenImage(f"a layer's content does not have the digest {self._digest}")


class _Unpacker:
    def __init__(self, root: Path, bound: Bound) -> None:
        self._root = str(root)
        self._bound = bound
        self._fresh: set[str] = set()  # paths of this layer, which its own opaque whiteouts spare
        self._times: list[tuple[str, float]] = []
        self._privileged = os.geteuid() == 0

    def apply(self, tar: tarfile.TarFile) -> None:
        for member in tar:
            self._bound.take(member.size)
            parts = _parts(member.name)
            if parts:
                self._entry(tar, member, parts)
        for path, when in reversed(self._times):
            with contextlib.suppress(OSError, OverflowError, ValueError):
                os.utime(path, (when, when), follow_symlinks=False)

    def _entry(self, tar: tarfile.TarFile, member: tarfile.TarInfo, parts: list[str]) -> None:
        parent = self._directory(parts[:-1])
        name = parts[-1]
        if name.startswith(_WHITEOUT):
            self._white_out(parent, name)
            return
        path = f"{parent}/{name}"
        make = _MAKERS.get(member.type)
        if make is None:
            return  # device nodes, pipes
        self._clear(path, member)
        make(self, tar, member, path)
        self._fresh.add(path)
        if not member.islnk():  # its file is dressed already, and may be a link that leads elsewhere
            self._dress(member, path)

    # --- where

    def _directory(self, parts: list[str]) -> str:
        """The real directory for a path in the image: links are followed within it, what is missing is made."""
        todo, at, links = parts[::-1], self._root, 0
        while todo:
            name = todo.pop()
            if name == "..":
                at = at if at == self._root else os.path.dirname(at)
                continue
            path = f"{at}/{name}"
            try:
                mode = os.lstat(path).st_mode
            except FileNotFoundError:
                os.mkdir(path, 0o755)
                at = path
                continue
            if stat.S_ISLNK(mode):
                links += 1
                if links > _MAX_LINKS or len(todo) > _MAX_PARTS:
                    raise BrokenImage("a layer has a path with too many links")
                target = os.readlink(path)
                todo += [part for part in target.split("/") if part not in ("", ".")][::-1]
                at = self._root if target.startswith("/") else at
            elif stat.S_ISDIR(mode):
                at = path
            else:
                os.unlink(path)
                os.mkdir(path, 0o755)
                at = path
        return at

    def _clear(self, path: str, member: tarfile.TarInfo) -> None:
        """Make room: only a directory over a directory stays."""
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            return
        if stat.S_ISDIR(mode) and member.isdir():
            return
        _remove(path, mode)

    def _white_out(self, parent: str, name: str) -> None:
        if name == _OPAQUE:
            for entry in list(os.scandir(parent)):
                if entry.path not in self._fresh and not any(x.startswith(entry.path + "/") for x in self._fresh):
                    _remove(entry.path, entry.stat(follow_symlinks=False).st_mode)
            return
        hidden = name[len(_WHITEOUT) :]
        if hidden in ("", ".", "..") or "/" in hidden:
            raise BrokenImage("a layer has a whiteout of nothing")
        path = f"{parent}/{hidden}"
        with contextlib.suppress(FileNotFoundError):
            _remove(path, os.lstat(path).st_mode)

    # --- what

    def _make_directory(self, tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o755)

    def _make_file(self, tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        source = tar.extractfile(member)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as file:
            if source is not None:
                shutil.copyfileobj(source, file, _CHUNK)

    def _make_link(self, tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        os.symlink(member.linkname, path)

    def _make_hard_link(self, tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        parts = _parts(member.linkname)
        if not parts:
            raise BrokenImage("a layer has a hard link to nothing")
        source = f"{self._directory(parts[:-1])}/{parts[-1]}"
        try:
            if stat.S_ISDIR(os.lstat(source).st_mode):
                raise BrokenImage("a layer has a hard link to a directory")
        except FileNotFoundError:
            raise BrokenImage(f'a layer has a hard link to "{member.linkname[:200]}", which is missing') from None
        os.link(source, path, follow_symlinks=False)

    def _dress(self, member: tarfile.TarInfo, path: str) -> None:
        """Owner, mode, file capabilities, time."""
        if self._privileged:
            os.chown(path, member.uid, member.gid, follow_symlinks=False)
        if not member.issym():
            mode = stat.S_IMODE(member.mode)
            os.chmod(path, mode if self._privileged or not member.isdir() else mode | 0o700)
        capability = member.pax_headers.get(f"SCHILY.xattr.{_CAPABILITY}")
        if capability and member.isfile() and self._privileged:
            with contextlib.suppress(OSError):
                os.setxattr(path, _CAPABILITY, capability.encode("utf-8", "surrogateescape"), follow_symlinks=False)
        if member.isdir():
            self._times.append((path, member.mtime))
        else:
            with contextlib.suppress(OSError, OverflowError, ValueError):
                os.utime(path, (member.mtime, member.mtime), follow_symlinks=False)


_MAKERS: dict[bytes, Callable[[_Unpacker, tarfile.TarFile, tarfile.TarInfo, str], None]] = {
    tarfile.DIRTYPE: _Unpacker._make_directory,
    tarfile.REGTYPE: _Unpacker._make_file,
    tarfile.AREGTYPE: _Unpacker._make_file,
    tarfile.CONTTYPE: _Unpacker._make_file,
    tarfile.GNUTYPE_SPARSE: _Unpacker._make_file,
    tarfile.SYMTYPE: _Unpacker._make_link,
    tarfile.LNKTYPE: _Unpacker._make_hard_link,
}


def _parts(name: str) -> list[str]:
    """A path's names; ``..`` goes up, but never above the root."""
    if "\0" in name:
        raise BrokenImage("a layer has a name with a zero in it")
    out: list[str] = []
    for part in name.split("/"):
        if part == "..":
            if out:
                out.pop()
        elif part not in ("", "."):
            out.append(part)
    if len(out) > _MAX_PARTS:
        raise BrokenImage("a layer has a path with too many names")
    return out


def _remove(path: str, mode: int) -> None:
    if stat.S_ISDIR(mode):
        shutil.rmtree(path)
    else:
        os.unlink(path)
