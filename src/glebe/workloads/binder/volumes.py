"""What a pod's volume claims demand of its node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

import numpy as np

from glebe.kube.objects import Object, annotations_of, controller_of, is_deleting, labels_of
from glebe.kube.resources import Resource
from glebe.workloads.binder.needs import Needs
from glebe.workloads.binder.nodematch import term_matches
from glebe.workloads.binder.plugins import Bools, Quiet, Refusal, Surroundings

CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
VOLUMES = Resource("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False)
CLASSES = Resource("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False)
NO_VOLUME: Final = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
ELSEWHERE: Final = "node(s) didn't match PersistentVolume's node affinity"
NOT_BOUND: Final = "node(s) didn't find available persistent volumes to bind"
OTHER_ZONE: Final = "node(s) had no available volume zone"
IN_USE: Final = (
    "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod"
)
_ZONES: Final = (
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
)


class Storage(Quiet):
    """The volumes of one logical cluster, as the binder's plug-in."""

    name = "VolumeBinding"
    watches: ClassVar[tuple[Resource, ...]] = (CLAIMS, VOLUMES, CLASSES)

    def __init__(self, around: Surroundings) -> None:
        self._around = around

    def claim(self, path: str) -> Object | None:
        return self._around.find(CLAIMS, path)

    def volume(self, name: str) -> Object | None:
        return self._around.find(VOLUMES, name)

    def storage_class(self, name: str) -> Object | None:
        return self._around.find(CLASSES, name)

    # --- Plugin

    def concerns(self, needs: Needs) -> bool:
        return bool(needs.claims)

    def helps(self, needs: Needs, resource: Resource, old: Object | None, new: Object | None) -> bool:
        return True

    def refusals(self, needs: Needs, among: Bools) -> Iterator[list[Refusal]]:
        fleet = self._around.fleet
        rows = len(fleet.names)
        taken = any(fleet.claims[claim] > 0 for claim in self.exclusive(needs))
        yield [Refusal(np.full(rows, taken), IN_USE, "VolumeRestrictions")]
        refused: dict[str, Bools] = {}
        for row in np.flatnonzero(among):
            reason = self.refuses(needs, fleet.node(fleet.names[row]) or {})
            if reason:
                refused.setdefault(reason, np.zeros(rows, np.bool_))[row] = True
        yield [Refusal(refused[reason], reason, "VolumeBinding", False) for reason in sorted(refused)]

    def reserve(self, uid: str, needs: Needs, node: str) -> str | None:
        return None

    def unreserve(self, uid: str) -> None:
        pass

    async def prepare(self, pod: Object, node: str) -> bool:
        return True

    def bound(self, uid: str) -> None:
        pass

    # --- what is asked

    def objection(self, needs: Needs) -> str | None:
        """Why no node will do at present."""
        for name, ephemeral in needs.claims:
            claim = self.claim(f"{needs.namespace}/{name}")
            if claim is None:
                if ephemeral:
                    return f'waiting for ephemeral volume controller to create the persistentvolumeclaim "{name}"'
                return f'persistentvolumeclaim "{name}" not found'
            volume = (claim.get("spec") or {}).get("volumeName") or ""
            if (claim.get("status") or {}).get("phase") == "Lost":
                return f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{volume}"'
            if is_deleting(claim):
                return f'persistentvolumeclaim "{name}" is being deleted'
            if ephemeral and (controller_of(claim) or {}).get("kind") != "Pod":
                return f"PVC {needs.namespace}/{name} was not created for pod {needs.namespace}/{_pod_of(name)}"
            if not _is_bound(claim) and not self._waits_for_consumer(claim):
                return "pod has unbound immediate PersistentVolumeClaims"
        return None

    def _waits_for_consumer(self, claim: Object) -> bool:
        spec = claim.get("spec") or {}
        name = spec.get("storageClassName") or annotations_of(claim).get("volume.beta.kubernetes.io/storage-class")
        found = self.storage_class(name) if name else None
        return found is not None and found.get("volumeBindingMode") == "WaitForFirstConsumer"

    def refuses(self, needs: Needs, node: Object) -> str | None:
        """Why this node cannot have the pod's volumes. Call when :meth:`objection` has none."""
        for name, _ in needs.claims:
            claim = self.claim(f"{needs.namespace}/{name}") or {}
            if not _is_bound(claim):
                return NOT_BOUND
            volume = self.volume(claim["spec"]["volumeName"])
            if volume is None:
                return NO_VOLUME
            required = ((volume.get("spec") or {}).get("nodeAffinity") or {}).get("required")
            if required is not None and not any(term_matches(t, node) for t in required.get("nodeSelectorTerms") or ()):
                return ELSEWHERE
            if not _in_zone(labels_of(volume), labels_of(node)):
                return OTHER_ZONE
        return None

    def exclusive(self, needs: Needs) -> list[str]:
        """Claims (``namespace/name``) that one pod may have alone."""
        found = []
        for name, _ in needs.claims:
            key = f"{needs.namespace}/{name}"
            if "ReadWriteOncePod" in (((self.claim(key) or {}).get("spec") or {}).get("accessModes") or ()):
                found.append(key)
        return found


def _pod_of(claim: str) -> str:
    return claim.rsplit("-", 1)[0]


def _is_bound(claim: Mapping[str, Any]) -> bool:
    if not (claim.get("spec") or {}).get("volumeName"):
        return False
    marked = ((claim.get("metadata") or {}).get("annotations") or {}).get("pv.kubernetes.io/bind-completed")
    return marked is not None or (claim.get("status") or {}).get("phase") == "Bound"


def _in_zone(volume: Mapping[str, str], node: Mapping[str, str]) -> bool:
    wanted = {key: volume[key].split("__") for key in _ZONES if key in volume}
    if not any(key in node for key in _ZONES):
        return True  # such a node is in no zone at all: a cluster without zones
    return all(node.get(key) in values for key, values in wanted.items())
