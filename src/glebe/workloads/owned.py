"""Objects that belong to owners of one kind, such as the pods of StatefulSets, and whose they are.

An owner reference with ``controller: true`` decides. An object that has none is adopted by an owner whose selector
matches it; one that does not match its owner's selector any more is released.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from glebe.kube.client import Client
from glebe.kube.errors import ApiError, is_conflict, is_not_found
from glebe.kube.informer import Informer, Informers
from glebe.kube.objects import (
    CLUSTER,
    EVERY,
    Object,
    ObjectKey,
    cluster_of,
    controller_of,
    is_deleting,
    key_of,
    labels_of,
    owner_reference,
)
from glebe.kube.pods import BY_SPACE, space, space_of
from glebe.kube.resources import Resource
from glebe.kube.selectors import LabelSelector, SelectorError

T = TypeVar("T")

BY_CONTROLLER = "by-controller"
"""Index over dependents by the uid of their controller; those that have none, by cluster and namespace."""
PARALLEL = 32
"""Requests in flight at once for one owner."""


def controller_uid(obj: Object) -> list[str]:
    """The indexer behind :data:`BY_CONTROLLER`."""
    for ref in obj["metadata"].get("ownerReferences") or ():
        if ref.get("controller"):
            return [str(ref.get("uid"))]
    return [f"orphans/{cluster_of(obj)}/{obj['metadata'].get('namespace', '')}"]


class Claims:
    """Dependents of one kind (``dependents``) of owners of one kind (``owners``).

    :param finalizer: what an owner's dependents have besides its reference; it comes and goes with that.
    """

    def __init__(
        self,
        client: Client,
        informers: Informers,
        owners: Resource,
        dependents: Resource,
        *,
        selector_of: Callable[[Object], LabelSelector | None] | None = None,
        finalizer: str = "",
    ) -> None:
        self._client = client
        self._finalizer = finalizer
        self._selector_of = selector_of or _label_selector
        self.kind = owners
        self.resource = dependents
        self.owners: Informer = informers.get(owners, indexers={BY_SPACE: space_of})
        self.dependents: Informer = informers.get(dependents, indexers={BY_CONTROLLER: controller_uid})

    def on_change(self, tell: Callable[[ObjectKey, Object | None, Object | None], None]) -> None:
        """Call ``tell(owner, old, new)`` for every change of a dependent that concerns an owner."""

        def handle(old: Object | None, new: Object | None) -> None:
            for key in dict.fromkeys([*self._concerned(new, old), *self._concerned(old, new)]):
                tell(key, old, new)

        self.dependents.add_handler(handle)

    def _concerned(self, obj: Object | None, other: Object | None) -> Iterable[ObjectKey]:
        if obj is None:
            return ()
        key = key_of(obj, self.dependents.cluster)
        ref = controller_of(obj)
        if ref is not None:
            return (key._replace(name=str(ref["name"])),) if self._is_ours(ref) else ()
        if other is not None and labels_of(obj) == labels_of(other) and controller_of(other) is None:
            return ()  # an orphan that nobody wanted before
        return [key_of(owner, self.owners.cluster) for owner in self._wooers(key, obj)]

    def _is_ours(self, ref: Object) -> bool:
        group = str(ref.get("apiVersion", "")).rpartition("/")[0]
        return ref.get("kind") == self.kind.kind and group == self.kind.group

    def _wooers(self, key: ObjectKey, obj: Object) -> list[Object]:
        """The owners that would adopt ``obj``."""
        near = self.owners.store.by_index(BY_SPACE, self._space(key))
        return [o for o in near if (s := self._selector_of(o)) is not None and s.matches(labels_of(obj))]

    def _space(self, key: ObjectKey) -> str:
        return space(key.cluster if self._client.cluster == EVERY else "", key.namespace)

    def owned(self, owner: Object) -> list[Object]:
        """What the cache knows to belong to this very owner, selected or not."""
        return self.dependents.store.by_index(BY_CONTROLLER, str(owner["metadata"].get("uid")))

    async def claim(
        self,
        key: ObjectKey,
        owner: Object,
        fits: Callable[[Object], bool] = lambda _: True,
        *,
        only: Callable[[Object], bool] = lambda _: True,
    ) -> list[Object]:
        """The dependents of ``owner``, after adopting and releasing.

        :param fits: a further condition, beside the selector.
        :param only: what is looked at at all; the rest stays whose it is.
        :raises ApiError: an adoption or a release failed; it shall be tried again.
        """
        selector = self._selector_of(owner)
        if selector is None:
            return []
        mine: list[Object] = []
        for obj in filter(only, self.owned(owner)):
            if selector.matches(labels_of(obj)) and fits(obj):
                mine.append(obj)
            elif not is_deleting(owner):
                await self._release(key, owner, obj)
        if is_deleting(owner):
            return mine
        orphans = self.dependents.store.by_index(BY_CONTROLLER, f"orphans/{self._space(key)}")
        wanted = [o for o in filter(only, orphans) if not is_deleting(o) and selector.matches(labels_of(o)) and fits(o)]
        if wanted and await self._still_there(key, owner):
            adopted = [await self._adopt(key, owner, obj) for obj in wanted]
            mine += [obj for obj in adopted if obj is not None]
        return mine

    async def _still_there(self, key: ObjectKey, owner: Object) -> bool:
        """Asks the API, because an owner that is being deleted must not adopt what was just orphaned."""
        try:
            live = await self._client.at(key.cluster).get(self.kind, key.name, key.namespace)
        except ApiError as error:
            if not is_not_found(error):
                raise
            return False
        return bool(live["metadata"].get("uid") == owner["metadata"].get("uid")) and not is_deleting(live)

    async def _adopt(self, key: ObjectKey, owner: Object, obj: Object) -> Object | None:
        reference = owner_reference({"apiVersion": self.kind.api_version, "kind": self.kind.kind, **owner})
        return await self._set_owners(key, obj, [*(obj["metadata"].get("ownerReferences") or ()), reference])

    async def _release(self, key: ObjectKey, owner: Object, obj: Object) -> None:
        references = obj["metadata"].get("ownerReferences") or ()
        uid = owner["metadata"].get("uid")
        await self._set_owners(key, obj, [r for r in references if r.get("uid") != uid], adopt=False)

    async def _set_owners(
        self, key: ObjectKey, obj: Object, references: list[Object], *, adopt: bool = True
    ) -> Object | None:
        meta = obj["metadata"]
        body: Object = {
            "metadata": {
                "uid": meta["uid"],
                "resourceVersion": meta["resourceVersion"],
                "ownerReferences": references or None,
            }
        }
        if self._finalizer:
            rest = [f for f in meta.get("finalizers") or () if f != self._finalizer]
            body["metadata"]["finalizers"] = [*rest, self._finalizer] if adopt else rest
        try:
            new = await self._client.at(key.cluster).patch(self.resource, meta["name"], body, meta["namespace"])
        except ApiError as error:
            if is_not_found(error):
                return None
            raise
        if cluster := cluster_of(obj):
            new["metadata"][CLUSTER] = cluster
        return new


def selector_of(owner: Object) -> LabelSelector | None:
    """The owner's selector; ``None`` when it selects nothing or cannot be read."""
    try:
        selector = LabelSelector.from_object((owner.get("spec") or {}).get("selector"))
    except SelectorError:
        return None
    return None if selector.nothing or selector.empty else selector


_label_selector = selector_of


async def each(items: Sequence[T], act: Callable[[T], Awaitable[object]]) -> None:
    """Do ``act`` for all, a few at once; all are tried, then the first error is raised."""
    for start in range(0, len(items), PARALLEL):
        results = await asyncio.gather(*(act(i) for i in items[start : start + PARALLEL]), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result


async def in_batches(items: Sequence[T], act: Callable[[T], Awaitable[object]]) -> None:
    """Like :func:`each`, 1, 2, 4, ... at a time: a quota that refuses them is asked once, not 500 times."""
    start, size = 0, 1
    while start < len(items):
        await each(items[start : start + size], act)
        start, size = start + size, min(size * 2, PARALLEL)


async def gone_is_fine(request: Awaitable[Object]) -> None:
    """Await a deletion; it is as good when the object (this very one) does not exist."""
    try:
        await request
    except ApiError as error:
        if not is_not_found(error) and not (is_conflict(error) and "uid" in error.message.lower()):
            raise
