"""What this machine and its containers use: ``/stats/summary`` and ``/metrics/resource`` (upstream's names)."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from glebe.kube.clock import Clock, format_time
from glebe.kube.objects import Object
from glebe.node.kubelet.pods import Pods, containers_of
from glebe.node.metrics.model import NodeSample, Place, Used, rate

_TICK = os.sysconf("SC_CLK_TCK")
_NANO = 1_000_000_000


def machine_use() -> Used:
    """The machine's processor seconds since it was started, and its memory in use."""
    fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
    user, nice, system, _idle, _wait, irq, softirq, steal = (int(word) for word in fields)
    memory = _meminfo()
    used = memory.get("MemTotal", 0) - memory.get("MemAvailable", 0)
    return Used((user + nice + system + irq + softirq + steal) / _TICK, used, _booted())


def _meminfo() -> dict[str, int]:
    """Bytes by name."""
    found = {}
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words:
            found[name] = int(words[0]) * (1024 if words[-1] == "kB" else 1)
    return found


def _booted() -> float:
    for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    return 0.0


class MachineStatistics:
    """
    :param data: a directory on the file system of which the summary speaks.
    """

    def __init__(self, name: str, pods: Pods, clock: Clock, data: Path) -> None:
        self._name = name
        self._pods = pods
        self._clock = clock
        self._data = data
        self._last: NodeSample | None = None

    async def sample(self) -> NodeSample:
        """All that runs now."""
        containers: dict[Place, Used] = {}
        for pod in self._pods.bound():
            meta = pod["metadata"]
            for name in containers_of(pod):
                run = self._pods.running(pod, name)
                usage = await self._pods.containers.usage(run) if run is not None else None
                if run is not None and usage is not None:
                    used = Used(usage.cpu_seconds, usage.memory_working_set, run.started_at or 0.0)
                    containers[Place(meta["namespace"], meta["name"], name)] = used
            await asyncio.sleep(0)
        return NodeSample(self._clock.now(), machine_use(), containers)

    # --- /stats/summary

    async def summary(self) -> Object:
        """As ``k8s.io/kubelet/pkg/apis/stats/v1alpha1`` has it. Rates are those since the summary before."""
        sample, before = await self.sample(), self._last
        self._last = sample
        disk = self._disk(sample.time)
        pods = []
        for pod in self._pods.bound():
            meta = pod["metadata"]
            mine = {p.container: u for p, u in sample.containers.items() if p[:2] == (meta["namespace"], meta["name"])}
            if not mine:
                continue
            containers = [
                {
                    "name": name,
                    "startTime": format_time(used.started),
                    **self._use(Place(meta["namespace"], meta["name"], name), used, sample, before),
                }
                for name, used in mine.items()
            ]
            total = Used(sum(u.cpu_seconds for u in mine.values()), sum(u.memory for u in mine.values()))
            nano = sum(int(c["cpu"]["usageNanoCores"]) for c in containers)
            pods.append(
                {
                    "podRef": {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]},
                    "startTime": (pod.get("status") or {}).get("startTime") or format_time(sample.time),
                    "containers": containers,
                    "cpu": _cpu(sample.time, total.cpu_seconds, nano),
                    "memory": _memory(sample.time, total.memory),
                }
            )
        known = rate(before.node if before else None, before.time if before else 0.0, sample.node, sample.time)
        memory = _meminfo()
        node = {
            "nodeName": self._name,
            "startTime": format_time(sample.node.started),
            "cpu": _cpu(sample.time, sample.node.cpu_seconds, int((known.cpu if known else 0.0) * _NANO)),
            "memory": {
                **_memory(sample.time, sample.node.memory),
                "availableBytes": memory.get("MemAvailable", 0),
            },
            "fs": disk,
            "runtime": {"imageFs": disk, "containerFs": disk},
        }
        return {"node": node, "pods": pods}

    @staticmethod
    def _use(place: Place, used: Used, sample: NodeSample, before: NodeSample | None) -> dict[str, Any]:
        earlier = before.containers.get(place) if before is not None else None
        known = rate(earlier, before.time if before else 0.0, used, sample.time)
        nano = int((known.cpu if known is not None else 0.0) * _NANO)
        return {
            "cpu": _cpu(sample.time, used.cpu_seconds, nano),
            "memory": _memory(sample.time, used.memory),
        }

    def _disk(self, now: float) -> dict[str, Any]:
        found = os.statvfs(self._data)
        return {
            "time": format_time(now),
            "availableBytes": found.f_bavail * found.f_frsize,
            "capacityBytes": found.f_blocks * found.f_frsize,
            "usedBytes": (found.f_blocks - found.f_bfree) * found.f_frsize,
            "inodesFree": found.f_ffree,
            "inodes": found.f_files,
            "inodesUsed": found.f_files - found.f_ffree,
        }

    # --- /metrics/resource

    async def resource_metrics(self) -> bytes:
        """In Prometheus' text format, as a kubelet writes it for the metrics server."""
        return as_resource_metrics(await self.sample())


