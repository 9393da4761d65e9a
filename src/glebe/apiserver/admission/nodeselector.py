"""PodNodeSelector: the nodes of a namespace's pods (``plugin/pkg/admission/podnodeselector``)."""

from __future__ import annotations

from glebe.apiserver.admission.base import AdmissionAttributes, BuiltinPlugin, Read, is_new_pod
from glebe.kube import errors
from glebe.kube.objects import annotations_of

ANNOTATION = "scheduler.alpha.kubernetes.io/node-selector"


class PodNodeSelector(BuiltinPlugin):
    """The namespace's annotation (``key=value,key=value``) is merged into every new pod's node selector."""

    name = "PodNodeSelector"
    resources = frozenset({"pods"})

    def __init__(self, read: Read) -> None:
        self._read = read

    async def admit(self, a: AdmissionAttributes) -> None:
        if not is_new_pod(a) or a.obj is None:
            return
        wanted = self._selector(a)
        if wanted:
            self._check(a, wanted)
            a.obj["spec"]["nodeSelector"] = {**wanted, **(a.obj["spec"].get("nodeSelector") or {})}

    async def validate(self, a: AdmissionAttributes) -> None:
        if is_new_pod(a) and a.obj is not None:
            self._check(a, self._selector(a))

    def _selector(self, a: AdmissionAttributes) -> dict[str, str]:
        namespace = self._read(a.cluster, "namespaces", "", a.namespace)
        if namespace is None:
            raise errors.not_found("", "namespaces", a.namespace)
        text = annotations_of(namespace).get(ANNOTATION, "")
        out: dict[str, str] = {}
        for part in filter(None, text.split(",")):
            key, equals, value = part.partition("=")
            if not equals or "=" in value:
                raise errors.internal(f"invalid selector: {text}")
            out[key.strip()] = value.strip()
        return out

    @staticmethod
    def _check(a: AdmissionAttributes, wanted: dict[str, str]) -> None:
        assert a.obj is not None
        own = a.obj["spec"].get("nodeSelector") or {}
        if any(own.get(key, value) != value for key, value in wanted.items()):
            raise a.refusal("pod node label selector conflicts with its namespace node label selector")
