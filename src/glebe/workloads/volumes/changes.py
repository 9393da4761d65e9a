"""What bound, unbound and lost claims and volumes look like: new objects, or ``None`` where nothing changes. Pure."""

from __future__ import annotations

from typing import Any

from glebe.kube.objects import Object, annotations_of
from glebe.kube.storage import BIND_COMPLETED, BOUND_BY_CONTROLLER, capacity, is_claimed_by


def claimed(volume: Object, claim: Object) -> Object | None:
    """The volume, reserved for the claim."""
    meta = claim["metadata"]
    wanted = {"namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]}
    old = (volume.get("spec") or {}).get("claimRef") or {}
    ours = not is_claimed_by(volume, claim)
    if all(old.get(k) == v for k, v in wanted.items()) and not (ours and not _marked(volume)):
        return None
    version = {"resourceVersion": meta["resourceVersion"]} if meta.get("resourceVersion") else {}
    ref = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **wanted, **version}
    made = {**volume, "spec": {**volume["spec"], "claimRef": ref}}
    return annotated(made, {BOUND_BY_CONTROLLER: "yes"}) if ours else made


def bound(claim: Object, volume: Object) -> Object | None:
    """The claim, referring to the volume."""
    name, spec = volume["metadata"]["name"], claim.get("spec") or {}
    marks = {}
    if spec.get("volumeName") != name:
        marks[BOUND_BY_CONTROLLER] = "yes"
    elif BIND_COMPLETED in annotations_of(claim):
        return None
    marks[BIND_COMPLETED] = "yes"
    return annotated({**claim, "spec": {**spec, "volumeName": name}}, marks)


def claim_status(claim: Object, phase: str, volume: Object | None) -> Object | None:
    """The claim with its status."""
    old: dict[str, Any] = claim.get("status") or {}
    new: dict[str, Any] = {**old, "phase": phase}
    if volume is None:
        for field in ("accessModes", "capacity", "currentVolumeAttributesClassName"):
            new.pop(field, None)
    else:
        spec = volume.get("spec") or {}
        new["accessModes"] = list(spec.get("accessModes") or ())
        if old.get("phase") != phase:
            new["capacity"] = dict(spec.get("capacity") or {})
            if spec.get("volumeAttributesClassName"):
                new["currentVolumeAttributesClassName"] = spec["volumeAttributesClassName"]
    return None if new == old else {**claim, "status": new}


def volume_status(volume: Object, phase: str, message: str) -> Object | None:
    """The volume with its phase."""
    old: dict[str, Any] = volume.get("status") or {}
    if old.get("phase") == phase:
        return None
    new = {**old, "phase": phase, "message": message, "reason": ""}
    return {**volume, "status": {k: v for k, v in new.items() if v}}


def unclaimed(volume: Object) -> Object:
    """The volume, for anybody again, or (reserved by its author) still for the claim of that name."""
    spec = dict(volume["spec"])
    if _marked(volume):
        del spec["claimRef"]
        rest = {k: v for k, v in annotations_of(volume).items() if k != BOUND_BY_CONTROLLER}
        return {**volume, "metadata": {**volume["metadata"], "annotations": rest}, "spec": spec}
    spec["claimRef"] = {k: v for k, v in spec["claimRef"].items() if k not in ("uid", "resourceVersion")}
    return {**volume, "spec": spec}


def annotated(obj: Object, marks: dict[str, str]) -> Object:
    """The object with annotations."""
    return {**obj, "metadata": {**obj["metadata"], "annotations": {**annotations_of(obj), **marks}}}


def grown(volume: Object, size: str) -> Object:
    """The volume with another capacity."""
    spec = volume["spec"]
    return {**volume, "spec": {**spec, "capacity": {**(spec.get("capacity") or {}), "storage": size}}}


def is_smaller(volume: Object, size: int) -> bool:
    return capacity(volume) < size


def _marked(volume: Object) -> bool:
    return BOUND_BY_CONTROLLER in annotations_of(volume)
