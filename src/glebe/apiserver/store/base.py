"""What the API server asks of its storage, and the values that pass between them.

A store maps (group resource, logical cluster, namespace, name) to (revision, bytes). There is one revision counter for
everything; each write takes the next value. Reads come from memory and never wait; writes are coroutines that return
only when the write is as durable as the backend promises. What a reader or watcher sees has been acknowledged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import orjson

if TYPE_CHECKING:
    from glebe.apiserver.store.archive import Snapshot
    from glebe.apiserver.store.subscription import Follower, Subscription
    from glebe.apiserver.store.table import Table


class Key(NamedTuple):
    """The address of a stored object. ``resource`` is the group resource (``pods``, ``jobs.batch``)."""

    resource: str
    cluster: str
    namespace: str
    name: str


#: Makes the bytes to store, given the revision that the write will have (it stands inside the object). They are JSON; a
#: zero byte at their beginning would be taken for a whiteout. It may be called twice.
Make: TypeAlias = Callable[[int], bytes]

#: Instead of a cluster's name: all clusters (ranges and watches only).
EVERY_CLUSTER = "*"


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


class GivenEntry(Entry):
    """What a cluster has without anybody having written it (:class:`Given`): it takes no room in the backend, does not
    count as used, and wildcard ranges leave it out. The first write of its key makes an ordinary entry of it."""

    __slots__ = ()


class Given(Protocol):
    """What clusters have from the beginning. Must answer the same for a cluster as long as that exists."""

    def table(self, resource: str, cluster: str) -> Mapping[tuple[str, str], GivenEntry]:
        """By (namespace, name); empty when there is nothing."""
        ...

    def entry(self, key: Key) -> GivenEntry | None:
        """The one of :meth:`table`."""
        ...


#: Begins the value of a row that says: this given object was deleted. What follows is its last state.
WHITEOUT = b"\0"


def compact(value: bytes) -> bytes:
    """The same bytes without the spare room (often several KiB) that the encoder has left behind them."""
    return bytes(memoryview(value))


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


def forget_views() -> None:
    """Let go of all decoded views: few small values here and there keep whole regions of memory from going back."""
    for index, entry in enumerate(_viewed):
        if entry is not None:
            entry._view = None
            _viewed[index] = None


_FRAMES_KEPT = 1024
_framed: list[dict[str, bytes]] = [{}] * _FRAMES_KEPT
_next_framed = 0


def _new_frames() -> dict[str, bytes]:
    """Bound the memory of encoded frames: watchers that keep up ask at once, the others encode again."""
    global _next_framed
    _framed[_next_framed].clear()
    frames = _framed[_next_framed] = {}
    _next_framed = (_next_framed + 1) % _FRAMES_KEPT
    return frames


class Event:
    """One change. ``entry`` is the new state, or for a deletion the last state under the deletion's revision.

    An event without a name is the end of a whole cluster (type ``DROPPED``); only wildcard watchers receive it, for
    each resource of which the cluster held objects.
    """

    __slots__ = (
        "_frames",
        "after",
        "before",
        "cluster",
        "deleted",
        "earlier",
        "entry",
        "later",
        "name",
        "namespace",
        "previous",
        "table",
    )

    def __init__(
        self, cluster: str, namespace: str, name: str, entry: Entry, previous: Entry | None, deleted: bool
    ) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.name = name
        self.entry = entry
        self.previous = previous
        self.deleted = deleted
        self._frames: dict[str, bytes] | None = None
        # Its places in the history (:mod:`.history`): of the whole store, and of its own table.
        self.before: Event | None = None
        self.after: Event | None = None
        self.earlier: Event | None = None
        self.later: Event | None = None
        self.table: Table | None = None

    @property
    def frames(self) -> dict[str, bytes]:
        """Encoded watch frames, shared by all watchers; keyed by whatever the encoder varies."""
        frames = self._frames
        if frames is None:
            frames = self._frames = _new_frames()
        return frames

    @property
    def revision(self) -> int:
        return self.entry.revision

    @property
    def type(self) -> str:
        if self.deleted:
            return "DELETED" if self.name else "DROPPED"
        return "ADDED" if self.previous is None else "MODIFIED"


class Kept(list[Entry]):
    """Entries that several readers share, and their bytes: looking at each takes as long as copying many."""

    __slots__ = ("size",)

    def __init__(self, entries: list[Entry]) -> None:
        super().__init__(entries)
        self.size = sum([len(entry.value) for entry in entries])


@dataclass(frozen=True, slots=True)
class Page:
    """A consistent piece of an ordered range, as of ``revision``."""

    entries: list[Entry]
    """Read only: others may have the same list."""
    revision: int
    next_key: tuple[str, ...] | None
    """(namespace, name) of the last entry when there are more; the next page starts after it.
    Of a wildcard range: (cluster, namespace, name)."""
    remaining: int
    """How many more there are after this page."""
    clusters: list[str] | None = None
    """Of a wildcard range only: the cluster of each entry."""


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


class TooLarge(StoreError):
    """The object is larger than the backend takes."""


class Store(Protocol):
    """The contract that all backends pass (``tests/unit/apiserver/test_apiserver_store_contract.py``)."""

    lags: bool
    """Others write to the same data: what is read here may be behind, until :meth:`fresh` was awaited. Always False
    for stores with one process."""

    @property
    def revision(self) -> int:
        """Revision of the newest acknowledged write."""
        ...

    @property
    def trouble(self) -> str:
        """Why the store cannot take writes at this moment; "" when it can, as far as is known."""
        ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def fresh(self, revision: int = 0) -> None:
        """Return when reads show everything that was acknowledged, anywhere, before the call; or at least ``revision``
        (waiting for it a few seconds at most: whoever reads then sees by himself that it has not happened).

        :raises StoreUnavailable: it cannot be learned what was acknowledged.
        """
        ...

    def get(self, key: Key) -> Entry | None: ...

    def range(
        self,
        resource: str,
        cluster: str,
        namespace: str = "",
        *,
        after: tuple[str, ...] | None = None,
        limit: int = 0,
        revision: int = 0,
    ) -> Page:
        """Entries in (namespace, name) order; ``namespace`` "" is all; as of ``revision`` (0: now).

        ``cluster`` "*" ranges over all clusters in (cluster, namespace, name) order, and ``after`` is such a triple;
        a page of the past then leaves out what clusters held that have been dropped since.

        :raises Compacted: ``revision`` is older than the history kept.
        :raises FutureRevision: ``revision`` has not happened.
        """
        ...

    def resources(self, cluster: str) -> list[str]:
        """Group resources of which the cluster holds at least one object."""
        ...

    def usage(self, cluster: str) -> tuple[int, int]:
        """(objects, bytes) that the cluster holds."""
        ...

    commits: int
    """Transactions made durable since the start, and the seconds that they took together; 0 where there are none."""
    commit_seconds: float

    def untouched(self, resource: str, cluster: str) -> bool:
        """Whether a cluster has of a resource just what all are given: whoever compiles it may share the result."""
        ...

    def counts(self) -> dict[str, int]:
        """Objects by resource, over all clusters; what clusters are given does not count."""
        ...

    async def put(self, key: Key, make: Make, expected: int | None) -> Entry:
        """Create or replace. ``expected``: 0 = must not exist, n = must be at revision n, None = whatever.

        :raises Mismatch: compare-and-set lost.
        :raises StoreUnavailable: not written, or (an etcd that went away meanwhile) not known to be written.
        """
        ...

    async def delete(self, key: Key, make: Make, expected: int | None) -> Entry:
        """Remove; ``make`` gives the last state under the deletion's revision, which watchers receive.

        :raises Mismatch: not there, or not at ``expected``.
        """
        ...

    async def drop(self, cluster: str) -> None:
        """Forget everything of a logical cluster and end its watches: at once for readers. Returns when nothing is left
        on disk either; if the process ends before, some of it is there again at the next start: drop it again.
        """
        ...

    def watch(self, resource: str, cluster: str, namespace: str = "", name: str = "", *, revision: int) -> Subscription:
        """Changes after ``revision``, optionally of one namespace or one name; ``cluster`` "*" watches all clusters.

        :raises Compacted: history does not reach back so far.
        """
        ...

    def follow(self, resource: str, callback: Callable[[Event], None]) -> Follower:
        """Call back for every change of the resource in all clusters, whoever makes it, at the moment when it becomes
        visible. The callback must be quick and must not raise. ``close()`` of what is returned ends it.
        """
        ...

    def give(self, given: Given) -> None:
        """From now on clusters have what ``given`` says, beside what is written. Call after :meth:`start`."""
        ...

    def clusters(self) -> list[str]:
        """Clusters of which anything is in memory."""
        ...

    def keep_no_history(self, resource: str, cluster: str) -> None:
        """One table remembers no changes: it can be read and followed, but not watched from the past."""
        ...

    def end_watches(self, cluster: str, resource: str = "") -> None:
        """End the watches of a cluster, or of one resource in it that is no longer served as it was (not the wildcard
        ones)."""
        ...

    def snapshot(self, cluster: str = "") -> Snapshot:
        """The present state of a cluster, or ("") of everything, as one moment."""
        ...

    def compact(self, revision: int) -> None:
        """Forget history up to and including ``revision`` (older watches and snapshots answer Compacted)."""
        ...
