"""The loads of Kueue's scheduler benchmark, as its three configurations describe them, and what Kueue made of them.

Quotas, counts, intervals, run times and priorities are those of ``test/performance/scheduler/configs`` (baseline,
large-scale, tas) of Kueue's sources. The topology's label keys are those of our simulated nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

RUNNING_MS = "kueue.x-k8s.io/performance-scheduler-running-ms"
BLOCK, RACK, HOST = "topology.glebe.dev/block", "topology.glebe.dev/rack", "kubernetes.io/hostname"
_API = "/apis/kueue.x-k8s.io/v1beta2"


@dataclass(frozen=True, slots=True)
class Set:
    """Workloads of one class that each queue gets, one per ``interval_ms``."""

    name: str
    count: int
    interval_ms: int
    runtime_ms: int
    priority: int
    request: str
    pods: int = 1
    topology: str = ""  # required, preferred, or balanced: slices that need a rack each
    slice_size: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """``cohorts`` times ``queues_each`` queues, each of 20 CPUs (it may borrow 100 more) with the same sets."""

    name: str
    cohorts: int
    queues_each: int
    sets: tuple[Set, ...]
    published_rate: float
    """Kueue's workloads/s: all workloads by the mean wall time of its five runs."""
    published_wall: float
    nodes: int = 0
    scale: float = 1.0

    def at_scale(self, scale: float, queues: int | None = None) -> Load:
        """Part of the workloads, or another number of queues per cohort."""
        return replace(self, scale=scale, queues_each=queues or self.queues_each)

    def scaled(self, count: int) -> int:
        return max(1, round(count * self.scale))

    @property
    def total(self) -> int:
        return self.cohorts * self.queues_each * sum(self.scaled(s.count) for s in self.sets)

    @property
    def bound(self) -> float:
        """Seconds below which no scheduler can be: CPU seconds of the work by CPUs of quota, at most."""
        factor = {"1": 1.0, "5": 5.0, "20": 20.0, "500m": 0.5, "1250m": 1.25, "2500m": 2.5}
        work = sum(self.scaled(s.count) * s.runtime_ms / 1000 * s.pods * factor[s.request] for s in self.sets)
        made = max(self.scaled(s.count) * s.interval_ms + s.runtime_ms for s in self.sets) / 1000
        return max(work / 20, made)

    def queues(self) -> Iterator[tuple[str, str]]:
        """(queue, cohort)."""
        for cohort in range(self.cohorts):
            for number in range(self.queues_each):
                yield f"cq-0-{number}-cohort-{cohort}", f"cohort-{cohort}"

    def infrastructure(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(path, object) of the flavor, and of the topology if there is one."""
        spec: dict[str, Any] = {}
        if self.nodes:
            levels = [{"nodeLabel": key} for key in (BLOCK, RACK, HOST)]
            yield f"{_API}/topologies", _object("Topology", "benchmark", {"levels": levels})
            spec = {"nodeLabels": {"tas-node-group": "tas"}, "topologyName": "benchmark"}
        yield f"{_API}/resourceflavors", _object("ResourceFlavor", "rf", spec)

    def cluster_queue(self, name: str, cohort: str) -> dict[str, Any]:
        quota = {"name": "cpu", "nominalQuota": "20", "borrowingLimit": "100"}
        groups = [{"coveredResources": ["cpu"], "flavors": [{"name": "rf", "resources": [quota]}]}]
        preemption = {"reclaimWithinCohort": "Any", "withinClusterQueue": "LowerPriority"}
        spec = {"cohortName": cohort, "namespaceSelector": {}, "resourceGroups": groups, "preemption": preemption}
        return _object("ClusterQueue", name, spec)

    def fleet(self) -> str:
        """The fleet file."""
        if not self.nodes:
            return "apiVersion: glebe.dev/v1alpha1\nkind: Fleet\npools: []\nlocal: {enabled: false}\n"
        return f"""\
apiVersion: glebe.dev/v1alpha1
kind: Fleet
pools:
- name: tas
  count: {self.nodes}
  cpu: "96"
  memory: 256Gi
  topology: {{nodesPerRack: 64, racksPerBlock: 10}}
  labels: {{tas-node-group: tas}}
local: {{enabled: false}}
"""


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": kind, "metadata": {"name": name}, "spec": spec}


def workload_spec(one: Set, queue: str) -> dict[str, Any]:
    container = {"name": "c", "image": "pause", "resources": {"requests": {"cpu": one.request}}}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    pod_set: dict[str, Any] = {"name": "main", "count": one.pods, "template": template}
    if one.topology in ("required", "preferred"):
        pod_set["topologyRequest"] = {one.topology: RACK}
    elif one.topology:
        pod_set["topologyRequest"] = {"podSetSliceRequiredTopology": RACK, "podSetSliceSize": one.slice_size}
    return {"queueName": queue, "priority": one.priority, "podSets": [pod_set]}


def _thirds(name: str, counts: tuple[int, int, int], like: Set, size: int) -> tuple[Set, ...]:
    kinds = ("required", "preferred", "balanced")
    return tuple(
        replace(like, name=f"{name}-{kind}-rack", count=n, topology=kind, slice_size=size if kind == "balanced" else 0)
        for kind, n in zip(kinds, counts, strict=True)
    )


LOADS = {
    "baseline": Load(
        "baseline",
        5,
        6,
        (
            Set("small", 350, 100, 200, 50, "1"),
            Set("medium", 100, 500, 500, 100, "5"),
            Set("large", 50, 1200, 1000, 200, "20"),
        ),
        42.7,
        351.1,
    ),
    "tas": Load(
        "tas",
        5,
        6,
        (
            *_thirds("small", (120, 120, 110), Set("", 0, 100, 200, 50, "500m", 2), 1),
            *_thirds("medium", (34, 33, 33), Set("", 0, 500, 500, 100, "1250m", 4), 2),
            *_thirds("large", (17, 17, 16), Set("", 0, 1200, 1000, 200, "2500m", 8), 4),
        ),
        37.4,
        401.5,
        nodes=640,
    ),
    "large-scale": Load(
        "large-scale",
        10,
        100,
        (
            Set("small", 35, 60, 150, 50, "1"),
            Set("medium", 11, 300, 350, 100, "5"),
            Set("large", 4, 700, 700, 200, "20"),
        ),
        42.4,
        1179.4,
    ),
}
