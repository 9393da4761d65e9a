"""Moving what the write-ahead log of SQLite holds into the database file, beside the writer instead of in its way.

SQLite's own way is that the commit that finds the log long copies it and waits for the disk several times: one writer
in a few hundred waits ten times as long as the others, whoever filled the log. Here a second connection copies while
commits go on. That cannot start the log anew under a writer who never rests; so when the log is long the writer copies
the short rest itself. See https://www.sqlite.org/wal.html#avoiding_excessively_large_wal_files.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from pathlib import Path

log = logging.getLogger("glebe.apiserver.store")

BY_HAND = "PRAGMA wal_autocheckpoint = 0"
_CHECKPOINT = "PRAGMA wal_checkpoint(PASSIVE)"
_PAUSE = 0.3
"""Seconds between two copies: what comes in meanwhile shares one wait for the disk."""
_LONG = 4096
"""Pages of the log at which the writer starts it anew: 16 MiB, which are read in 50 ms after a crash."""


class Checkpoints:
    """A thread with a connection of its own, asleep while nothing is written.

    :param path: the database file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = threading.Event()
        self._stopped = threading.Event()
        self._rest_due = False
        self._thread = threading.Thread(target=self._run, name="glebe-checkpoints", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and close its connection; the rest of the log is copied when the last connection closes."""
        self._stopped.set()
        self._written.set()
        self._thread.join()

    def committed(self, connection: sqlite3.Connection) -> None:
        """After each commit, on the writer's thread: ask for a copy, or copy the rest and start the log anew."""
        if self._rest_due:
            self._rest_due = False
            copy(connection)
        elif not self._written.is_set():
            self._written.set()

    def _run(self) -> None:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        try:
            while True:
                self._written.wait()
                if self._stopped.wait(_PAUSE):
                    return
                self._written.clear()
                pages = copy(connection)
                if pages >= _LONG:
                    self._rest_due = True
        finally:
            connection.close()


def copy(connection: sqlite3.Connection) -> int:
    """Copy what is in the log, and how many pages long it is. A failure costs nothing yet: the log holds everything."""
    try:
        _, pages, _ = connection.execute(_CHECKPOINT).fetchone()
    except sqlite3.Error as error:
        log.warning("the write-ahead log could not be copied into the database, and is kept: %s", error)
        return 0
    return int(pages)
