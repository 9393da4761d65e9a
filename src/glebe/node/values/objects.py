"""The API objects that a node's pods use, each watched on its own.

A node needs the right to read what its pods name, and no more: there is one watch for each ConfigMap, Secret, claim and
so on in use, however many pods use it, and none for one that is immutable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError, is_not_found
from glebe.kube.informer import Informer
from glebe.kube.objects import Object
from glebe.kube.resources import Resource


class Ref(NamedTuple):
    """One object; ``namespace`` is ``""`` for cluster-scoped kinds."""

    resource: Resource
    namespace: str
    name: str


class _Watched:
    """One object, as far as it is known."""

    def __init__(self, ref: Ref, informer: Informer) -> None:
        self.users: dict[str, None] = {}
        self.informer = informer
        self.task: asyncio.Task[None] | None = None
        self.fixed: Object | None = None  # it is immutable and will not change
        self._first: Object | None = None
        self._ref = ref

    def current(self) -> Object | None:
        if self.fixed is not None:
            return self.fixed
        if not self.informer.has_synced:
            return self._first
        return next(iter(self.informer.store.values()), None)

    async def begin(self, client: Client) -> None:
        """Read it, and watch it from now on unless it cannot change."""
        try:
            self._first = await client.get(self._ref.resource, self._ref.name, self._ref.namespace or None)
        except ApiError as error:
            if not is_not_found(error):
                raise
        if not self.settle(self._first):
            name = f"watch {self._ref.resource.plural}/{self._ref.name}"
            self.task = asyncio.create_task(self.informer.run(), name=name)

    def settle(self, obj: Object | None) -> bool:
        """Stop watching what will not change."""
        if obj is None or not obj.get("immutable"):
            return False
        self.fixed = obj
        self.stop()
        return True

    def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            self.task = None


class Objects:
    """Objects in use by pods (``user`` is a pod's uid)."""

    def __init__(self, client: Client, env: Env) -> None:
        self._client = client
        self._env = env
        self._watched: dict[Ref, _Watched] = {}
        self._news: dict[str, asyncio.Event] = {}
        self._starting: dict[Ref, asyncio.Lock] = {}

    async def read(self, user: str, ref: Ref) -> Object | None:
        """The object as it is now, ``None`` when there is none; watched until :meth:`release` of its last user.

        :raises ApiError: it may not be read.
        """
        lock = self._starting.setdefault(ref, asyncio.Lock())
        async with lock:
            watched = self._watched.get(ref)
            if watched is None:
                watched = _Watched(ref, self._informer(ref))
                await watched.begin(self._client)
                self._watched[ref] = watched
            watched.users[user] = None
        return watched.current()

    async def refresh(self, user: str, refs: Iterable[Ref]) -> dict[Ref, Object | None]:
        """Several at once."""
        return {ref: await self.read(user, ref) for ref in dict.fromkeys(refs)}

    def news(self, user: str) -> asyncio.Event:
        """Set whenever something changes that the pod uses; whoever waits clears it."""
        return self._news.setdefault(user, asyncio.Event())

    def release(self, user: str) -> None:
        """The pod uses nothing any more."""
        self._news.pop(user, None)
        for ref, watched in list(self._watched.items()):
            watched.users.pop(user, None)
            if not watched.users:
                watched.stop()
                del self._watched[ref]
                self._starting.pop(ref, None)

    def close(self) -> None:
        """Stop all watches."""
        for watched in self._watched.values():
            watched.stop()
        self._watched.clear()

    @property
    def in_use(self) -> list[Ref]:
        """What is known, and which of it is watched: see :meth:`watches`."""
        return list(self._watched)

    @property
    def watches(self) -> int:
        """How many watches are open."""
        return sum(1 for watched in self._watched.values() if watched.task is not None)

    def _informer(self, ref: Ref) -> Informer:
        selector = f"metadata.name={ref.name}"
        informer = Informer(
            self._client, ref.resource, self._env, namespace=ref.namespace or None, field_selector=selector
        )

        def changed(_: Object | None, new: Object | None) -> None:
            watched = self._watched.get(ref)
            if watched is None:
                return
            watched.settle(new)
            for user in watched.users:
                if user in self._news:
                    self._news[user].set()

        informer.add_handler(changed)
        return informer
