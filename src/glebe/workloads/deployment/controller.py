"""Observes Deployments and their ReplicaSets and carries out the plans of ``reconcile``."""

from __future__ import annotations

from typing import Any

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError, is_already_exists, is_not_found
from glebe.kube.events import WARNING, EventRecorder
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey, controller_of, is_deleting, key_of
from glebe.kube.pods import has_ended
from glebe.kube.resources import DEPLOYMENTS, PODS, REPLICA_SETS, Resource
from glebe.workloads.deployment import progress
from glebe.workloads.deployment.plan import Change, Event
from glebe.workloads.deployment.progress import Conditions
from glebe.workloads.deployment.reconcile import Facts, reconcile
from glebe.workloads.deployment.sets import name_of, same_template
from glebe.workloads.deployment.strategy import deadline, is_rolling
from glebe.workloads.owned import BY_CONTROLLER, Claims, controller_uid, gone_is_fine, selector_of

BATCH = 0.01
"""Seconds for which changes of a Deployment's sets are gathered."""
PATIENCE = 20.0
"""Seconds to wait for a new ReplicaSet to appear in the cache."""


class DeploymentController:
    """The shell; all decisions are in ``reconcile``."""

    def __init__(self, client: Client, informers: Informers, env: Env) -> None:
        self._client = client
        self._env = env
        self._claims = Claims(client, informers, DEPLOYMENTS, REPLICA_SETS)
        self._deployments = self._claims.owners
        self._sets = self._claims.dependents
        self._pods = informers.get(PODS, indexers={BY_CONTROLLER: controller_uid})
        self._recorder = EventRecorder(client, env, "deployment-controller")
        self._written: dict[tuple[str, ObjectKey], str] = {}  # plural, key -> the version that our write replaced
        self._created: dict[ObjectKey, tuple[str, float]] = {}  # name of the set to come, and when to doubt it
        self._controller = Controller("deployment", self.reconcile, env, workers=4)

    def controller(self) -> Controller:
        controller = self._controller
        self._claims.on_change(self._observe)
        self._pods.add_handler(self._observe_pod)
        controller.watch(self._deployments)
        for informer in (self._sets, self._pods):
            controller.watch(informer, lambda _: ())  # heard above; this waits for the first list
        return controller

    def _observe(self, key: ObjectKey, old: Object | None, new: Object | None) -> None:
        if new is None and old is not None:
            self._written.pop((REPLICA_SETS.plural, key_of(old, self._client.cluster)), None)
        self._controller.queue.add_after(key, BATCH)

    def _observe_pod(self, old: Object | None, new: Object | None) -> None:
        """Only a Deployment that recreates waits for pods, and only for their end."""
        pod = new or old
        if pod is None or (new is not None and not has_ended(new)):
            return
        above = controller_of(pod)
        if above is None or above.get("kind") != REPLICA_SETS.kind:
            return
        key = key_of(pod, self._client.cluster)
        replica_set = self._sets.store.get(key._replace(name=str(above["name"])))
        owner = controller_of(replica_set) if replica_set is not None else None
        if owner is None:
            return
        key = key._replace(name=str(owner["name"]))
        deployment = self._deployments.store.get(key)
        if deployment is not None and not is_rolling(deployment):
            self._controller.queue.add_after(key, BATCH)

    # --- one reconciliation

    async def reconcile(self, key: ObjectKey) -> Result | None:
        deployment = self._deployments.store.get(key)
        if deployment is None:
            self._created.pop(key, None)
            self._written.pop((DEPLOYMENTS.plural, key), None)
            return None
        if selector_of(deployment) is None:
            return None
        if self._is_stale(DEPLOYMENTS, key, deployment) or await self._awaits_set(key):
            return Result(requeue_after=1.0)  # the event that we wait for wakes us earlier
        sets = await self._claims.claim(key, deployment)
        if any(self._is_stale(REPLICA_SETS, key._replace(name=name_of(s)), s) for s in sets):
            return Result(requeue_after=1.0)
        plan = reconcile(Facts(deployment, sets, self._env.clock.now(), self._has_running))
        if plan.create is not None and not await self._create(key, deployment, plan.create):
            return Result(requeue_after=1.0)
        for change in plan.change:
            await self._update(REPLICA_SETS, change.replica_set)
            await self._tell(deployment, change.event)
        for one in plan.delete:
            uid = one["metadata"]["uid"]
            await gone_is_fine(self._client.at(key.cluster).delete(REPLICA_SETS, name_of(one), key.namespace, uid=uid))
        if plan.deployment is not None:
            await self._update(DEPLOYMENTS, plan.deployment)
        if plan.status is not None:
            await self._update(DEPLOYMENTS, plan.status, subresource="status")
        for event in plan.events:
            await self._tell(deployment, event)
        return Result(requeue_after=plan.requeue_after) if plan.requeue_after is not None else None

    def _is_stale(self, resource: Resource, key: ObjectKey, obj: Object) -> bool:
        """Whether the cache still shows the version that our last write replaced."""
        return self._written.get((resource.plural, key), "") == str(obj["metadata"].get("resourceVersion"))

    async def _awaits_set(self, key: ObjectKey) -> bool:
        """Whether a set that was created is not in the cache yet. A deaf watch must not make us forget it: without it
        we would count too few pods, and create more than the surge allows.
        """
        name, doubt = self._created.get(key, ("", 0.0))
        if not name:
            return False
        if key._replace(name=name) in self._sets.store:
            del self._created[key]
            return False
        if self._env.clock.now() < doubt:
            return True
        try:
            await self._client.at(key.cluster).get(REPLICA_SETS, name, key.namespace)
        except ApiError as error:
            if not is_not_found(error):
                raise
            self._created.pop(key, None)
            return False
        self._created[key] = (name, self._env.clock.now() + PATIENCE)
        return True

    def _has_running(self, replica_set: Object) -> bool:
        return any(not has_ended(p) for p in self._pods.store.by_index(BY_CONTROLLER, replica_set["metadata"]["uid"]))

    # --- deeds

    async def _tell(self, deployment: Object, event: Event | None) -> None:
        if event is not None:
            await self._recorder.event(deployment, event.type, event.reason, event.message)

    async def _update(self, resource: Resource, obj: Object, *, subresource: str | None = None) -> None:
        old = str(obj["metadata"].get("resourceVersion", ""))
        new = await self._client.update(resource, obj, subresource=subresource)
        if str(new["metadata"].get("resourceVersion")) != old:
            self._written[(resource.plural, key_of(obj, self._client.cluster))] = old

    async def _create(self, key: ObjectKey, deployment: Object, change: Change) -> bool:
        """Returns whether it was created now; a set that exists already is waited for, or it is a collision."""
        made = change.replica_set
        try:
            await self._client.at(key.cluster).create(REPLICA_SETS, made)
        except ApiError as error:
            if is_already_exists(error):
                await self._meet(key, deployment, made)
                return False
            if not _ends(error):
                await self._report(deployment, f'Failed to create new replica set "{name_of(made)}": {error.message}')
                raise
            return False
        self._created[key] = (name_of(made), self._env.clock.now() + PATIENCE)
        await self._tell(deployment, change.event)
        return True

    async def _meet(self, key: ObjectKey, deployment: Object, made: Object) -> None:
        """Something has the new set's name: the set itself, or one that the next hash must avoid."""
        name = name_of(made)
        live: Any = await self._client.at(key.cluster).get(REPLICA_SETS, name, key.namespace)
        owner = controller_of(live)
        mine = owner is not None and owner.get("uid") == deployment["metadata"]["uid"]
        if mine and same_template(live["spec"]["template"], deployment["spec"]["template"]):
            if not is_deleting(live):
                self._created[key] = (name, self._env.clock.now() + PATIENCE)
            return
        status = dict(deployment.get("status") or {})
        status["collisionCount"] = int(status.get("collisionCount") or 0) + 1
        await self._update(DEPLOYMENTS, {**deployment, "status": status}, subresource="status")

    async def _report(self, deployment: Object, message: str) -> None:
        if deadline(deployment) is not None:
            conditions = Conditions(deployment, self._env.clock.now())
            conditions.set(progress.PROGRESSING, "False", progress.CREATE_ERROR, message)
            status = {**(deployment.get("status") or {}), "conditions": conditions.items}
            if status != deployment.get("status"):
                await self._update(DEPLOYMENTS, {**deployment, "status": status}, subresource="status")
        await self._recorder.event(deployment, WARNING, progress.CREATE_ERROR, message)


def _ends(error: ApiError) -> bool:
    return any(c.get("reason") == "NamespaceTerminating" for c in error.details.get("causes") or ())


def build(client: Client, informers: Informers, env: Env) -> Controller:
    """The Deployment controller of what ``client`` reads: one cluster, or all."""
    return DeploymentController(client, informers, env).controller()
