"""What this machine allows the containers of a process node, found once by doing it."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from glebe.node.containers import cgroups, probe
from glebe.node.containers.cgroups import Groups

_RUNTIMES = ("crun", "runc")
_TIMEOUT = 20.0


@dataclass(frozen=True, slots=True)
class Abilities:
    """``user``: only in a user namespace, as one user. ``runtimes``: OCI runtimes by name, with their paths."""

    mounts: bool = False
    user: bool = False
    pids: bool = False
    hostname: bool = False
    networks: bool = False
    overlay: bool = False
    groups: Groups = field(default_factory=Groups)
    runtimes: Mapping[str, str] = field(default_factory=dict)

    @property
    def cgroups(self) -> int:
        """The version of cgroups that can be written, 0: none."""
        return self.groups.version

    @property
    def images(self) -> bool:
        """Whether containers can run from images."""
        return bool(self.runtimes) and self.mounts and self.overlay and not self.user

    def summary(self) -> str:
        """One line for people: what is isolated and what is not."""
        kinds = (("mounts", self.mounts), ("processes", self.pids), ("host name", self.hostname))
        yes = [name for name, on in kinds if on]
        if self.groups.version:
            yes.append(f"limits (cgroup v{self.groups.version}: {', '.join(sorted(self.groups.controllers))})")
        own = f"own {', '.join(yes)}" if yes else "nothing isolated"
        memory = "" if "memory" in self.groups.controllers else "; memory limits are a best effort"
        images = f"images with {', '.join(self.runtimes)}" if self.images else "no images"
        return f"{own}; the machine's files are shared{memory}; {images}"


async def find(directory: Path, *, isolate: bool = True) -> Abilities:
    """Probe, in a thread. ``directory`` is on the file system that containers' directories will be on.

    :param isolate: ``False``: look for nothing; containers are plain processes.
    """
    return await asyncio.to_thread(look, directory) if isolate else Abilities()


def look(directory: Path) -> Abilities:
    """Probe (blocking, some 50 ms)."""
    found = _probe(directory)
    return Abilities(
        mounts=bool(found.get("mount")),
        user=bool(found.get("user")),
        pids=bool(found.get("pid")),
        hostname=bool(found.get("hostname")),
        networks=bool(found.get("network")),
        overlay=bool(found.get("overlay")),
        groups=cgroups.find(),
        runtimes={name: path for name in _RUNTIMES if (path := shutil.which(name))},
    )


def _probe(directory: Path) -> dict[str, bool]:
    """What the probing program says; nothing, when it cannot even be run."""
    directory.mkdir(parents=True, exist_ok=True)
    place = tempfile.mkdtemp(prefix="probe.", dir=directory)
    try:
        command = [sys.executable, "-I", "-S", str(probe.__file__), place]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env={}, timeout=_TIMEOUT)
        found: dict[str, bool] = orjson.loads(done.stdout)
        return found
    except (OSError, subprocess.SubprocessError, orjson.JSONDecodeError):
        return {}
    finally:
        shutil.rmtree(place, ignore_errors=True)
