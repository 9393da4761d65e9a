"""Makes ResourceClaims from templates for pods, and takes claims back from pods that are done with them.

Upstream's ``pkg/controller/resourceclaim``, without claims of PodGroups (off by default in 1.36). Two controllers: one
key per pod that needs claims, one per claim.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Final

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError, is_already_exists, is_conflict, is_not_found
from glebe.kube.events import WARNING, EventRecorder
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey, cluster_of, controller_of, is_deleting, key_of
from glebe.kube.resources import PODS
from glebe.workloads.claims.names import (
    CLAIMS,
    ENTRY,
    FINALIZER,
    NOT_MADE,
    TEMPLATES,
    allocation_of,
    consumer,
    entries,
    is_done,
    is_for,
    is_reserved,
    names,
    reserved_for,
)

_BY_CLAIM: Final = "resourceclaims"
_BY_TEMPLATE: Final = "resourceclaimtemplates"
_LONGEST: Final = 57
_LETTERS: Final = "bcdfghjklmnpqrstvwxz2456789"
_WORKERS: Final = 4


def _by_claim(pod: Object) -> list[str]:
    if not (pod.get("spec") or {}).get("resourceClaims"):
        return []
    place = f"{cluster_of(pod)}/{pod['metadata']['namespace']}"
    return [f"{place}/{name}" for name in dict.fromkeys(names(pod))]


def _by_template(pod: Object) -> list[str]:
    given = (pod.get("spec") or {}).get("resourceClaims")
    if not given:
        return []
    place = f"{cluster_of(pod)}/{pod['metadata']['namespace']}"
    return [f"{place}/{t}" for t in dict.fromkeys(e.get("resourceClaimTemplateName") for e in given) if t]


def claim_name(pod: Object, entry: str, attempt: int = 0) -> str:
    """The name of the claim for one entry: as upstream's, but the same each time, so that none is made twice."""
    own = pod["metadata"]["name"]
    base = f"{own}-{entry}-"
    if len(base) > _LONGEST:
        base = f"{own[: len(own) * _LONGEST // len(base)]}-{entry[: len(entry) * _LONGEST // len(base)]}"
    digest = hashlib.sha256(f"{pod['metadata']['uid']}/{entry}/{attempt}".encode()).digest()
    return base + "".join(_LETTERS[byte % len(_LETTERS)] for byte in digest[:5])


