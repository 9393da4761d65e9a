"""The register of logical clusters: how they come into being and go.

A cluster is one stored object. It exists from the write of that object on, and is out of sight from the write of its
``deletionTimestamp`` on; what it held goes afterwards, in the background. The process may end at any point of that: the
next start finds the object in one of these states and goes on from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from glebe.apiserver.clusters import logical
from glebe.apiserver.clusters.budget import BudgetCheck
from glebe.apiserver.clusters.defaults import Defaults, namespace, template
from glebe.apiserver.clusters.logical import GROUP, NOWHERE, PLURAL, RESOURCE, LogicalCluster
from glebe.apiserver.clusters.memory import give_back
from glebe.apiserver.request.routing import ROOT
from glebe.apiserver.store import EVERY_CLUSTER, Event, Follower, Key, Mismatch, StoreUnavailable
from glebe.apiserver.verbs.namespaces import DEFAULT
from glebe.kube import errors
from glebe.kube.objects import Object

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer

log = logging.getLogger("glebe.apiserver.clusters")

_CRDS = "customresourcedefinitions.apiextensions.k8s.io"
_AT_ONCE = 32
"""So many clusters' contents go at the same time."""
_RETRY_SECONDS = 2.0
_EACH, _MUCH = 4096, 4 << 20
"""Bytes that a cluster itself takes about, and from how many on it is worth giving memory back to the system."""
_CALM_SECONDS = 1.0


