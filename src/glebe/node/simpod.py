"""A simulated pod: which container transitions happen when. A state machine without I/O; time is handed in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from glebe.kube.clock import parse_time
from glebe.kube.objects import Object, annotations_of
from glebe.node import backoff, runtimes
from glebe.node.podstatus import Exit, PodState, State, containers_of, phase_of, restarts_after
from glebe.node.spec import NodeSpec

RUN_TIME = "sim.glebe.dev/run-time"
EXIT_CODE = "sim.glebe.dev/exit-code"
FAIL_AFTER = "sim.glebe.dev/fail-after"


@dataclass(frozen=True, slots=True)
class Plan:
    """What the annotations ask for: how long a run lasts, and how it ends."""

    run_time: str
    exit_code: int = 0
    fail_after: str = ""

    @classmethod
    def of(cls, annotations: Mapping[str, str], default_run_time: str) -> Plan:
        """Read the annotations.

        :raises ValueError: naming the annotation and what it may be.
        """
        run_time = annotations.get(RUN_TIME, default_run_time)
        fail_after = annotations.get(FAIL_AFTER, "")
        for name, text in ((RUN_TIME, run_time), (FAIL_AFTER, fail_after or "0")):
            try:
                runtimes.check(text)
            except ValueError as error:
                raise ValueError(f"annotation {name}: {error}") from None
        code = annotations.get(EXIT_CODE, "0")
        if not (code.isdecimal() and int(code) <= 255):
            raise ValueError(f'annotation {EXIT_CODE}: "{code}" is not an exit code: write a number from 0 to 255')
        return cls(run_time, int(code), fail_after)

    def run(self, seed: str) -> tuple[float, int]:
        """(seconds, exit code) of the run with this seed."""
        length = runtimes.sample(self.run_time, seed)
        if self.fail_after:
            early = runtimes.sample(self.fail_after, seed)
            if early <= length:
                return early, self.exit_code or 1
        return length, self.exit_code


class SimPod:
    """One pod on a simulated node.

    ``advance(now)`` makes every transition that is due; ``next`` is when the next one is (``None``: never); ``dirty``
    says that the status has changed since it was last written.
    """

    def __init__(self, pod: Object, spec: NodeSpec, now: float) -> None:
        self.uid: str = pod["metadata"]["uid"]
        self.policy: str = pod["spec"].get("restartPolicy", "Always")
        self._deadline: int | None = pod["spec"].get("activeDeadlineSeconds")
        init, main = containers_of(pod)
        self.state = PodState(init, main, now, host_ip=spec.address, pod_ip=pod_address(self.uid))
        self.dirty = False
        self.next: float | None = None
        self.running = False
        self._begin = 0.0  # when the present run began, or will begin
        self._crash = backoff.CrashLoop()
        self._plan: Plan | None = None
        self._adopt(pod, spec, now)

    def _adopt(self, pod: Object, spec: NodeSpec, now: float) -> None:
        try:
            self._plan = Plan.of(annotations_of(pod), spec.run_time)
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
        self._begin = now + spec.start_delay
        self.next = self._begin

    def _resume(self, status: Mapping[str, object], seen: Mapping[str, Any]) -> None:
        """Continue a pod that a former process of this simulation had started."""
        restarts = int(seen.get("restartCount", 0))
        self.state.started_at = parse_time(str(status["startTime"]))
        self._crash.resume(restarts)
        for container in self.state.init:
            container.start(self.state.started_at)
            container.end(Exit(0, self.state.started_at, self.state.started_at))
        running = seen["state"].get("running")
        if running is not None:
            self._start(parse_time(running["startedAt"]), restarts)
            self.dirty = False
            return
        ended = (seen.get("lastState") or {}).get("terminated") or seen["state"].get("terminated") or {}
        finished = parse_time(ended["finishedAt"]) if ended else self.state.started_at
        for container in self.state.main:
            container.restarts = restarts
            container.end(Exit(int(ended.get("exitCode", 0)), finished, reason=ended.get("reason", "")))
            container.back_off("")
        self._begin = finished + self._crash.after(0.0)
        self.next = self._begin

    # --- transitions

    @property
    def phase(self) -> str:
        return "Failed" if self.state.verdict else phase_of(self.policy, self.state.init, self.state.main)

    def advance(self, now: float) -> None:
        """Make the transitions that are due."""
        while self.next is not None and self.next <= now:
            if not self.running:
                self._start(self._begin, self.state.main[0].restarts + (self.state.main[0].last is not None))
            elif self._deadline is not None and self.next >= self.state.started_at + self._deadline:
                self.kill(
                    self.next, "DeadlineExceeded", "Pod was active on the node longer than the specified deadline"
                )
            else:
                self.end(self._run()[1], self.next)

    def _run(self) -> tuple[float, int]:
        assert self._plan is not None
        return self._plan.run(f"{self.uid}/{self.state.main[0].restarts}")

    def _start(self, at: float, restarts: int) -> None:
        if restarts == 0:
            self.state.started_at = at
            for container in self.state.init:
                container.start(at)
                container.end(Exit(0, at, at))
        for container in self.state.main:
            container.id = f"simulated://{self.uid}/{container.name}/{restarts}"
            container.restarts = restarts
            container.start(at)
        self.running, self.dirty, self._begin = True, True, at
        self.next = at + self._run()[0]
        if self._deadline is not None:
            self.next = min(self.next, self.state.started_at + self._deadline)

    def end(self, code: int, at: float, reason: str = "", message: str = "") -> None:
        """All containers exit now; they start again if the pod's restartPolicy says so."""
        if not self.running:
            return
        for container in self.state.main:
            container.end(Exit(code, at, self._begin, reason, message))
        self.running, self.dirty, self.next = False, True, None
        if restarts_after(self.policy, code):
            wait = self._crash.after(at - self._begin)
            for container in self.state.main:
                container.back_off(f"back-off {backoff.text(wait)} restarting failed container={container.name}")
            self._begin = at + wait
            self.next = self._begin

    def kill(self, at: float, reason: str, message: str, code: int = 137) -> None:
        """The node ends the pod: Failed, whatever its restartPolicy."""
        self._stop(at, code)
        self.state.verdict = (reason, message)
        self.dirty, self.next = True, None

    def terminate(self, at: float) -> None:
        """The pod is being deleted: its containers obey SIGTERM at once."""
        self._stop(at, 143)
        self.running, self.next, self.policy, self.state.final = False, None, "Never", True

    def _stop(self, at: float, code: int) -> None:
        for container in self.state.main:
            if container.state is State.RUNNING or container.last is None:
                container.end(Exit(code, at, self._begin if self.running else None))
                self.dirty = True
            else:
                container.end(container.last)
        self.running = False


def pod_address(uid: str) -> str:
    """A made-up address in 100.64.0.0/10 (nothing listens there), the same for the same pod."""
    number = sum((i + 1) * 131**i * ord(c) for i, c in enumerate(uid[:8])) % (1 << 22)
    return f"100.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
