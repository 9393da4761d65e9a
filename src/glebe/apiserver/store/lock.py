"""One process per data directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from glebe.apiserver.store.base import StoreLocked, StoreUnavailable


class DataLock:
    """An advisory lock on a file that the system drops when its process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def acquire(self) -> None:
        """Take the lock or fail at once.

        :raises StoreLocked: another process (or another store in this one) holds it.
        :raises StoreUnavailable: the file cannot be made.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailable(f"cannot make the lock {self._path}: {error}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(handle)
            message = f"{self._path.parent} is in use by process {holder}: stop it, or name another data directory"
            raise StoreLocked(message) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        self._handle = handle

    def release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
