"""`glebe controller --advisory` beside a Kueue: it forecasts Kueue's workloads and writes nothing else."""

from __future__ import annotations

import asyncio
import json
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from kube_peer import _kubeconfig, free_port, real_kubernetes
from test_cluster_controller import GLEBE
from test_cluster_queue import until

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.objects import Object
from glebe.platform import bootstrap

pytestmark = [pytest.mark.cluster, pytest.mark.realtime]
NOTE = "glebe.dev/forecast"


async def kueue(client: Client) -> None:
    """The definitions as another controller would have installed them, and a queue of one GPU."""
    for crd in bootstrap.custom_resource_definitions():
        if crd["spec"]["group"] == r.WORKLOADS.group:
            spec = {**crd["spec"], "conversion": {"strategy": "None"}}
            spec["versions"] = [v for v in spec["versions"] if v["storage"]]
            await client.create(r.CUSTOM_RESOURCE_DEFINITIONS, {**crd, "spec": spec})
    await until(lambda: _served(client))
    quota = {"name": "nvidia.com/gpu", "nominalQuota": 1}
    groups = [{"coveredResources": ["nvidia.com/gpu"], "flavors": [{"name": "any", "resources": [quota]}]}]
    await client.create(r.RESOURCE_FLAVORS, obj(r.RESOURCE_FLAVORS, "any", {}))
    await client.create(
        r.CLUSTER_QUEUES, obj(r.CLUSTER_QUEUES, "all", {"namespaceSelector": {}, "resourceGroups": groups})
    )
    await client.create(r.LOCAL_QUEUES, obj(r.LOCAL_QUEUES, "door", {"clusterQueue": "all"}), "default")


async def _served(client: Client) -> bool:
    answer = json.loads((await client.raw("GET", "/apis/kueue.x-k8s.io/v1beta2")).body)
    return len({one["name"] for one in answer["resources"]} & {"workloads", "localqueues", "clusterqueues"}) == 3


def obj(resource: r.Resource, name: str, spec: Any) -> Object:
    meta = {"name": name, **({"namespace": "default"} if resource.namespaced else {})}
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta, "spec": spec}


def workload(name: str, seconds: int) -> Object:
    asks = {"resources": {"requests": {"nvidia.com/gpu": "1"}}, "name": "c", "image": "x"}
    sets = [{"name": "main", "count": 1, "template": {"spec": {"containers": [asks]}}}]
    return obj(r.WORKLOADS, name, {"queueName": "door", "podSets": sets, "maximumExecutionTimeSeconds": seconds})


async def admit(client: Client, name: str) -> None:
    """What Kueue does."""
    found = await client.get(r.WORKLOADS, name, "default")
    given = {"name": "main", "flavors": {"nvidia.com/gpu": "any"}, "resourceUsage": {"nvidia.com/gpu": "1"}, "count": 1}
    now = "2026-01-01T00:00:00Z"
    conditions = [
        {"type": kind, "status": "True", "reason": "Admitted", "message": "", "lastTransitionTime": now}
        for kind in ("QuotaReserved", "Admitted")
    ]
    status = {"admission": {"clusterQueue": "all", "podSetAssignments": [given]}, "conditions": conditions}
    await client.update_status(r.WORKLOADS, {**found, "status": status})


def _scrape(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return bytes(answer.read())


async def forecast(client: Client, name: str) -> Any:
    found = await client.get(r.WORKLOADS, name, "default")
    return json.loads((found["metadata"].get("annotations") or {}).get(NOTE, "null"))


def log_of(data: Path) -> str:
    return (data / "glebe.log").read_text(encoding="utf-8")


def start(config: Path, port: int, data: Path) -> subprocess.Popen[bytes]:
    command = [*GLEBE, "controller", "--kubeconfig", str(config), "--advisory", "--metrics-listen", f"127.0.0.1:{port}"]
    with (data / "glebe.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


async def test_kueues_workloads_are_forecast_and_nothing_is_decided(tmp_path: Path) -> None:
    with real_kubernetes(tmp_path) as peer:
        client = peer.client()
        await peer.ready(client)
        await kueue(client)
        for name in ("runs", "waits", "waits-longer"):
            await client.create(r.WORKLOADS, workload(name, 3600))
            await asyncio.sleep(1.1)
        await admit(client, "runs")
        config, port = tmp_path / "kubeconfig", free_port()
        config.write_text(json.dumps(_kubeconfig(peer.config.server)))
        process = start(config, port, tmp_path)
        try:

            async def told() -> bool:
                return all([await forecast(client, name) for name in ("waits", "waits-longer")])

            await until(told)
            first, second = await forecast(client, "waits"), await forecast(client, "waits-longer")
            assert (first["position"], second["position"]) == (1, 2)
            assert first["startP50"] < second["startP50"]
            assert first["clusterQueue"] == "all"
            for name in ("waits", "waits-longer"):
                found = await client.get(r.WORKLOADS, name, "default")
                assert "status" not in found or not found["status"], "the status is Kueue's"
            text = await asyncio.to_thread(_scrape, f"http://127.0.0.1:{port}/metrics")
            assert b'kueue_pending_workloads{cluster_queue="all"' in text
            for resource in (r.CLUSTER_QUEUES, r.LOCAL_QUEUES):
                for item in (await client.list_all(resource)).items:
                    assert not item.get("status"), "nothing else is written"
            crds = (await client.list_all(r.CUSTOM_RESOURCE_DEFINITIONS)).items
            assert {c["spec"]["group"] for c in crds} == {r.WORKLOADS.group}
        finally:
            process.terminate()
            assert process.wait(timeout=30) == 0, log_of(tmp_path)
        await client.close()
