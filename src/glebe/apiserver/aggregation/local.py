"""The APIServices that stand for what the server answers itself: one per group version, made when somebody looks.

As upstream they carry the label ``kube-aggregator.kubernetes.io/automanaged``: ``onstart`` for built-in groups,
``true`` for those of custom kinds, which come and go with their definitions. An empty cluster where nobody asks holds
none.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import orjson

from glebe.apiserver.aggregation.presence import RESOURCE
from glebe.apiserver.aggregation.priorities import priorities
from glebe.apiserver.flight import Flight
from glebe.apiserver.store import Key, Make, Mismatch
from glebe.kube.objects import Object

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer

AUTOMANAGED = "kube-aggregator.kubernetes.io/automanaged"


class LocalServices:
    """Awaited before a request for APIServices is served (``ApiServer.preparing``)."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._done: dict[str, str] = {}
        """Cluster -> its registry's fingerprint when its objects were made."""
        self._locks: dict[str, asyncio.Lock] = {}

    async def __call__(self, flight: Flight) -> None:
        if "*" not in flight.route.cluster:
            await self.complete(flight.route.cluster)

    def forget(self, cluster: str) -> None:
        """The cluster is gone."""
        self._done.pop(cluster, None)

    async def complete(self, cluster: str) -> None:
        """Make, and take away, what the cluster's kinds ask for."""
        fingerprint = self._server.registry.fingerprint(cluster) or "-"
        if not self._server.clusters.exists(cluster) or self._done.get(cluster) == fingerprint:
            return
        async with self._locks.setdefault(cluster, asyncio.Lock()):
            if self._done.get(cluster) != fingerprint:
                await self._write(cluster)
                self._done[cluster] = fingerprint
        self._locks.pop(cluster, None)

    async def _write(self, cluster: str) -> None:
        server = self._server
        wanted = {(i.group, i.version): i.is_custom for i in server.registry.resources(cluster)}
        names = set()
        for (group, version), is_custom in wanted.items():
            obj = self._object(group, version, is_custom)
            names.add(obj["metadata"]["name"])
            key = Key(RESOURCE, cluster, "", obj["metadata"]["name"])
            if server.store.get(key) is None:
                with contextlib.suppress(Mismatch):
                    await server.store.put(key, _stamped(obj), 0)
        for entry in server.store.range(RESOURCE, cluster).entries:
            old = entry.view()
            meta = old["metadata"]
            managed = (meta.get("labels") or {}).get(AUTOMANAGED)
            if managed == "true" and meta["name"] not in names and not (old.get("spec") or {}).get("service"):
                with contextlib.suppress(Mismatch):
                    await server.store.delete(
                        Key(RESOURCE, cluster, "", meta["name"]), _stamped(entry.load()), entry.revision
                    )

    def _object(self, group: str, version: str, is_custom: bool) -> Object:
        minimum, priority = priorities(group, version)
        now = self._server.now_text()
        condition = {
            "type": "Available",
            "status": "True",
            "lastTransitionTime": now,
            "reason": "Local",
            "message": "Local APIServices are always available",
        }
        spec: Object = {"version": version, "groupPriorityMinimum": minimum, "versionPriority": priority}
        return {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {
                "name": f"{version}.{group}",
                "uid": self._server.env.new_uid(),
                "creationTimestamp": now,
                "labels": {AUTOMANAGED: "true" if is_custom else "onstart"},
            },
            "spec": {"group": group, **spec} if group else spec,
            "status": {"conditions": [condition]},
        }


def _stamped(obj: Object) -> Make:
    def make(revision: int) -> bytes:
        obj["metadata"]["resourceVersion"] = str(revision)
        return orjson.dumps(obj)

    return make
