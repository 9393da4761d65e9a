"""Which logical clusters the queue serves: the host, and those for which a ClusterQueue of the host is open.

A cluster that is not served is left alone, whatever it has: its tenant may run a queue of his own with the same kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.controller import Controller
from glebe.kube.informer import Informers
from glebe.kube.objects import EVERY, Object, ObjectKey
from glebe.queueing.tenants import tenancy


class Opened:
    """Follows the ClusterQueues of the host. ``foreign`` are clusters that have queue kinds of their own making."""

    def __init__(self, client: Client, informers: Informers) -> None:
        self._everywhere = client.cluster == EVERY
        self._queues = informers.get(r.CLUSTER_QUEUES)
        self._known: dict[str, bool] = {}
        self._patterns: tuple[str, ...] = ()
        self._told: list[Callable[[], None]] = []
        self.foreign: dict[str, str] = {}
        if self._everywhere:
            self._queues.add_handler(self._changed)

    @property
    def patterns(self) -> tuple[str, ...]:
        """Names, or patterns of names, of the clusters that some queue is open to."""
        return self._patterns

    def serves(self, cluster: str) -> bool:
        """Is the cluster the host, or is some ClusterQueue open to it?"""
        if not tenancy.is_foreign(cluster) or not self._everywhere:
            return True
        if cluster not in self._known:
            self._known[cluster] = cluster not in self.foreign and any(
                tenancy.may_use(queue, cluster) for queue in self._own()
            )
        return self._known[cluster]

    def key(self, key: ObjectKey) -> bool:
        """:meth:`serves` of where an object is; a key that stands for no object is the host's."""
        return key.cluster == EVERY or self.serves(key.cluster)

    def refuse(self, cluster: str, why: str) -> None:
        """The cluster has kinds of these names that are not ours."""
        if self.foreign.get(cluster) != why:
            self.foreign[cluster] = why
            self._known.clear()

    def guard(self, controllers: Iterable[Controller]) -> None:
        """Have controllers leave alone what is not served, and look again when that changes."""
        for controller in controllers:
            controller.only = self.key
            self._told.append(controller.look_again)

    def on_change(self, told: Callable[[], None]) -> None:
        self._told.append(told)

    def _own(self) -> list[Object]:
        return tenancy.own(self._queues.store.values())

    def _changed(self, old: Object | None, new: Object | None) -> None:
        found = tuple(sorted({pattern for queue in self._own() for pattern in tenancy.users_of(queue)}))
        if found != self._patterns:
            self._patterns = found
            self._known.clear()
            for told in self._told:
                told()
