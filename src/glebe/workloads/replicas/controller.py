"""Observes ReplicaSets (or ReplicationControllers) and their pods and carries out what ``plan`` says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError
from glebe.kube.events import EventRecorder
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey, controller_of, labels_of
from glebe.kube.resources import PODS
from glebe.kube.selectors import LabelSelector
from glebe.kube.transport import ConnectionLost
from glebe.workloads.owned import BY_CONTROLLER, PARALLEL, Claims, controller_uid
from glebe.workloads.podwriter import PodWriter, Words
from glebe.workloads.replicas import plan as planning
from glebe.workloads.replicas.kinds import REPLICA_SET, REPLICATION_CONTROLLER, Kind
from glebe.workloads.replicas.plan import Facts
from glebe.workloads.replicas.pods import is_active, is_terminating
from glebe.workloads.replicas.template import build_pod

BATCH_FLOOR = 0.01
BATCH_PER_POD = 0.001
LONGEST_BATCH = 1.0
"""Seconds for which changes of one set's pods are gathered, by the number of its pods."""


class ReplicasController:
    """The shell; all decisions are in ``plan``."""

    def __init__(self, kind: Kind, client: Client, informers: Informers, env: Env) -> None:
        self._kind = kind
        self._client = client
        self._env = env
        self._claims = Claims(client, informers, kind.resource, PODS, selector_of=kind.selector)
        self._sets = informers.get(kind.resource, indexers={BY_CONTROLLER: controller_uid})
        recorder = EventRecorder(client, env, kind.component)
        self._writer = PodWriter(client, self._claims.dependents, env, recorder, Words())
        self._written: dict[ObjectKey, str] = {}
        self._controller = Controller(kind.name, self.reconcile, env, workers=4)

    def controller(self) -> Controller:
        controller = self._controller
        self._claims.on_change(self._observe)
        controller.watch(self._sets)
        controller.watch(self._claims.dependents, lambda _: ())  # heard above; this waits for the first list
        return controller

    def _observe(self, key: ObjectKey, old: Object | None, new: Object | None) -> None:
        self._writer.observed(key, old, new)
        obj = self._sets.store.get(key)
        pods = 0
        if obj is not None:
            pods = self._claims.dependents.store.count(BY_CONTROLLER, str(obj["metadata"].get("uid")))
        self._controller.queue.add_after(key, min(LONGEST_BATCH, BATCH_FLOOR + pods * BATCH_PER_POD))

    # --- one reconciliation

    async def reconcile(self, key: ObjectKey) -> Result | None:
        obj = self._sets.store.get(key)
        if obj is None:
            self._writer.forget(key)
            self._written.pop(key, None)
            return None
        if self._written.get(key, "") == str(obj["metadata"].get("resourceVersion")):
            return Result(requeue_after=1.0)  # our own last write is not in the cache yet; its event wakes us earlier
        selector = self._kind.selector(obj)
        if selector is None:
            return None  # it selects nothing: whatever it made would never be its own
        facts = await self._facts(key, obj, selector)
        failure = await self._carry_out(key, obj, planning.plan(facts))
        new = planning.status(facts, _text(failure))
        if new is not None:
            await self._write_status(key, obj, new)
        if failure is not None:
            raise failure
        waits = [s for s in (planning.next_look(facts), self._writer.wait(key)) if s is not None]
        return Result(requeue_after=min(waits) + 0.001) if waits else None

    async def _facts(self, key: ObjectKey, obj: Object, selector: LabelSelector) -> Facts:
        settled = await self._writer.settled(key)
        terminating = sum(1 for p in self._claims.owned(obj) if is_terminating(p) and selector.matches(labels_of(p)))
        pods = await self._claims.claim(key, obj, only=is_active)
        return Facts(self._kind, obj, pods, self._env.clock.now(), terminating, settled, lambda: self._related(obj))

    def _related(self, obj: Object) -> list[Object]:
        """The pods of all sets that have the same controller as this one."""
        owner = controller_of(obj)
        sets = [obj] if owner is None else self._sets.store.by_index(BY_CONTROLLER, str(owner.get("uid", "")))
        return [pod for each in sets for pod in self._claims.owned(each)]

    async def _write_status(self, key: ObjectKey, obj: Object, status: Object) -> None:
        old = str(obj["metadata"].get("resourceVersion", ""))
        new = await self._client.update_status(self._kind.resource, {**obj, "status": status})
        if new["metadata"].get("resourceVersion") != old:
            self._written[key] = old

    # --- deeds

    async def _carry_out(self, key: ObjectKey, obj: Object, plan: planning.Plan) -> Exception | None:
        """Create or delete; returns what went wrong, because the status shall tell it."""
        if plan.delete:
            return await _each(plan.delete, lambda pod: self._writer.delete(key, obj, pod))
        new = [build_pod(self._kind, obj, self._env.rng) for _ in range(plan.create)]
        start, size = 0, 1
        while start < len(new):  # 1, 2, 4, ...: a quota that refuses is asked once, not 500 times
            batch = new[start : start + size]
            if (failure := await _each(batch, lambda pod: self._writer.create(key, obj, pod))) is not None:
                return failure
            start, size = start + size, size * 2
        return None


async def _each(pods: Sequence[Object], act: Callable[[Object], Awaitable[None]]) -> Exception | None:
    """All are tried, a few at once; returns the first failure."""
    failure: Exception | None = None
    for start in range(0, len(pods), PARALLEL):
        for result in await asyncio.gather(*(act(p) for p in pods[start : start + PARALLEL]), return_exceptions=True):
            if isinstance(result, ApiError | ConnectionLost):
                failure = failure or result
            elif isinstance(result, BaseException):
                raise result
    return failure


def _text(failure: Exception | None) -> str:
    return failure.message if isinstance(failure, ApiError) else str(failure or "")


def build(client: Client, informers: Informers, env: Env) -> list[Controller]:
    """The controllers of ReplicaSets and of ReplicationControllers, of what ``client`` reads: one cluster, or all."""
    kinds = (REPLICA_SET, REPLICATION_CONTROLLER)
    return [ReplicasController(kind, client, informers, env).controller() for kind in kinds]
