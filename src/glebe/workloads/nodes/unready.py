"""Pods of a node that is not ready any more are not ready either, whatever was said of them last.

So they leave their Services' endpoints when the node falls silent, not when they are evicted (pods that tolerate the
taint never are). Once for each time that the node stops being ready: a node that lives may say something else of its
pods.
"""

from __future__ import annotations

from glebe.kube.client import Client
from glebe.kube.clock import Env, format_time
from glebe.kube.errors import ApiError, is_conflict, is_not_found
from glebe.kube.events import NORMAL, WARNING, EventRecorder
from glebe.kube.objects import Object, ObjectKey, get_condition, is_deleting
from glebe.kube.pods import has_ended
from glebe.kube.resources import PODS

NODE_NOT_READY = "NodeNotReady"


class Unready:
    """Marks the pods of nodes that stopped being ready."""

    def __init__(self, client: Client, env: Env) -> None:
        self._client = client
        self._env = env
        self._recorder = EventRecorder(client, env, "node-controller")
        self._seen_ready: set[ObjectKey] = set()
        self._marked: dict[ObjectKey, str] = {}
        """Node -> when it stopped being ready, for those whose pods have all been marked since."""

    async def mark(self, key: ObjectKey, node: Object | None, pods: list[Object]) -> bool:
        """Repeatable. ``False``: a pod has changed in the meantime, look again."""
        ready = get_condition(node, "Ready") if node is not None else None
        if node is None or ready is None or ready.get("status") == "True":
            self._marked.pop(key, None)
            (self._seen_ready.discard if ready is None else self._seen_ready.add)(key)
            return True
        if key in self._seen_ready:
            self._seen_ready.discard(key)
            await self._recorder.event(node, NORMAL, NODE_NOT_READY, f"Node {key.name} status is now: {NODE_NOT_READY}")
        since = str(ready.get("lastTransitionTime"))
        if self._marked.get(key) == since:
            return True
        done = [await self._mark(key, pod) for pod in pods]
        if not all(done):
            return False
        self._marked[key] = since
        return True

    async def _mark(self, node: ObjectKey, pod: Object) -> bool:
        ready, meta = get_condition(pod, "Ready"), pod["metadata"]
        if ready is None or ready.get("status") != "True" or has_ended(pod) or is_deleting(pod):
            return True
        condition = {**ready, "status": "False", "lastTransitionTime": format_time(self._env.clock.now())}
        # The lock: what the node said in the meantime must not be overruled.
        lock = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
        patch = {"metadata": lock, "status": {"conditions": [condition]}}
        client = self._client.at(node.cluster)
        try:
            await client.patch(PODS, meta["name"], patch, meta["namespace"], kind="strategic", subresource="status")
        except ApiError as error:
            if not is_not_found(error) and not is_conflict(error):
                raise
            return is_not_found(error)
        await self._recorder.event(pod, WARNING, NODE_NOT_READY, "Node is not ready")
        return True
