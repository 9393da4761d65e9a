"""Where on this machine the volume of a claim is. Pure but for looking at the path."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glebe.kube.objects import Object, annotations_of, controller_of
from glebe.kube.storage import BIND_COMPLETED, affine
from glebe.node.contracts import VolumeError
from glebe.node.volumes import hostpaths

#: PersistentVolume sources that a process node can use.
USABLE = ("local", "hostPath")


def claim_name(pod: Object, volume: dict[str, Any]) -> str:
    """The claim behind a volume, ``""`` when there is none."""
    if "persistentVolumeClaim" in volume:
        return str(volume["persistentVolumeClaim"].get("claimName", ""))
    return f"{pod['metadata']['name']}-{volume['name']}" if "ephemeral" in volume else ""


def bound_volume(pod: Object, volume: dict[str, Any], claim: Object | None) -> str:
    """The name of the PersistentVolume that the claim is bound to.

    :raises VolumeError: there is no claim, or it is not bound, or it is another pod's.
    """
    name, where = claim_name(pod, volume), pod["metadata"]["namespace"]
    if claim is None:
        raise VolumeError(f'error processing PVC {where}/{name}: persistentvolumeclaim "{name}" not found')
    if "ephemeral" in volume and (controller_of(claim) or {}).get("uid") != pod["metadata"]["uid"]:
        raise VolumeError(f"PVC {where}/{name} was not created for pod {where}/{pod['metadata']['name']}")
    if (claim.get("status") or {}).get("phase") != "Bound" or BIND_COMPLETED not in annotations_of(claim):
        raise VolumeError(f"error processing PVC {where}/{name}: PVC is not bound")
    return str(claim["spec"]["volumeName"])


def path_of(volume: Object | None, claim: Object, labels: Mapping[str, str], prefixes: tuple[str, ...] | None) -> Path:
    """The directory or file of a PersistentVolume.

    :param labels: the node's.
    :raises VolumeError: the volume is another claim's, on another node, or of a kind that this node cannot use.
    """
    name = claim["spec"]["volumeName"]
    if volume is None:
        raise VolumeError(f'error processing PVC: persistentvolume "{name}" not found')
    spec = volume.get("spec") or {}
    if (spec.get("claimRef") or {}).get("uid") != claim["metadata"]["uid"]:
        raise VolumeError(f'error processing PVC: persistentvolume "{name}" is bound to another claim')
    if not affine(volume, {"metadata": {"labels": dict(labels), "name": ""}}):
        raise VolumeError("MountVolume.NodeAffinity check failed: no matching NodeSelectorTerms")
    if spec.get("volumeMode") == "Block":
        raise VolumeError("volumes with volumeMode Block are not supported by this node")
    if "hostPath" in spec:
        return hostpaths.find(spec["hostPath"], prefixes)
    if "local" in spec:
        path = Path(spec["local"]["path"])
        if not path.exists():
            raise VolumeError(f'path "{path}" does not exist')
        return path
    raise VolumeError(unsupported(spec, f'persistentvolume "{name}"'))


def unsupported(source: Mapping[str, Any], where: str) -> str:
    """Says what this node has no driver for."""
    common = {
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "name",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    }
    kinds = ", ".join(sorted(key for key in source if key not in common)) or "no source"
    return f"no volume plugin matched: {where} is of kind {kinds}, for which this node has no driver"
