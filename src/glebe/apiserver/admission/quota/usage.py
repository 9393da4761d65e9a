"""What an object uses of a quota: one evaluator per resource (``pkg/quota/v1/evaluator/core``)."""

from __future__ import annotations

from typing import Any, Protocol

from glebe.apiserver.admission.base import AdmissionAttributes
from glebe.apiserver.admission.quota import podusage
from glebe.apiserver.admission.quota.amounts import ONE, Amounts, add, of
from glebe.apiserver.admission.storage import CLAIMS, claim_class
from glebe.kube.objects import Object

IGNORED = frozenset(
    {
        "bindings",
        "componentstatuses",
        "events",
        "events.events.k8s.io",
        "tokenreviews.authentication.k8s.io",
        "selfsubjectreviews.authentication.k8s.io",
        "subjectaccessreviews.authorization.k8s.io",
        "selfsubjectaccessreviews.authorization.k8s.io",
        "localsubjectaccessreviews.authorization.k8s.io",
        "selfsubjectrulesreviews.authorization.k8s.io",
    }
)
"""Not counted, by any name."""

_BY_CLASS = ".storageclass.storage.k8s.io/"
_BY_DEVICE_CLASS = ".deviceclass.resource.k8s.io/devices"
_LEGACY = frozenset({"configmaps", "resourcequotas", "replicationcontrollers", "secrets"})
_MOST_DEVICES = 32
"""How many devices a request for all of them may get (``resource.AllocationResultsMaxSize``)."""


class Evaluator(Protocol):
    """What is counted of one resource."""

    def handles(self, a: AdmissionAttributes) -> bool:
        """May the request raise what is used?"""
        ...

    def concerns(self, name: str) -> bool:
        """Does the quota's resource ``name`` count this?"""
        ...

    def usage(self, obj: Object, now: float) -> Amounts: ...

    def missing(self, obj: Object, names: frozenset[str]) -> str:
        """What the object must state when ``names`` are counted, and does not."""
        ...

    def in_scope(self, obj: Object, scope: str, operator: str, values: list[str]) -> bool: ...


class Counting:
    """Any resource: its objects are counted, as ``count/RESOURCE.GROUP`` and for some by an older name."""

    def __init__(self, resource: str) -> None:
        self.names = frozenset({f"count/{resource}", resource} if resource in _LEGACY else {f"count/{resource}"})

    def handles(self, a: AdmissionAttributes) -> bool:
        return not a.subresource and a.operation == "CREATE"

    def concerns(self, name: str) -> bool:
        return name in self.names

    def usage(self, obj: Object, now: float) -> Amounts:
        return dict.fromkeys(self.names, ONE)

    def missing(self, obj: Object, names: frozenset[str]) -> str:
        return ""

    def in_scope(self, obj: Object, scope: str, operator: str, values: list[str]) -> bool:
        return False


class Pods(Counting):
    def __init__(self) -> None:
        super().__init__("pods")

    def handles(self, a: AdmissionAttributes) -> bool:
        if a.subresource:
            return a.subresource == "resize" and a.operation == "UPDATE"
        if a.operation == "UPDATE" and a.obj is not None and a.old is not None:
            return podusage.is_terminating(a.obj) != podusage.is_terminating(a.old)
        return a.operation == "CREATE"

    def concerns(self, name: str) -> bool:
        return podusage.concerns(name)

    def usage(self, obj: Object, now: float) -> Amounts:
        return podusage.usage(obj, now)

    def missing(self, obj: Object, names: frozenset[str]) -> str:
        return podusage.missing(obj, names)

    def in_scope(self, obj: Object, scope: str, operator: str, values: list[str]) -> bool:
        return podusage.in_scope(obj, scope, operator, values)


class Services(Counting):
    def __init__(self) -> None:
        super().__init__("services")
        self.names = frozenset({"count/services", "services", "services.nodeports", "services.loadbalancers"})

    def handles(self, a: AdmissionAttributes) -> bool:
        return not a.subresource and a.operation in ("CREATE", "UPDATE")

    def usage(self, obj: Object, now: float) -> Amounts:
        spec = obj.get("spec") or {}
        kind, ports = spec.get("type"), spec.get("ports") or ()
        out = {"count/services": ONE, "services": ONE, "services.loadbalancers": 0, "services.nodeports": 0}
        if kind == "LoadBalancer":
            out["services.loadbalancers"] = ONE
            if spec.get("allocateLoadBalancerNodePorts") is False:
                ports = [p for p in ports if p.get("nodePort")]
        if kind in ("NodePort", "LoadBalancer"):
            out["services.nodeports"] = len(ports) * ONE
        return out


