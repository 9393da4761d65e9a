"""One process per data directory: an advisory lock that the kernel drops when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType


class AlreadyLocked(Exception):
    """Another live process holds the directory; ``holder`` is its pid, 0 when unknown."""

    def __init__(self, path: Path, holder: int) -> None:
        who = f"process {holder}" if holder else "another process"
        super().__init__(f"{who} uses the data directory {path.parent}")
        self.holder = holder


class DirectoryLock:
    """Holds ``path`` (and so its directory) while the block runs.

    :raises AlreadyLocked: on entering, when somebody else holds it. :raises OSError: the file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = -1

    def __enter__(self) -> DirectoryLock:
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.read(handle, 32).decode("ascii", "replace").strip()
            os.close(handle)
            raise AlreadyLocked(self._path, int(text) if text.isdigit() else 0) from None
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        self._handle = handle
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._handle)
