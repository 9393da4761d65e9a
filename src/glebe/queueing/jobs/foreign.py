"""The words of other queues on pods: KAI's and Volcano's labels and annotations, native pod groups. Pure.

What they say is written down in Kueue's words when a pod is created, so that nothing else needs to know them. GPU
fractions are counted against quota; nobody here divides a GPU by them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from glebe.kube.objects import Object, annotations_of, labels_of
from glebe.kube.quantity import QuantityError, parse
from glebe.kube.resources import Resource
from glebe.queueing import labels
from glebe.queueing.jobkinds.paths import number, read

NATIVE_GROUPS = (
    Resource("scheduling.k8s.io", "v1alpha2", "podgroups", "PodGroup"),
    Resource("scheduling.k8s.io", "v1beta1", "podgroups", "PodGroup"),
)
NATIVE_WORKLOADS = Resource("scheduling.k8s.io", "v1alpha2", "workloads", "Workload")
VOLCANO_GROUPS = Resource("scheduling.volcano.sh", "v1beta1", "podgroups", "PodGroup")
MIN_MEMBER = "scheduling.volcano.sh/group-min-member"
#: Finds an object of the pod's namespace.
Find = Callable[[Resource, str], Object | None]
#: Schedulers that are not there where Glebe's own binds pods.
OTHER_SCHEDULERS = (labels.KAI_SCHEDULER, labels.VOLCANO_SCHEDULER)


def concerns(pod: Object) -> bool:
    """Whether the pod speaks of another queue, or of a group of another scheduler."""
    notes = annotations_of(pod)
    return (
        labels.KAI_QUEUE in labels_of(pod)
        or labels.VOLCANO_QUEUE in notes
        or labels.VOLCANO_GROUP in notes
        or bool(read(pod, ("spec", "schedulingGroup", "podGroupName")))
    )


def translate(pod: Object, find: Find) -> None:
    """Write in Kueue's words what the pod says in others, in place; what it says in Kueue's words already wins."""
    group, queue, least = "", labels_of(pod).get(labels.KAI_QUEUE, ""), None
    if native := read(pod, ("spec", "schedulingGroup", "podGroupName")):
        group, (queue, least) = native, _native(native, find)
    elif named := annotations_of(pod).get(labels.VOLCANO_GROUP):
        group, (queue, least) = named, _volcano(pod, named, find)
    queue = queue or annotations_of(pod).get(labels.VOLCANO_QUEUE, "")
    if not queue and labels.QUEUE_NAME not in labels_of(pod):
        return
    own = pod["metadata"].setdefault("labels", {})
    own.setdefault(labels.QUEUE_NAME, queue)
    if group and least and labels.POD_GROUP not in own:
        own[labels.POD_GROUP] = group
        pod["metadata"].setdefault("annotations", {}).setdefault(labels.POD_GROUP_TOTAL, str(least))


def _native(name: str, find: Find) -> tuple[str, int | None]:
    """(queue, pods) of a PodGroup of scheduling.k8s.io: the queue stands on it or on its Workload."""
    for resource in NATIVE_GROUPS:
        if (group := find(resource, name)) is not None:
            break
    else:
        return "", None
    queue = labels_of(group).get(labels.QUEUE_NAME, "")
    owner = read(group, ("spec", "podGroupTemplateRef", "workload", "workloadName")) or read(
        group, ("spec", "workloadRef", "workloadName")
    )
    if not queue and owner and (workload := find(NATIVE_WORKLOADS, owner)) is not None:
        queue = labels_of(workload).get(labels.QUEUE_NAME, "")
    return queue, number(read(group, ("spec", "schedulingPolicy", "gang", "minCount")))


def _volcano(pod: Object, name: str, find: Find) -> tuple[str, int | None]:
    """(queue, pods) of a PodGroup of Volcano, or as the pod itself says."""
    group = find(VOLCANO_GROUPS, name) or {}
    least = number(read(group, ("spec", "minMember")))
    return str(read(group, ("spec", "queue"), "")), least or number(annotations_of(pod).get(MIN_MEMBER))


def gpu_milli(annotations: Mapping[str, str]) -> int:
    """Thousandths of GPUs that KAI's annotations ask for; 0 when they do not.

    An amount of GPU memory counts as whole devices: how large they are is not known before the pod has a node.
    """
    devices = number(annotations.get(labels.KAI_GPU_DEVICES)) or 1
    if text := annotations.get(labels.KAI_GPU_FRACTION):
        try:
            fraction = parse(text)
        except QuantityError:
            return 0
        return -int(-fraction * 1000 // 1) * devices if 0 < fraction <= 1 else 0
    return 1000 * devices if labels.KAI_GPU_MEMORY in annotations else 0


def with_shares(template: dict[str, Any]) -> dict[str, Any]:
    """The template with what its annotations ask for by fraction as a request that quota counts."""
    amount = gpu_milli(read(template, ("metadata", "annotations"), {}))
    containers = read(template, ("spec", "containers"), [])
    if not amount or not containers:
        return template
    out = copy.deepcopy(template)
    resources = out["spec"]["containers"][0].setdefault("resources", {})
    resources.setdefault("requests", {})[labels.GPU_SHARE] = str(amount)
    return out
