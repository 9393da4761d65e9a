"""Planning mounts, held against a model of what the kernel makes of them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glebe.node.containers import mountplan
from glebe.node.containers.mountplan import CannotMount
from glebe.node.contracts import Mount


class Kernel:
    """Directories over directories: where a path leads in the namespace. Mounts are known by what they cover."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._over: dict[str, str] = {}

    def walk(self, path: str) -> str:
        todo, at, links = [part for part in path.split("/") if part][::-1], self._root, 0
        while todo:
            name = todo.pop()
            if name == "..":
                at = os.path.dirname(at) if at != self._root else at
                continue
            step = self._top(f"{at}/{name}")
            if os.path.islink(step):
                links += 1
                assert links < 50
                target = os.readlink(step)
                todo += [part for part in target.split("/") if part][::-1]
                at = self._root if target.startswith("/") else at
            else:
                at = step
        return at

    def _top(self, path: str) -> str:
        while path in self._over:
            path = self._over[path]
        return path

    def do(self, operation: list[str | bool], outside: str) -> None:
        kind, *rest = operation
        if kind == "bind":
            source, target = str(rest[0]), str(rest[1])
            where = target if target.startswith(outside) else self.walk(target)
            assert os.path.lexists(where), f"{where} is no mount point"
            if source != where:
                self._over[where] = source
        elif kind == "pivot":
            self._root = str(rest[0])


def snapshot(root: Path) -> list[tuple[str, int]]:
    return sorted((str(path.relative_to(root)), path.lstat().st_mode) for path in root.rglob("*"))


def check(base: Path, targets: list[tuple[str, bool]]) -> None:
    """Plan mounts at ``targets`` (path, is a file) for the machine at ``base/machine`` and follow the plan."""
    machine = base / "machine"
    mounts = []
    for index, (target, is_file) in enumerate(targets):
        source = base / f"v{index}"
        source.touch() if is_file else source.mkdir()
        mounts.append(Mount(str(source), target))
    before = snapshot(machine)
    try:
        plan = mountplan.plan(mounts, base / "views", machine=str(machine))
    except CannotMount:
        return
    finally:
        assert snapshot(machine) == before
    kernel = Kernel(machine)
    for operation in plan.operations:
        kernel.do(operation, str(base))
    last = {os.path.normpath(mount.target): mount for mount in sorted(mounts, key=lambda m: len(Path(m.target).parts))}
    for mount in last.values():
        assert kernel.walk(mount.target) == mount.source
    for name, _ in before:
        if not any(f"/{name}/".startswith(f"{path}/") for path in last) and not (machine / name).is_symlink():
            found = kernel.walk("/" + name)
            assert found == str(machine / name) or found.startswith((str(base / "views"), str(base / "v")))


def build(base: Path) -> None:
    machine = base / "machine"
    for name in ("etc/app", "var/lib", "run/x", "usr/lib"):
        (machine / name).mkdir(parents=True)
    for name in ("etc/hosts", "etc/app/conf", "top"):
        (machine / name).write_text(name)
    (machine / "var" / "run").symlink_to("/run")
    (machine / "lib").symlink_to("usr/lib")
    (machine / "up").symlink_to("../../etc")


@pytest.mark.parametrize(
    "targets",
    [
        [("/data", False)],
        [("/etc/hosts", True), ("/etc/new/conf.d", False), ("/etc/new/file", True)],
        [("/var/run/secrets/kubernetes.io/serviceaccount", False), ("/data/a/b", False), ("/data/a", False)],
        [("/lib/modules", False), ("/up/x", True), ("/etc/app", False), ("/etc/app/conf", True)],
        [("/etc", False), ("/etc/hosts", True), ("/x/../y", False)],
    ],
)
def test_volumes_appear_where_they_should(tmp_path: Path, targets: list[tuple[str, bool]]) -> None:
    build(tmp_path)
    check(tmp_path, targets)


_part = st.sampled_from(["etc", "app", "conf", "hosts", "var", "run", "lib", "up", "new", "top", "usr", "x"])
_target = st.lists(_part, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(_target, st.booleans()), min_size=1, max_size=5))
def test_any_volumes_appear_and_the_machine_stays_as_it_is(targets: list[tuple[str, bool]]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary).resolve()
        build(base)
        check(base, targets)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("relative", "is not absolute"),
        ("/", "nothing can be mounted at /"),
        ("/etc/hosts/below", "is not a directory|Not a directory"),
        ("/etc/hosts", "a directory cannot be mounted"),
        ("/none/../../x/y", None),
    ],
)
def test_what_cannot_be_mounted_is_said(tmp_path: Path, target: str, message: str | None) -> None:
    build(tmp_path)
    (tmp_path / "v").mkdir()
    mounts = [Mount(str(tmp_path / "v"), target)]
    with pytest.raises(CannotMount, match=message or ""):
        mountplan.plan(mounts, tmp_path / "views", machine=str(tmp_path / "machine"))


def test_owners_and_modes_of_replaced_directories_are_kept(tmp_path: Path) -> None:
    build(tmp_path)
    (tmp_path / "machine" / "etc").chmod(0o1777)
    (tmp_path / "v").mkdir()
    plan = mountplan.plan([Mount(str(tmp_path / "v"), "/etc/n")], tmp_path / "views", machine=str(tmp_path / "machine"))
    assert plan.views[0].path.stat().st_mode & 0o7777 == 0o1777
    assert sorted(path.name for path in plan.views[0].path.iterdir()) == ["app", "hosts", "n"]
