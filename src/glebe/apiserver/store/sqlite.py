"""The durable store: SQLite behind a mirror in memory.

A write is acknowledged, and seen by readers and watchers, only after its transaction is on disk (WAL,
``synchronous=FULL``). One thread commits; whatever arrives while it waits for the disk goes into the next transaction
(group commit). Reads never touch the file. Only current objects are kept on disk: after a restart history starts anew.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections import deque
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from time import perf_counter

from glebe.apiserver.sharing.pieces import ends
from glebe.apiserver.store import sqlitefile as file
from glebe.apiserver.store.base import (
    WHITEOUT,
    Entry,
    Key,
    Make,
    Mismatch,
    StoreCorrupted,
    StoreFull,
    StoreUnavailable,
    compact,
)
from glebe.apiserver.store.checkpoints import BY_HAND, Checkpoints
from glebe.apiserver.store.lock import DataLock
from glebe.apiserver.store.mirror import Mirror
from glebe.apiserver.store.sealing.sealing import Sealing, refuse_sealed

log = logging.getLogger("glebe.apiserver.store")

_BATCH = 2000
_SLICE = 500
"""At most so many rows of a dropped cluster go with one transaction, so that nobody waits for a big cluster's end."""

_FEW = 2
"""The ends of so many writes need not be shared among the turns of the loop."""

_MANY = 1000
"""After the end of so many clusters the database's cache is full of what nobody will ask for."""


@dataclass(slots=True)
class _Operation:
    key: Key
    """For a drop only ``cluster`` counts."""
    entry: Entry
    deleted: bool
    drop: bool
    done: asyncio.Future[None]
    row: bytes | None = None
    """What to store under the key; None: its row goes."""
    removed: asyncio.Future[None] | None = None
    """Of a drop: when its last row is gone."""