class Clusters:
    """The logical clusters of one server."""

    def __init__(self, server: ApiServer, initial: Sequence[str]) -> None:
        self._server = server
        self._initial = initial
        self._known: dict[str, LogicalCluster] = {}
        self._doomed: dict[str, asyncio.Future[None]] = {}
        """Out of sight, but not yet gone."""
        self._created: list[Callable[[str], None]] = []
        self._deleted: list[Callable[[str], None]] = []
        self._follower: Follower | None = None
        self._remover: asyncio.Task[None] | None = None
        self._budget: BudgetCheck | None = None
        self._freed = 0
        self.root_ca = ""
        """PEM, published in every namespace of every cluster; set it before the start."""
        self.first_objects: Sequence[tuple[str, Object]] = ()
        """(group resource, object) of what else every cluster has from the beginning; set it before the start."""

    async def start(self) -> None:
        """Read the register, go on with what was interrupted, create what the server was told to have."""
        store = self._server.store
        store.keep_no_history(RESOURCE, NOWHERE)  # nobody can watch it
        self._follower = store.follow(RESOURCE, self._follow)
        for entry in store.range(RESOURCE, NOWHERE).entries:
            self._take(entry.view()["metadata"]["name"])
        for name in store.clusters():
            if name != NOWHERE and name not in self._known:
                self._doom(name)  # nobody's: written while its cluster was going
        store.give(Defaults(self._known.get, [*template(self.root_ca), *self.first_objects]))
        for name in self._initial:
            if name not in self._known:
                await self.create(name)
        if ROOT in self._known:
            await self._complete_root()
        page = store.range(_CRDS, EVERY_CLUSTER)
        for name, entry in zip(page.clusters or (), page.entries, strict=True):
            if name in self._known:
                self._server.registry.set_crd(name, entry.load())

    async def close(self) -> None:
        """Stop removing; the next start goes on."""
        if self._follower is not None:
            self._follower.close()
        if self._remover is not None:
            self._remover.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._remover

    # -- who is there --------------------------------------------------------------------------------------------

    def exists(self, name: str) -> bool:
        return name in self._known

    def get(self, name: str) -> LogicalCluster | None:
        return self._known.get(name)

    def uid(self, name: str) -> str:
        """The uid of the LogicalCluster, "" when there is none: a cluster created anew has another one."""
        found = self._known.get(name)
        return found.uid if found is not None else ""

    def names(self) -> list[str]:
        return sorted(self._known)

    def on_create(self, callback: Callable[[str], None]) -> None:
        """Call ``callback(name)`` for each cluster that comes into being from now on (also those found at the start).

        It must be quick and must not raise; the cluster is visible already.
        """
        self._created.append(callback)

    def on_delete(self, callback: Callable[[str], None]) -> None:
        """Call ``callback(name)`` when a cluster goes out of sight: drop what you keep for it."""
        self._deleted.append(callback)

    # -- changes -------------------------------------------------------------------------------------------------

    async def create(self, name: str, asked: Object | None = None) -> Object:
        """Register a cluster; when this returns, it can be used.

        :param asked: labels, annotations and the specification it shall have.
        :raises ApiError: 409 when it exists, 422 for a bad name or specification.
        """
        server = self._server
        obj = logical.new(name, server.env.new_uid(), server.now_text(), asked or {})
        while True:
            while (going := self._doomed.get(name)) is not None:
                await asyncio.wait([going])  # what an earlier cluster of this name held must not be found by this one
            try:
                entry = await server.store.put(logical.key_of(name), logical.row(obj, first=True), 0)
            except Mismatch:
                if name in self._doomed:
                    continue
                raise errors.already_exists(GROUP, PLURAL, name) from None
            if name == ROOT:
                await self._complete_root()
            return logical.full(entry)

    async def change(self, name: str, edit: Callable[[Object], Object]) -> Object:
        """Store what ``edit`` makes of a copy of the cluster's object.

        :raises ApiError: 404; 409 for a lost optimistic lock, 422.
        """
        store = self._server.store
        while True:
            entry = store.get(logical.key_of(name)) if name in self._known else None
            if entry is None:
                raise errors.not_found(GROUP, PLURAL, name)
            old = logical.full(entry)
            obj = logical.changed(old, edit(logical.full(entry)))
            if obj == old:
                return obj
            with contextlib.suppress(Mismatch):
                return logical.full(await store.put(logical.key_of(name), logical.row(obj), entry.revision))

    async def delete(self, name: str, uid: str = "") -> Object:
        """Take a cluster out of sight at once; everything in it goes in the background.

        :param uid: only if this is its uid.
        :raises ApiError: 404; 403 for the root cluster; 409.
        """
        if name == ROOT:
            raise errors.forbidden(GROUP, PLURAL, name, "the root cluster may not be deleted")
        store = self._server.store
        while True:
            entry = store.get(logical.key_of(name)) if name in self._known else None
            if entry is None:
                raise errors.not_found(GROUP, PLURAL, name)
            obj = logical.full(entry)
            if uid and uid != obj["metadata"]["uid"]:
                why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {obj['metadata']['uid']}"
                raise errors.conflict(GROUP, PLURAL, name, why)
            obj["metadata"]["deletionTimestamp"] = self._server.now_text()
            with contextlib.suppress(Mismatch):
                return logical.full(await store.put(logical.key_of(name), logical.row(obj), entry.revision))

    async def gone(self, name: str) -> None:
        """Wait until nothing is left of a deleted cluster. Returns at once when there is nothing to wait for."""
        while (going := self._doomed.get(name)) is not None:
            await asyncio.wait([going])

    async def _complete_root(self) -> None:
        """What the root cluster has from the beginning are stored objects; what is missing of it is made."""
        server = self._server
        wanted = [*(("namespaces", namespace(name)) for name in DEFAULT), *self.first_objects]

        async def complete(resource: str, obj: Object) -> None:
            meta = obj["metadata"]
            key = Key(resource, ROOT, meta.get("namespace", ""), meta["name"])
            if server.store.get(key) is None:
                stamps = {"uid": server.env.new_uid(), "creationTimestamp": server.now_text()}
                with contextlib.suppress(Mismatch):
                    await server.store.put(key, logical.stamped({**obj, "metadata": {**meta, **stamps}}), 0)

        await asyncio.gather(*(complete(*each) for each in wanted))

    # -- what the register says ----------------------------------------------------------------------------------

    def _follow(self, event: Event) -> None:
        """Every change of the register, whoever made it, at the moment when it becomes visible."""
        if event.cluster == NOWHERE and event.name:
            self._take(event.name)

    def _take(self, name: str) -> None:
        entry = self._server.store.get(logical.key_of(name))
        known = self._known.get(name)
        if entry is None:
            if known is not None:
                self._vanish(known)
            self._settle(name)
            return
        found = logical.read(entry)
        found.name = name  # the store's own text
        if known is not None and known.uid != found.uid:
            self._vanish(known)
            known = None
        if "deletionTimestamp" in entry.view()["metadata"]:
            if known is not None:
                self._vanish(known)
            self._doom(name)
        elif known is None:
            self._appear(found)
        else:
            known.budget, known.entry = found.budget, entry
        if found.budget is not None and self._budget is None:
            self._budget = BudgetCheck(self._known.get, self._server.store.usage)
            self._server.validating = (*self._server.validating, self._budget)

    def _appear(self, cluster: LogicalCluster) -> None:
        self._known[cluster.name] = cluster
        for callback in self._created:
            callback(cluster.name)

    def _vanish(self, cluster: LogicalCluster) -> None:
        cluster.alive = False
        del self._known[cluster.name]
        self._server.store.end_watches(cluster.name)
        self._server.registry.remove_cluster(cluster.name)
        for callback in self._deleted:
            callback(cluster.name)

    # -- the end -------------------------------------------------------------------------------------------------

    def _doom(self, name: str) -> None:
        if name in self._doomed:
            return
        self._doomed[name] = asyncio.get_running_loop().create_future()
        if self._remover is None or self._remover.done():
            self._remover = asyncio.create_task(self._remove_all(), name="logical clusters: removal")

    def _settle(self, name: str) -> None:
        done = self._doomed.pop(name, None)
        if done is not None and not done.done():
            done.set_result(None)

    async def _remove_all(self) -> None:
        """One task for all, and none while there is nothing to do."""
        while self._doomed:
            batch = list(islice(self._doomed, _AT_ONCE))
            results = await asyncio.gather(*(self._remove(name) for name in batch), return_exceptions=True)
            failed = [r for r in results if isinstance(r, BaseException)]
            for error in failed[:1]:
                log.warning("deleted clusters cannot be removed yet: %s", error)
                if isinstance(error, StoreUnavailable) and "closed" in str(error):
                    return
                await asyncio.sleep(_RETRY_SECONDS)
        if self._freed >= _MUCH:
            self._freed = 0
            # Caches follow a moment later.
            asyncio.get_running_loop().call_later(_CALM_SECONDS, give_back, self._known, self._doomed)

    async def _remove(self, name: str) -> None:
        store = self._server.store
        self._freed += _EACH + store.usage(name)[1]
        await store.drop(name)
        key = logical.key_of(name)
        entry = store.get(key)
        if entry is not None and "deletionTimestamp" in entry.view()["metadata"]:
            with contextlib.suppress(Mismatch):
                await store.delete(key, logical.row(logical.full(entry)), entry.revision)
        self._settle(name)