class Claims(Counting):
    """PersistentVolumeClaims, also by storage class."""

    def __init__(self) -> None:
        super().__init__(CLAIMS)
        self.names = frozenset({f"count/{CLAIMS}", CLAIMS, "requests.storage"})

    def handles(self, a: AdmissionAttributes) -> bool:
        if a.subresource == "status" and a.obj is not None and a.old is not None:
            return _allocated(a.obj) != _allocated(a.old) or _attribute_classes(a.obj) != _attribute_classes(a.old)
        return not a.subresource and a.operation in ("CREATE", "UPDATE")

    def concerns(self, name: str) -> bool:
        return name in self.names or name.endswith((_BY_CLASS + CLAIMS, f"{_BY_CLASS}requests.storage"))

    def usage(self, obj: Object, now: float) -> Amounts:
        out = {CLAIMS: ONE, f"count/{CLAIMS}": ONE}
        storage_class = claim_class(obj)
        if storage_class:
            out[f"{storage_class}{_BY_CLASS}{CLAIMS}"] = ONE
        requests = ((obj.get("spec") or {}).get("resources") or {}).get("requests") or {}
        if "storage" in requests:
            size = max(_whole(of(requests["storage"])), _whole(_allocated(obj)))
            out["requests.storage"] = size
            if storage_class:
                out[f"{storage_class}{_BY_CLASS}requests.storage"] = size
        return out

    def in_scope(self, obj: Object, scope: str, operator: str, values: list[str]) -> bool:
        return scope == "VolumeAttributesClass" and podusage.selected(operator, values, _attribute_classes(obj))


def _whole(amount: int) -> int:
    return -(-amount // ONE) * ONE


def _allocated(claim: Object) -> int:
    return of(((claim.get("status") or {}).get("allocatedResources") or {}).get("storage", 0))


def _attribute_classes(claim: Object) -> list[str]:
    status = claim.get("status") or {}
    names = (
        (claim.get("spec") or {}).get("volumeAttributesClassName"),
        status.get("currentVolumeAttributesClassName"),
        (status.get("modifyVolumeStatus") or {}).get("targetVolumeAttributesClassName"),
    )
    return sorted({str(name) for name in names if name})


class DeviceClaims(Counting):
    """ResourceClaims (DRA), also the devices by device class."""

    def handles(self, a: AdmissionAttributes) -> bool:
        return not a.subresource and a.operation in ("CREATE", "UPDATE")

    def concerns(self, name: str) -> bool:
        return name in self.names or name.endswith(_BY_DEVICE_CLASS)

    def usage(self, obj: Object, now: float) -> Amounts:
        out = dict.fromkeys(self.names, ONE)
        for request in ((obj.get("spec") or {}).get("devices") or {}).get("requests") or ():
            worst: Amounts = {}
            # resource.k8s.io/v1 has the one request under "exactly"; earlier versions had it flat.
            for option in request.get("firstAvailable") or (request.get("exactly") or request,):
                name = f"{option.get('deviceClassName', '')}{_BY_DEVICE_CLASS}"
                worst[name] = max(worst.get(name, 0), _devices(option))
            add(out, worst)
        return out


def _devices(option: dict[str, Any]) -> int:
    mode = option.get("allocationMode") or "ExactCount"
    if mode == "All":
        return _MOST_DEVICES * ONE
    return int(option.get("count") or 1) * ONE if mode == "ExactCount" else 0


_SPECIAL: dict[str, Evaluator] = {
    "pods": Pods(),
    "services": Services(),
    CLAIMS: Claims(),
    "resourceclaims.resource.k8s.io": DeviceClaims("resourceclaims.resource.k8s.io"),
}


def evaluator_of(resource: str) -> Evaluator | None:
    """What counts a group resource; None: nothing does."""
    if resource in IGNORED:
        return None
    return _SPECIAL.get(resource) or Counting(resource)


def counted_resources(names: frozenset[str]) -> frozenset[str]:
    """The group resources whose objects a quota of ``names`` counts."""
    special = {resource for resource, evaluator in _SPECIAL.items() if any(map(evaluator.concerns, names))}
    plain = {name.removeprefix("count/") for name in names if name.startswith("count/") or name in _LEGACY}
    return frozenset(special | plain) - IGNORED