class SQLiteStore(Mirror):
    """One file, one process.

    :param path: the database file; ``PATH.lock`` beside it keeps a second process out.
    :param sealing: what encrypts rows; rows that are not (or otherwise) encrypted are rewritten at the start.
    """

    def __init__(self, path: Path, *, sealing: Sealing | None = None, **bounds: int) -> None:
        super().__init__(**bounds)
        self._path = path
        self._lock = DataLock(path.with_name(path.name + ".lock"))
        self._acknowledged = file.Acknowledged(path.with_name(path.name + ".acknowledged"))
        self._sealing = sealing
        self._connection: sqlite3.Connection | None = None
        self._checkpoints: Checkpoints | None = None
        self._queue: SimpleQueue[_Operation | None] = SimpleQueue()
        self._drops: deque[_Operation] = deque()
        """Dropped clusters that still have rows; of the writing thread."""
        self._ended = 0
        """How many have gone since the database's cache was emptied; of the writing thread."""
        self._thread: threading.Thread | None = None
        self._pending: dict[Key, asyncio.Future[None]] = {}
        self._allocated = 0
        self._refusal = "it is not open"
        """Why writes are refused; "" while they are taken."""

    @property
    def trouble(self) -> str:
        return self._refusal

    async def start(self) -> None:
        """Open, check and load the file.

        :raises StoreLocked: another process uses it.
        :raises StoreCorrupted: it is damaged, or no file of ours.
        :raises StoreUnavailable: it cannot be opened, or not decrypted.
        """
        self._loop = asyncio.get_running_loop()
        self._lock.acquire()
        try:
            rows, self._revision = await asyncio.to_thread(self._open)
        except BaseException:
            self._acknowledged.close()
            self._lock.release()
            raise
        self._allocated = self._tables.floor = self._revision
        for key, revision, value in rows:
            self._load_row(key, Entry(revision, value))
        for table in self._tables.all():
            table.sort()
        self._refusal = ""
        self._checkpoints = Checkpoints(self._path)
        self._thread = threading.Thread(target=self._write_batches, name="glebe-store", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Commit what is queued, end the watches, release the file."""
        if self._thread is not None:
            self._refusal = "it is closed"
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None
        if self._checkpoints is not None:
            await asyncio.to_thread(self._checkpoints.stop)
            self._checkpoints = None
        self._tables.end_all("closed")
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._acknowledged.close()
        self._lock.release()

    # -- opening ------------------------------------------------------------------------------------------------

    def _open(self) -> tuple[list[file.Row], int]:
        known = self._path.exists()
        connection = file.connect(self._path)
        try:
            with file.explained(self._path):
                revision = file.revision_of(connection)
                self._check_acknowledged(revision, known)
                opened = self._unseal(connection)
                connection.execute(BY_HAND)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return opened, revision

    def _check_acknowledged(self, revision: int, known: bool) -> None:
        """
        :raises StoreCorrupted: what somebody was told to be written is not there.
        """
        try:
            acknowledged = self._acknowledged.open()
        except OSError as error:
            raise StoreUnavailable(f"cannot open {self._path}.acknowledged: {error}") from error
        if known and revision < acknowledged:
            raise StoreCorrupted(
                f"{self._path} ends at revision {revision}, but writes up to {acknowledged} were acknowledged: its "
                f"log ({self._path.name}-wal) was lost or cut, or an older copy took its place; restore a snapshot, or "
                f"remove {self._path.name}.acknowledged to go on without these writes"
            )
        self._acknowledged.note(revision)

    def _unseal(self, connection: sqlite3.Connection) -> list[file.Row]:
        """All rows, decrypted; those that would be stored otherwise today are rewritten under their old revision."""
        found: list[file.Row] = []
        stale: list[tuple[str, str, str, str, int, int, bytes]] = []
        sealing = self._sealing
        for key, revision, stored in file.rows(connection, self._path):
            mark, body = (WHITEOUT, stored[1:]) if stored[:1] == WHITEOUT else (b"", stored)
            if sealing is None:
                refuse_sealed(key, body)
            else:
                body, old = sealing.open(key, body)
                if old:
                    stale.append(file.row_of(key, revision, mark + sealing.seal(key, body)))
            found.append((key, revision, mark + body if mark else body))
        if stale:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(file.PUT, stale)
            connection.execute("COMMIT")
            # What it was before must not be readable in the free parts of the file either.
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            log.warning("%d objects were encrypted anew with the first provider of their resource", len(stale))
        return found

    # -- writing, on the event loop -----------------------------------------------------------------------------

    async def put(self, key: Key, make: Make, expected: int | None) -> Entry:
        return await self._write(key, make, expected, False)

    async def delete(self, key: Key, make: Make, expected: int | None) -> Entry:
        return await self._write(key, make, expected, True)

    async def _write(self, key: Key, make: Make, expected: int | None, deleted: bool) -> Entry:
        # One write per key at a time: what is compared with must be acknowledged.
        while (busy := self._pending.get(key)) is not None:
            await asyncio.wait([busy])
        self._refuse()
        if self._check(key, expected) is None and deleted:
            raise Mismatch(key, None)
        revision = self._allocated + 1
        value = compact(make(revision))
        row: bytes | None = None
        if not deleted or self._whites_out(key):
            row = value if self._sealing is None else self._sealing.seal(key, value)
            if deleted:
                row = WHITEOUT + row
        self._allocated = revision
        entry = Entry(revision, value)
        done = self._new_future()
        self._queue.put(_Operation(key, entry, deleted, False, done, row))
        self._pending[key] = done
        # The write goes on even if its caller is cancelled.
        await asyncio.shield(done)
        return entry

    async def drop(self, cluster: str) -> None:
        while busy := [f for k, f in self._pending.items() if k.cluster == cluster]:
            await asyncio.wait(busy)
        self._refuse()
        self._allocated += 1
        done, removed = self._new_future(), self._new_future()
        entry = Entry(self._allocated, b"")
        self._queue.put(_Operation(Key("", cluster, "", ""), entry, True, True, done, None, removed))
        await asyncio.shield(done)
        await asyncio.shield(removed)

    def _refuse(self) -> None:
        if self._refusal:
            raise StoreUnavailable(f"the store {self._path} takes no writes: {self._refusal}")

    def _new_future(self) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self._loop.create_future()
        future.add_done_callback(_retrieve)
        return future

    def _settle(self, batch: list[_Operation], removed: list[_Operation], error: StoreUnavailable | None) -> None:
        """A transaction ended: make its changes visible, in order, or tell their writers why not."""
        if error is not None and not isinstance(error, StoreFull):
            # Whether it is on disk or not cannot be known: stop, rather than build on sand.
            self._refusal = self._refusal or str(error)
        for operation in batch:
            self._pending.pop(operation.key, None)
            if error is None:
                self._show(operation)
            else:
                operation.done.set_exception(error)
        if error is None:
            self._tell(batch)
        for operation in removed:
            assert operation.removed is not None
            if error is None:
                operation.removed.set_result(None)
            else:
                operation.removed.set_exception(error)

    @staticmethod
    def _tell(batch: list[_Operation]) -> None:
        """Wake the writers: of many, a few in each turn of the loop, since each has an answer to write."""
        if len(batch) <= _FEW:
            for operation in batch:
                operation.done.set_result(None)
        else:
            line = ends()
            for operation in batch:
                line.add(operation.key.cluster, partial(operation.done.set_result, None))

    def _show(self, operation: _Operation) -> None:
        key = operation.key
        self._revision = operation.entry.revision
        if operation.drop:
            self._tables.forget(key.cluster, self._revision)
            return
        self._apply(key, operation.entry, operation.deleted)

    # -- writing, on the writer's thread -------------------------------------------------------------------------

    def _write_batches(self) -> None:
        ended = False
        while not ended or self._drops:
            batch: list[_Operation] = []
            try:
                # With rows of dropped clusters left to remove, there is no waiting for more to do.
                operation = self._queue.get(block=not self._drops and not ended)
                while operation is not None:
                    batch.append(operation)
                    if len(batch) == _BATCH or self._queue.empty():
                        break
                    operation = self._queue.get()
                ended = ended or operation is None
            except Empty:
                pass
            removed: list[_Operation] = []
            began = perf_counter()
            error = self._commit(batch, removed) if batch or self._drops else None
            self.commits += 1
            self.commit_seconds += perf_counter() - began
            try:
                self._loop.call_soon_threadsafe(self._settle, batch, removed, error)
            except RuntimeError:
                return  # the loop is gone: nobody is left to be told
            del batch, removed  # or they would be held until the next write, which may be hours away

    def _commit(self, batch: list[_Operation], removed: list[_Operation]) -> StoreUnavailable | None:
        """One transaction: the batch, and a slice of a dropped cluster; ``removed`` takes drops that are through."""
        connection, drops = self._connection, self._drops
        assert connection is not None
        drops.extend(operation for operation in batch if operation.drop)
        gone = 0
        try:
            rows = [file.row_of(o.key, o.entry.revision, o.row) for o in batch if o.row is not None]
            if not drops and len(rows) == len(batch) <= file.TOGETHER:
                file.put(connection, rows)  # one statement is a transaction of its own
            else:
                connection.execute("BEGIN IMMEDIATE")
                file.put(connection, rows)
                gone = self._remove(connection, batch)
                if batch:
                    connection.execute(file.REVISION, (batch[-1].entry.revision,))
                connection.execute("COMMIT")
        except Exception as error:  # whatever it is: if this thread ended, every later write would wait for ever
            removed.extend(drops)
            drops.clear()
            return self._undo(connection, error)
        if drops and gone < _SLICE:
            removed.append(drops.popleft())
            self._ended += 1
            if not drops and self._ended >= _MANY:
                self._ended = 0
                connection.execute("PRAGMA shrink_memory")
        if batch:
            self._acknowledged.note(batch[-1].entry.revision)
        if self._checkpoints is not None:
            self._checkpoints.committed(connection)
        return None

    def _remove(self, connection: sqlite3.Connection, batch: list[_Operation]) -> int:
        """Delete what the batch deletes, and a slice of the first dropped cluster, whose size is returned."""
        for operation in batch:
            if operation.row is None and not operation.drop:
                key = operation.key
                connection.execute(file.DELETE, (key.cluster, key.resource, key.namespace, key.name))
        if not self._drops:
            return 0
        drop = self._drops[0]
        return connection.execute(file.DROP, (drop.key.cluster, drop.entry.revision, _SLICE)).rowcount

    def _undo(self, connection: sqlite3.Connection, error: Exception) -> StoreUnavailable:
        explained = file.explain(self._path, error)
        log.error("%s", explained, exc_info=None if isinstance(error, sqlite3.Error) else error)
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error as again:
            return StoreUnavailable(f"{explained}; and the transaction cannot be undone: {again}")
        return explained


def _retrieve(done: asyncio.Future[None]) -> None:
    """Nobody may be waiting any more; the error was logged."""
    if not done.cancelled():
        done.exception()
