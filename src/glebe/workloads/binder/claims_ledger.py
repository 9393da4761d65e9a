"""What the binder knows of one cluster's devices and claims: the caches, and what it wrote itself just now."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

from glebe.kube.objects import Object
from glebe.kube.quantity import QuantityError
from glebe.kube.resources import Resource
from glebe.workloads.claims.names import CLAIMS, DEVICE_CLASSES, SLICES, allocation_of, version_of
from glebe.workloads.claims.pools import Pool, Shelf
from glebe.workloads.claims.taken import Taken, results_of

_KEPT = 20_000  # nodes whose pools are remembered
_DOUBT = 60.0
"""Seconds for which devices are kept back when nobody knows whether they were written into a claim: the watch says so
much sooner."""
Find = Callable[[Resource, str], Object | None]


class Ledger:
    """Slices by node, what is taken, claims as they are. ``stamp`` of a node changes with all that matters there."""

    def __init__(self, find: Find, every: Callable[[Resource], list[Object]]) -> None:
        self._find = find
        self._shelf = Shelf()
        self.taken = Taken()
        self._assumed: dict[str, Object] = {}  # by uid: written by us, not in the cache yet
        self._pending: dict[str, dict[str, Any]] = {}  # by uid: allocations that are not written yet
        self._doubts: dict[str, tuple[str, float]] = {}  # uid -> (path, until)
        self._ticks = count(1)
        self._stamps: dict[str, int] = {}  # by node; "": all nodes
        self._shapes: dict[str, int] = {}  # the same, of slices alone
        self._pools: dict[str, tuple[int, Any, list[Pool]]] = {}
        for obj in every(SLICES):
            self._on_slice(None, obj)
        for obj in every(CLAIMS):
            self._tally(obj)

    # --- the caches

    def changed(self, resource: Resource, old: Object | None, new: Object | None) -> None:
        """Something that is watched changed."""
        if resource is SLICES:
            self._on_slice(old, new)
        elif resource is CLAIMS:
            self._on_claim(old, new)
        elif resource is DEVICE_CLASSES:
            self._touch("")

    def _on_slice(self, old: Object | None, new: Object | None) -> None:
        for each in (old, new):
            if each is not None:
                node = str(each["spec"].get("nodeName") or "")
                self._touch(node)
                self._shapes[node] = self._stamps[node]
        if new is None:
            self._shelf.drop((old or {})["metadata"]["name"])
            return
        try:
            self._shelf.put(new)
        except (QuantityError, KeyError):
            return  # not what a driver may write; it has no devices

    def _on_claim(self, old: Object | None, new: Object | None) -> None:
        claim = new or old or {}
        uid = str(claim["metadata"]["uid"])
        assumed = self._assumed.get(uid)
        if new is None:
            self._assumed.pop(uid, None)
            self._pending.pop(uid, None)
            self._doubts.pop(uid, None)
            self._put(uid, None)
            return
        if assumed is not None:
            if version_of(new) < version_of(assumed):
                return
            del self._assumed[uid]
        if allocation_of(new) is not None:
            self._pending.pop(uid, None)
            self._doubts.pop(uid, None)
        self._tally(new)

    def _tally(self, claim: Object) -> None:
        uid = str(claim["metadata"]["uid"])
        self._put(uid, allocation_of(claim) or self._pending.get(uid))

    def _put(self, uid: str, allocation: dict[str, Any] | None) -> None:
        before = self.taken.results(uid)
        self.taken.put(uid, allocation)
        for result in (*before, *results_of(allocation)):
            for node in self._shelf.nodes_of(result["driver"], result["pool"]):
                self._touch(node)

    def _touch(self, node: str) -> None:
        self._stamps[node] = next(self._ticks)

    # --- what is asked

    def claim(self, path: str) -> Object | None:
        """The claim ``namespace/name`` as it is now."""
        cached = self._find(CLAIMS, path)
        if cached is None:
            return None
        assumed = self._assumed.get(str(cached["metadata"]["uid"]))
        return cached if assumed is None else assumed

    def device_class(self, name: str) -> Object | None:
        return self._find(DEVICE_CLASSES, name)

    def stamp(self, node: str) -> int:
        return _latest(self._stamps, node)

    def pools(self, node: Object) -> list[Pool]:
        """What the node can use."""
        name, labels = node["metadata"]["name"], node["metadata"].get("labels")
        known = self._pools.get(name)
        stamp = _latest(self._shapes, name)
        if known is not None and known[0] == stamp and known[1] == labels:
            return known[2]
        pools = self._shelf.pools(node)
        if len(self._pools) >= _KEPT:
            self._pools.clear()  # nodes come and go
        self._pools[name] = (stamp, labels, pools)
        return pools

    def used(self, node: Object) -> float:
        """Which part of the node's devices is taken."""
        devices = [device.id for pool in self.pools(node) for device in pool.devices if device.slice.get("nodeName")]
        return sum(1 for each in devices if each in self.taken) / len(devices) if devices else 0.0

    # --- what the binder does

    def is_pending(self, uid: str) -> bool:
        """Whether the claim is about to be allocated."""
        return uid in self._pending

    def pending(self, uid: str) -> dict[str, Any] | None:
        return self._pending.get(uid)

    def decide(self, uid: str, allocation: dict[str, Any]) -> None:
        """Nobody else gets these devices."""
        self._pending[uid] = allocation
        self._put(uid, allocation)

    def withdraw(self, path: str, uid: str) -> None:
        """It is not allocated after all."""
        if self._pending.pop(uid, None) is None:
            return
        claim = self.claim(path)
        mine = claim is not None and claim["metadata"]["uid"] == uid
        self._put(uid, allocation_of(claim) if mine and claim is not None else None)

    def doubt(self, path: str, uid: str, now: float) -> None:
        """As :meth:`withdraw`, but it may be written already."""
        if uid in self._pending:
            self._doubts[uid] = (path, now + _DOUBT)

    def settle(self, now: float) -> None:
        """Give back what was in doubt for long."""
        for uid, (path, until) in list(self._doubts.items()):
            if until <= now:
                del self._doubts[uid]
                self.withdraw(path, uid)

    def wrote(self, claim: Object) -> None:
        """The API's answer to a write: the claim is so, before the cache says so."""
        uid = str(claim["metadata"]["uid"])
        path = f"{claim['metadata']['namespace']}/{claim['metadata']['name']}"
        cached = self._find(CLAIMS, path)
        if cached is None or cached["metadata"]["uid"] != uid or version_of(cached) < version_of(claim):
            self._assumed[uid] = claim
        if allocation_of(claim) is not None:
            self._pending.pop(uid, None)
            self._doubts.pop(uid, None)
        self._tally(claim)


def _latest(stamps: dict[str, int], node: str) -> int:
    return max(stamps.get("", 0), stamps.get(node, 0))
