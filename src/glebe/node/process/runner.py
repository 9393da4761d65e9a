"""One pod on a process node, from its binding to the end of its object: seven phases, one after the other.

A runner can be cancelled, or die with its agent, at any moment; another one begun later walks the same way through
what lies in the pod's directory (:mod:`glebe.node.process.container`, :mod:`glebe.node.process.marks`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from glebe.kube.clock import parse_time
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object, is_deleting
from glebe.kube.pods import ENDED, has_ended, is_overruled
from glebe.kube.transport import ConnectionLost
from glebe.node.containers.rundir import runs_in
from glebe.node.contracts import AdmissionError
from glebe.node.podwrites import finish_deletion, write_status
from glebe.node.process import marks, reasons
from glebe.node.process.container import ContainerLife, Role
from glebe.node.process.context import LEAST_GRACE, NORMAL, WARNING, PodContext
from glebe.node.process.history import latest_attempt
from glebe.node.process.machine import Machine
from glebe.node.process.ordering import Turns, predecessors
from glebe.node.process.resizing import Resizing, Room
from glebe.node.process.surroundings import Surroundings
from glebe.node.restarts import Restarts, may_restart_all
from glebe.node.status import Container, Exit, PodState, containers_of, phase, pod_status

log = logging.getLogger("glebe.node")

_RETRY = 1.0  # seconds between attempts to reach the API
_RESIZE = 5.0  # seconds between two looks at resources
_RESTARTING = "AllContainersRestarting"
_RULE = "container exited with restart policy rule"
_REMOVED = "The container is removed because RestartAllContainers in place"
_DEADLINE = "Pod was active on the node longer than the specified deadline"

Admit = Callable[[Object], None]  # raises AdmissionError


class PodRunner:
    """Runs one pod. ``update`` tells it what the API says; ``run`` returns when nothing is left to do."""

    def __init__(
        self,
        machine: Machine,
        pod: Object,
        directory: Path,
        admit: Admit = lambda _: None,
        room: Room = lambda _: None,
    ) -> None:
        init, main = containers_of(pod)
        seen = pod.get("status") or {}
        began = parse_time(seen["startTime"]) if seen.get("startTime") else machine.env.clock.now()
        self.state = PodState(init, main, began, machine.host_ip, seen.get("podIP") or "", sandbox=False)
        self.ctx = PodContext(machine, pod, directory, self.state)
        self._machine = machine
        self._admit = admit
        self.ctx.on_restart_all = self._restart_all
        self._lives = self._make_lives()
        self._resizing = Resizing(self.ctx, lambda: self._lives.values(), room)
        self._again = False  # another round follows
        if may_restart_all(pod["spec"]):
            self.state.passing[_RESTARTING] = ("False", "", "")
        self._group: asyncio.TaskGroup | None = None
        self._turns: Turns | None = None
        self._grace: float | None = None  # within which the pod was told to end
        self._gone = False
        self.admitted = False  # the node has taken it: it counts beside other pods
        self.finished = False  # all containers have ended for good

    def _make_lives(self) -> dict[str, ContainerLife]:
        spec, lives = self.ctx.pod["spec"], {}
        for status, body in zip(self.state.init, spec.get("initContainers") or (), strict=True):
            role = Role.SIDECAR if status.sidecar else Role.INIT
            lives[status.name] = ContainerLife(self.ctx, status, body, role)
        for status, body in zip(self.state.main, spec["containers"], strict=True):
            lives[status.name] = ContainerLife(self.ctx, status, body, Role.MAIN)
        return lives

    def _of(self, *roles: Role) -> list[ContainerLife]:
        return [life for life in self._lives.values() if life.role in roles]

    @property
    def pod(self) -> Object:
        """The pod as the API had it last."""
        return self.ctx.pod

    # --- what others tell it

    def update(self, pod: Object) -> None:
        """The pod as the API has it now."""
        before, self.ctx.pod = self.ctx.pod, pod
        if _told(pod) != _told(before):  # a new spec, a readiness gate, being called not ready
            self.ctx.touch()
        for body in (*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]):
            if body["name"] in self._lives:
                self._lives[body["name"]].renew(body)
        self._add_ephemeral()
        self._resizing.consider()
        if is_deleting(pod):
            self.stop(max(self.ctx.grace, LEAST_GRACE))
        elif has_ended(pod) and not self.finished:
            self.stop(self.ctx.grace)  # somebody else ended it: evicted, or its node was thought dead
        self.ctx.changed.set()

    def vanish(self) -> None:
        """The pod object is gone."""
        self._gone = True
        self.stop(LEAST_GRACE)
        self.ctx.changed.set()

    def stop(self, grace: float, verdict: tuple[str, str] | None = None) -> None:
        """End the pod for good, within ``grace`` seconds; may be repeated with less.

        :param verdict: (reason, message) when it is the node that ends it.
        """
        if self._grace is not None and grace >= self._grace:
            return
        first = self._grace is None
        noted = marks.read(self.ctx.directory, marks.STOP) if first else None
        now = self.ctx.now()
        if noted is not None:  # an earlier agent had begun
            grace = min(grace, max(LEAST_GRACE if grace else 0.0, noted["at"] + noted["grace"] - now))
            verdict = verdict or (tuple(noted["verdict"]) if noted.get("verdict") else None)
        elif self.ctx.directory.exists():
            marks.write(self.ctx.directory, marks.STOP, at=now, grace=grace, verdict=verdict)
        self._grace = grace
        self.state.verdict = self.state.verdict or verdict
        self._end_containers(grace)

    def evict(self, why: str) -> None:
        """End the pod because the node is short of something."""
        self.state.disrupted = self.state.disrupted or why
        self._evict(why)

    def _evict(self, why: str) -> None:
        self.ctx.say(WARNING, "Evicted", why)
        self.stop(LEAST_GRACE, ("Evicted", why))

    def _end_containers(self, grace: float) -> None:
        self.ctx.ending.set()
        lives = list(self._lives.values())
        running = [life for life in lives if life.run_now is not None]
        if self._turns is None:
            main = [life.name for life in self._of(Role.MAIN)]
            sidecars = [life.name for life in self._of(Role.SIDECAR)]
            self._turns = Turns(predecessors(main, sidecars), [life.name for life in running])
        for life in lives:
            life.kill("", grace, self._turns)
        self.ctx.touch()

    # --- life

    async def run(self) -> None:
        """Live, phase by phase."""
        if has_ended(self.ctx.pod):
            await self._end_leftovers()
            self.finished = True
            await self._await_deletion()
            return
        aside = [asyncio.create_task(work) for work in (self.ctx.tell(), self._write_statuses(), self._mind_deadline())]
        try:
            if await self._begin():  # 1. admission, 2. sandbox, 3. volumes
                self._resizing.begin()
                aside += [asyncio.create_task(work) for work in (self._keep_volumes(), self._mind_resizes())]
                await self._containers()  # 4. init containers, 5. main containers, 6. the end of what is left
            self.finished = True
            self._settle()
            while not self._gone:  # 7. last status, deletion
                if await self._try(self._write()):
                    break
            await self.ctx.told()
        finally:
            for task in aside:
                task.cancel()
            await asyncio.gather(*aside, return_exceptions=True)
        await self._await_deletion()

    async def _begin(self) -> bool:
        """What a pod has before its first container. ``False``: it ends before it has begun."""
        noted = marks.read(self.ctx.directory, marks.STOP)
        if noted is not None:
            self.stop(float(noted["grace"]))
        surroundings = Surroundings(self.ctx)
        if not surroundings.known and self.ctx.ending.is_set():
            return False
        try:
            if not surroundings.known:
                self._admit(self.pod)
            self.admitted = True
            return await surroundings.make()
        except AdmissionError as error:
            self.ctx.say(WARNING, error.reason, str(error))
            self.state.verdict = (error.reason, f"Pod was rejected: {error}")
            self.ctx.ending.set()
            return False

    async def _keep_volumes(self) -> None:
        why = await self._machine.volumes.keep(lambda: self.ctx.view, self.ctx.directory)
        if why:
            self._evict(why)

    # --- containers

    async def _containers(self) -> None:
        """Round by round: an exit may start the whole pod again (KEP-5532)."""
        while True:
            self._again = False
            self._open_round()
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._add_ephemeral()
                if await self._initialize(group):  # 4.
                    await self._run_main(group)  # 5.
                self._group = None
                if self._grace is None:  # 6. sidecars and ephemeral containers do not keep a pod alive
                    self._end_containers(self.ctx.grace)
            if not self._again or self._grace is not None:
                return
            self._close_round()

    def _restart_all(self) -> None:
        """A container ended so that all are to start again."""
        if self._grace is None and not self._again:
            self._again = True
            self.state.passing[_RESTARTING] = ("True", "RestartAllContainersStarted", _RULE)
            self._end_containers(self.ctx.grace)

    def _close_round(self) -> None:
        """All containers have ended; the next round has numbers of its own."""
        lives = self._of(Role.INIT, Role.SIDECAR, Role.MAIN)
        begun = {life.name: latest_attempt(life.base) for life in lives}
        numbers = {name: number + 1 for name, number in begun.items() if number is not None}
        marks.write(self.ctx.directory, marks.ROUND, first=numbers)
        self.ctx.ending = asyncio.Event()
        self._turns = None
        for life in lives:
            life.status.last = life.status.exit or life.status.last
            if life.status.last is not None:
                life.status.wait("RestartingAllContainers", _REMOVED)
        self._lives = {**self._make_lives(), **{life.name: life for life in self._of(Role.EPHEMERAL)}}
        self.state.passing[_RESTARTING] = ("False", "", "")
        self.ctx.touch()

    def _open_round(self) -> None:
        """Make room for the first runs of this round, where an earlier one has left its own."""
        for name, number in self._first().items():
            if name in self._lives:
                (self._lives[name].base / str(number)).mkdir(parents=True, exist_ok=True)

    def _first(self) -> dict[str, int]:
        """The numbers of this round's first runs; 0 for containers that are not named."""
        return dict((marks.read(self.ctx.directory, marks.ROUND) or {}).get("first") or {})

    def _begun(self) -> bool:
        """Whether a main container has started in this round: init containers are done, sidecars hold up nobody."""
        first = self._first()
        for life in self._of(Role.MAIN):
            if any(run.prepared and int(run.path.name) >= first.get(life.name, 0) for run in life.runs):
                return True
        return False

    async def _initialize(self, group: asyncio.TaskGroup) -> bool:
        """Init containers one after the other; sidecars stay. ``False``: the pod does not come further."""
        begun = self._begun()
        for life in self._of(Role.INIT, Role.SIDECAR):
            if life.role is Role.SIDECAR:
                group.create_task(life.run(), name=f"sidecar {life.name}")
                if not begun:
                    await self._until_first(life.started.wait())
            elif begun and not life.runs:
                continue  # it is done, and its directory gone
            else:
                await life.run()
                if not life.status.succeeded:
                    return False
            if self.ctx.ending.is_set():
                return False
        for life in self._of(Role.MAIN):
            if life.status.untouched:
                life.status.wait("PodInitializing" if self.state.init else "ContainerCreating")
        return True

    async def _run_main(self, group: asyncio.TaskGroup) -> None:
        tasks = [group.create_task(life.run(), name=f"container {life.name}") for life in self._of(Role.MAIN)]
        await asyncio.wait(tasks)

    async def _until_first(self, work: Any) -> None:
        """Until it is done, or the pod ends."""
        both = [asyncio.ensure_future(work), asyncio.ensure_future(self.ctx.ending.wait())]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()

    def _add_ephemeral(self) -> None:
        """Start the ephemeral containers that are new in the pod (``kubectl debug``)."""
        if self._group is None or self.ctx.ending.is_set():
            return
        for body in self.ctx.pod["spec"].get("ephemeralContainers") or ():
            if body["name"] not in self._lives:
                status = Container(body["name"], body.get("image", ""), restarts_by=Restarts("Never"))
                self.state.ephemeral.append(status)
                life = self._lives[status.name] = ContainerLife(self.ctx, status, body, Role.EPHEMERAL)
                self._group.create_task(life.run(), name=f"ephemeral container {status.name}")

    async def _mind_resizes(self) -> None:
        """What could not be given may be given later."""
        while True:
            self._resizing.consider()
            await asyncio.sleep(_RESIZE)

    async def _mind_deadline(self) -> None:
        """activeDeadlineSeconds, which may be set or lowered later."""
        while True:
            limit = self.ctx.pod["spec"].get("activeDeadlineSeconds")
            self.ctx.changed.clear()
            left = None if limit is None else self.state.started_at + limit - self.ctx.now()
            if left is not None and left <= 0:
                break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self.ctx.changed.wait()
        self.ctx.say(NORMAL, "DeadlineExceeded", _DEADLINE)
        self.stop(self.ctx.grace, ("DeadlineExceeded", _DEADLINE))

    # --- the end

    async def _end_leftovers(self) -> None:
        """Processes of a pod that the API says has ended."""
        for run in runs_in(self.ctx.directory):
            run.stop(LEAST_GRACE)
            if run.supervisor is not None and run.exit is None:
                await run.wait()

    def _settle(self) -> None:
        """Containers that never ran, or waited for another start, have ended too."""
        self.state.final = True
        self.state.sandbox = False
        rejected = self.ctx.sandbox is None and self.state.verdict is not None
        for container in () if rejected else self.state.all:
            if container.exit is None and (self._grace is not None or container.last is not None):
                lost = Exit(137, self.ctx.now(), None, reasons.LOST, reasons.LOST_MESSAGE)
                container.end(container.last or lost)

    async def _await_deletion(self) -> None:
        """The containers have ended; the pod object stays until somebody deletes it, and then goes at once."""
        # Nobody runs in it any more: its address and its ports may be others'.
        await self._machine.network.detach(self.ctx.pod["metadata"]["uid"])
        while not self._gone:
            if is_deleting(self.ctx.pod):
                if await self._try(finish_deletion(self._machine.client, self.ctx.pod)):
                    return
                continue
            self.ctx.changed.clear()
            await self.ctx.changed.wait()

    async def _try(self, work: Awaitable[Any]) -> bool:
        try:
            await work
            return True
        except (ApiError, ConnectionLost) as error:
            log.warning("pod %s: %s; will try again", self.ctx.name, error)
            await asyncio.sleep(_RETRY)
            return False

    # --- status

    async def _write_statuses(self) -> None:
        """Write the status whenever it changed; changes that come together are one write."""
        self.ctx.touch()
        while True:
            await self.ctx.dirty.wait()
            await asyncio.sleep(0.01)
            self.ctx.dirty.clear()
            self._resizing.show()
            # The last word is for the end, when everything has been told.
            if phase(self.ctx.pod, self.state) not in ENDED and not await self._try(self._write()):
                self.ctx.touch()

    async def _write(self) -> None:
        now = self.ctx.now()
        await write_status(self._machine.client, self.ctx.pod, lambda seen: pod_status(seen, self.state, now))


def _told(pod: Object) -> object:
    """What others say and the status has to answer."""
    said = {c.get("type"): str(c.get("status")) for c in (pod.get("status") or {}).get("conditions") or ()}
    gates = [said.get(gate["conditionType"], "") for gate in pod["spec"].get("readinessGates") or ()]
    return pod["metadata"].get("generation"), gates, is_overruled(pod)
