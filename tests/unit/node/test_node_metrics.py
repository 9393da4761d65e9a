"""Rates, samples, declared use, and metrics.k8s.io over several clusters."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from glebe.kube.clock import LoopClock
from glebe.kube.objects import Object
from glebe.node.kubelet.statistics import as_resource_metrics
from glebe.node.metrics import declared, scraping
from glebe.node.metrics.model import NodeSample, Place, Used, rate
from glebe.node.metrics.stations import OLD, Station

C = Place("ns", "p", "c")


def test_rates() -> None:
    now = Used(30.0, 500, started=50.0)
    assert rate(Used(20.0, 1, 50.0), 100.0, now, 110.0).cpu == 1.0  # type: ignore[union-attr]
    fresh = rate(None, 100.0, now, 110.0)
    assert fresh is not None
    assert (fresh.cpu, fresh.window, fresh.memory) == (0.5, 60.0, 500)
    again = rate(Used(90.0, 1, 10.0), 100.0, Used(1.0, 5, 105.0), 110.0)  # it was started again in between
    assert again is not None
    assert (again.cpu, again.window) == (0.2, 5.0)
    assert rate(None, 0.0, Used(1.0, 5), 10.0) is None
    assert rate(Used(1.0, 1), 10.0, Used(2.0, 1), 10.0) is None


def test_what_a_kubelet_writes_is_read_again() -> None:
    sample = NodeSample(
        1_700_000_000.123, Used(12.5, 1 << 30), {C: Used(1.25, 4096, 1_600_000_000.5), C._replace(pod="q"): Used(2, 1)}
    )
    text = as_resource_metrics(sample).decode()
    assert 'pod_cpu_usage_seconds_total{namespace="ns",pod="p"} 1.25 1700000000123' in text
    assert scraping.parse(text, 0.0) == sample
    real = (
        "# HELP node_cpu_usage_seconds_total [STABLE] x\n# TYPE node_cpu_usage_seconds_total counter\n"
        "node_cpu_usage_seconds_total 1.2e+03 1700000000000\nnode_memory_working_set_bytes 1.024e+06 1700000000000\n"
        'container_cpu_usage_seconds_total{container="c",namespace="ns",pod="p"} 0.5 1700000000100\n'
        'container_memory_working_set_bytes{container="c",namespace="ns",pod="p"} 2048 1700000000100\n'
        'container_swap_usage_bytes{container="c",namespace="ns",pod="p"} 0 1700000000100\nnonsense{\n'
    )
    found = scraping.parse(real, 0.0)
    assert (found.time, found.node) == (1_700_000_000.0, Used(1200.0, 1_024_000))
    assert found.containers == {C: Used(0.5, 2048)}
    with pytest.raises(ValueError, match="says nothing"):
        scraping.parse("", 0.0)


async def test_samples_are_taken_when_somebody_asks_and_no_oftener_than_needed() -> None:
    clock, taken = LoopClock(), []

    async def take() -> NodeSample:
        taken.append(clock.now())
        return NodeSample(clock.now(), Used(len(taken), 1))

    station = Station()
    first, second = await asyncio.gather(station.pair(take, clock), station.pair(take, clock))
    assert (len(taken), first, first.last.time - first.before.time) == (2, second, 1.0)
    await asyncio.sleep(10)
    assert (await station.pair(take, clock), len(taken)) == (first, 2)
    await asyncio.sleep(10)
    third = await station.pair(take, clock)
    assert (len(taken), third.before, third.last.time - third.before.time) == (3, first.last, 20.0)
    await asyncio.sleep(OLD)
    fourth = await station.pair(take, clock)
    assert (len(taken), fourth.last.time - fourth.before.time) == (5, 1.0)


async def test_a_failed_sample_is_tried_again() -> None:
    clock, tries = LoopClock(), 0

    async def take() -> NodeSample:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise TimeoutError
        return NodeSample(clock.now(), Used(tries, 1))

    station = Station()
    with pytest.raises(TimeoutError):
        await station.pair(take, clock)
    assert (await station.pair(take, clock)).last.node.cpu_seconds == 3


def sim_pod(annotations: dict[str, str], running: tuple[str, ...] = ("c", "d")) -> Object:
    request: dict[str, Any] = {"requests": {"cpu": "200m", "memory": "1Gi"}}
    return {
        "metadata": {
            "name": "p",
            "namespace": "ns",
            "annotations": {f"sim.glebe.dev/{k}": v for k, v in annotations.items()},
        },
        "spec": {
            "containers": [
                {"name": "c", "resources": request},
                {"name": "d", "resources": {"limits": {"cpu": "1"}}},
            ]
        },
        "status": {"containerStatuses": [{"name": c, "state": {"running": {}}} for c in running]},
    }


@pytest.mark.parametrize(
    ("annotations", "wanted"),
    [
        ({}, {"c": (0.2, 1 << 30), "d": (1.0, 0)}),
        ({"cpu-usage": "50m"}, {"c": (0.05, 1 << 30), "d": (0.05, 0)}),
        ({"cpu-usage": "150%", "memory-usage": "50%"}, {"c": (0.3, 1 << 29), "d": (1.5, 0)}),
        ({"cpu-usage": "c=10m, d=5%"}, {"c": (0.01, 1 << 30), "d": (0.05, 0)}),
        ({"cpu-usage": "c=10m"}, {"c": (0.01, 1 << 30), "d": (1.0, 0)}),
        ({"cpu-usage": "plenty", "memory-usage": "-1"}, {"c": (0.0, 0), "d": (0.0, 0)}),
    ],
)
def test_declared_use(annotations: dict[str, str], wanted: dict[str, tuple[float, int]]) -> None:

    assert declared.usage_of(sim_pod(annotations)) == wanted


def test_only_what_runs_is_counted() -> None:
    assert list(declared.usage_of(sim_pod({}, running=("d",)))) == ["d"]
