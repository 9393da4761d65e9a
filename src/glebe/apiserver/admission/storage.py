"""Claims, volumes and ingresses: their default classes, their protection, their growth."""

from __future__ import annotations

from fractions import Fraction

from glebe.apiserver.admission.base import AdmissionAttributes, BuiltinPlugin, Read, ReadAll
from glebe.kube.objects import Object, annotations_of
from glebe.kube.quantity import parse

CLAIMS, VOLUMES = "persistentvolumeclaims", "persistentvolumes"
STORAGE_CLASSES = "storageclasses.storage.k8s.io"
_DEFAULT_STORAGE = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)
PROTECTION = {
    CLAIMS: "kubernetes.io/pvc-protection",
    VOLUMES: "kubernetes.io/pv-protection",
    "volumeattributesclasses.storage.k8s.io": "kubernetes.io/vac-protection",
    "podgroups.scheduling.k8s.io": "scheduling.k8s.io/podgroup-protection",
}
_CLASS_BEFORE = "volume.beta.kubernetes.io/storage-class"
"""The annotation that named a claim's class before the field did; it still counts first."""


def newest_default(classes: list[Object], annotations: tuple[str, ...]) -> str:
    """The name of the class marked as default; of several the newest, then by name. Empty: none is marked."""
    marked = [c["metadata"] for c in classes if any(annotations_of(c).get(key) == "true" for key in annotations)]
    marked.sort(key=lambda meta: str(meta["name"]))
    return str(max(marked, key=lambda meta: str(meta["creationTimestamp"]))["name"]) if marked else ""


def claim_class(claim: Object) -> str:
    return annotations_of(claim).get(_CLASS_BEFORE) or claim["spec"].get("storageClassName") or ""


class DefaultStorageClass(BuiltinPlugin):
    """A new claim without a class gets the default one."""

    name = "DefaultStorageClass"
    resources = frozenset({CLAIMS})

    def __init__(self, read_all: ReadAll) -> None:
        self._read_all = read_all

    async def admit(self, a: AdmissionAttributes) -> None:
        if a.operation != "CREATE" or a.subresource or a.obj is None:
            return
        if _CLASS_BEFORE in annotations_of(a.obj) or a.obj["spec"].get("storageClassName") is not None:
            return
        default = newest_default(self._read_all(a.cluster, STORAGE_CLASSES), _DEFAULT_STORAGE)
        if default:
            a.obj["spec"]["storageClassName"] = default


class DefaultIngressClass(BuiltinPlugin):
    """A new Ingress without a class gets the default one."""

    name = "DefaultIngressClass"
    resources = frozenset({"ingresses.networking.k8s.io"})

    def __init__(self, read_all: ReadAll) -> None:
        self._read_all = read_all

    async def admit(self, a: AdmissionAttributes) -> None:
        if a.operation != "CREATE" or a.subresource or a.obj is None:
            return
        spec = a.obj.setdefault("spec", {})
        if spec.get("ingressClassName") is not None or "kubernetes.io/ingress.class" in annotations_of(a.obj):
            return
        classes = self._read_all(a.cluster, "ingressclasses.networking.k8s.io")
        default = newest_default(classes, ("ingressclass.kubernetes.io/is-default-class",))
        if default:
            spec["ingressClassName"] = default


class StorageObjectInUseProtection(BuiltinPlugin):
    """New claims, volumes and volume attribute classes carry a finalizer: they do not go while something uses them."""

    name = "StorageObjectInUseProtection"
    resources = frozenset(PROTECTION)

    async def admit(self, a: AdmissionAttributes) -> None:
        if a.operation != "CREATE" or a.subresource or a.obj is None:
            return
        finalizer, meta = PROTECTION[a.info.group_resource], a.obj["metadata"]
        present = meta.get("finalizers") or []
        if finalizer not in present:
            meta["finalizers"] = [*present, finalizer]


class PersistentVolumeClaimResize(BuiltinPlugin):
    """A bound claim may grow when its class allows it; no other may."""

    name = "PersistentVolumeClaimResize"
    resources = frozenset({CLAIMS})

    def __init__(self, read: Read) -> None:
        self._read = read

    async def validate(self, a: AdmissionAttributes) -> None:
        if a.operation != "UPDATE" or a.subresource or a.obj is None or a.old is None:
            return
        if _size(a.obj) <= _size(a.old):
            return
        if (a.old.get("status") or {}).get("phase") != "Bound":
            raise a.refusal("Only bound persistent volume claims can be expanded")
        name = claim_class(a.obj)
        found = self._read(a.cluster, STORAGE_CLASSES, "", name) if name and name == claim_class(a.old) else None
        if found is None or not found.get("allowVolumeExpansion"):
            raise a.refusal(
                "only dynamically provisioned pvc can be resized and "
                "the storageclass that provisions the pvc must support resize"
            )


def _size(claim: Object) -> Fraction:
    return parse(((claim["spec"].get("resources") or {}).get("requests") or {}).get("storage", 0))
