"""RuntimeClass: what a pod's runtime costs and which nodes have it (``plugin/pkg/admission/runtimeclass``)."""

from __future__ import annotations

from typing import Any

from glebe.apiserver.admission.base import AdmissionAttributes, BuiltinPlugin, Read, is_new_pod
from glebe.apiserver.admission.tolerations import merge
from glebe.kube.objects import Object
from glebe.kube.quantity import QuantityError, canonical

CLASSES = "runtimeclasses.node.k8s.io"
_MISMATCH = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"


class RuntimeClass(BuiltinPlugin):
    """A pod's class must exist; its overhead, node selector and tolerations become the pod's."""

    name = "RuntimeClass"
    resources = frozenset({"pods"})

    def __init__(self, read: Read) -> None:
        self._read = read

    async def admit(self, a: AdmissionAttributes) -> None:
        if not is_new_pod(a) or a.obj is None:
            return
        spec, found = a.obj["spec"], self._class(a)
        if found is None:
            return
        overhead = _overhead(found)
        if overhead is not None:
            if spec.get("overhead") and not _same(spec["overhead"], overhead):
                raise a.refusal(_MISMATCH)
            spec["overhead"] = dict(overhead)
        scheduling = found.get("scheduling")
        if scheduling:
            self._merge(a, spec, scheduling)

    async def validate(self, a: AdmissionAttributes) -> None:
        if not is_new_pod(a) or a.obj is None:
            return
        found, given = self._class(a), a.obj["spec"].get("overhead")
        overhead = None if found is None else _overhead(found)
        if overhead is not None:
            if not _same(given or {}, overhead):
                raise a.refusal(_MISMATCH)
        elif given is not None:
            raise a.refusal("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")

    def _class(self, a: AdmissionAttributes) -> Object | None:
        assert a.obj is not None
        name = a.obj["spec"].get("runtimeClassName")
        if name is None:
            return None
        found = self._read(a.cluster, CLASSES, "", name)
        if found is None:
            raise a.refusal(f'pod rejected: RuntimeClass "{name}" not found')
        return found

    @staticmethod
    def _merge(a: AdmissionAttributes, spec: Object, scheduling: Object) -> None:
        selector = dict(spec.get("nodeSelector") or {})
        for key, value in (scheduling.get("nodeSelector") or {}).items():
            if selector.setdefault(key, value) != value:
                theirs = f"runtimeClass.scheduling.nodeSelector[{key}] = {value}"
                raise a.refusal(f"conflict: {theirs}; pod.spec.nodeSelector[{key}] = {selector[key]}")
        if selector:
            spec["nodeSelector"] = selector
        if scheduling.get("tolerations"):
            spec["tolerations"] = merge(spec.get("tolerations") or [], scheduling["tolerations"])


def _overhead(found: Object) -> dict[str, Any] | None:
    overhead = found.get("overhead")
    return None if overhead is None else overhead.get("podFixed") or {}


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    try:
        return {k: canonical(v) for k, v in one.items()} == {k: canonical(v) for k, v in other.items()}
    except QuantityError:
        return False
