"""Volumes and the claims to them."""

from __future__ import annotations

from typing import Any

from glebe.apiserver.printers.cells import Printers, age, name_of, spec_of, status_of
from glebe.kube.objects import Object

_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def _modes(modes: list[str] | None) -> str:
    return ",".join(_MODES.get(m, m) for m in modes or ())


def _claim(obj: Object, now: float) -> list[Any]:
    spec, status = spec_of(obj), status_of(obj)
    phase = "Terminating" if "deletionTimestamp" in obj["metadata"] else status.get("phase", "")
    bound = bool(spec.get("volumeName"))
    capacity = (status.get("capacity") or {}).get("storage", "") if bound else ""
    modes = _modes(status.get("accessModes")) if bound else ""
    tail = [spec.get("storageClassName", ""), spec.get("volumeAttributesClassName", "<unset>")]
    wide = spec.get("volumeMode", "<unset>")
    return [name_of(obj), phase, spec.get("volumeName", ""), capacity, modes, *tail, age(obj, now), wide]


def _volume(obj: Object, now: float) -> list[Any]:
    spec, status = spec_of(obj), status_of(obj)
    ref = spec.get("claimRef") or {}
    claim = f"{ref.get('namespace')}/{ref.get('name')}" if ref else ""
    phase = "Terminating" if "deletionTimestamp" in obj["metadata"] else status.get("phase", "")
    head = [name_of(obj), (spec.get("capacity") or {}).get("storage", ""), _modes(spec.get("accessModes"))]
    middle = [spec.get("persistentVolumeReclaimPolicy", ""), phase, claim, spec.get("storageClassName", "")]
    tail = [spec.get("volumeAttributesClassName", "<unset>"), status.get("reason", ""), age(obj, now)]
    return [*head, *middle, *tail, spec.get("volumeMode", "<unset>")]


def _storage_class(obj: Object, now: float) -> list[Any]:
    default = (obj["metadata"].get("annotations") or {}).get("storageclass.kubernetes.io/is-default-class") == "true"
    expand = bool(obj.get("allowVolumeExpansion"))
    modes = [obj.get("reclaimPolicy", "Delete"), obj.get("volumeBindingMode", "Immediate"), expand]
    return [name_of(obj) + (" (default)" if default else ""), obj.get("provisioner", ""), *modes, age(obj, now)]


#: group resource -> (columns, row)
PRINTERS: Printers = {
    "persistentvolumeclaims": (
        (
            "Name",
            "Status",
            "Volume",
            "Capacity",
            "Access Modes",
            "StorageClass",
            "VolumeAttributesClass",
            "Age",
            "+VolumeMode",
        ),
        _claim,
    ),
    "persistentvolumes": (
        (
            "Name",
            "Capacity",
            "Access Modes",
            "Reclaim Policy",
            "Status",
            "Claim",
            "StorageClass",
            "VolumeAttributesClass",
            "Reason",
            "Age",
            "+VolumeMode",
        ),
        _volume,
    ),
    "storageclasses.storage.k8s.io": (
        ("Name", "Provisioner", "ReclaimPolicy", "VolumeBindingMode", "AllowVolumeExpansion", "Age"),
        _storage_class,
    ),
}
