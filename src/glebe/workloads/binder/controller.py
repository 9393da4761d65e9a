"""Watches pods and nodes, binds pods in batches, tells pods that cannot be bound why, and makes room by priority."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError, is_conflict, is_not_found
from glebe.kube.informer import Informer, Informers
from glebe.kube.objects import Object, ObjectKey, get_condition, is_deleting, key_of, labels_of
from glebe.kube.pods import has_ended
from glebe.kube.resources import NAMESPACES, NODES, PODS, Resource
from glebe.kube.transport import ConnectionLost
from glebe.workloads.binder import hints
from glebe.workloads.binder.choose import Choice, choose
from glebe.workloads.binder.fleet import Fleet
from glebe.workloads.binder.needs import Needs
from glebe.workloads.binder.preempt import Outcome, Victims, preempt
from glebe.workloads.binder.volumes import Storage
from glebe.workloads.binder.waitroom import Waiting, WaitRoom
from glebe.workloads.binder.writes import SCHEDULER, Writer

CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
VOLUMES = Resource("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False)
CLASSES = Resource("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False)
BUDGETS = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
BATCH = 64
"""Decisions between two looks at the event loop: a few milliseconds."""
LOOKS = 1024
"""Pods looked at in one batch; of most that fit nowhere the answer is known from another."""
COSTLY = 8
"""Pods of one batch that fit nowhere and for which others' leaving is weighed."""
PARALLEL = 32
REPEAT = 10.0
"""Seconds before a pod that still waits is told a different reason."""
SWEEP = 30.0
"""Seconds between looks for pods that have waited too long without anything happening."""
CYCLE = ObjectKey("", "", "cycle")


@dataclass(slots=True)
class Batch:
    """Decisions that have to be written."""

    bind: list[tuple[Waiting, str]] = field(default_factory=list)
    refuse: list[tuple[Waiting, bool]] = field(default_factory=list)  # True: nominated no longer
    move: list[tuple[Waiting, Victims]] = field(default_factory=list)
    more: bool = False


