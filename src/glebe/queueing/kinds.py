"""The queue's kinds as a table: where they live, which struct they are, how kubectl shows them."""

from __future__ import annotations

from glebe.kube import resources as r
from glebe.kube.crdgen import Column, Kind
from glebe.queueing.types.flavor import ResourceFlavor, Topology
from glebe.queueing.types.priority import WorkloadClass, WorkloadPriorityClass
from glebe.queueing.types.queue import ClusterQueue, Cohort, LocalQueue
from glebe.queueing.types.workload import Workload

_AGE = Column("Age", ".metadata.creationTimestamp", "date")
_QUEUEING = ("kueue",)


def _condition(kind: str, field: str = "status") -> str:
    return f".status.conditions[?(@.type=='{kind}')].{field}"


KINDS: tuple[Kind, ...] = (
    Kind(
        r.CLUSTER_QUEUES,
        ClusterQueue,
        ("cq",),
        _QUEUEING,
        (
            Column("Cohort", ".spec.cohortName"),
            Column("Strategy", ".spec.queueingStrategy", priority=1),
            Column("Pending Workloads", ".status.pendingWorkloads", "integer"),
            Column("Admitted Workloads", ".status.admittedWorkloads", "integer"),
            Column("Active", _condition("Active")),
            Column("Message", _condition("Active", "message"), priority=1),
            _AGE,
        ),
    ),
    Kind(
        r.COHORTS,
        Cohort,
        (),
        _QUEUEING,
        (Column("Parent", ".spec.parentName"), _AGE),
    ),
    Kind(
        r.LOCAL_QUEUES,
        LocalQueue,
        ("queue", "queues", "lq"),
        _QUEUEING,
        (
            Column("ClusterQueue", ".spec.clusterQueue"),
            Column("Pending Workloads", ".status.pendingWorkloads", "integer"),
            Column("Admitted Workloads", ".status.admittedWorkloads", "integer"),
            Column("Active", _condition("Active"), priority=1),
            _AGE,
        ),
    ),
    Kind(
        r.RESOURCE_FLAVORS,
        ResourceFlavor,
        ("flavor", "flavors", "rf"),
        _QUEUEING,
        (Column("Topology", ".spec.topologyName"), _AGE),
    ),
    Kind(r.TOPOLOGIES, Topology, ("topo",), _QUEUEING, (_AGE,)),
    Kind(
        r.WORKLOADS,
        Workload,
        ("wl",),
        _QUEUEING,
        (
            Column("Queue", ".spec.queueName"),
            Column("Reserved in", ".status.admission.clusterQueue"),
            Column("Admitted", _condition("Admitted")),
            Column("Finished", _condition("Finished")),
            Column("Position", ".status.forecast.position", "integer"),
            Column("GPUs-ahead", ".status.forecast.gpusAhead", "integer"),
            Column("Start(P50)", ".status.forecast.startP50"),
            Column("Reason", ".status.forecast.reason"),
            Column("Priority", ".spec.priority", "integer", priority=1),
            Column("Start(P90)", ".status.forecast.startP90", priority=1),
            Column("Message", ".status.forecast.message", priority=1),
            _AGE,
        ),
    ),
    Kind(
        r.WORKLOAD_PRIORITY_CLASSES,
        WorkloadPriorityClass,
        (),
        _QUEUEING,
        (Column("Value", ".value", "integer"), _AGE),
    ),
    Kind(
        r.WORKLOAD_CLASSES,
        WorkloadClass,
        ("wclass",),
        ("glebe",),
        (
            Column("Priority", ".spec.priority", "integer"),
            Column("P50", ".spec.expectedRunTime.p50Seconds", "integer"),
            Column("P90", ".spec.expectedRunTime.p90Seconds", "integer"),
            Column("Description", ".spec.description", priority=1),
            _AGE,
        ),
    ),
)
