"""Containers on this machine: what the rest of the node asks for, whatever the machine allows."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glebe.node.containers import abilities, cgroups, client, runspec, usage
from glebe.node.containers.abilities import Abilities
from glebe.node.containers.client import CannotExecute, NotRunning
from glebe.node.containers.rundir import Run
from glebe.node.containers.runspec import Settings
from glebe.node.containers.supervise import system
from glebe.node.containers.usage import Usage
from glebe.node.contracts import RUNTIMES, ContainerSpec, Limits, SandboxError, Streams

if TYPE_CHECKING:
    from glebe.node.containers.images.images import Images, Tell
    from glebe.node.containers.images.store import Image

_IMAGE_ROUND = 300.0  # seconds
_FULL = 0.85  # of the disk
_FULL_AGE = 120.0  # seconds that an image must not have been used, when the disk is full
_UNUSED_AGE = 7 * 86400.0  # and else

NATIVE, ANY_IMAGE, *_ = RUNTIMES

__all__ = ["Abilities", "CannotExecute", "Containers", "NotRunning", "Usage"]


class Containers:
    """Starts containers and talks to them.

    :param agent_file: names the agent that runs now; :param window: how long containers go on without one (seconds).
    :param key: tells this node's cgroups from those of other nodes on the machine; else its directory does.
    :param isolate: ``False``: plain processes, whatever the machine allows.
    :param hidden: directories that no container sees into (the platform's own).
    :param log_size, log_files: bytes of a container's log file, and how many of them there are.
    :param layouts: where images lie that need no registry (:mod:`.images.layout`).
    :param now: seconds since the epoch, for the age of images. :param news: told when other images are here.
    :param default_handler: the handler for pods without a RuntimeClass.
    """

    runtime = "process"  # in containerID: RUNTIME://...

    def __init__(
        self,
        agent_file: Path,
        window: float,
        *,
        key: str = "",
        isolate: bool = True,
        hidden: Sequence[Path] = (),
        log_size: int = 10 * 1024 * 1024,
        log_files: int = 5,
        layouts: Path | None = None,
        now: Callable[[], float] = lambda: 0.0,
        news: Callable[[], None] = lambda: None,
        default_handler: str = NATIVE,
    ) -> None:
        shown = tuple(str(path) for path in hidden)
        key = key or hashlib.sha256(os.fsencode(agent_file.absolute())).hexdigest()[:12]
        self._settings = Settings(agent_file, window, key, log_size, log_files, shown)
        self._isolate = isolate
        self._now = now
        self._news = news
        self._default = default_handler
        self._layouts = layouts
        self._images: Images | None = None
        self.abilities = Abilities()

    async def start(self) -> Abilities:
        """Find out what this machine allows; before anything else."""
        self.abilities = await abilities.find(self._settings.agent_file.parent, isolate=self._isolate)
        return self.abilities

    async def run(self, runs: Callable[[], Sequence[Run]]) -> None:
        """Keep order until cancelled: remove what earlier agents left behind, then images that nobody needs.

        As kubelets do, images go when the disk is 85 % full; besides, when nobody has used them for a week.

        :param runs: all runs that there are on this node.
        """
        await self.clean(runs())
        while True:
            await asyncio.sleep(_IMAGE_ROUND)
            await self.collect_images(runs(), _FULL_AGE if self._disk_is_full() else _UNUSED_AGE)

    def _disk_is_full(self) -> bool:
        usage = shutil.disk_usage(self._settings.agent_file.parent)
        return usage.used > _FULL * usage.total

    @property
    def mounts(self) -> bool:
        """Whether mounts appear in containers; where not, paths are rewritten."""
        return self.abilities.mounts

    def prepare(self, spec: ContainerSpec, run: Run) -> None:
        """Write down what is to run, once; a run that was prepared before keeps what it has.

        :raises ConfigError: it cannot be made as it is written.
        """
        if run.prepared:
            return
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(run.path / "view")  # of a preparation that was broken off
        run.path.mkdir(parents=True, exist_ok=True)
        make = runspec.from_image if spec.rootfs else runspec.native
        run.prepare(make(spec, run.path, self._settings, self.abilities))

    # --- images

    def handler(self, name: str) -> str:
        """The OCI runtime that a RuntimeClass' handler means; ``""``: the machine's own file system.

        :raises SandboxError: no runtime answers to it here.
        """
        name = name or self._default
        if name == NATIVE:
            return ""
        runtimes = self.abilities.runtimes if self.abilities.images else {}
        if name == ANY_IMAGE and runtimes:
            return next(iter(runtimes))
        if name in runtimes:
            return name
        raise SandboxError(f'failed to get sandbox runtime: no runtime for "{name}" is configured')

    @property
    def handlers(self) -> tuple[str, ...]:
        """The handlers that can be used here."""
        return (NATIVE, *((ANY_IMAGE, *self.abilities.runtimes) if self.abilities.images else ()))

    async def image(self, name: str, policy: str, secrets: Iterable[Mapping[str, Any]], tell: Tell) -> Image:
        """An image, unpacked and ready; ``secrets`` are the pod's ``imagePullSecrets``.

        :raises ImageError: it cannot be had.
        """
        before = self.list_images()
        image = await self._store().ensure(name, policy, secrets, tell)
        if self.list_images() != before:
            self._news()
        return image

    def list_images(self) -> list[dict[str, Any]]:
        """For ``node.status.images``."""
        directory = self._settings.agent_file.parent / "images"
        return self._store().store.list() if self.abilities.images and directory.exists() else []

    async def collect_images(self, runs: Sequence[Run], unused_for: float) -> int:
        """Remove images that no run uses and that nobody wanted for so many seconds; bytes of blobs that were freed."""
        if not self.list_images():
            return 0
        used = [Path((run.spec.get("oci") or {}).get("overlay", {}).get("lower", "")) for run in runs]
        volumes = self._settings.agent_file.parent.glob("pods/*/volumes/*")
        used += [path.readlink() for path in volumes if path.is_symlink()]  # volumes that are images
        freed = await self._store().collect(used, self._now() - unused_for)
        self._news()
        return freed

    def _store(self) -> Images:
        if self._images is None:
            from glebe.node.containers.images.images import Images  # here: most nodes never use one

            base = self._settings.agent_file.parent / "images"
            self._images = Images(base, self._layouts or base / "local", self._now)
        return self._images

    # --- talking to them

    async def execute(self, run: Run, argv: Sequence[str], *, tty: bool = False, stdin: bool = False) -> Streams:
        """Start a further process in a running container: its environment, directory, user and namespaces.

        It is ended with the container and by ``close`` of what is returned. With ``tty`` everything comes as stream 1.

        :raises NotRunning: the container has ended or has not begun.
        :raises CannotExecute: the command cannot be started.
        """
        self._check(run)
        return await client.execute(run.path, argv, tty=tty, stdin=stdin)

    async def attach(self, run: Run, *, stdin: bool = False) -> Streams:
        """Talk to the container's own process, beside its log: output from now on, input where the pod has one.

        :raises NotRunning: it has ended or has not begun.
        """
        self._check(run)
        return await client.attach(run.path, stdin=stdin)

    @staticmethod
    def _check(run: Run) -> None:
        if run.started_at is None or run.exit is not None:
            raise NotRunning("container not running")

    async def usage(self, run: Run) -> Usage | None:
        """What the run uses; ``None`` when it does not run."""
        holder = run.supervisor
        if holder is None or run.exit is not None or not holder.alive:
            return None
        return usage.of(run.spec.get("cgroup") or {}, holder.pid)

    def oom(self, run: Run) -> bool:
        """Whether the kernel killed a process of the run for its memory limit."""
        end = run.exit
        return end is not None and end.reason == "OOMKilled"

    def resize(self, run: Run, limits: Limits) -> None:
        """Give a running container other limits.

        :raises OSError: the kernel does not take them (less memory than is in use).
        """
        name = cgroups.group_name(self._settings.key, run.path)
        if self.abilities.groups.version:
            wanted = list(cgroups.values(self.abilities.groups, name, limits))
            for path, text in wanted:
                if os.path.exists(path):
                    system.write(path, text)
        if "memory" not in self.abilities.groups.controllers:
            system.write_json(str(run.path / "limits.json"), {"memory": limits.memory})
            holder = run.supervisor
            if holder is not None and holder.alive:
                os.kill(holder.pid, signal.SIGCHLD)  # it looks around whenever that comes

    async def clean(self, known: Sequence[Run]) -> None:
        """Remove cgroups of runs that there are no more (their supervisors were killed while no agent was there)."""
        if self.abilities.groups.version:
            names = [cgroups.group_name(self._settings.key, run.path) for run in known]
            for group in cgroups.left_over(self.abilities.groups, self._settings.key, names, self._now()):
                await asyncio.to_thread(cgroups.clear, group)
