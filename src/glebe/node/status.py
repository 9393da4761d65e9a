"""From what containers do to what a Pod's status says: the kubelet's rules as pure functions.

Both runtimes keep a :class:`Container` per container and let :func:`pod_status` derive phase, conditions and container
statuses from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from glebe.kube.clock import format_time
from glebe.kube.objects import Object
from glebe.kube.pods import ENDED, has_ended
from glebe.node.conditions import conditions_of
from glebe.node.conditions import phase_of as phase_of
from glebe.node.restarts import Restarts


class State(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    TERMINATED = "terminated"


@dataclass(frozen=True, slots=True)
class Exit:
    """How one run of a container ended. Times are seconds since the epoch; ``id`` is the run's containerID."""

    code: int
    finished_at: float
    started_at: float | None = None
    reason: str = ""
    message: str = ""
    signal: int = 0
    id: str = ""

    def to_object(self, container_id: str) -> dict[str, Any]:
        """``ContainerStateTerminated``."""
        out: dict[str, Any] = {"exitCode": self.code, "reason": self.reason or default_reason(self.code)}
        if self.signal:
            out["signal"] = self.signal
        if self.message:
            out["message"] = self.message
        out["startedAt"] = format_time(self.started_at) if self.started_at is not None else None
        out["finishedAt"] = format_time(self.finished_at)
        out["containerID"] = self.id or container_id
        return out


def default_reason(code: int) -> str:
    """What container runtimes say for an exit code."""
    return "Completed" if code == 0 else "Error"


@dataclass(slots=True)
class Container:
    """One container of a pod as its runtime sees it now.

    ``reason``/``message`` explain WAITING; ``exit`` is set in TERMINATED; ``last`` is the run before this one.
    ``started`` and ``ready`` are what probes say of a running one; ``None``: there is no such probe.
    ``restarts_by`` is the policy, where not only the pod's counts.
    """

    name: str
    image: str = ""
    state: State = State.WAITING
    reason: str = ""
    message: str = ""
    started_at: float | None = None
    exit: Exit | None = None
    last: Exit | None = None
    restarts: int = 0
    id: str = ""
    image_id: str = ""
    sidecar: bool = False  # an init container that stays (restartPolicy Always)
    started: bool | None = None
    ready: bool | None = None
    restarts_by: Restarts | None = None
    details: dict[str, Any] = field(default_factory=dict)  # further fields of the ContainerStatus, as they are

    def start(self, now: float) -> None:
        self.state, self.started_at, self.exit = State.RUNNING, now, None
        self.reason = self.message = ""

    def wait(self, reason: str, message: str = "") -> None:
        self.state, self.reason, self.message = State.WAITING, reason, message
        self.exit = None

    def end(self, how: Exit) -> None:
        self.state, self.exit = State.TERMINATED, how
        self.reason = self.message = ""

    def back_off(self, message: str) -> None:
        """After an end that is to be followed by another start."""
        self.last = self.exit
        self.wait("CrashLoopBackOff", message)

    @property
    def running(self) -> bool:
        return self.state is State.RUNNING

    @property
    def ended(self) -> bool:
        return self.state is State.TERMINATED

    @property
    def untouched(self) -> bool:
        """Whether it waits for its first start."""
        return self.state is State.WAITING and self.last is None

    @property
    def begun(self) -> bool:
        """Whether it has ever run."""
        return not self.untouched

    @property
    def ended_with(self) -> int | None:
        """The exit code of a container that does not run, but has; ``None`` for others."""
        if self.state is State.RUNNING:
            return None
        end = self.exit if self.state is State.TERMINATED else self.last
        return end.code if end is not None else None

    @property
    def succeeded(self) -> bool:
        return self.state is State.TERMINATED and self.exit is not None and self.exit.code == 0

    @property
    def is_started(self) -> bool:
        """Whether it runs and its startup probe has succeeded (or it has none)."""
        return self.running and self.started is not False

    @property
    def is_ready(self) -> bool:
        return self.is_started and self.ready is not False

    @property
    def initialized(self) -> bool:
        """Whether an init container holds the next one up no more."""
        return self.is_started if self.sidecar else self.succeeded

    def to_object(self) -> dict[str, Any]:
        """``ContainerStatus``."""
        return {
            "name": self.name,
            "image": self.image,
            "imageID": self.image_id,
            "containerID": self.id,
            "ready": self.is_ready,
            "started": self.is_started,
            "restartCount": self.restarts,
            "state": self._state(),
            "lastState": {"terminated": self.last.to_object(self.id)} if self.last is not None else {},
            **self.details,
        }

    def _state(self) -> dict[str, Any]:
        if self.running:
            return {"running": {"startedAt": format_time(self.started_at or 0.0)}}
        if self.state is State.TERMINATED and self.exit is not None:
            return {"terminated": self.exit.to_object(self.id)}
        waiting = {"reason": self.reason or "ContainerCreating"}
        if self.message:
            waiting["message"] = self.message
        return {"waiting": waiting}


