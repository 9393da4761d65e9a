"""A pod's phase and conditions from what its containers do: the kubelet's rules as pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from glebe.kube.clock import format_time
from glebe.kube.objects import Object, set_condition
from glebe.node.restarts import Restarts

if TYPE_CHECKING:
    from glebe.node.status import Container, PodState

PENDING, RUNNING, SUCCEEDED, FAILED = "Pending", "Running", "Succeeded", "Failed"
DONE = (SUCCEEDED, FAILED)
#: Conditions that the node alone writes and takes away again; all others are kept as they are.
PASSING = ("PodResizePending", "PodResizeInProgress", "AllContainersRestarting")


def phase_of(policy: str, init: Sequence[Container], main: Sequence[Container], terminal: bool = False) -> str:
    """The pod's phase (upstream: kubelet ``getPhase``).

    :param terminal: nothing is started again, whatever the policies say.
    """

    def again(container: Container, code: int) -> bool:
        return (container.restarts_by or Restarts(policy)).after(code)

    regular = [c for c in init if not c.sidecar]
    sidecars = [c for c in init if c.sidecar]
    failed = [(c, code) for c in regular if (code := c.ended_with) not in (None, 0)]
    if any(not again(c, code or 0) for c, code in failed):
        return FAILED
    begun = any(c.begun for c in main)
    unstarted = [c for c in sidecars if (c.running and not c.is_started) or c.untouched]
    if any(c.ended_with is None for c in regular) or (unstarted and not begun):
        return PENDING
    if any(c.untouched for c in (*main, *sidecars)):
        return PENDING
    if any(c.running for c in (*main, *sidecars)):
        return RUNNING
    codes = [(c, c.ended_with or 0) for c in main]
    if not terminal and any(again(c, code) for c, code in codes):
        return RUNNING
    return FAILED if any(code for _, code in codes) else SUCCEEDED


def conditions_of(pod: Object, state: PodState, phase: str, now: float) -> list[dict[str, Any]]:
    """The pod's conditions; those of others are kept, times of transition too."""
    stamp = format_time(now)
    old = list((pod.get("status") or {}).get("conditions") or [])
    out = [c for c in old if c.get("type") not in PASSING or c["type"] in state.passing]
    if not any(c.get("type") == "PodScheduled" and c.get("status") == "True" for c in out):
        out = set_condition(out, "PodScheduled", "True", "", "", stamp)
    containers = _containers_ready(state, phase)
    table = {
        "PodReadyToStartContainers": ("True" if _sandbox(state) and phase not in DONE else "False", "", ""),
        "Initialized": _initialized(old, state, phase),
        "Ready": _ready(pod, containers),
        "ContainersReady": containers,
        **state.passing,
    }
    generation = pod["metadata"].get("generation")
    for kind, (value, reason, message) in table.items():
        out = set_condition(out, kind, value, reason, message, stamp, generation)
    if state.disrupted:
        out = set_condition(out, "DisruptionTarget", "True", "TerminationByKubelet", state.disrupted, stamp)
    return [{key: value for key, value in c.items() if value != "" or key == "status"} for c in out]


Verdict = tuple[str, str, str]  # status, reason, message


def _sandbox(state: PodState) -> bool:
    if state.sandbox is not None:
        return state.sandbox
    return any(not c.untouched for c in (*state.init, *state.main))


def _listed(text: str, containers: Iterable[Container]) -> str:
    names = " ".join(c.name for c in containers)
    return f"{text}: [{names}]" if names else ""


def _containers_ready(state: PodState, phase: str) -> Verdict:
    if phase in DONE:
        return "False", "PodCompleted" if phase == SUCCEEDED else "PodFailed", ""
    parts = (*(c for c in state.init if c.sidecar), *state.main)
    unready = _listed("containers with unready status", (c for c in parts if not c.is_ready))
    return ("False", "ContainersNotReady", unready) if unready else ("True", "", "")


def _ready(pod: Object, containers: Verdict) -> Verdict:
    if containers[0] != "True":
        return containers
    shut = _gates(pod)
    return ("False", "ReadinessGatesNotReady", shut) if shut else containers


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


def _initialized(old: list[dict[str, Any]], state: PodState, phase: str) -> Verdict:
    if phase == SUCCEEDED:
        return "True", "PodCompleted", ""
    if any(c.running or c.ended for c in state.main):
        return "True", "", ""
    waiting = _listed("containers with incomplete status", (c for c in state.init if not c.initialized))
    if not waiting or any(c.get("type") == "Initialized" and c.get("status") == "True" for c in old):
        return "True", "", ""
    return "False", "ContainersNotInitialized", waiting
