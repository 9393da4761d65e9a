"""Names that the endpoint controllers share."""

from __future__ import annotations

from typing import Final

from glebe.kube.objects import Object, annotations_of, cluster_of, labels_of
from glebe.kube.resources import Resource

ENDPOINTS: Final = Resource("", "v1", "endpoints", "Endpoints")
SLICES: Final = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")

SERVICE_NAME: Final = "kubernetes.io/service-name"
MANAGED_BY: Final = "endpointslice.kubernetes.io/managed-by"
SKIP_MIRROR: Final = "endpointslice.kubernetes.io/skip-mirror"
HEADLESS: Final = "service.kubernetes.io/headless"
ENDPOINTS_MANAGED_BY: Final = "endpoints.kubernetes.io/managed-by"
TRIGGER_TIME: Final = "endpoints.kubernetes.io/last-change-trigger-time"
OVER_CAPACITY: Final = "endpoints.kubernetes.io/over-capacity"
LEADER: Final = "control-plane.alpha.kubernetes.io/leader"
LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"

SLICE_CONTROLLER: Final = "endpointslice-controller.k8s.io"
MIRROR_CONTROLLER: Final = "endpointslicemirroring-controller.k8s.io"
ENDPOINTS_CONTROLLER: Final = "endpoint-controller"

BY_SERVICE: Final = "by-service"
"""Index over EndpointSlices: ``CLUSTER/NAMESPACE/SERVICE/MANAGER``."""


def service_of(slice_: Object) -> list[str]:
    """The indexer behind :data:`BY_SERVICE`."""
    labels = labels_of(slice_)
    if not labels.get(SERVICE_NAME):
        return []
    space = slice_["metadata"].get("namespace", "")
    return [f"{cluster_of(slice_)}/{space}/{labels[SERVICE_NAME]}/{labels.get(MANAGED_BY, '')}"]


def has_endpoints(service: Object) -> bool:
    """Whether controllers find the pods of ``service``: it has a selector and is not a mere alias."""
    spec = service.get("spec") or {}
    return bool(spec.get("selector")) and spec.get("type") != "ExternalName"


def is_headless(service: Object) -> bool:
    return (service.get("spec") or {}).get("clusterIP") in (None, "", "None")


def elects_leaders(obj: Object) -> bool:
    """Endpoints that old clients use as a lock."""
    return LEADER in annotations_of(obj)
