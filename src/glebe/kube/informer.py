"""Informers: a live, indexed copy of a collection, shared by everyone in the process who needs it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeAlias

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.objects import EVERY, Object, ObjectKey, cluster_of, key_of
from glebe.kube.reflector import Reflector, ReflectorStats, Timing
from glebe.kube.resources import Resource
from glebe.kube.store import Indexer, Store

log = logging.getLogger("glebe.kube.informer")

Handler: TypeAlias = Callable[[Object | None, Object | None], None]


class LastKnown(dict[str, Any]):
    """A vanished object as it was last seen, told when the deletion itself was not seen: it may be long gone."""


def strip_managed_fields(obj: Object) -> Object:
    """Forget ``managedFields``: often half of an object, and no controller reads it (the server keeps its own)."""
    obj["metadata"].pop("managedFields", None)
    return obj


class Informer:
    """A copy of one collection, kept by a reflector.

    Handlers are plain functions ``fn(old, new)``: ``(None, obj)`` for an object that is there at the start or
    appears, ``(old, new)`` for a change, ``(old, None)`` for one that vanished (a :class:`LastKnown` when the deletion
    itself was not seen). An object that was deleted and created anew is reported as both, never as a change. Handlers
    run when the store already holds ``new``. What they raise is logged.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource,
        env: Env,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        indexers: Mapping[str, Indexer] | None = None,
        transform: Callable[[Object], Object] = strip_managed_fields,
        timing: Timing | None = None,
        page_size: int = 500,
    ) -> None:
        self.client = client
        self.resource = resource
        self.cluster = client.cluster
        self.store = Store(dict(indexers or {}))
        self._transform = transform
        self._handlers: list[Handler] = []
        self._members: dict[str, dict[ObjectKey, None]] | None = {} if client.cluster == EVERY else None
        """Keys by cluster, for the end of a cluster; only when there are many."""
        self._synced = asyncio.Event()
        self._reflector = Reflector(
            client,
            resource,
            env,
            self,
            namespace=namespace,
            label_selector=label_selector,
            field_selector=field_selector,
            timing=timing,
            page_size=page_size,
        )

    @property
    def has_synced(self) -> bool:
        """Whether the first list is in the store and has been told to all handlers."""
        return self._synced.is_set()

    @property
    def stats(self) -> ReflectorStats:
        return self._reflector.stats

    @property
    def version(self) -> str:
        """The revision up to which the store is complete."""
        return self._reflector.version

    def add_handler(self, handler: Handler) -> None:
        """Call ``handler`` for everything that is there now and for every change from now on."""
        self._handlers.append(handler)
        for obj in self.store.values():
            self._call(handler, None, obj)

    def remove_handler(self, handler: Handler) -> None:
        """Stop calling ``handler``. Harmless when it is not there."""
        if handler in self._handlers:
            self._handlers.remove(handler)

    def add_indexers(self, indexers: Mapping[str, Indexer]) -> None:
        """Add indexes at any time.

        :raises ValueError: a name is taken by another function.
        """
        for name, indexer in indexers.items():
            self.store.add_indexer(name, indexer)

    def members(self, cluster: str) -> list[Object]:
        """What is known of one logical cluster; of the only one, when there are not many."""
        if self._members is None:
            return self.store.values()
        found = (self.store.get(key) for key in self._members.get(cluster, ()))
        return [obj for obj in found if obj is not None]

    async def wait_synced(self) -> None:
        await self._synced.wait()

    async def run(self) -> None:
        """Keep the store up to date until cancelled."""
        await self._reflector.run()

    # --- Sink: called by the reflector

    def replace(self, items: list[Object]) -> None:
        seen = set()
        for item in items:
            seen.add(key_of(item, self.cluster))
            self.upsert(item)
        for key, obj in self.store.items():
            if key not in seen:
                self._delete(key)
                self._notify(LastKnown(obj), None)
        self._synced.set()

    def upsert(self, obj: Object) -> None:
        new = self._transform(obj)
        key = key_of(new, self.cluster)
        old = self.store.set(key, new)
        if old is None:
            if self._members is not None:
                self._members.setdefault(key.cluster, {})[key] = None
            self._notify(None, new)
            return
        before, after = old["metadata"], new["metadata"]
        if before.get("resourceVersion") == after.get("resourceVersion") and before.get("uid") == after.get("uid"):
            return  # a repetition: relist or resumed watch
        if before.get("uid") != after.get("uid"):
            self._notify(LastKnown(old), None)
            self._notify(None, new)
        else:
            self._notify(old, new)

    def remove(self, obj: Object) -> None:
        known = self._delete(key_of(obj, self.cluster)) is not None
        # What every cluster has from its beginning is not listed over all clusters, but its deletion is told.
        if known or self._members is not None:
            self._notify(self._transform(obj), None)

    def forget(self, cluster: str, limit: int) -> bool:
        members = self._members if self._members is not None else {}
        for key in list(islice(members.get(cluster, ()), limit)):
            if (old := self._delete(key)) is not None:
                self._notify(old, None)
        return cluster in members

    def _delete(self, key: ObjectKey) -> Object | None:
        if self._members is not None and (members := self._members.get(key.cluster)) is not None:
            members.pop(key, None)
            if not members:
                del self._members[key.cluster]
        return self.store.delete(key)

    def _notify(self, old: Object | None, new: Object | None) -> None:
        for handler in tuple(self._handlers):
            self._call(handler, old, new)

    def _call(self, handler: Handler, old: Object | None, new: Object | None) -> None:
        try:
            handler(old, new)
        except Exception:
            subject = new or old or {}
            log.exception("%s: a handler failed on %s", self.resource.group_resource, subject.get("metadata"))


