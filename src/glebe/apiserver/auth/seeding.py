"""Gives a logical cluster its bootstrap roles and bindings as objects, when somebody first wants to see or change them.

Until then the authorizer knows them anyway (:mod:`.rbac`), and an empty cluster holds nothing of it: thousands of
clusters whose owners never look at their roles cost nothing. Afterwards they are objects like all others, and the rule
is upstream's: at a new version of the policy, what is missing in them is put back, unless the object's annotation
``rbac.authorization.kubernetes.io/autoupdate`` says ``false``.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import orjson

from glebe.apiserver.auth import bootstrap
from glebe.apiserver.auth.bootstrap import AUTOUPDATE, CLUSTER_ROLES
from glebe.apiserver.auth.rbac import marker
from glebe.apiserver.auth.rules import uncovered
from glebe.apiserver.flight import Flight
from glebe.apiserver.store import Key, Make, Mismatch
from glebe.kube.objects import Object

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer


class Seeding:
    """Call it with a request for roles or bindings, before the request is served."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._under_way: dict[str, asyncio.Lock] = {}

    async def __call__(self, flight: Flight) -> None:
        if flight.trusted and flight.route.verb == "create":
            return  # the platform puts something beside it (an owner's binding): nobody looks yet
        await self.complete(flight.route.cluster)

    async def complete(self, cluster: str) -> None:
        """Make sure that the cluster holds the present bootstrap policy as objects."""
        if not self._server.clusters.exists(cluster) or self._is_done(cluster):
            return
        lock = self._under_way.setdefault(cluster, asyncio.Lock())
        async with lock:
            if not self._is_done(cluster):
                await self._write(cluster)
        self._under_way.pop(cluster, None)

    def _is_done(self, cluster: str) -> bool:
        entry = self._server.store.get(marker(cluster))
        return entry is not None and entry.view().get("version") == bootstrap.version()

    async def _write(self, cluster: str) -> None:
        writes = [
            self._reconcile(Key(resource, cluster, *address), wanted)
            for resource, objects in bootstrap.policy().items()
            for address, wanted in objects.items()
        ]
        await asyncio.gather(*writes)
        note = {"metadata": {"name": "rbac"}, "version": bootstrap.version()}
        await self._server.store.put(marker(cluster), _stamped(note), None)

    async def _reconcile(self, key: Key, wanted: Object) -> None:
        """Create, or add what is missing; somebody else's simultaneous write counts as well."""
        server = self._server
        entry = server.store.get(key)
        with contextlib.suppress(Mismatch):
            if entry is None:
                meta = {**wanted["metadata"], "uid": server.env.new_uid(), "creationTimestamp": server.now_text()}
                await server.store.put(key, _stamped({**wanted, "metadata": meta}), 0)
                return
            obj = entry.load()
            if _add_missing(obj, wanted, key.resource == CLUSTER_ROLES):
                await server.store.put(key, _stamped(obj), entry.revision)


def _add_missing(obj: Object, wanted: Object, is_cluster_role: bool) -> bool:
    """Upstream's reconciliation: rules, subjects, labels and annotations are added, none is taken away."""
    notes = obj["metadata"].get("annotations") or {}
    if notes.get(AUTOUPDATE) == "false":
        return False
    before = orjson.dumps(obj)
    for field in ("labels", "annotations"):
        obj["metadata"][field] = {**wanted["metadata"][field], **(obj["metadata"].get(field) or {})}
    if "roleRef" in wanted:
        if obj.get("roleRef") != wanted["roleRef"]:
            return False  # somebody else's binding of this name
        present = list(obj.get("subjects") or ())
        missing = [s for s in wanted.get("subjects") or () if s not in present]
        if missing:
            obj["subjects"] = [*present, *missing]
    elif is_cluster_role and wanted.get("aggregationRule"):
        obj.setdefault("aggregationRule", wanted["aggregationRule"])
    else:
        obj["rules"] = [*(obj.get("rules") or ()), *uncovered(obj.get("rules") or (), wanted["rules"])]
    return orjson.dumps(obj) != before


def _stamped(obj: Object) -> Make:
    def make(revision: int) -> bytes:
        obj["metadata"]["resourceVersion"] = str(revision)
        return orjson.dumps(obj)

    return make
