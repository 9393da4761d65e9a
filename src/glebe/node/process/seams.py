"""What a process node is built from, as far as the rooms next door do not provide it yet: thin adapters.

Each class here stands in for one of the same name in ``network/``, ``volumes/``, ``devices/`` and ``containers/``;
``node.py`` imports them from one place, so that a room's own class replaces its stand-in with one line.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glebe.kube.objects import Object
from glebe.kube.pods import requests_of
from glebe.node.containers.rundir import Run
from glebe.node.contracts import AdmissionError, ContainerSpec, PodNetwork
from glebe.node.spec import GPU_RESOURCE
from glebe.node.volumes.volumes import Volumes as Volumes


@dataclass(frozen=True, slots=True)
class Grant:
    """The GPUs of one pod, by index."""

    gpus: tuple[int, ...] = ()

    @property
    def record(self) -> dict[str, Any]:
        return {"gpus": list(self.gpus)}

    def env(self, container: Mapping[str, Any]) -> dict[str, str]:
        """What the container must be told."""
        resources = container.get("resources") or {}
        wants = any(GPU_RESOURCE in (resources.get(kind) or {}) for kind in ("limits", "requests"))
        return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, self.gpus)) if wants else ""}


class Devices:
    """GPUs ``0 .. count-1``, given out whole."""

    def __init__(self, count: int) -> None:
        self._free = list(range(count))
        self._grants: dict[str, Grant] = {}

    def restore(self, uid: str, record: Mapping[str, Any]) -> Grant:
        """The pod has these already (given by an earlier agent)."""
        grant = self._grants[uid] = Grant(tuple(record.get("gpus") or ()))
        self._free = [i for i in self._free if i not in grant.gpus]
        return grant

    async def allocate(self, pod: Object) -> Grant:
        """The pod's devices; the same again when it has some.

        :raises AdmissionError: there are not enough.
        """
        uid = pod["metadata"]["uid"]
        if uid not in self._grants:
            wanted = requests_of(pod["spec"], GPU_RESOURCE).get(GPU_RESOURCE, 0)
            if wanted > len(self._free):
                raise AdmissionError(
                    "UnexpectedAdmissionError",
                    f"Allocate failed due to requested number of devices unavailable for {GPU_RESOURCE}. "
                    f"Requested: {wanted}, Available: {len(self._free)}, which is unexpected",
                )
            taken, self._free = self._free[:wanted], self._free[wanted:]
            self._grants[uid] = Grant(tuple(taken))
        return self._grants[uid]

    async def release(self, uid: str) -> None:
        """The pod is gone."""
        grant = self._grants.pop(uid, Grant())
        self._free = sorted({*self._free, *grant.gpus})


class Containers:
    """Processes of this machine, each with a supervisor.

    :param agent_file: names the agent that runs now; :param window: how long containers go on without one (seconds).
    """

    #: Whether mounts appear in containers; where not, paths are rewritten.
    mounts = False
    runtime = "process"  # in containerID: RUNTIME://...

    def __init__(self, agent_file: Path, window: float) -> None:
        self._agent_file = agent_file
        self._window = window

    def prepare(self, spec: ContainerSpec, run: Run) -> None:
        """Write down what is to run, once; a run that was prepared before keeps what it has."""
        run.prepare(
            {
                "argv": list(spec.argv),
                "env": dict(spec.env),
                "cwd": spec.cwd,
                "log": str(run.log),
                "agent": str(self._agent_file),
                "grace": spec.grace,
                "window": self._window,
            }
        )


def inherited() -> dict[str, str]:
    """What a container inherits of the platform's environment; everything else (credentials!) stays behind."""
    names = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ")
    return {name: os.environ[name] for name in names if name in os.environ}
