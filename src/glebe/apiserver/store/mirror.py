"""The reading half that every backend shares: acknowledged state in memory."""

from __future__ import annotations

from collections.abc import Callable

from glebe.apiserver.store.base import EVERY_CLUSTER, Entry, Event, Key, Mismatch, Page
from glebe.apiserver.store.history import Bounds
from glebe.apiserver.store.subscription import Follower, Subscription
from glebe.apiserver.store.tables import Tables


class Mirror:
    """Reads, watches and history over :class:`Tables`."""

    lags = False

    def __init__(self, **bounds: int) -> None:
        """``bounds``: see :class:`~glebe.apiserver.store.history.Bounds`."""
        self._tables = Tables(Bounds(**bounds))
        self._revision = 0

    @property
    def revision(self) -> int:
        return self._revision

    async def fresh(self, revision: int = 0) -> None:
        """Nobody else writes: what is here is all there is."""

    def get(self, key: Key) -> Entry | None:
        table = self._tables.find(key.resource, key.cluster)
        return None if table is None else table.entries.get((key.namespace, key.name))

    def range(
        self,
        resource: str,
        cluster: str,
        namespace: str = "",
        *,
        after: tuple[str, ...] | None = None,
        limit: int = 0,
        revision: int = 0,
    ) -> Page:
        if cluster == EVERY_CLUSTER:
            return self._tables.shelf(resource).page(namespace, after, limit, revision, self._revision)
        return self._tables.look(resource, cluster).page(namespace, after, limit, revision, self._revision)

    def resources(self, cluster: str) -> list[str]:
        return sorted(resource for resource, table in self._tables.of_cluster(cluster) if table.entries)

    def usage(self, cluster: str) -> tuple[int, int]:
        tables = self._tables.of_cluster(cluster)
        return sum(len(table.keys) for _, table in tables), sum(table.size for _, table in tables)

    def watch(self, resource: str, cluster: str, namespace: str = "", name: str = "", *, revision: int) -> Subscription:
        if cluster == EVERY_CLUSTER:
            return self._tables.shelf(resource).subscribe(namespace, name, revision)
        return self._tables.get(resource, cluster).subscribe(namespace, name, revision)

    def follow(self, resource: str, callback: Callable[[Event], None]) -> Follower:
        return self._tables.shelf(resource).follow(callback)

    def compact(self, revision: int) -> None:
        self._tables.compact(revision)

    def _check(self, key: Key, expected: int | None) -> Entry | None:
        """The current entry, when it is as expected."""
        current = self.get(key)
        if expected is not None and expected != (current.revision if current is not None else 0):
            raise Mismatch(key, current)
        return current