class Binder:
    """All pods and nodes of one cluster."""

    def __init__(self, client: Client, informers: Informers, env: Env) -> None:
        self._client = client
        self._env = env
        self._writer = Writer(client, env)
        self._pods = informers.get(PODS)
        self._nodes = informers.get(NODES)
        self._namespaces = informers.get(NAMESPACES)
        self._claims, self._volumes = informers.get(CLAIMS), informers.get(VOLUMES)
        self._classes, self._budgets = informers.get(CLASSES), informers.get(BUDGETS)
        self.fleet = Fleet(
            Storage(_finder(self._claims), _finder(self._volumes), _finder(self._classes)),
        )
        self._room = WaitRoom()
        self._keys: dict[str, ObjectKey] = {}  # of bound pods, by uid
        self._gated: dict[str, Object] = {}
        self._doubtful: dict[str, Object] = {}  # bound or not? the answer was lost; the hold stays until we know
        self._untold: dict[str, Waiting] = {}  # their reason changed too soon after the last one
        self._spaces: dict[str, dict[str, str]] = {}
        self._controller = Controller("binder", self.cycle, env)

    def controller(self) -> Controller:
        self._namespaces.add_handler(self._on_namespace)
        for informer in (self._claims, self._volumes, self._classes):
            informer.add_handler(self._on_storage)
        self._nodes.add_handler(self._on_node)
        self._pods.add_handler(self._on_pod)
        every = (self._nodes, self._pods, self._namespaces, self._claims, self._volumes, self._classes, self._budgets)
        for informer in every:  # only to wait for their first lists
            self._controller.watch(informer, lambda _: (), when=lambda *_: False)
        return self._controller

    # --- what the caches say

    def _now(self) -> float:
        return self._env.clock.now()

    def _wake(self) -> None:
        self._controller.queue.add(CYCLE)

    def _on_namespace(self, old: Object | None, new: Object | None) -> None:
        name = (new or old or {})["metadata"]["name"]
        labels = None if new is None else labels_of(new)
        if self._spaces.get(name) == labels:
            return
        if labels is None:
            self._spaces.pop(name, None)
        else:
            self._spaces[name] = labels
        self.fleet.crowd.set_namespaces(self._spaces)
        self._other(hints.Other.NAMESPACES)

    def _on_storage(self, _: Object | None, __: Object | None) -> None:
        self._other(hints.Other.STORAGE)

    def _other(self, what: hints.Other) -> None:
        if self._room.wake(lambda _, plugins: hints.other_helps(plugins, what), self._now()):
            self._wake()

    def _on_node(self, old: Object | None, new: Object | None) -> None:
        name = (new or old or {})["metadata"]["name"]
        if not (self.fleet.remove_node(name) if new is None else self.fleet.set_node(new)):
            return
        node = new
        if node is None or is_deleting(node):  # one domain less: others may be in the mean now
            found = self._room.wake(lambda _, plugins: "PodTopologySpread" in plugins, self._now())
        else:
            found = self._room.wake(lambda n, plugins: hints.node_helps(n, plugins, node), self._now())
        if found or self._untold:
            self._wake()

    def _on_pod(self, old: Object | None, new: Object | None) -> None:
        pod = new or old or {}
        uid, spec = pod["metadata"]["uid"], pod.get("spec") or {}
        if new is None or has_ended(new):
            self._forget(uid)
        elif spec.get("nodeName"):
            self._on_bound(uid, old, new)
        elif is_deleting(pod):
            self._leave(uid)
        elif spec.get("schedulerName", SCHEDULER) != SCHEDULER:
            return
        elif (held := self.fleet.holder(uid)) is None:
            self._admit(uid, old, pod)
        elif old is not None and labels_of(old) != labels_of(pod):
            self.fleet.hold(uid, held.node, Needs.of(pod))  # decided, and not bound yet

    def _on_bound(self, uid: str, old: Object | None, new: Object) -> None:
        self._room.remove(uid)
        self._untold.pop(uid, None)
        self._doubtful.pop(uid, None)
        self._keys[uid] = key_of(new, self._pods.cluster)
        node, deleting = new["spec"]["nodeName"], is_deleting(new)
        held = self.fleet.holder(uid)
        if held is not None and old is not None and _same_needs(old, new):
            if held.node == node and held.deleting == deleting:
                self._unnominate(uid)
                return
            needs = held.needs
        else:
            needs = Needs.of(new)
        if self.fleet.hold(uid, node, needs, deleting=deleting):
            self._came(needs)
            if held is not None:
                self._gone(held.needs)
        self._unnominate(uid)

    def _forget(self, uid: str) -> None:
        """The pod has nothing and wants nothing any more."""
        self._doubtful.pop(uid, None)
        self._keys.pop(uid, None)
        held = self.fleet.release(uid)
        if held is not None:
            self._gone(held.needs)
        self._leave(uid)

    def _leave(self, uid: str) -> None:
        self._room.remove(uid)
        self._gated.pop(uid, None)
        self._untold.pop(uid, None)
        self._unnominate(uid)

    def _unnominate(self, uid: str) -> None:
        nominated = self.fleet.withdraw(uid)
        if nominated is not None:
            self._gone(nominated.needs)

    def _gone(self, gone: Needs) -> None:
        if self._room.wake(lambda n, plugins: hints.pod_gone_helps(n, plugins, gone), self._now()):
            self._wake()

    def _came(self, here: Needs) -> None:
        if self._room.wake(lambda n, plugins: hints.pod_here_helps(n, plugins, here), self._now()):
            self._wake()

    def _admit(self, uid: str, before: Object | None, pod: Object) -> None:
        if pod["spec"].get("schedulingGates"):
            if get_condition(pod, "PodScheduled") is None:
                self._gated[uid] = pod
                self._wake()
            return
        self._gated.pop(uid, None)
        old = self._room.get(uid)
        needs = Needs.of(pod)
        node = (pod.get("status") or {}).get("nominatedNodeName")
        if node:
            self.fleet.nominate(uid, node, needs)
        elif before is not None and (before.get("status") or {}).get("nominatedNodeName"):
            self._unnominate(uid)
        if old is not None and old.needs.with_labels == needs.with_labels:
            old.pod = pod
            return
        self._room.admit(Waiting(pod, needs), self._now())
        self._wake()

    # --- one cycle

    async def cycle(self, _: ObjectKey) -> Result | None:
        """Decide a batch, then write what was decided."""
        await self._resolve_doubts()
        await self._mark_gated()
        waiting = self._room.wake_overdue(self._now())
        batch = self._decide()
        await self._each([self._bind(w, node) for w, node in batch.bind])
        await self._each([self._move(w, victims) for w, victims in batch.move])
        await self._each([self._refuse(w, outcome) for w, outcome in batch.refuse])
        await self._tell_late()
        if batch.more:
            return Result(requeue_after=0.0)
        if self._doubtful or self._gated:
            return Result(requeue_after=1.0)
        if self._untold:
            return Result(requeue_after=max(1.0, min(w.told_at for w in self._untold.values()) + REPEAT - self._now()))
        return Result(requeue_after=SWEEP) if waiting or batch.refuse or batch.move else None

    def _decide(self) -> Batch:
        """Nodes for a batch of waiting pods, victims or refusals for others."""
        batch, now = Batch(), self._now()
        no_room: dict[str, tuple[str, set[str]]] = {}  # while pods only come, what did not fit does not fit
        costly = 0
        for _ in range(LOOKS):
            waiting = self._room.pop(now)
            if waiting is None:
                return batch
            key = waiting.needs.with_labels if self.fleet.crowd.choosy else waiting.needs.key
            if key in no_room and not self.fleet.nomination(waiting.uid):
                waiting.message, plugins = no_room[key]
                self._room.park(waiting, plugins, now)
                self._note(batch, waiting)
                continue
            choice = choose(self.fleet, waiting.needs, waiting.uid)
            if choice.node is not None:
                self._take(waiting, choice.node)
                batch.bind.append((waiting, choice.node))
                if len(batch.bind) >= BATCH:
                    break
                continue
            costly += 1
            plugins = choice.diagnosis.plugins if choice.diagnosis is not None else set()
            if self._turn_away(batch, waiting, choice, plugins) and not waiting.needs.relations.company_helps:
                no_room[key] = waiting.message, plugins
            if costly >= COSTLY:
                break
        batch.more = self._room.ready
        return batch

    def _take(self, waiting: Waiting, node: str) -> None:
        self._room.remove(waiting.uid)
        self.fleet.hold(waiting.uid, node, waiting.needs)
        self._came(waiting.needs)

    def _turn_away(self, batch: Batch, waiting: Waiting, choice: Choice, plugins: set[str]) -> bool:
        """It fits nowhere: find others that could leave; whether all like it are to be told the same."""
        uid, needs = waiting.uid, waiting.needs
        nominated = self.fleet.nomination(uid)
        outcome = self._weigh(waiting, choice)
        waiting.message = " ".join(part for part in (choice.message(), outcome.text) if part)
        self._room.park(waiting, plugins, self._now())
        if outcome.victims is not None:
            self.fleet.nominate(uid, outcome.victims.node, needs)
            batch.move.append((waiting, outcome.victims))
            return False
        cleared = outcome.eligible and nominated is not None
        if cleared:
            self._unnominate(uid)
        self._note(batch, waiting, cleared=cleared)
        return nominated is None

    def _weigh(self, waiting: Waiting, choice: Choice) -> Outcome:
        if choice.diagnosis is None:
            return Outcome(None)
        budgets = list(self._budgets.store.values())
        offset = self._env.rng.randrange(len(self.fleet.names))
        return preempt(self.fleet, waiting.needs, waiting.uid, choice.diagnosis, self._bound, budgets, offset)

    def _bound(self, uid: str) -> Object | None:
        key = self._keys.get(uid)
        return self._pods.store.get(key) if key is not None else None

    def _note(self, batch: Batch, waiting: Waiting, *, cleared: bool = False) -> None:
        """Tell the pod why it waits, if that is news and not too soon after the last."""
        if waiting.message == waiting.told and not cleared:
            self._untold.pop(waiting.uid, None)
        elif waiting.told and self._now() - waiting.told_at < REPEAT and not cleared:
            self._untold[waiting.uid] = waiting
        else:
            self._untold.pop(waiting.uid, None)
            batch.refuse.append((waiting, cleared))

    async def _tell_late(self) -> None:
        """Tell those who were told something else less than :data:`REPEAT` ago."""
        due = [w for w in self._untold.values() if self._now() - w.told_at >= REPEAT]
        for waiting in due:
            del self._untold[waiting.uid]
        await self._each([self._refuse(w, False) for w in due if w.message != w.told])

    async def _each(self, writes: Sequence[Awaitable[object]]) -> None:
        """Await all, a few at a time. The writes handle their own errors."""
        for start in range(0, len(writes), PARALLEL):
            await asyncio.gather(*writes[start : start + PARALLEL])

    # --- writes

    async def _bind(self, waiting: Waiting, node: str) -> None:
        pod, uid = waiting.pod, waiting.uid
        try:
            await self._writer.bind(pod, node)
        except (ApiError, ConnectionLost) as error:
            if is_not_found(error):
                self._forget(uid)
            else:
                self._doubtful[uid] = pod
                if not is_conflict(error):
                    await self._writer.say_failed(pod, f"binding rejected: {error}")
            return
        await self._writer.say_bound(pod, node)

    async def _resolve_doubts(self) -> None:
        for uid, pod in list(self._doubtful.items()):
            meta = pod["metadata"]
            try:
                live = await self._client.get(PODS, meta["name"], meta["namespace"])
            except ConnectionLost:
                continue
            except ApiError as error:
                if is_not_found(error):
                    self._forget(uid)
                continue
            if self._doubtful.pop(uid, None) is None:
                continue
            if live["metadata"]["uid"] != uid:
                self._forget(uid)
            elif node := (live.get("spec") or {}).get("nodeName"):
                self.fleet.hold(uid, node, Needs.of(live))
            else:
                held = self.fleet.release(uid)
                if held is not None:
                    self._gone(held.needs)
                self._on_pod(None, live)

    async def _refuse(self, waiting: Waiting, cleared: bool) -> None:
        message, before = waiting.message, waiting.told
        waiting.told, waiting.told_at = message, self._now()
        try:
            if cleared:
                news = await self._writer.refuse(waiting.pod, "Unschedulable", message, None)
            else:
                news = await self._writer.refuse(waiting.pod, "Unschedulable", message)
        except (ApiError, ConnectionLost) as error:
            waiting.told = before
            if not is_not_found(error) and self._room.get(waiting.uid) is waiting:
                self._untold[waiting.uid] = waiting
            return
        if news:
            await self._writer.say_failed(waiting.pod, message)

    async def _move(self, waiting: Waiting, victims: Victims) -> None:
        """Nominate the pod, then make the victims leave. Any failure: the pod is tried anew."""
        pod, message = waiting.pod, waiting.message
        waiting.told, waiting.told_at = message, self._now()
        try:
            news = await self._writer.refuse(pod, "Unschedulable", message, victims.node)
            await self._clear_lower(waiting, victims.node)
            for victim in victims.pods:
                now = self._bound(victim["metadata"]["uid"])
                if now is not None and not is_deleting(now):
                    await self._writer.evict(now, pod, victims.node)
        except (ApiError, ConnectionLost):
            self._room.retry(waiting, self._now())
            self._wake()
            return
        if news:
            await self._writer.say_failed(pod, message)

    async def _clear_lower(self, waiting: Waiting, node: str) -> None:
        """Pods of lower priority that were nominated to the node look for another."""
        for uid in self.fleet.nominated_to(node):
            other, nominated = self._room.get(uid), self.fleet.nomination(uid)
            if other is None or nominated is None or nominated.needs.priority >= waiting.needs.priority:
                continue
            self._unnominate(uid)
            self._room.retry(other, self._now())
            await self._writer.clear_nomination(other.pod)

    async def _mark_gated(self) -> None:
        gated, self._gated = self._gated, {}
        await self._each([self._mark_one_gated(pod) for pod in gated.values()])

    async def _mark_one_gated(self, pod: Object) -> None:
        text = "Scheduling is blocked due to non-empty scheduling gates"
        try:
            await self._writer.refuse(pod, "SchedulingGated", text)
        except (ApiError, ConnectionLost) as error:
            if not is_not_found(error):
                self._gated.setdefault(pod["metadata"]["uid"], pod)


def _finder(informer: Informer) -> Callable[[str], Object | None]:
    """Looks up objects by ``name`` or ``namespace/name``."""

    def find(path: str) -> Object | None:
        namespace, _, name = path.rpartition("/")
        return informer.store.get(ObjectKey(informer.cluster, namespace, name))

    return find


def _same_needs(old: Object, new: Object) -> bool:
    before, after = old["metadata"], new["metadata"]
    return before.get("generation") == after.get("generation") and labels_of(old) == labels_of(new)


def build(client: Client, informers: Informers, env: Env) -> Controller:
    """The binder of one logical cluster."""
    return Binder(client, informers, env).controller()
