"""Plugins that are small: some off unless asked for, some always on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from glebe.apiserver.admission.base import AdmissionAttributes, BuiltinPlugin, Read
from glebe.apiserver.admission.quota.amounts import ONE, of
from glebe.apiserver.admission.quota.podusage import pod_resources
from glebe.kube import errors
from glebe.kube.objects import Object, labels_of


def _containers(spec: Object) -> Iterator[tuple[str, dict[str, Any]]]:
    """(path, container) of all of them."""
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for i, container in enumerate(spec.get(field) or ()):
            yield f"spec.{field}[{i}]", container


class AlwaysPullImages(BuiltinPlugin):
    """New images are always pulled, so that nobody runs a private one just because it lies on the node (off)."""

    name = "AlwaysPullImages"
    resources = frozenset({"pods"})

    async def admit(self, a: AdmissionAttributes) -> None:
        if self._ignores(a) or a.obj is None:
            return
        for _, container in _containers(a.obj["spec"]):
            container["imagePullPolicy"] = "Always"
        for volume in a.obj["spec"].get("volumes") or ():
            if volume.get("image") is not None:
                volume["image"] = {**volume["image"], "pullPolicy": "Always"}

    async def validate(self, a: AdmissionAttributes) -> None:
        if self._ignores(a) or a.obj is None:
            return
        for path, container in _containers(a.obj["spec"]):
            policy = container.get("imagePullPolicy", "")
            if policy != "Always":
                why = f'{path}.imagePullPolicy: Unsupported value: "{policy}": supported values: "Always"'
                raise a.refusal(why)

    @staticmethod
    def _ignores(a: AdmissionAttributes) -> bool:
        if a.subresource or a.operation not in ("CREATE", "UPDATE") or a.obj is None:
            return True
        if a.operation == "CREATE" or a.old is None:
            return False
        before = {container.get("image") for _, container in _containers(a.old["spec"])}
        return all(container.get("image") in before for _, container in _containers(a.obj["spec"]))


class DenyServiceExternalIPs(BuiltinPlugin):
    """Nobody may add external addresses to a service (off)."""

    name = "DenyServiceExternalIPs"
    resources = frozenset({"services"})

    async def validate(self, a: AdmissionAttributes) -> None:
        if a.subresource or a.obj is None or a.operation not in ("CREATE", "UPDATE"):
            return
        before = ((a.old or {}).get("spec") or {}).get("externalIPs") or []
        if any(address not in before for address in (a.obj.get("spec") or {}).get("externalIPs") or ()):
            raise a.refusal("Use of external IPs is denied by admission control")


class NamespaceExists(BuiltinPlugin):
    """Also updates and deletions need their namespace (off; creations always do)."""

    name = "NamespaceExists"

    def __init__(self, read: Read) -> None:
        self._read = read

    async def validate(self, a: AdmissionAttributes) -> None:
        if not a.namespace or a.info.group_resource == "namespaces" or a.operation == "CONNECT":
            return
        if self._read(a.cluster, "namespaces", "", a.namespace) is None:
            raise errors.not_found("", "namespaces", a.namespace)


class PodTopologyLabels(BuiltinPlugin):
    """A pod that gets its node also gets the node's zone and region as labels."""

    name = "PodTopologyLabels"
    resources = frozenset({"pods"})
    _LABELS = ("topology.kubernetes.io/zone", "topology.kubernetes.io/region")

    def __init__(self, read: Read) -> None:
        self._read = read

    async def admit(self, a: AdmissionAttributes) -> None:
        if a.operation != "CREATE" or a.obj is None or a.subresource not in ("", "binding"):
            return
        if a.subresource:
            target = a.obj.get("target") or {}
            node = target.get("name", "") if target.get("kind", "Node") == "Node" else ""
        else:
            node = a.obj["spec"].get("nodeName") or ""
        found = self._read(a.cluster, "nodes", "", node) if node else None
        labels = {k: v for k, v in labels_of(found).items() if k in self._LABELS} if found is not None else {}
        if labels:
            meta = a.obj["metadata"]
            meta["labels"] = {**(meta.get("labels") or {}), **labels}


class PodResizeValidator(BuiltinPlugin):
    """A pod is not resized beyond its node."""

    name = "PodResizeValidator"
    resources = frozenset({"pods"})

    def __init__(self, read: Read) -> None:
        self._read = read

    async def validate(self, a: AdmissionAttributes) -> None:
        if a.operation != "UPDATE" or a.subresource != "resize" or a.obj is None or a.old is None:
            return
        name = a.obj["spec"].get("nodeName")
        if not name or a.obj["spec"] == a.old["spec"]:
            return
        node = self._read(a.cluster, "nodes", "", name)
        if node is None:
            raise a.refusal(f'node "{name}" not found')
        system = labels_of(node).get("kubernetes.io/os", "linux")
        if system != "linux":
            text = f'pod resize is only supported on linux nodes, node "{name}" is "{system}"'
            raise _caused(a, text, "UnsupportedPlatform")
        room = (node.get("status") or {}).get("allocatable") or {}
        asked = pod_resources({**a.obj, "status": {}}, "requests")
        texts = []
        for resource, unit in (("cpu", ONE // 1000), ("memory", ONE)):
            wanted, most = -(-asked.get(resource, 0) // unit), -(-of(room.get(resource, 0)) // unit)
            if wanted > most:
                texts.append(f"{resource}, requested: {wanted}, allocatable: {most}")
        if texts:
            raise _caused(a, f"node didn't have enough allocatable resources: {'; '.join(texts)}", "NodeCapacity")


def _caused(a: AdmissionAttributes, why: str, reason: str) -> errors.ApiError:
    error = a.refusal(why)
    error.details["causes"] = [{"reason": reason}]
    return error
