"""By what claims, volumes and pods are found. Keys begin with the cluster. Pure."""

from __future__ import annotations

from typing import Final

from glebe.kube.objects import Object, cluster_of
from glebe.kube.storage import class_of

BY_CLASS: Final = "free-by-class"
BY_CLAIM: Final = "by-claim"
UNBOUND: Final = "unbound-by-class"
NAMED: Final = "by-volume-name"
WAITING: Final = "waiting-by-claim"


def free_by_class(volume: Object) -> list[str]:
    """Index over volumes that anybody may get, by cluster and class."""
    if (volume.get("spec") or {}).get("claimRef"):
        return []
    return [f"{cluster_of(volume)}/{class_of(volume)}"]


def by_claim(volume: Object) -> list[str]:
    """Index over volumes by the claim that they are reserved for."""
    ref = (volume.get("spec") or {}).get("claimRef")
    return [f"{cluster_of(volume)}/{ref.get('namespace')}/{ref.get('name')}"] if ref else []


def unbound_by_class(claim: Object) -> list[str]:
    """Index over claims that have no volume, by cluster and class."""
    if (claim.get("spec") or {}).get("volumeName"):
        return []
    return [f"{cluster_of(claim)}/{class_of(claim)}"]


def by_volume_name(claim: Object) -> list[str]:
    """Index over claims by the volume that they name, bound or not."""
    name = (claim.get("spec") or {}).get("volumeName")
    return [f"{cluster_of(claim)}/{name}"] if name else []


def waiting_by_claim(pod: Object) -> list[str]:
    """Index over pods that wait for a node, by the claims that they name."""
    spec, meta = pod.get("spec") or {}, pod["metadata"]
    if spec.get("nodeName") or not spec.get("volumes"):
        return []
    names = [(v.get("persistentVolumeClaim") or {}).get("claimName") for v in spec["volumes"]]
    names += [f"{meta['name']}-{v['name']}" for v in spec["volumes"] if "ephemeral" in v]
    return [f"{cluster_of(pod)}/{meta['namespace']}/{name}" for name in names if name]
