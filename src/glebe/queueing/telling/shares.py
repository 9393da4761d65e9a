"""``status.fairSharing`` of ClusterQueues and Cohorts: how much of what is lent each has borrowed, by weight.

Quota counts as used from the reservation on. A queue's share depends on its own use alone, a cohort's on that of all
queues below it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey
from glebe.queueing.picture import convert, queueobjects
from glebe.queueing.picture.tallies import Tallies, Usage, holds_in
from glebe.queueing.tenants import tenancy
from glebe.scheduling.model import ClusterQueue, Cohort
from glebe.scheduling.quotas.quota import Need, QuotaState, QuotaTree
from glebe.scheduling.quotas.shares import share, share_of

#: Changes that come this close together are counted together.
_DEBOUNCE = 0.2


class Shares:
    """Shares as things stand; the quota tree is built anew only when a spec has changed."""

    def __init__(self, informers: Informers, tallies: Tallies) -> None:
        self._queues = informers.get(r.CLUSTER_QUEUES)
        self._cohorts = informers.get(r.COHORTS)
        self._tallies = tallies
        self._tree: QuotaTree | None = None
        self._queues.add_handler(self._changed)
        self._cohorts.add_handler(self._changed)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if old is None or new is None or old.get("spec") != new.get("spec"):
            self._tree = None

    @property
    def tree(self) -> QuotaTree:
        """Queues and cohorts as they are declared; those that cannot be understood are left out."""
        if self._tree is None:
            self._tree = QuotaTree(
                _understood(queueobjects.cluster_queue, tenancy.own(self._queues.store.values())),
                _understood(queueobjects.cohort, tenancy.own(self._cohorts.store.values())),
            )
        return self._tree

    def of_queue(self, name: str) -> int | None:
        """The weighted share of a ClusterQueue; ``None`` if it is in no cohort."""
        tree = self.tree
        node = tree.queue_index.get(name, -1)
        if node < 0 or tree.parent[node] < 0:
            return None
        used = [0] * len(tree.cell_names)
        for cell, amount in _need(tree, self._tallies.held(name)):
            used[cell] += amount
        return share_of(tree, node, used).rounded

    def of_cohort(self, name: str) -> int | None:
        """The weighted share of a Cohort; ``None`` if it is its own ancestor."""
        tree = self.tree
        node = tree.cohort_index.get(name)
        if node is None:
            return None
        state = QuotaState(tree)
        for queue, below in tree.queue_index.items():
            if node in tree.paths[below]:
                state.add(below, _need(tree, self._tallies.held(queue)))
        return share(state, node).rounded

    def cohorts_of(self, queue: str) -> list[str]:
        """The cohorts above a queue."""
        tree = self.tree
        node = tree.queue_index.get(queue)
        return [] if node is None else [tree.names[n] for n in tree.paths[node][1:]]

    def queues_around(self, cohort: str) -> list[str]:
        """The queues that share a root with a cohort."""
        tree = self.tree
        node = tree.cohort_index.get(cohort)
        return [] if node is None else [q for q, n in tree.queue_index.items() if tree.top[n] == tree.top[node]]


def _understood(convert_one: Any, objects: Iterable[Object]) -> list[Any]:
    found: list[ClusterQueue | Cohort] = []
    for obj in objects:
        try:
            found.append(convert_one(obj))
        except (ValueError, KeyError, TypeError):
            continue  # the snapshot says what is wrong with it
    return found


def _need(tree: QuotaTree, usage: Usage) -> Need:
    used = ((tree.cells.get((f, resource)), n) for f, row in usage.items() for resource, n in row.items())
    return tuple((cell, n) for cell, n in used if cell is not None and n > 0)


class CohortStatus:
    """Writes the status of one Cohort when it differs."""

    def __init__(self, client: Client, informers: Informers, shares: Shares) -> None:
        self._client = client
        self._shares = shares
        self._cohorts = informers.get(r.COHORTS).store

    async def reconcile(self, key: ObjectKey) -> Result | None:
        await asyncio.sleep(_DEBOUNCE)
        cohort = self._cohorts.get(key)
        if cohort is None:
            return None
        found = self._shares.of_cohort(key.name)
        status = {k: v for k, v in (cohort.get("status") or {}).items() if k != "fairSharing"}
        if found is not None:
            status["fairSharing"] = {"weightedShare": found}
        if (cohort.get("status") or {}) != status:
            await self._client.update_status(r.COHORTS, {**cohort, "status": status})
        return None


def build(client: Client, informers: Informers, env: Env, shares: Shares) -> Controller:
    """Woken by quota that is taken or given back, and by queues and cohorts."""
    controller = Controller("cohort-status", CohortStatus(client, informers, shares).reconcile, env)
    cohorts = informers.get(r.COHORTS)
    host = tenancy.host_of(client.cluster)

    def of_workload(workload: Object) -> Iterable[ObjectKey]:
        if not len(cohorts.store):
            return ()
        return [ObjectKey(host, "", name) for name in shares.cohorts_of(holds_in(workload))]

    def every_cohort(_: Object) -> Iterable[ObjectKey]:
        return list(cohorts.store.keys())

    controller.watch(informers.get(r.WORKLOADS), of_workload, when=_holds_otherwise)
    controller.watch(informers.get(r.CLUSTER_QUEUES), every_cohort, when=spec_differs)
    controller.watch(cohorts, every_cohort, when=spec_differs)
    return controller


def _holds_otherwise(old: Object | None, new: Object | None) -> bool:
    return _held_by(old) != _held_by(new)


def _held_by(workload: Object | None) -> object:
    if workload is None or not convert.holds_quota(workload):
        return None
    return workload["status"]["admission"]


def spec_differs(old: Object | None, new: Object | None) -> bool:
    """Whether more than a status or a note has changed."""
    return old is None or new is None or old.get("spec") != new.get("spec")
