"""Keeping nodes present in the API: registration, heartbeats by Lease, and the Ready condition.

One :class:`Presence` serves any number of nodes. Heartbeats are spread over the interval. The interval grows with the
fleet to spare the API, but never beyond half of the 40 s after which a silent node counts as lost.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence

from glebe.kube.client import Client
from glebe.kube.clock import Env, format_micro_time
from glebe.kube.errors import ApiError, is_already_exists, is_not_found
from glebe.kube.informer import Informer
from glebe.kube.objects import Object, ObjectKey, condition_is_true
from glebe.kube.resources import LEASES, NODES
from glebe.kube.transport import ConnectionLost
from glebe.node.spec import LEASE_NAMESPACE, NodeSpec, lease_object, node_object, node_status

log = logging.getLogger("glebe.node")

INTERVAL = 10.0  # seconds between heartbeats of one node, for small fleets
SLOWEST = 20.0  # for large ones: a node that is silent for 40 s counts as lost, and one beat may go astray
WRITES = 100  # heartbeats per second that a fleet may cost before its interval grows
_GRACE = 40  # seconds, at least, for which a Lease is said to be good
_PARALLEL = 8


def heartbeat_interval(nodes: int) -> float:
    """10 s up to 1,000 nodes, then longer, 20 s from 2,000 on."""
    return min(max(INTERVAL, nodes / WRITES), SLOWEST)


class Presence:
    """Registers ``specs`` and keeps those that are not silenced alive.

    ``nodes`` is an informer that covers them; the caller runs it.
    """

    def __init__(
        self, client: Client, env: Env, specs: Sequence[NodeSpec], nodes: Informer, *, interval: float | None = None
    ) -> None:
        self._client = client
        self._env = env
        self._specs = {spec.name: spec for spec in specs}
        self._nodes = nodes
        self._silent: set[str] = set()
        self._leased: set[str] = set()
        self._repair: asyncio.Queue[str] = asyncio.Queue()
        self._queued: set[str] = set()
        self._complaint = ""
        self.interval = interval or heartbeat_interval(len(specs))
        self.registered = asyncio.Event()

    def is_alive(self, name: str) -> bool:
        return name in self._specs and name not in self._silent

    def silence(self, name: str) -> None:
        """No more heartbeats from this node."""
        self._silent.add(name)

    def resume(self, name: str) -> None:
        """The node is back: it renews its Lease and says that it is Ready."""
        self._silent.discard(name)
        self._want(name)

    async def run(self) -> None:
        """Register, then beat until cancelled."""
        await self._nodes.wait_synced()
        await self._each(self._specs, self._register)
        self.registered.set()
        self._nodes.add_handler(self._on_node)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._beat())
                group.create_task(self._repairs())
        finally:
            self._nodes.remove_handler(self._on_node)

    # --- registration

    async def _register(self, name: str) -> None:
        spec = self._specs[name]
        delay = 0.1
        while True:
            try:
                await self._register_once(spec)
                return
            except (ApiError, ConnectionLost) as error:
                self._complain(f"cannot register node {name}: {error}")
                await asyncio.sleep(delay)
                delay = min(delay * 2, 5.0)

    async def _register_once(self, spec: NodeSpec) -> None:
        known = self._nodes.store.get(self._key(spec.name))
        if known is None:
            try:
                made = await self._client.create(NODES, node_object(spec, self._env.clock.now()))
            except ApiError as error:
                if not is_already_exists(error):
                    raise
                known = await self._client.get(NODES, spec.name)
            else:
                await self._renew(spec.name, made["metadata"]["uid"])
                if not condition_is_true(made, "Ready"):
                    await self._say_ready(spec, made)
                return
        labels = known["metadata"].get("labels") or {}
        missing = {key: value for key, value in spec.labels.items() if labels.get(key) != value}
        if missing:
            known = await self._client.patch(NODES, spec.name, {"metadata": {"labels": missing}})
        await self._renew(spec.name, known["metadata"]["uid"])
        status = known.get("status") or {}
        if not condition_is_true(known, "Ready") or status.get("capacity") != dict(spec.capacity):
            await self._say_ready(spec, known)

    async def _say_ready(self, spec: NodeSpec, known: Object) -> None:
        conditions = (known.get("status") or {}).get("conditions") or []
        status = node_status(spec, conditions, self._env.clock.now(), ready=True)
        await self._client.patch(NODES, spec.name, {"status": status}, kind="merge", subresource="status")

    # --- heartbeats

    async def _beat(self) -> None:
        names = list(self._specs)
        batches = max(1, min(len(names) // 20, int(self.interval / 0.25)))
        size = max(1, math.ceil(len(names) / batches))
        while names:
            for start in range(0, size * batches, size):
                await asyncio.sleep(self.interval / batches)
                await self._each((n for n in names[start : start + size] if n not in self._silent), self._renew_quietly)

    async def _renew_quietly(self, name: str) -> None:
        try:
            known = self._nodes.store.get(self._key(name))
            if known is not None:
                await self._renew(name, known["metadata"]["uid"])
                self._complaint = ""
        except (ApiError, ConnectionLost) as error:
            self._complain(f"cannot renew the lease of node {name}: {error}")

    async def _renew(self, name: str, uid: str) -> None:
        now, duration = self._env.clock.now(), max(_GRACE, math.ceil(self.interval * 2))
        if name in self._leased:
            patch = {"spec": {"renewTime": format_micro_time(now)}}
            try:
                await self._client.patch(LEASES, name, patch, LEASE_NAMESPACE)
                return
            except ApiError as error:
                if not is_not_found(error):
                    raise
                self._leased.discard(name)
        lease = lease_object(name, uid, now, duration)
        try:
            await self._client.create(LEASES, lease, LEASE_NAMESPACE)
        except ApiError as error:
            if is_not_found(error):  # the namespace is not there yet: the next beat will find it
                return
            if not is_already_exists(error):
                raise
            owner = {"metadata": {"ownerReferences": lease["metadata"]["ownerReferences"]}}
            await self._client.patch(LEASES, name, {**owner, "spec": lease["spec"]}, LEASE_NAMESPACE)
        self._leased.add(name)

    # --- the Ready condition: said again whenever somebody else took it away from a living node

    def _on_node(self, _old: Object | None, new: Object | None) -> None:
        if new is None:
            return
        name = new["metadata"]["name"]
        if self.is_alive(name) and not condition_is_true(new, "Ready"):
            self._want(name)

    def _want(self, name: str) -> None:
        if name not in self._queued:
            self._queued.add(name)
            self._repair.put_nowait(name)

    async def _repairs(self) -> None:
        while True:
            name = await self._repair.get()
            self._queued.discard(name)
            if not self.is_alive(name):
                continue
            try:
                known = await self._client.get(NODES, name)
                await self._renew(name, known["metadata"]["uid"])
                if not condition_is_true(known, "Ready"):
                    await self._say_ready(self._specs[name], known)
            except (ApiError, ConnectionLost) as error:
                if not (isinstance(error, ApiError) and is_not_found(error)):
                    self._complain(f"cannot update node {name}: {error}")
                    asyncio.get_running_loop().call_later(1.0, self._want, name)

    # --- helpers

    def _key(self, name: str) -> ObjectKey:
        return ObjectKey(self._client.cluster, "", name)

    async def _each(self, names: Iterable[str], act: Callable[[str], Awaitable[None]]) -> None:
        """Run ``act`` for every name, a few at a time, in their order."""
        todo = iter(list(names))

        async def work() -> None:
            for name in todo:
                await act(name)

        async with asyncio.TaskGroup() as group:
            for _ in range(_PARALLEL):
                group.create_task(work())

    def _complain(self, text: str) -> None:
        if text.partition(":")[2] != self._complaint:
            self._complaint = text.partition(":")[2]
            log.warning("%s; will try again", text)
