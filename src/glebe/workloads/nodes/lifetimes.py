"""How long a node may use what it has read of Secrets and ConfigMaps: annotation ``node.alpha.kubernetes.io/ttl``.

The more nodes a cluster has, the longer (``pkg/controller/ttl``), so that many nodes do not ask the server too often.
"""

from __future__ import annotations

from collections import Counter

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError, is_not_found
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey, annotations_of, key_of
from glebe.kube.resources import NODES

ANNOTATION = "node.alpha.kubernetes.io/ttl"
_STEPS = ((0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, 2**31 - 1, 300))
"""(fewest nodes, most nodes, seconds); they overlap so that one node more or less changes nothing."""
GATHER = 1.0
"""Seconds for which new nodes are gathered: a fleet comes all at once, and only its final size matters."""


def step(nodes: int, now: int) -> int:
    """The step for a cluster of so many nodes that was at step ``now``."""
    while nodes > _STEPS[now][1]:
        now += 1
    while nodes < _STEPS[now][0]:
        now -= 1
    return now


class Lifetimes:
    def __init__(self, client: Client, informers: Informers, env: Env) -> None:
        self._client = client
        self._env = env
        self._nodes = informers.get(NODES)
        self._counts: Counter[str] = Counter()
        self._steps: dict[str, int] = {}
        self._controller = Controller("node-ttl", self.reconcile, env)

    def controller(self) -> Controller:
        self._nodes.add_handler(self._observe)
        self._controller.watch(self._nodes, lambda _: (), when=lambda *_: False)  # only to wait for its first list
        return self._controller

    def _observe(self, old: Object | None, new: Object | None) -> None:
        key = key_of(new or old or {}, self._nodes.cluster)
        if (old is None) != (new is None):
            self._counts[key.cluster] += 1 if old is None else -1
            if not self._counts[key.cluster]:
                del self._counts[key.cluster]
                self._steps.pop(key.cluster, None)
        if new is None or key.cluster not in self._counts:
            return
        self._steps[key.cluster] = step(self._counts[key.cluster], self._steps.get(key.cluster, 0))
        if self._differs(key, new):
            self._controller.queue.add_after(key, GATHER)

    def _differs(self, key: ObjectKey, node: Object) -> bool:
        return annotations_of(node).get(ANNOTATION) != self._seconds(key.cluster)

    def _seconds(self, cluster: str) -> str:
        return str(_STEPS[self._steps.get(cluster, 0)][2])

    async def reconcile(self, key: ObjectKey) -> Result | None:
        node = self._nodes.store.get(key)
        if node is None or not self._differs(key, node):
            return None
        body = {"metadata": {"uid": node["metadata"]["uid"], "annotations": {ANNOTATION: self._seconds(key.cluster)}}}
        try:
            await self._client.at(key.cluster).patch(NODES, key.name, body)
        except ApiError as error:
            if not is_not_found(error):
                raise
        return None
