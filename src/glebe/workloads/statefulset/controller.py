"""Observes StatefulSets, their pods, claims and revisions, and carries out the plans of ``reconcile``."""

from __future__ import annotations

import re

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError, is_already_exists, is_not_found
from glebe.kube.events import NORMAL, WARNING, EventRecorder
from glebe.kube.informer import Informers
from glebe.kube.objects import EVERY, Object, ObjectKey, is_deleting, key_of
from glebe.kube.pods import BY_SPACE, space
from glebe.kube.resources import PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS
from glebe.workloads.owned import Claims, each, in_batches
from glebe.workloads.podwriter import PodWriter, Words
from glebe.workloads.revisions import History, surplus
from glebe.workloads.statefulset.facts import Facts
from glebe.workloads.statefulset.plan import Plan
from glebe.workloads.statefulset.pods import place_of, revision_of
from glebe.workloads.statefulset.reconcile import reconcile

HASH = "controller.kubernetes.io/hash"
BATCH = 0.01
"""Seconds for which changes of a set's pods are gathered."""
WORDS = Words(
    created=lambda pod, owner: f"Create Pod {pod} in StatefulSet {owner} successful",
    deleted=lambda pod, owner: f"Delete Pod {pod} in StatefulSet {owner} successful",
    not_created=lambda error, pod, owner: f"Create Pod {pod} in StatefulSet {owner} failed error: {error}",
    not_deleted=lambda error, pod, owner: f"Delete Pod {pod} in StatefulSet {owner} failed error: {error}",
)


