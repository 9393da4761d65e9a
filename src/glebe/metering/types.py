"""The kind that the ledger publishes. The struct is the source of its CRD."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

Count = Annotated[int, Meta(ge=0)]


class UsageRow(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What one user had through one queue of one namespace."""

    namespace: str
    """Namespace of the pods."""
    queue: str = ""
    """LocalQueue that the work was submitted to; empty for work outside any queue."""
    cluster_queue: str = ""
    """ClusterQueue whose quota it used, where known."""
    user: str = ""
    """Who submitted it, where known."""
    gpu_seconds: Count = 0
    """GPU-seconds held on healthy nodes, up to asOf."""
    gpus: Count = 0
    """GPUs held at asOf; gpuSeconds grows by so many each second from then on."""
    workloads: Count = 0
    """How many different workloads (jobs, or single pods) this adds up."""


class UsageReportStatus(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Sums of one UTC day at the moment asOf, and the rates at which they grow from then on.

    owned = allocated + idle + unhealthy, to the second, for the sums and for the rates.
    """

    as_of: str = ""
    """The moment (RFC 3339) at which the sums stand."""
    owned_gpu_seconds: Count = 0
    """GPU-seconds of all GPUs of all nodes."""
    allocated_gpu_seconds: Count = 0
    """GPU-seconds held by pods on healthy nodes: the sum of the rows."""
    idle_gpu_seconds: Count = 0
    """GPU-seconds that nobody held on healthy nodes."""
    unhealthy_gpu_seconds: Count = 0
    """GPU-seconds of nodes that were not ready, held or not."""
    owned_gpus: Count = 0
    """GPUs at asOf."""
    allocated_gpus: Count = 0
    """GPUs held at asOf."""
    idle_gpus: Count = 0
    """GPUs free at asOf."""
    unhealthy_gpus: Count = 0
    """GPUs on nodes that are not ready at asOf."""
    rows: list[UsageRow] = msgspec.field(default_factory=list)
    """Who had the allocated ones."""


class UsageReport(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Who used how many GPU-seconds on one UTC day, and what was idle or broken.

    Reports are named usage-YYYY-MM-DD and written by the platform only. Sums stand at status.asOf and grow by the rates
    given beside them, so that a reader knows the present sums without the report being written again.
    """

    status: UsageReportStatus = msgspec.field(default_factory=UsageReportStatus)
    """The sums."""
