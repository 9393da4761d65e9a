"""The store of simulations and tests: everything in memory, every write at once."""

from __future__ import annotations

from glebe.apiserver.store.base import Entry, Key, Make, Mismatch, Page
from glebe.apiserver.store.subscription import Subscription
from glebe.apiserver.store.table import MAX_BYTES, MAX_EVENTS, Table


class Tables:
    """All tables of a store, made on first use."""

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self._tables: dict[tuple[str, str], Table] = {}
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._dropped: dict[str, int] = {}
        self.floor = 0
        """What was compacted or not loaded: tables made later start here."""

    def get(self, resource: str, cluster: str) -> Table:
        """The table, made if need be: for writers and watchers."""
        table = self._tables.get((resource, cluster))
        if table is None:
            table = self._tables[resource, cluster] = self._empty(cluster)
        return table

    def look(self, resource: str, cluster: str) -> Table:
        """The table for reading; one that does not exist is as good as empty, and is not kept."""
        return self._tables.get((resource, cluster)) or self._empty(cluster)

    def _empty(self, cluster: str) -> Table:
        return Table(max(self.floor, self._dropped.get(cluster, 0)), self._max_events, self._max_bytes)

    def find(self, resource: str, cluster: str) -> Table | None:
        return self._tables.get((resource, cluster))

    def of_cluster(self, cluster: str) -> list[tuple[str, Table]]:
        return [(resource, table) for (resource, owner), table in self._tables.items() if owner == cluster]

    def all(self) -> list[Table]:
        return list(self._tables.values())

    def forget(self, cluster: str, revision: int) -> None:
        """Drop a cluster's tables; a later cluster of that name has no history up to ``revision``."""
        self._dropped[cluster] = revision
        for resource, table in self.of_cluster(cluster):
            for subscription in tuple(table.subscriptions):
                subscription.end("dropped")
            del self._tables[resource, cluster]


class Mirror:
    """The reading half that every backend shares: acknowledged state in memory."""

    def __init__(self, max_events: int = MAX_EVENTS, max_bytes: int = MAX_BYTES) -> None:
        self._tables = Tables(max_events, max_bytes)
        self._revision = 0

    @property
    def revision(self) -> int:
        return self._revision

    def get(self, key: Key) -> Entry | None:
        table = self._tables.find(key.resource, key.cluster)
        return None if table is None else table.entries.get((key.namespace, key.name))

    def range(
        self,
        resource: str,
        cluster: str,
        namespace: str = "",
        *,
        after: tuple[str, str] | None = None,
        limit: int = 0,
        revision: int = 0,
    ) -> Page:
        return self._tables.look(resource, cluster).page(namespace, after, limit, revision, self._revision)

    def resources(self, cluster: str) -> list[str]:
        return sorted(resource for resource, table in self._tables.of_cluster(cluster) if table.entries)

    def watch(self, resource: str, cluster: str, namespace: str = "", name: str = "", *, revision: int) -> Subscription:
        return self._tables.get(resource, cluster).subscribe(namespace, name, revision)

    def compact(self, revision: int) -> None:
        self._tables.floor = max(self._tables.floor, revision)
        for table in self._tables.all():
            table.compact(revision)

    def _check(self, key: Key, expected: int | None) -> Entry | None:
        """The current entry, when it is as expected."""
        current = self.get(key)
        if expected is not None and expected != (current.revision if current is not None else 0):
            raise Mismatch(key, current)
        return current

    def _end_all(self) -> None:
        for table in self._tables.all():
            for subscription in tuple(table.subscriptions):
                subscription.end("closed")


class MemoryStore(Mirror):
    """Nothing survives the process. A write never yields to the event loop."""

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        self._end_all()

    async def put(self, key: Key, make: Make, expected: int | None) -> Entry:
        self._check(key, expected)
        revision = self._revision + 1
        entry = Entry(revision, make(revision))
        self._revision = revision
        self._tables.get(key.resource, key.cluster).apply((key.namespace, key.name), entry, False)
        return entry

    async def delete(self, key: Key, make: Make, expected: int | None) -> Entry:
        if self._check(key, expected) is None:
            raise Mismatch(key, None)
        revision = self._revision + 1
        entry = Entry(revision, make(revision))
        self._revision = revision
        self._tables.get(key.resource, key.cluster).apply((key.namespace, key.name), entry, True)
        return entry

    async def drop(self, cluster: str) -> None:
        self._tables.forget(cluster, self._revision)
