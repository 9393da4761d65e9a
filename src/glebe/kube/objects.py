"""Kubernetes objects as plain dictionaries, and their addresses.

Objects stay ``dict``s as they come off the wire; what a reader gets from a store must be treated as immutable.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

Object: TypeAlias = dict[str, Any]

#: Stands for all logical clusters at once, in place of a cluster's name.
EVERY = "*"
#: Where (in its metadata) an object that was read over all clusters says which one it lives in. No API has such a
#: field: the client sets it when it reads and takes it out when it writes.
CLUSTER = "clusterName"


class ObjectKey(NamedTuple):
    """Where an object of a known resource lives. ``namespace`` is ``""`` for cluster-scoped kinds.

    ``cluster`` is the logical cluster, ``""`` for a host that has only one (any ordinary Kubernetes).
    """

    cluster: str
    namespace: str
    name: str

    def __str__(self) -> str:
        path = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.cluster}:{path}" if self.cluster else path


def key_of(obj: Object, cluster: str = EVERY) -> ObjectKey:
    """The address of ``obj``, in ``cluster`` or (:data:`EVERY`) in the cluster that it was read from."""
    meta = obj["metadata"]
    if cluster == EVERY:
        cluster = meta.get(CLUSTER, "")
    return ObjectKey(cluster, meta.get("namespace", ""), meta["name"])


def cluster_of(obj: Object) -> str:
    """The cluster of an object that was read over all clusters; "" for any other."""
    return str(obj["metadata"].get(CLUSTER, ""))


def labels_of(obj: Object) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


def annotations_of(obj: Object) -> dict[str, str]:
    return obj["metadata"].get("annotations") or {}


def is_deleting(obj: Object) -> bool:
    return "deletionTimestamp" in obj["metadata"]


def controller_of(obj: Object) -> dict[str, Any] | None:
    """The owner reference with ``controller: true``, if any."""
    for ref in obj["metadata"].get("ownerReferences") or ():
        if ref.get("controller"):
            return dict(ref)
    return None


def owner_reference(obj: Object, *, block_deletion: bool = True) -> dict[str, Any]:
    """A controller reference to ``obj`` (``metav1.NewControllerRef``)."""
    return {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "name": obj["metadata"]["name"],
        "uid": obj["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": block_deletion,
    }


def get_condition(obj: Object, kind: str) -> dict[str, Any] | None:
    """The status condition of type ``kind``."""
    for condition in (obj.get("status") or {}).get("conditions") or ():
        if condition.get("type") == kind:
            return dict(condition)
    return None


def condition_is_true(obj: Object, kind: str) -> bool:
    condition = get_condition(obj, kind)
    return condition is not None and condition.get("status") == "True"


def set_condition(
    conditions: list[dict[str, Any]],
    kind: str,
    status: str,
    reason: str,
    message: str,
    now: str,
    generation: int | None = None,
) -> list[dict[str, Any]]:
    """A new list with the condition set; ``lastTransitionTime`` moves only when ``status`` does."""
    new: dict[str, Any] = {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": now,
    }
    if generation is not None:
        new["observedGeneration"] = generation
    out: list[dict[str, Any]] = []
    found = False
    for old in conditions:
        if old.get("type") != kind:
            out.append(old)
            continue
        found = True
        if old.get("status") == status:
            new["lastTransitionTime"] = old.get("lastTransitionTime", now)
        out.append(new)
    if not found:
        out.append(new)
    return out