def _cpu(now: float, seconds: float, nano_cores: int) -> dict[str, Any]:
    return {"time": format_time(now), "usageNanoCores": nano_cores, "usageCoreNanoSeconds": int(seconds * _NANO)}


def _memory(now: float, working_set: int) -> dict[str, Any]:
    return {"time": format_time(now), "usageBytes": working_set, "workingSetBytes": working_set}


_FAMILIES = (
    ("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the container in core-seconds"),
    ("container_memory_working_set_bytes", "gauge", "Current working set of the container in bytes"),
    ("container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds"),
    ("pod_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the pod in core-seconds"),
    ("pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes"),
    ("node_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the node in core-seconds"),
    ("node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes"),
    ("resource_scrape_error", "gauge", "1 if there was an error while getting container metrics, 0 otherwise"),
)


def as_resource_metrics(sample: NodeSample) -> bytes:
    """A sample as a kubelet writes it; every number with the time at which it was taken (milliseconds)."""
    at = int(sample.time * 1000)
    values: dict[str, list[str]] = {name: [] for name, _, _ in _FAMILIES}
    pods: dict[tuple[str, str], list[Used]] = {}
    for place, used in sorted(sample.containers.items()):
        labels = f'container="{place.container}",namespace="{place.namespace}",pod="{place.pod}"'
        values["container_cpu_usage_seconds_total"].append(f"{{{labels}}} {used.cpu_seconds!r} {at}")
        values["container_memory_working_set_bytes"].append(f"{{{labels}}} {used.memory} {at}")
        values["container_start_time_seconds"].append(f"{{{labels}}} {used.started!r}")
        pods.setdefault((place.namespace, place.pod), []).append(used)
    for (namespace, pod), all_used in pods.items():
        labels = f'namespace="{namespace}",pod="{pod}"'
        cpu, memory = sum(u.cpu_seconds for u in all_used), sum(u.memory for u in all_used)
        values["pod_cpu_usage_seconds_total"].append(f"{{{labels}}} {cpu!r} {at}")
        values["pod_memory_working_set_bytes"].append(f"{{{labels}}} {memory} {at}")
    values["node_cpu_usage_seconds_total"].append(f" {sample.node.cpu_seconds!r} {at}")
    values["node_memory_working_set_bytes"].append(f" {sample.node.memory} {at}")
    values["resource_scrape_error"].append(" 0")
    lines: list[str] = []
    for name, kind, text in _FAMILIES:
        if values[name]:
            lines += [f"# HELP {name} [STABLE] {text}", f"# TYPE {name} {kind}", *(name + v for v in values[name])]
    return ("\n".join(lines) + "\n").encode()


__all__ = ["MachineStatistics", "as_resource_metrics", "machine_use"]
