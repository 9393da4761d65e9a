"""The kinds with small rules of their own; pods and jobs have modules."""

from __future__ import annotations

from glebe.apiserver.strategy.base import Strategy, forbidden
from glebe.apiserver.strategy.certificate import CertificateStrategy
from glebe.apiserver.strategy.definition import DefinitionStrategy
from glebe.apiserver.strategy.job import JobStrategy
from glebe.apiserver.strategy.pod import PodStrategy
from glebe.apiserver.strategy.service import ServiceStrategy
from glebe.apiserver.strategy.workload import DaemonSetStrategy, DeploymentStrategy, EndpointSliceStrategy
from glebe.apiserver.types.registry import ResourceInfo
from glebe.kube.errors import Cause
from glebe.kube.objects import Object


class NodeStrategy(Strategy):
    """A kubelet registers its node together with its status."""

    def prepare_create(self, obj: Object, now: str) -> None:
        pass


class NamespaceStrategy(Strategy):
    """``spec.finalizers`` hold a namespace until its content is gone; only ``finalize`` changes them."""

    def prepare_create(self, obj: Object, now: str) -> None:
        obj["status"] = {"phase": "Active"}
        spec = obj.setdefault("spec", {})
        finalizers = spec.setdefault("finalizers", [])
        if "kubernetes" not in finalizers:
            finalizers.append("kubernetes")
        obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = obj["metadata"]["name"]

    def prepare_update(self, obj: Object, old: Object, now: str) -> None:
        super().prepare_update(obj, old, now)
        obj["spec"] = old.get("spec", {})
        obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = obj["metadata"]["name"]

    def on_delete(self, obj: Object, now: str) -> None:
        obj.setdefault("status", {})["phase"] = "Terminating"

    def may_vanish(self, obj: Object) -> bool:
        return not (obj.get("spec") or {}).get("finalizers")


class DataStrategy(Strategy):
    """ConfigMap and Secret: ``immutable: true`` freezes the data."""

    def validate_update(self, obj: Object, old: Object, subresource: str) -> list[Cause]:
        causes = []
        if self.info.plural == "secrets" and obj.get("type") != old.get("type"):
            causes.append(Cause("FieldValueInvalid", f'Invalid value: "{obj.get("type")}": field is immutable', "type"))
        if not old.get("immutable"):
            return causes
        why = "field is immutable when `immutable` is set"
        if not obj.get("immutable"):
            causes.append(forbidden("immutable", why))
        causes.extend(forbidden(n, why) for n in ("data", "binaryData") if (obj.get(n) or {}) != (old.get(n) or {}))
        return causes


class OrphaningStrategy(Strategy):
    """ReplicationController: by default its pods survive it."""

    def __init__(self, info: ResourceInfo) -> None:
        super().__init__(info)
        self.default_orphans = True


class ClaimStrategy(Strategy):
    def prepare_create(self, obj: Object, now: str) -> None:
        obj["status"] = {"phase": "Pending"}


class PersistentVolumeStrategy(Strategy):
    """Its status says since when it is in its phase."""

    def prepare_create(self, obj: Object, now: str) -> None:
        obj["status"] = {"phase": "Pending", "lastPhaseTransitionTime": now}

    def prepare_status(self, obj: Object, old: Object, now: str) -> None:
        super().prepare_status(obj, old, now)
        status, before = obj.setdefault("status", {}), old.get("status") or {}
        since, known = status.get("lastPhaseTransitionTime"), before.get("lastPhaseTransitionTime")
        if status.get("phase") != before.get("phase") and (not since or since == known):
            status["lastPhaseTransitionTime"] = now


KINDS: dict[str, type[Strategy]] = {
    "certificatesigningrequests.certificates.k8s.io": CertificateStrategy,
    "pods": PodStrategy,
    "jobs.batch": JobStrategy,
    "deployments.apps": DeploymentStrategy,
    "daemonsets.apps": DaemonSetStrategy,
    "endpointslices.discovery.k8s.io": EndpointSliceStrategy,
    "nodes": NodeStrategy,
    "namespaces": NamespaceStrategy,
    "customresourcedefinitions.apiextensions.k8s.io": DefinitionStrategy,
    "configmaps": DataStrategy,
    "secrets": DataStrategy,
    "replicationcontrollers": OrphaningStrategy,
    "services": ServiceStrategy,
    "persistentvolumes": PersistentVolumeStrategy,
    "persistentvolumeclaims": ClaimStrategy,
}
