"""Storage of the API server: a contract and its backends."""

from glebe.apiserver.store.base import (
    Compacted,
    Entry,
    Event,
    FutureRevision,
    Key,
    Make,
    Mismatch,
    Page,
    Store,
    StoreCorrupted,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreUnavailable,
)
from glebe.apiserver.store.memory import MemoryStore
from glebe.apiserver.store.sqlite import SQLiteStore
from glebe.apiserver.store.subscription import Subscription

__all__ = [
    "Compacted",
    "Entry",
    "Event",
    "FutureRevision",
    "Key",
    "Make",
    "MemoryStore",
    "Mismatch",
    "Page",
    "SQLiteStore",
    "Store",
    "StoreCorrupted",
    "StoreError",
    "StoreFull",
    "StoreLocked",
    "StoreUnavailable",
    "Subscription",
]
