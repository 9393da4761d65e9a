"""The pods of a node as its server shows them: which run, what they printed, who can be talked to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glebe.kube.clock import Clock
from glebe.kube.errors import ApiError, bad_request
from glebe.kube.objects import Object
from glebe.node.containers import crilog
from glebe.node.containers.containers import CannotExecute, Containers, NotRunning
from glebe.node.containers.rundir import Run, place_of
from glebe.node.contracts import Streams

_WAITING = {
    "ErrImagePull": "image can't be pulled",
    "ImagePullBackOff": "trying and failing to pull image",
}


@dataclass(frozen=True, slots=True)
class LogOptions:
    """``PodLogOptions``. ``since`` is in Unix seconds; ``stream`` is ``stdout``, ``stderr`` or ""."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    since: float | None = None
    limit_bytes: int | None = None
    stream: str = ""


def containers_of(pod: Object) -> list[str]:
    """The names of all containers of a pod, of whatever sort."""
    spec = pod["spec"]
    kinds = ("initContainers", "containers", "ephemeralContainers")
    return [str(c["name"]) for kind in kinds for c in spec.get(kind) or ()]


def body_of(pod: Object, name: str) -> dict[str, Any]:
    """What the pod's specification says of a container; empty for one that it does not have."""
    spec = pod["spec"]
    kinds = ("initContainers", "containers", "ephemeralContainers")
    return next((dict(c) for kind in kinds for c in spec.get(kind) or () if c["name"] == name), {})


class Pods:
    """
    :param directory: holds UID/CONTAINER/ATTEMPT of each pod. :param bound: the pods that belong to this node.
    """

    def __init__(
        self, directory: Path, containers: Containers, clock: Clock, bound: Callable[[], list[Object]]
    ) -> None:
        self._directory = directory
        self._clock = clock
        self.containers = containers
        self.bound = bound

    def find(self, namespace: str, name: str) -> Object | None:
        """The pod of that name, if it is on this node."""
        for pod in self.bound():
            if pod["metadata"]["name"] == name and pod["metadata"].get("namespace") == namespace:
                return pod
        return None

    # --- runs

    def runs(self, pod: Object, container: str) -> list[Run]:
        """The runs of a container that are still known, oldest first."""
        base = place_of(self._directory / pod["metadata"]["uid"], container)
        return [Run(base / str(number)) for number in sorted(int(path.name) for path in base.glob("[0-9]*"))]

    def running(self, pod: Object, container: str) -> Run | None:
        """The run that goes on now."""
        known = self.runs(pod, container)
        return known[-1] if known and known[-1].started_at is not None and known[-1].exit is None else None

    async def execute(self, pod: Object, container: str, argv: list[str], *, tty: bool, stdin: bool) -> Streams:
        """
        :raises ApiError: 500 in a kubelet's words: there is nothing to talk to, or it cannot be started.
        """
        run = self.running(pod, container)
        if run is None:
            raise _internal(f'container not found ("{container}")')
        try:
            return await self.containers.execute(run, argv, tty=tty, stdin=stdin)
        except NotRunning as error:
            raise _internal(f'container not found ("{container}"): {error}') from None

    async def attach(self, pod: Object, container: str, *, stdin: bool) -> Streams:
        """
        :raises ApiError: 500.
        """
        run = self.running(pod, container)
        if run is None:
            raise _internal(f'container not found ("{container}")')
        try:
            return await self.containers.attach(run, stdin=stdin)
        except NotRunning as error:
            raise _internal(f"container {container}: {error}") from None

    # --- logs

    async def logs(self, pod: Object, container: str, options: LogOptions) -> AsyncIterator[bytes]:
        """What the container's latest run (or the one before it) printed.

        :raises ApiError: 400, before anything comes: there is nothing yet, in a kubelet's words.
        """
        run = self._run_for_logs(pod, container, options.previous)
        if run is None:
            return
        chunks = crilog.read_log(
            run.log,
            follow=options.follow,
            finished=lambda: run.exit is not None or not run.path.exists(),
            tail=options.tail_lines,
            since=options.since,
            timestamps=options.timestamps,
            limit_bytes=options.limit_bytes,
            stream=options.stream,
        )
        async for chunk in chunks:
            yield chunk

    def _run_for_logs(self, pod: Object, container: str, previous: bool) -> Run | None:
        """
        :raises ApiError: 400.
        """
        name = pod["metadata"]["name"]
        known = [run for run in self.runs(pod, container) if run.log.exists()]
        if previous:
            latest = self.runs(pod, container)
            older = known[:-1] if known and known[-1].path == latest[-1].path else known
            if not older:
                raise bad_request(f'previous terminated container "{container}" in pod "{name}" not found')
            return older[-1]
        if known:
            return known[-1]
        state = _state_of(pod, container)
        if state is None:
            raise bad_request(f'container "{container}" in pod "{name}" is not available')
        waiting = state.get("waiting")
        if waiting is None:
            return None  # it has run, and nothing is left of it
        reason = str(waiting.get("reason") or "ContainerCreating")
        why = _WAITING.get(reason, reason)
        raise bad_request(f'container "{container}" in pod "{name}" is waiting to start: {why}')

    async def until_there(self, pod: Object, container: str, alive: Callable[[], bool]) -> None:
        """Wait until the container has a run whose log can be followed, as long as ``alive``."""
        while alive() and not self.runs(pod, container):  # noqa: ASYNC110 - files give no event
            await asyncio.sleep(0.1)


def _state_of(pod: Object, container: str) -> dict[str, Any] | None:
    status = pod.get("status") or {}
    kinds = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
    for kind in kinds:
        for each in status.get(kind) or ():
            if each.get("name") == container:
                return dict(each.get("state") or {"waiting": {}})
    return None


def _internal(message: str) -> ApiError:
    return ApiError(500, "InternalError", message)


__all__ = ["CannotExecute", "LogOptions", "Pods", "body_of", "containers_of"]
