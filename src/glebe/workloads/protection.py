"""Claims, volumes and volume attribute classes stay while something uses them (``pkg/controller/volume/*protection``).

Admission puts a finalizer on each; when one is deleted and nothing uses it (any more), the finalizer is taken off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError, is_not_found
from glebe.kube.informer import Informer, Informers
from glebe.kube.objects import EVERY, Object, ObjectKey, cluster_of, controller_of, is_deleting, key_of
from glebe.kube.pods import BY_SPACE, has_ended, space, space_of
from glebe.kube.resources import PODS, Resource

CLAIMS: Final = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
VOLUMES: Final = Resource("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False)
CLASSES: Final = Resource("storage.k8s.io", "v1", "volumeattributesclasses", "VolumeAttributesClass", namespaced=False)
FINALIZERS: Final = {
    CLAIMS: "kubernetes.io/pvc-protection",
    VOLUMES: "kubernetes.io/pv-protection",
    CLASSES: "kubernetes.io/vac-protection",
}


class Protection:
    """One controller per kind."""

    def __init__(self, client: Client, informers: Informers, env: Env) -> None:
        self._client = client
        self._env = env
        self._pods = informers.get(PODS, indexers={BY_SPACE: space_of})
        self._claims = informers.get(CLAIMS)
        self._volumes = informers.get(VOLUMES)
        self._classes = informers.get(CLASSES)

    def controllers(self) -> list[Controller]:
        claims = Controller("pvc-protection", self.claim, self._env)
        claims.watch(self._claims, when=_ends)
        claims.watch(self._pods, self._claims_of, when=lambda old, new: new is None)
        volumes = Controller("pv-protection", self.volume, self._env)
        volumes.watch(self._volumes, when=_ends)
        classes = Controller("vac-protection", self.attributes_class, self._env)
        classes.watch(self._classes, when=_ends)
        classes.watch(self._claims, self._classes_of)
        classes.watch(self._volumes, self._classes_of)
        return [claims, volumes, classes]

    async def claim(self, key: ObjectKey) -> Result | None:
        where = space(key.cluster if self._client.cluster == EVERY else "", key.namespace)

        def used(claim: Object) -> bool:
            return any(_uses(pod, claim) for pod in self._pods.store.by_index(BY_SPACE, where))

        return await self._release(CLAIMS, self._claims, key, used)

    async def volume(self, key: ObjectKey) -> Result | None:
        return await self._release(
            VOLUMES, self._volumes, key, lambda volume: (volume.get("status") or {}).get("phase") == "Bound"
        )

    async def attributes_class(self, key: ObjectKey) -> Result | None:
        def used(obj: Object) -> bool:
            holders = (*self._claims.store.values(), *self._volumes.store.values())
            here = (h for h in holders if cluster_of(h) == cluster_of(obj))
            return any(key.name in _class_names(holder) for holder in here)

        return await self._release(CLASSES, self._classes, key, used)

    async def _release(
        self, resource: Resource, informer: Informer, key: ObjectKey, used: Callable[[Object], bool]
    ) -> Result | None:
        obj = informer.store.get(key)
        finalizer = FINALIZERS[resource]
        if obj is None or not is_deleting(obj) or finalizer not in (obj["metadata"].get("finalizers") or ()):
            return None
        if used(obj):
            return None
        rest = [f for f in obj["metadata"]["finalizers"] if f != finalizer]
        body = {**obj, "metadata": {**obj["metadata"], "finalizers": rest}}
        try:
            await self._client.at(key.cluster).update(resource, body)
        except ApiError as error:
            if not is_not_found(error):
                raise
        return None

    def _claims_of(self, pod: Object) -> Iterable[ObjectKey]:
        key = key_of(pod, self._client.cluster)
        for name in _claim_names(pod):
            yield key._replace(name=name)

    def _classes_of(self, holder: Object) -> Iterable[ObjectKey]:
        key = key_of(holder, self._client.cluster)
        for name in _class_names(holder):
            yield key._replace(namespace="", name=name)


def _ends(old: Object | None, new: Object | None) -> bool:
    return new is not None and is_deleting(new)


def _claim_names(pod: Object) -> list[str]:
    """The claims that the pod's volumes name, or that are made for its ephemeral ones."""
    out = []
    for volume in pod["spec"].get("volumes") or ():
        if "persistentVolumeClaim" in volume:
            out.append(str(volume["persistentVolumeClaim"].get("claimName", "")))
        elif "ephemeral" in volume:
            out.append(f"{pod['metadata']['name']}-{volume['name']}")
    return out


def _uses(pod: Object, claim: Object) -> bool:
    """Pods on a node do; others will not start with a claim that is being deleted."""
    if not pod["spec"].get("nodeName"):
        return False
    name = claim["metadata"]["name"]
    for volume in pod["spec"].get("volumes") or ():
        if (volume.get("persistentVolumeClaim") or {}).get("claimName") == name:
            return True
        if "ephemeral" in volume and f"{pod['metadata']['name']}-{volume['name']}" == name and not has_ended(pod):
            return bool((controller_of(claim) or {}).get("uid") == pod["metadata"]["uid"])
    return False


def _class_names(holder: Object) -> list[str]:
    """The attribute classes that a claim or a volume has, had or gets."""
    spec, status = holder.get("spec") or {}, holder.get("status") or {}
    names = (
        spec.get("volumeAttributesClassName"),
        status.get("currentVolumeAttributesClassName"),
        (status.get("modifyVolumeStatus") or {}).get("targetVolumeAttributesClassName"),
    )
    return list(dict.fromkeys(str(name) for name in names if name))


def build(client: Client, informers: Informers, env: Env) -> list[Controller]:
    """The controllers, for one cluster or (with a client over :data:`EVERY`) for all."""
    return Protection(client, informers, env).controllers()
