"""UsageReport objects: made from totals, and read back at any moment. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from glebe.kube.clock import format_time, parse_time
from glebe.kube.objects import Object
from glebe.kube.resources import USAGE_REPORTS
from glebe.metering.book import Carry, RowTotal, Totals
from glebe.metering.facts import Row
from glebe.metering.intervals import DAY

_STATES = ("owned", "allocated", "idle", "unhealthy")


@dataclass(slots=True)
class UsageRow:
    """What one user had through one queue of one namespace."""

    namespace: str
    queue: str
    cluster_queue: str
    user: str
    gpu_seconds: int = 0
    gpus: int = 0
    workloads: int = 0


@dataclass(slots=True)
class Usage:
    """Sums over the days asked for, and the GPUs by state now. owned = allocated + idle + unhealthy, always."""

    owned_gpu_seconds: int = 0
    allocated_gpu_seconds: int = 0
    idle_gpu_seconds: int = 0
    unhealthy_gpu_seconds: int = 0
    owned_gpus: int = 0
    allocated_gpus: int = 0
    idle_gpus: int = 0
    unhealthy_gpus: int = 0
    rows: list[UsageRow] = field(default_factory=list)


def name_of(day: int) -> str:
    """The name of the report of the UTC day that starts at ``day``: ``usage-2026-01-31``."""
    return "usage-" + format_time(day)[:10]


def day_of_name(name: str) -> int:
    """Inverse of :func:`name_of`.

    :raises ValueError: ``name`` is not the name of a report.
    """
    return int(parse_time(name.removeprefix("usage-") + "T00:00:00Z"))


def status_of(totals: Totals) -> dict[str, Any]:
    """The report's status; every field is written, so that a merge patch leaves nothing stale."""
    status: dict[str, Any] = {"asOf": format_time(totals.at)}
    for state in _STATES:
        status[f"{state}GpuSeconds"] = totals.seconds[state]
        status[f"{state}Gpus"] = totals.gpus[state]
    status["rows"] = [
        {
            "namespace": row.namespace,
            "queue": row.queue,
            "clusterQueue": row.cluster_queue,
            "user": row.user,
            "gpuSeconds": total.gpu_seconds,
            "gpus": total.gpus,
            "workloads": total.workloads,
        }
        for row, total in totals.rows.items()
    ]
    return status


def object_of(day: int) -> Object:
    """A report without status."""
    return {"apiVersion": USAGE_REPORTS.api_version, "kind": USAGE_REPORTS.kind, "metadata": {"name": name_of(day)}}


def carry_of(report: Object) -> Carry | None:
    """What a published report says, to count on from there; ``None`` when it says nothing."""
    status = report.get("status") or {}
    if not status.get("asOf"):
        return None
    rows = {}
    for row in status.get("rows") or ():
        key = Row(row["namespace"], row.get("queue", ""), row.get("clusterQueue", ""), row.get("user", ""))
        rows[key] = RowTotal(row.get("gpuSeconds", 0), 0, row.get("workloads", 0))
    seconds = {state: status.get(f"{state}GpuSeconds", 0) for state in _STATES}
    return Carry(int(parse_time(status["asOf"])), seconds, rows)


def at(reports: Iterable[Object], now: float) -> Usage:
    """The sums over ``reports`` as they stand at ``now``, exact without the reports being written anew.

    A report grows by its rates up to the end of its day; the latest one up to ``now``, even if its successor is late.
    """
    known = sorted((r for r in reports if (r.get("status") or {}).get("asOf")), key=lambda r: r["metadata"]["name"])
    out = Usage()
    rows: dict[Row, UsageRow] = {}
    for index, report in enumerate(known):
        status = report["status"]
        as_of = int(parse_time(status["asOf"]))
        latest = index + 1 == len(known)
        end = int(now) if latest else min(int(now), day_of_name(report["metadata"]["name"]) + DAY)
        span = max(0, end - as_of)
        for state in _STATES:
            gpus = status.get(f"{state}Gpus", 0)
            total = getattr(out, f"{state}_gpu_seconds") + status.get(f"{state}GpuSeconds", 0) + gpus * span
            setattr(out, f"{state}_gpu_seconds", total)
            if latest:
                setattr(out, f"{state}_gpus", gpus)
        for item in status.get("rows") or ():
            key = Row(item["namespace"], item.get("queue", ""), item.get("clusterQueue", ""), item.get("user", ""))
            row = rows.setdefault(key, UsageRow(*key))
            row.gpu_seconds += item.get("gpuSeconds", 0) + item.get("gpus", 0) * span
            row.gpus += item.get("gpus", 0) if latest else 0
            row.workloads += item.get("workloads", 0)
    out.rows = [rows[key] for key in sorted(rows)]
    return out
