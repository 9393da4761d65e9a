"""A pod's row: READY, STATUS and RESTARTS as kubectl's readers know them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from glebe.kube.clock import parse_time
from glebe.kube.duration import format_duration
from glebe.kube.objects import Object

_NONE = "<none>"


def pod_cells(pod: Object, now: float, age: str) -> list[Any]:
    """Cells of one pod; the last four are wide."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    sidecars = sum(c.get("restartPolicy") == "Always" for c in spec.get("initContainers") or ())
    total = len(spec.get("containers") or ()) + sidecars
    shown = _state_of(pod)
    if "deletionTimestamp" in pod["metadata"] and status.get("phase") not in ("Succeeded", "Failed"):
        shown.reason = "Unknown" if status.get("reason") == "NodeLost" else "Terminating"
    restarts = str(shown.restarts)
    if shown.restarts and shown.last:
        restarts = f"{shown.restarts} ({format_duration(max(0.0, now - shown.last))} ago)"
    addresses = status.get("podIPs") or ()
    address = addresses[0].get("ip") if addresses else status.get("podIP")
    wide = [address or _NONE, spec.get("nodeName") or _NONE, status.get("nominatedNodeName") or _NONE, _gates(pod)]
    return [pod["metadata"]["name"], f"{shown.ready}/{total}", shown.reason, restarts, age, *wide]


def _gates(pod: Object) -> str:
    gates = (pod.get("spec") or {}).get("readinessGates") or ()
    if not gates:
        return _NONE
    true = {c.get("type") for c in (pod.get("status") or {}).get("conditions") or () if c.get("status") == "True"}
    return f"{sum(1 for g in gates if g.get('conditionType') in true)}/{len(gates)}"


def _finished_at(status: dict[str, Any]) -> float:
    ended = (status.get("lastState") or {}).get("terminated") or {}
    return parse_time(ended["finishedAt"]) if ended.get("finishedAt") else 0.0


def _exit_word(ended: dict[str, Any]) -> str:
    if ended.get("reason"):
        return str(ended["reason"])
    return f"Signal:{ended['signal']}" if ended.get("signal") else f"ExitCode:{ended.get('exitCode', 0)}"


@dataclass(slots=True)
class _Shown:
    """What the columns READY, STATUS and RESTARTS come to."""

    reason: str
    ready: int = 0
    restarts: int = 0
    last: float = 0.0  # the latest restart

    def count(self, container: dict[str, Any]) -> None:
        self.restarts += container.get("restartCount", 0)
        self.last = max(self.last, _finished_at(container))


def _state_of(pod: Object) -> _Shown:
    """Upstream's ``printPod``: init containers hold the rest up until the pod is initialized; sidecars count on."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    conditions = {c.get("type"): c for c in status.get("conditions") or ()}
    gated = (conditions.get("PodScheduled") or {}).get("reason") == "SchedulingGated"
    shown = _Shown("SchedulingGated" if gated else status.get("reason") or status.get("phase") or "")
    sidecars = {c["name"] for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"}
    stays = _Shown("")
    holding = ""
    for index, container in enumerate(status.get("initContainerStatuses") or ()):
        shown.count(container)
        if container.get("name") in sidecars:
            stays.count(container)
        state = container.get("state") or {}
        ended, waiting = state.get("terminated"), state.get("waiting") or {}
        if ended is not None and not ended.get("exitCode"):
            continue
        if container.get("name") in sidecars and container.get("started"):
            shown.ready += bool(container.get("ready"))
            continue
        word = _exit_word(ended) if ended is not None else waiting.get("reason", "")
        if word in ("", "PodInitializing"):
            word = f"{index}/{len(spec.get('initContainers') or ())}"
        holding = f"Init:{word}"
        break
    if holding:
        shown.reason = holding
    if not holding or (conditions.get("Initialized") or {}).get("status") == "True":
        shown.restarts, shown.last = stays.restarts, stays.last
        _count_main(status, shown, (conditions.get("Ready") or {}).get("status") == "True")
    return shown


def _count_main(status: dict[str, Any], shown: _Shown, pod_ready: bool) -> None:
    running, error = False, ""
    for container in reversed(status.get("containerStatuses") or ()):
        shown.count(container)
        state = container.get("state") or {}
        ended, waiting = state.get("terminated"), state.get("waiting")
        if waiting and waiting.get("reason"):
            shown.reason = waiting["reason"]
        elif ended is not None:
            shown.reason = _exit_word(ended)
            error = shown.reason if ended.get("exitCode") else error
        elif container.get("ready") and state.get("running") is not None:
            running = True
            shown.ready += 1
    if shown.reason == "Completed":
        if running and pod_ready:
            shown.reason = "Running"
        else:
            shown.reason = error or ("NotReady" if running else shown.reason)
