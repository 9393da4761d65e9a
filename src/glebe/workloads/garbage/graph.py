"""Who owns whom: a small picture of every object, by cluster and uid.

An owner is looked for in the dependent's own cluster only: a uid of another cluster names nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from glebe.kube.objects import Object
from glebe.kube.resources import Resource

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


@dataclass(frozen=True, slots=True)
class Owner:
    """One owner reference."""

    uid: str
    api_version: str
    kind: str
    name: str
    blocks: bool


@dataclass(frozen=True, slots=True)
class Item:
    """What matters about one object."""

    uid: str
    resource: Resource
    namespace: str
    name: str
    version: str
    owners: tuple[Owner, ...]
    deleting: bool
    finalizers: tuple[str, ...]
    cluster: str = ""

    @property
    def in_foreground(self) -> bool:
        """Being deleted, and waiting for its dependents to go first."""
        return self.deleting and FOREGROUND in self.finalizers

    @property
    def orphaning(self) -> bool:
        """Being deleted, and its dependents shall stay."""
        return self.deleting and ORPHAN in self.finalizers


def item_of(resource: Resource, obj: Object, cluster: str = "") -> Item:
    meta = obj["metadata"]
    owners = tuple(
        Owner(r["uid"], r["apiVersion"], r["kind"], r["name"], bool(r.get("blockOwnerDeletion")))
        for r in meta.get("ownerReferences") or ()
    )
    return Item(
        meta["uid"],
        resource,
        meta.get("namespace", ""),
        meta["name"],
        str(meta.get("resourceVersion", "")),
        owners,
        "deletionTimestamp" in meta,
        tuple(meta.get("finalizers") or ()),
        cluster,
    )


class Graph:
    """Items and the edges between them. An edge may point to an owner that is not (or no longer) there."""

    def __init__(self) -> None:
        self._items: dict[tuple[str, str], Item] = {}
        self._dependents: dict[tuple[str, str], dict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._items)

    def get(self, uid: str, cluster: str = "") -> Item | None:
        return self._items.get((cluster, uid))

    def dependents(self, uid: str, cluster: str = "") -> Iterator[Item]:
        """Everything in ``cluster`` that names ``uid`` as an owner, in the order in which it was first seen."""
        for dependent in list(self._dependents.get((cluster, uid), ())):
            yield self._items[cluster, dependent]

    def put(self, item: Item) -> Item | None:
        """Add or replace; returns what it replaces."""
        old = self._items.get((item.cluster, item.uid))
        self._items[item.cluster, item.uid] = item
        if old is None or old.owners != item.owners:
            self._unlink(old)
            for owner in item.owners:
                self._dependents.setdefault((item.cluster, owner.uid), {})[item.uid] = None
        return old

    def drop(self, uid: str, cluster: str = "") -> Item | None:
        """Remove; returns what was there."""
        old = self._items.pop((cluster, uid), None)
        self._unlink(old)
        return old

    def _unlink(self, item: Item | None) -> None:
        if item is None:
            return
        for owner in item.owners:
            known = self._dependents.get((item.cluster, owner.uid))
            if known is not None:
                known.pop(item.uid, None)
                if not known:
                    del self._dependents[item.cluster, owner.uid]