@dataclass(slots=True)
class PodState:
    """A pod as its node sees it: containers, address, and ``verdict`` when the node itself ended the pod.

    ``verdict`` is (reason, message) such as DeadlineExceeded: the phase is then Failed whatever the exit codes.
    ``sandbox`` says whether containers can be started; ``None``: as soon as one has.
    ``passing`` holds conditions that come and go: type -> (status, reason, message).
    """

    init: list[Container]
    main: list[Container]
    started_at: float
    host_ip: str = ""
    pod_ip: str = ""
    verdict: tuple[str, str] | None = None
    final: bool = False  # nothing is started again: the pod was told to end
    disrupted: str = ""  # message of the condition DisruptionTarget, when the node broke the pod
    resizes: bool = False  # resources are whatever the spec says now, and the status says so
    ephemeral: list[Container] = field(default_factory=list)
    sandbox: bool | None = None
    passing: dict[str, tuple[str, str, str]] = field(default_factory=dict)

    @property
    def all(self) -> list[Container]:
        return [*self.init, *self.main, *self.ephemeral]


def containers_of(pod: Object) -> tuple[list[Container], list[Container]]:
    """Fresh (init, main) containers for a pod that has not begun."""
    spec = pod["spec"]

    def fresh(items: Sequence[dict[str, Any]], reason: str) -> list[Container]:
        return [
            Container(
                item["name"],
                item.get("image", ""),
                reason=reason,
                sidecar=item.get("restartPolicy") == "Always" and items is init,
                restarts_by=Restarts.of(spec, item) if item.get("restartPolicy") else None,
            )
            for item in items
        ]

    init = spec.get("initContainers") or []
    return fresh(init, "PodInitializing"), fresh(spec["containers"], "PodInitializing" if init else "ContainerCreating")


def restarts_after(policy: str, code: int) -> bool:
    """Whether a container that ended with ``code`` is started again under this restartPolicy."""
    return Restarts(policy).after(code)


def policy_of(pod: Object, state: PodState) -> str:
    """The restartPolicy that counts now."""
    return "Never" if state.final else str(pod["spec"].get("restartPolicy", "Always"))


def phase(pod: Object, state: PodState) -> str:
    """The phase of the pod as its node sees it; a verdict counts when nothing runs any more."""
    if state.verdict and not any(c.running for c in state.all):
        return "Failed"
    return phase_of(policy_of(pod, state), state.init, state.main, state.final)


def pod_status(pod: Object, state: PodState, now: float) -> dict[str, Any]:
    """The status to write, given the pod as last seen; conditions of others, and an end that they wrote, are kept."""
    at = phase(pod, state)
    if at in ENDED and has_ended(pod):
        at = pod["status"]["phase"]  # an end is final, and others have acted on it
    status: dict[str, Any] = {
        "phase": at,
        "conditions": conditions_of(pod, state, at, now),
        "startTime": format_time(state.started_at),
        "qosClass": qos_class(pod),
        "containerStatuses": [c.to_object() for c in state.main],
    }
    if generation := pod["metadata"].get("generation"):
        status["observedGeneration"] = generation
    if state.init:
        status["initContainerStatuses"] = [
            c.to_object() | ({} if c.sidecar else {"ready": c.succeeded}) for c in state.init
        ]
    if state.ephemeral:
        status["ephemeralContainerStatuses"] = [c.to_object() for c in state.ephemeral]
    if state.resizes:
        _add_resources(pod, status)
    if state.host_ip:
        status["hostIP"] = state.host_ip
        status["hostIPs"] = [{"ip": state.host_ip}]
    if state.pod_ip:
        status["podIP"] = state.pod_ip
        status["podIPs"] = [{"ip": state.pod_ip}]
    if state.verdict and at == "Failed":
        status["reason"], status["message"] = state.verdict
    return status


def _add_resources(pod: Object, status: dict[str, Any]) -> None:
    """What each container was given: what it asks for now (KEP-1287)."""
    for name, containers in (("containerStatuses", "containers"), ("initContainerStatuses", "initContainers")):
        specs = {c["name"]: c.get("resources") for c in pod["spec"].get(containers) or ()}
        for container in status.get(name) or ():
            if asked := specs.get(container["name"]):
                container.update(resources_status(asked))


def resources_status(given: Mapping[str, Any]) -> dict[str, Any]:
    """``resources`` and ``allocatedResources`` of a container that was given this."""
    out: dict[str, Any] = {"resources": {k: v for k, v in given.items() if k in ("limits", "requests", "claims")}}
    if given.get("requests"):
        out["allocatedResources"] = given["requests"]
    return out


def qos_class(pod: Object) -> str:
    """Guaranteed, Burstable or BestEffort, from the cpu and memory of all containers, or of the pod as a whole."""
    spec = pod["spec"]
    any_set, guaranteed = False, True
    whole = spec.get("resources")
    containers = [*(spec.get("initContainers") or []), *spec["containers"]]
    for resources in [whole] if whole else [c.get("resources") or {} for c in containers]:
        requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
        for name in ("cpu", "memory"):
            any_set = any_set or name in requests or name in limits
            if name not in limits or requests.get(name, limits[name]) != limits[name]:
                guaranteed = False
    if not any_set:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"