class StatefulSetController:
    """The shell; all decisions are in ``reconcile``."""

    def __init__(self, client: Client, informers: Informers, env: Env) -> None:
        self._client = client
        self._env = env
        self._sets = informers.get(STATEFUL_SETS)
        self._claims = informers.get(PERSISTENT_VOLUME_CLAIMS)
        self._members = Claims(client, informers, STATEFUL_SETS, PODS)
        self._history = History(client, informers, STATEFUL_SETS, HASH)
        self._recorder = EventRecorder(client, env, "statefulset-controller")
        self._writer = PodWriter(client, self._members.dependents, env, self._recorder, WORDS)
        self._written: dict[ObjectKey, str] = {}
        self._controller = Controller("statefulset", self.reconcile, env, workers=4)

    def controller(self) -> Controller:
        controller = self._controller
        self._members.on_change(self._on_pod)
        self._history.claims.on_change(lambda key, _old, _new: controller.queue.add(key))
        self._claims.add_handler(self._on_claim)
        controller.watch(self._sets)
        for informer in (self._members.dependents, self._history.claims.dependents, self._claims):
            controller.watch(informer, lambda _: (), when=lambda *_: False)  # only to wait for its first list
        return controller

    def _on_pod(self, key: ObjectKey, old: Object | None, new: Object | None) -> None:
        self._writer.observed(key, old, new)
        self._controller.queue.add_after(key, BATCH)

    def _on_claim(self, old: Object | None, new: Object | None) -> None:
        """A claim that went may be what a pod waits for."""
        if new is not None or old is None:
            return
        key = key_of(old, self._claims.cluster)
        where = space(key.cluster if self._client.cluster == EVERY else "", key.namespace)
        for owner in self._sets.store.by_index(BY_SPACE, where):
            name = owner["metadata"]["name"]
            for template in owner["spec"].get("volumeClaimTemplates") or ():
                if re.fullmatch(rf"{re.escape(template['metadata']['name'])}-{re.escape(name)}-\d+", key.name):
                    self._controller.queue.add(key._replace(name=name))

    # --- one reconciliation

    async def reconcile(self, key: ObjectKey) -> Result | None:
        owner = self._sets.store.get(key)
        if owner is None:
            self._writer.forget(key)
            self._written.pop(key, None)
            return None
        if self._written.get(key) == owner["metadata"].get("resourceVersion"):
            return Result(requeue_after=1.0)  # our own last write is not in the cache yet; its event wakes us earlier
        if not await self._writer.settled(key):
            return Result(requeue_after=(self._writer.wait(key) or 0.0) + 0.001)
        revisions = await self._history.claim(key, owner)
        pods = await self._members.claim(key, owner, lambda pod: place_of(pod)[0] == key.name)
        if is_deleting(owner) and not revisions:
            return None
        update, collisions = await self._history.update_revision(key, owner, revisions)
        wanted = (owner.get("status") or {}).get("currentRevision")
        current = next((r for r in revisions if r["metadata"]["name"] == wanted), update)
        facts = Facts(owner, pods, current, update, self._env.clock.now(), self._finder(key), collisions)
        plan = reconcile(facts)
        await self._carry_out(key, owner, plan)
        live = [facts.current_name, facts.update_name, *(revision_of(p) for p in pods)]
        limit = int(owner["spec"].get("revisionHistoryLimit", 10))
        await each(surplus(revisions, live, limit), lambda r: self._history.delete(key, r))
        waits = [s for s in (plan.requeue_after, self._writer.wait(key)) if s is not None]
        return Result(requeue_after=min(waits) + 0.001) if waits else None

    def _finder(self, key: ObjectKey):  # type: ignore[no-untyped-def]
        return lambda name: self._claims.store.get(key._replace(name=name))

    async def _carry_out(self, key: ObjectKey, owner: Object, plan: Plan) -> None:
        if plan.status is not None:
            await self._write_status(key, owner, plan.status)
        for name in plan.conflicts:
            text = (
                f"PersistentVolumeClaim {name} has a conflicting OwnerReference that acts as a managing controller, "
                "the retention policy is ignored for this claim"
            )
            await self._recorder.event(owner, WARNING, "ConflictingController", text)
        await each(plan.claim_owners, lambda item: self._set_owners(key, *item))
        await each(plan.claims, lambda item: self._create_claim(key, owner, *item))
        await each(plan.repair, lambda pod: self._repair(key, owner, pod))
        await each(plan.replace, lambda pod: self._writer.delete(key, owner, pod))
        for pod, why in plan.refused:
            await self._recorder.event(owner, WARNING, "FailedCreate", WORDS.not_created(why, pod, key.name))
        await in_batches(plan.create, lambda pod: self._writer.create(key, owner, pod))
        await in_batches(plan.condemn, lambda pod: self._writer.delete(key, owner, pod))
        await each(plan.update, lambda pod: self._writer.delete(key, owner, pod))

    # --- single writes

    async def _write_status(self, key: ObjectKey, owner: Object, status: Object) -> None:
        old = owner["metadata"].get("resourceVersion", "")
        new = await self._client.update_status(STATEFUL_SETS, {**owner, "status": status})
        if new["metadata"].get("resourceVersion") != old:
            self._written[key] = old

    async def _set_owners(self, key: ObjectKey, claim: Object, owners: list[Object]) -> None:
        meta = claim["metadata"]
        body = {
            "metadata": {
                "uid": meta["uid"],
                "resourceVersion": meta["resourceVersion"],
                "ownerReferences": owners or None,
            }
        }
        try:
            await self._client.at(key.cluster).patch(PERSISTENT_VOLUME_CLAIMS, meta["name"], body, key.namespace)
        except ApiError as error:
            if not is_not_found(error):
                raise

    async def _create_claim(self, key: ObjectKey, owner: Object, pod: str, claim: Object) -> None:
        name = claim["metadata"]["name"]
        try:
            await self._client.at(key.cluster).create(PERSISTENT_VOLUME_CLAIMS, claim)
        except ApiError as error:
            if is_already_exists(error):
                return
            text = f"Create Claim {name} for Pod {pod} in StatefulSet {key.name} failed error: {error.message}"
            await self._recorder.event(owner, WARNING, "FailedCreate", text)
            raise
        text = f"Create Claim {name} Pod {pod} in StatefulSet {key.name} success"
        await self._recorder.event(owner, NORMAL, "SuccessfulCreate", text)

    async def _repair(self, key: ObjectKey, owner: Object, pod: Object) -> None:
        name = pod["metadata"]["name"]
        try:
            await self._client.update(PODS, pod)
        except ApiError as error:
            text = f"Update Pod {name} in StatefulSet {key.name} failed error: {error.message}"
            await self._recorder.event(owner, WARNING, "FailedUpdate", text)
            raise
        text = f"Update Pod {name} in StatefulSet {key.name} successful"
        await self._recorder.event(owner, NORMAL, "SuccessfulUpdate", text)


def build(client: Client, informers: Informers, env: Env) -> Controller:
    """The StatefulSet controller of what ``client`` reads: one cluster, or all."""
    return StatefulSetController(client, informers, env).controller()
