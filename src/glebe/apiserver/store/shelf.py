"""One resource in all logical clusters: what wildcard ranges and watches see."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from heapq import merge
from operator import attrgetter
from typing import TYPE_CHECKING

from glebe.apiserver.store.base import EVERY_CLUSTER, Compacted, Entry, Event, FutureRevision, Page
from glebe.apiserver.store.history import History
from glebe.apiserver.store.subscription import Follower, Subscription
from glebe.apiserver.store.table import Table

if TYPE_CHECKING:
    from glebe.apiserver.store.tables import Tables

_BEHIND = ("\U0010ffff", "\U0010ffff")


class Shelf:
    """The tables of one resource by cluster."""

    __slots__ = ("_marks", "_order", "_owner", "floor", "history", "resource", "tables", "watchers")

    def __init__(self, owner: Tables, resource: str) -> None:
        self._owner = owner
        self.resource = resource
        self.history: History = owner.history
        self.tables: dict[str, Table] = {}
        self.floor = 0
        """Newest revision of which any table forgot an event: wildcard watches may start here or later."""
        self.watchers: Sequence[Subscription | Follower] = ()
        """Of all clusters."""
        self._marks = Table(self, EVERY_CLUSTER, 0)
        """Only its history is used: the ends of clusters."""
        self._order: list[str] | None = None

    @property
    def compacted(self) -> int:
        return self._owner.floor

    def add(self, cluster: str, floor: int) -> Table:
        table = self.tables[cluster] = Table(self, cluster, floor)
        self._order = None
        return table

    def remove(self, table: Table) -> None:
        del self.tables[table.cluster]
        self._order = None

    def clear(self) -> None:
        self.tables.clear()
        self._order = None

    def tidy(self, table: Table) -> None:
        """The last watcher of an empty table left."""
        self._owner.tidy(self.resource, table)

    def push(self, event: Event) -> None:
        for watcher in tuple(self.watchers):
            watcher.push(event)

    def mark_dropped(self, cluster: str, revision: int) -> None:
        """Remember, and tell wildcard watchers, that everything of a cluster went."""
        event = Event(cluster, "", "", Entry(revision, b""), None, True)
        self.history.add(self._marks, event)
        self.push(event)

    # -- wildcard reads ------------------------------------------------------------------------------------------

    def subscribe(self, namespace: str, name: str, revision: int) -> Subscription:
        subscription = Subscription(namespace, name, self._since(revision), self._unsubscribe)
        self.watchers = [*self.watchers, subscription]
        return subscription

    def follow(self, callback: Callable[[Event], None]) -> Follower:
        follower = Follower(callback, self._unsubscribe)
        self.watchers = [*self.watchers, follower]
        return follower

    def _unsubscribe(self, gone: Subscription | Follower) -> None:
        self.watchers = [w for w in self.watchers if w is not gone] or ()

    def tell_difference(self, before: dict[str, dict[tuple[str, str], Entry]], revision: int) -> None:
        """Everything was replaced: tell followers what is not as they knew it (who watches has been ended)."""
        events = []
        for cluster in sorted({*before, *self.tables}):
            table = self.tables.get(cluster)
            old, new = before.get(cluster, {}), table.entries if table is not None else {}
            for key in sorted({*old, *new}):
                was, entry = old.get(key), new.get(key)
                if was is not None and entry is None:
                    events.append(Event(cluster, *key, Entry(revision, was.value), was, True))
                elif entry is not None and (was is None or was.revision != entry.revision):
                    events.append(Event(cluster, *key, entry, was, False))
        for watcher in tuple(self.watchers):
            for event in events:
                watcher.push(event)

    def _check(self, revision: int) -> None:
        floor = max(self.floor, self.compacted)
        if revision < floor:
            raise Compacted(revision, floor)

    def _since(self, revision: int) -> list[Event]:
        self._check(revision)
        found = []
        for table in (self._marks, *self.tables.values()):
            newest = table.newest
            if newest is not None and newest.entry.revision > revision:
                # A table of a cluster that was dropped and made again starts at the drop, which the marks tell of.
                found.append(table.since(max(revision, table.floor)))
        return list(merge(*found, key=attrgetter("entry.revision"))) if found else []

    def page(self, namespace: str, after: tuple[str, ...] | None, limit: int, revision: int, current: int) -> Page:
        """``Store.range`` over all clusters."""
        if revision > current:
            raise FutureRevision(revision, current)
        if revision:
            self._check(revision)
        order = self._order
        if order is None:
            order = self._order = sorted(self.tables)
        start = bisect_left(order, after[0]) if after else 0
        entries: list[Entry] = []
        clusters: list[str] = []
        for position in range(start, len(order)):
            table = self.tables[order[position]]
            if revision and revision < table.floor:
                continue  # everything in it came later
            within = after[1:] if after and after[0] == table.cluster else None
            page = table.page(namespace, within, limit - len(entries) if limit else 0, revision, current, True)
            entries += page.entries
            clusters += [table.cluster] * len(page.entries)
            if limit and len(entries) == limit:
                remaining = page.remaining + self._count(order[position + 1 :], namespace, revision, current)
                # A page may end exactly with a cluster: the next one starts behind all that it can hold.
                next_key = (table.cluster, *(page.next_key or _BEHIND)) if remaining else None
                return Page(entries, revision or current, next_key, remaining, clusters)
        return Page(entries, revision or current, None, 0, clusters)

    def _count(self, clusters: list[str], namespace: str, revision: int, current: int) -> int:
        tables = (self.tables[c] for c in clusters)
        if not namespace and (not revision or revision == current):
            return sum(len(table.keys) - table.given for table in tables)
        return sum(
            len(table.page(namespace, None, 0, revision, current, True).entries)
            for table in tables
            if not revision or revision >= table.floor
        )
