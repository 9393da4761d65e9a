"""Watches pods and nodes, binds pods in batches, and tells pods that cannot be bound why."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass

from glebe.kube.client import Client
from glebe.kube.clock import Env, format_time
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError, is_conflict, is_not_found
from glebe.kube.events import EventRecorder
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey, get_condition, is_deleting, set_condition
from glebe.kube.pods import has_ended
from glebe.kube.resources import NODES, PODS
from glebe.kube.transport import ConnectionLost
from glebe.workloads.binder.choose import choose
from glebe.workloads.binder.fleet import Fleet
from glebe.workloads.binder.needs import Needs

SCHEDULER = "default-scheduler"
BATCH = 64
"""Decisions between two looks at the event loop: a few milliseconds."""
PARALLEL = 32
REPEAT = 10.0
"""Seconds before a pod that still waits is told a different reason."""
CYCLE = ObjectKey("", "", "cycle")


@dataclass(slots=True)
class Waiting:
    """A pod without a node."""

    pod: Object
    needs: Needs
    tried: int = -1  # the value of ``Binder._gains`` at the last attempt
    told: str = ""
    told_at: float = 0.0

    def rank(self) -> tuple[int, str, str, str]:
        meta, spec = self.pod["metadata"], self.pod.get("spec") or {}
        priority = -int(spec.get("priority") or 0)
        return priority, meta.get("creationTimestamp", ""), meta.get("namespace", ""), meta["name"]


class Binder:
    """All pods and nodes of one cluster."""

    def __init__(self, client: Client, informers: Informers, env: Env) -> None:
        self._client = client
        self._env = env
        self._recorder = EventRecorder(client, env, SCHEDULER)
        self._pods = informers.get(PODS)
        self._nodes = informers.get(NODES)
        self.fleet = Fleet()
        self._waiting: dict[str, Waiting] = {}  # by uid
        self._gated: dict[str, Object] = {}
        self._doubtful: dict[str, Object] = {}  # bound or not? the answer was lost; the hold stays until we know
        self._gains = 0  # grows whenever a pod that did not fit might fit now
        self._untold = False  # somebody waits for a reason that changed too soon after the last one
        self._controller = Controller("binder", self.cycle, env)

    def controller(self) -> Controller:
        self._nodes.add_handler(self._on_node)
        self._pods.add_handler(self._on_pod)
        self._controller.watch(self._nodes, lambda _: (), when=lambda *_: False)  # only to wait for its first list
        self._controller.watch(self._pods, lambda _: (), when=lambda *_: False)
        return self._controller

    # --- what the caches say

    def _wake(self) -> None:
        self._controller.queue.add(CYCLE)

    def _on_node(self, old: Object | None, new: Object | None) -> None:
        name = (new or old or {})["metadata"]["name"]
        if self.fleet.remove_node(name) if new is None else self.fleet.set_node(new):
            self._gains += 1
            self._wake()

    def _on_pod(self, old: Object | None, new: Object | None) -> None:
        pod = new or old or {}
        uid, spec = pod["metadata"]["uid"], pod.get("spec") or {}
        if new is None or has_ended(new):
            self._forget(uid)
        elif spec.get("nodeName"):
            self._waiting.pop(uid, None)
            self._doubtful.pop(uid, None)
            self.fleet.hold(uid, spec["nodeName"], Needs.of(pod).requests)
        elif is_deleting(pod):
            self._waiting.pop(uid, None)
        elif spec.get("schedulerName", SCHEDULER) == SCHEDULER and self.fleet.holder(uid) is None:
            self._admit(uid, pod)

    def _forget(self, uid: str) -> None:
        self._waiting.pop(uid, None)
        self._gated.pop(uid, None)
        self._doubtful.pop(uid, None)
        if self.fleet.release(uid):
            self._gains += 1
            self._wake()

    def _admit(self, uid: str, pod: Object) -> None:
        if pod["spec"].get("schedulingGates"):
            if get_condition(pod, "PodScheduled") is None:
                self._gated[uid] = pod
                self._wake()
            return
        self._gated.pop(uid, None)
        old = self._waiting.get(uid)
        needs = Needs.of(pod)
        if old is not None and old.needs.key == needs.key:
            old.pod = pod
            return
        self._waiting[uid] = Waiting(pod, needs)
        self._wake()

    # --- one cycle

    async def cycle(self, _: ObjectKey) -> Result | None:
        """Decide a batch, then write what was decided."""
        self._untold = False
        await self._resolve_doubts()
        await self._mark_gated()
        bind, refuse, more = self._decide()
        await self._each([self._bind(w, node) for w, node in bind])
        await self._each([self._refuse(w, message) for w, message in refuse])
        if more:
            return Result(requeue_after=0.0)
        if self._doubtful:
            return Result(requeue_after=1.0)
        return Result(requeue_after=REPEAT) if self._untold else None

    def _decide(self) -> tuple[list[tuple[Waiting, str]], list[tuple[Waiting, str]], bool]:
        """Nodes for a batch of waiting pods, refusals for the others, and whether some have not been tried yet."""
        untried = sorted((w for w in self._waiting.values() if w.tried != self._gains), key=Waiting.rank)
        bind: list[tuple[Waiting, str]] = []
        refuse: list[tuple[Waiting, str]] = []
        no_room: dict[str, str] = {}  # within one batch amounts only shrink: what did not fit does not fit
        done = 0
        for waiting in untried:
            if len(bind) >= BATCH:
                break
            done += 1
            waiting.tried = self._gains
            message = no_room.get(waiting.needs.key)
            if message is None:
                choice = choose(self.fleet, waiting.needs)
                if choice.node is not None:
                    uid = waiting.pod["metadata"]["uid"]
                    self.fleet.hold(uid, choice.node, waiting.needs.requests)
                    del self._waiting[uid]
                    bind.append((waiting, choice.node))
                    continue
                message = no_room[waiting.needs.key] = choice.message()
            if message == waiting.told:
                continue
            if waiting.told and self._env.clock.now() - waiting.told_at < REPEAT:
                waiting.tried = -1
                self._untold = True
            else:
                refuse.append((waiting, message))
        return bind, refuse, done < len(untried)

    async def _each(self, writes: Sequence[Awaitable[object]]) -> None:
        """Await all, a few at a time. The writes handle their own errors."""
        for start in range(0, len(writes), PARALLEL):
            await asyncio.gather(*writes[start : start + PARALLEL])

    # --- writes

    async def _bind(self, waiting: Waiting, node: str) -> None:
        pod, meta = waiting.pod, waiting.pod["metadata"]
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        try:
            await self._client.create(PODS, binding, meta["namespace"], name=meta["name"], subresource="binding")
        except (ApiError, ConnectionLost) as error:
            if is_not_found(error):
                self._forget(meta["uid"])
            else:
                self._doubtful[meta["uid"]] = pod
                if not is_conflict(error):
                    text = f"binding rejected: {error}"
                    await self._recorder.event(pod, "Warning", "FailedScheduling", text)
            return
        text = f"Successfully assigned {meta['namespace']}/{meta['name']} to {node}"
        await self._recorder.event(pod, "Normal", "Scheduled", text)

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
                self.fleet.hold(uid, node, Needs.of(live).requests)
            else:
                self.fleet.release(uid)
                self._on_pod(None, live)

    async def _refuse(self, waiting: Waiting, message: str) -> None:
        waiting.told, waiting.told_at = message, self._env.clock.now()
        try:
            changed = await self._set_condition(waiting.pod, "Unschedulable", message)
        except (ApiError, ConnectionLost):
            waiting.told, waiting.tried, self._untold = "", -1, True
            return
        if changed:
            await self._recorder.event(waiting.pod, "Warning", "FailedScheduling", message)

    async def _mark_gated(self) -> None:
        gated, self._gated = self._gated, {}
        await self._each([self._mark_one_gated(pod) for pod in gated.values()])

    async def _mark_one_gated(self, pod: Object) -> None:
        text = "Scheduling is blocked due to non-empty scheduling gates"
        try:
            await self._set_condition(pod, "SchedulingGated", text)
        except ApiError as error:
            if not is_not_found(error):
                self._gated.setdefault(pod["metadata"]["uid"], pod)
                self._untold = True
        except ConnectionLost:
            self._gated.setdefault(pod["metadata"]["uid"], pod)
            self._untold = True

    async def _set_condition(self, pod: Object, reason: str, message: str) -> bool:
        """Write PodScheduled=False; whether anything changed."""
        old = get_condition(pod, "PodScheduled")
        if old and (old.get("status"), old.get("reason"), old.get("message")) == ("False", reason, message):
            return False
        now = format_time(self._env.clock.now())
        conditions = (pod.get("status") or {}).get("conditions") or []
        (new,) = (
            c
            for c in set_condition(conditions, "PodScheduled", "False", reason, message, now)
            if c["type"] == "PodScheduled"
        )
        meta = pod["metadata"]
        body = {"metadata": {"uid": meta["uid"]}, "status": {"conditions": [new]}}
        await self._client.patch(PODS, meta["name"], body, meta["namespace"], kind="strategic", subresource="status")
        return True


def build(client: Client, informers: Informers, env: Env) -> Controller:
    """The binder of one logical cluster."""
    return Binder(client, informers, env).controller()
