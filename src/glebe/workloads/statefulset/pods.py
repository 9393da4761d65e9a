"""What one pod of a StatefulSet says: its ordinal, its revision, whether it is as its set wants it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from glebe.kube.objects import Object, labels_of

POD_NAME = "statefulset.kubernetes.io/pod-name"
POD_INDEX = "apps.kubernetes.io/pod-index"
REVISION = "controller-revision-hash"

_NAME = re.compile(r"(.*)-([0-9]+)", re.DOTALL)


def place_of(pod: Object) -> tuple[str, int]:
    """The set's name and the ordinal, as the pod's name has them; ``("", -1)`` when it has none."""
    match = _NAME.fullmatch(pod["metadata"]["name"])
    if match is None or int(match[2]) > 2**31 - 1:
        return "", -1
    return match[1], int(match[2])


def ordinal_of(pod: Object) -> int:
    return place_of(pod)[1]


def revision_of(pod: Object) -> str:
    """Name of the ControllerRevision that the pod was made from."""
    return labels_of(pod).get(REVISION, "")


def identity_matches(pod: Object) -> bool:
    return labels_of(pod).get(POD_NAME) == str(pod["metadata"]["name"])


def claim_name(template: Mapping[str, Any], set_name: str, ordinal: int) -> str:
    """Name of the PersistentVolumeClaim of one pod for one of its set's templates."""
    return f"{template['metadata']['name']}-{set_name}-{ordinal}"


def storage_matches(pod: Object, owner: Object) -> bool:
    """Whether the pod's volumes are the claims of its set's templates."""
    volumes = {v["name"]: v for v in (pod.get("spec") or {}).get("volumes") or ()}
    name, ordinal = owner["metadata"]["name"], ordinal_of(pod)
    return all(
        ((volumes.get(t["metadata"]["name"]) or {}).get("persistentVolumeClaim") or {}).get("claimName")
        == claim_name(t, name, ordinal)
        for t in owner["spec"].get("volumeClaimTemplates") or ()
    )
