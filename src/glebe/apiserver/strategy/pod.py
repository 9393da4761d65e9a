"""core/v1 Pod."""

from __future__ import annotations

import copy
from typing import Any

from glebe.apiserver.strategy.base import Strategy, forbidden
from glebe.kube.errors import Cause
from glebe.kube.objects import Object
from glebe.kube.pods import has_ended

_MIRROR = "kubernetes.io/config.mirror"
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
_RESIZABLE = ("cpu", "memory")


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
        _take_over_apparmor(obj)

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
        """What the two subresources that change a running pod may do to it."""
        if subresource == "ephemeralcontainers":
            return _only_added(obj, old)
        return resize_faults(obj, old) if subresource == "resize" else []

    def grace_period(self, obj: Object, asked: int | None) -> int | None:
        """Pods on a node end when the node says so; others at once."""
        spec = obj.get("spec") or {}
        period = asked if asked is not None else spec.get("terminationGracePeriodSeconds", 30)
        if not spec.get("nodeName") or has_ended(obj):
            return 0
        return max(1, int(period)) if period < 0 else int(period)


def _take_over_apparmor(pod: Object) -> None:
    """The annotations that named AppArmor profiles before there was a field for them."""
    notes, spec = pod["metadata"].get("annotations"), pod.get("spec") or {}
    if not notes or (spec.get("os") or {}).get("name") == "windows":
        return
    of_pod = (spec.get("securityContext") or {}).get("appArmorProfile")
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(field) or ():
            text = notes.get(f"{_APPARMOR}{container.get('name', '')}")
            context = container.get("securityContext") or {}
            profile = _profile(text) if text is not None and "appArmorProfile" not in context else None
            if profile is not None and profile != of_pod:
                container["securityContext"] = {**context, "appArmorProfile": profile}


def _profile(text: str) -> dict[str, Any] | None:
    plain = {"unconfined": "Unconfined", "runtime/default": "RuntimeDefault"}.get(text)
    if plain is not None:
        return {"type": plain}
    name = text.removeprefix("localhost/")
    return {"type": "Localhost", "localhostProfile": name} if name != text and name.strip() else None


def _only_added(obj: Object, old: Object) -> list[Cause]:
    """Ephemeral containers can only be added."""
    if _MIRROR in (old["metadata"].get("annotations") or {}):
        return [forbidden("", "static pods do not support ephemeral containers")]
    after = {c.get("name"): c for c in obj["spec"].get("ephemeralContainers") or ()}
    causes = []
    for container in old["spec"].get("ephemeralContainers") or ():
        name = container["name"]
        if after.get(name) != container:
            what = "changed" if name in after else "removed"
            causes.append(
                forbidden("spec.ephemeralContainers", f'existing ephemeral containers "{name}" may not be {what}')
            )
    return causes


def resize_faults(obj: Object, old: Object) -> list[Cause]:
    """Upstream's ``ValidatePodResize``: processor and memory may change, within the pod's quality of service."""
    if _MIRROR in (old["metadata"].get("annotations") or {}):
        return [forbidden("", "static pods cannot be resized")]
    if ((old["spec"].get("os") or {}).get("name")) == "windows":
        return [forbidden("", "windows pods cannot be resized")]
    causes = []
    kind = (old.get("status") or {}).get("qosClass") or qos_class(old["spec"])
    if qos_class(obj["spec"]) != kind:
        why = "Pod QOS Class may not change as a result of resizing"
        causes.append(Cause("FieldValueInvalid", f'Invalid value: "{kind}": {why}', "spec"))
    for field in ("initContainers", "containers"):
        pairs = zip(obj["spec"].get(field) or (), old["spec"].get(field) or (), strict=False)
        for index, (new, before) in enumerate(pairs):
            sidecar = field == "containers" or before.get("restartPolicy") == "Always"
            causes += _resized(new, before, f"spec.{field}[{index}]", sidecar)
    return causes


def _resized(new: Object, before: Object, path: str, resizable: bool) -> list[Cause]:
    wanted, held = new.get("resources") or {}, before.get("resources") or {}
    if wanted == held:
        return []
    if not resizable:
        return [forbidden("spec", "resources for non-sidecar init containers are immutable")]
    causes = []
    for field, what in (("requests", "resource requests"), ("limits", "resource limits")):
        after, earlier = wanted.get(field) or {}, held.get(field) or {}
        if any(name not in after for name in earlier):
            causes.append(forbidden(f"{path}.resources.{field}", f"{what} cannot be removed"))
        others = {n: v for n, v in after.items() if n not in _RESIZABLE}
        if others != {n: v for n, v in earlier.items() if n not in _RESIZABLE}:
            causes.append(forbidden("spec", "only cpu and memory resources are mutable"))
    if wanted.get("claims") != held.get("claims"):
        causes.append(forbidden("spec", "only cpu and memory resources are mutable"))
    return causes


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
