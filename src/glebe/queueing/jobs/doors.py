"""Which ClusterQueue takes a workload: the one that its LocalQueue leads to, if that one takes its like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glebe.kube import resources as r
from glebe.kube.objects import Object, ObjectKey, is_deleting, labels_of
from glebe.kube.resources import Resource
from glebe.kube.selectors import LabelSelector
from glebe.queueing import labels
from glebe.queueing.picture.corepolicies import broken
from glebe.queueing.tenants import tenancy
from glebe.scheduling import model as m

Objects = Mapping[Resource, Mapping[ObjectKey, Object]]


def local_queue(objects: Objects, key: ObjectKey, workload: Object) -> Object | None:
    """The LocalQueue that the workload at ``key`` names, in its own cluster and namespace."""
    name = workload["spec"].get("queueName") or labels.DEFAULT_QUEUE
    return objects[r.LOCAL_QUEUES].get(ObjectKey(key.cluster, key.namespace, name))


def cluster_queue(objects: Objects, host: str, key: ObjectKey, workload: Object) -> tuple[str, m.Decision | None]:
    """The ClusterQueue, or why none takes the workload.

    :param host: the cluster that has the ClusterQueues.
    """
    called, namespace = tenancy.named(key), key.namespace
    name = workload["spec"].get("queueName") or labels.DEFAULT_QUEUE
    local = local_queue(objects, key, workload)
    if local is None or is_deleting(local):
        return "", _never(
            called,
            m.Reason.QUEUE_NOT_FOUND,
            f'LocalQueue "{name}" does not exist in namespace "{namespace}"',
            f'create it, or submit to a queue of namespace "{namespace}" that exists',
        )
    if (local["spec"].get("stopPolicy") or "None") != "None":
        text = f'LocalQueue "{name}" is stopped'
        return "", m.Decision(called, m.Outcome.WAIT, m.Reason.QUEUE_STOPPED, text, "set its spec.stopPolicy to None")
    queue = local["spec"]["clusterQueue"]
    obj = objects[r.CLUSTER_QUEUES].get(ObjectKey(host, "", queue))
    if tenancy.is_foreign(key.cluster) and (obj is None or not tenancy.may_use(obj, key.cluster)):
        return "", _never(
            called,
            m.Reason.MISCONFIGURED,
            f'ClusterQueue "{queue}" does not take workloads of this cluster',
            "name a ClusterQueue in the LocalQueue's spec.clusterQueue that your administrator has opened for it",
        )
    if obj is not None and is_deleting(obj):  # its finalizer waits for what runs: nothing may follow
        return "", _never(
            called,
            m.Reason.QUEUE_NOT_FOUND,
            f'ClusterQueue "{queue}" is being deleted',
            "submit to another queue, or create it again when it is gone",
        )
    if obj is not None and not _takes(objects, obj, key):
        return "", _never(
            called,
            m.Reason.MISCONFIGURED,
            f'ClusterQueue "{queue}" does not take workloads of namespace "{namespace}"',
            "make its spec.namespaceSelector match the namespace's labels; {} takes every namespace",
        )
    if obj is not None and (
        problem := broken(obj, lambda n: objects[r.ADMISSION_CHECKS].get(ObjectKey(host, "", n)))[1]
    ):
        text = f'ClusterQueue "{queue}" admits nothing: {problem}'
        return "", m.Decision(called, m.Outcome.WAIT, m.Reason.QUEUE_STOPPED, text, "create the check, or take it out")
    return queue, None


def _never(key: str, reason: m.Reason, message: str, remedy: str) -> m.Decision:
    return m.Decision(key, m.Outcome.NEVER, reason, message, remedy)


def _takes(objects: Objects, queue: Object, key: ObjectKey) -> bool:
    selector: Any = (queue.get("spec") or {}).get("namespaceSelector")
    if selector is None:
        return False
    if not selector:
        return True
    obj = objects[r.NAMESPACES].get(ObjectKey(key.cluster, "", key.namespace))
    # what every cluster has from its beginning is not listed over all clusters until somebody changes it
    known = labels_of(obj) if obj is not None else {"kubernetes.io/metadata.name": key.namespace}
    return LabelSelector.from_object(selector).matches(known)