class Informers:
    """One informer per (resource, namespace, selectors), shared.

    Ask for informers before or after the start; each begins as soon as the collection runs.
    """

    def __init__(self, client: Client, env: Env, *, timing: Timing | None = None) -> None:
        self.client = client
        self.env = env
        self._timing = timing
        self._informers: dict[tuple[Resource, str | None, str, str], Informer] = {}
        self._group: asyncio.TaskGroup | None = None

    def get(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        indexers: Mapping[str, Indexer] | None = None,
    ) -> Informer:
        """The shared informer; ``indexers`` are added to those it has."""
        key = (resource, namespace, label_selector, field_selector)
        informer = self._informers.get(key)
        if informer is None:
            informer = Informer(
                self.client,
                resource,
                self.env,
                namespace=namespace,
                label_selector=label_selector,
                field_selector=field_selector,
                timing=self._timing,
            )
            self._informers[key] = informer
            if self._group is not None:
                self._spawn(self._group, informer)
        if indexers:
            informer.add_indexers(indexers)
        return informer

    def start(self, group: asyncio.TaskGroup) -> None:
        """Run all informers, also those asked for later, in ``group``, until it is cancelled."""
        if self._group is not None:
            raise RuntimeError("these informers run already")
        self._group = group
        for informer in self._informers.values():
            self._spawn(group, informer)

    def _spawn(self, group: asyncio.TaskGroup, informer: Informer) -> None:
        group.create_task(informer.run(), name=f"informer {self.client.cluster}/{informer.resource.group_resource}")

    async def run(self) -> None:
        """Run all until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self.start(group)
                await asyncio.get_running_loop().create_future()
        finally:
            self._group = None

    async def wait_synced(self) -> None:
        """Wait until every informer asked for so far has its first list."""
        for informer in list(self._informers.values()):
            await informer.wait_synced()

    @property
    def has_synced(self) -> bool:
        return all(informer.has_synced for informer in self._informers.values())

    def __iter__(self) -> Iterator[Informer]:
        return iter(list(self._informers.values()))


class ClusterView(Informer):
    """One cluster's part of an informer over all clusters: the same objects, with a store and indexes of its own.

    :param name: the cluster.
    :param client: speaks to that cluster; keys are under ``client.cluster``.
    """

    def __init__(self, base: Informer, name: str, client: Client) -> None:
        self.client = client
        self.resource = base.resource
        self.cluster = client.cluster
        self.store = Store({})
        self._name = name
        self._handlers = []
        self._members = None
        self._synced = base._synced
        self._reflector = base._reflector
        base.add_handler(self._take)

    async def run(self) -> None:
        """Wait until cancelled: the informer over all clusters does the work."""
        await asyncio.get_running_loop().create_future()

    def _take(self, old: Object | None, new: Object | None) -> None:
        obj = new or old
        if obj is None or cluster_of(obj) != self._name:
            return
        if new is not None:
            self.store.set(key_of(new, self.cluster), new)
        else:
            self.store.delete(key_of(obj, self.cluster))
        self._notify(old, new)


class InformersView(Informers):
    """One cluster's part of shared informers over all clusters. Running them is the business of ``base``."""

    def __init__(self, base: Informers, name: str, client: Client) -> None:
        super().__init__(client, base.env)
        self._base = base
        self._name = name

    def get(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        indexers: Mapping[str, Indexer] | None = None,
    ) -> Informer:
        """See :meth:`Informers.get`."""
        key = (resource, namespace, label_selector, field_selector)
        view = self._informers.get(key)
        if view is None:
            base = self._base.get(
                resource, namespace=namespace, label_selector=label_selector, field_selector=field_selector
            )
            view = self._informers[key] = ClusterView(base, self._name, self.client)
        if indexers:
            view.add_indexers(indexers)
        return view

    def start(self, group: asyncio.TaskGroup) -> None:
        """Nothing to run."""
