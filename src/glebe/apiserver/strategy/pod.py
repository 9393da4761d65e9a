"""core/v1 Pod."""

from __future__ import annotations

import copy
from typing import Any

from glebe.apiserver.strategy.base import Strategy, forbidden
from glebe.kube.errors import Cause
from glebe.kube.objects import Object
from glebe.kube.pods import has_ended


class PodStrategy(Strategy):
    def prepare_create(self, obj: Object, now: str) -> None:
        status: dict[str, Any] = {"phase": "Pending"}
        spec = obj.get("spec") or {}
        if spec.get("schedulingGates"):
            status["conditions"] = [
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "SchedulingGated",
                    "message": "Scheduling is blocked due to non-empty scheduling gates",
                    "lastTransitionTime": now,
                }
            ]
        if (spec.get("terminationGracePeriodSeconds") or 0) < 0:
            spec["terminationGracePeriodSeconds"] = 1
        obj["status"] = status

    def admitted(self, obj: Object) -> None:
        """Resources may have been filled in by admission."""
        obj["status"]["qosClass"] = qos_class(obj.get("spec") or {})

    def confine(self, obj: Object, old: Object, subresource: str) -> None:
        """The right to a subresource is the right to its part of the pod, not to the whole of it."""
        wanted, spec = obj.get("spec") or {}, copy.deepcopy(old.get("spec") or {})
        if subresource == "ephemeralcontainers":
            spec.pop("ephemeralContainers", None)
            if wanted.get("ephemeralContainers"):
                spec["ephemeralContainers"] = wanted["ephemeralContainers"]
        elif subresource == "resize":
            for field in ("containers", "initContainers"):
                sizes = {c.get("name"): c for c in wanted.get(field) or ()}
                for container in spec.get(field) or ():
                    _resize(container, sizes.get(container["name"], container))
        else:
            return
        meta = obj["metadata"]
        own = {name: meta[name] for name in ("managedFields", "resourceVersion") if name in meta}
        obj["metadata"] = {**old["metadata"], **own}
        obj["spec"] = spec

    def validate_update(self, obj: Object, old: Object, subresource: str) -> list[Cause]:
        """Ephemeral containers can only be added."""
        if subresource != "ephemeralcontainers":
            return []
        after = {c.get("name"): c for c in obj["spec"].get("ephemeralContainers") or ()}
        causes = []
        for container in old["spec"].get("ephemeralContainers") or ():
            name = container["name"]
            if after.get(name) != container:
                what = "changed" if name in after else "removed"
                why = f'existing ephemeral containers "{name}" may not be {what}'
                causes.append(forbidden("spec.ephemeralContainers", why))
        return causes

    def grace_period(self, obj: Object, asked: int | None) -> int | None:
        """Pods on a node end when the node says so; others at once."""
        spec = obj.get("spec") or {}
        period = asked if asked is not None else spec.get("terminationGracePeriodSeconds", 30)
        if not spec.get("nodeName") or has_ended(obj):
            return 0
        return max(1, int(period)) if period < 0 else int(period)


def _resize(container: dict[str, Any], wanted: dict[str, Any]) -> None:
    for field in ("resources", "resizePolicy"):
        if field in wanted:
            container[field] = wanted[field]
        else:
            container.pop(field, None)


def qos_class(spec: Object) -> str:
    """Guaranteed, Burstable or BestEffort, by the cpu and memory of all containers."""
    from glebe.kube.quantity import parse

    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    guaranteed, best_effort = bool(containers), True
    for container in containers:
        resources = container.get("resources") or {}
        requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
        for name in ("cpu", "memory"):
            try:
                limit = parse(limits[name]) if name in limits else 0
                request = parse(requests[name]) if name in requests else limit
            except (ValueError, TypeError):
                return "Burstable"
            if limit or request:
                best_effort = False
            if not limit or request != limit:
                guaranteed = False
    if best_effort:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"
