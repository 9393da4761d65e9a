"""A simulated pod: which container transitions happen when. A state machine without I/O; time is handed in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glebe.kube.clock import parse_time
from glebe.kube.objects import Object, annotations_of
from glebe.node import backoff
from glebe.node.simulated import runtimes
from glebe.node.simulated.plan import Plan
from glebe.node.simulated.pulling import Pull
from glebe.node.spec import NodeSpec
from glebe.node.status import (
    Container,
    Exit,
    PodState,
    State,
    containers_of,
    phase_of,
    restarts_after,
)


class SimPod:
    """One pod on a simulated node.

    ``advance(now)`` makes every transition that is due; ``next`` is when the next one is (``None``: never); ``dirty``
    says that the status has changed since it was last written. Init containers run one after the other, sidecars from
    their turn on, then all others at once.

    :param wishes: annotations that count instead of the pod's own.
    """

    def __init__(self, pod: Object, spec: NodeSpec, now: float, wishes: Mapping[str, str] | None = None) -> None:
        self.uid: str = pod["metadata"]["uid"]
        self.policy: str = pod["spec"].get("restartPolicy", "Always")
        self._deadline: int | None = pod["spec"].get("activeDeadlineSeconds")
        init, main = containers_of(pod)
        self.state = PodState(init, main, now, host_ip=spec.address, pod_ip=pod_address(self.uid), resizes=True)
        self.dirty = False
        self.next: float | None = None
        self.held_until: float | None = None  # a slow node brings the status then
        self.running = False  # the main containers
        self.stopping = False
        self._turn = 0  # of the init containers
        self._begun = False
        self._begin = 0.0  # when the present run began, or will begin
        self._crash = backoff.CrashLoop()
        self._plan: Plan | None = None
        self._pull = Pull(0.0, 0.0)
        self._ready_at: float | None = None  # when the containers that run will be ready
        self._probed = [_ready_after(c) for c in pod["spec"]["containers"]]
        self._adopt(pod, spec, now, annotations_of(pod) if wishes is None else wishes)

    def _adopt(self, pod: Object, spec: NodeSpec, now: float, wishes: Mapping[str, str]) -> None:
        # What is always started again is a service: it runs until it is told to end.
        default = "" if self.policy == "Always" else spec.run_time
        try:
            self._plan = Plan.of(wishes, default)
        except ValueError as error:
            for container in self.state.main:
                container.wait("CreateContainerConfigError", str(error))
            self.dirty = True
            return
        status = pod.get("status") or {}
        seen = next(iter(status.get("containerStatuses") or ()), None)
        if status.get("phase") == "Running" and seen is not None:
            self._resume(status, seen)
            return
        self._pull = Pull(self._plan.unpullable(f"{self.uid}/pull"), self._plan.pull(f"{self.uid}/pull"))
        self._begin = now + self._plan.delay(spec.start_delay, f"{self.uid}/start")
        self._plan_next(self._begin)
        if status.get("startTime") and status.get("initContainerStatuses"):
            self._resume_init(status, now)

    def _resume(self, status: Mapping[str, object], seen: Mapping[str, Any]) -> None:
        """Continue a pod that a former process of this simulation had started."""
        restarts = int(seen.get("restartCount", 0))
        self.state.started_at = parse_time(str(status["startTime"]))
        self._begun, self._turn = True, len(self.state.init)
        self._crash.resume(restarts)
        for container in self.state.init:
            container.start(self.state.started_at)
            if not container.sidecar:
                container.end(Exit(0, self.state.started_at, self.state.started_at))
        running = seen["state"].get("running")
        if running is not None:
            self._start(parse_time(running["startedAt"]), restarts)
            if seen.get("ready"):  # it was ready before
                self._become_ready()
            self.dirty = False
            return
        ended = (seen.get("lastState") or {}).get("terminated") or seen["state"].get("terminated") or {}
        finished = parse_time(ended["finishedAt"]) if ended else self.state.started_at
        for container in self.state.main:
            container.restarts = restarts
            container.end(Exit(int(ended.get("exitCode", 0)), finished, reason=ended.get("reason", "")))
            container.back_off("")
        self._begin = finished + self._crash.after(0.0)
        self._plan_next(self._begin)

    def _resume_init(self, status: Mapping[str, Any], now: float) -> None:
        """Continue with the first init container that had not ended well."""
        self.state.started_at, self._begun, self._begin = parse_time(status["startTime"]), True, now
        for container, seen in zip(self.state.init, status["initContainerStatuses"], strict=False):
            container.restarts = int(seen.get("restartCount", 0))
            state = seen.get("state") or {}
            running, ended = state.get("running"), state.get("terminated") or {}
            if running is not None:
                container.start(parse_time(running["startedAt"]))
            elif ended.get("exitCode") == 0:
                finished = parse_time(ended["finishedAt"])
                container.end(Exit(0, finished, finished))
            if not container.initialized:
                if running is not None:
                    self._begin = parse_time(running["startedAt"]) + self._init_time(container)
                self._crash.resume(container.restarts)
                break
            self._turn += 1
        self._plan_next(self._begin)

    # --- transitions

    @property
    def phase(self) -> str:
        return "Failed" if self.state.verdict else phase_of(self.policy, self.state.init, self.state.main)

    def advance(self, now: float) -> None:
        """Make the transitions that are due."""
        while self.next is not None and self.next <= now:
            if self.stopping:
                self._finish(self.next)
            elif self._begun and self._deadline is not None and self.next >= self.state.started_at + self._deadline:
                self.kill(
                    self.next, "DeadlineExceeded", "Pod was active on the node longer than the specified deadline"
                )
            elif self.running and self._ready_at is not None and self.next >= self._ready_at:
                self._become_ready()
            elif self.running:
                _, code, reason = self._run()
                self.end(code, self.next, reason)
            elif self._turn < len(self.state.init):
                self._initialize(self.state.init[self._turn], self.next)
            elif not self._pull.done:
                self._fetch(self.next)
            else:
                self._start(self.next, self.state.main[0].restarts + (self.state.main[0].last is not None))

    def _run(self) -> tuple[float | None, int, str]:
        assert self._plan is not None
        restarts = self.state.main[0].restarts
        return self._plan.run(f"{self.uid}/{restarts}", restarts)

    def _init_time(self, container: Container) -> float:
        assert self._plan is not None
        return self._plan.init(f"{self.uid}/{container.name}/{container.restarts}")

    def _plan_next(self, at: float | None) -> None:
        """The next transition is at ``at``, or when the pod's time is over."""
        self.next = at
        if self._deadline is not None and self._begun:
            end = self.state.started_at + self._deadline
            self.next = end if at is None else min(at, end)

    def _begins(self, at: float) -> None:
        if not self._begun:
            self._begun, self.state.started_at = True, at

    def _initialize(self, container: Container, at: float) -> None:
        """One step of the init container whose turn it is: it starts, or ends."""
        assert self._plan is not None
        self._begins(at)
        self.dirty = True
        if container.state is not State.RUNNING:
            container.restarts += container.last is not None
            container.id = f"simulated://{self.uid}/{container.name}/{container.restarts}"
            container.start(at)
            self._turn += container.sidecar
            self._plan_next(at if container.sidecar else at + self._init_time(container))
            return
        code, began = self._plan.init_exit_code, container.started_at
        container.end(Exit(code, at, began))
        if code == 0:
            self._turn += 1
            self._crash = backoff.CrashLoop()
            self._plan_next(at)
        elif self.policy == "Never":
            self._end_sidecars(at)
            self.next = None
        else:
            wait = self._crash.after(at - (began or at))
            container.back_off(f"back-off {backoff.text(wait)} restarting failed container={container.name}")
            self._plan_next(at + wait)

    def _start(self, at: float, restarts: int) -> None:
        self._begins(at)
        for container in self.state.main:
            container.id = f"simulated://{self.uid}/{container.name}/{restarts}"
            container.restarts = restarts
            container.start(at)
        self.running, self.dirty, self._begin = True, True, at
        length = self._run()[0]
        self._ends_at = None if length is None else at + length
        self._await_readiness(at, restarts)

    def _fetch(self, at: float) -> None:
        """One step of pulling the images of the main containers."""
        self._begins(at)
        self._plan_next(self._pull.step(self.state.main, at))
        self.dirty = True

    def _await_readiness(self, at: float, restarts: int) -> None:
        assert self._plan is not None
        if self._plan.ready_after:
            after = [runtimes.sample(self._plan.ready_after, f"{self.uid}/ready/{restarts}")] * len(self.state.main)
        else:
            after = self._probed
        for container, seconds in zip(self.state.main, after, strict=False):
            container.ready = None if not seconds else False
        self._ready_at = at + max(after) if any(after) else None
        self._plan_run()

    def _become_ready(self) -> None:
        for container in self.state.main:
            container.ready = None
        self._ready_at, self.dirty = None, True
        self._plan_run()

    def _plan_run(self) -> None:
        """What comes next while containers run: they are ready, or end."""
        times = [at for at in (self._ready_at, self._ends_at) if at is not None]
        self._plan_next(min(times) if times else None)

    def end(self, code: int, at: float, reason: str = "", message: str = "") -> None:
        """All containers exit now; they start again if the pod's restartPolicy says so."""
        if not self.running:
            return
        for container in self.state.main:
            container.end(Exit(code, at, self._begin, reason, message))
        self.running, self.dirty, self.next, self._ready_at = False, True, None, None
        if restarts_after(self.policy, code):
            wait = self._crash.after(at - self._begin)
            for container in self.state.main:
                container.back_off(f"back-off {backoff.text(wait)} restarting failed container={container.name}")
            self._begin = at + wait
            self._plan_next(self._begin)
        else:
            self._end_sidecars(at)

    def kill(self, at: float, reason: str, message: str, code: int = 137) -> None:
        """The node ends the pod: Failed, whatever its restartPolicy."""
        self._stop(at, code)
        self.state.verdict = (reason, message)
        self.dirty, self.next, self.stopping = True, None, False

    def terminate(self, at: float, deadline: float | None = None) -> None:
        """The pod is being deleted: containers obey SIGTERM after their stop time, or are killed at ``deadline``."""
        if self.stopping:
            return
        self.policy, self.state.final = "Never", True
        self._code = 143
        end = at + (self._plan.stop_time if self._plan is not None else 0.0)
        if deadline is not None and end > deadline:
            self._code, end = 137, max(at, deadline)
        if end <= at or not self.running:
            self._finish(at)
            return
        self.stopping, self.next = True, end

    def _finish(self, at: float) -> None:
        self._stop(at, self._code)
        self.next, self.stopping = None, False

    def _stop(self, at: float, code: int) -> None:
        for container in self.state.main:
            if container.state is State.RUNNING or container.last is None:
                container.end(Exit(code, at, self._begin if self.running else None))
                self.dirty = True
            else:
                container.end(container.last)
        for container in self.state.init:
            if container.state is State.RUNNING and not container.sidecar:
                container.end(Exit(code, at, container.started_at))
        self._end_sidecars(at)
        self.running = False

    def _end_sidecars(self, at: float) -> None:
        for container in self.state.init:
            if container.sidecar and container.state is State.RUNNING:
                container.end(Exit(143, at, container.started_at))
                self.dirty = True

    _code = 143
    _ends_at: float | None = None


def _ready_after(container: Mapping[str, Any]) -> float:
    """Seconds before a kubelet could call the container ready: it waits that long before it probes."""
    probes = (container.get(kind) or {} for kind in ("startupProbe", "readinessProbe"))
    return float(sum(probe.get("initialDelaySeconds") or 0 for probe in probes))


def pod_address(uid: str) -> str:
    """A made-up address in 100.64.0.0/10 (nothing listens there), the same for the same pod."""
    number = sum((i + 1) * 131**i * ord(c) for i, c in enumerate(uid[:8])) % (1 << 22)
    return f"100.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
