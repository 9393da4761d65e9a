"""Which nodes of a running workload have failed it: those that others should replace, while its other pods go on.

A node has failed a workload when it is gone; when it is not ready and none of the workload's pods lives on it, or has
not been ready for :data:`NODE_GRACE`; and when it takes no pods of the workload (cordoned, or tainted beyond what they
tolerate) and none of them lives on it. Who runs on a node that is shut is left alone. Source: KEP-2724 (hot swap).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from glebe.kube import resources as r
from glebe.kube.clock import parse_time
from glebe.kube.informer import Informers
from glebe.kube.objects import (
    Object,
    ObjectKey,
    annotations_of,
    controller_of,
    get_condition,
    is_deleting,
    key_of,
    labels_of,
)
from glebe.kube.store import Store
from glebe.queueing import labels
from glebe.queueing.configuration import DEFAULT, Configuration
from glebe.queueing.jobs.lonepods import owned_by_pod
from glebe.queueing.jobs.ungate import INDEXERS, is_live, pods_of
from glebe.queueing.picture import convert, fleetobjects, topology
from glebe.queueing.picture.hosts import Nodes
from glebe.scheduling.model import Toleration
from glebe.scheduling.placement.fleet import tolerated

#: A node that is not ready for so long is given up, whoever seems to run there.
NODE_GRACE = 30.0
NODE_INDEX = "queueing/assigned-node"
JOB_INDEX = "queueing/workload-job"


def node_index(workload: Object) -> Iterable[str]:
    """Nodes that a running workload was given."""
    return assigned(workload)


def job_index(workload: Object) -> Iterable[str]:
    """The uid of its job: slices of an elastic job have the same."""
    uid = labels_of(workload).get(labels.JOB_UID)
    return (uid,) if uid else ()


def workloads_of(pod: Object, workloads: Store, cluster: str) -> list[ObjectKey]:
    """The workloads that a released pod may belong to: the one that it names, and slices that came after that one.

    :param workloads: with the index :data:`JOB_INDEX`.
    """
    name, owner = annotations_of(pod).get(labels.WORKLOAD), controller_of(pod)
    keys = [key_of(pod, cluster)._replace(name=name)] if name else []
    if owner is not None:
        keys += [key_of(w, cluster) for w in workloads.by_index(JOB_INDEX, str(owner["uid"]))]
    return list(dict.fromkeys(keys))


def assigned(workload: Object) -> Counter[str]:
    """Pods by node, as a workload with quota was given them."""
    pods: Counter[str] = Counter()
    if convert.holds_quota(workload):
        for a in workload["status"]["admission"].get("podSetAssignments") or ():
            for name, count in topology.decode(a.get("topologyAssignment")):
                pods[name] += count
    return pods


class NodeHealth:
    """Asks the caches about the nodes and pods of a workload."""

    def __init__(self, informers: Informers, cluster: str, config: Configuration = DEFAULT) -> None:
        fixed_time = config.gate("TASReplaceNodeDueToNotReadyOverFixedTime", True)  # off in Kueue
        self._grace = NODE_GRACE if fixed_time else math.inf
        self._moves_single_pods = not config.gate("SkipReassignmentForPodOwnedWorkloads", True)
        self._heeds_taints = config.gate("TASReplaceNodeOnNodeTaints", True)
        self._nodes = Nodes(informers, cluster)
        self._flavors = informers.get(r.RESOURCE_FLAVORS).store
        self._pods = informers.get(r.PODS, indexers=INDEXERS).store
        self._workloads = informers.get(r.WORKLOADS, indexers={JOB_INDEX: job_index}).store

    def failed(self, workload: Object, now: float) -> tuple[tuple[str, ...], float | None]:
        """The nodes that have failed it, and after how many seconds to look again (``None``: when something changes).

        A workload that is one plain pod does not move: none of its nodes counts as failed, unless a gate says so.
        """
        given = assigned(workload)
        if not given or (owned_by_pod(workload) and not self._moves_single_pods):
            return (), None
        failed: list[str] = []
        soonest: float | None = None
        pods: list[Object] | None = None
        for name, count in given.items():
            node = self._nodes.get(name)
            if node is None:
                failed.append(name)
                continue
            down = self._down_since(node, now)
            if down is None and not self._shut(workload, node):
                continue
            if pods is None:
                pods = pods_of(self._pods, workload)
            if _abandoned(pods, name, count) or (down is not None and down + self._grace <= now):
                failed.append(name)
            elif down is not None and self._grace < math.inf:
                left = down + self._grace - now
                soonest = left if soonest is None else min(soonest, left)
        return tuple(failed), soonest

    def left_by(self, pod: Object, cluster: str) -> list[ObjectKey]:
        """The workloads to look at when ``pod`` has stopped living on its node: none if nothing is wrong with that."""
        host = (pod["spec"].get("nodeSelector") or {}).get(labels.HOSTNAME)
        return [] if host is None or self._nodes.is_sound(host) else workloads_of(pod, self._workloads, cluster)

    @staticmethod
    def _down_since(node: Object, now: float) -> float | None:
        """Since when it has not been ready; ``None`` if it is."""
        ready = get_condition(node, "Ready")
        if ready is None:
            return now  # it never said so
        return None if ready["status"] == "True" else parse_time(ready["lastTransitionTime"])

    def _shut(self, workload: Object, node: Object) -> bool:
        """Does the node take no (more) pods of the workload?"""
        spec = node.get("spec") or {}
        if not self._heeds_taints:
            return False
        if spec.get("unschedulable") or is_deleting(node):
            return True
        shut = [t for t in fleetobjects.taints(spec.get("taints")) if t.effect in ("NoSchedule", "NoExecute")]
        if not shut:
            return False
        name = fleetobjects.host_of(node)
        by_set = {s["name"]: s for s in workload["spec"]["podSets"] if "name" in s}
        for a in workload["status"]["admission"].get("podSetAssignments") or ():
            if all(host != name for host, _ in topology.decode(a.get("topologyAssignment"))):
                continue
            template = (by_set.get(a.get("name", "")) or workload["spec"]["podSets"][0]).get("template") or {}
            own = fleetobjects.tolerations((template.get("spec") or {}).get("tolerations"))
            if not tolerated(shut, own + self._of_flavors(a)):
                return True
        return False

    def _of_flavors(self, assignment: Object) -> tuple[Toleration, ...]:
        found: list[Toleration] = []
        for name in dict.fromkeys((assignment.get("flavors") or {}).values()):
            spec = (self._flavors.get(ObjectKey(self._nodes.host, "", name)) or {}).get("spec") or {}
            found += fleetobjects.tolerations(spec.get("tolerations"))
        return tuple(found)


def _abandoned(pods: list[Object], node: str, count: int) -> bool:
    """Lives none of the workload's pods on its node, though its places there are still needed?"""
    here = [p for p in pods if p["spec"].get("nodeName") == node]
    if any(is_live(p) and not is_deleting(p) for p in here):
        return False
    done = sum((p.get("status") or {}).get("phase") == "Succeeded" for p in here)
    waiting = any(is_live(p) and not p["spec"].get("nodeName") for p in pods)
    return done < count or waiting


def leaves(old: Object | None, new: Object | None) -> bool:
    """Has a pod stopped living on its node? Then the node may have failed its workload."""
    if old is None or not (old["spec"].get("nodeName") and is_live(old) and not is_deleting(old)):
        return False
    return new is None or is_deleting(new) or not is_live(new)
