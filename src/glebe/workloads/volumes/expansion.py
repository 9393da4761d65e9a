"""Claims that ask for more than they have. Pure.

Nothing bounds what a local path can hold but its disk, so that a larger size is only written down; volumes of others
are left to whoever made them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from glebe.kube.events import NORMAL
from glebe.kube.objects import Object, annotations_of
from glebe.kube.storage import BIND_COMPLETED, LOCAL_PATH, PROVISIONED_BY, requested
from glebe.workloads.volumes.changes import grown, is_smaller
from glebe.workloads.volumes.verdicts import Event


@dataclass(frozen=True, slots=True)
class Wanted:
    """``volume``: with its new size."""

    volume: Object | None = None
    event: Event | None = None


def wanted(claim: Object, volume: Object, storage_class: Object | None) -> Wanted:
    """What a bound claim wants of its volume's size."""
    if BIND_COMPLETED not in annotations_of(claim) or not is_smaller(volume, requested(claim)):
        return Wanted()
    if not (storage_class or {}).get("allowVolumeExpansion"):
        return Wanted()
    size = claim["spec"]["resources"]["requests"]["storage"]
    if annotations_of(volume).get(PROVISIONED_BY) == LOCAL_PATH:
        text = f"the volume has {size} now; nothing enforces a local path's size"
        return Wanted(grown(volume, size), Event(NORMAL, "VolumeResizeSuccessful", text))
    return Wanted(event=Event(NORMAL, "ExternalExpanding", "waiting for an external controller to expand this PVC"))


def status(new: Object | None, claim: Object, volume: Object) -> Object | None:
    """The claim's status with the size of a local path's volume."""
    if annotations_of(volume).get(PROVISIONED_BY) != LOCAL_PATH:
        return new
    base = new or claim
    old: dict[str, Any] = base.get("status") or {}
    size = (volume.get("spec") or {}).get("capacity") or {}
    return new if old.get("capacity") == size else {**base, "status": {**old, "capacity": dict(size)}}
