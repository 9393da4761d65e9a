"""One container of a pod on a process node, from its first start to its end for good.

Everything that has happened lies in ``POD_DIR/CONTAINER/ATTEMPT/``: what the supervisor writes (see
:mod:`glebe.node.containers.supervisor`), and notes (:mod:`glebe.node.process.marks`). An agent that comes after a
crash walks the same way through it, and finds each step done or not done.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from enum import StrEnum
from typing import Any

from glebe.node import backoff
from glebe.node.containers.rundir import Run, place_of
from glebe.node.process import history, hooks, marks, reasons
from glebe.node.process.actions import Target
from glebe.node.process.context import LEAST_GRACE, NORMAL, WARNING, PodContext
from glebe.node.process.ordering import Turns
from glebe.node.process.preparing import Preparation
from glebe.node.process.probes import Probes
from glebe.node.process.probing import Kind, Probe
from glebe.node.restarts import Restarts
from glebe.node.status import Container, Exit

log = logging.getLogger("glebe.node")

_RETRY = 1.0  # seconds between attempts at what is not there yet
_REPEAT = 15.0  # seconds after which an event about something that lasts is said again


class Role(StrEnum):
    INIT = "init"
    SIDECAR = "sidecar"
    MAIN = "main"
    EPHEMERAL = "ephemeral"


class ContainerLife:
    """Runs one container again and again, as its policy says. ``status`` is what the pod's status shows of it."""

    def __init__(self, pod: PodContext, status: Container, body: dict[str, Any], role: Role) -> None:
        self._pod = pod
        self.status = status
        self.body = body
        self.role = role
        self.base = place_of(pod.directory, status.name)
        self.run_now: Run | None = None
        self.resources: dict[str, Any] | None = None  # that the present run has
        self.started = asyncio.Event()  # it has come so far that others may start after it
        self._policy = Restarts.of(pod.pod["spec"], body)
        self._crash = backoff.CrashLoop()
        self._killing: asyncio.Task[None] | None = None
        self._hook: asyncio.Task[None] | None = None
        self._doom: tuple[str, float, Turns] | None = None
        self._killed_by_node = False
        self._forced = False  # ... so that it runs again
        self._after_reason = ""  # why it will wait for its next start, if not for crashing alone
        self._after_message = ""

    @property
    def name(self) -> str:
        return self.status.name

    @property
    def runs(self) -> list[Run]:
        """Its runs that are known still."""
        return [Run(path) for path in self.base.glob("[0-9]*") if path.name.isdigit()]

    # --- the way of a container, run by run

    async def run(self) -> None:
        """From the latest run there is; returns when the container has ended for good, or the pod is ending."""
        attempt = self._recall()
        if attempt is None:
            return
        while True:
            run = self._take(attempt)
            if not run.prepared and not await self._prepare(run):  # 1. what it needs
                return
            end = await self._live(run)  # 2.-6. one run
            if not self._goes_on(end):  # 7. what follows
                return
            if not await self._wait_for_next(end):
                return
            # The latest run and the one before can be asked for; logs of older ones must not fill the disk.
            await asyncio.to_thread(shutil.rmtree, self.base / str(attempt - 1), True)
            attempt += 1

    def _recall(self) -> int | None:
        """The number of the run to go on with, and what is known of the one before; ``None``: there is none."""
        attempt = history.latest_attempt(self.base)
        seen = history.seen_status(self._pod.pod, self.name)
        if attempt is None and seen.get("containerID"):
            # Its directory is lost, and so is whatever ran: it is not run a second time as if nothing had been.
            self.status.restarts, self.status.id = int(seen.get("restartCount", 0)), seen["containerID"]
            end = history.lost_exit(seen, self._pod.now())
            self.status.end(end)
            self.status.last = end
            self._crash = backoff.CrashLoop.resumed(self.status.restarts)
            return self.status.restarts + 1 if self._goes_on(end) else None
        if attempt:
            before = Run(self.base / str(attempt - 1))
            end_before = before.exit
            if end_before is not None:
                self.status.last = self._finished(before, end_before)
        self.status.restarts = max(0, (attempt or 0) - 1)
        noted = marks.read(self.base / str(attempt), marks.BACK_OFF)
        self._crash = backoff.CrashLoop(float(noted["next"])) if noted else backoff.CrashLoop.resumed(attempt or 0)
        return attempt or 0

    def _take(self, attempt: int) -> Run:
        self._killing = self._hook = None
        self._killed_by_node = self._forced = False
        self._after_reason = self._after_message = ""
        return Run(self.base / str(attempt))

    async def _prepare(self, run: Run) -> bool:
        given = self._pod.allocated.get(self.name, self.body.get("resources") or {})
        notes = {marks.BACK_OFF: {"next": self._crash.next}, marks.RESOURCES: {"has": given}}
        return await Preparation(self._pod, self.status, {**self.body, "resources": given}).of(run, notes)

    def _id_of(self, run: Run) -> str:
        return f"{self._pod.machine.containers.runtime}://{self._pod.uid}/{self.name}/{run.path.name}"

    def _inherit(self) -> None:
        """What probes have said of this very run counts until they say something else."""
        seen = history.seen_status(self._pod.pod, self.name)
        mine = seen.get("containerID") == self.status.id and (seen.get("state") or {}).get("running") is not None
        self.status.started = bool(seen.get("started")) if mine else None
        self.status.ready = bool(seen.get("ready")) if mine else None

    # --- 2.-6. one run

    async def _live(self, run: Run) -> Exit:
        """Start the run, or find it started, and stay with it to its end."""
        pod = self._pod
        self.run_now = run
        fresh = run.supervisor is None and run.exit is None
        self.resources = (marks.read(run.path, marks.RESOURCES) or {}).get("has")
        self.status.image_id = (marks.read(run.path, marks.IMAGE) or {}).get("id", "")
        if fresh:
            pod.say(NORMAL, "Created", self._created(), self.name)
        self.status.restarts, self.status.id = int(run.path.name), self._id_of(run)
        self._inherit()
        aside: list[asyncio.Task[None]] = []
        try:
            await run.start()  # 2. start
            if fresh and run.started_at is not None:
                pod.say(NORMAL, "Started", "Container started", self.name)
            if run.started_at is not None and run.exit is None:
                aside.append(asyncio.create_task(self._accompany(run)))  # 3.-4. hook, probes
                self._resume_kill(run)
            end = await run.wait()  # 5. its end
        finally:
            await self._calm(aside)
        return self._note_end(run, end, fresh)  # 6. what is remembered of it

    def _note_end(self, run: Run, end: Exit | None, fresh: bool) -> Exit:
        done = self._finished(run, end)
        if done.reason == reasons.START_ERROR and fresh:
            self._pod.say(WARNING, "Failed", f"Error: {done.message}", self.name)
        if done.reason == "PlatformGone":
            self._pod.state.disrupted = done.message
        self.status.end(done)
        self.run_now = self.resources = None
        if self._doom is not None:
            self._doom[2].ended(self.name)
        self._pod.touch()
        return done

    def _created(self) -> str:
        note = f'; image "{self.status.image}" is not used, it is a process of this machine'
        return "Container created" + (note if self.status.image and not self.status.image_id else "")

    async def _calm(self, tasks: list[asyncio.Task[None]]) -> None:
        """The run is over, or this agent: nothing is done to it any more."""
        tasks += [task for task in (self._killing, self._hook) if task is not None]
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                log.error("pod %s: container %s", self._pod.name, self.name, exc_info=outcome)

    async def _accompany(self, run: Run) -> None:
        """The hook first: until it is done the container does not count as running; then the probes."""
        target = Target(self._pod.machine.containers, run, self.body, self._pod.address)
        try:
            await hooks.post_start(self._pod, target)
        except hooks.HookFailed as failure:
            self._after_reason, self._after_message = reasons.HOOK_ERROR, str(failure)
            self._pod.say(WARNING, hooks.POST_START_FAILED, "PostStartHook failed", self.name)
            self._killed_by_node = True
            self.kill("FailedPostStartHook", self._pod.grace)
            return
        probes = Probes(self._pod, self.status, target, self._on_probe_failure)
        self.status.start(run.started_at or self._pod.now())
        probes.begin()
        self._pod.touch()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell_started(probes))
            group.create_task(probes.run())

    async def _tell_started(self, probes: Probes) -> None:
        await probes.started.wait()
        self.started.set()

    def _finished(self, run: Run, end: Exit | None) -> Exit:
        count = len(self._pod.state.all)
        return history.finished(run, end, self.body, count, self._id_of(run), self._pod.now())

    # --- 7. what follows an end

    def _goes_on(self, end: Exit) -> bool:
        """Whether another run follows."""
        if self._pod.ending.is_set() or self.role is Role.EPHEMERAL:
            return False
        if self._forced:
            return True
        if self._policy.whole_pod_after(end.code):
            self._pod.on_restart_all()
            return False
        if self.role is Role.INIT and end.code == 0:
            return False
        return self._policy.after_kill if self._killed_by_node else self._policy.after(end.code)

    async def _wait_for_next(self, end: Exit) -> bool:
        """Until the next run is due; ``False`` when the pod ends meanwhile."""
        pod, status = self._pod, self.status
        wait = self._crash.after(end.finished_at - (end.started_at or end.finished_at))
        due = end.finished_at + wait
        reason = self._after_reason or (reasons.RUN_ERROR if end.reason == reasons.START_ERROR else "")
        if wait:
            text = f"back-off {backoff.text(wait)} restarting failed container={self.name} pod={pod.full_name}"
            status.back_off(text)
        elif reason:
            status.last = end
            status.wait(reason, self._after_message or end.message)
            due = max(due, pod.now() + _RETRY)
        pod.touch()
        while wait and pod.now() < due:
            text = f"Back-off restarting failed container {self.name} in pod {pod.full_name}"
            pod.say(WARNING, "BackOff", text, self.name)
            if not await pod.pause(min(_REPEAT, due - pod.now())):
                return False
        if not await pod.pause(due - pod.now()):
            return False
        status.last = end
        return True

    # --- ending a run

    def kill(self, why: str, grace: float, turns: Turns | None = None) -> None:
        """End the present run within ``grace`` seconds: hook, turn, signal. Repeating it can only make it quicker.

        ``why`` is the event's message; ``""`` and ``turns``: the pod ends.
        """
        if turns is not None:
            self._doom = (why, grace, turns)  # the pod's end: it counts for a run that is about to begin, too
        run = self.run_now
        if run is None or run.started_at is None or run.exit is not None:
            return  # it has not begun: ``_resume_kill`` will see to it
        noted = marks.read(run.path, marks.KILL)
        deadline = self._pod.now() + grace
        if noted is None:
            self._pod.say(NORMAL, "Killing", why or f"Stopping container {self.name}", self.name)
        else:
            deadline = min(deadline, float(noted["deadline"]))
        marks.write(run.path, marks.KILL, deadline=deadline, node=self._killed_by_node, forced=self._forced)
        if self._killing is not None:
            self._killing.cancel()
        self._killing = asyncio.create_task(self._end(run, deadline, grace, turns))

    def _resume_kill(self, run: Run) -> None:
        """Go on with an end that was decided before the run had begun, or before this agent."""
        noted = marks.read(run.path, marks.KILL)
        if self._doom is not None:
            self.kill(*self._doom)
        elif noted is not None:
            self._killed_by_node, self._forced = bool(noted.get("node")), bool(noted.get("forced"))
            self.kill("", max(0.0, float(noted["deadline"]) - self._pod.now()))

    async def _end(self, run: Run, deadline: float, grace: float, turns: Turns | None) -> None:
        now = self._pod.now
        if grace > 0:
            if self._hook is None:
                target = Target(self._pod.machine.containers, run, self.body, self._pod.address)
                self._hook = asyncio.create_task(hooks.pre_stop(self._pod, target))
            await asyncio.wait({self._hook}, timeout=max(0.0, deadline - now()))
            if turns is not None:
                await turns.wait(self.name, deadline - now())
        run.stop(max(LEAST_GRACE, deadline - now()) if grace > 0 else 0.0)

    def _on_probe_failure(self, probe: Probe) -> None:
        if self._killing is not None or self._pod.ending.is_set():
            return
        what = "Init container" if self.role is Role.SIDECAR else "Container"
        kind = "startup" if probe.kind is Kind.STARTUP else "liveness"
        self._killed_by_node = True
        again = ", will be restarted" if self._policy.after_kill and self.role is Role.MAIN else ""
        grace = self._pod.grace if probe.grace is None else probe.grace
        self.kill(f"{what} {self.name} failed {kind} probe{again}", grace)

    def renew(self, body: dict[str, Any]) -> None:
        """The container as the API has it now; with another image it is started again."""
        changed = body.get("image") != self.body.get("image")
        self.body = body
        if not changed:
            return
        self.status.image = body.get("image", "")
        self.restart(f"Container {self.name} definition changed, will be restarted")

    def restart(self, why: str) -> None:
        """End the present run, so that another one follows, whatever the policy."""
        if self.run_now is not None and self._killing is None and not self._pod.ending.is_set():
            self._killed_by_node = self._forced = True
            self.kill(why, self._pod.grace)
