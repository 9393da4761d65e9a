"""One logical cluster's decisions: binds pods in batches, tells pods that fit nowhere why, makes room by priority."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Result
from glebe.kube.errors import ApiError, is_conflict, is_not_found
from glebe.kube.events import EventRecorder
from glebe.kube.objects import Object, is_deleting
from glebe.kube.resources import PODS, Resource
from glebe.kube.transport import ConnectionLost
from glebe.workloads.binder.choose import Choice, choose
from glebe.workloads.binder.needs import Needs
from glebe.workloads.binder.plugins import CannotPrepare
from glebe.workloads.binder.preempt import Outcome, Victims, search
from glebe.workloads.binder.scene import Preparing, Scene
from glebe.workloads.binder.view import View
from glebe.workloads.binder.waitroom import Waiting
from glebe.workloads.binder.writes import Writer

BUDGETS = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
BATCH = 64
"""Pods that get a node between two rounds of writes."""
LOOKS = 1024
"""Pods looked at in one batch; of most that fit nowhere the answer is known from another."""
COSTLY = 8
"""Pods of one batch that fit nowhere and for which others' leaving is weighed."""
SLICE = 0.004
"""Seconds of thinking after which others have their turn."""
PARALLEL = 16
REPEAT = 10.0
"""Seconds before a pod that still waits is told a different reason."""
SWEEP = 30.0
"""Seconds between looks for pods that have waited too long without anything happening."""
PREPARED = 600.0
"""Seconds that a pod may wait for what its plug-ins prepare (upstream's ``bindTimeoutSeconds``)."""


@dataclass(slots=True)
class Batch:
    """Decisions that have to be written."""

    bind: list[tuple[Waiting, str]] = field(default_factory=list)
    refuse: list[tuple[Waiting, bool]] = field(default_factory=list)  # True: nominated no longer
    move: list[tuple[Waiting, Victims]] = field(default_factory=list)
    turned: list[Waiting] = field(default_factory=list)  # away, and their plug-ins have to hear of it
    more: bool = False


