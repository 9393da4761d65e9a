"""What the API server asks of its storage, and the values that pass between them.

A store maps (group resource, logical cluster, namespace, name) to (revision, bytes). There is one revision counter for
everything; each write takes the next value. Reads come from memory and never wait; writes are coroutines that return
only when the write is as durable as the backend promises. What a reader or watcher sees has been acknowledged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import orjson

if TYPE_CHECKING:
    from glebe.apiserver.store.subscription import Subscription


class Key(NamedTuple):
    """The address of a stored object. ``resource`` is the group resource (``pods``, ``jobs.batch``)."""

    resource: str
    cluster: str
    namespace: str
    name: str


#: Makes the bytes to store, given the revision that the write will have (it stands inside the object).
Make: TypeAlias = Callable[[int], bytes]


class Entry:
    """One version of one object: immutable bytes, decoded only when somebody looks inside."""

    __slots__ = ("_view", "revision", "value")

    def __init__(self, revision: int, value: bytes) -> None:
        self.revision = revision
        self.value = value
        self._view: dict[str, Any] | None = None

    def load(self) -> dict[str, Any]:
        """A fresh copy that the caller may change."""
        obj: dict[str, Any] = orjson.loads(self.value)
        return obj

    def view(self) -> dict[str, Any]:
        """The decoded object, shared: read only. Only the most recently viewed entries keep it."""
        view = self._view
        if view is None:
            view = self._view = orjson.loads(self.value)
            _remember(self)
        return view


_VIEWS_KEPT = 512
_viewed: list[Entry | None] = [None] * _VIEWS_KEPT
_next_view = 0


def _remember(entry: Entry) -> None:
    """Bound the memory of decoded views: a ring of the last ones; who falls out forgets its view."""
    global _next_view
    old = _viewed[_next_view]
    if old is not None:
        old._view = None
    _viewed[_next_view] = entry
    _next_view = (_next_view + 1) % _VIEWS_KEPT


class Event:
    """One change. ``entry`` is the new state, or for a deletion the last state under the deletion's revision."""

    __slots__ = ("deleted", "entry", "frames", "name", "namespace", "previous")

    def __init__(self, namespace: str, name: str, entry: Entry, previous: Entry | None, deleted: bool) -> None:
        self.namespace = namespace
        self.name = name
        self.entry = entry
        self.previous = previous
        self.deleted = deleted
        self.frames: dict[str, bytes] = {}
        """Encoded watch frames, shared by all watchers; keyed by whatever the encoder varies."""

    @property
    def revision(self) -> int:
        return self.entry.revision

    @property
    def type(self) -> str:
        if self.deleted:
            return "DELETED"
        return "ADDED" if self.previous is None else "MODIFIED"


@dataclass(frozen=True, slots=True)
class Page:
    """A consistent piece of an ordered range, as of ``revision``."""

    entries: list[Entry]
    revision: int
    next_key: tuple[str, str] | None
    """(namespace, name) of the last entry when there are more; the next page starts after it."""
    remaining: int
    """How many more there are after this page."""


class StoreError(Exception):
    """Base of everything a store raises."""


class Mismatch(StoreError):
    """Compare-and-set lost: ``current`` is what is there now (None: nothing)."""

    def __init__(self, key: Key, current: Entry | None) -> None:
        super().__init__(f"{key} is not at the expected revision")
        self.key = key
        self.current = current


class Compacted(StoreError):
    """The asked revision is older than the history that is kept."""

    def __init__(self, asked: int, oldest: int) -> None:
        super().__init__(f"too old resource version: {asked} ({oldest})")
        self.asked = asked
        self.oldest = oldest


class FutureRevision(StoreError):
    """The asked revision has not happened yet."""

    def __init__(self, asked: int, current: int) -> None:
        super().__init__(f"Too large resource version: {asked}, current: {current}")
        self.asked = asked
        self.current = current


class StoreUnavailable(StoreError):
    """The backend cannot take writes: closed, disk full, file damaged. The message says which and what to do."""


class StoreLocked(StoreUnavailable):
    """Another process holds the data."""


class StoreCorrupted(StoreUnavailable):
    """The data on disk is damaged or not ours."""


class StoreFull(StoreUnavailable):
    """No space is left for the write; nothing of it was kept."""


class Store(Protocol):
    """The contract that all backends pass (``tests/unit/apiserver/test_apiserver_store_contract.py``)."""

    @property
    def revision(self) -> int:
        """Revision of the newest acknowledged write."""
        ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def get(self, key: Key) -> Entry | None: ...

    def range(
        self,
        resource: str,
        cluster: str,
        namespace: str = "",
        *,
        after: tuple[str, str] | None = None,
        limit: int = 0,
        revision: int = 0,
    ) -> Page:
        """Entries in (namespace, name) order; ``namespace`` "" is all; as of ``revision`` (0: now).

        :raises Compacted: ``revision`` is older than the history kept.
        :raises FutureRevision: ``revision`` has not happened.
        """
        ...

    def resources(self, cluster: str) -> list[str]:
        """Group resources of which the cluster holds at least one object."""
        ...

    async def put(self, key: Key, make: Make, expected: int | None) -> Entry:
        """Create or replace. ``expected``: 0 = must not exist, n = must be at revision n, None = whatever.

        :raises Mismatch: compare-and-set lost.
        :raises StoreUnavailable: not written.
        """
        ...

    async def delete(self, key: Key, make: Make, expected: int | None) -> Entry:
        """Remove; ``make`` gives the last state under the deletion's revision, which watchers receive.

        :raises Mismatch: not there, or not at ``expected``.
        """
        ...

    async def drop(self, cluster: str) -> None:
        """Forget everything of a logical cluster and end its watches."""
        ...

    def watch(self, resource: str, cluster: str, namespace: str = "", name: str = "", *, revision: int) -> Subscription:
        """Changes after ``revision``, optionally of one namespace or one name.

        :raises Compacted: history does not reach back so far.
        """
        ...

    def compact(self, revision: int) -> None:
        """Forget history up to and including ``revision`` (older watches and snapshots answer Compacted)."""
        ...
