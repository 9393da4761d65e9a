"""A Deployment's status: what its sets add up to, and whether it gets on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from glebe.kube.clock import format_time, parse_time
from glebe.kube.objects import Object
from glebe.workloads.deployment.sets import counted, name_of, total
from glebe.workloads.deployment.strategy import deadline, max_unavailable, wanted

PROGRESSING, AVAILABLE, FAILURE = "Progressing", "Available", "ReplicaFailure"
DONE, UPDATED, TIMED_OUT = "NewReplicaSetAvailable", "ReplicaSetUpdated", "ProgressDeadlineExceeded"
PAUSED, RESUMED = "DeploymentPaused", "DeploymentResumed"
CREATED, FOUND, CREATE_ERROR = "NewReplicaSetCreated", "FoundNewReplicaSet", "ReplicaSetCreateError"


class Conditions:
    """Conditions under change. A condition that keeps status and reason stays as it is."""

    def __init__(self, deployment: Object, now: float) -> None:
        self.items: list[dict[str, Any]] = list((deployment.get("status") or {}).get("conditions") or ())
        self._now = format_time(now)

    def get(self, kind: str) -> dict[str, Any] | None:
        return next((c for c in self.items if c.get("type") == kind), None)

    def reason(self, kind: str) -> str:
        return str((self.get(kind) or {}).get("reason", ""))

    def set(self, kind: str, status: str, reason: str, message: str, *, again: bool = False) -> None:
        """``again``: also when nothing but ``lastUpdateTime`` changes."""
        old = self.get(kind)
        same = old is not None and old.get("status") == status
        if old is not None and same and old.get("reason") == reason and not again:
            return
        since = old.get("lastTransitionTime", self._now) if old is not None and same else self._now
        self.put(
            {
                "type": kind,
                "status": status,
                "lastUpdateTime": self._now,
                "lastTransitionTime": since,
                "reason": reason,
                "message": message,
            }
        )

    def put(self, condition: dict[str, Any]) -> None:
        self.remove(condition["type"])
        self.items.append(condition)

    def remove(self, kind: str) -> None:
        self.items = [c for c in self.items if c.get("type") != kind]


def totals(deployment: Object, sets: Sequence[Object], new: Object | None) -> Object:
    """The status without conditions, from the sets' own statuses."""
    available = sum(counted(s, "availableReplicas") for s in sets)
    counts = {
        "observedGeneration": int(deployment["metadata"].get("generation", 0)),
        "replicas": sum(counted(s, "replicas") for s in sets),
        "updatedReplicas": counted(new, "replicas") if new is not None else 0,
        "readyReplicas": sum(counted(s, "readyReplicas") for s in sets),
        "availableReplicas": available,
        "unavailableReplicas": max(0, total(sets) - available),
    }
    out: Object = {name: count for name, count in counts.items() if count}
    if (going := _terminating(sets)) is not None:
        out["terminatingReplicas"] = going
    if (collisions := (deployment.get("status") or {}).get("collisionCount")) is not None:
        out["collisionCount"] = collisions
    return out


def _terminating(sets: Sequence[Object]) -> int | None:
    """``None`` when a set's controller does not count them."""
    statuses = [s.get("status") or {} for s in sets]
    if any(s.get("observedGeneration") and "terminatingReplicas" not in s for s in statuses):
        return None
    return sum(int(s.get("terminatingReplicas") or 0) for s in statuses)


def is_complete(deployment: Object, status: Object) -> bool:
    """Every wanted replica is of the present version and available, and there are no others."""
    count = wanted(deployment)
    seen = int(status.get("observedGeneration") or 0) >= int(deployment["metadata"].get("generation", 0))
    names = ("updatedReplicas", "replicas", "availableReplicas")
    return seen and all(int(status.get(name) or 0) == count for name in names)


def note_availability(deployment: Object, status: Object, conditions: Conditions) -> None:
    if int(status.get("availableReplicas") or 0) >= wanted(deployment) - max_unavailable(deployment):
        conditions.set(AVAILABLE, "True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    else:
        text = "Deployment does not have minimum availability."
        conditions.set(AVAILABLE, "False", "MinimumReplicasUnavailable", text)


def note_pause(deployment: Object, conditions: Conditions) -> None:
    """While it is paused no deadline runs; when it goes on, the deadline begins anew."""
    reason = conditions.reason(PROGRESSING)
    if deadline(deployment) is None or reason == TIMED_OUT:
        return
    paused = bool(deployment["spec"].get("paused"))
    if paused and reason != PAUSED:
        conditions.set(PROGRESSING, "Unknown", PAUSED, "Deployment is paused")
    elif not paused and reason == PAUSED:
        conditions.set(PROGRESSING, "Unknown", RESUMED, "Deployment is resumed")


def note_progress(deployment: Object, status: Object, conditions: Conditions, new: Object | None, now: float) -> None:
    """Condition Progressing: done, getting on, or out of time."""
    limit = deadline(deployment)
    if limit is None:
        conditions.remove(PROGRESSING)
        return
    same = int(status.get("replicas") or 0) == int(status.get("updatedReplicas") or 0)
    if same and conditions.reason(PROGRESSING) == DONE:
        return
    who = f'ReplicaSet "{name_of(new)}"' if new is not None else f'Deployment "{name_of(deployment)}"'
    if is_complete(deployment, status):
        conditions.set(PROGRESSING, "True", DONE, f"{who} has successfully progressed.")
    elif _gets_on(deployment.get("status") or {}, status):
        conditions.set(PROGRESSING, "True", UPDATED, f"{who} is progressing.", again=True)
    elif (left := time_left(deployment, conditions, now)) is not None and left < 0:
        conditions.set(PROGRESSING, "False", TIMED_OUT, f"{who} has timed out progressing.")


def _gets_on(old: Object, new: Object) -> bool:
    def moved(name: str) -> int:
        return int(new.get(name) or 0) - int(old.get(name) or 0)

    fewer_old = moved("replicas") - moved("updatedReplicas") < 0
    return fewer_old or any(moved(name) > 0 for name in ("updatedReplicas", "readyReplicas", "availableReplicas"))


def time_left(deployment: Object, conditions: Conditions, now: float) -> float | None:
    """Seconds until the deadline; ``None`` when none runs."""
    limit, condition = deadline(deployment), conditions.get(PROGRESSING)
    if limit is None or condition is None or condition.get("reason") in (DONE, TIMED_OUT):
        return None
    since = condition.get("lastUpdateTime") or condition.get("lastTransitionTime")
    return parse_time(since) + limit - now if since else None


def note_failures(conditions: Conditions, sets: Sequence[Object]) -> None:
    """Takes over the first set's failure. ``sets``: the new one first."""
    for one in sets:
        for condition in (one.get("status") or {}).get("conditions") or ():
            if condition.get("type") == FAILURE:
                old = conditions.get(FAILURE)
                if old is None or (old.get("status"), old.get("reason")) != (condition["status"], condition["reason"]):
                    conditions.put({**condition, "lastUpdateTime": condition.get("lastTransitionTime")})
                return
    conditions.remove(FAILURE)
