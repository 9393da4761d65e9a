"""The in-memory state of one resource in one logical cluster: current entries, recent history, watchers.

Both backends keep their objects in these; the difference between them is only when a change is applied.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque

from glebe.apiserver.store.base import Compacted, Entry, Event, FutureRevision, Page
from glebe.apiserver.store.subscription import Subscription

#: History per table: at most so many events and so many bytes, whichever is reached first.
MAX_EVENTS = 10_000
MAX_BYTES = 16 * 1024 * 1024

_LAST = "\U0010ffff"


class Table:
    """Ordered entries with a bounded history. Not thread safe: used on the event loop only."""

    __slots__ = ("_bytes", "entries", "floor", "history", "keys", "max_bytes", "max_events", "subscriptions")

    def __init__(self, floor: int, max_events: int = MAX_EVENTS, max_bytes: int = MAX_BYTES) -> None:
        self.entries: dict[tuple[str, str], Entry] = {}
        self.keys: list[tuple[str, str]] = []
        self.history: deque[Event] = deque()
        self.floor = floor
        """Newest revision whose changes are no longer in the history: watches may start here or later."""
        self.subscriptions: list[Subscription] = []
        self.max_events = max_events
        self.max_bytes = max_bytes
        self._bytes = 0

    def load(self, key: tuple[str, str], entry: Entry) -> None:
        """Put an entry that was there before: no event. The caller must :meth:`sort` afterwards."""
        self.entries[key] = entry
        self.keys.append(key)

    def sort(self) -> None:
        self.keys.sort()

    def apply(self, key: tuple[str, str], entry: Entry, deleted: bool) -> None:
        """Make one change current, remember it and tell the watchers."""
        previous = self.entries.get(key)
        if deleted:
            del self.entries[key]
            del self.keys[bisect_left(self.keys, key)]
        else:
            self.entries[key] = entry
            if previous is None:
                insort(self.keys, key)
        event = Event(key[0], key[1], entry, previous, deleted)
        self.history.append(event)
        self._bytes += len(entry.value)
        while len(self.history) > self.max_events or self._bytes > self.max_bytes:
            self._forget_oldest()
        for subscription in tuple(self.subscriptions):
            subscription.push(event)

    def _forget_oldest(self) -> None:
        oldest = self.history.popleft()
        self.floor = oldest.revision
        self._bytes -= len(oldest.entry.value)

    def compact(self, revision: int) -> None:
        while self.history and self.history[0].revision <= revision:
            self._forget_oldest()
        self.floor = max(self.floor, revision)

    def since(self, revision: int) -> list[Event]:
        """Events after ``revision``.

        :raises Compacted: they are not all here any more.
        """
        if revision < self.floor:
            raise Compacted(revision, self.floor)
        out: list[Event] = []
        for event in reversed(self.history):
            if event.revision <= revision:
                break
            out.append(event)
        out.reverse()
        return out

    def subscribe(self, namespace: str, name: str, revision: int) -> Subscription:
        subscription = Subscription(namespace, name, self.since(revision), self._unsubscribe)
        self.subscriptions.append(subscription)
        return subscription

    def _unsubscribe(self, subscription: Subscription) -> None:
        if subscription in self.subscriptions:
            self.subscriptions.remove(subscription)

    def page(self, namespace: str, after: tuple[str, str] | None, limit: int, revision: int, current: int) -> Page:
        """See ``Store.range``."""
        if revision > current:
            raise FutureRevision(revision, current)
        if revision and revision < current:
            changed = self.since(revision)
            if changed:
                return self._past_page(namespace, after, limit, revision, changed)
        keys = self.keys
        low, high = _bounds(keys, namespace, after)
        stop = min(high, low + limit) if limit else high
        entries = self.entries
        if low == 0 and stop == len(keys):
            found = [entries[k] for k in keys]
        else:
            found = [entries[k] for k in keys[low:stop]]
        next_key = keys[stop - 1] if stop < high and stop > low else None
        return Page(found, revision or current, next_key, high - stop)

    def _past_page(
        self, namespace: str, after: tuple[str, str] | None, limit: int, revision: int, changed: list[Event]
    ) -> Page:
        """The state at ``revision``: the present one, with each later change's first ``previous`` put back."""
        past: dict[tuple[str, str], Entry | None] = {}
        for event in changed:
            past.setdefault((event.namespace, event.name), event.previous)
        keys = [k for k in self.keys if k not in past]
        keys.extend(k for k, entry in past.items() if entry is not None)
        keys.sort()
        low, high = _bounds(keys, namespace, after)
        stop = min(high, low + limit) if limit else high
        found = [past.get(k) or self.entries[k] for k in keys[low:stop]]
        next_key = keys[stop - 1] if stop < high and stop > low else None
        return Page(found, revision, next_key, high - stop)


def _bounds(keys: list[tuple[str, str]], namespace: str, after: tuple[str, str] | None) -> tuple[int, int]:
    low, high = 0, len(keys)
    if namespace:
        low = bisect_left(keys, (namespace, ""))
        high = bisect_right(keys, (namespace, _LAST))
    if after is not None:
        low = max(low, bisect_right(keys, after))
    return low, max(low, high)
