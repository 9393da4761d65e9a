"""A disk that is nearly full: the node says so, takes no new pods, and evicts those that use the most."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glebe.kube.clock import format_time
from glebe.kube.objects import Object, set_condition
from glebe.kube.pods import requests_of
from glebe.kube.quantity import canonical, to_int
from glebe.node.containers.rundir import place_of
from glebe.node.contracts import AdmissionError
from glebe.node.process.runner import PodRunner
from glebe.node.volumes.usage import size_of

RESOURCE = "ephemeral-storage"
SHARE, MOST = 0.05, 1 << 30  # pressure begins when less than this share, and less than so many bytes, are free
LASTS = 300.0  # seconds for which a pressure that is over is still said, as kubelets do
_LOOK = 10.0
_CRITICAL = 2_000_000_000  # pods of this priority are not evicted

#: (total, free) bytes of the file system below a directory
Free = Callable[[Path], tuple[int, int]]


def disk(path: Path) -> tuple[int, int]:
    """What the machine says."""
    usage = shutil.disk_usage(path)
    return usage.total, usage.free


@dataclass(frozen=True, slots=True)
class Use:
    """What one pod has on the disk, by container; ``rest`` is its volumes."""

    runner: PodRunner
    containers: dict[str, int]
    rest: int

    @property
    def total(self) -> int:
        return sum(self.containers.values()) + self.rest

    @property
    def order(self) -> tuple[bool, int, int]:
        """Who goes first: those over their request, of low priority, that use the most."""
        spec = self.runner.pod["spec"]
        asked = requests_of(spec, RESOURCE).get(RESOURCE, 0)
        return self.total <= asked, int(spec.get("priority") or 0), -(self.total - asked)


class DiskPressure:
    """Watches the file system below ``root``.

    :param runners: the pods that run; :param tell: called when the node's condition changes.
    """

    def __init__(
        self,
        root: Path,
        now: Callable[[], float],
        runners: Callable[[], Iterable[PodRunner]],
        tell: Callable[[], None],
        free: Free = disk,
    ) -> None:
        self._root = root
        self._now = now
        self._runners = runners
        self._tell = tell
        self._free = free
        self._until = 0.0
        self.under = False

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOK)

    async def look(self) -> None:
        """One look: the condition, and at most one eviction."""
        total, free = self._free(self._root)
        threshold = int(min(total * SHARE, MOST))
        short = free < threshold
        if short:
            self._until = self._now() + LASTS
        under = self._now() < self._until
        if under is not self.under:
            self.under = under
            self._tell()
        if short:
            await self._evict(threshold, free)

    def refuse(self, pod: Object) -> None:
        """
        :raises AdmissionError: the node takes no new pods now.
        """
        if self.under and int(pod["spec"].get("priority") or 0) < _CRITICAL:
            raise AdmissionError("Evicted", "The node had condition: [DiskPressure]. ")

    def conditions(self, conditions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The node's conditions with this one as it is."""
        if not self.under:
            return conditions
        stamp = format_time(self._now())
        text = "kubelet has disk pressure"
        made = set_condition(conditions, "DiskPressure", "True", "KubeletHasDiskPressure", text, stamp)
        return [{**c, "lastHeartbeatTime": stamp} if c["type"] == "DiskPressure" else c for c in made]

    async def _evict(self, threshold: int, free: int) -> None:
        able = [r for r in self._runners() if not r.finished and int(r.pod["spec"].get("priority") or 0) < _CRITICAL]
        uses = sorted([await asyncio.to_thread(use_of, runner) for runner in able], key=lambda use: use.order)
        if uses and uses[0].total:
            uses[0].runner.evict(message(uses[0], threshold, free))


def use_of(runner: PodRunner) -> Use:
    """What a pod has on the disk now."""
    base = runner.ctx.directory
    names = [status.name for status in runner.state.all]
    containers = {name: size_of(place_of(base, name)) for name in names}
    return Use(runner, containers, max(0, size_of(base) - sum(containers.values())))


def message(use: Use, threshold: int, free: int) -> str:
    """What the pod's status says, in the kubelet's words."""
    text = f"The node was low on resource: {RESOURCE}. Threshold quantity: {threshold}, available: {_kib(free)}. "
    asked = {
        c["name"]: ((c.get("resources") or {}).get("requests") or {}).get(RESOURCE, "0")
        for c in (*(use.runner.pod["spec"].get("initContainers") or ()), *use.runner.pod["spec"]["containers"])
    }
    for name, used in use.containers.items():
        request = asked.get(name, "0")
        if used > to_int(request, RESOURCE):
            text += f"Container {name} was using {_kib(used)}, request is {canonical(request)}, "
            text += f"has larger consumption of {RESOURCE}. "
    return text


def _kib(amount: int) -> str:
    return f"{amount // 1024}Ki"
