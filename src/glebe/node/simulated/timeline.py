"""Makes a scenario happen to nodes: one queue of moments for all of them."""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from glebe.kube.clock import Env
from glebe.kube.errors import ApiError, is_not_found
from glebe.kube.objects import Object, ObjectKey, controller_of, is_deleting
from glebe.kube.pods import has_ended
from glebe.kube.resources import NODES, PODS
from glebe.kube.transport import ConnectionLost
from glebe.node.simulated import scenario as s
from glebe.node.simulated.scenario import NodeRule, Scenario
from glebe.node.spec import ROOT, NodeSpec

if TYPE_CHECKING:
    from glebe.node.simulated.nodes import SimulatedNodes

log = logging.getLogger("glebe.node")

_TINY = 1e-6  # seconds: a timer may go off that much too soon
_RETRY = 1.0  # seconds
_AGAIN = 5.0  # seconds before an eviction that a budget refused is asked for again


class Timeline:
    """Moments count from the start of :meth:`run`, for clusters that come later from their coming."""

    def __init__(self, nodes: SimulatedNodes, scenario: Scenario, env: Env) -> None:
        self._nodes = nodes
        self._scenario = scenario
        self._env = env
        self._began: float | None = None
        self._due: list[tuple[float, int, int, ObjectKey, int, bool]] = []  # when, ., rule, node, time, whether it ends
        self._serial = 0
        self._more = asyncio.Event()
        self._drains: dict[ObjectKey, asyncio.Task[None]] = {}

    def come(self, cluster: str, specs: Sequence[NodeSpec]) -> None:
        """These nodes are there now."""
        for number, rule in enumerate(self._scenario.nodes):
            for spec in specs:
                if rule.concerns(cluster or ROOT, spec, f"{self._scenario.seed}/nodes/{number}"):
                    key = ObjectKey(cluster, "", spec.name)
                    first = self._draw(number, key, "at", 0) if rule.at else self._draw(number, key, "every", 0)
                    self._schedule(self._now() + first, number, key, 0, ends=False)

    def go(self, cluster: str) -> None:
        """The cluster is gone."""
        self._due = [each for each in self._due if each[3].cluster != cluster]
        heapq.heapify(self._due)

    def _now(self) -> float:
        return 0.0 if self._began is None else asyncio.get_running_loop().time() - self._began

    def _draw(self, number: int, key: ObjectKey, what: str, time: int) -> float:
        rule = self._scenario.nodes[number]
        text = {"at": rule.at, "for": rule.lasts, "every": rule.every}[what]
        return self._scenario.draw(text, number, key, what, time) if text else 0.0

    def _schedule(self, at: float, number: int, key: ObjectKey, time: int, *, ends: bool) -> None:
        self._serial += 1
        heapq.heappush(self._due, (at, self._serial, number, key, time, ends))
        self._more.set()

    async def run(self) -> None:
        """Until cancelled."""
        await self._nodes.wait_registered()
        self._began = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            while True:
                self._more.clear()
                while self._due and self._due[0][0] <= self._now() + _TINY:
                    _, _, number, key, time, ends = heapq.heappop(self._due)
                    await self._happen(group, number, key, time, ends=ends)
                wait = self._due[0][0] - self._now() if self._due else None
                try:
                    async with asyncio.timeout(wait):
                        await self._more.wait()
                except TimeoutError:
                    pass

    async def _happen(self, group: asyncio.TaskGroup, number: int, key: ObjectKey, time: int, *, ends: bool) -> None:
        rule, now = self._scenario.nodes[number], self._now()
        try:
            if ends:
                await self._end(rule, key)
            else:
                await self._begin(group, rule, key)
        except (ApiError, ConnectionLost, KeyError) as error:
            log.warning("scenario: %s of node %s: %s", rule.deed, key, error)
            gone = isinstance(error, KeyError) or (isinstance(error, ApiError) and is_not_found(error))
            if ends and not gone:  # a node must not stay cordoned for ever
                self._schedule(now + _RETRY, number, key, time, ends=True)
                return
        if not ends and rule.lasts:
            self._schedule(now + self._draw(number, key, "for", time), number, key, time, ends=True)
        elif rule.every:
            self._schedule(now + self._draw(number, key, "every", time + 1), number, key, time + 1, ends=False)

    async def _begin(self, group: asyncio.TaskGroup, rule: NodeRule, key: ObjectKey) -> None:
        nodes, name, cluster = self._nodes, key.name, key.cluster
        match rule.deed:
            case s.FAIL | s.CUT_OFF:
                nodes.fail_node(name, crash=rule.deed == s.FAIL, cluster=cluster)
            case s.NOT_READY:
                nodes.set_ready(name, False, cluster=cluster)
            case s.SLOW_STATUS:
                nodes.delay_status(name, rule.delay, cluster=cluster)
            case s.XID:
                await nodes.break_gpu(name, rule.gpu, rule.code, cluster=cluster)
            case s.DRAIN:
                self._drains[key] = group.create_task(self._drain(key), name=f"drain {key}")

    async def _end(self, rule: NodeRule, key: ObjectKey) -> None:
        nodes, name, cluster = self._nodes, key.name, key.cluster
        match rule.deed:
            case s.FAIL | s.CUT_OFF:
                nodes.recover_node(name, cluster=cluster)
            case s.NOT_READY:
                nodes.set_ready(name, True, cluster=cluster)
            case s.SLOW_STATUS:
                nodes.delay_status(name, 0, cluster=cluster)
            case s.XID:
                nodes.mend_gpu(name, rule.gpu, cluster=cluster)
            case s.DRAIN:
                if (drain := self._drains.pop(key, None)) is not None:
                    drain.cancel()
                await self._cordon(key, False)

    # --- maintenance, as an administrator does it with kubectl drain

    async def _cordon(self, key: ObjectKey, cordoned: bool) -> None:
        await self._nodes.client_of(key.cluster).patch(NODES, key.name, {"spec": {"unschedulable": cordoned or None}})

    async def _drain(self, key: ObjectKey) -> None:
        """Cordon, then evict until nobody is left who can be."""
        client = self._nodes.client_of(key.cluster)
        while True:
            try:
                await self._cordon(key, True)
                left = [p for p in self._nodes.pods_on(key.name, cluster=key.cluster) if _leaves(p)]
                for pod in left:
                    meta = pod["metadata"]
                    eviction = {
                        "apiVersion": "policy/v1",
                        "kind": "Eviction",
                        "metadata": {"name": meta["name"], "namespace": meta["namespace"]},
                    }
                    try:
                        await client.create(
                            PODS, eviction, meta["namespace"], name=meta["name"], subresource="eviction"
                        )
                    except ApiError as error:
                        if not (is_not_found(error) or error.code == 429):  # 429: a budget does not allow it yet
                            raise
                if not left:
                    return
            except (ApiError, ConnectionLost, KeyError) as error:
                log.warning("scenario: drain of node %s: %s; will try again", key, error)
            await asyncio.sleep(_AGAIN)


def _leaves(pod: Object) -> bool:
    daemon = (controller_of(pod) or {}).get("kind") == "DaemonSet"
    return not (daemon or has_ended(pod) or is_deleting(pod))