class Cycle:
    """The decisions over one :class:`Scene`.

    :param client: of this cluster. ``wake`` asks for another cycle.
    """

    def __init__(
        self, scene: Scene, view: View, client: Client, env: Env, recorder: EventRecorder, wake: Callable[[], None]
    ) -> None:
        self._client = client
        self._env = env
        self._view = view
        self._wake = wake
        self._writer = Writer(client, env, recorder)
        self.scene = scene
        self._swept = env.clock.now()
        self._rested = 0.0

    def _now(self) -> float:
        return self._env.clock.now()

    async def run(self) -> Result | None:
        """Decide a batch, then write what was decided."""
        await self._resolve_doubts()
        await self._mark_gated()
        if self._now() >= self._swept + SWEEP:
            self._swept = self._now()
            self.scene.room.wake_overdue(self._now())
        batch = await self._decide()
        await self._each([self._bind(w, node) for w, node in batch.bind])
        await self._each([self._prepare(each) for each in list(self.scene.preparing.values())])
        for waiting, victims in batch.move:  # one by one: each is many writes
            await self._move(waiting, victims)
        await self._each([self._refuse(w, outcome) for w, outcome in batch.refuse])
        await self._each([self._rejected(w) for w in batch.turned])
        await self._tell_late()
        if batch.more:
            return Result(requeue_after=0.0)
        if self.scene.doubtful or self.scene.gated or self.scene.preparing:
            return Result(requeue_after=1.0)
        if self.scene.untold:
            soonest = min(w.told_at for w in self.scene.untold.values())
            return Result(requeue_after=max(1.0, soonest + REPEAT - self._now()))
        return Result(requeue_after=SWEEP) if self.scene.room.parked else None

    async def _give_way(self, began: float) -> float:
        """Let others run if this has taken long; since when it has been our turn."""
        loop = asyncio.get_running_loop()
        if loop.time() - began < SLICE:
            return began
        await asyncio.sleep(0)
        return loop.time()

    async def _decide(self) -> Batch:
        """Nodes for a batch of waiting pods, victims or refusals for others."""
        batch, now, began = Batch(), self._now(), asyncio.get_running_loop().time()
        no_room: dict[str, tuple[str, set[str]]] = {}  # while pods only come, what did not fit does not fit
        happened = self.scene.happened
        costly = 0
        for _ in range(LOOKS):
            began = await self._give_way(began)
            if happened != self.scene.happened:
                happened = self.scene.happened
                no_room.clear()
            waiting = self.scene.room.pop(now)
            if waiting is None:
                return batch
            if (gate := self._gate(waiting)) is not None:
                self.scene.room.park(waiting, {gate}, now)
                waiting.attempts = 0
                continue
            key = waiting.needs.with_labels if self.scene.fleet.crowd.choosy else waiting.needs.key
            if key in no_room and not self.scene.fleet.nomination(waiting.uid):
                waiting.message, plugins = no_room[key]
                self.scene.room.park(waiting, plugins, now)
                self._note(batch, waiting)
                continue
            choice = choose(self.scene.fleet, waiting.needs, waiting.uid)
            if choice.node is not None:
                if (refused := self._take(waiting, choice.node)) is not None:
                    self._postpone(batch, waiting, *refused)
                elif not waiting.needs.extras:
                    batch.bind.append((waiting, choice.node))
                if len(batch.bind) >= BATCH or len(self.scene.preparing) >= BATCH:
                    break
                continue
            costly += 1
            plugins = choice.diagnosis.plugins if choice.diagnosis is not None else set()
            if await self._turn_away(batch, waiting, choice, plugins) and not waiting.needs.relations.company_helps:
                no_room[key] = waiting.message, plugins
            if costly >= COSTLY:
                break
        batch.more = self.scene.room.ready
        return batch

    def _gate(self, waiting: Waiting) -> str | None:
        """The plug-in for which it is too early."""
        for plugin in self.scene.fleet.concerned(waiting.needs):
            if plugin.gated(waiting.needs):
                return plugin.name
        return None

    def _take(self, waiting: Waiting, node: str) -> tuple[str, str] | None:
        """Hold and reserve; (plug-in, words) of the one that has changed its mind."""
        uid, needs, fleet = waiting.uid, waiting.needs, self.scene.fleet
        asked = fleet.concerned(needs)
        for plugin in asked:
            if (text := plugin.reserve(uid, needs, node)) is not None:
                for each in asked:
                    each.unreserve(uid)
                return plugin.name, text
        self.scene.room.remove(uid)
        fleet.hold(uid, node, needs)
        self.scene.came(needs)
        if needs.extras:
            self.scene.preparing[uid] = Preparing(waiting, node, self._now())
        return None

    def _postpone(self, batch: Batch, waiting: Waiting, plugin: str, text: str) -> None:
        waiting.message = text
        self.scene.room.park(waiting, {plugin}, self._now())
        self._note(batch, waiting)

    async def _turn_away(self, batch: Batch, waiting: Waiting, choice: Choice, plugins: set[str]) -> bool:
        """It fits nowhere: find others that could leave; whether all like it are to be told the same."""
        uid, needs = waiting.uid, waiting.needs
        nominated = self.scene.fleet.nomination(uid)
        self.scene.room.park(waiting, plugins, self._now())  # now, so that what happens meanwhile can wake it
        outcome = await self._weigh(waiting, choice)
        if outcome is None or not self.scene.room.is_parked(waiting):
            self.scene.room.retry(waiting, self._now())
            return False
        waiting.message = " ".join(part for part in (choice.message(), self._no_help(needs, choice, outcome)) if part)
        if outcome.victims is not None:
            self.scene.fleet.nominate(uid, outcome.victims.node, needs)
            batch.move.append((waiting, outcome.victims))
            return False
        if needs.extras:
            batch.turned.append(waiting)
        cleared = outcome.eligible and nominated is not None
        if cleared:
            self.scene.unnominate(uid)
        self._note(batch, waiting, cleared=cleared)
        return nominated is None

    def _no_help(self, needs: Needs, choice: Choice, outcome: Outcome) -> str:
        """Why nothing could be done about it, in the words of every plug-in that was asked."""
        if not outcome.text:
            return ""
        objected = choice.diagnosis is not None and bool(choice.diagnosis.objection)
        said = [plugin.unhelped(objected) for plugin in self.scene.fleet.concerned(needs)]
        return ", ".join([*filter(None, said), outcome.text])

    async def _weigh(self, waiting: Waiting, choice: Choice) -> Outcome | None:
        """Whose leaving would help; ``None``: nodes have come or gone meanwhile."""
        if choice.diagnosis is None:
            return Outcome(None)
        fleet = self.scene.fleet
        budgets = self._view.every(BUDGETS)
        offset = self._env.rng.randrange(len(fleet.names))
        steps = search(fleet, waiting.needs, waiting.uid, choice.diagnosis, self.scene.bound, budgets, offset)
        began = asyncio.get_running_loop().time()
        while True:
            try:
                next(steps)
            except StopIteration as done:
                outcome: Outcome = done.value
                return outcome
            before, began = began, await self._give_way(began)
            if began != before and fleet.stale:
                return None

    def _note(self, batch: Batch, waiting: Waiting, *, cleared: bool = False) -> None:
        """Tell the pod why it waits, if that is news and not too soon after the last."""
        if waiting.message == waiting.told and not cleared:
            self.scene.untold.pop(waiting.uid, None)
        elif waiting.told and self._now() - waiting.told_at < REPEAT and not cleared:
            self.scene.untold[waiting.uid] = waiting
        else:
            self.scene.untold.pop(waiting.uid, None)
            batch.refuse.append((waiting, cleared))

    async def _tell_late(self) -> None:
        """Tell those who were told something else less than :data:`REPEAT` ago."""
        due = [w for w in self.scene.untold.values() if self._now() - w.told_at >= REPEAT]
        for waiting in due:
            del self.scene.untold[waiting.uid]
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
                self.scene.forget(uid)
            else:
                self.scene.doubtful[uid] = pod
                if not is_conflict(error):
                    await self._writer.say_failed(pod, f"binding rejected: {error}")
            return
        if waiting.needs.extras:
            for plugin in self.scene.fleet.concerned(waiting.needs):
                plugin.bound(uid)
        await self._writer.say_bound(pod, node)

    async def _prepare(self, each: Preparing) -> None:
        """What plug-ins have to write, then the binding."""
        waiting, uid = each.waiting, each.waiting.uid
        try:
            for plugin in self.scene.fleet.concerned(waiting.needs):
                if not await plugin.prepare(waiting.pod, each.node):
                    if self._now() - each.since < PREPARED:
                        return
                    raise CannotPrepare(f'running PreBind plugin "{plugin.name}": timed out')
        except (ApiError, ConnectionLost):
            return  # asked again
        except CannotPrepare as error:
            if self.scene.preparing.get(uid) is each:
                await self._abandon(waiting, str(error))
            return
        if self.scene.preparing.get(uid) is each:
            del self.scene.preparing[uid]
            await self._bind(waiting, each.node)

    async def _abandon(self, waiting: Waiting, message: str) -> None:
        del self.scene.preparing[waiting.uid]
        self.scene.give_back(waiting.uid)
        waiting.attempts += 1
        waiting.tried_at = self._now()
        self.scene.room.admit(waiting, self._now())
        await self._writer.say_failed(waiting.pod, message)

    async def _resolve_doubts(self) -> None:
        for uid, pod in list(self.scene.doubtful.items()):
            meta = pod["metadata"]
            try:
                live = await self._client.get(PODS, meta["name"], meta["namespace"])
            except ConnectionLost:
                continue
            except ApiError as error:
                if is_not_found(error):
                    self.scene.forget(uid)
                continue
            if self.scene.doubtful.pop(uid, None) is None:
                continue
            if live["metadata"]["uid"] != uid:
                self.scene.forget(uid)
            elif node := (live.get("spec") or {}).get("nodeName"):
                self.scene.fleet.hold(uid, node, Needs.of(live))
            else:
                self.scene.give_back(uid)
                self.scene.on_pod(None, live)

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
            if not is_not_found(error) and self.scene.room.get(waiting.uid) is waiting:
                self.scene.untold[waiting.uid] = waiting
            return
        if news:
            await self._writer.say_failed(waiting.pod, message)

    async def _rejected(self, waiting: Waiting) -> None:
        for plugin in self.scene.fleet.concerned(waiting.needs):
            with contextlib.suppress(ApiError, ConnectionLost):
                await plugin.rejected(waiting.pod, waiting.needs)

    async def _move(self, waiting: Waiting, victims: Victims) -> None:
        """Nominate the pod, then make the victims leave. Any failure: the pod is tried anew."""
        pod, message = waiting.pod, waiting.message
        waiting.told, waiting.told_at = message, self._now()
        try:
            news = await self._writer.refuse(pod, "Unschedulable", message, victims.node)
            await self._clear_lower(waiting, victims.node)
            for victim in victims.pods:
                await asyncio.sleep(0)
                now = self.scene.bound(victim["metadata"]["uid"])
                if now is not None and not is_deleting(now):
                    await self._writer.evict(now, pod, victims.node)
        except (ApiError, ConnectionLost):
            self.scene.room.retry(waiting, self._now())
            self._wake()
            return
        if news:
            await self._writer.say_failed(pod, message)

    async def _clear_lower(self, waiting: Waiting, node: str) -> None:
        """Pods of lower priority that were nominated to the node look for another."""
        for uid in self.scene.fleet.nominated_to(node):
            other, nominated = self.scene.room.get(uid), self.scene.fleet.nomination(uid)
            if other is None or nominated is None or nominated.needs.priority >= waiting.needs.priority:
                continue
            self.scene.unnominate(uid)
            self.scene.room.retry(other, self._now())
            await self._writer.clear_nomination(other.pod)

    async def _mark_gated(self) -> None:
        gated, self.scene.gated = self.scene.gated, {}
        await self._each([self._mark_one_gated(pod) for pod in gated.values()])

    async def _mark_one_gated(self, pod: Object) -> None:
        text = "Scheduling is blocked due to non-empty scheduling gates"
        try:
            await self._writer.refuse(pod, "SchedulingGated", text)
        except (ApiError, ConnectionLost) as error:
            if not is_not_found(error):
                self.scene.gated.setdefault(pod["metadata"]["uid"], pod)
