"""ResourceClaims: what may be written into their status, and who may look at devices that somebody else uses (KEP-5018:
in namespaces whose label allows it).

Upstream checks both where it validates claims; here the one needs to read a namespace, which admission can.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from glebe.apiserver.admission.base import AdmissionAttributes, Read
from glebe.apiserver.types.devicerules import claim_status
from glebe.kube import errors
from glebe.kube import names as n
from glebe.kube.objects import Object, labels_of

LABEL = "resource.kubernetes.io/admin-access"


class AdminAccess:
    """Always on: see ``Assembly.always``."""

    resources = frozenset({"resourceclaims.resource.k8s.io", "resourceclaimtemplates.resource.k8s.io"})

    def __init__(self, read: Read) -> None:
        self._read = read

    async def validate(self, a: AdmissionAttributes) -> None:
        if a.obj is None or a.operation not in ("CREATE", "UPDATE"):
            return
        if a.subresource == "status" and a.old is not None and (causes := claim_status(a.obj, a.old)):
            raise errors.invalid(a.info.group, a.info.kind, a.name, causes)
        path = _asked(a.obj, a.old, a.info.kind, a.subresource)
        if not path:
            return
        namespace = self._read(a.cluster, "namespaces", "", a.namespace)
        if namespace is None or labels_of(namespace).get(LABEL) != "true":
            why = f"admin access to devices requires the `{LABEL}: true` label on the containing namespace"
            raise errors.invalid(a.info.group, a.info.kind, a.name, [n.forbidden(path, why)])


def _asked(obj: Object, old: Object | None, kind: str, subresource: str) -> str:
    """Where admin access is asked for anew; ``""``: nowhere."""
    if subresource == "status":
        return "" if _granted(old or {}) else _granted(obj)
    if old is not None:
        return ""  # the specification never changes
    spec, path = obj.get("spec") or {}, "spec"
    if kind == "ResourceClaimTemplate":
        spec, path = spec.get("spec") or {}, "spec.spec"
    requests = (spec.get("devices") or {}).get("requests") or ()
    return _first((r.get("exactly") or {} for r in requests), f"{path}.devices.requests")


def _granted(obj: Object) -> str:
    allocation = (obj.get("status") or {}).get("allocation") or {}
    return _first((allocation.get("devices") or {}).get("results") or (), "status.allocation.devices.results")


def _first(items: Iterable[Any], path: str) -> str:
    return next((f"{path}[{i}].adminAccess" for i, item in enumerate(items) if item.get("adminAccess")), "")
