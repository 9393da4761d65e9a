"""Observes DaemonSets, their pods and revisions, and nodes, and carries out the plans of ``reconcile``."""

from __future__ import annotations

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.events import WARNING, EventRecorder
from glebe.kube.informer import Informers
from glebe.kube.objects import EVERY, Object, ObjectKey, cluster_of, is_deleting, key_of, labels_of
from glebe.kube.resources import DAEMON_SETS, NODES, PODS
from glebe.workloads.daemonset.backoff import FailedPods
from glebe.workloads.daemonset.facts import Facts
from glebe.workloads.daemonset.placing import Placing
from glebe.workloads.daemonset.plan import Plan
from glebe.workloads.daemonset.reconcile import reconcile
from glebe.workloads.daemonset.template import HASH
from glebe.workloads.owned import Claims, each, in_batches, selector_of
from glebe.workloads.podwriter import PodWriter, Words
from glebe.workloads.revisions import History

BY_CLUSTER = "by-cluster"
BATCH = 0.01
"""Seconds for which changes of a set's pods are gathered, and ..."""
BATCH_PER_POD = 0.0005
"""... more for each of its pods: a reconciliation looks at all of them."""
LONGEST_BATCH = 1.0


def place_of(obj: Object) -> list[str]:
    """The indexer behind :data:`BY_CLUSTER`."""
    return [cluster_of(obj)]


class DaemonSetController:
    """The shell; all decisions are in ``reconcile``."""

    def __init__(self, client: Client, informers: Informers, env: Env) -> None:
        self._client = client
        self._env = env
        self._sets = informers.get(DAEMON_SETS, indexers={BY_CLUSTER: place_of})
        self._nodes = informers.get(NODES, indexers={BY_CLUSTER: place_of})
        self._members = Claims(client, informers, DAEMON_SETS, PODS)
        self._history = History(client, informers, DAEMON_SETS, HASH)
        self._recorder = EventRecorder(client, env, "daemonset-controller")
        self._writer = PodWriter(client, self._members.dependents, env, self._recorder, Words())
        self._failed = FailedPods()
        self._written: dict[ObjectKey, str] = {}
        self._controller = Controller("daemonset", self.reconcile, env, workers=4)

    def controller(self) -> Controller:
        controller = self._controller
        self._members.on_change(self._on_pod)
        self._history.claims.on_change(lambda key, _old, _new: controller.queue.add(key))
        self._nodes.add_handler(self._on_node)
        controller.watch(self._sets)
        for informer in (self._nodes, self._members.dependents, self._history.claims.dependents):
            controller.watch(informer, lambda _: (), when=lambda *_: False)  # only to wait for its first list
        return controller

    def _on_pod(self, key: ObjectKey, old: Object | None, new: Object | None) -> None:
        self._writer.observed(key, old, new)
        owner = self._sets.store.get(key)
        pods = len(self._members.owned(owner)) if owner is not None else 0
        self._controller.queue.add_after(key, min(LONGEST_BATCH, BATCH + pods * BATCH_PER_POD))

    def _on_node(self, old: Object | None, new: Object | None) -> None:
        """A node that came, went or changed so that a set's mind about it changes."""
        if old is not None and new is not None and _looks(old) == _looks(new):
            return
        where = cluster_of(new or old or {})
        for owner in self._sets.store.by_index(BY_CLUSTER, where):
            placing = Placing(owner["spec"]["template"])
            if (old and placing.judge(old)) != (new and placing.judge(new)):
                self._controller.queue.add_after(key_of(owner, self._sets.cluster), BATCH)

    # --- one reconciliation

    async def reconcile(self, key: ObjectKey) -> Result | None:
        owner = self._sets.store.get(key)
        if owner is None:
            self._writer.forget(key)
            self._written.pop(key, None)
            self._failed.forget(self._env.clock.now())
            return None
        if is_deleting(owner):
            return None
        if self._written.get(key) == owner["metadata"].get("resourceVersion"):
            return Result(requeue_after=1.0)  # our own last write is not in the cache yet; its event wakes us earlier
        if not await self._writer.settled(key):
            return Result(requeue_after=(self._writer.wait(key) or 0.0) + 0.001)
        if selector_of(owner) is None:
            text = "This daemon set is selecting all pods. A non-empty selector is required."
            await self._recorder.event(owner, WARNING, "SelectingAll", text)
            return None
        revisions = await self._history.claim(key, owner)
        revision, collisions = await self._history.update_revision(key, owner, revisions)
        pods = await self._members.claim(key, owner)
        facts = self._facts(key, owner, pods, labels_of(revision).get(HASH, ""), collisions)
        plan = reconcile(facts)
        await self._carry_out(key, owner, plan)
        await self._trim(
            key, owner, [r for r in revisions if r["metadata"]["name"] != revision["metadata"]["name"]], pods
        )
        waits = [s for s in (plan.requeue_after, self._writer.wait(key)) if s is not None]
        return Result(requeue_after=min(waits) + 0.001) if waits else None

    def _facts(self, key: ObjectKey, owner: Object, pods: list[Object], revision: str, collisions: int) -> Facts:
        now = self._env.clock.now()
        nodes = self._nodes.store.by_index(BY_CLUSTER, key.cluster if self._client.cluster == EVERY else "")

        def wait(node: str) -> float:
            return self._failed.wait(_place(owner, node), now)

        return Facts(owner, nodes, pods, revision, now, wait, collisions)

    async def _carry_out(self, key: ObjectKey, owner: Object, plan: Plan) -> None:
        if plan.status is not None:
            old = owner["metadata"].get("resourceVersion", "")
            new = await self._client.update_status(DAEMON_SETS, {**owner, "status": plan.status})
            if new["metadata"].get("resourceVersion") != old:
                self._written[key] = old
        for event in plan.events:
            await self._recorder.event(owner, *event)
        for node in plan.failed:
            self._failed.failed(_place(owner, node), self._env.clock.now())
        await in_batches(plan.create, lambda pod: self._writer.create(key, owner, pod))
        await each(plan.delete, lambda pod: self._writer.delete(key, owner, pod))

    async def _trim(self, key: ObjectKey, owner: Object, old: list[Object], pods: list[Object]) -> None:
        """Keep ``revisionHistoryLimit`` old revisions, and those that pods still have."""
        live = {labels_of(p).get(HASH) for p in pods}
        extra = max(0, len(old) - int(owner["spec"].get("revisionHistoryLimit", 10)))
        doomed = [r for r in old if labels_of(r).get(HASH) not in live][:extra]
        await each(doomed, lambda r: self._history.delete(key, r))


def _looks(node: Object) -> tuple[object, object]:
    return node["metadata"].get("labels"), (node.get("spec") or {}).get("taints")


def _place(owner: Object, node: str) -> tuple[str, int, str]:
    generation = int((owner.get("status") or {}).get("observedGeneration") or 0)
    return str(owner["metadata"].get("uid")), generation, node


def build(client: Client, informers: Informers, env: Env) -> Controller:
    """The DaemonSet controller of what ``client`` reads: one cluster, or all."""
    return DaemonSetController(client, informers, env).controller()
