"""The ledger file: every allocation and every change of a node, append-only, in SQLite.

A row is never changed. What is said later about the same allocation (its end, a correction) is another row with the
same uid, and the last row counts. ``seq`` gives the order. The file can be read with any SQLite tool while in use.
"""

from __future__ import annotations

import logging
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from glebe.metering.facts import Charge, Row
from glebe.metering.intervals import Allocation, Point

log = logging.getLogger("glebe.metering")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS allocations (
  seq INTEGER PRIMARY KEY,
  recorded_at INTEGER NOT NULL,
  uid TEXT NOT NULL,            -- of the pod
  pod TEXT NOT NULL,
  node TEXT NOT NULL,
  gpus INTEGER NOT NULL,
  started_at INTEGER NOT NULL,  -- seconds since the epoch
  ended_at INTEGER,             -- NULL: still held when this row was written
  estimated INTEGER NOT NULL,   -- 1: nobody wrote down the true end
  namespace TEXT NOT NULL,
  queue TEXT NOT NULL,
  cluster_queue TEXT NOT NULL,
  user TEXT NOT NULL,
  workload TEXT NOT NULL        -- uid of the job, else of the pod
);
CREATE INDEX IF NOT EXISTS allocations_by_uid ON allocations (uid, seq);
CREATE TABLE IF NOT EXISTS node_points (
  seq INTEGER PRIMARY KEY,
  recorded_at INTEGER NOT NULL,
  node TEXT NOT NULL,
  at INTEGER NOT NULL,          -- from then on
  gpus INTEGER NOT NULL,
  ready INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS node_points_by_node ON node_points (node, seq);
"""
_VERSION = 1
_ADD_ALLOCATION = (
    "INSERT INTO allocations (recorded_at, uid, pod, node, gpus, started_at, ended_at, estimated, namespace,"
    " queue, cluster_queue, user, workload) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)"
)
_ADD_POINT = "INSERT INTO node_points (recorded_at, node, at, gpus, ready) VALUES (?,?,?,?,?)"


class LedgerError(Exception):
    """The ledger file cannot be used; the message names the file and what to do."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An allocation as it stands in the ledger."""

    node: str
    pod: str
    allocation: Allocation[Charge]
    estimated: bool = False


class Ledger:
    """The file. Rows are gathered in memory until :meth:`commit`, so that a disk that is full for a while loses none.

    :raises LedgerError: it is not a ledger, or cannot be opened.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = path
        self._gathered: list[tuple[str, tuple[object, ...]]] = []
        try:
            if isinstance(path, Path):
                path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(str(path))
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version not in (0, _VERSION):
                raise LedgerError(f"ledger {path}: written by a newer Glebe (format {version}); use that version")
            self._db.executescript(_SCHEMA)
            self._db.execute(f"PRAGMA user_version={_VERSION}")
        except (sqlite3.Error, OSError) as error:
            raise LedgerError(f"ledger {path}: cannot be opened: {error}; move the file away to begin anew") from error

    def add_allocation(self, entry: Entry, now: int) -> None:
        a, row = entry.allocation, entry.allocation.row.row
        values = (now, a.uid, entry.pod, entry.node, a.gpus, a.start, a.end, entry.estimated, *row, a.row.workload)
        self._gathered.append((_ADD_ALLOCATION, values))

    def add_point(self, node: str, point: Point, now: int) -> None:
        self._gathered.append((_ADD_POINT, (now, node, point.at, point.gpus, point.ready)))

    def commit(self) -> None:
        """Make everything added so far durable.

        :raises LedgerError: it cannot be written now; nothing is lost, the next commit tries again.
        """
        if not self._gathered:
            return
        try:
            with self._db:  # all or nothing
                for statement, values in self._gathered:
                    self._db.execute(statement, values)
        except sqlite3.Error as error:
            raise LedgerError(f"ledger {self._path}: cannot be written: {error}; is the disk full?") from error
        self._gathered.clear()

    def close(self) -> None:
        """Commit and close."""
        try:
            self.commit()
        except LedgerError:
            log.exception("%d entries of the ledger are lost", len(self._gathered))
        finally:
            self._db.close()

    def allocations(self, since: int) -> list[Entry]:
        """The allocations that were held at some moment after ``since``, in the order of their starts."""
        self.commit()
        rows = self._db.execute(
            "SELECT uid, pod, node, gpus, started_at, ended_at, estimated, namespace, queue, cluster_queue, user,"
            " workload FROM allocations a WHERE seq = (SELECT max(seq) FROM allocations WHERE uid = a.uid)"
            " AND (ended_at IS NULL OR ended_at > ?) ORDER BY started_at, uid",
            (since,),
        )
        return [
            Entry(node, pod, Allocation(uid, start, end, gpus, Charge(Row(*row), workload)), bool(estimated))
            for uid, pod, node, gpus, start, end, estimated, *row, workload in rows
        ]

    def points(self, since: int) -> list[tuple[str, Point]]:
        """The changes of nodes after ``since``, and for each node the last one before, in the order of recording."""
        self.commit()
        rows = self._db.execute(
            "SELECT node, at, gpus, ready FROM node_points p WHERE at > ? OR seq ="
            " (SELECT seq FROM node_points WHERE node = p.node AND at <= ? ORDER BY at DESC, seq DESC LIMIT 1)"
            " ORDER BY seq",
            (since, since),
        )
        return [(node, Point(at, gpus, bool(ready))) for node, at, gpus, ready in rows]
