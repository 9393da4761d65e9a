"""One pod on a process node: its containers from start to end, its status, its deletion.

A runner can be cancelled at any moment and another one begun later: what has happened is in the pod's directory
(``CONTAINER/ATTEMPT/``, see :mod:`glebe.node.containers.supervisor`), and a new runner walks the same way through it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from pathlib import Path
from typing import Any

from glebe.kube.clock import parse_time
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object, is_deleting
from glebe.kube.pods import ENDED, has_ended
from glebe.kube.transport import ConnectionLost
from glebe.node import backoff
from glebe.node.containers import supervisor
from glebe.node.containers.crilog import last_lines
from glebe.node.containers.rundir import Run
from glebe.node.contracts import ContainerSpec, VolumeError
from glebe.node.podwrites import finish_deletion, write_status
from glebe.node.process import launch
from glebe.node.process.machine import Machine
from glebe.node.status import (
    Container,
    Exit,
    PodState,
    containers_of,
    phase_of,
    pod_status,
    policy_of,
    restarts_after,
)
from glebe.node.values.environment import ConfigError

log = logging.getLogger("glebe.node")

_RETRY = 1.0  # seconds between attempts at what is not there yet (ConfigMaps, the API)
_VANISHED_GRACE = 2.0  # for the containers of a pod that was removed without waiting for its node
_DEFAULT_GRACE = 30
_LOST = Exit(137, 0.0, None, "ContainerStatusUnknown", "The container could not be located when its node looked for it")


class PodRunner:
    """Runs one pod. ``update`` tells it what the API says; ``run`` returns when nothing is left to do."""

    def __init__(self, machine: Machine, pod: Object, directory: Path) -> None:
        self._machine = machine
        self.pod = pod
        self.directory = directory
        init, main = containers_of(pod)
        started = (pod.get("status") or {}).get("startTime")
        begin = parse_time(started) if started else machine.env.clock.now()
        self.state = PodState(init, main, begin, machine.host_ip, (pod.get("status") or {}).get("podIP", ""))
        self._sandbox: launch.Sandbox | None = None
        self._runs: dict[str, Run] = {}
        self._stopping = asyncio.Event()
        self._grace = 0.0
        self._gone = False
        self._dirty = asyncio.Event()
        self._changed = asyncio.Event()

    # --- what others tell it

    def update(self, pod: Object) -> None:
        """The pod as the API has it now."""
        self.pod = pod
        if is_deleting(pod):
            grace = pod["metadata"].get("deletionGracePeriodSeconds")
            self.stop(float(_DEFAULT_GRACE if grace is None else grace))
        elif has_ended(pod) and not self._stopping.is_set() and not self.finished:
            self.stop(self._spec_grace())  # somebody else ended it: evicted, or its node was thought dead
        self._changed.set()

    def vanish(self) -> None:
        """The pod object is gone."""
        self._gone = True
        self.stop(_VANISHED_GRACE)
        self._changed.set()

    def stop(self, grace: float) -> None:
        """End all containers, with SIGKILL after ``grace`` seconds; may be repeated with less."""
        if self._stopping.is_set() and grace >= self._grace:
            return
        self._stopping.set()
        self._grace = grace
        for run in self._runs.values():
            run.stop(grace)

    @property
    def finished(self) -> bool:
        """Whether all containers have ended for good."""
        if self.state.verdict:
            return True
        return phase_of(policy_of(self.pod, self.state), self.state.init, self.state.main) in ENDED

    def _spec_grace(self) -> float:
        return float(self.pod["spec"].get("terminationGracePeriodSeconds", _DEFAULT_GRACE))

    # --- life

    async def run(self) -> None:
        """Live: containers, deadline and status side by side; then the last status and the deletion."""
        if has_ended(self.pod):
            await self._await_deletion()
            return
        await self._make_sandbox()
        aside = [
            asyncio.create_task(self._write_statuses()),
            asyncio.create_task(self._mind_deadline()),
            asyncio.create_task(self._machine.volumes.keep(self._view, self.directory)),
        ]
        try:
            await self._containers()
        finally:
            for task in aside:
                task.cancel()
            await asyncio.gather(*aside, return_exceptions=True)
        self._settle()
        while not self._gone:
            if await self._try(self._write()):
                break
        await self._await_deletion()

    async def _make_sandbox(self) -> None:
        """Network and devices, and a record of them: an agent that comes after a crash finds what was given."""
        machine, meta = self._machine, self.pod["metadata"]
        self.directory.mkdir(parents=True, exist_ok=True)
        network = await machine.network.attach(self.pod)
        grant = await machine.devices.allocate(self.pod)
        record = {
            "namespace": meta["namespace"],
            "name": meta["name"],
            "network": machine.network.record(meta["uid"]),
            "devices": grant.record,
        }
        supervisor.write_json(str(self.directory / "pod.json"), record)
        self._sandbox = launch.Sandbox(network, grant)
        self.state.pod_ip = network.address

    async def _await_deletion(self) -> None:
        """The containers have ended; the pod object stays until somebody deletes it, and then goes at once."""
        while not self._gone:
            if is_deleting(self.pod):
                if await self._try(finish_deletion(self._machine.client, self.pod)):
                    return
                continue
            self._changed.clear()
            await self._changed.wait()

    def _settle(self) -> None:
        """After a stop, containers that never ran, or waited for another start, have ended too."""
        if not self._stopping.is_set():
            return
        now = self._machine.env.clock.now()
        for container in [*self.state.init, *self.state.main]:
            if container.exit is None:
                container.end(container.last or Exit(137, now, None, "ContainerStatusUnknown", "it was never started"))
        self.state.final = True

    async def _try(self, work: Any) -> bool:
        try:
            await work
            return True
        except (ApiError, ConnectionLost) as error:
            log.warning("pod %s: %s; will try again", self._name, error)
            await asyncio.sleep(_RETRY)
            return False

    @property
    def _name(self) -> str:
        return f"{self.pod['metadata']['namespace']}/{self.pod['metadata']['name']}"

    async def _mind_deadline(self) -> None:
        limit = self.pod["spec"].get("activeDeadlineSeconds")
        if limit is None:
            return
        await asyncio.sleep(max(0.0, self.state.started_at + limit - self._machine.env.clock.now()))
        text = "Pod was active on the node longer than the specified deadline"
        self.state.verdict = ("DeadlineExceeded", text)
        self.stop(self._spec_grace())

    # --- containers

    async def _containers(self) -> None:
        spec, policy = self.pod["spec"], self.pod["spec"].get("restartPolicy", "Always")
        init_policy = "Never" if policy == "Never" else "OnFailure"
        for container, body in zip(self.state.init, spec.get("initContainers") or [], strict=True):
            await self._container(container, body, init_policy)
            if not container.succeeded:
                return
        if self.state.init:
            for container in self.state.main:
                container.wait("ContainerCreating")
        async with asyncio.TaskGroup() as group:
            for container, body in zip(self.state.main, spec["containers"], strict=True):
                group.create_task(self._container(container, body, policy))

    async def _container(self, container: Container, body: dict[str, Any], policy: str) -> None:
        """Run a container again and again, as ``policy`` says."""
        base = self.directory / container.name
        attempt = max((int(p.name) for p in base.glob("[0-9]*")), default=0)
        crash = backoff.CrashLoop()
        crash.resume(attempt)
        if attempt:
            container.last = Run(base / str(attempt - 1)).exit
        while True:
            run = Run(base / str(attempt))
            container.restarts = attempt
            container.id = (
                f"{self._machine.containers.runtime}://{self.pod['metadata']['uid']}/{container.name}/{attempt}"
            )
            if not run.prepared and not await self._prepare(run, container, body):
                return
            end = await self._run_once(run, container, body)
            if self._stopping.is_set() or not restarts_after(policy, end.code):
                return
            wait = crash.after(end.finished_at - (end.started_at or end.finished_at))
            container.back_off(f"back-off {backoff.text(wait)} restarting failed container={container.name}")
            self._dirty.set()
            if wait:
                await self._event("Warning", "BackOff", f"Back-off restarting failed container {container.name}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait)
            if self._stopping.is_set():
                return
            # The latest run and the one before can be asked for; logs of older ones must not fill the disk.
            await asyncio.to_thread(shutil.rmtree, base / str(attempt - 1), True)
            attempt += 1

    async def _prepare(self, run: Run, container: Container, body: dict[str, Any]) -> bool:
        """Make the run ready to start; tries until what it needs is there. ``False``: stopped meanwhile."""
        while not self._stopping.is_set():
            work = asyncio.create_task(self._make_spec(body))
            stop = asyncio.create_task(self._stopping.wait())
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
            if not work.done():
                work.cancel()
                return False
            try:
                self._machine.containers.prepare(work.result(), run)
                return True
            except VolumeError as error:
                await self._event("Warning", "FailedMount", str(error))
            except (ConfigError, OSError, ApiError, ConnectionLost) as error:
                if container.message != str(error):
                    container.wait("CreateContainerConfigError", str(error))
                    self._dirty.set()
                    await self._event("Warning", "Failed", f"Error: {error}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _RETRY)
        return False

    async def _make_spec(self, body: dict[str, Any]) -> ContainerSpec:
        machine = self._machine
        assert self._sandbox is not None
        source = await machine.volumes.source(self.pod)
        return await launch.container_spec(
            self.pod,
            body,
            source=source,
            volumes=await machine.volumes.provide(self._view(), self.directory, source),
            pod_dir=self.directory,
            sandbox=self._sandbox,
            host_ip=machine.host_ip,
            resolve=machine.resolve(self.pod),
        )

    def _view(self) -> Object:
        """The pod with its addresses, which the API may not have yet."""
        addresses = {"podIP": self.state.pod_ip, "hostIP": self._machine.host_ip}
        return {**self.pod, "status": {**(self.pod.get("status") or {}), **addresses}}

    async def _run_once(self, run: Run, container: Container, body: dict[str, Any]) -> Exit:
        self._runs[container.name] = run
        fresh = run.supervisor is None
        await run.start()
        started = run.started_at
        if started is not None and run.exit is None:
            container.start(started)
            self._dirty.set()
            if fresh:
                text = f"Started container {container.name} as a process of this machine"
                note = f'; image "{container.image}" is not used' if container.image else ""
                await self._event("Normal", "Started", text + note)
        if self._stopping.is_set():
            run.stop(self._grace)
        end = await run.wait()
        if end is None:
            end = Exit(_LOST.code, self._machine.env.clock.now(), started, _LOST.reason, _LOST.message)
        if end.reason == "PlatformGone":
            self.state.disrupted = end.message
        if end.reason == "StartError":
            await self._event("Warning", "Failed", f"Error: {end.message}")
        elif end.code and not end.message and body.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            end = Exit(end.code, end.finished_at, end.started_at, end.reason, last_lines(run.log), end.signal)
        container.end(end)
        self._dirty.set()
        return end

    # --- status

    async def _write_statuses(self) -> None:
        """Write the status whenever it changed; changes that come together are one write."""
        self._dirty.set()
        while True:
            await self._dirty.wait()
            await asyncio.sleep(0.01)
            self._dirty.clear()
            if not await self._try(self._write()):
                self._dirty.set()

    async def _write(self) -> None:
        now = self._machine.env.clock.now()
        await write_status(self._machine.client, self.pod, lambda seen: pod_status(seen, self.state, now))

    async def _event(self, kind: str, reason: str, message: str) -> None:
        await self._machine.events.event(self.pod, kind, reason, message)
