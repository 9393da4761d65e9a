"""The file of the SQLite store: making, opening, checking, reading.

Every row has a checksum over its key, revision and bytes, because SQLite itself notices only damage to its own
structures. Beside the file, ``PATH.acknowledged`` holds the newest revision that a writer was told of: a file (or its
write-ahead log) that lacks it has lost acknowledged writes, which SQLite would take for an earlier, good state.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from mmap import mmap
from pathlib import Path
from typing import TypeAlias
from zlib import crc32

from glebe.apiserver.store.base import Key, StoreCorrupted, StoreFull, StoreUnavailable

APPLICATION_ID = 0x474C4245  # "GLBE"
FORMAT = 2
_TABLE = (
    "CREATE TABLE objects (cluster TEXT NOT NULL, resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,"
    " revision INTEGER NOT NULL, checksum INTEGER NOT NULL, value BLOB NOT NULL,"
    " PRIMARY KEY (cluster, resource, namespace, name))"
)
_META = (
    "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL)",
    "INSERT OR IGNORE INTO meta VALUES ('revision', 0)",
)
_ROW = "(?, ?, ?, ?, ?, ?, ?)"
TOGETHER = 128
"""Rows that one statement takes at most."""
_EXACTLY, _STEP = 8, 8
"""Up to so many rows have a statement each, more are filled up to a multiple: few statements have to be prepared."""
StoredRow: TypeAlias = tuple[str, str, str, str, int, int, bytes]


def _put(rows: int) -> str:
    return (
        f"INSERT INTO objects VALUES {', '.join([_ROW] * rows)} ON CONFLICT (cluster, resource, namespace, name)"
        " DO UPDATE SET revision = excluded.revision, checksum = excluded.checksum, value = excluded.value"
    )


PUT = _put(1)
_PUTS = {rows: _put(rows) for rows in (*range(1, _EXACTLY + 1), *range(_EXACTLY, TOGETHER + 1, _STEP))}
DELETE = "DELETE FROM objects WHERE cluster = ? AND resource = ? AND namespace = ? AND name = ?"
#: A slice of a dropped cluster; a later cluster of that name has later revisions.
DROP = "DELETE FROM objects WHERE rowid IN (SELECT rowid FROM objects WHERE cluster = ? AND revision <= ? LIMIT ?)"
REVISION = "UPDATE meta SET value = ? WHERE name = 'revision'"

#: How far revisions jump when a snapshot is restored.
RESTORED = 1_000_000_000

_WIDTH = 21

Row: TypeAlias = tuple[Key, int, bytes]


class Acknowledged:
    """The newest acknowledged revision, in a file of its own. It is not synced: the database itself is, before."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._map: mmap | None = None

    def open(self) -> int:
        """The revision; 0 when nothing was acknowledged yet."""
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            text = os.pread(handle, _WIDTH, 0).strip()
            revision = int(text) if text.isdigit() else 0
            os.pwrite(handle, b"%0*d\n" % (_WIDTH - 1, revision), 0)  # so that its room is there, whatever comes
            # Mapped, because a call into the system would hand the interpreter to other threads after each commit.
            self._map = mmap(handle, _WIDTH)
        finally:
            os.close(handle)
        return revision

    def note(self, revision: int) -> None:
        if self._map is not None:
            self._map[: _WIDTH - 1] = b"%0*d" % (_WIDTH - 1, revision)

    def close(self) -> None:
        if self._map is not None:
            self._map.close()
            self._map = None


