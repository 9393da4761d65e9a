"""The queue's kinds as a table: where they live, which struct they are, how kubectl shows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from glebe.kube import resources as r
from glebe.kube.crdgen import Column, Kind, OlderVersion
from glebe.queueing.types import v1beta1
from glebe.queueing.types.check import (
    AdmissionCheck,
    MultiKueueCluster,
    MultiKueueConfig,
    ProvisioningRequestConfig,
)
from glebe.queueing.types.flavor import ResourceFlavor, Topology
from glebe.queueing.types.priority import WorkloadClass, WorkloadPriorityClass
from glebe.queueing.types.queue import ClusterQueue, Cohort, LocalQueue
from glebe.queueing.types.workload import Workload
from glebe.queueing.versions import SERVICE

_AGE = Column("Age", ".metadata.creationTimestamp", "date")
_QUEUEING = ("kueue",)


#: Who converts: the service that the embedded server itself is, and that ``glebe controller`` puts its address in for.
CONVERSION: dict[str, Any] = {
    "strategy": "Webhook",
    "webhook": {
        "conversionReviewVersions": ["v1"],
        "clientConfig": {"service": {"namespace": SERVICE[0], "name": SERVICE[1], "path": "/convert"}},
    },
}


def _older(schema: Callable[[dict[str, Any]], dict[str, Any]], *columns: Column) -> tuple[OlderVersion, ...]:
    return (OlderVersion(v1beta1.VERSION, schema, columns or None, v1beta1.WARNING),)


def _condition(kind: str, field: str = "status") -> str:
    return f".status.conditions[?(@.type=='{kind}')].{field}"


_QUEUE_COLUMNS = (
    Column("Strategy", ".spec.queueingStrategy", priority=1),
    Column("Pending Workloads", ".status.pendingWorkloads", "integer"),
    Column("Admitted Workloads", ".status.admittedWorkloads", "integer"),
    Column("Active", _condition("Active")),
    Column("Message", _condition("Active", "message"), priority=1),
    _AGE,
)

KINDS: tuple[Kind, ...] = (
    Kind(
        r.CLUSTER_QUEUES,
        ClusterQueue,
        ("cq",),
        _QUEUEING,
        (
            Column("Cohort", ".spec.cohortName"),
            *_QUEUE_COLUMNS,
        ),
        older=_older(v1beta1.cluster_queue, Column("Cohort", ".spec.cohort"), *_QUEUE_COLUMNS),
        conversion=CONVERSION,
    ),
    Kind(
        r.COHORTS,
        Cohort,
        ("co",),
        _QUEUEING,
        (Column("Parent", ".spec.parentName"), _AGE),
        older=_older(v1beta1.cohort),
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
        older=_older(v1beta1.local_queue),
        conversion=CONVERSION,
    ),
    Kind(
        r.RESOURCE_FLAVORS,
        ResourceFlavor,
        ("flavor", "flavors", "rf"),
        _QUEUEING,
        (Column("Topology", ".spec.topologyName"), _AGE),
        older=_older(v1beta1.alike),
    ),
    Kind(r.TOPOLOGIES, Topology, ("topo",), _QUEUEING, (_AGE,), older=_older(v1beta1.alike)),
    Kind(
        r.WORKLOADS,
        Workload,
        ("wl", "kwl", "kueueworkload", "kueueworkloads"),
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
        selectable=(".status.admission.clusterQueue",),
        older=_older(v1beta1.workload),
        conversion=CONVERSION,
    ),
    Kind(
        r.WORKLOAD_PRIORITY_CLASSES,
        WorkloadPriorityClass,
        ("wpc",),
        _QUEUEING,
        (Column("Value", ".value", "integer"), _AGE),
        older=_older(v1beta1.alike),
    ),
    Kind(
        r.ADMISSION_CHECKS,
        AdmissionCheck,
        ("ac",),
        _QUEUEING,
        (Column("Controller", ".spec.controllerName"), Column("Active", _condition("Active")), _AGE),
        older=_older(v1beta1.admission_check),
    ),
    Kind(
        r.PROVISIONING_REQUEST_CONFIGS,
        ProvisioningRequestConfig,
        ("prc",),
        _QUEUEING,
        (Column("Class", ".spec.provisioningClassName"), _AGE),
        older=_older(v1beta1.alike),
    ),
    Kind(r.MULTIKUEUE_CLUSTERS, MultiKueueCluster, older=_older(v1beta1.alike)),
    Kind(r.MULTIKUEUE_CONFIGS, MultiKueueConfig, older=_older(v1beta1.alike)),
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
