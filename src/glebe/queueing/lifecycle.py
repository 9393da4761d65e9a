"""What ends a run before its job does: deactivation, the time limit, stopped queues, dead nodes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env, parse_time
from glebe.kube.controller import Controller, Result
from glebe.kube.informer import Informers
from glebe.kube.objects import (
    Object,
    ObjectKey,
    condition_is_true,
    controller_of,
    get_condition,
    is_deleting,
    key_of,
    labels_of,
)
from glebe.queueing import convert, labels, topology, transitions
from glebe.queueing.integrations import read
from glebe.queueing.notices import Notices
from glebe.queueing.ungate import POD_INDEX, is_gated, pod_owner_index
from glebe.scheduling.fleet import tolerated

#: A node that is not ready for so long is given up, and its workloads start anew elsewhere.
NODE_GRACE = 30.0
#: Why a workload is deactivated whose maximum execution time is over.
TIME_LIMIT = "MaximumExecutionTimeExceeded"
NODE_INDEX = "queueing/assigned-node"
QUEUE_INDEX = "queueing/local-queue"
RESERVED_INDEX = "queueing/reserved-in"


def node_index(workload: Object) -> Iterable[str]:
    """Nodes that a running workload was given."""
    if not convert.holds_quota(workload):
        return ()
    names: dict[str, None] = {}
    for a in workload["status"]["admission"].get("podSetAssignments") or ():
        names.update(dict.fromkeys(name for name, _ in topology.decode(a.get("topologyAssignment"))))
    return names


def queue_index(workload: Object) -> Iterable[str]:
    name = workload["spec"].get("queueName") or labels.DEFAULT_QUEUE
    return (f"{workload['metadata']['namespace']}/{name}",)


def reserved_index(workload: Object) -> Iterable[str]:
    return (workload["status"]["admission"]["clusterQueue"],) if convert.holds_quota(workload) else ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Stop the workload now (``reason`` set), or look again in ``after`` seconds."""

    reason: str = ""
    message: str = ""
    after: float | None = None


