"""What upstream's built-in admission plugins do to pods (service account, priority, tolerations) and new nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from glebe.apiserver.admission.base import AdmissionAttributes, AdmissionPlugin
from glebe.kube import errors
from glebe.kube.objects import Object

NOT_READY, UNREACHABLE = "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"
TOLERATION_SECONDS = 15
"""How long a pod stays on a dead node unless it says otherwise. Upstream: 300. A node is taken for dead 40 s after its
last heartbeat; together its pods are evicted within 60 s."""

SYSTEM_PRIORITIES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
_CLASSES = "priorityclasses.scheduling.k8s.io"

Read = Callable[[str, str, str, str], Object | None]
ReadAll = Callable[[str, str], list[Object]]


def default_plugins(read: Read, read_all: ReadAll) -> tuple[AdmissionPlugin, ...]:
    """The plugins that every server has, before any that it is given."""
    return DefaultServiceAccount(read), PriorityResolution(read, read_all), DefaultTolerations(), NewNodeTaint()


def _new_pod(a: AdmissionAttributes) -> Object | None:
    """The pod about to be created, or ``None`` for anything else."""
    created = a.operation == "CREATE" and not a.subresource and a.info.group_resource == "pods"
    return a.obj if created else None


class DefaultTolerations:
    """Pods tolerate an unreachable or unready node for a while (NoExecute)."""

    async def admit(self, a: AdmissionAttributes) -> None:
        pod = _new_pod(a)
        if pod is None:
            return
        tolerations = list(pod["spec"].get("tolerations") or ())
        missing = [key for key in (NOT_READY, UNREACHABLE) if not any(_speaks_of(t, key) for t in tolerations)]
        if missing:
            seconds: dict[str, Any] = {
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": TOLERATION_SECONDS,
            }
            pod["spec"]["tolerations"] = [*tolerations, *({"key": key, **seconds} for key in missing)]


class NewNodeTaint:
    """A new node takes no pods until its agent has said that it is ready (the node controller removes the taint)."""

    async def admit(self, a: AdmissionAttributes) -> None:
        if a.operation != "CREATE" or a.subresource or a.info.group_resource != "nodes" or a.obj is None:
            return
        spec = a.obj.setdefault("spec", {})
        taints = spec.get("taints") or []
        if not any(t.get("key") == NOT_READY and t.get("effect") == "NoSchedule" for t in taints):
            spec["taints"] = [*taints, {"key": NOT_READY, "effect": "NoSchedule"}]


def _speaks_of(toleration: Object, key: str) -> bool:
    return toleration.get("key") in (None, "", key) and toleration.get("effect") in (None, "", "NoExecute")


class DefaultServiceAccount:
    """A pod without a service account runs as its namespace's ``default``. A named one must exist."""

    def __init__(self, read: Read) -> None:
        self._read = read

    async def admit(self, a: AdmissionAttributes) -> None:
        pod = _new_pod(a)
        if pod is None:
            return
        spec = pod["spec"]
        name = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
        # ``default`` is made by a controller a moment after its namespace: a pod need not wait for it.
        if name != "default" and self._read(a.cluster, "serviceaccounts", a.namespace, name) is None:
            why = f'error looking up service account {a.namespace}/{name}: serviceaccount "{name}" not found'
            raise errors.forbidden("", "pods", a.name, why)
        spec["serviceAccountName"] = spec["serviceAccount"] = name


class PriorityResolution:
    """``priorityClassName`` becomes ``priority`` and ``preemptionPolicy``."""

    def __init__(self, read: Read, read_all: ReadAll) -> None:
        self._read = read
        self._read_all = read_all

    async def admit(self, a: AdmissionAttributes) -> None:
        pod = _new_pod(a)
        if pod is None:
            return
        spec = pod["spec"]
        found = self._class(a, str(spec.get("priorityClassName") or ""))
        value = int(found.get("value", 0))
        if spec.get("priority") not in (None, value):
            why = (
                f"the integer value of priority ({spec['priority']}) must not be provided in pod spec; "
                f"priority admission controller computed {value} from the given PriorityClass name"
            )
            raise errors.forbidden("", "pods", a.name, why)
        if found.get("metadata"):
            spec["priorityClassName"] = found["metadata"]["name"]
        spec["priority"] = value
        spec.setdefault("preemptionPolicy", found.get("preemptionPolicy") or "PreemptLowerPriority")

    def _class(self, a: AdmissionAttributes, name: str) -> Object:
        if not name:
            defaults = [c for c in self._read_all(a.cluster, _CLASSES) if c.get("globalDefault")]
            return min(defaults, key=lambda c: (c.get("value", 0), c["metadata"]["name"]), default={})
        if name in SYSTEM_PRIORITIES:
            return {"value": SYSTEM_PRIORITIES[name]}
        found = self._read(a.cluster, _CLASSES, "", name)
        if found is None:
            raise errors.forbidden("", "pods", a.name, f"no PriorityClass with name {name} was found")
        return found
