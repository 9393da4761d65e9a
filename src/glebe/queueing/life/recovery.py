"""After a failed node was replaced: pods that are still on it, or bound for it, make way for those that replace them.

The workload's assignment says which nodes its pods belong on. A pod that was released onto another one, because that
was its node before, is deleted if a controller makes pods anew, and marked ``Failed`` if it is on its own, as Kueue
does (kueue:pkg/controller/tas/node_controller.go). The replacement gets the node that took over.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env, format_time
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import is_conflict, is_not_found
from glebe.kube.informer import Informers
from glebe.kube.objects import (
    Object,
    ObjectKey,
    annotations_of,
    cluster_of,
    controller_of,
    is_deleting,
    labels_of,
)
from glebe.kube.objects import set_condition as with_condition
from glebe.queueing import labels
from glebe.queueing.jobs.ungate import INDEXERS, is_gated, is_live, pods_of
from glebe.queueing.life import transitions
from glebe.queueing.life.nodehealth import JOB_INDEX, assigned, job_index, workloads_of
from glebe.queueing.picture import convert

TERMINATED = "TerminatedByKueue"
REASON = "UnschedulableOnAssignedNode"
MESSAGE = "The pod's node failed and was replaced in its workload"


def strays(workload: Object, pods: Iterable[Object], others: Container[str] = ()) -> list[Object]:
    """Pods that were released onto a node that is not theirs any more: pure.

    :param others: other slices of the job, by name, that hold quota just now: their pods are their affair.
    """
    if not convert.holds_quota(workload) or transitions.is_evicted(workload) or is_deleting(workload):
        return []
    places = {a.pod_set: {node for node, _ in a.nodes} for a in convert.assignments(workload) if a.nodes}
    return [
        pod
        for pod in pods
        if (name := annotations_of(pod).get(labels.WORKLOAD))
        and name not in others
        and is_live(pod)
        and not is_deleting(pod)
        and not is_gated(pod)
        and (node := (pod["spec"].get("nodeSelector") or {}).get(labels.HOSTNAME))
        and node not in places.get(labels_of(pod).get(labels.POD_SET, ""), {node})
    ]


class Recovery:
    """Takes strays away, workload by workload."""

    def __init__(self, client: Client, informers: Informers, env: Env) -> None:
        self._client = client
        self._env = env
        self._workloads = informers.get(r.WORKLOADS, indexers={JOB_INDEX: job_index}).store
        self._pods = informers.get(r.PODS, indexers=INDEXERS).store

    async def reconcile(self, key: ObjectKey) -> Result | None:
        workload = self._workloads.get(key)
        if workload is None:
            return None
        pods, others = pods_of(self._pods, workload), self._others(workload)
        if not strays(workload, pods, others):
            return None
        client = self._client.at(cluster_of(workload))
        try:  # the cache may be behind the pods: they may be on nodes of a newer assignment
            latest = await client.get(r.WORKLOADS, key.name, key.namespace)
        except Exception as error:
            if is_not_found(error):
                return None
            raise
        if latest["metadata"]["uid"] != workload["metadata"]["uid"]:
            return None
        for pod in strays(latest, pods, others):
            try:
                await self._remove(client, pod)
            except Exception as error:
                if not is_not_found(error) and not is_conflict(error):
                    raise
        return None

    def _others(self, workload: Object) -> set[str]:
        """Other slices of the same job that hold quota: two do while one takes the other's place."""
        slices = (w for uid in job_index(workload) for w in self._workloads.by_index(JOB_INDEX, uid))
        names = {w["metadata"]["name"] for w in slices if convert.holds_quota(w)}
        return names - {workload["metadata"]["name"]}

    async def _remove(self, client: Client, pod: Object) -> None:
        meta = pod["metadata"]
        if controller_of(pod) is not None:
            await client.delete(r.PODS, meta["name"], meta["namespace"], uid=meta["uid"])
            return
        status = pod.get("status") or {}
        now = format_time(self._env.clock.now())
        conditions = with_condition(
            list(status.get("conditions") or ()), TERMINATED, "True", REASON, MESSAGE, now, None
        )
        await client.update_status(r.PODS, {**pod, "status": {**status, "phase": "Failed", "conditions": conditions}})


def build(client: Client, informers: Informers, env: Env) -> Controller:
    """Woken by workloads whose nodes change, and by pods that are released."""
    recovery = Recovery(client, informers, env)
    controller = Controller("queue-recovery", recovery.reconcile, env)

    workloads = informers.get(r.WORKLOADS)
    controller.watch(workloads, when=_moved)
    controller.watch(
        informers.get(r.PODS), lambda pod: workloads_of(pod, workloads.store, client.cluster), when=_released
    )
    return controller


def _moved(old: Object | None, new: Object | None) -> bool:
    """Were its nodes exchanged (or is it seen for the first time)?"""
    if new is None or not convert.holds_quota(new):
        return False
    if old is None:
        return True
    before = (old.get("status") or {}).get("admission")
    return bool(before) and before != new["status"]["admission"] and assigned(old) != assigned(new)


def _released(old: Object | None, new: Object | None) -> bool:
    return old is not None and new is not None and is_gated(old) and not is_gated(new)
