"""Network namespaces that have a name in the file system: made, entered, removed.

A namespace lives as long as its file is a mount of it, whatever happens to those who made it.
Sources: network_namespaces(7), ``ip-netns(8)``.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

_NEW_NETWORK = 0x40000000
_BIND, _DETACH = 4096, 2
_OWN = "/proc/thread-self/ns/net"

T = TypeVar("T")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def create(path: Path) -> None:
    """A new, empty network namespace under ``path``; one that is there already stays.

    :raises OSError: without the right to make or to mount one.
    """
    if is_namespace(path):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)

    def make() -> None:
        libc = _libc()
        _check(libc.unshare(_NEW_NETWORK))
        _check(libc.mount(_OWN.encode(), os.fsencode(path), b"none", _BIND, None))

    try:
        _aside(make)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def is_namespace(path: Path) -> bool:
    """Whether there is a namespace under ``path``, and not merely the file on which one was mounted."""
    try:
        return os.stat(path).st_dev == os.stat("/proc/self/ns/net").st_dev
    except OSError:
        return False


def inside(path: Path, act: Callable[[], T]) -> T:
    """What ``act`` gives in the namespace; sockets that it makes stay there.

    :raises OSError: it cannot be entered.
    """

    def enter() -> T:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc().setns(file, _NEW_NETWORK))
        finally:
            os.close(file)
        return act()

    return _aside(enter)


def remove(path: Path) -> None:
    """Remove the namespace's name; it goes itself when nobody is left in it. Unknown ones are fine."""
    libc = _libc()
    while libc.umount2(os.fsencode(path), _DETACH) == 0:
        pass
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def pause(seconds: float) -> None:
    """Wait in a thread of its own standing (never in the event loop)."""
    threading.Event().wait(seconds)


def _aside(act: Callable[[], T]) -> T:
    """Run ``act`` in a thread of its own, which is never used again: it is in another namespace then."""
    done: list[T] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            done.append(act())
        except BaseException as error:  # handed to the caller
            failed.append(error)

    thread = threading.Thread(target=work, name="network namespace")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]
