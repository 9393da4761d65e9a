"""Claims of generic ephemeral volumes: made for a pod, owned by it, gone with it."""

from __future__ import annotations

from typing import Any, Final

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError, is_already_exists
from glebe.kube.events import WARNING, EventRecorder
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey, controller_of, is_deleting, key_of, owner_reference
from glebe.kube.pods import has_ended
from glebe.kube.resources import PERSISTENT_VOLUME_CLAIMS, PODS

AGAIN: Final = 10.0
"""Seconds until the next attempt when another claim has the name, or one is refused."""


class Ephemeral:
    """One object for all clusters."""

    def __init__(self, client: Client, informers: Informers, env: Env) -> None:
        self._client = client
        self._pods = informers.get(PODS)
        self._claims = informers.get(PERSISTENT_VOLUME_CLAIMS)
        self._recorder = EventRecorder(client, env, "ephemeral-volume")
        self.controller = Controller("ephemeral-volume", self.reconcile, env, workers=4)
        self.controller.watch(self._pods, when=lambda old, new: new is not None and has_ephemeral(new))
        self.controller.watch(self._claims, self._pods_of, when=lambda old, new: new is None)

    def _pods_of(self, claim: Object) -> list[ObjectKey]:
        owner = controller_of(claim)
        if owner is None or owner.get("kind") != "Pod":
            return []
        return [key_of(claim, self._claims.cluster)._replace(name=owner["name"])]

    async def reconcile(self, key: ObjectKey) -> Result | None:
        pod = self._pods.store.get(key)
        if pod is None or is_deleting(pod) or has_ended(pod):
            return None
        for volume in pod["spec"].get("volumes") or ():
            if "ephemeral" in volume and (problem := await self._provide(key, pod, volume)):
                text = f"ephemeral volume {volume['name']}: {problem}"
                await self._recorder.event(pod, WARNING, "FailedBinding", text)
                return Result(requeue_after=AGAIN)
        return None

    async def _provide(self, key: ObjectKey, pod: Object, volume: dict[str, Any]) -> str:
        """Make the claim unless it is there; what is wrong, ``""`` if nothing."""
        claim = claim_for(pod, volume)
        name = claim["metadata"]["name"]
        known = self._claims.store.get(key._replace(name=name))
        if known is None:
            try:
                await self._client.at(key.cluster).create(PERSISTENT_VOLUME_CLAIMS, claim)
                return ""
            except ApiError as error:
                if not is_already_exists(error):
                    return f"create PVC {name}: {error.message}"
            known = await self._client.at(key.cluster).get(PERSISTENT_VOLUME_CLAIMS, name, key.namespace)
        if (controller_of(known) or {}).get("uid") == pod["metadata"]["uid"]:
            return ""
        where = f"{key.namespace}/{name}"
        return f"PVC {where} was not created for pod {key.namespace}/{key.name} (pod is not owner)"


def has_ephemeral(pod: Object) -> bool:
    return any("ephemeral" in volume for volume in pod["spec"].get("volumes") or ())


def claim_for(pod: Object, volume: dict[str, Any]) -> Object:
    """The claim that belongs to an ephemeral volume."""
    template = volume["ephemeral"].get("volumeClaimTemplate") or {}
    meta = template.get("metadata") or {}
    owner = owner_reference({**pod, "apiVersion": PODS.api_version, "kind": PODS.kind})
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": f"{pod['metadata']['name']}-{volume['name']}",
            "namespace": pod["metadata"]["namespace"],
            "labels": dict(meta.get("labels") or {}),
            "annotations": dict(meta.get("annotations") or {}),
            "ownerReferences": [owner],
        },
        "spec": template.get("spec") or {},
    }


def build(client: Client, informers: Informers, env: Env) -> Controller:
    """The controller, for one cluster or for all."""
    return Ephemeral(client, informers, env).controller
