"""The reading half that every backend shares: acknowledged state in memory."""

from __future__ import annotations

from collections.abc import Callable
from sys import intern

from glebe.apiserver.store.archive import Snapshot
from glebe.apiserver.store.base import EVERY_CLUSTER, WHITEOUT, Entry, Event, Given, Key, Mismatch, Page
from glebe.apiserver.store.history import Bounds
from glebe.apiserver.store.subscription import Follower, Subscription
from glebe.apiserver.store.tables import Tables


class Mirror:
    """Reads, watches and history over :class:`Tables`."""

    lags = False
    commits = 0
    commit_seconds = 0.0

    def __init__(self, **bounds: int) -> None:
        """``bounds``: see :class:`~glebe.apiserver.store.history.Bounds`."""
        self._tables = Tables(Bounds(**bounds))
        self._revision = 0

    @property
    def revision(self) -> int:
        return self._revision

    @property
    def trouble(self) -> str:
        return ""

    async def fresh(self, revision: int = 0) -> None:
        """Nobody else writes: what is here is all there is."""

    def get(self, key: Key) -> Entry | None:
        table = self._tables.find(key.resource, key.cluster)
        if table is not None:
            return table.entries.get((key.namespace, key.name))
        return self._tables.given_entry(key)

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
        table = self._tables.find(resource, cluster)
        if table is None:
            given = self._tables.given
            if not revision and (given is None or not given.table(resource, cluster)):
                return Page([], self._revision, None, 0)
            table = self._tables.look(resource, cluster)
        return table.page(namespace, after, limit, revision, self._revision)

    def resources(self, cluster: str) -> list[str]:
        return sorted(r for r, table in self._tables.of_cluster(cluster) if len(table.entries) > table.given)

    def untouched(self, resource: str, cluster: str) -> bool:
        return self._tables.untouched(resource, cluster)

    def usage(self, cluster: str) -> tuple[int, int]:
        tables = self._tables.of_cluster(cluster)
        return sum(len(table.keys) - table.given for _, table in tables), sum(table.size for _, table in tables)

    def counts(self) -> dict[str, int]:
        """Objects by resource, over all clusters; what clusters are given does not count."""
        return self._tables.counts()

    def watch(self, resource: str, cluster: str, namespace: str = "", name: str = "", *, revision: int) -> Subscription:
        if cluster == EVERY_CLUSTER:
            return self._tables.shelf(resource).subscribe(namespace, name, revision)
        return self._tables.get(resource, cluster).subscribe(namespace, name, revision)

    def follow(self, resource: str, callback: Callable[[Event], None]) -> Follower:
        return self._tables.shelf(resource).follow(callback)

    def give(self, given: Given) -> None:
        """From now on clusters have what ``given`` says, beside what is written. Call after :meth:`start`."""
        self._tables.give(given)

    def clusters(self) -> list[str]:
        """Clusters of which anything is in memory."""
        return self._tables.clusters()

    def end_watches(self, cluster: str, resource: str = "") -> None:
        """End the watches of a cluster, or of one resource in it (not the wildcard ones)."""
        for name, table in self._tables.of_cluster(cluster):
            if not resource or name == resource:
                for subscription in tuple(table.subscriptions):
                    subscription.end("changed" if resource else "dropped")

    def keep_no_history(self, resource: str, cluster: str) -> None:
        """One table remembers no changes: it can be read and followed, but not watched from the past."""
        table = self._tables.get(resource, cluster)
        table.remembers = False
        self._tables.history.forget_table(table)
        table.floor = max(table.floor, self._revision)

    def _whites_out(self, key: Key) -> bool:
        """Whether the deletion of ``key`` must leave a row behind (:data:`WHITEOUT`), so that it does not come back."""
        given = self._tables.given
        return given is not None and given.entry(key) is not None

    def _load_row(self, key: Key, entry: Entry) -> None:
        """Take up a row at the start. The tables must be sorted afterwards."""
        if entry.value[:1] == WHITEOUT:
            self._tables.white_out(key)
        else:
            self._tables.get(key.resource, key.cluster).load((intern(key.namespace), key.name), entry)

    def _apply(self, key: Key, entry: Entry, deleted: bool) -> None:
        """Make one acknowledged change visible."""
        table = self._tables.get(key.resource, key.cluster)
        if deleted and self._whites_out(key):
            self._tables.white_out(key)
        table.apply((intern(key.namespace), key.name), entry, deleted)

    def snapshot(self, cluster: str = "") -> Snapshot:
        """The present state of a cluster, or of everything, as one moment."""
        tables = self._tables
        every = [(r, c, t) for c in ([cluster] if cluster else tables.clusters()) for r, t in tables.of_cluster(c)]
        every.sort(key=lambda row: (row[1], row[0]))
        held = [(resource, owner, dict(table.entries)) for resource, owner, table in every if table.entries]
        return Snapshot(cluster, self._revision, held, tables.whiteouts(cluster))

    def compact(self, revision: int) -> None:
        self._tables.compact(revision)

    def _check(self, key: Key, expected: int | None) -> Entry | None:
        """The current entry, when it is as expected."""
        current = self.get(key)
        if expected is not None and expected != (current.revision if current is not None else 0):
            raise Mismatch(key, current)
        return current
