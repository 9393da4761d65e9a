"""Making one run of a container ready to start, again and again until what it needs is there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

from glebe.kube.errors import ApiError
from glebe.kube.objects import Object
from glebe.kube.resources import SECRETS
from glebe.kube.transport import ConnectionLost
from glebe.node import backoff
from glebe.node.containers.images.store import Image
from glebe.node.containers.rundir import Run
from glebe.node.contracts import ContainerSpec, CreateError, ImageError, VolumeError
from glebe.node.process import launch, marks, reasons
from glebe.node.process.context import NORMAL, WARNING, PodContext
from glebe.node.process.reasons import Trouble
from glebe.node.status import Container
from glebe.node.values.environment import ConfigError

T = TypeVar("T")

_RETRY = 1.0  # seconds between attempts at what is not there yet
_REPEAT = 15.0  # seconds after which an event about something that lasts is said again
_NOT_MADE = (ConfigError, ImageError, CreateError, VolumeError, ApiError, ConnectionLost, OSError)


class Preparation:
    """What stands between a container and its next run."""

    def __init__(self, pod: PodContext, status: Container, body: dict[str, Any]) -> None:
        self._pod = pod
        self._status = status
        self._body = body
        self._said = ""
        self._said_at = 0.0
        self._pull_delay = 0.0

    async def of(self, run: Run, notes: Mapping[str, Mapping[str, Any]]) -> bool:
        """Make the run ready to start; tries until it works. ``False``: the pod ends meanwhile.

        :param notes: what is to be remembered of the run (:mod:`.marks`).
        """
        while not self._pod.ending.is_set():
            try:
                run.path.mkdir(parents=True, exist_ok=True)
                for name, note in notes.items():
                    marks.write(run.path, name, **note)
                spec = await self._unless_ending(self._spec(run))
                if spec is None:
                    return False
                self._pod.machine.containers.prepare(spec, run)
                return True
            except _NOT_MADE as error:
                trouble = reasons.trouble_of(error, self._status.image)
                self._show(trouble)
            if trouble.reason == reasons.PULL_ERROR:
                await self._wait_to_pull(trouble)
            else:
                await self._pod.pause(_RETRY)
        return False

    def _show(self, trouble: Trouble) -> None:
        status, now = self._status, self._pod.now()
        if status.exit is not None:
            status.last = status.exit
        status.wait(trouble.reason, trouble.message)
        self._pod.touch()
        if self._said == trouble.reason + trouble.message and now - self._said_at < _REPEAT:
            return
        self._said, self._said_at = trouble.reason + trouble.message, now
        for reason, text in trouble.events:
            kind = NORMAL if reason == reasons.BACK_OFF else WARNING
            self._pod.say(kind, reason, text, status.name)

    async def _wait_to_pull(self, trouble: Trouble) -> None:
        """ErrImagePull first, then ImagePullBackOff until the next attempt is due: 10 s, doubling to 5 minutes."""
        self._pull_delay = min(max(backoff.FIRST, self._pull_delay * 2), backoff.LIMIT)
        due = self._pod.now() + self._pull_delay
        if await self._pod.pause(2 * _RETRY):
            self._show(reasons.pull_back_off(self._status.image, trouble))
            await self._pod.pause(due - self._pod.now())

    async def _unless_ending(self, work: Awaitable[T]) -> T | None:
        """The result, ``None`` if the pod begins to end before there is one."""
        task = asyncio.ensure_future(work)
        ending = asyncio.ensure_future(self._pod.ending.wait())
        try:
            await asyncio.wait({task, ending}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            task.cancel()
            ending.cancel()

    async def _spec(self, run: Run) -> ContainerSpec:
        pod, machine = self._pod, self._pod.machine
        assert pod.sandbox is not None
        view = pod.view
        image = await self._image()
        mounts = machine.containers.mounts or image is not None
        if image is not None:
            marks.write(run.path, marks.IMAGE, id=image.ref)
        source = await machine.volumes.source(view)
        spec = await launch.container_spec(
            view,
            self._body,
            source=source,
            volumes=await machine.volumes.provide(view, pod.directory, source),
            pod_dir=pod.directory,
            sandbox=pod.sandbox,
            host_ip=machine.host_ip,
            services=await machine.network.variables(view),
            resolve=machine.resolve(pod.pod) if machine.network.mode == "loopback" else None,
            mounts=machine.volumes.mounts if mounts else None,
            image=image,
        )
        spec = launch.with_network_files(spec, self._body, pod.sandbox.network, mounts=mounts)
        return launch.with_termination_log(spec, self._body, run.path, mounts=mounts)

    async def _image(self) -> Image | None:
        """The container's image, ``None`` where it is a process of the machine itself.

        :raises ImageError: it cannot be had.
        """
        pod, machine = self._pod, self._pod.machine
        assert pod.sandbox is not None
        if not pod.sandbox.handler:
            return None

        async def tell(kind: str, reason: str, text: str) -> None:
            pod.say(kind, reason, text, self._status.name)

        policy = self._body.get("imagePullPolicy") or "IfNotPresent"
        return await machine.containers.image(self._status.image, policy, await self._pull_secrets(), tell)

    async def _pull_secrets(self) -> list[Object]:
        found = []
        for item in self._pod.pod["spec"].get("imagePullSecrets") or ():
            try:
                namespace = self._pod.pod["metadata"]["namespace"]
                found.append(await self._pod.machine.client.get(SECRETS, item.get("name", ""), namespace))
            except ApiError:
                text = (
                    f"Unable to retrieve some image pull secrets ({item.get('name', '')}); attempting to pull the image"
                )
                self._pod.say(WARNING, "FailedToRetrieveImagePullSecret", f"{text} may not succeed.")
        return found