def put(connection: sqlite3.Connection, rows: Sequence[StoredRow]) -> None:
    """Write the rows, whose keys differ. Each statement hands the interpreter over and has to get it back, which takes
    as long as the loop's turn: so many rows go with one.
    """
    for at in range(0, len(rows), TOGETHER):
        some = rows[at : at + TOGETHER]
        number = len(some) if len(some) <= _EXACTLY else -(-len(some) // _STEP) * _STEP
        values = list(chain.from_iterable(some))
        values += some[-1] * (number - len(some))  # the same row again changes nothing
        connection.execute(_PUTS[number], values)


def row_of(key: Key, revision: int, value: bytes) -> StoredRow:
    """What :data:`PUT` takes."""
    return key.cluster, key.resource, key.namespace, key.name, revision, checksum(key, revision, value), value


def checksum(key: Key, revision: int, value: bytes) -> int:
    return crc32(value, crc32("\0".join((*key, str(revision))).encode()))


def connect(path: Path) -> sqlite3.Connection:
    """Open (or make) the file, check it, bring it to the present format.

    :raises StoreCorrupted: it is damaged, or no file of ours.
    :raises StoreUnavailable: it cannot be opened.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Secrets are in it: nobody else reads it (SQLite gives its journal the same mode), whatever the umask.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        path.chmod(0o600)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    except (OSError, sqlite3.Error) as error:
        raise StoreUnavailable(f"cannot open {path}: {error}") from error
    try:
        with explained(path):
            _prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


class explained:  # noqa: N801 - reads as a verb: with explained(path)
    """Turns SQLite's errors into the store's."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.OperationalError):
            raise explain(self._path, error) from error
        if isinstance(error, sqlite3.DatabaseError):
            raise corrupted(self._path, str(error)) from error


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if not empty and application != APPLICATION_ID:
        raise StoreCorrupted(f"{path} is not a Glebe store; name another data directory")
    if version > FORMAT:
        raise StoreCorrupted(f"{path} was written by a newer Glebe (format {version}); upgrade Glebe")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    problems = [row[0] for row in connection.execute("PRAGMA integrity_check(5)")]
    if problems != ["ok"]:
        raise corrupted(path, "; ".join(problems))
    if version < FORMAT:
        connection.execute("BEGIN IMMEDIATE")
        if not empty:
            connection.execute("ALTER TABLE objects RENAME TO before")
        connection.execute(_TABLE)
        for statement in _META:
            connection.execute(statement)
        if not empty:
            _take_over(connection)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FORMAT}")
        connection.execute("COMMIT")


def _take_over(connection: sqlite3.Connection) -> None:
    """Format 1 had the resource first in its key, and no checksums."""
    old = connection.execute("SELECT resource, cluster, namespace, name, revision, value FROM before")
    rows = (row_of(Key(*row[:4]), row[4], bytes(row[5])) for row in old)
    connection.executemany(PUT, rows)
    connection.execute("DROP TABLE before")


def create_from(path: Path, rows: Iterable[Row], revision: int) -> None:
    """Make a new file with these rows; all or nothing. The next revision is far beyond ``revision``, because writes
    after the snapshot may have been seen: no version may come twice.

    :raises StoreUnavailable: it cannot be written.
    """
    fresh = path.with_name(path.name + ".restoring")
    fresh.unlink(missing_ok=True)
    connection = connect(fresh)
    try:
        with explained(fresh):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(PUT, (row_of(*row) for row in rows))
            connection.execute(REVISION, (revision + RESTORED,))
            connection.execute("COMMIT")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.execute("PRAGMA journal_mode = DELETE")
    except BaseException:
        connection.close()
        fresh.unlink(missing_ok=True)
        raise
    connection.close()
    path.with_name(path.name + ".acknowledged").unlink(missing_ok=True)
    fresh.rename(path)


def revision_of(connection: sqlite3.Connection) -> int:
    """The newest: what only puts rows says it with them alone."""
    newest = "SELECT max(value, (SELECT ifnull(max(revision), 0) FROM objects)) FROM meta WHERE name = 'revision'"
    return int(connection.execute(newest).fetchone()[0])


def rows(connection: sqlite3.Connection, path: Path) -> Iterator[Row]:
    """All rows, each checked.

    :raises StoreCorrupted: one is not as it was written.
    """
    query = "SELECT resource, cluster, namespace, name, revision, checksum, value FROM objects"
    for resource, cluster, namespace, name, revision, check, value in connection.execute(query):
        key = Key(resource, cluster, namespace, name)
        if not isinstance(value, bytes) or checksum(key, revision, value) != check:
            raise corrupted(path, f"the checksum of {resource} {namespace}/{name} in cluster {cluster} is wrong")
        yield key, revision, value


def explain(path: Path, error: Exception) -> StoreUnavailable:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return StoreFull(f"no space left for {path}: free some space; nothing of the write was kept")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return corrupted(path, str(error))
    if code == sqlite3.SQLITE_READONLY:
        return StoreUnavailable(f"{path} is read only: check its owner and the mount")
    return StoreUnavailable(f"cannot write {path}: {error}")


def corrupted(path: Path, why: str) -> StoreCorrupted:
    return StoreCorrupted(
        f"{path} is damaged ({why}): restore it from a backup, or move it away to start empty; nothing was changed"
    )
