"""Volumes of provisioner ``glebe.dev/local-path``: directories of this machine, made for claims and removed after them.

A claim that names this node (``volume.kubernetes.io/selected-node``) gets a directory and a PersistentVolume that is
reserved for it. When the claim is gone and the volume is to be deleted, the directory goes first, then the object; a
finalizer keeps the object until then, whoever deletes it. Only directories made here are ever removed.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError, is_already_exists, is_not_found
from glebe.kube.events import NORMAL, WARNING, EventRecorder
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey, annotations_of, is_deleting, key_of
from glebe.kube.resources import PERSISTENT_VOLUME_CLAIMS
from glebe.kube.storage import (
    CLASSES,
    FINALIZER,
    LOCAL_PATH,
    PROVISIONER,
    SELECTED_NODE,
    SIMULATED,
    VOLUMES,
    class_of,
    local_volume,
    mode_of,
    node_of_local,
    volume_name,
)
from glebe.node.spec import HOSTNAME_LABEL, NodeSpec


class LocalPaths:
    """The volumes of one node, below ``root``."""

    def __init__(self, client: Client, informers: Informers, env: Env, spec: NodeSpec, root: Path) -> None:
        self._client = client
        self._spec = spec
        self._root = root
        self._host = spec.labels.get(HOSTNAME_LABEL, spec.name)
        self._claims = informers.get(PERSISTENT_VOLUME_CLAIMS)
        self._volumes = informers.get(VOLUMES)
        self._classes = informers.get(CLASSES)
        self._recorder = EventRecorder(client, env, f"{LOCAL_PATH}_{spec.name}")
        claims = Controller("local-paths", self.provide, env)
        claims.watch(self._claims, when=self._is_ours)
        claims.watch(self._classes, self._waiting, when=lambda old, _: old is None)
        volumes = Controller("local-paths-reclaim", self.reclaim, env)
        volumes.watch(self._volumes, when=lambda _, new: new is not None and self._has(new))
        self.controllers: list[Controller] = [claims, volumes]

    def _is_ours(self, _: Object | None, new: Object | None) -> bool:
        if new is None or (new.get("spec") or {}).get("volumeName"):
            return False
        marks = annotations_of(new)
        return (marks.get(SELECTED_NODE), marks.get(PROVISIONER)) == (self._spec.name, LOCAL_PATH)

    def _has(self, volume: Object) -> bool:
        return node_of_local(volume) == self._host and SIMULATED not in annotations_of(volume)

    def _waiting(self, storage_class: Object) -> Iterable[ObjectKey]:
        for claim in self._claims.store.values():
            if class_of(claim) == storage_class["metadata"]["name"] and self._is_ours(None, claim):
                yield key_of(claim, self._claims.cluster)

    # --- making

    async def provide(self, key: ObjectKey) -> Result | None:
        """Make the volume of a claim, unless it is made."""
        claim = self._claims.store.get(key)
        if claim is None or not self._is_ours(None, claim) or is_deleting(claim):
            return None
        storage_class = self._classes.store.get(key._replace(namespace="", name=class_of(claim)))
        if storage_class is None or storage_class.get("provisioner") != LOCAL_PATH:
            return None
        name = storage_class["metadata"]["name"]
        if mode_of(claim) != "Filesystem":
            text = f'Failed to provision volume with StorageClass "{name}": it makes directories, not block devices'
            await self._recorder.event(claim, WARNING, "ProvisioningFailed", text)
            return None
        path = self._root / volume_name(claim)
        try:
            _make(path)
            made = await self._create(claim, storage_class, path)
        except (OSError, ApiError) as error:
            text = f'Failed to provision volume with StorageClass "{name}": {error}'
            await self._recorder.event(claim, WARNING, "ProvisioningFailed", text)
            raise
        if made:
            text = f"Successfully provisioned volume {volume_name(claim)}"
            await self._recorder.event(claim, NORMAL, "ProvisioningSucceeded", text)
        return None

    async def _create(self, claim: Object, storage_class: Object, path: Path) -> bool:
        node = {"metadata": {"name": self._spec.name, "labels": dict(self._spec.labels)}}
        volume = local_volume(claim, storage_class, node, str(path))
        if volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete":
            volume["metadata"]["finalizers"] = [FINALIZER]
        try:
            await self._client.create(VOLUMES, volume)
        except ApiError as error:
            if not is_already_exists(error):
                raise
            return False
        return True

    # --- removing

    async def reclaim(self, key: ObjectKey) -> Result | None:
        """Remove what belongs to a volume that is released, and then the volume."""
        volume = self._volumes.store.get(key)
        if volume is None or not self._has(volume):
            return None
        meta, phase = volume["metadata"], (volume.get("status") or {}).get("phase")
        used = phase not in ("Released", "Failed", "Available") and phase is not None
        goes = (volume.get("spec") or {}).get("persistentVolumeReclaimPolicy") == "Delete"
        if used or not (is_deleting(volume) or (goes and phase == "Released")):
            return None
        if goes:
            path = self._root / meta["name"]
            if path.parent == self._root and path.exists():
                await asyncio.to_thread(shutil.rmtree, path)
        await self._let_go(volume)
        return None

    async def _let_go(self, volume: Object) -> None:
        meta: dict[str, Any] = volume["metadata"]
        try:
            if not is_deleting(volume):
                await self._client.delete(VOLUMES, meta["name"], uid=meta["uid"])
            elif FINALIZER in (meta.get("finalizers") or ()):
                rest = [f for f in meta["finalizers"] if f != FINALIZER]
                await self._client.update(VOLUMES, {**volume, "metadata": {**meta, "finalizers": rest}})
        except ApiError as error:
            if not is_not_found(error):
                raise


_MODE: Final = 0o777


def _make(path: Path) -> None:
    """Containers run as whoever their pods say; each sees only its own directory."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(_MODE)
