"""Storage of the API server: a contract and its backends."""

from glebe.apiserver.store.base import (
    EVERY_CLUSTER,
    Compacted,
    Entry,
    Event,
    FutureRevision,
    Given,
    GivenEntry,
    Kept,
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
    TooLarge,
    forget_views,
)
from glebe.apiserver.store.memory import MemoryStore
from glebe.apiserver.store.sqlite import SQLiteStore
from glebe.apiserver.store.subscription import Follower, Subscription

__all__ = [
    "EVERY_CLUSTER",
    "Compacted",
    "Entry",
    "Event",
    "Follower",
    "FutureRevision",
    "Given",
    "GivenEntry",
    "Kept",
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
    "TooLarge",
    "forget_views",
]
