"""What an informer knows: objects by key, with indexes. Single-threaded; everything in it is read-only to readers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from glebe.kube.objects import Object, ObjectKey

Indexer: TypeAlias = Callable[[Object], Iterable[str]]


class Store:
    """Objects by key and by indexed value.

    Readers must not change what they get: it is the one copy that all share.
    """

    __slots__ = ("_indexers", "_indexes", "_objects")

    def __init__(self, indexers: dict[str, Indexer] | None = None) -> None:
        self._objects: dict[ObjectKey, Object] = {}
        self._indexers: dict[str, Indexer] = dict(indexers or {})
        # index -> value -> keys in the order of their insertion (a dict, because a set's order is not determined)
        self._indexes: dict[str, dict[str, dict[ObjectKey, None]]] = {name: {} for name in self._indexers}

    def get(self, key: ObjectKey) -> Object | None:
        return self._objects.get(key)

    def __contains__(self, key: ObjectKey) -> bool:
        return key in self._objects

    def __len__(self) -> int:
        return len(self._objects)

    def keys(self) -> list[ObjectKey]:
        return list(self._objects)

    def values(self) -> list[Object]:
        """All objects, in the order in which they were first seen."""
        return list(self._objects.values())

    def items(self) -> list[tuple[ObjectKey, Object]]:
        return list(self._objects.items())

    def by_index(self, index: str, value: str) -> list[Object]:
        """The objects for which indexer ``index`` gave ``value``.

        :raises KeyError: there is no such index.
        """
        keys = self._indexes[index].get(value)
        return [self._objects[key] for key in keys] if keys else []

    def count(self, index: str, value: str) -> int:
        """How many objects :meth:`by_index` would give.

        :raises KeyError: there is no such index.
        """
        return len(self._indexes[index].get(value, ()))

    def index_values(self, index: str) -> list[str]:
        """The values that an index has objects for."""
        return list(self._indexes[index])

    def has_index(self, index: str) -> bool:
        return index in self._indexers

    def add_indexer(self, name: str, indexer: Indexer) -> None:
        """Add an index over everything there is and will be. The same function may be added twice.

        :raises ValueError: the name is taken by another function.
        """
        known = self._indexers.get(name)
        if known is not None:
            if known is not indexer:
                raise ValueError(f"index {name!r} exists already with another function")
            return
        self._indexers[name] = indexer
        index: dict[str, dict[ObjectKey, None]] = {}
        self._indexes[name] = index
        for key, obj in self._objects.items():
            for value in indexer(obj):
                index.setdefault(value, {})[key] = None

    def set(self, key: ObjectKey, obj: Object) -> Object | None:
        """Store ``obj``; returns what it replaces."""
        old = self._objects.get(key)
        self._objects[key] = obj
        if self._indexers:
            self._reindex(key, old, obj)
        return old

    def delete(self, key: ObjectKey) -> Object | None:
        """Forget an object; returns it."""
        old = self._objects.pop(key, None)
        if old is not None and self._indexers:
            self._reindex(key, old, None)
        return old

    def _reindex(self, key: ObjectKey, old: Object | None, new: Object | None) -> None:
        for name, indexer in self._indexers.items():
            before = list(indexer(old)) if old is not None else []
            after = list(indexer(new)) if new is not None else []
            if before == after:
                continue
            index = self._indexes[name]
            for value in before:
                keys = index.get(value)
                if value not in after and keys is not None:
                    keys.pop(key, None)
                    if not keys:
                        del index[value]
            for value in after:
                index.setdefault(value, {})[key] = None
