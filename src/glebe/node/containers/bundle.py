"""A container with a root of its own as an OCI runtime wants it: the bundle's ``config.json``.

What is hardened: an image's environment reaches no hook (there are none), the usual masks over /proc and /sys, the
usual capabilities but MKNOD (no cgroup keeps devices away), no device nodes from the image, its root is a private
overlay over the unpacked image, which stays as it is.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from glebe.node.containers import capabilities
from glebe.node.contracts import ContainerSpec, CreateError

_MASKED = (
    "/proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/sched_debug /proc/scsi "
    "/proc/timer_list /proc/timer_stats /sys/devices/virtual/powercap /sys/firmware"
)
_READ_ONLY = "/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SAFE = ["nosuid", "noexec", "nodev"]
_NAMESPACES = ("mount", "ipc", "uts")


def config(
    spec: ContainerSpec, root: Path, mark: dict[str, str], cgroup: str = "", groups: dict[str, str] | None = None
) -> dict[str, Any]:
    """The whole document. ``spec.identity`` has numbers (:mod:`.images.users`).

    :param root: where the supervisor mounts the container's root. :param cgroup: for runtimes that insist on one.
    :param groups: the container's own cgroups, to be seen in it: place below ``/sys/fs/cgroup`` -> directory.
    :raises CreateError: it names capabilities or devices that there are not.
    """
    spaces: list[dict[str, str]] = [{"type": name} for name in _NAMESPACES]
    if not spec.host_pids:
        spaces.append({"type": "pid"})
    if spec.network:
        spaces.append({"type": "network", "path": spec.network})
    privileged = spec.identity.privileged
    linux: dict[str, Any] = {
        "namespaces": spaces,
        "maskedPaths": [] if privileged else _MASKED.split(),
        "readonlyPaths": [] if privileged else _READ_ONLY.split(),
    }
    if spec.devices:
        linux["devices"] = [_device(path) for path in spec.devices]
    if spec.sysctls:
        linux["sysctl"] = dict(spec.sysctls)
    if cgroup:
        linux["cgroupsPath"] = cgroup
    return {
        "ociVersion": "1.0.2",
        "process": process(spec, mark),
        "root": {"path": str(root), "readonly": spec.read_only_root},
        "hostname": spec.hostname[:64] or "container",
        "mounts": _mounts(spec, groups or {}),
        "linux": linux,
    }


def _device(path: str) -> dict[str, Any]:
    try:
        info = os.stat(path)
    except OSError as error:
        raise CreateError(f'device "{path}": {error.strerror}') from error
    kind = "c" if stat.S_ISCHR(info.st_mode) else "b" if stat.S_ISBLK(info.st_mode) else ""
    if not kind:
        raise CreateError(f'"{path}" is not a device')
    return {
        "path": path,
        "type": kind,
        "major": os.major(info.st_rdev),
        "minor": os.minor(info.st_rdev),
        "fileMode": stat.S_IMODE(info.st_mode),
        "uid": info.st_uid,
        "gid": info.st_gid,
    }


def process(spec: ContainerSpec, mark: dict[str, str]) -> dict[str, Any]:
    """The container's process; further ones are made from it."""
    identity = spec.identity
    env = {"PATH": _PATH, **({"TERM": "xterm"} if spec.tty else {}), **spec.env, **mark}
    names = _capabilities(spec)
    held = [f"CAP_{name}" for name in names]
    effective = held if not identity.user else []
    return {
        "terminal": spec.tty,
        "user": {
            "uid": identity.user or 0,
            "gid": identity.group or 0,
            "additionalGids": list(identity.groups),
            "umask": 0o022,
        },
        "args": list(spec.argv),
        "env": [f"{name}={value}" for name, value in env.items()],
        "cwd": spec.cwd or "/",
        "capabilities": {"bounding": held, "effective": effective, "permitted": effective},
        "rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}],
        "noNewPrivileges": identity.no_new_privileges,
    }


def _capabilities(spec: ContainerSpec) -> list[str]:
    identity = spec.identity
    try:
        names = capabilities.of(identity)
    except capabilities.UnknownCapability as error:
        raise CreateError(str(error)) from error
    asked = {name.upper().removeprefix("CAP_") for name in identity.add_capabilities}
    if not identity.privileged and not asked & {"MKNOD", "ALL"}:
        names = [name for name in names if name != "MKNOD"]
    bounds = capabilities.own_bounds()  # a machine that is a container itself has not all to give
    return [name for name in names if bounds >> capabilities.NUMBERS[name] & 1]


def _mounts(spec: ContainerSpec, groups: dict[str, str]) -> list[dict[str, Any]]:
    def mount(target: str, kind: str, options: list[str], source: str = "") -> dict[str, Any]:
        return {"destination": target, "type": kind, "source": source or kind, "options": options}

    private = [
        mount("/proc", "proc", _SAFE),
        mount("/dev", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        mount("/dev/shm", "tmpfs", [*_SAFE, "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", _SAFE),
        mount("/sys", "sysfs", [*_SAFE, "rw" if spec.identity.privileged else "ro"]),
    ]
    if groups and "" not in groups:
        private.append(mount("/sys/fs/cgroup", "tmpfs", [*_SAFE, "mode=755", "size=64k"]))
    for place, directory in sorted(groups.items()):
        target = f"/sys/fs/cgroup/{place}".rstrip("/")
        private.append(mount(target, "bind", ["rbind", "rprivate", "ro", *_SAFE], directory))
    given = [
        mount(m.target, "bind", ["rbind", "rprivate", "ro" if m.read_only else "rw"], m.source)
        for m in sorted(spec.mounts, key=lambda m: len(Path(m.target).parts))
    ]
    return private + given
