"""The store of simulations and tests: everything in memory, every write at once."""

from __future__ import annotations

from glebe.apiserver.store.base import Entry, Key, Make, Mismatch, compact
from glebe.apiserver.store.mirror import Mirror


class MemoryStore(Mirror):
    """Nothing survives the process. A write never yields to the event loop."""

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        self._tables.end_all("closed")

    async def put(self, key: Key, make: Make, expected: int | None) -> Entry:
        self._check(key, expected)
        return self._change(key, make, False)

    async def delete(self, key: Key, make: Make, expected: int | None) -> Entry:
        if self._check(key, expected) is None:
            raise Mismatch(key, None)
        return self._change(key, make, True)

    def _change(self, key: Key, make: Make, deleted: bool) -> Entry:
        revision = self._revision + 1
        entry = Entry(revision, compact(make(revision)))
        self._revision = revision
        self._apply(key, entry, deleted)
        return entry

    async def drop(self, cluster: str) -> None:
        self._revision += 1
        self._tables.forget(cluster, self._revision)
