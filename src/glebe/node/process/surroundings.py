"""What a pod has before its first container: devices, a place in the network, volumes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from glebe.kube.errors import ApiError
from glebe.kube.resources import RUNTIME_CLASSES
from glebe.kube.transport import ConnectionLost
from glebe.node.containers import supervisor
from glebe.node.contracts import SandboxError, VolumeError
from glebe.node.process import launch, reasons
from glebe.node.process.context import WARNING, PodContext
from glebe.node.values.environment import ConfigError

_RETRY = 1.0  # seconds between attempts at what is not there yet
_REPEAT = 30.0  # seconds after which an event about something that lasts is said again
_IN_THE_WAY = (SandboxError, VolumeError, ConfigError, ApiError, ConnectionLost, OSError)


class Surroundings:
    """Makes them, each until it works, and writes down what an agent after a crash must know (``pod.json``)."""

    def __init__(self, pod: PodContext) -> None:
        self._pod = pod
        self._record = pod.directory / "pod.json"

    @property
    def known(self) -> bool:
        """Whether the pod was taken before: it is not asked again whether it fits."""
        return self._record.exists()

    async def make(self) -> bool:
        """All of them. ``False``: the pod ends meanwhile.

        :raises AdmissionError: there are no such devices.
        """
        return await self._until_made(
            self._sandbox, "FailedCreatePodSandBox", "Failed to create pod sandbox: "
        ) and await self._until_made(self._volumes, "FailedMount", "")

    async def _sandbox(self) -> None:
        pod, machine, meta = self._pod, self._pod.machine, self._pod.pod["metadata"]
        handler = self._recorded("handler")
        if handler is None:
            handler = machine.containers.handler(await self._handler())
        pod.directory.mkdir(parents=True, exist_ok=True)
        network = await machine.network.attach(pod.pod)
        grant = await machine.devices.allocate(pod.pod)
        record = {
            "namespace": meta["namespace"],
            "name": meta["name"],
            "handler": handler,
            "network": machine.network.record(meta["uid"]),
            "devices": grant.record,
        }
        supervisor.write_json(str(self._record), record)
        pod.sandbox = launch.Sandbox(network, grant, handler)
        pod.state.pod_ip, pod.state.sandbox = network.address, True
        pod.touch()

    def _recorded(self, what: str) -> Any:
        """What an earlier agent wrote down about the pod."""
        try:
            return orjson.loads(self._record.read_bytes()).get(what)
        except (OSError, ValueError, AttributeError):
            return None

    async def _handler(self) -> str:
        """The handler of the pod's RuntimeClass.

        :raises SandboxError: there is no such class.
        """
        name = self._pod.pod["spec"].get("runtimeClassName")
        if not name:
            return ""
        try:
            return str((await self._pod.machine.client.get(RUNTIME_CLASSES, name))["handler"])
        except ApiError as error:
            raise SandboxError(error.message) from None

    async def _volumes(self) -> None:
        await self._pod.machine.volumes.provide(self._pod.view, self._pod.directory)

    async def _until_made(self, make: Callable[[], Awaitable[None]], reason: str, prefix: str) -> bool:
        """Try until it works; what is in the way is said as an event. ``False``: the pod ends meanwhile."""
        said, said_at = "", 0.0
        while True:
            try:
                await make()
                return True
            except _IN_THE_WAY as error:
                text = prefix + (reasons.os_text(error) if isinstance(error, OSError) else str(error))
                if text != said or self._pod.now() - said_at >= _REPEAT:
                    said, said_at = text, self._pod.now()
                    self._pod.say(WARNING, reason, text)
            if not await self._pod.pause(_RETRY):
                return False
