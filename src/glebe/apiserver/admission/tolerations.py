"""What pods tolerate without saying so: dead nodes for a while; nodes set aside for what they ask for."""

from __future__ import annotations

from typing import Any

from glebe.apiserver.admission.base import AdmissionAttributes, BuiltinPlugin
from glebe.kube.objects import Object

NOT_READY, UNREACHABLE = "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"


class DefaultTolerationSeconds(BuiltinPlugin):
    """Pods tolerate an unready or unreachable node for so many seconds (NoExecute), also after an update."""

    name = "DefaultTolerationSeconds"
    resources = frozenset({"pods"})

    def __init__(self, not_ready: int, unreachable: int) -> None:
        self._seconds = {NOT_READY: not_ready, UNREACHABLE: unreachable}

    async def admit(self, a: AdmissionAttributes) -> None:
        if a.subresource or a.obj is None or a.operation not in ("CREATE", "UPDATE"):
            return
        spec = a.obj["spec"]
        tolerations = spec.get("tolerations") or []
        missing = [key for key in self._seconds if not any(_speaks_of(t, key) for t in tolerations)]
        if missing:
            spec["tolerations"] = [*tolerations, *(self._toleration(key) for key in missing)]

    def _toleration(self, key: str) -> dict[str, Any]:
        return {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": self._seconds[key]}


def _speaks_of(toleration: Object, key: str) -> bool:
    return toleration.get("key") in (None, "", key) and toleration.get("effect") in (None, "", "NoExecute")


class ExtendedResourceToleration(BuiltinPlugin):
    """A pod that asks for ``example.com/device`` tolerates the taint of that name (off by default)."""

    name = "ExtendedResourceToleration"
    resources = frozenset({"pods"})

    async def admit(self, a: AdmissionAttributes) -> None:
        if a.subresource or a.obj is None or a.operation not in ("CREATE", "UPDATE"):
            return
        spec = a.obj["spec"]
        containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
        asked = {r for c in containers for r in (c.get("resources") or {}).get("requests") or () if is_extended(r)}
        for name in sorted(asked):
            wanted = {"key": name, "operator": "Exists", "effect": "NoSchedule"}
            present = spec.get("tolerations") or []
            if not any(is_superset(t, wanted) for t in present):
                spec["tolerations"] = [*present, wanted]


def is_extended(resource: str) -> bool:
    """A resource that Kubernetes itself does not know (``nvidia.com/gpu``)."""
    domain, slash, _ = resource.partition("/")
    return bool(slash) and domain != "kubernetes.io" and not domain.endswith(".kubernetes.io")


def merge(first: list[Object], second: list[Object]) -> list[Object]:
    """Both lists as one; of two tolerations, one of which says all that the other does, only the wider stays."""
    everything = [*first, *second]
    merged: list[Object] = []
    for i, one in enumerate(everything):
        if any(is_superset(kept, one) for kept in merged):
            continue
        if any(later != one and is_superset(later, one) for later in everything[i + 1 :]):
            continue
        merged.append(one)
    return merged


def is_superset(wide: Object, narrow: Object) -> bool:
    """Does ``wide`` tolerate everything that ``narrow`` does?"""
    if wide == narrow:
        return True
    operator = wide.get("operator") or "Equal"
    if (narrow.get("key") or "") != (wide.get("key") or "") and (wide.get("key") or operator != "Exists"):
        return False
    if (narrow.get("effect") or "") != (wide.get("effect") or "") and wide.get("effect"):
        return False
    if wide.get("effect") == "NoExecute" and wide.get("tolerationSeconds") is not None:
        seconds = narrow.get("tolerationSeconds")
        if seconds is None or seconds > wide["tolerationSeconds"]:
            return False
    if operator == "Exists":
        return True
    return narrow.get("operator") == "Equal" and (narrow.get("value") or "") == (wide.get("value") or "")
