"""From what containers do to what a Pod's status says: the kubelet's rules as pure functions.

Both runtimes keep a :class:`Container` per container and let :func:`pod_status` derive phase, conditions and container
statuses from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from glebe.kube.clock import format_time
from glebe.kube.objects import Object, set_condition


class State(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    TERMINATED = "terminated"


@dataclass(frozen=True, slots=True)
class Exit:
    """How one run of a container ended. Times are seconds since the epoch."""

    code: int
    finished_at: float
    started_at: float | None = None
    reason: str = ""
    message: str = ""
    signal: int = 0

    def to_object(self, container_id: str) -> dict[str, Any]:
        """``ContainerStateTerminated``."""
        out: dict[str, Any] = {"exitCode": self.code, "reason": self.reason or default_reason(self.code)}
        if self.signal:
            out["signal"] = self.signal
        if self.message:
            out["message"] = self.message
        out["startedAt"] = format_time(self.started_at) if self.started_at is not None else None
        out["finishedAt"] = format_time(self.finished_at)
        out["containerID"] = container_id
        return out


def default_reason(code: int) -> str:
    """What container runtimes say for an exit code."""
    return "Completed" if code == 0 else "Error"


@dataclass(slots=True)
class Container:
    """One container of a pod as its runtime sees it now.

    ``reason``/``message`` explain WAITING; ``exit`` is set in TERMINATED; ``last`` is the run before this one.
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
    sidecar: bool = False  # an init container that stays (restartPolicy Always)

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
    def succeeded(self) -> bool:
        return self.state is State.TERMINATED and self.exit is not None and self.exit.code == 0

    @property
    def initialized(self) -> bool:
        """Whether an init container holds the next one up no more."""
        return self.succeeded or (self.sidecar and (self.state is not State.WAITING or self.last is not None))

    def to_object(self) -> dict[str, Any]:
        """``ContainerStatus``."""
        running = self.state is State.RUNNING
        if running:
            state = {"running": {"startedAt": format_time(self.started_at or 0.0)}}
        elif self.state is State.TERMINATED and self.exit is not None:
            state = {"terminated": self.exit.to_object(self.id)}
        else:
            waiting = {"reason": self.reason or "ContainerCreating"}
            if self.message:
                waiting["message"] = self.message
            state = {"waiting": waiting}
        return {
            "name": self.name,
            "image": self.image,
            "imageID": "",
            "containerID": self.id,
            "ready": running,
            "started": running,
            "restartCount": self.restarts,
            "state": state,
            "lastState": {"terminated": self.last.to_object(self.id)} if self.last is not None else {},
        }


@dataclass(slots=True)
class PodState:
    """A pod as its node sees it: containers, address, and ``verdict`` when the node itself ended the pod.

    ``verdict`` is (reason, message) such as DeadlineExceeded: the phase is then Failed whatever the exit codes.
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


def containers_of(pod: Object) -> tuple[list[Container], list[Container]]:
    """Fresh (init, main) containers for a pod that has not begun."""
    spec = pod["spec"]

    def fresh(items: Sequence[dict[str, Any]], reason: str) -> list[Container]:
        return [
            Container(item["name"], item.get("image", ""), reason=reason, sidecar=item.get("restartPolicy") == "Always")
            for item in items
        ]

    init = spec.get("initContainers") or []
    return fresh(init, "PodInitializing"), fresh(spec["containers"], "PodInitializing" if init else "ContainerCreating")


def restarts_after(policy: str, code: int) -> bool:
    """Whether a container that ended with ``code`` is started again under this restartPolicy."""
    return policy == "Always" or (policy == "OnFailure" and code != 0)


def policy_of(pod: Object, state: PodState) -> str:
    """The restartPolicy that counts now."""
    return "Never" if state.final else str(pod["spec"].get("restartPolicy", "Always"))


def phase_of(policy: str, init: Sequence[Container], main: Sequence[Container]) -> str:
    """The pod's phase (upstream: kubelet ``getPhase``)."""
    for container in init:
        if container.initialized:
            continue
        failed = container.state is State.TERMINATED and policy == "Never"
        return "Failed" if failed else "Pending"
    if any(c.state is State.WAITING and c.last is None for c in main):
        return "Pending"
    if any(c.state is State.RUNNING for c in main):
        return "Running"
    # Every container has ended, or waits for another start after an end.
    if policy == "Always" or any(c.state is State.WAITING for c in main):
        return "Running"
    if all(c.succeeded for c in main):
        return "Succeeded"
    return "Failed" if policy == "Never" else "Running"


