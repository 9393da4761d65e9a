"""A pod's row: READY, STATUS and RESTARTS as kubectl's readers know them."""

from __future__ import annotations

from typing import Any

from glebe.kube.clock import parse_time
from glebe.kube.duration import format_duration
from glebe.kube.objects import Object

_NONE = "<none>"


def pod_cells(pod: Object, now: float, age: str) -> list[Any]:
    """Cells of one pod; the last four are wide."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    total = len(spec.get("containers") or ())
    reason, initialising, restarts, last = _init_state(pod)
    ready = 0
    if not initialising:
        reason, ready, restarts, last = _main_state(status, reason, restarts, last)
    if "deletionTimestamp" in pod["metadata"] and status.get("phase") not in ("Succeeded", "Failed"):
        reason = "Unknown" if status.get("reason") == "NodeLost" else "Terminating"
    shown = str(restarts)
    if restarts and last:
        shown = f"{restarts} ({format_duration(max(0.0, now - last))} ago)"
    addresses = status.get("podIPs") or ()
    address = addresses[0].get("ip") if addresses else status.get("podIP")
    wide = [address or _NONE, spec.get("nodeName") or _NONE, status.get("nominatedNodeName") or _NONE, _gates(pod)]
    return [pod["metadata"]["name"], f"{ready}/{total}", reason, shown, age, *wide]


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


def _init_state(pod: Object) -> tuple[str, bool, int, float]:
    """Reason, whether init containers still run, restarts and the last one's time."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    reason = status.get("reason") or status.get("phase") or ""
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "SchedulingGated":
            reason = "SchedulingGated"
    restarts, last = 0, 0.0
    sidecars = {c["name"] for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"}
    count = len(spec.get("initContainers") or ())
    for index, container in enumerate(status.get("initContainerStatuses") or ()):
        restarts += container.get("restartCount", 0)
        last = max(last, _finished_at(container))
        state = container.get("state") or {}
        ended, waiting = state.get("terminated"), state.get("waiting")
        if ended is not None and not ended.get("exitCode"):
            continue
        if container.get("name") in sidecars and container.get("started"):
            continue
        if ended is not None:
            return f"Init:{_exit_word(ended)}", True, restarts, last
        if waiting and waiting.get("reason") and waiting["reason"] != "PodInitializing":
            return f"Init:{waiting['reason']}", True, restarts, last
        return f"Init:{index}/{count}", True, restarts, last
    return reason, False, restarts, last


def _main_state(status: dict[str, Any], reason: str, restarts: int, last: float) -> tuple[str, int, int, float]:
    ready, running = 0, False
    restarts, last = 0, 0.0
    for container in reversed(status.get("containerStatuses") or ()):
        restarts += container.get("restartCount", 0)
        last = max(last, _finished_at(container))
        state = container.get("state") or {}
        ended, waiting = state.get("terminated"), state.get("waiting")
        if waiting and waiting.get("reason"):
            reason = waiting["reason"]
        elif ended is not None:
            reason = _exit_word(ended)
        elif container.get("ready") and state.get("running") is not None:
            running = True
            ready += 1
    if reason == "Completed" and running:
        ok = any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or ())
        reason = "Running" if ok else "NotReady"
    return reason, ready, restarts, last
