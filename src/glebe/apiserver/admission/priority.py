"""Priority: ``priorityClassName`` becomes a number; one class is the default (``plugin/pkg/admission/priority``)."""

from __future__ import annotations

from glebe.apiserver.admission.base import AdmissionAttributes, BuiltinPlugin, Read, ReadAll
from glebe.kube.objects import Object

CLASSES = "priorityclasses.scheduling.k8s.io"
SYSTEM_PRIORITIES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
"""Known in every cluster, whether or not the objects are there."""


class Priority(BuiltinPlugin):
    """Resolves the class of new pods; keeps ``priority`` on updates; refuses a second default class."""

    name = "Priority"
    resources = frozenset({"pods", CLASSES})

    def __init__(self, read: Read, read_all: ReadAll) -> None:
        self._read = read
        self._read_all = read_all

    async def admit(self, a: AdmissionAttributes) -> None:
        if a.subresource or a.obj is None or a.info.group_resource != "pods":
            return
        if a.operation == "CREATE":
            self._resolve(a, a.obj["spec"])
        elif a.operation == "UPDATE" and a.old is not None:
            spec, before = a.obj["spec"], a.old["spec"]
            for field in ("priority", "preemptionPolicy"):
                if spec.get(field) is None and before.get(field) is not None:
                    spec[field] = before[field]

    async def validate(self, a: AdmissionAttributes) -> None:
        if a.subresource or a.obj is None or a.info.group_resource != CLASSES or not a.obj.get("globalDefault"):
            return
        default = self._default(a.cluster)
        if default is None:
            return
        name = default["metadata"]["name"]
        if a.operation == "CREATE" or name != a.name:
            raise a.refusal(f"PriorityClass {name} is already marked as default. Only one default can exist")

    def _resolve(self, a: AdmissionAttributes, spec: Object) -> None:
        found = self._class(a, str(spec.get("priorityClassName") or ""))
        value = int(found.get("value", 0))
        said = "must not be provided in pod spec; priority admission controller computed"
        if spec.get("priority") not in (None, value):
            raise a.refusal(
                f"the integer value of priority ({spec['priority']}) {said} {value} from the given PriorityClass name"
            )
        policy = found.get("preemptionPolicy") or "PreemptLowerPriority"
        if spec.get("preemptionPolicy") not in (None, policy):
            text = f"the string value of PreemptionPolicy ({spec['preemptionPolicy']}) {said} {policy}"
            raise a.refusal(f"{text} from the given PriorityClass name")
        if found.get("metadata"):
            spec["priorityClassName"] = found["metadata"]["name"]
        spec["priority"] = value
        spec["preemptionPolicy"] = policy

    def _default(self, cluster: str) -> Object | None:
        """The class of pods that name none; when a race has left several, the lowest."""
        marked = [c for c in self._read_all(cluster, CLASSES) if c.get("globalDefault")]
        return min(marked, key=lambda c: (c.get("value", 0), c["metadata"]["name"]), default=None)

    def _class(self, a: AdmissionAttributes, name: str) -> Object:
        if not name:
            return self._default(a.cluster) or {}
        found = self._read(a.cluster, CLASSES, "", name)
        if found is not None:
            return found
        if name in SYSTEM_PRIORITIES:
            return {"value": SYSTEM_PRIORITIES[name]}
        raise a.refusal(f"no PriorityClass with name {name} was found")
