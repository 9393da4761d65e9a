"""PodGroups of ``scheduling.k8s.io/v1alpha2``, where this version is served (``--runtime-config``; upstream: alpha).

The condition ``PodGroupScheduled`` says whether a group's policy is satisfied: for a gang when ``minCount`` of its pods
are on nodes, else when one is. It never goes back. (Upstream its scheduler writes it, behind a feature gate that is
off.) A group stays while pods that have not ended name it (``pkg/controller/scheduling/podgroupprotection``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from glebe.kube.client import Client
from glebe.kube.clock import Env, format_time
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError, is_not_found
from glebe.kube.informer import Informer, Informers
from glebe.kube.objects import (
    EVERY,
    Object,
    ObjectKey,
    cluster_of,
    condition_is_true,
    get_condition,
    is_deleting,
    key_of,
    set_condition,
)
from glebe.kube.pods import has_ended
from glebe.kube.resources import PODS, Resource
from glebe.kube.transport import ConnectionLost

POD_GROUPS: Final = Resource("scheduling.k8s.io", "v1alpha2", "podgroups", "PodGroup")
FINALIZER: Final = "scheduling.k8s.io/podgroup-protection"
SCHEDULED: Final = "PodGroupScheduled"
BY_GROUP: Final = "by-pod-group"
_ASK_AGAIN = 5.0


def group_of(pod: Object) -> list[str]:
    """``CLUSTER/NAMESPACE/NAME`` of the group that a pod names (an index of the pod informer)."""
    name = ((pod.get("spec") or {}).get("schedulingGroup") or {}).get("podGroupName")
    return [f"{cluster_of(pod)}/{pod['metadata']['namespace']}/{name}"] if name else []


class PodGroups(Controller):
    """Does nothing, and watches nothing, where the version is not served."""

    def __init__(self, client: Client, informers: Informers, env: Env) -> None:
        super().__init__("pod-groups", self.reconcile, env)
        self._client = client
        self._env = env
        self._informers = informers
        self._groups: Informer | None = None
        self._pods: Informer | None = None

    async def run(self) -> None:
        """See :meth:`Controller.run`."""
        if not await self._is_served():
            await asyncio.Event().wait()
        self._groups = self._informers.get(POD_GROUPS)
        self._pods = self._informers.get(PODS, indexers={BY_GROUP: group_of})
        self.watch(self._groups)
        self.watch(self._pods, self._group_keys)
        await super().run()

    async def _is_served(self) -> bool:
        """Built-in versions are the same in all clusters, and for the life of a server."""
        client = self._client.for_cluster("") if self._client.cluster == EVERY else self._client
        while True:
            try:
                await client.raw("GET", f"/apis/{POD_GROUPS.api_version}")
                return True
            except ApiError as error:
                if is_not_found(error):
                    return False
            except ConnectionLost:
                pass
            await asyncio.sleep(_ASK_AGAIN)

    def _group_keys(self, pod: Object) -> Iterable[ObjectKey]:
        for place in group_of(pod):
            yield key_of(pod, self._client.cluster)._replace(name=place.rpartition("/")[2])

    async def reconcile(self, key: ObjectKey) -> Result | None:
        assert self._groups is not None
        assert self._pods is not None
        group = self._groups.store.get(key)
        if group is None:
            return None
        cluster = key.cluster if self._client.cluster == EVERY else ""
        pods = self._pods.store.by_index(BY_GROUP, f"{cluster}/{key.namespace}/{key.name}")
        alive = [pod for pod in pods if not has_ended(pod)]
        try:
            if is_deleting(group):
                await self._release(key, group, alive)
            else:
                await self._write(key, group, pods)
        except ApiError as error:
            if not is_not_found(error):
                raise
        return None

    async def _release(self, key: ObjectKey, group: Object, alive: list[Object]) -> None:
        finalizers = group["metadata"].get("finalizers") or ()
        if alive or FINALIZER not in finalizers:
            return
        rest = [f for f in finalizers if f != FINALIZER]
        meta = group["metadata"]
        body = {"metadata": {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"], "finalizers": rest}}
        await self._client.at(key.cluster).patch(POD_GROUPS, key.name, body, key.namespace)

    async def _write(self, key: ObjectKey, group: Object, pods: list[Object]) -> None:
        found = verdict(group, pods)
        if found is None or condition_is_true(group, SCHEDULED):
            return
        status = group.get("status") or {}
        generation = int(group["metadata"].get("generation") or 0)
        now = format_time(self._env.clock.now())
        conditions = set_condition(status.get("conditions") or [], SCHEDULED, *found, now, generation)
        if conditions != status.get("conditions"):
            body = {**group, "status": {**status, "conditions": conditions}}
            await self._client.at(key.cluster).update_status(POD_GROUPS, body)


def verdict(group: Object, pods: list[Object]) -> tuple[str, str, str] | None:
    """(status, reason, message) of the condition; ``None`` while nobody has tried to place the pods."""
    policy = (group.get("spec") or {}).get("schedulingPolicy") or {}
    needed = int((policy.get("gang") or {}).get("minCount", 1))
    placed = sum(1 for pod in pods if (pod.get("spec") or {}).get("nodeName"))
    if placed >= needed:
        return "True", "Scheduled", ""
    for pod in sorted(pods, key=lambda p: str(p["metadata"]["name"])):
        condition = get_condition(pod, "PodScheduled") or {}
        if condition.get("status") == "False" and condition.get("reason") == "Unschedulable":
            return "False", "Unschedulable", str(condition.get("message", ""))
    return None


def build(client: Client, informers: Informers, env: Env) -> Controller:
    """The controller, of what ``client`` reads: one cluster, or all."""
    return PodGroups(client, informers, env)
