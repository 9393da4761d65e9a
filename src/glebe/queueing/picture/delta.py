"""Snapshots sent piecewise: between two snapshots only what changed is handed to a worker process.

Successive snapshots share what did not change (:class:`.SnapshotBuilder`), so that comparing
them is comparing identities. With thousands waiting, packing everything would cost as much as deciding.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from glebe.scheduling.model import Admitted, Pending, Snapshot

#: Sent whole: every field of ``Snapshot`` but what waits and runs.
_WHOLE = tuple(f.name for f in fields(Snapshot) if f.name not in ("pending", "admitted"))
#: Of these the big one, which is compared by identity alone.
_BIG = "nodes"


@dataclass(frozen=True, slots=True)
class Update:
    """What makes the receiver's snapshot that of the sender. ``fresh``: it starts from an empty one."""

    fresh: bool
    parts: dict[str, Any]  # whole fields of Snapshot that changed
    gone: tuple[str, ...]  # keys that neither wait nor run any more
    pending: tuple[Pending, ...]
    admitted: tuple[Admitted, ...]


class Sender:
    """Remembers what the receiver has. Updates must be applied in the order in which they were made."""

    def __init__(self) -> None:
        self._parts: dict[str, Any] = {}
        self._items: dict[str, Pending | Admitted] = {}
        self._fresh = True

    def update(self, snapshot: Snapshot) -> Update:
        parts = {}
        for name in _WHOLE:
            value = getattr(snapshot, name)
            if name in self._parts:
                known = self._parts[name]
                if known is value or (name != _BIG and known == value):
                    continue
            parts[name] = self._parts[name] = value
        items: dict[str, Pending | Admitted] = {p.key: p for p in snapshot.pending}
        items.update((a.key, a) for a in snapshot.admitted)
        before, self._items = self._items, items
        gone = tuple(key for key in before if key not in items)
        pending = tuple(p for p in snapshot.pending if before.get(p.key) is not p)
        admitted = tuple(a for a in snapshot.admitted if before.get(a.key) is not a)
        fresh, self._fresh = self._fresh, False
        return Update(fresh, parts, gone, pending, admitted)


class Receiver:
    """Builds the sender's snapshots. Parts that did not change stay the same objects."""

    def __init__(self) -> None:
        self._parts: dict[str, Any] = {}
        self._pending: dict[str, Pending] = {}
        self._admitted: dict[str, Admitted] = {}

    def apply(self, update: Update) -> Snapshot:
        if update.fresh:
            self.__init__()  # type: ignore[misc]
        self._parts.update(update.parts)
        self._drop(update.gone)
        self._drop(a.key for a in update.admitted)
        self._drop(p.key for p in update.pending)
        self._pending.update((p.key, p) for p in update.pending)
        self._admitted.update((a.key, a) for a in update.admitted)
        return Snapshot(**self._parts, admitted=tuple(self._admitted.values()), pending=tuple(self._pending.values()))

    def _drop(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._pending.pop(key, None)
            self._admitted.pop(key, None)
