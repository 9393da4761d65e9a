"""The ledger's kinds as a table, for the generator of CRDs."""

from __future__ import annotations

from glebe.kube import resources as r
from glebe.kube.crdgen import Column, Kind
from glebe.metering.types import UsageReport

KINDS: tuple[Kind, ...] = (
    Kind(
        r.USAGE_REPORTS,
        UsageReport,
        ("usage",),
        ("glebe",),
        (
            Column("GPUs", ".status.ownedGpus", "integer"),
            Column("Allocated", ".status.allocatedGpus", "integer"),
            Column("Idle", ".status.idleGpus", "integer"),
            Column("Unhealthy", ".status.unhealthyGpus", "integer"),
            Column("Allocated-GPU-Seconds", ".status.allocatedGpuSeconds", "integer", priority=1),
            Column("As-of", ".status.asOf"),
        ),
    ),
)
