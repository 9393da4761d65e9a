"""Which mounts a container needs so that volumes appear where its pod says, on the machine's own file system.

The machine's files stay the real, writable ones. Where a mount point does not exist, it is made in the container's view
only: the nearest existing parent is replaced by a directory of ours (*view*) that holds, as mounts, everything the real
one holds, and the missing names. New files that a container makes directly in such a parent go to the view and vanish
with the container; everything below existing entries is real. When the missing name is at the top, the view becomes the
container's root.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from glebe.node.contracts import Mount

_MAX_LINKS = 40
_KEPT_WRITABLE = ("/dev", "/dev/shm", "/dev/pts", "/dev/mqueue", "/proc")

Operation = list[str | bool]


class CannotMount(Exception):
    """The mounts cannot be made as they are written."""


@dataclass(slots=True)
class _View:
    """A replacement for the real directory ``real``; ``path`` is where it is prepared."""

    real: str
    path: Path
    names: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Plan:
    """What the process inside does, in this order (``glebe.node.containers.supervise.inside``)."""

    operations: list[Operation] = field(default_factory=list)
    views: list[_View] = field(default_factory=list)


def plan(
    mounts: Sequence[Mount],
    views: Path,
    *,
    own_pids: bool = False,
    read_only_root: bool = False,
    hidden: Sequence[str] = (),
    keep: Sequence[str] = (),
    machine: str = "/",
) -> Plan:
    """Plan the mounts and prepare the views they need, as files below ``views``.

    :param own_pids: the container has a PID namespace, hence a /proc of its own.
    :param hidden: directories whose content is not shown, but for ``keep`` and what is mounted from there.
    :param machine: where the machine's root is seen (tests).
    :raises CannotMount: a source is missing, or a target is of the other kind.
    """
    made = _Planner(views, machine, read_only_root)
    ordered = sorted(mounts, key=lambda mount: len(Path(mount.target).parts))
    for mount in ordered:
        made.place(mount)
    for directory in hidden:
        shown = [(path, False) for path in keep] + [(mount.source, mount.read_only) for mount in ordered]
        made.hide(os.path.realpath(directory), shown)
    return made.finish(own_pids=own_pids)


class _Planner:
    def __init__(self, views: Path, machine: str, read_only_root: bool) -> None:
        self._base = views
        self._read_only_root = read_only_root
        self._machine = machine.rstrip("/")
        self._views: dict[str, _View] = {}  # real directory -> its replacement
        self._placed: dict[str, Mount] = {}  # resolved target -> mount
        self._volumes: list[Operation] = []
        self._hidden: list[Operation] = []

    # --- where is what

    def _here(self, path: str) -> str:
        return self._machine + path

    def _resolve(self, target: str) -> tuple[str, list[str]]:
        """The existing part of a path, without links, and the names that are missing below it."""
        if not target.startswith("/"):
            raise CannotMount(f'mount path "{target}" is not absolute')
        todo = [part for part in target.split("/") if part and part != "."][::-1]
        at, links = "", 0
        while todo:
            name = todo.pop()
            if name == "..":
                at = at.rpartition("/")[0]
                continue
            path = f"{at}/{name}"
            covered = self._covering(path)
            if covered is not None:  # below a mount of ours: its source decides
                return path, todo[::-1]
            try:
                mode = os.lstat(self._here(path)).st_mode
            except FileNotFoundError:
                return self._missing(at, [name, *todo[::-1]])
            except OSError as error:
                raise CannotMount(f'mount path "{target}": {error.strerror}') from error
            if stat.S_ISLNK(mode):
                links += 1
                if links > _MAX_LINKS:
                    raise CannotMount(f'mount path "{target}": too many links')
                link = os.readlink(self._here(path))
                todo += [part for part in link.split("/") if part and part != "."][::-1]
                at = "" if link.startswith("/") else at
                continue
            at = path
        return at or "/", []

    def _missing(self, at: str, names: list[str]) -> tuple[str, list[str]]:
        """What is missing on the machine may lie in a mount of ours at a place that is missing there, too."""
        path = at
        for index, name in enumerate(names):
            path = f"{path}/{name}"
            if path in self._placed:
                return path, names[index + 1 :]
        return at or "/", names

    def _covering(self, path: str) -> Mount | None:
        return self._placed.get(path)

    # --- one mount

    def place(self, mount: Mount) -> None:
        """Put a mount where it belongs, with whatever its mount point needs."""
        try:
            is_directory = stat.S_ISDIR(os.stat(mount.source).st_mode)
        except OSError as error:
            raise CannotMount(f'mount source "{mount.source}": {error.strerror}') from error
        existing, missing = self._resolve(mount.target)
        outer = self._covering(existing)
        if outer is not None and missing:
            self._within(outer, existing, missing, is_directory)
        elif missing:
            self._in_view(existing, missing, is_directory, mount)
        elif outer is None and os.path.isdir(self._here(existing)) != is_directory:
            kind = ("directory", "file") if is_directory else ("file", "directory")
            raise CannotMount(f'a {kind[0]} cannot be mounted at "{mount.target}", which is a {kind[1]}')
        target = "/".join([existing.rstrip("/"), *missing]) or "/"
        if target == "/":
            raise CannotMount("nothing can be mounted at /")
        self._placed[target] = mount
        self._volumes.append(["bind", mount.source, target, True, mount.read_only])
        if self._read_only_root and not mount.read_only and not _is_read_only(mount.source):
            self._volumes.append(["unlock", target])  # it took over that of the locked mount that it comes from

    def _within(self, outer: Mount, at: str, missing: list[str], is_directory: bool) -> None:
        """A mount point in another volume is made in that volume, as kubelets and runtimes do."""
        if ".." in missing:
            raise CannotMount(f'"{at}/{"/".join(missing)}" leads out of a volume')
        point = Path(outer.source)
        try:
            for index, name in enumerate(missing):
                point = point / name
                if point.is_symlink():
                    raise CannotMount(f'the mount point "{at}/{"/".join(missing)}" is a link in its volume')
                if index < len(missing) - 1 or is_directory:
                    point.mkdir(exist_ok=True)
                else:
                    point.touch(exist_ok=True)
        except OSError as error:
            raise CannotMount(f'mount point "{at}/{"/".join(missing)}": {error.strerror}') from error

    def _in_view(self, parent: str, missing: list[str], is_directory: bool, mount: Mount) -> None:
        if ".." in missing:
            raise CannotMount(f'mount path "{mount.target}" leads through a directory that does not exist')
        if not os.path.isdir(self._here(parent)):
            raise CannotMount(f'mount path "{mount.target}": "{parent}" is not a directory')
        view = self._views.get(parent)
        if view is None:
            view = self._views[parent] = _View(parent, self._base / str(len(self._views)))
            view.path.mkdir(parents=True)
        point = view.path.joinpath(*missing)
        (point if is_directory else point.parent).mkdir(parents=True, exist_ok=True)
        if not is_directory:
            point.touch()
        view.names.add(missing[0])

    # --- all together

    def finish(self, *, own_pids: bool) -> Plan:
        """All operations: the root, its parents, then what is writable or not, then the volumes."""
        out = Plan(views=list(self._views.values()))
        root = self._views.get("/")
        if root is not None:
            where = str(root.path)
            out.operations.append(["bind", where, where, False, False])
            out.operations += self._fill(root, where)
            out.operations.append(["pivot", where])
        for real in sorted(set(self._views) - {"/"}, key=lambda path: path.count("/")):
            out.operations += self._replace(self._views[real])
        if self._read_only_root:
            out.operations.append(["lock", "/"])
            out.operations += [["unlock", path] for path in _KEPT_WRITABLE if os.path.ismount(self._here(path))]
        if own_pids:
            out.operations.append(["proc", "/proc"])
        out.operations += self._volumes + self._hidden
        return out

    def _fill(self, view: _View, where: str) -> list[Operation]:
        """Everything of the real directory, mounted or linked into the view that is at ``where``."""
        operations: list[Operation] = []
        real = self._here(view.real) or "/"
        try:
            with os.scandir(real) as found:
                entries = sorted(found, key=lambda e: e.name)
            for entry in entries:
                target, source = view.path / entry.name, view.real.rstrip("/") + "/" + entry.name
                if entry.is_symlink():
                    os.symlink(os.readlink(entry.path), target)
                    continue
                if entry.is_dir(follow_symlinks=False):
                    target.mkdir()
                else:
                    target.touch()
                operations.append(["bind", self._here(source), f"{where}/{entry.name}", True, False])
            _copy_owner(real, view.path)
        except OSError as error:
            raise CannotMount(f'"{view.real}" cannot be shown to the container: {error.strerror}') from error
        return operations

    def hide(self, directory: str, keep: Sequence[tuple[str, bool]]) -> None:
        """Show nothing of a directory but what of ``keep`` lies in it: (path, read only)."""
        cover = self._base / f"hidden{len(self._hidden)}"
        cover.mkdir(parents=True)
        operations: list[Operation] = [["bind", str(cover), str(cover), False, False]]
        kept: list[str] = []
        for path, read_only in sorted({os.path.realpath(path): read_only for path, read_only in keep}.items()):
            inside = path.startswith(directory + "/") and os.path.exists(path)
            if not inside or any(f"{path}/".startswith(f"{other}/") for other in kept):
                continue
            kept.append(path)
            point = cover / path[len(directory) + 1 :]
            point.parent.mkdir(parents=True, exist_ok=True)
            if os.path.isdir(path):
                point.mkdir(exist_ok=True)
            else:
                point.touch()
            operations.append(["bind", path, str(point), True, read_only])
        self._hidden += [*operations, ["bind", str(cover), directory, True, False]]

    def _replace(self, view: _View) -> list[Operation]:
        """Fill a view where it is prepared, then put it over the real directory."""
        where = str(view.path)
        begin: list[Operation] = [["bind", where, where, False, False]]
        end: list[Operation] = [["bind", where, self._here(view.real), True, False]]
        return begin + self._fill(view, where) + end


def _is_read_only(path: str) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _copy_owner(real: str, view: Path) -> None:
    info = os.stat(real)
    view.chmod(stat.S_IMODE(info.st_mode))
    if os.geteuid() == 0:
        os.chown(view, info.st_uid, info.st_gid)
