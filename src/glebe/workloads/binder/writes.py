"""What the binder tells the API: bindings, refusals, nominations, and who has to leave."""

from __future__ import annotations

from typing import Any, Final

from glebe.kube.client import Client
from glebe.kube.clock import Env, format_time
from glebe.kube.errors import ApiError, is_not_found
from glebe.kube.events import NORMAL, WARNING, EventRecorder
from glebe.kube.objects import Object, get_condition, set_condition
from glebe.kube.resources import PODS
from glebe.workloads.binder.preempt import DISRUPTED, PREEMPTED

SCHEDULER: Final = "default-scheduler"
_KEEP: Final = "\0"


class Writer:
    """Errors of the API go to the caller.

    :param client: of the pods' logical cluster. ``recorder`` may serve many.
    """

    def __init__(self, client: Client, env: Env, recorder: EventRecorder) -> None:
        self._client = client
        self._env = env
        self._recorder = recorder

    async def bind(self, pod: Object, node: str) -> None:
        meta = pod["metadata"]
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        await self._client.create(PODS, binding, meta["namespace"], name=meta["name"], subresource="binding")

    async def say_bound(self, pod: Object, node: str) -> None:
        meta = pod["metadata"]
        text = f"Successfully assigned {meta['namespace']}/{meta['name']} to {node}"
        await self._recorder.event(pod, NORMAL, "Scheduled", text)

    async def say_failed(self, pod: Object, message: str) -> None:
        await self._recorder.event(pod, WARNING, "FailedScheduling", message)

    async def refuse(self, pod: Object, reason: str, message: str, nominated: str | None = _KEEP) -> bool:
        """Write PodScheduled=False and, unless left out, the nominated node (``None``: none); whether that is news."""
        old = get_condition(pod, "PodScheduled")
        known = old and (old.get("status"), old.get("reason"), old.get("message")) == ("False", reason, message)
        had = (pod.get("status") or {}).get("nominatedNodeName")
        moved = nominated != _KEEP and nominated != had
        if known and not moved:
            return False
        status: dict[str, Any] = (
            {} if known else {"conditions": [self._condition(pod, "PodScheduled", "False", reason, message)]}
        )
        if moved:
            status["nominatedNodeName"] = nominated
        await self._patch(pod, status)
        return not known

    async def clear_nomination(self, pod: Object) -> None:
        await self._patch(pod, {"nominatedNodeName": None})

    async def evict(self, victim: Object, preemptor: Object, node: str) -> None:
        """Make the victim leave; no matter if it is gone already."""
        message = f"{SCHEDULER}: preempting to accommodate a higher priority pod"
        meta = victim["metadata"]
        try:
            if (get_condition(victim, DISRUPTED) or {}).get("reason") != PREEMPTED:
                condition = self._condition(victim, DISRUPTED, "True", PREEMPTED, message)
                await self._patch(victim, {"conditions": [condition]})
            await self._client.delete(PODS, meta["name"], meta["namespace"], uid=meta["uid"])
        except ApiError as error:
            if is_not_found(error):
                return
            raise
        text = f"Preempted by pod {preemptor['metadata']['uid']} on node {node}"
        await self._recorder.event(victim, NORMAL, "Preempted", text)

    def _condition(self, pod: Object, kind: str, status: str, reason: str, message: str) -> dict[str, Any]:
        now = format_time(self._env.clock.now())
        conditions = (pod.get("status") or {}).get("conditions") or []
        generation = pod["metadata"].get("generation")
        new = set_condition(conditions, kind, status, reason, message, now, generation)
        return next(c for c in new if c["type"] == kind)

    async def _patch(self, pod: Object, status: dict[str, Any]) -> None:
        meta = pod["metadata"]
        body = {"metadata": {"uid": meta["uid"]}, "status": status}
        await self._client.patch(PODS, meta["name"], body, meta["namespace"], kind="strategic", subresource="status")
