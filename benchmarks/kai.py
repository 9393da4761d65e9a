"""Three of KAI-Scheduler's published scale tests on simulated nodes: the fill, one reclaim, the verdict on a gang.

KAI's figures (its docs/scale-tests) are of KWOK with 500 nodes x 8 GPUs, a real control plane and 3-5 CPUs for the
scheduler. Ours are of the whole of ``glebe up`` (SQLite with fsync, all controllers, simulated kubelets) with the
client in the same process, on whatever this machine has. Counted is from the first submission until the pods run
(fill), from the submission until the pod runs on the GPU that another queue had borrowed (reclaim), and from the
submission until the gang's Workload says why it cannot start (verdict). Simulated pods start at once, as KWOK's do.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from embedded import fleet_file, in_parallel, until

BAR = 10.0
FILL_RATE, RECLAIM, VERDICT = 4000 / 397.8, 13.93, 249.5
GPU = "nvidia.com/gpu"
QUEUE_NAME = "kueue.x-k8s.io/queue-name"


def job(name: str, queue: str, pods: int = 1, gpus: int = 1) -> dict[str, Any]:
    limits = {GPU: str(gpus)}
    container = {"name": "c", "image": "pause", "resources": {"limits": limits, "requests": limits}}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    spec = {
        "parallelism": pods,
        "completions": pods,
        "completionMode": "Indexed",
        "suspend": True,
        "template": template,
    }
    labels = {QUEUE_NAME: queue}
    meta = {"name": name, "namespace": "default", "labels": labels}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": spec}


def queues(flavor: str, gpus: int) -> list[dict[str, Any]]:
    """``many`` has all GPUs but one, ``one`` has the last; either may borrow and takes back what is its own."""
    out = []
    for name, nominal in (("many", gpus - 1), ("one", 1)):
        quota = {"name": GPU, "nominalQuota": str(nominal)}
        groups = [{"coveredResources": [GPU], "flavors": [{"name": flavor, "resources": [quota]}]}]
        spec = {"cohortName": "kai", "namespaceSelector": {}, "resourceGroups": groups}
        spec["preemption"] = {"reclaimWithinCohort": "Any", "withinClusterQueue": "LowerPriority"}
        api = {"apiVersion": "kueue.x-k8s.io/v1beta2"}
        out.append({**api, "kind": "ClusterQueue", "metadata": {"name": name}, "spec": spec})
        meta = {"name": name, "namespace": "default"}
        out.append({**api, "kind": "LocalQueue", "metadata": meta, "spec": {"clusterQueue": name}})
    return out


def show(what: str, ours: float, theirs: float, unit: str, *, more_is_better: bool = False) -> None:
    ratio = ours / theirs if more_is_better else theirs / ours
    verdict = "holds" if ratio >= BAR else "MISSED"
    print(
        f"  {what:<52} ours {ours:8.2f} {unit:<6} KAI {theirs:7.2f}   ratio {ratio:6.1f}   bar {BAR:g}: {verdict}",
        flush=True,
    )


class _Run:
    def __init__(self, platform: Any) -> None:
        from glebe.kube import resources as r

        self.r, self.client = r, platform.client
        informers = platform.parts._shared  # the platform's own cache: reading it costs nothing
        self.nodes, self.pods = informers.get(r.NODES).store, informers.get(r.PODS).store
        self.workloads = informers.get(r.WORKLOADS).store

    async def prepare(self, nodes: int) -> None:
        from glebe.kube.objects import condition_is_true

        await until(lambda: len(self.nodes) >= nodes, "all nodes are registered")
        await until(lambda: all(condition_is_true(n, "Ready") for n in self.nodes.values()), "all nodes are ready", 0.1)
        flavors = (await self.client.list_all(self.r.RESOURCE_FLAVORS)).items
        for obj in queues(flavors[0]["metadata"]["name"], 8 * nodes):
            kind = self.r.CLUSTER_QUEUES if obj["kind"] == "ClusterQueue" else self.r.LOCAL_QUEUES
            await self.client.create(kind, obj)

    async def fill(self, jobs: int) -> float:
        began = time.perf_counter()
        wanted = [job(f"fill-{i}", "many") for i in range(jobs)]
        await in_parallel([lambda j=j: self.client.create(self.r.JOBS, j) for j in wanted], 16)  # type: ignore[misc]
        await until(lambda: self._running("fill-") >= jobs, f"{jobs} pods run", 0.2)
        return jobs / (time.perf_counter() - began)

    async def settle(self, platform: Any) -> None:
        """Until events and forecasts of the fill are written: KAI's further tests begin with a fleet at rest, too."""
        began = time.perf_counter()
        while time.perf_counter() - began < 120:
            before = platform.server.store.revision
            await asyncio.sleep(1)
            if platform.server.store.revision - before < 50:
                return

    async def reclaim(self) -> float:
        began = time.perf_counter()
        await self.client.create(self.r.JOBS, job("owner", "one"))
        await until(lambda: self._running("owner-") >= 1, "the owner's pod runs")
        return time.perf_counter() - began

    async def verdict(self) -> float:
        began = time.perf_counter()
        await self.client.create(self.r.JOBS, job("gang", "many", pods=10, gpus=8))
        await until(self._said, "the gang is told why it waits")
        return time.perf_counter() - began

    def _said(self) -> bool:
        for workload in self.workloads.values():
            if workload["metadata"]["name"].startswith("job-gang-"):
                conditions = (workload.get("status") or {}).get("conditions") or ()
                return any(c["type"] == "QuotaReserved" and c["status"] == "False" and c["message"] for c in conditions)
        return False

    def _running(self, prefix: str) -> int:
        running: Callable[[dict[str, Any]], bool] = lambda p: (p.get("status") or {}).get("phase") == "Running"  # noqa: E731
        return sum(p["metadata"]["name"].startswith(prefix) and running(p) for p in self.pods.values())


async def measure(nodes: int, jobs: int) -> None:
    from glebe.node.fleet import parse_fleet
    from glebe.platform.frontend import open_platform
    from glebe.platform.paths import DataDir

    with tempfile.TemporaryDirectory(prefix="glebe-bench-") as directory:
        text = fleet_file(nodes).replace("  runTime:", "  startDelay: 20ms\n  runTime:")
        fleet = parse_fleet(text, "the benchmark's fleet")
        async with open_platform(DataDir(Path(directory)), fleet, "127.0.0.1", 0) as (_, platform):
            run = _Run(platform)
            await run.prepare(nodes)
            rate = await run.fill(jobs)
            show(
                f"{jobs:,} one-GPU jobs on {nodes} x 8 GPUs: pods running",
                rate,
                FILL_RATE,
                "per s",
                more_is_better=True,
            )
            await run.settle(platform)
            if jobs == 8 * nodes:
                show("one GPU taken back from who borrowed it", await run.reclaim(), RECLAIM, "s")
            show("a gang of 10 pods learns why it cannot start", await run.verdict(), VERDICT, "s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=500)
    parser.add_argument("--jobs", type=int, help="one-GPU jobs (else as many as GPUs); fewer: no reclaim is measured")
    options = parser.parse_args()
    import uvloop

    print("KAI-Scheduler's scale tests")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(measure(options.nodes, options.jobs or 8 * options.nodes))


if __name__ == "__main__":
    main()
