"""The queue's metrics on a whole platform: Kueue's names, and the indicators."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from test_platform_embedded import job, platform

from glebe.kube import resources as r
from glebe.kube.client import Client

DOCS = Path(__file__).parents[3] / "docs" / "queue-metrics.md"


async def scrape(client: Client) -> dict[str, float]:
    text = (await client.raw("GET", "/metrics")).body.decode()
    rows = (line.rpartition(" ") for line in text.splitlines() if line.startswith(("kueue_", "glebe_queue_")))
    return {name: float(value) for name, _, value in rows}


def queue(metric: str, **marks: str) -> str:
    inner = ",".join(f'{k}="{v}"' for k, v in {**marks, "replica_role": "standalone"}.items())
    return f"kueue_{metric}{{{inner}}}"


async def test_what_happens_to_workloads_is_counted() -> None:
    async with platform(count=1) as p:
        await asyncio.sleep(3)
        for name in ("first", "second", "third"):
            await p.client.create(r.JOBS, job(name, 1))
            await asyncio.sleep(2)
        await asyncio.sleep(10)
        seen = await scrape(p.client)
        batch = {"cluster_queue": "default", "priority_class": "batch"}
        marks = next(k for k in seen if k.startswith("kueue_admitted_workloads_total"))
        batch["priority_class"] = re.search(r'priority_class="(\w*)"', marks)[1]  # type: ignore[index]
        assert seen[queue("admitted_workloads_total", **batch)] == 1
        assert seen[queue("quota_reserved_workloads_total", **batch)] == 1
        assert seen[queue("admission_wait_time_seconds_count", **batch)] == 1
        local = {"name": "default", "namespace": "default", "priority_class": batch["priority_class"]}
        assert seen[queue("local_queue_admitted_workloads_total", **local)] == 1
        assert seen[queue("pending_workloads", cluster_queue="default", status="inadmissible")] == 2
        assert seen[queue("pending_workloads", cluster_queue="default", status="active")] == 0
        assert seen[queue("admitted_active_workloads", cluster_queue="default")] == 1
        assert seen[queue("cluster_queue_status", cluster_queue="default", status="active")] == 1
        [use] = [k for k in seen if k.startswith("kueue_cluster_queue_resource_usage") and "gpu" in k]
        assert seen[use] == 8
        assert seen['glebe_queue_forecasts{state="told"}'] == 2
        assert seen["glebe_queue_answer_seconds_count"] == 3
        assert sum(v for k, v in seen.items() if k.startswith("kueue_admission_attempts_total")) >= 3
        await asyncio.sleep(250)
        seen = await scrape(p.client)
        assert seen[queue("finished_workloads_total", **batch)] >= 2
        assert seen[queue("execution_time_seconds_count", **batch)] >= 2
        assert (
            80
            < seen[queue("execution_time_seconds_sum", **batch)] / seen[queue("execution_time_seconds_count", **batch)]
            < 130
        )
        kept = {k: v for k, v in seen.items() if k.startswith("glebe_queue_forecast_starts_total")}
        assert (
            kept['glebe_queue_forecast_starts_total{kept="p50"}']
            + kept['glebe_queue_forecast_starts_total{kept="p90"}']
            >= 1
        )
        assert seen.get("glebe_queue_never_refuted_total", 0) == 0


async def test_an_eviction_is_counted_once_with_its_reason() -> None:
    async with platform(count=1) as p:
        await asyncio.sleep(3)
        await p.client.create(r.JOBS, job("runs", 1))
        await asyncio.sleep(10)
        [workload] = (await p.client.list_all(r.WORKLOADS)).items
        await p.client.patch(r.WORKLOADS, workload["metadata"]["name"], {"spec": {"active": False}}, "default")
        await asyncio.sleep(30)
        seen = await scrape(p.client)
        evicted = {k: v for k, v in seen.items() if k.startswith("kueue_evicted_workloads_total")}
        assert list(evicted.values()) == [1]
        assert 'reason="Deactivated"' in next(iter(evicted))
        [wait] = [k for k in seen if k.startswith("kueue_pods_ready_to_evicted_time_seconds_sum")]
        assert 1 <= seen[wait] <= 12


async def test_every_metric_of_the_queue_is_documented() -> None:
    async with platform(count=1) as p:
        metrics = p.server.metrics
        assert metrics is not None
        names = {name for name in metrics.families.names() if name.startswith(("kueue_", "glebe_queue_"))}
        page = DOCS.read_text(encoding="utf-8")
        assert {name for name in names if f"`{name}`" not in page} == set()
