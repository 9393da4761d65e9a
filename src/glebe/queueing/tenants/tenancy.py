"""One queue over all logical clusters: whose objects count, who may use what, and what one may learn of another.

Queues, cohorts, flavors, topologies, checks and classes are the host's. Jobs, LocalQueues and Workloads are where their
owners are. A ClusterQueue takes workloads of other clusters than the host only where its annotation
:data:`.labels.CLUSTERS` names them. Nodes are machines: the same name in several clusters is one machine, and a
workload runs on those that its own cluster has. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TypeVar

from glebe.kube.objects import CLUSTER, EVERY, Object, ObjectKey, annotations_of, cluster_of
from glebe.queueing import labels
from glebe.scheduling import model as m

#: The logical cluster in which the queue's own objects are.
HOST = "root"
#: Label of nodes in the core's picture: which cluster has them.
MEMBER = "clusters.glebe.dev/"
#: Taint, in the core's picture, of nodes that the host does not have.
ELSEWHERE = m.Taint("clusters.glebe.dev/elsewhere", "", "NoSchedule")
_STRANGER = "a workload of another cluster"
_WORD = re.compile(r"[^\s,;()\"]+")
Work = TypeVar("Work", m.Pending, m.Admitted)


def host_of(cluster: str) -> str:
    """Under which cluster a client of ``cluster`` finds the queue's own objects."""
    return HOST if cluster == EVERY else cluster


def is_foreign(cluster: str) -> bool:
    """Is it another cluster than the host? (A client of one cluster alone does not say which it is.)"""
    return cluster not in ("", HOST)


def own(objects: Iterable[Object]) -> list[Object]:
    """The host's own of what was read over all clusters."""
    return [obj for obj in objects if not is_foreign(cluster_of(obj))]


def named(key: ObjectKey) -> str:
    """A workload's name in the core: ``namespace/name``, with its cluster if that is not the host."""
    if is_foreign(key.cluster):
        return str(key)
    return f"{key.namespace}/{key.name}" if key.namespace else key.name


def door(beside: Object, name: str) -> str:
    """What a LocalQueue is called: ``namespace/name``, with its cluster if that is not the host.

    :param beside: the LocalQueue, or a workload of its namespace.
    """
    return named(ObjectKey(cluster_of(beside), beside["metadata"].get("namespace", ""), name))


def beside(obj: Object, written: Object) -> Object:
    """What the server answered about ``obj``, in the cluster that ``obj`` was read from."""
    if CLUSTER in obj["metadata"]:
        written["metadata"][CLUSTER] = cluster_of(obj)
    return written


def users_of(queue: Object) -> tuple[str, ...]:
    """The clusters, or patterns of names, that a ClusterQueue or a class is open to beside the host."""
    return tuple(part.strip() for part in annotations_of(queue).get(labels.CLUSTERS, "").split(",") if part.strip())


def may_use(queue: Object, cluster: str) -> bool:
    """May workloads of ``cluster`` use the ClusterQueue, or the class?"""
    return not is_foreign(cluster) or any(fnmatchcase(cluster, pattern) for pattern in users_of(queue))


def at_home(work: Work, cluster: str) -> Work:
    """The workload, to be placed on nodes of its own cluster only."""
    if not is_foreign(cluster):
        return work
    sets = tuple(_member(pods, cluster) for pods in work.pod_sets)
    return replace(work, pod_sets=sets)


def _member(pods: m.PodSet, cluster: str) -> m.PodSet:
    selector = {**pods.node_selector, f"{MEMBER}{cluster}": "true"}
    tolerations = (*pods.tolerations, m.Toleration(ELSEWHERE.key, "Exists", "", "NoSchedule"))
    return replace(pods, node_selector=selector, tolerations=tolerations)


def shared(node: m.Node, clusters: list[str]) -> m.Node:
    """A machine that several clusters have, or one that the host does not have."""
    foreign = [c for c in clusters if is_foreign(c)]
    if not foreign:
        return node
    marks = {f"{MEMBER}{c}": "true" for c in foreign}
    taints = node.taints if len(foreign) < len(clusters) else (*node.taints, ELSEWHERE)
    return replace(node, labels={**node.labels, **marks}, taints=taints)


def told(decision: m.Decision, to: ObjectKey, keys: Mapping[str, ObjectKey]) -> m.Decision:
    """The decision in words that ``to``'s owner may read: workloads of other clusters have no names."""
    message, remedy = (discreet(text, to, keys) for text in (decision.message, decision.remedy))
    if message == decision.message and remedy == decision.remedy:
        return decision
    return replace(decision, message=message, remedy=remedy)


def discreet(text: str, to: ObjectKey, keys: Mapping[str, ObjectKey]) -> str:
    """``text`` without the names of workloads that are in other clusters than ``to``."""

    def shown(found: re.Match[str]) -> str:
        word = found[0].rstrip(".:")
        key = keys.get(word)
        if key is None or (
            is_foreign(key.cluster) == is_foreign(to.cluster)
            and (key.cluster == to.cluster or not is_foreign(key.cluster))
        ):
            return found[0]
        return _STRANGER + found[0][len(word) :]

    return _WORD.sub(shown, text) if "/" in text else text
