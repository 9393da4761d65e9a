"""PersistentVolumes, claims and classes as everyone reads them: annotations, classes, sizes, affinity. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from glebe.kube.objects import Object, annotations_of, labels_of
from glebe.kube.quantity import parse
from glebe.kube.resources import Resource

VOLUMES: Final = Resource("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False)
CLASSES: Final = Resource("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False)

BIND_COMPLETED: Final = "pv.kubernetes.io/bind-completed"
BOUND_BY_CONTROLLER: Final = "pv.kubernetes.io/bound-by-controller"
PROVISIONED_BY: Final = "pv.kubernetes.io/provisioned-by"
PROVISIONER: Final = "volume.kubernetes.io/storage-provisioner"
BETA_PROVISIONER: Final = "volume.beta.kubernetes.io/storage-provisioner"
SELECTED_NODE: Final = "volume.kubernetes.io/selected-node"
BETA_CLASS: Final = "volume.beta.kubernetes.io/storage-class"
DEFAULT_CLASS: Final = "storageclass.kubernetes.io/is-default-class"
BETA_DEFAULT_CLASS: Final = "storageclass.beta.kubernetes.io/is-default-class"
NO_PROVISIONER: Final = "kubernetes.io/no-provisioner"
WAIT: Final = "WaitForFirstConsumer"

LOCAL_PATH: Final = "glebe.dev/local-path"
"""The provisioner of Glebe's own nodes."""
SIMULATED: Final = "glebe.dev/simulated"
"""Annotation of a PersistentVolume behind which there is nothing."""
FINALIZER: Final = "external-provisioner.volume.kubernetes.io/finalizer"
"""Keeps a volume's object until its data is gone."""
HOSTNAME: Final = "kubernetes.io/hostname"


def class_of(obj: Object) -> str:
    """The storage class of a claim or a volume, ``""`` for none."""
    annotated = annotations_of(obj).get(BETA_CLASS)
    return annotated if annotated is not None else str((obj.get("spec") or {}).get("storageClassName") or "")


def has_class(claim: Object) -> bool:
    """Whether the claim says anything about its class; ``""`` is an answer, too."""
    spec = claim.get("spec") or {}
    return BETA_CLASS in annotations_of(claim) or spec.get("storageClassName") is not None


def waits(storage_class: Object | None) -> bool:
    """Whether claims of the class are bound only once a pod has a node."""
    return storage_class is not None and storage_class.get("volumeBindingMode") == WAIT


def default_class(classes: Iterable[Object]) -> Object | None:
    """The newest class that is marked as the default; of those of one second the first by name."""
    marked = [c for c in classes if _is_default(c)]
    if not marked:
        return None
    newest = max(c["metadata"].get("creationTimestamp") or "" for c in marked)
    last = [c for c in marked if (c["metadata"].get("creationTimestamp") or "") == newest]
    return min(last, key=lambda c: str(c["metadata"]["name"]))


def _is_default(storage_class: Object) -> bool:
    found = annotations_of(storage_class)
    return "true" in (found.get(DEFAULT_CLASS), found.get(BETA_DEFAULT_CLASS))


def requested(claim: Object) -> int:
    """Bytes that a claim asks for."""
    return -int(
        -parse((((claim.get("spec") or {}).get("resources") or {}).get("requests") or {}).get("storage", "0")) // 1
    )


def capacity(volume: Object) -> int:
    """Bytes that a volume has."""
    return int(parse(((volume.get("spec") or {}).get("capacity") or {}).get("storage", "0")))


def mode_of(obj: Object) -> str:
    return str((obj.get("spec") or {}).get("volumeMode") or "Filesystem")


def is_claimed_by(volume: Object, claim: Object) -> bool:
    """Whether the volume is reserved for this claim, by name or by uid, too."""
    ref = (volume.get("spec") or {}).get("claimRef")
    if not ref:
        return False
    meta = claim["metadata"]
    if (ref.get("namespace"), ref.get("name")) != (meta.get("namespace"), meta["name"]):
        return False
    return not ref.get("uid") or ref["uid"] == meta["uid"]


def affine(volume: Object, node: Object) -> bool:
    """Whether the volume can be had on the node (``spec.nodeAffinity.required``)."""
    required = ((volume.get("spec") or {}).get("nodeAffinity") or {}).get("required")
    if required is None:
        return True
    labels, name = labels_of(node), node["metadata"]["name"]
    return any(_term(term, labels, name) for term in required.get("nodeSelectorTerms") or ())


def _term(term: Mapping[str, Any], labels: Mapping[str, str], name: str) -> bool:
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    own = {"metadata.name": name}
    return all(_holds(e, labels) for e in expressions) and all(_holds(f, own) for f in fields)


def _more(value: str, limit: str) -> bool:
    return value.lstrip("-").isdigit() and limit.lstrip("-").isdigit() and int(value) > int(limit)


_OPERATORS: Final[dict[str, Callable[[str | None, list[str]], bool]]] = {
    "In": lambda value, values: value in values,
    "NotIn": lambda value, values: value not in values,
    "Exists": lambda value, _: value is not None,
    "DoesNotExist": lambda value, _: value is None,
    "Gt": lambda value, values: value is not None and len(values) == 1 and _more(value, values[0]),
    "Lt": lambda value, values: value is not None and len(values) == 1 and _more(values[0], value),
}


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    operator = _OPERATORS.get(expression.get("operator", ""))
    return operator is not None and operator(
        labels.get(expression.get("key", "")), list(expression.get("values") or ())
    )


def local_volume(claim: Object, storage_class: Object, node: Object, path: str) -> Object:
    """A PersistentVolume for ``claim`` at ``path`` of ``node``, reserved for it. Made again, it is the same one."""
    meta, spec = claim["metadata"], claim["spec"]
    host = labels_of(node).get(HOSTNAME) or node["metadata"]["name"]
    term = {"matchExpressions": [{"key": HOSTNAME, "operator": "In", "values": [host]}]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": volume_name(claim), "annotations": {PROVISIONED_BY: LOCAL_PATH}},
        "spec": {
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "accessModes": list(spec.get("accessModes") or ()),
            "volumeMode": mode_of(claim),
            "persistentVolumeReclaimPolicy": storage_class.get("reclaimPolicy") or "Delete",
            "storageClassName": storage_class["metadata"]["name"],
            "local": {"path": path},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": meta["namespace"],
                "name": meta["name"],
                "uid": meta["uid"],
            },
        },
    }


def volume_name(claim: Object) -> str:
    """The name of the volume that is made for a claim."""
    return f"pvc-{claim['metadata']['uid']}"


def node_of_local(volume: Object) -> str:
    """The host name that a volume of :func:`local_volume` is pinned to, ``""`` for any other volume."""
    if annotations_of(volume).get(PROVISIONED_BY) != LOCAL_PATH:
        return ""
    terms = (((volume.get("spec") or {}).get("nodeAffinity") or {}).get("required") or {}).get("nodeSelectorTerms")
    for term in terms or ():
        for expression in term.get("matchExpressions") or ():
            if expression.get("key") == HOSTNAME and expression.get("values"):
                return str(expression["values"][0])
    return ""