class ResourceClaims:
    """Serves all clusters that ``informers`` cover."""

    def __init__(self, client: Client, informers: Informers, env: Env) -> None:
        self._client = client
        self._env = env
        self._events = EventRecorder(client, env, "resource_claim")
        self._pods = informers.get(PODS, indexers={_BY_CLAIM: _by_claim, _BY_TEMPLATE: _by_template})
        self._claims = informers.get(CLAIMS)
        self._templates = informers.get(TEMPLATES)

    def controllers(self) -> list[Controller]:
        pods = Controller("resourceclaim-pods", self.serve, self._env, workers=_WORKERS)
        pods.watch(self._pods, when=_wants)
        pods.watch(self._claims, lambda claim: self._pods_of(_BY_CLAIM, claim))
        pods.watch(self._templates, lambda template: self._pods_of(_BY_TEMPLATE, template))
        claims = Controller("resourceclaims", self.settle, self._env, workers=_WORKERS)
        claims.watch(self._claims)
        claims.watch(self._pods, self._claims_of, when=_is_over)
        return [pods, claims]

    def _pods_of(self, index: str, obj: Object) -> Iterable[ObjectKey]:
        value = f"{cluster_of(obj)}/{obj['metadata']['namespace']}/{obj['metadata']['name']}"
        return [key_of(pod, self._pods.cluster) for pod in self._pods.store.by_index(index, value)]

    def _claims_of(self, pod: Object) -> Iterable[ObjectKey]:
        key = key_of(pod, self._pods.cluster)
        return [key._replace(name=name) for name in names(pod)]

    # --- one pod

    async def serve(self, key: ObjectKey) -> Result | None:
        """Make the claims that the pod's templates are for, and reserve what a pod with a node uses."""
        pod = self._pods.store.get(key)
        if pod is None or is_deleting(pod) or is_done(pod):
            return None
        made: dict[str, str] = {}
        for entry, name in entries(pod):
            if name is None or not entry.get("resourceClaimTemplateName"):
                continue
            claim = self._claims.store.get(key._replace(name=name)) if name != NOT_MADE else None
            if claim is not None and is_for(pod, claim):
                continue
            if (found := await self._make(key, pod, entry)) is None:
                return None
            if found != name:
                made[entry["name"]] = found
        if made:
            statuses = [{"name": entry, "resourceClaimName": name} for entry, name in made.items()]
            body = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": {"resourceClaimStatuses": statuses}}
            await self._patch_pod(key, body)
        elif (pod.get("spec") or {}).get("nodeName"):
            await self._reserve(key, pod)
        return None

    async def _patch_pod(self, key: ObjectKey, body: dict[str, Any]) -> None:
        client = self._client.at(key.cluster)
        try:
            await client.patch(PODS, key.name, body, key.namespace, kind="strategic", subresource="status")
        except ApiError as error:
            if not is_not_found(error) and not is_conflict(error):
                raise

    async def _make(self, key: ObjectKey, pod: Object, entry: dict[str, Any] | Any) -> str | None:
        """The name of the pod's own claim for the entry; ``None``: there is no template, which the pod is told."""
        wanted = entry["resourceClaimTemplateName"]
        template = self._templates.store.get(key._replace(name=wanted))
        if template is None:
            why = f'resourceclaimtemplate.resource.k8s.io "{wanted}" not found'
            await self._failed(pod, entry["name"], f'resource claim template "{wanted}": {why}')
            return None
        for attempt in range(8):
            claim = _from_template(pod, entry["name"], template, claim_name(pod, entry["name"], attempt))
            try:
                await self._client.at(key.cluster).create(CLAIMS, claim)
                return str(claim["metadata"]["name"])
            except ApiError as error:
                if not is_already_exists(error):
                    await self._failed(pod, entry["name"], f"create ResourceClaim : {error}")
                    raise
            found = await self._live(key._replace(name=claim["metadata"]["name"]))
            if found is not None and is_for(pod, found) and not is_deleting(found):
                return str(found["metadata"]["name"])
        raise RuntimeError(f"all names for the claim {entry['name']} of pod {key.name} are in use")

    async def _failed(self, pod: Object, entry: str, why: str) -> None:
        await self._events.event(pod, WARNING, "FailedResourceClaimCreation", f"PodResourceClaim {entry}: {why}")

    async def _live(self, key: ObjectKey) -> Object | None:
        try:
            return await self._client.at(key.cluster).get(CLAIMS, key.name, key.namespace)
        except ApiError as error:
            if not is_not_found(error):
                raise
            return None

    async def _reserve(self, key: ObjectKey, pod: Object) -> None:
        """A pod that got its node from somebody who does not care for claims becomes the consumer of what it uses."""
        for name in names(pod):
            claim = self._claims.store.get(key._replace(name=name))
            if claim is None or allocation_of(claim) is None or is_reserved(claim, pod["metadata"]["uid"]):
                continue
            await self._write(claim, {"status": {"reservedFor": [*reserved_for(claim), consumer(pod)]}}, "status")

    # --- one claim

    async def settle(self, key: ObjectKey) -> Result | None:
        """Forget consumers that are done; with the last of them the devices go, and a claim that was made for one."""
        claim = self._claims.store.get(key)
        if claim is None:
            return None
        before = reserved_for(claim)
        left = [each for each in before if await self._still_uses(key, each)]
        protected = FINALIZER in (claim["metadata"].get("finalizers") or ())
        if len(left) < len(before):
            status: dict[str, Any] = {"reservedFor": left or None}
            if not left and protected:
                status |= {"allocation": None, "devices": None}
            claim = await self._write(claim, {"status": status}, "status")
            if protected and allocation_of(claim) is None:
                claim = await self._release(claim)
        elif protected and is_deleting(claim) and not left:
            if allocation_of(claim) is not None:
                claim = await self._write(claim, {"status": {"allocation": None, "devices": None}}, "status")
            claim = await self._release(claim)
        if not left:
            await self._remove_if_unused(key, claim)
        return None

    async def _still_uses(self, key: ObjectKey, reference: dict[str, Any]) -> bool:
        if reference.get("apiGroup") or reference.get("resource") != "pods":
            return True  # nobody here knows such consumers
        pod = self._pods.store.get(key._replace(name=reference["name"]))
        if pod is None or pod["metadata"]["uid"] != reference.get("uid"):
            try:  # the cache may not have it yet, or still its predecessor of the same name
                pod = await self._client.at(key.cluster).get(PODS, reference["name"], key.namespace)
            except ApiError as error:
                if not is_not_found(error):
                    raise
                return False
        return bool(pod["metadata"]["uid"] == reference.get("uid")) and not is_done(pod)

    async def _release(self, claim: Object) -> Object:
        finalizers = [f for f in claim["metadata"].get("finalizers") or () if f != FINALIZER]
        return await self._write(claim, {"metadata": {"finalizers": finalizers or None}})

    async def _write(self, claim: Object, patch: dict[str, Any], subresource: str | None = None) -> Object:
        """A write that fails when the claim is not the one that was looked at."""
        meta = claim["metadata"]
        lock = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
        body = {**patch, "metadata": {**patch.get("metadata", {}), **lock}}
        client = self._client.at(cluster_of(claim) or self._claims.cluster)
        try:
            written = await client.patch(CLAIMS, meta["name"], body, meta["namespace"], subresource=subresource)
        except ApiError as error:
            if not is_not_found(error):
                raise
            return claim
        return {**written, "metadata": {**meta, **written["metadata"]}}  # with its cluster

    async def _remove_if_unused(self, key: ObjectKey, claim: Object) -> None:
        owner = controller_of(claim)
        if owner is None or owner.get("kind") != "Pod" or owner.get("apiVersion") != "v1" or is_deleting(claim):
            return
        pod = self._pods.store.get(key._replace(name=str(owner["name"])))
        if pod is None or (pod["metadata"]["uid"] == owner["uid"] and not is_done(pod)):
            return  # without its owner, the garbage collector removes it
        try:
            uid = claim["metadata"]["uid"]
            await self._client.at(key.cluster).delete(CLAIMS, key.name, key.namespace, uid=uid)
        except ApiError as error:
            if not is_not_found(error) and not is_conflict(error):
                raise


def _wants(old: Object | None, new: Object | None) -> bool:
    return new is not None and bool((new.get("spec") or {}).get("resourceClaims"))


def _is_over(old: Object | None, new: Object | None) -> bool:
    pod = new or old or {}
    return bool((pod.get("spec") or {}).get("resourceClaims")) and (new is None or is_done(new))


def _from_template(pod: Object, entry: str, template: Object, name: str) -> Object:
    inside = template.get("spec") or {}
    meta = inside.get("metadata") or {}
    owner = {"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
    made: Object = {
        "apiVersion": CLAIMS.api_version,
        "kind": CLAIMS.kind,
        "metadata": {
            "name": name,
            "namespace": pod["metadata"]["namespace"],
            "annotations": {**(meta.get("annotations") or {}), ENTRY: entry},
            "labels": dict(meta.get("labels") or {}),
            "ownerReferences": [{**owner, "controller": True}],
        },
        "spec": inside.get("spec") or {},
    }
    return made


def build(client: Client, informers: Informers, env: Env) -> list[Controller]:
    """The controllers, for one cluster or (with a client over all) for all."""
    return ResourceClaims(client, informers, env).controllers()
