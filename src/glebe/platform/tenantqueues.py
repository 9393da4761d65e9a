"""Brings the queue's kinds to the logical clusters that a ClusterQueue is open to: LocalQueue and Workload.

Who finds kinds of these names there that are not Glebe's leaves the cluster alone: its tenant runs his own queue.
"""

from __future__ import annotations

import json
import logging

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError, is_not_found
from glebe.kube.objects import ObjectKey, annotations_of
from glebe.platform import bootstrap
from glebe.queueing.tenants.opened import Opened
from glebe.queueing.tenants.tenancy import HOST

log = logging.getLogger("glebe.platform")

#: What a tenant's cluster gets; everything else of the queue is the host's.
KINDS = (r.LOCAL_QUEUES, r.WORKLOADS)
_NAMES = frozenset(kind.group_resource for kind in KINDS)
#: The register of clusters cannot be watched.
_LOOK = 3.0
_KEY = ObjectKey(HOST, "", "clusters")


class TenantQueues:
    """One reconcile over all clusters; what has been done is remembered until this process ends."""

    def __init__(self, client: Client, env: Env, opened: Opened) -> None:
        self._client = client
        self._opened = opened
        self._done: set[str] = set()
        self.controller = Controller("queue-clusters", self._reconcile, env)
        opened.on_change(lambda: self.controller.queue.add(_KEY))
        self.controller.queue.add(_KEY)

    async def _reconcile(self, key: ObjectKey) -> Result | None:
        if not self._opened.patterns:
            return None
        answer = await self._client.at(HOST).for_cluster("").raw("GET", "/clusters")
        names = [item["metadata"]["name"] for item in json.loads(answer.body)["items"]]
        self._done &= set(names)
        for name in names:
            if name != HOST and name not in self._done and self._opened.serves(name):
                await self._bring(name)
        return Result(requeue_after=_LOOK)

    async def _bring(self, cluster: str) -> None:
        there = self._client.at(cluster)
        for name in sorted(_NAMES):
            try:
                live = await there.get(r.CUSTOM_RESOURCE_DEFINITIONS, name)
            except ApiError as error:
                if not is_not_found(error):
                    raise
                continue
            if bootstrap.HASH_ANNOTATION not in annotations_of(live):
                self._opened.refuse(cluster, name)
                log.warning("cluster %s has its own %s: the queue leaves it alone", cluster, name)
                return
        await bootstrap.install_crds(there, _NAMES)
        self._done.add(cluster)
