"""Pods that nobody else removes: too many that have ended, and those that end without ever having had a node.

What a missing, dead or declared-dead node leaves behind is removed by :mod:`glebe.workloads.nodes`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError, is_not_found
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey, cluster_of, is_deleting, key_of
from glebe.kube.pods import has_ended, node_of
from glebe.kube.resources import PODS

THRESHOLD: Final = 12_500
"""Ended pods that a cluster may keep."""
BY_END: Final = "ended"
_AT_ONCE: Final = 16
_PAUSE: Final = 20.0
"""Seconds between two rounds of counting."""


def ended_in(pod: Object) -> list[str]:
    """The cluster of a pod that has ended (the indexer behind :data:`BY_END`)."""
    return [cluster_of(pod)] if has_ended(pod) else []


def surplus(pods: list[Object], threshold: int) -> list[Object]:
    """The ended pods to remove: evicted ones first, then the oldest."""

    def rank(pod: Object) -> tuple[bool, str, str]:
        evicted = (pod.get("status") or {}).get("reason") == "Evicted"
        return not evicted, pod["metadata"].get("creationTimestamp", ""), pod["metadata"]["name"]

    return sorted(pods, key=rank)[: max(0, len(pods) - threshold)]


class PodCollector:
    """Two controllers: one key per cluster for what has ended, one per pod for what has no node."""

    def __init__(self, client: Client, informers: Informers, env: Env, threshold: int) -> None:
        self._client = client
        self._env = env
        self._threshold = threshold
        self._pods = informers.get(PODS, indexers={BY_END: ended_in})

    def controllers(self) -> list[Controller]:
        ended = Controller("pod-gc", self.ended, self._env)
        ended.watch(self._pods, self._cluster, when=self._crowded)
        homeless = Controller("pod-gc-unscheduled", self.homeless, self._env)
        homeless.watch(self._pods, when=lambda old, new: new is not None and is_deleting(new) and not node_of(new))
        return [ended, homeless]

    def _cluster(self, pod: Object) -> Iterable[ObjectKey]:
        yield key_of(pod, self._pods.cluster)._replace(namespace="", name="")

    def _crowded(self, old: Object | None, new: Object | None) -> bool:
        if new is None or not has_ended(new) or (old is not None and has_ended(old)):
            return False
        return self._pods.store.count(BY_END, cluster_of(new)) > self._threshold

    async def ended(self, key: ObjectKey) -> Result | None:
        cluster = key.cluster if self._pods.cluster != key.cluster else ""
        pods = self._pods.store.by_index(BY_END, cluster)
        extra = [p for p in surplus(pods, self._threshold) if not is_deleting(p)]
        for start in range(0, len(extra), _AT_ONCE):
            await asyncio.gather(*(self._remove(p) for p in extra[start : start + _AT_ONCE]))
        return Result(requeue_after=_PAUSE) if extra else None

    async def homeless(self, key: ObjectKey) -> Result | None:
        pod = self._pods.store.get(key)
        if pod is None or not is_deleting(pod) or node_of(pod):
            return None
        if not has_ended(pod):
            meta = pod["metadata"]
            lock = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
            body = {"metadata": lock, "status": {"phase": "Failed", "observedGeneration": meta.get("generation", 0)}}
            try:
                client = self._client.at(key.cluster)
                await client.patch(PODS, key.name, body, key.namespace, subresource="status")
            except ApiError as error:
                if not is_not_found(error):
                    raise
                return None
        if pod["metadata"].get("deletionGracePeriodSeconds") != 0:
            await self._remove(pod)
        return None

    async def _remove(self, pod: Object) -> None:
        meta = pod["metadata"]
        client = self._client.at(cluster_of(pod) or self._pods.cluster)
        try:
            await client.delete(PODS, meta["name"], meta["namespace"], uid=meta["uid"], grace_period=0)
        except ApiError as error:
            if not is_not_found(error):
                raise


def build(client: Client, informers: Informers, env: Env, *, threshold: int = THRESHOLD) -> list[Controller]:
    """The controllers, for one cluster or (with a client over all) for all."""
    return PodCollector(client, informers, env, threshold).controllers()