class Lifecycle:
    """Evicts workloads that must not go on."""

    def __init__(self, client: Client, informers: Informers, env: Env, notices: Notices) -> None:
        self._client = client
        self._env = env
        self._notices = notices
        self._cluster = client.cluster
        indexers = {NODE_INDEX: node_index, QUEUE_INDEX: queue_index, RESERVED_INDEX: reserved_index}
        self._workloads = informers.get(r.WORKLOADS, indexers=indexers).store
        self._nodes = informers.get(r.NODES).store
        self._pods = informers.get(r.PODS, indexers={POD_INDEX: pod_owner_index}).store
        self._local = informers.get(r.LOCAL_QUEUES).store
        self._cluster_queues = informers.get(r.CLUSTER_QUEUES).store

    async def reconcile(self, key: ObjectKey) -> Result | None:
        workload = self._workloads.get(key)
        if workload is None or is_deleting(workload) or convert.is_finished(workload):
            return None
        if not convert.holds_quota(workload):
            if not convert.is_active(workload) and read(workload, ("status", "forecast", "position")):
                await self._client.update_status(r.WORKLOADS, transitions.deactivate(workload, self._env.clock.now()))
            return None
        if transitions.is_evicted(workload):
            if controller_of(workload) is None:  # nobody's: there are no pods to wait for
                await self._client.update_status(r.WORKLOADS, transitions.release(workload, self._env.clock.now()))
            return None
        now = self._env.clock.now()
        left = self._time_left(workload, now)
        if convert.is_active(workload) and left is not None and left <= 0:
            await self._switch_off(workload, now)  # the change of spec.active comes back here
            return None
        verdicts = (
            self._active(workload),
            Verdict(after=left),
            self._queues(workload),
            self._health(workload, now),
        )
        for verdict in verdicts:
            if verdict.reason:
                await self._evict(workload, verdict, now)
                return None
        waits = [v.after for v in verdicts if v.after is not None]
        return Result(requeue_after=min(waits)) if waits else None

    async def _evict(self, workload: Object, verdict: Verdict, now: float) -> None:
        stopped = transitions.evict(workload, verdict.reason, verdict.message, now)
        written = await self._client.update_status(r.WORKLOADS, stopped)
        self._notices.say(written, "Warning", "Evicted", verdict.message)

    def _active(self, workload: Object) -> Verdict:
        if convert.is_active(workload):
            return Verdict()
        return Verdict(*transitions.deactivation(workload))

    async def _switch_off(self, workload: Object, now: float) -> None:
        """Its time is over: say so, then set ``spec.active``; repeated after a crash, it says it once."""
        if not condition_is_true(workload, labels.DEACTIVATION_TARGET):
            limit = workload["spec"]["maximumExecutionTimeSeconds"]
            message = f"the workload ran for its maximum execution time of {limit} s"
            intended = transitions.intend_deactivation(workload, TIME_LIMIT, message, now)
            workload = await self._client.update_status(r.WORKLOADS, intended)
            self._notices.say(workload, "Warning", TIME_LIMIT, message)
        meta = workload["metadata"]
        patch = {"metadata": {"resourceVersion": meta["resourceVersion"]}, "spec": {"active": False}}
        await self._client.patch(r.WORKLOADS, meta["name"], patch, meta["namespace"])

    def _time_left(self, workload: Object, now: float) -> float | None:
        """Seconds until its maximum execution time is over; ``None`` without one."""
        if condition_is_true(workload, labels.DEACTIVATION_TARGET):
            return 0.0
        limit = workload["spec"].get("maximumExecutionTimeSeconds")
        if limit is None:
            return None
        past = int(read(workload, ("status", "accumulatedPastExecutionTimeSeconds"), 0))
        admitted = get_condition(workload, labels.ADMITTED) or {}
        began = parse_time(admitted["lastTransitionTime"]) if admitted.get("status") == "True" else now
        return float(began + limit - past - now)

    def _queues(self, workload: Object) -> Verdict:
        name = workload["spec"].get("queueName") or labels.DEFAULT_QUEUE
        local = self._local.get(ObjectKey(self._cluster, workload["metadata"]["namespace"], name))
        if local is not None and local["spec"].get("stopPolicy") == "HoldAndDrain":
            return Verdict("LocalQueueStopped", f'LocalQueue "{name}" is stopped and drained')
        queue = workload["status"]["admission"]["clusterQueue"]
        found = self._cluster_queues.get(ObjectKey(self._cluster, "", queue))
        if found is not None and read(found, ("spec", "stopPolicy")) == "HoldAndDrain":
            return Verdict("ClusterQueueStopped", f'ClusterQueue "{queue}" is stopped and drained')
        return Verdict()

    def _health(self, workload: Object, now: float) -> Verdict:
        soonest: float | None = None
        for name in node_index(workload):
            node = self._nodes.get(ObjectKey(self._cluster, "", name))
            if node is None:
                return Verdict("NodeFailures", f"node {name} is gone; the gang starts anew as a whole")
            ready = get_condition(node, "Ready")
            if ready is None or ready["status"] == "True":
                since = self._shut_out_since(workload, node, now)
                if since is None:
                    continue
                why = f"node {name} takes no new pods, and one of the gang has waited for it for {NODE_GRACE:.0f} s"
            else:
                since = parse_time(ready["lastTransitionTime"])
                why = f"node {name} has not been ready for {NODE_GRACE:.0f} s"
            left = since + NODE_GRACE - now
            if left <= 0:
                return Verdict("NodeFailures", f"{why}; the gang starts anew as a whole")
            soonest = left if soonest is None else min(soonest, left)
        return Verdict(after=soonest)

    def _shut_out_since(self, workload: Object, node: Object, now: float) -> float | None:
        """When a pod of the gang began to wait for a node that is cordoned or tainted; now, if none does so yet.

        ``None``: the gang is whole, or the node takes its pods. Who runs there is left alone; but a pod that replaces
        another is bound to the node of its rank and would wait for ever.
        """
        if condition_is_true(workload, labels.PODS_READY):
            return None
        shut = [t for t in convert.taints(node["spec"].get("taints")) if t.effect in ("NoSchedule", "NoExecute")]
        cordoned = bool(node["spec"].get("unschedulable"))
        if not shut and not cordoned:
            return None
        since = now
        for pod in self._pods.by_index(POD_INDEX, labels_of(workload).get(labels.JOB_UID, "")):
            spec = pod["spec"]
            here = (spec.get("nodeSelector") or {}).get(labels.HOSTNAME) == node["metadata"]["name"]
            if not here or spec.get("nodeName") or is_gated(pod):
                continue
            if not cordoned and tolerated(shut, convert.tolerations(spec.get("tolerations"))):
                continue
            scheduled = get_condition(pod, "PodScheduled") or {}
            waits = scheduled.get("reason") == "Unschedulable" and scheduled.get("status") == "False"
            began = parse_time(scheduled["lastTransitionTime"]) if waits else now
            since = min(since, began)
        return since


def build(client: Client, informers: Informers, env: Env, notices: Notices) -> Controller:
    """Woken by workloads, their nodes and their queues."""
    lifecycle = Lifecycle(client, informers, env, notices)
    controller = Controller("queue-lifecycle", lifecycle.reconcile, env, workers=2)
    store = informers.get(r.WORKLOADS).store

    def keys(index: str, value: str) -> list[ObjectKey]:
        return [key_of(w, client.cluster) for w in store.by_index(index, value)]

    def of_local_queue(queue: Object) -> list[ObjectKey]:
        return keys(QUEUE_INDEX, f"{queue['metadata']['namespace']}/{queue['metadata']['name']}")

    controller.watch(informers.get(r.WORKLOADS))
    controller.watch(informers.get(r.NODES), lambda n: keys(NODE_INDEX, n["metadata"]["name"]), when=_node_matters)
    controller.watch(informers.get(r.LOCAL_QUEUES), of_local_queue, when=_spec_changed)
    queues = informers.get(r.CLUSTER_QUEUES)
    controller.watch(queues, lambda q: keys(RESERVED_INDEX, q["metadata"]["name"]), when=_spec_changed)
    return controller


def _node_matters(old: Object | None, new: Object | None) -> bool:
    return old is None or new is None or convert.node_facts(old) != convert.node_facts(new)


def _spec_changed(old: Object | None, new: Object | None) -> bool:
    return old is None or new is None or old.get("spec") != new.get("spec")
