"""The in-memory state of one resource in one logical cluster: current entries, recent history, watchers.

All backends keep their objects in these; the difference between them is only when a change is applied.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from glebe.apiserver.store.base import Compacted, Entry, Event, FutureRevision, GivenEntry, Kept, Page
from glebe.apiserver.store.subscription import Subscription

if TYPE_CHECKING:
    from glebe.apiserver.store.shelf import Shelf

_SHRINKS = 1024
_LONG = 100
"""Lists of so many entries are kept until something changes: making them, and looking through them for garbage, takes
longer than all the rest of a watch's beginning."""
_LAST = "\U0010ffff"


class Table:
    """Ordered entries with their part of the history. Not thread safe: used on the event loop only."""

    __slots__ = (
        "cluster",
        "entries",
        "events",
        "floor",
        "given",
        "history_size",
        "kept",
        "keys",
        "newest",
        "oldest",
        "remembers",
        "shelf",
        "size",
        "subscriptions",
    )

    def __init__(self, shelf: Shelf, cluster: str, floor: int) -> None:
        self.shelf = shelf
        self.cluster = cluster
        self.entries: dict[tuple[str, str], Entry] = {}
        self.keys: list[tuple[str, str]] = []
        self.size = 0
        """Bytes of the current entries."""
        self.remembers = True
        """Whether it has a history at all."""
        self.given = 0
        """How many of the entries are given ones."""
        self.floor = floor
        """Newest revision whose changes are no longer in the history: watches may start here or later."""
        self.oldest: Event | None = None
        self.newest: Event | None = None
        self.events = 0
        self.history_size = 0
        self.subscriptions: Sequence[Subscription] = ()
        self.kept: tuple[str, Kept] | None = None
        """All entries of a namespace ("": of all), as they are now."""

    def load(self, key: tuple[str, str], entry: Entry) -> None:
        """Put an entry that was there before: no event. The caller must :meth:`sort` afterwards."""
        self.entries[key] = entry
        self.keys.append(key)
        self.size += len(entry.value)

    def give(self, entries: Mapping[tuple[str, str], GivenEntry]) -> None:
        """Put what the cluster has without anybody having written it, where nothing else is."""
        for key, entry in entries.items():
            if key not in self.entries:
                self.entries[key] = entry
                self.kept = None
                insort(self.keys, key)
                self.given += 1
                self.floor = max(self.floor, entry.revision)  # its beginning is in no history

    def sort(self) -> None:
        self.keys.sort()

    def apply(self, key: tuple[str, str], entry: Entry, deleted: bool) -> None:
        """Make one change current, remember it and tell the watchers."""
        self.kept = None
        previous = self.entries.get(key)
        if previous is not None:
            if type(previous) is GivenEntry:
                self.given -= 1
            else:
                self.size -= len(previous.value)
        if deleted:
            del self.entries[key]
            del self.keys[bisect_left(self.keys, key)]
            left = len(self.keys)
            if left >= _SHRINKS and not left & (left - 1):
                self.entries = dict(self.entries)  # dictionaries do not shrink by themselves
        else:
            self.entries[key] = entry
            self.size += len(entry.value)
            if previous is None:
                insort(self.keys, key)
        event = Event(self.cluster, key[0], key[1], entry, previous, deleted)
        if self.remembers:
            self.shelf.history.add(self, event)
        else:
            self.floor = event.revision
        if self.subscriptions:
            for subscription in tuple(self.subscriptions):
                subscription.push(event)
        if self.shelf.watchers:
            self.shelf.push(event)

    def since(self, revision: int) -> list[Event]:
        """Events after ``revision``.

        :raises Compacted: they are not all here any more.
        """
        floor = max(self.floor, self.shelf.compacted)
        if revision < floor:
            raise Compacted(revision, floor)
        out: list[Event] = []
        event = self.newest
        while event is not None and event.entry.revision > revision:
            out.append(event)
            event = event.earlier
        out.reverse()
        return out

    def subscribe(self, namespace: str, name: str, revision: int) -> Subscription:
        subscription = Subscription(namespace, name, self.since(revision), self._unsubscribe)
        self.subscriptions = [*self.subscriptions, subscription]
        return subscription

    def _unsubscribe(self, subscription: Subscription) -> None:
        self.subscriptions = [s for s in self.subscriptions if s is not subscription] or ()
        if not self.subscriptions and len(self.entries) == self.given and self.newest is None:
            self.shelf.tidy(self)

    def page(
        self,
        namespace: str,
        after: tuple[str, ...] | None,
        limit: int,
        revision: int,
        current: int,
        written: bool = False,
    ) -> Page:
        """See ``Store.range``. ``written``: without given entries."""
        if revision > current:
            raise FutureRevision(revision, current)
        if revision and revision < current:
            changed = self.since(revision)
            if changed:
                return self._past_page(namespace, after, limit, revision, changed, written)
        keys = self.keys
        if written and self.given:
            keys = [k for k in keys if type(self.entries[k]) is not GivenEntry]
        low, high = _bounds(keys, namespace, after)
        stop = min(high, low + limit) if limit else high
        entries = self.entries
        whole = after is None and stop == high and not (written and self.given)
        found: list[Entry]
        if whole and self.kept is not None and self.kept[0] == namespace:
            found = self.kept[1]
        else:
            found = [entries[k] for k in keys] if stop - low == len(keys) else [entries[k] for k in keys[low:stop]]
            if whole and len(found) >= _LONG:
                self.kept = namespace, (found := Kept(found))
        next_key = keys[stop - 1] if stop < high and stop > low else None
        return Page(found, revision or current, next_key, high - stop)

    def _past_page(
        self,
        namespace: str,
        after: tuple[str, ...] | None,
        limit: int,
        revision: int,
        changed: list[Event],
        written: bool,
    ) -> Page:
        """The state at ``revision``: the present one, with each later change's first ``previous`` put back."""
        past: dict[tuple[str, str], Entry | None] = {}
        for event in changed:
            past.setdefault((event.namespace, event.name), event.previous)
        keys = [k for k in self.keys if k not in past]
        keys.extend(k for k, entry in past.items() if entry is not None)
        if written:
            keys = [k for k in keys if type(past.get(k) or self.entries[k]) is not GivenEntry]
        keys.sort()
        low, high = _bounds(keys, namespace, after)
        stop = min(high, low + limit) if limit else high
        found = [past.get(k) or self.entries[k] for k in keys[low:stop]]
        next_key = keys[stop - 1] if stop < high and stop > low else None
        return Page(found, revision, next_key, high - stop)


def _bounds(keys: list[tuple[str, str]], namespace: str, after: tuple[str, ...] | None) -> tuple[int, int]:
    low, high = 0, len(keys)
    if namespace:
        low = bisect_left(keys, (namespace, ""))
        high = bisect_right(keys, (namespace, _LAST))
    if after is not None:
        low = max(low, bisect_right(keys, after))
    return low, max(low, high)
