"""The durable store: SQLite behind a mirror in memory.

A write is acknowledged, and seen by readers and watchers, only after its transaction is on disk (WAL,
``synchronous=FULL``). One thread commits; whatever arrives while it waits for the disk goes into the next transaction
(group commit). Reads never touch the file. Only current objects are kept on disk: after a restart history starts anew.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from glebe.apiserver.store.base import (
    WHITEOUT,
    Entry,
    Key,
    Make,
    Mismatch,
    StoreCorrupted,
    StoreFull,
    StoreUnavailable,
)
from glebe.apiserver.store.lock import DataLock
from glebe.apiserver.store.mirror import Mirror

log = logging.getLogger("glebe.apiserver.store")

_APPLICATION_ID = 0x474C4245  # "GLBE"
_FORMAT = 1
_BATCH = 2000
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS objects (resource TEXT NOT NULL, cluster TEXT NOT NULL, namespace TEXT NOT NULL,"
    " name TEXT NOT NULL, revision INTEGER NOT NULL, value BLOB NOT NULL,"
    " PRIMARY KEY (resource, cluster, namespace, name))",
    "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL)",
    "INSERT OR IGNORE INTO meta VALUES ('revision', 0)",
)
_PUT = "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?)"
_DELETE = "DELETE FROM objects WHERE resource = ? AND cluster = ? AND namespace = ? AND name = ?"
_DROP = "DELETE FROM objects WHERE cluster = ?"


@dataclass(slots=True)
class _Operation:
    key: Key
    """For a drop only ``cluster`` counts."""
    entry: Entry
    deleted: bool
    drop: bool
    done: asyncio.Future[None]
    whiteout: bool = False


class SQLiteStore(Mirror):
    """One file, one process.

    :param path: the database file; ``PATH.lock`` beside it keeps a second process out.
    """

    def __init__(self, path: Path, **bounds: int) -> None:
        super().__init__(**bounds)
        self._path = path
        self._lock = DataLock(path.with_name(path.name + ".lock"))
        self._connection: sqlite3.Connection | None = None
        self._queue: SimpleQueue[_Operation | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._pending: dict[Key, asyncio.Future[None]] = {}
        self._allocated = 0
        self._refusal = "it is not open"
        """Why writes are refused; "" while they are taken."""

    async def start(self) -> None:
        """Open, check and load the file.

        :raises StoreLocked: another process uses it.
        :raises StoreCorrupted: it is damaged, or no file of ours.
        :raises StoreUnavailable: it cannot be opened.
        """
        self._loop = asyncio.get_running_loop()
        self._lock.acquire()
        try:
            rows, self._revision = await asyncio.to_thread(self._open)
        except BaseException:
            self._lock.release()
            raise
        self._allocated = self._tables.floor = self._revision
        for resource, cluster, namespace, name, revision, value in rows:
            self._load_row(Key(resource, cluster, namespace, name), Entry(revision, value))
        for table in self._tables.all():
            table.sort()
        self._refusal = ""
        self._thread = threading.Thread(target=self._write_batches, name="glebe-store", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Commit what is queued, end the watches, release the file."""
        if self._thread is not None:
            self._refusal = "it is closed"
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None
        self._tables.end_all("closed")
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._lock.release()

    # -- opening ------------------------------------------------------------------------------------------------

    def _open(self) -> tuple[list[tuple[str, str, str, str, int, bytes]], int]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Secrets are in it: nobody else reads it (SQLite gives its journal the same mode), whatever the umask.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            self._path.chmod(0o600)
            connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=5.0)
        except (OSError, sqlite3.Error) as error:
            raise StoreUnavailable(f"cannot open {self._path}: {error}") from error
        try:
            return self._load(connection)
        except sqlite3.OperationalError as error:
            connection.close()
            raise _explain(self._path, error) from error
        except sqlite3.DatabaseError as error:
            connection.close()
            raise _corrupted(self._path, str(error)) from error
        except BaseException:
            connection.close()
            raise

    def _load(self, connection: sqlite3.Connection) -> tuple[list[tuple[str, str, str, str, int, bytes]], int]:
        empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if not empty and application != _APPLICATION_ID:
            raise StoreCorrupted(f"{self._path} is not a Glebe store; name another data directory")
        if version > _FORMAT:
            raise StoreCorrupted(f"{self._path} was written by a newer Glebe (format {version}); upgrade Glebe")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        problems = [row[0] for row in connection.execute("PRAGMA quick_check(5)")]
        if problems != ["ok"]:
            raise _corrupted(self._path, "; ".join(problems))
        if empty:
            connection.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {_FORMAT}")
            connection.execute("COMMIT")
        rows = connection.execute("SELECT resource, cluster, namespace, name, revision, value FROM objects").fetchall()
        revision = connection.execute("SELECT value FROM meta WHERE name = 'revision'").fetchone()[0]
        self._connection = connection
        return rows, revision

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
        self._allocated += 1
        entry = Entry(self._allocated, make(self._allocated))
        done = self._enqueue(key, entry, deleted, False)
        self._pending[key] = done
        # The write goes on even if its caller is cancelled.
        await asyncio.shield(done)
        return entry

    async def drop(self, cluster: str) -> None:
        while busy := [f for k, f in self._pending.items() if k.cluster == cluster]:
            await asyncio.wait(busy)
        self._refuse()
        self._allocated += 1
        await asyncio.shield(self._enqueue(Key("", cluster, "", ""), Entry(self._allocated, b""), True, True))

    def _refuse(self) -> None:
        if self._refusal:
            raise StoreUnavailable(f"the store {self._path} takes no writes: {self._refusal}")

    def _enqueue(self, key: Key, entry: Entry, deleted: bool, drop: bool) -> asyncio.Future[None]:
        done: asyncio.Future[None] = self._loop.create_future()
        done.add_done_callback(_retrieve)
        whiteout = deleted and not drop and self._whites_out(key)
        self._queue.put(_Operation(key, entry, deleted, drop, done, whiteout))
        return done

    def _settle(self, batch: list[_Operation], error: StoreUnavailable | None) -> None:
        """A transaction ended: make its changes visible, in order, or tell their writers why not."""
        if error is not None and not isinstance(error, StoreFull):
            # Whether it is on disk or not cannot be known: stop, rather than build on sand.
            self._refusal = self._refusal or str(error)
        for operation in batch:
            self._pending.pop(operation.key, None)
            if error is None:
                self._show(operation)
                operation.done.set_result(None)
            else:
                operation.done.set_exception(error)

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
        while not ended:
            batch: list[_Operation] = []
            operation = self._queue.get()
            while operation is not None:
                batch.append(operation)
                if len(batch) == _BATCH or self._queue.empty():
                    break
                operation = self._queue.get()
            ended = operation is None
            if batch:
                error = self._commit(batch)
                try:
                    self._loop.call_soon_threadsafe(self._settle, batch, error)
                except RuntimeError:
                    return  # the loop is gone: nobody is left to be told

    def _commit(self, batch: list[_Operation]) -> StoreUnavailable | None:
        connection = self._connection
        assert connection is not None
        try:
            connection.execute("BEGIN IMMEDIATE")
            for operation in batch:
                key = operation.key
                if operation.drop:
                    connection.execute(_DROP, (key.cluster,))
                elif operation.whiteout:
                    connection.execute(_PUT, (*key, operation.entry.revision, WHITEOUT + operation.entry.value))
                elif operation.deleted:
                    connection.execute(_DELETE, key)
                else:
                    connection.execute(_PUT, (*key, operation.entry.revision, operation.entry.value))
            connection.execute("UPDATE meta SET value = ? WHERE name = 'revision'", (batch[-1].entry.revision,))
            connection.execute("COMMIT")
        except Exception as error:  # whatever it is: if this thread ended, every later write would wait for ever
            explained = _explain(self._path, error)
            log.error("%s", explained, exc_info=None if isinstance(error, sqlite3.Error) else error)
            try:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            except sqlite3.Error as again:
                return StoreUnavailable(f"{explained}; and the transaction cannot be undone: {again}")
            return explained
        return None


def _retrieve(done: asyncio.Future[None]) -> None:
    """Nobody may be waiting any more; the error was logged."""
    if not done.cancelled():
        done.exception()


def _explain(path: Path, error: Exception) -> StoreUnavailable:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return StoreFull(f"no space left for {path}: free some space; nothing of the write was kept")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return _corrupted(path, str(error))
    if code == sqlite3.SQLITE_READONLY:
        return StoreUnavailable(f"{path} is read only: check its owner and the mount")
    return StoreUnavailable(f"cannot write {path}: {error}")


def _corrupted(path: Path, why: str) -> StoreCorrupted:
    return StoreCorrupted(
        f"{path} is damaged ({why}): restore it from a backup, or move it away to start empty; nothing was changed"
    )
