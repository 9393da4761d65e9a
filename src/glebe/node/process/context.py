"""What the parts of one pod's life share: the pod as it is now, its directory, what it was given, whom to tell."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from glebe.kube.objects import Object, is_deleting
from glebe.node.process.launch import Sandbox
from glebe.node.process.machine import Machine
from glebe.node.status import PodState

NORMAL, WARNING = "Normal", "Warning"
DEFAULT_GRACE = 30.0
LEAST_GRACE = 2.0  # what containers get at least, as upstream's do
FIELDS = ("containers", "initContainers", "ephemeralContainers")


class PodContext:
    """One pod on this machine.

    ``ending`` is set when nothing of the pod is to be started any more; ``changed`` whenever the API's pod changed;
    ``dirty`` when the status is to be written. ``allocated`` is what each container was given, by its name;
    ``on_restart_all`` is called by a container whose end restarts all.
    """

    def __init__(self, machine: Machine, pod: Object, directory: Path, state: PodState) -> None:
        self.machine = machine
        self.pod = pod
        self.directory = directory
        self.state = state
        self.sandbox: Sandbox | None = None
        self.ending = asyncio.Event()
        self.changed = asyncio.Event()
        self.dirty = asyncio.Event()
        self.allocated: dict[str, Any] = {}
        self.on_restart_all: Callable[[], None] = lambda: None
        self._events: asyncio.Queue[tuple[str, str, str, str]] = asyncio.Queue()

    @property
    def uid(self) -> str:
        return str(self.pod["metadata"]["uid"])

    @property
    def name(self) -> str:
        return f"{self.pod['metadata']['namespace']}/{self.pod['metadata']['name']}"

    @property
    def full_name(self) -> str:
        """As upstream's messages name a pod: ``NAME_NAMESPACE(UID)``."""
        return f"{self.pod['metadata']['name']}_{self.pod['metadata']['namespace']}({self.uid})"

    @property
    def grace(self) -> float:
        """Seconds that containers have to end now."""
        meta, spec = self.pod["metadata"], self.pod["spec"]
        given = meta.get("deletionGracePeriodSeconds") if is_deleting(self.pod) else None
        given = spec.get("terminationGracePeriodSeconds") if given is None else given
        return DEFAULT_GRACE if given is None else float(given)

    @property
    def view(self) -> Object:
        """The pod with its addresses, which the API may not have yet."""
        host, own = self.state.host_ip, self.state.pod_ip
        addresses = {"podIP": own, "podIPs": [{"ip": own}], "hostIP": host, "hostIPs": [{"ip": host}]}
        return {**self.pod, "status": {**(self.pod.get("status") or {}), **addresses}}

    @property
    def address(self) -> str:
        return self.state.pod_ip

    def now(self) -> float:
        return self.machine.env.clock.now()

    def touch(self) -> None:
        """The status has changed."""
        self.dirty.set()

    async def pause(self, seconds: float) -> bool:
        """Wait, or until the pod ends; ``False`` when it does."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await self.ending.wait()
        return not self.ending.is_set()

    # --- events: told in their order, beside the work

    def say(self, kind: str, reason: str, message: str, container: str = "") -> None:
        """An event about the pod, or about one container of it."""
        self._events.put_nowait((kind, reason, message, self._field(container) if container else ""))

    def _field(self, container: str) -> str:
        spec = self.pod["spec"]
        for field in FIELDS:
            if any(c["name"] == container for c in spec.get(field) or ()):
                return f"spec.{field}{{{container}}}"
        return ""

    async def tell(self) -> None:
        """Record events, until cancelled."""
        while True:
            kind, reason, message, field = await self._events.get()
            try:
                await self.machine.events.event(self.pod, kind, reason, message, field)
            finally:
                self._events.task_done()

    async def told(self, limit: float = 5.0) -> None:
        """Until all events are recorded, at most so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await self._events.join()
