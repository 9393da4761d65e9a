"""Keeping nodes present in the API: registration, heartbeats by Lease, and the Ready condition.

One :class:`Presence` serves any number of nodes in any number of logical clusters. Heartbeats are spread over the
interval. The interval grows with the fleet to spare the API, but stays well below the 40 s after which a silent node
counts as lost; a heartbeat that the API refuses or loses is sent again soon.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from glebe.kube.client import Client
from glebe.kube.clock import Env, format_micro_time
from glebe.kube.errors import ApiError, is_already_exists, is_not_found
from glebe.kube.informer import Informer
from glebe.kube.objects import EVERY, Object, ObjectKey, condition_is_true, get_condition, key_of
from glebe.kube.resources import LEASES, NODES
from glebe.kube.transport import ConnectionLost
from glebe.node.spec import LEASE_NAMESPACE, NodeSpec, lease_object, node_object, node_status

log = logging.getLogger("glebe.node")

INTERVAL = 10.0  # seconds between heartbeats of one node, for small fleets
SLOWEST = 30.0  # for large ones: a node that is silent for 40 s counts as lost
AGAIN = 2.0  # after one that failed
WRITES = 100  # heartbeats per second that a fleet may cost before its interval grows
_STEP = 1.0  # seconds between two batches of heartbeats: many small ones find the processor's caches cold each time
_GRACE = 40  # seconds, at least, for which a Lease is said to be good
_PARALLEL = 8
_BEATS = 64  # heartbeats at once: a server that makes writes durable together does so for all of them

StatusOf = Callable[[ObjectKey, NodeSpec, list[dict[str, Any]], float], dict[str, Any]]
"""The status that a node is to have, given its key, its conditions as they are, and the time."""


def heartbeat_interval(nodes: int) -> float:
    """10 s up to 1,000 nodes, then longer, 30 s from 3,000 on."""
    return min(max(INTERVAL, nodes / WRITES), SLOWEST)


def _healthy(_: ObjectKey, spec: NodeSpec, conditions: list[dict[str, Any]], now: float) -> dict[str, Any]:
    return node_status(spec, conditions, now, ready=True)


class Presence:
    """Registers ``specs`` in the client's own cluster (and more by :meth:`settle`) and keeps those that are not
    silenced alive.

    :param nodes: an informer that covers them; the caller runs it.
    :param status_of: what nodes say of themselves; by default that all is well.
    """

    def __init__(
        self,
        client: Client,
        env: Env,
        specs: Sequence[NodeSpec],
        nodes: Informer,
        *,
        interval: float | None = None,
        status_of: StatusOf = _healthy,
    ) -> None:
        self._client = client
        self._env = env
        self._nodes = nodes
        self._status_of = status_of
        self._seats: dict[ObjectKey, NodeSpec] = {}
        self._fresh: list[ObjectKey] = []  # not registered yet
        self._silent: set[ObjectKey] = set()
        self._leased: set[ObjectKey] = set()
        self._repair: asyncio.Queue[ObjectKey] = asyncio.Queue()
        self._queued: set[ObjectKey] = set()
        self._told: set[ObjectKey] = set()  # whose status is to be written whatever it says now
        self._failed: dict[ObjectKey, None] = {}  # whose heartbeat is to be sent again
        self._settled = asyncio.Event()
        self._complaint = ""
        self._interval = interval
        self.registered = asyncio.Event()
        if client.cluster != EVERY:
            self.settle(client.cluster, specs)

    @property
    def interval(self) -> float:
        """Seconds between two heartbeats of one node."""
        return self._interval or heartbeat_interval(len(self._seats))

    def __len__(self) -> int:
        return len(self._seats)

    # --- who is there

    def settle(self, cluster: str, specs: Iterable[NodeSpec]) -> None:
        """These nodes, too, are to be in ``cluster``."""
        for spec in specs:
            key = ObjectKey(cluster, "", spec.name)
            if key not in self._seats:
                self._seats[key] = spec
                self._fresh.append(key)
        self._settled.set()

    def leave(self, cluster: str) -> None:
        """The cluster is gone, and its nodes with it."""
        for key in [key for key in self._seats if key.cluster == cluster]:
            del self._seats[key]
            for marks in (self._silent, self._leased, self._told):
                marks.discard(key)

    def spec(self, key: ObjectKey) -> NodeSpec | None:
        return self._seats.get(key)

    def is_alive(self, key: ObjectKey) -> bool:
        return key in self._seats and key not in self._silent

    def silence(self, key: ObjectKey) -> None:
        """No more heartbeats from this node."""
        self._silent.add(key)

    def resume(self, key: ObjectKey) -> None:
        """The node is back: it renews its Lease and says how it is."""
        self._silent.discard(key)
        self.tell(key)

    def tell(self, key: ObjectKey) -> None:
        """What the node says of itself has changed: write it."""
        self._told.add(key)
        self._want(key)

    # --- running

    async def run(self) -> None:
        """Register, then beat until cancelled."""
        await self._nodes.wait_synced()
        await self._register_fresh()
        self.registered.set()
        self._nodes.add_handler(self._on_node)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._beat())
                group.create_task(self._repairs())
                group.create_task(self._newcomers())
                group.create_task(self._retries())
        finally:
            self._nodes.remove_handler(self._on_node)

    async def _newcomers(self) -> None:
        while True:
            await self._settled.wait()
            self._settled.clear()
            await self._register_fresh()

    async def _register_fresh(self) -> None:
        fresh, self._fresh = self._fresh, []
        await self._each(fresh, self._register)

    async def _register(self, key: ObjectKey) -> None:
        delay = 0.1
        while (spec := self._seats.get(key)) is not None:
            try:
                await self._register_once(key, spec)
                return
            except (ApiError, ConnectionLost) as error:
                self._complain(f"cannot register node {key}: {error}")
                await asyncio.sleep(delay)
                delay = min(delay * 2, 5.0)

    async def _register_once(self, key: ObjectKey, spec: NodeSpec) -> None:
        client, known = self._client.at(key.cluster), self._nodes.store.get(key)
        if known is None:
            try:
                body = node_object(spec, self._env.clock.now())
                body["status"] = self._status(key, spec, [])
                made = await client.create(NODES, body)
            except ApiError as error:
                if not is_already_exists(error):
                    raise
                known = await client.get(NODES, spec.name)
            else:
                await self._renew(key, made["metadata"]["uid"])
                if get_condition(made, "Ready") is None:  # a server that strips the status on creation
                    await self._say(key, spec, made)
                return
        labels = known["metadata"].get("labels") or {}
        missing = {name: value for name, value in spec.labels.items() if labels.get(name) != value}
        if missing:
            known = await client.patch(NODES, spec.name, {"metadata": {"labels": missing}})
        await self._renew(key, known["metadata"]["uid"])
        status = known.get("status") or {}
        if not condition_is_true(known, "Ready") or status.get("capacity") != dict(spec.capacity):
            await self._say(key, spec, known)

    def _status(self, key: ObjectKey, spec: NodeSpec, conditions: list[dict[str, Any]]) -> dict[str, Any]:
        return self._status_of(key, spec, conditions, self._env.clock.now())

    async def _say(self, key: ObjectKey, spec: NodeSpec, known: Object) -> None:
        status = self._status(key, spec, (known.get("status") or {}).get("conditions") or [])
        client = self._client.at(key.cluster)
        await client.patch(NODES, spec.name, {"status": status}, kind="merge", subresource="status")

    # --- heartbeats

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            seats, interval = list(self._seats), self.interval
            batches = max(1, min(len(seats) // 20, int(interval / _STEP)))
            size = max(1, math.ceil(len(seats) / batches))
            for start in range(0, size * batches, size):
                due = max(due + interval / batches, loop.time() - interval)  # what the beats take is not added
                await asyncio.sleep(due - loop.time())
                some = (key for key in seats[start : start + size] if self.is_alive(key))
                await self._each(some, self._renew_quietly, _BEATS)

    async def _retries(self) -> None:
        while True:
            await asyncio.sleep(AGAIN)
            failed, self._failed = self._failed, {}
            await self._each([key for key in failed if self.is_alive(key)], self._renew_quietly)

    async def _renew_quietly(self, key: ObjectKey) -> None:
        try:
            known = self._nodes.store.get(key)
            if known is not None:
                await self._renew(key, known["metadata"]["uid"])
                self._complaint = ""
        except (ApiError, ConnectionLost) as error:
            self._complain(f"cannot renew the lease of node {key}: {error}")
            self._failed[key] = None

    async def _renew(self, key: ObjectKey, uid: str) -> None:
        client, name, now = self._client.at(key.cluster), key.name, self._env.clock.now()
        if key in self._leased:
            patch = {"spec": {"renewTime": format_micro_time(now)}}
            try:
                await client.patch(LEASES, name, patch, LEASE_NAMESPACE)
                return
            except ApiError as error:
                if not is_not_found(error):
                    raise
                self._leased.discard(key)
        lease = lease_object(name, uid, now, max(_GRACE, math.ceil(self.interval * 2)))
        try:
            await client.create(LEASES, lease, LEASE_NAMESPACE)
        except ApiError as error:
            if is_not_found(error):  # the namespace is not there yet: the next beat will find it
                return
            if not is_already_exists(error):
                raise
            owner = {"metadata": {"ownerReferences": lease["metadata"]["ownerReferences"]}}
            await client.patch(LEASES, name, {**owner, "spec": lease["spec"]}, LEASE_NAMESPACE)
        self._leased.add(key)

    # --- what it says of itself: said again whenever somebody else took it away from a living node

    def _on_node(self, _old: Object | None, new: Object | None) -> None:
        if new is None:
            return
        key = key_of(new, self._nodes.cluster)
        if self.is_alive(key) and not self._agrees(key, self._seats[key], new):
            self._want(key)

    def _agrees(self, key: ObjectKey, spec: NodeSpec, node: Object) -> bool:
        """Whether the node's Ready is what it would say itself."""
        if condition_is_true(node, "Ready") and key not in self._told:
            return True
        wanted = get_condition({"status": self._status(key, spec, [])}, "Ready") or {}
        return (get_condition(node, "Ready") or {}).get("status") == wanted.get("status")

    def _want(self, key: ObjectKey) -> None:
        if key not in self._queued:
            self._queued.add(key)
            self._repair.put_nowait(key)

    async def _repairs(self) -> None:
        while True:
            key = await self._repair.get()
            self._queued.discard(key)
            spec = self._seats.get(key)
            if spec is None or not self.is_alive(key):
                continue
            try:
                known = await self._client.at(key.cluster).get(NODES, key.name)
                await self._renew(key, known["metadata"]["uid"])
                if key in self._told or not self._agrees(key, spec, known):
                    self._told.discard(key)
                    await self._say(key, spec, known)
            except (ApiError, ConnectionLost) as error:
                if not (isinstance(error, ApiError) and is_not_found(error)):
                    self._complain(f"cannot update node {key}: {error}")
                    asyncio.get_running_loop().call_later(1.0, self.tell, key)

    # --- helpers

    async def _each(
        self, keys: Iterable[ObjectKey], act: Callable[[ObjectKey], Awaitable[None]], width: int = _PARALLEL
    ) -> None:
        """Run ``act`` for every key, ``width`` at a time, in their order."""
        listed = list(keys)
        todo = iter(listed)

        async def work() -> None:
            for key in todo:
                await act(key)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(width, len(listed))):
                group.create_task(work())

    def _complain(self, text: str) -> None:
        if text.partition(":")[2] != self._complaint:
            self._complaint = text.partition(":")[2]
            log.warning("%s; will try again", text)
