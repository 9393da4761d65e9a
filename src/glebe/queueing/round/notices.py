"""Events on the workload and on the job it stands for: the same sentence on both."""

from __future__ import annotations

import asyncio

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.events import EventRecorder
from glebe.kube.objects import Object, ObjectKey, controller_of, key_of
from glebe.scheduling.model import Decision

#: Events written per second, at most, after so many at once: in a flood, work comes before words about it.
_RATE, _BURST = 100.0, 500
_KEPT = 8  # unwritten events per workload; older ones are dropped


def in_full(decision: Decision) -> str:
    """The cause, and what would help, as one line."""
    return f"{decision.message}; would help: {decision.remedy}" if decision.remedy else decision.message


class Notices:
    """Writes events in the background, in order per workload; they are a courtesy and hold nothing up."""

    def __init__(self, client: Client, env: Env) -> None:
        self._recorder = EventRecorder(client, env, "glebe-queue")
        self._env = env
        self._paid = float("-inf")  # until when the events written so far have used up the rate
        self._cluster = client.cluster
        self._waiting: dict[ObjectKey, list[tuple[Object, str, str, str]]] = {}
        self.controller = Controller("queue-events", self._reconcile, env, workers=2)

    def say(self, workload: Object, kind: str, reason: str, message: str) -> None:
        """:param kind: Normal or Warning."""
        key = key_of(workload, self._cluster)
        waiting = self._waiting.setdefault(key, [])
        waiting.append((workload, kind, reason, message))
        del waiting[:-_KEPT]
        self.controller.queue.add(key)

    def say_of(self, obj: Object, kind: str, reason: str, message: str) -> None:
        """The same of an object that has no workload (yet)."""
        self.say(obj, kind, reason, message)

    async def _pace(self) -> None:
        now = self._env.clock.now()
        self._paid = max(self._paid, now - _BURST / _RATE) + 1 / _RATE
        if self._paid > now:
            await asyncio.sleep(self._paid - now)

    async def _reconcile(self, key: ObjectKey) -> Result | None:
        for workload, kind, reason, message in self._waiting.pop(key, ()):
            await self._pace()
            await self._recorder.event(workload, kind, reason, message)
            if (job := _owner(workload)) is not None:
                await self._pace()
                await self._recorder.event(job, kind, reason, message)
        return None


def _owner(workload: Object) -> Object | None:
    owner = controller_of(workload)
    if owner is None:
        return None
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "metadata": {"name": owner["name"], "namespace": workload["metadata"]["namespace"], "uid": owner["uid"]},
    }
