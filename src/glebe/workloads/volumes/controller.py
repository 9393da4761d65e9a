"""Observes claims and volumes of all logical clusters and carries out the verdicts.

A verdict is carried out by up to four writes, each of which bears being repeated: after a crash between any two the
next reconciliation finds what is done and does the rest. Writes are locked by resourceVersion, so that of two claims
that chose the same volume the second is refused, and chooses anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError, is_not_found
from glebe.kube.events import EventRecorder
from glebe.kube.informer import Informers
from glebe.kube.objects import CLUSTER, Object, ObjectKey, annotations_of, cluster_of, is_deleting, key_of, labels_of
from glebe.kube.pods import has_ended
from glebe.kube.resources import NODES, PERSISTENT_VOLUME_CLAIMS, PODS, Resource
from glebe.kube.storage import (
    CLASSES,
    FINALIZER,
    HOSTNAME,
    LOCAL_PATH,
    PROVISIONED_BY,
    SIMULATED,
    VOLUMES,
    class_of,
    default_class,
)
from glebe.workloads.volumes import changes, expansion, provision
from glebe.workloads.volumes.indexes import (
    BY_CLAIM,
    BY_CLASS,
    NAMED,
    UNBOUND,
    WAITING,
    by_claim,
    by_volume_name,
    free_by_class,
    unbound_by_class,
    waiting_by_claim,
)
from glebe.workloads.volumes.verdicts import ClaimVerdict, Event, Sight, judge_claim, judge_volume

AGAIN: Final = 15.0
"""Seconds after which what cannot be right is looked at again."""


class Binding:
    """The controllers of claims and of volumes."""

    def __init__(self, client: Client, informers: Informers, env: Env) -> None:
        self._client = client
        self._env = env
        self._claims = informers.get(
            PERSISTENT_VOLUME_CLAIMS, indexers={UNBOUND: unbound_by_class, NAMED: by_volume_name}
        )
        self._volumes = informers.get(VOLUMES, indexers={BY_CLASS: free_by_class, BY_CLAIM: by_claim})
        self._classes = informers.get(CLASSES)
        self._nodes = informers.get(NODES)
        self._pods = informers.get(PODS, indexers={WAITING: waiting_by_claim})
        self._recorder = EventRecorder(client, env, "persistentvolume-controller")
        self._told: dict[ObjectKey, Event] = {}
        self._replaced: dict[ObjectKey, str] = {}  # versions that this controller itself has replaced
        self._claim_work = Controller("pv-claims", self.claim, env, workers=8)
        self._volume_work = Controller("pv-volumes", self.volume, env, workers=8)

    def controllers(self) -> list[Controller]:
        claims, volumes = self._claim_work, self._volume_work
        claims.watch(self._claims)
        claims.watch(self._volumes, self._claims_of)
        claims.watch(self._classes, self._claims_in_class)
        for informer in (self._pods, self._nodes):
            claims.watch(informer, lambda _: (), when=lambda *_: False)  # only to wait for its first list
        volumes.watch(self._volumes)
        volumes.watch(self._claims, self._volumes_of)
        volumes.watch(self._nodes, lambda _: (), when=lambda *_: False)
        return [claims, volumes]

    # --- who is to be looked at

    def _claims_of(self, volume: Object) -> Iterable[ObjectKey]:
        key = key_of(volume, self._volumes.cluster)
        for claim in self._claims.store.by_index(NAMED, f"{cluster_of(volume)}/{key.name}"):
            yield key_of(claim, self._claims.cluster)
        ref = (volume.get("spec") or {}).get("claimRef")
        if ref:
            yield key._replace(namespace=ref.get("namespace", ""), name=ref.get("name", ""))
        elif (volume.get("status") or {}).get("phase") == "Available":
            for claim in self._claims.store.by_index(UNBOUND, f"{cluster_of(volume)}/{class_of(volume)}"):
                yield key_of(claim, self._claims.cluster)

    def _claims_in_class(self, storage_class: Object) -> Iterable[ObjectKey]:
        where = cluster_of(storage_class)
        for name in (storage_class["metadata"]["name"], ""):
            for claim in self._claims.store.by_index(UNBOUND, f"{where}/{name}"):
                yield key_of(claim, self._claims.cluster)

    def _volumes_of(self, claim: Object) -> Iterable[ObjectKey]:
        key = key_of(claim, self._claims.cluster)
        path = f"{cluster_of(claim)}/{key.namespace}/{key.name}"
        names = {v["metadata"]["name"]: None for v in self._volumes.store.by_index(BY_CLAIM, path)}
        for name in names:
            yield key._replace(namespace="", name=name)

    # --- claims

    async def claim(self, key: ObjectKey) -> Result | None:
        claim = self._claims.store.get(key)
        if claim is None:
            self._forget(key)
            return None
        if self._is_old(key, claim):
            return Result(requeue_after=1.0)
        verdict = judge_claim(claim, self._sight(key, claim))
        if verdict.event is not None:
            await self._tell(key, claim, verdict.event)
        await self._carry_out(key, claim, verdict)
        return Result(requeue_after=AGAIN) if verdict.again else None

    def _sight(self, key: ObjectKey, claim: Object) -> Sight:
        where = cluster_of(claim)

        def free() -> list[Object]:
            reserved = self._volumes.store.by_index(BY_CLAIM, f"{where}/{key.namespace}/{key.name}")
            return [*reserved, *self._volumes.store.by_index(BY_CLASS, f"{where}/{class_of(claim)}")]

        def pods() -> list[str]:
            found = self._pods.store.by_index(WAITING, f"{where}/{key.namespace}/{key.name}")
            return sorted(pod["metadata"]["name"] for pod in found if not has_ended(pod))

        return Sight(
            volume=lambda name: self._volumes.store.get(key._replace(namespace="", name=name)),
            storage_class=lambda name: self._classes.store.get(key._replace(namespace="", name=name)),
            free=free,
            default=lambda: default_class(self._classes.members(key.cluster)),
            waiting_pods=pods,
        )

    async def _carry_out(self, key: ObjectKey, claim: Object, verdict: ClaimVerdict) -> None:
        if verdict.bind is not None:
            await self._bind(key, claim, verdict.bind)
        elif verdict.assign:
            spec = {**claim["spec"], "storageClassName": verdict.assign}
            await self._write(PERSISTENT_VOLUME_CLAIMS, {**claim, "spec": spec}, claim)
        elif verdict.provision is not None:
            await self._provision(key, claim, verdict.provision)
        elif verdict.phase:
            await self._write_status(PERSISTENT_VOLUME_CLAIMS, changes.claim_status(claim, verdict.phase, None), claim)

    async def _bind(self, key: ObjectKey, claim: Object, volume: Object) -> None:
        volume = await self._write(VOLUMES, changes.claimed(volume, claim), volume)
        volume = await self._write_status(VOLUMES, changes.volume_status(volume, "Bound", ""), volume)
        claim = await self._write(PERSISTENT_VOLUME_CLAIMS, changes.bound(claim, volume), claim)
        storage_class = self._classes.store.get(key._replace(namespace="", name=class_of(claim)))
        wanted = expansion.wanted(claim, volume, storage_class)
        if wanted.volume is not None:
            volume = await self._write(VOLUMES, wanted.volume, volume)
        claim = await self._write_status(
            PERSISTENT_VOLUME_CLAIMS,
            expansion.status(changes.claim_status(claim, "Bound", volume), claim, volume),
            claim,
        )
        self._told.pop(key, None)
        if wanted.event is not None:
            await self._tell(key, claim, wanted.event)

    async def _provision(self, key: ObjectKey, claim: Object, storage_class: Object) -> None:
        order = provision.order(claim, storage_class, lambda name: self._node(key, name))
        if order.claim is not None:
            claim = await self._write(PERSISTENT_VOLUME_CLAIMS, order.claim, claim)
        if order.volume is not None:
            try:
                await self._client.at(key.cluster).create(VOLUMES, order.volume)
            except ApiError as error:
                if error.code != 409:
                    await self._tell(key, claim, provision.failed(storage_class, error.message))
                    raise
        if order.event is not None:
            await self._tell(key, claim, order.event)

    def _node(self, key: ObjectKey, name: str) -> Object | None:
        return self._nodes.store.get(key._replace(namespace="", name=name))

    # --- volumes

    async def volume(self, key: ObjectKey) -> Result | None:
        volume = self._volumes.store.get(key)
        if volume is None:
            self._forget(key)
            return None
        if self._is_old(key, volume):
            return Result(requeue_after=1.0)
        claim = await self._claim_of(key, volume)
        verdict = judge_volume(volume, claim, simulated=self._is_nothing(key, volume))
        if verdict.tell_claim and claim is not None:
            self._claim_work.queue.add(key_of(claim, "")._replace(cluster=key.cluster))
        if verdict.unbind:
            volume = await self._write(VOLUMES, changes.unclaimed(volume), volume)
            await self._write_status(VOLUMES, changes.volume_status(volume, "Available", ""), volume)
        elif verdict.delete:
            await self._delete(key, volume)
        elif verdict.phase:
            await self._write_status(VOLUMES, changes.volume_status(volume, verdict.phase, verdict.message), volume)
        if verdict.event is not None:
            await self._recorder.event(volume, verdict.event.type, verdict.event.reason, verdict.event.message)
        return None

    async def _claim_of(self, key: ObjectKey, volume: Object) -> Object | None:
        """The very claim that the volume refers to; the API is asked before it is called gone."""
        ref = (volume.get("spec") or {}).get("claimRef") or {}
        uid = ref.get("uid")
        if not uid:
            return None
        where = key._replace(namespace=ref.get("namespace", ""), name=ref.get("name", ""))
        claim = self._claims.store.get(where)
        if claim is None or claim["metadata"]["uid"] != uid:
            if (volume.get("status") or {}).get("phase") in ("Released", "Failed"):
                return None
            try:
                claim = await self._client.at(key.cluster).get(PERSISTENT_VOLUME_CLAIMS, where.name, where.namespace)
            except ApiError as error:
                if not is_not_found(error):
                    raise
                return None
        return claim if claim["metadata"]["uid"] == uid else None

    def _is_nothing(self, key: ObjectKey, volume: Object) -> bool:
        """Behind a simulated volume there is nothing, nor behind one whose node is gone for good."""
        if SIMULATED in annotations_of(volume):
            return True
        if annotations_of(volume).get(PROVISIONED_BY) != LOCAL_PATH:
            return False
        host = provision.host_of(volume)
        if self._node(key, host) is not None:
            return False
        return not any(labels_of(node).get(HOSTNAME) == host for node in self._nodes.members(key.cluster))

    async def _delete(self, key: ObjectKey, volume: Object) -> None:
        meta = volume["metadata"]
        left = [f for f in meta.get("finalizers") or () if f != FINALIZER]
        try:
            if left != (meta.get("finalizers") or []):
                await self._write(VOLUMES, {**volume, "metadata": {**meta, "finalizers": left}}, volume)
            elif not is_deleting(volume):
                await self._client.at(key.cluster).delete(VOLUMES, meta["name"], uid=meta["uid"])
        except ApiError as error:
            if not is_not_found(error):
                raise

    # --- writes

    async def _write(self, resource: Resource, new: Object | None, old: Object) -> Object:
        return await self._send(resource, new, old, None)

    async def _write_status(self, resource: Resource, new: Object | None, old: Object) -> Object:
        return await self._send(resource, new, old, "status")

    async def _send(self, resource: Resource, new: Object | None, old: Object, part: str | None) -> Object:
        """Write ``new`` if there is anything new; returns what is there now."""
        if new is None:
            return old
        written = await self._client.update(resource, new, subresource=part)
        if cluster := cluster_of(old):
            written["metadata"][CLUSTER] = cluster
        if written["metadata"].get("resourceVersion") != old["metadata"].get("resourceVersion"):
            key = key_of(old, self._client.cluster)
            self._replaced[key] = written["metadata"]["resourceVersion"]
        return written

    def _is_old(self, key: ObjectKey, obj: Object) -> bool:
        """Whether the cache has not seen our last write yet; its event wakes us."""
        written = self._replaced.get(key)
        if written is None:
            return False
        if int(obj["metadata"].get("resourceVersion") or 0) < int(written):
            return True
        del self._replaced[key]
        return False

    def _forget(self, key: ObjectKey) -> None:
        self._told.pop(key, None)
        self._replaced.pop(key, None)

    async def _tell(self, key: ObjectKey, claim: Object, event: Event) -> None:
        """Once, until there is something else to say."""
        if self._told.get(key) == event:
            return
        self._told[key] = event
        await self._recorder.event(claim, event.type, event.reason, event.message)
