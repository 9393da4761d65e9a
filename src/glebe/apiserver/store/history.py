"""The history of a store: all recent events in order, bounded as a whole and for each table.

Events are links of two chains, of the whole store and of their table, so that a table without history costs nothing and
forgetting one event is a few assignments, whichever it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from glebe.apiserver.store.base import Event

if TYPE_CHECKING:
    from glebe.apiserver.store.table import Table

#: History per table (one resource in one cluster): at most so many events and bytes, whichever is reached first.
MAX_EVENTS = 10_000
MAX_BYTES = 16 * 1024 * 1024
#: The same for all tables together. The oldest go first, whose ever they are.
TOTAL_EVENTS = 100_000
TOTAL_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much history is kept."""

    max_events: int = MAX_EVENTS
    max_bytes: int = MAX_BYTES
    total_events: int = TOTAL_EVENTS
    total_bytes: int = TOTAL_BYTES


class History:
    """The chain of all events, oldest to newest."""

    __slots__ = ("_bounds", "_newest", "count", "oldest", "size")

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self.oldest: Event | None = None
        self._newest: Event | None = None
        self.count = 0
        self.size = 0
        """Bytes of the values that the events hold."""

    def add(self, table: Table, event: Event) -> None:
        """Append the newest event of the store, which is the newest of ``table``; older ones may have to go."""
        event.table = table
        event.before, event.earlier = self._newest, table.newest
        if self._newest is None:
            self.oldest = event
        else:
            self._newest.after = event
        if table.newest is None:
            table.oldest = event
        else:
            table.newest.later = event
        self._newest = table.newest = event
        size = len(event.entry.value)
        self.count += 1
        self.size += size
        table.events += 1
        table.history_size += size
        bounds = self._bounds
        while table.events > bounds.max_events or table.history_size > bounds.max_bytes:
            assert table.oldest is not None
            self.forget(table.oldest)
        while self.count > bounds.total_events or self.size > bounds.total_bytes:
            assert self.oldest is not None
            self.forget(self.oldest)

    def forget(self, event: Event) -> None:
        """Take the oldest event of a table out; the table's history now starts after it."""
        table = event.table
        assert table is not None
        table.floor = event.revision
        table.shelf.floor = max(table.shelf.floor, event.revision)
        self._unlink(event, table)

    def forget_table(self, table: Table) -> None:
        """Take out all events of a table that is going away."""
        event = table.oldest
        while event is not None:
            following = event.later
            self._unlink(event, table)
            event = following

    def clear(self) -> None:
        while self.oldest is not None:
            self.forget(self.oldest)

    def compact(self, revision: int) -> None:
        while self.oldest is not None and self.oldest.revision <= revision:
            self.forget(self.oldest)

    def _unlink(self, event: Event, table: Table) -> None:
        before, after, later = event.before, event.after, event.later
        if before is None:
            self.oldest = after
        else:
            before.after = after
        if after is None:
            self._newest = before
        else:
            after.before = before
        table.oldest = later  # within a table it is always the oldest that goes
        if later is None:
            table.newest = None
        else:
            later.earlier = None
        event.before = event.after = event.later = event.table = None
        size = len(event.entry.value)
        self.count -= 1
        self.size -= size
        table.events -= 1
        table.history_size -= size
