"""All tables of a store, found by resource and by cluster."""

from __future__ import annotations

from collections.abc import Iterator

from glebe.apiserver.store.base import Entry, Given, GivenEntry, Key
from glebe.apiserver.store.history import Bounds, History
from glebe.apiserver.store.shelf import Shelf
from glebe.apiserver.store.subscription import Follower
from glebe.apiserver.store.table import Table

#: Of so many dropped clusters it is remembered when they were dropped; of others, that it was before a revision.
_DROPS_KEPT = 100


class Tables:
    """Tables are made when first written or watched."""

    def __init__(self, bounds: Bounds) -> None:
        self.history = History(bounds)
        self.floor = 0
        """What was compacted or not loaded, for all tables."""
        self._shelves: dict[str, Shelf] = {}
        self._clusters: dict[str, dict[str, Table]] = {}
        self._dropped: dict[str, int] = {}
        self._dropped_before = 0
        self.given: Given | None = None
        self._whiteouts: dict[str, set[tuple[str, str, str]]] = {}

    def shelf(self, resource: str) -> Shelf:
        shelf = self._shelves.get(resource)
        if shelf is None:
            shelf = self._shelves[resource] = Shelf(self, resource)
        return shelf

    def get(self, resource: str, cluster: str) -> Table:
        """The table, made if need be: for writers and watchers."""
        shelf = self._shelves.get(resource) or self.shelf(resource)
        table = shelf.tables.get(cluster)
        if table is None:
            table = shelf.add(cluster, self._floor_of(cluster))
            self._clusters.setdefault(cluster, {})[resource] = table
            if self.given is not None:
                self._give(table)
        return table

    def look(self, resource: str, cluster: str) -> Table:
        """The table for reading; one that does not exist is as good as empty, and is not kept."""
        table = self.find(resource, cluster)
        if table is None:
            # A shelf of its own would be garbage in a circle after each such read.
            table = Table(self._shelves.get(resource) or Shelf(self, resource), cluster, self._floor_of(cluster))
            if self.given is not None:
                self._give(table)
        return table

    def _give(self, table: Table) -> None:
        assert self.given is not None
        entries = self.given.table(table.shelf.resource, table.cluster)
        if entries and (gone := self._whiteouts.get(table.cluster)):
            resource = table.shelf.resource
            entries = {k: e for k, e in entries.items() if (resource, *k) not in gone}
        if entries:
            table.give(entries)

    def given_entry(self, key: Key) -> GivenEntry | None:
        """What a cluster without a table of the resource was given under the key, and still has."""
        entry = self.given.entry(key) if self.given is not None else None
        if entry is None or (key.resource, key.namespace, key.name) in self._whiteouts.get(key.cluster, ()):
            return None
        return entry

    def give(self, given: Given) -> None:
        """From now on clusters have what ``given`` says."""
        self.given = given
        for table in self.all():
            self._give(table)

    def white_out(self, key: Key) -> None:
        """A given object was deleted, for good."""
        self._whiteouts.setdefault(key.cluster, set()).add((key.resource, key.namespace, key.name))

    def whiteouts(self, cluster: str = "") -> list[Key]:
        """Given objects that were deleted (and not written again since), of one cluster or all."""
        found = []
        for owner in [cluster] if cluster else sorted(self._whiteouts):
            for resource, namespace, name in sorted(self._whiteouts.get(owner, ())):
                table = self.find(resource, owner)
                if table is None or (namespace, name) not in table.entries:
                    found.append(Key(resource, owner, namespace, name))
        return found

    def find(self, resource: str, cluster: str) -> Table | None:
        shelf = self._shelves.get(resource)
        return None if shelf is None else shelf.tables.get(cluster)

    def untouched(self, resource: str, cluster: str) -> bool:
        """Whether a cluster has of a resource just what it was given (or nothing); False when that is not known."""
        return self.find(resource, cluster) is None and cluster not in self._whiteouts

    def _floor_of(self, cluster: str) -> int:
        return max(self.floor, self._dropped.get(cluster, self._dropped_before))

    def of_cluster(self, cluster: str) -> list[tuple[str, Table]]:
        return list(self._clusters.get(cluster, {}).items())

    def clusters(self) -> list[str]:
        """Clusters that have any table."""
        return list(self._clusters)

    def resources(self) -> list[str]:
        return list(self._shelves)

    def counts(self) -> dict[str, int]:
        """Written objects by resource."""
        found = ((r, sum(len(t.keys) - t.given for t in shelf.tables.values())) for r, shelf in self._shelves.items())
        return {resource: many for resource, many in found if many}

    def all(self) -> Iterator[Table]:
        for tables in self._clusters.values():
            yield from tables.values()

    def compact(self, revision: int) -> None:
        self.floor = max(self.floor, revision)
        self.history.compact(revision)

    def forget(self, cluster: str, revision: int) -> None:
        """Drop a cluster's tables; a later cluster of that name has no history up to ``revision``."""
        self._whiteouts.pop(cluster, None)
        self._dropped.pop(cluster, None)
        self._dropped[cluster] = revision
        if len(self._dropped) > _DROPS_KEPT:
            oldest = next(iter(self._dropped))
            self._dropped_before = max(self._dropped_before, self._dropped.pop(oldest))
        for resource, table in self.of_cluster(cluster):
            for subscription in tuple(table.subscriptions):
                subscription.end("dropped")
            if table.entries or table.newest is not None:
                table.shelf.mark_dropped(cluster, revision)
            self.history.forget_table(table)
            self._take_out(resource, table)

    def tidy(self, resource: str, table: Table) -> None:
        """Forget a table that holds nothing, unless it knows more of its past than a new one would."""
        if self.find(resource, table.cluster) is table and table.floor <= self._floor_of(table.cluster):
            self._take_out(resource, table)

    def _take_out(self, resource: str, table: Table) -> None:
        if self.find(resource, table.cluster) is not table:
            return  # an ended watch tidied it up already
        table.shelf.remove(table)
        tables = self._clusters[table.cluster]
        del tables[resource]
        if not tables:
            del self._clusters[table.cluster]

    def followed(self) -> list[tuple[Shelf, dict[str, dict[tuple[str, str], Entry]]]]:
        """What is about to be replaced, of resources that somebody follows: by cluster and key."""
        shelves = [shelf for shelf in self._shelves.values() if any(isinstance(w, Follower) for w in shelf.watchers)]
        return [(shelf, {cluster: table.entries for cluster, table in shelf.tables.items()}) for shelf in shelves]

    def reset(self, revision: int) -> None:
        """Hold nothing, with no history up to ``revision``; followers stay, watches end."""
        self.end_all("resync")
        self.history.clear()
        self.floor = revision
        self._clusters.clear()
        self._whiteouts.clear()
        for shelf in self._shelves.values():
            shelf.clear()

    def end_all(self, why: str) -> None:
        """End every subscription."""
        for table in list(self.all()):
            for subscription in tuple(table.subscriptions):
                subscription.end(why)
        for shelf in self._shelves.values():
            for watcher in tuple(shelf.watchers):
                watcher.end(why)