def pod_status(pod: Object, state: PodState, now: float) -> dict[str, Any]:
    """The status to write, given the pod as last seen; conditions of others are kept."""
    phase = "Failed" if state.verdict else phase_of(policy_of(pod, state), state.init, state.main)
    status: dict[str, Any] = {
        "phase": phase,
        "conditions": _conditions(pod, state, phase, now),
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
    if state.resizes:
        _add_resources(pod, status)
    if state.host_ip:
        status["hostIP"] = state.host_ip
        status["hostIPs"] = [{"ip": state.host_ip}]
    if state.pod_ip:
        status["podIP"] = state.pod_ip
        status["podIPs"] = [{"ip": state.pod_ip}]
    if state.verdict:
        status["reason"], status["message"] = state.verdict
    return status


def _add_resources(pod: Object, status: dict[str, Any]) -> None:
    """What each container was given: what it asks for now (KEP-1287)."""
    for field, containers in (("containerStatuses", "containers"), ("initContainerStatuses", "initContainers")):
        specs = {c["name"]: c.get("resources") for c in pod["spec"].get(containers) or ()}
        for container in status.get(field) or ():
            if asked := specs.get(container["name"]):
                container["resources"] = {k: v for k, v in asked.items() if k in ("limits", "requests", "claims")}
                if asked.get("requests"):
                    container["allocatedResources"] = asked["requests"]


def _gates(pod: Object) -> str:
    """Which readiness gates are shut, in the kubelet's words."""
    have = {c.get("type"): c.get("status") for c in (pod.get("status") or {}).get("conditions") or ()}
    out = []
    for gate in pod["spec"].get("readinessGates") or ():
        name = gate["conditionType"]
        if name not in have:
            out.append(f'corresponding condition of pod readiness gate "{name}" does not exist.')
        elif have[name] != "True":
            out.append(f'the status of pod readiness gate "{name}" is not "True", but {have[name]}')
    return ", ".join(out)


def _conditions(pod: Object, state: PodState, phase: str, now: float) -> list[dict[str, Any]]:
    stamp = format_time(now)
    out = list((pod.get("status") or {}).get("conditions") or [])
    if not any(c.get("type") == "PodScheduled" and c.get("status") == "True" for c in out):
        out = set_condition(out, "PodScheduled", "True", "", "", stamp)
    done = phase in ("Succeeded", "Failed")
    initialized = all(c.initialized for c in state.init)
    parts = [*(c for c in state.init if c.sidecar), *state.main]
    unready = [c.name for c in parts if c.state is not State.RUNNING]
    sandbox = any(c.state is not State.WAITING or c.last for c in [*state.init, *state.main]) and not done
    if done:
        why = ("PodCompleted", "") if phase == "Succeeded" else ("PodFailed", "")
    elif unready:
        why = ("ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]")
    else:
        why = ("", "")
    ready = "True" if not done and not unready and initialized else "False"
    gates = _gates(pod) if ready == "True" else ""
    whole = ("False", "ReadinessGatesNotReady", gates) if gates else (ready, *why)
    table = (
        ("PodReadyToStartContainers", "True" if sandbox else "False", "", ""),
        ("Initialized", "True" if initialized else "False", *_init_reason(state, phase)),
        ("Ready", *whole),
        ("ContainersReady", ready, *why),
    )
    generation = pod["metadata"].get("generation")
    for kind, value, reason, message in table:
        out = set_condition(out, kind, value, reason, message, stamp, generation)
    if state.disrupted:
        out = set_condition(out, "DisruptionTarget", "True", "TerminationByKubelet", state.disrupted, stamp)
    return [{key: value for key, value in c.items() if value != "" or key == "status"} for c in out]


def _init_reason(state: PodState, phase: str) -> tuple[str, str]:
    waiting = [c.name for c in state.init if not c.initialized]
    if waiting:
        return "ContainersNotInitialized", f"containers with incomplete status: [{' '.join(waiting)}]"
    return ("PodCompleted", "") if phase == "Succeeded" else ("", "")


def qos_class(pod: Object) -> str:
    """Guaranteed, Burstable or BestEffort, from the cpu and memory of all containers."""
    spec = pod["spec"]
    any_set, guaranteed = False, True
    for container in [*(spec.get("initContainers") or []), *spec["containers"]]:
        resources = container.get("resources") or {}
        requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
        for name in ("cpu", "memory"):
            any_set = any_set or name in requests or name in limits
            if name not in limits or requests.get(name, limits[name]) != limits[name]:
                guaranteed = False
    if not any_set:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"
