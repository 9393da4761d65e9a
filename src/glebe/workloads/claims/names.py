"""ResourceClaims of pods: how they are called, whose they are, who has them reserved. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from glebe.kube.objects import Object, controller_of, is_deleting
from glebe.kube.pods import has_ended
from glebe.kube.resources import Resource

_GROUP: Final = "resource.k8s.io"
CLAIMS = Resource(_GROUP, "v1", "resourceclaims", "ResourceClaim")
TEMPLATES = Resource(_GROUP, "v1", "resourceclaimtemplates", "ResourceClaimTemplate")
SLICES = Resource(_GROUP, "v1", "resourceslices", "ResourceSlice", namespaced=False)
DEVICE_CLASSES = Resource(_GROUP, "v1", "deviceclasses", "DeviceClass", namespaced=False)
FINALIZER: Final = "resource.kubernetes.io/delete-protection"
"""On a claim as long as it is allocated."""
ENTRY: Final = "resource.kubernetes.io/pod-claim-name"
"""Annotation: for which entry of the pod's ``spec.resourceClaims`` a claim was made."""
NOT_MADE = ""


def entries(pod: Object) -> Iterator[tuple[Mapping[str, Any], str | None]]:
    """Each entry of ``spec.resourceClaims`` with the claim's name: :data:`NOT_MADE` before it was made from its
    template, ``None`` when none is needed."""
    given = (pod.get("spec") or {}).get("resourceClaims")
    if not given:
        return
    statuses = {s["name"]: s for s in (pod.get("status") or {}).get("resourceClaimStatuses") or ()}
    for entry in given:
        if entry.get("resourceClaimName"):
            yield entry, entry["resourceClaimName"]
        elif entry["name"] in statuses:
            yield entry, statuses[entry["name"]].get("resourceClaimName")
        else:
            yield entry, NOT_MADE


def names(pod: Object) -> list[str]:
    """The names of the pod's claims that exist or should."""
    return [name for _, name in entries(pod) if name]


def is_for(pod: Object, claim: Object) -> bool:
    """Whether a claim that was made from a template was made for this pod."""
    owner = controller_of(claim)
    return owner is not None and owner.get("uid") == pod["metadata"]["uid"]


def is_done(pod: Object) -> bool:
    """Whether the pod will never use its claims (again)."""
    return has_ended(pod) or (is_deleting(pod) and not (pod.get("spec") or {}).get("nodeName"))


def reserved_for(claim: Object) -> list[dict[str, Any]]:
    """``status.reservedFor``."""
    return list((claim.get("status") or {}).get("reservedFor") or ())


def is_reserved(claim: Object, uid: str) -> bool:
    """Whether the consumer with this uid has it reserved."""
    return any(r.get("uid") == uid for r in reserved_for(claim))


def consumer(pod: Object) -> dict[str, str]:
    """The pod as an entry of ``status.reservedFor``."""
    return {"resource": "pods", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}


def allocation_of(claim: Object) -> dict[str, Any] | None:
    """``status.allocation``."""
    found: dict[str, Any] | None = (claim.get("status") or {}).get("allocation")
    return found


def version_of(obj: Object) -> int:
    """``resourceVersion`` as a number: versions of one object can be compared since 1.35 (KEP-5504)."""
    text = str(obj["metadata"].get("resourceVersion") or "0")
    return int(text) if text.isdigit() else 0
