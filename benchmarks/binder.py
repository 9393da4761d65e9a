"""The binder on 1,000 nodes, and upstream's kube-scheduler on the same API server in the same run.

``python benchmarks/binder.py`` starts ``glebe apiserver`` (SQLite with fsync, TLS; its binder runs in it), registers
the nodes and keeps them alive, and makes pods through the API as fast as it lets it. The rate counts from the first
creation to the last binding that a watch brings; the latency is that of one pod on an idle cluster. Where
``KUBEBUILDER_ASSETS`` names a folder with kube-scheduler, the same pods are then made for it (by
``spec.schedulerName``), without its limits of requests per second. The bar: 500 pods/s.

``--inside`` measures the binder alone with an API server in memory, in this process.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import orjson

from density import Pool, cpu_seconds, in_parallel, percentile
from embedded import Row, show
from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.http import HttpTransport
from glebe.kube.informer import Informer, Informers
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import Object
from glebe.kube.resources import NAMESPACES, NODES, PODS
from glebe.node.presence import Presence
from glebe.node.spec import NodeSpec
from glebe.workloads.binder import controller as binder
from servers import Ours, assets

FLOOR = 500.0  # pods/s
SPACE = "/api/v1/namespaces/bench/pods"
Make = Callable[[int], Object]


def node(number: int) -> NodeSpec:
    amounts = {"cpu": "192", "memory": "2Ti", "pods": "110", "nvidia.com/gpu": "8"}
    name = f"n{number:04}"
    return NodeSpec(name, amounts, labels={"kubernetes.io/hostname": name, "rack": f"r{number % 20:02}"})


def plain_pod(number: int) -> Object:
    limits = {"cpu": "500m", "memory": "500Mi"}
    container = {"name": "main", "image": "x", "resources": {"requests": limits}}
    return {"metadata": {"name": f"p{number:05}"}, "spec": {"containers": [container]}}


def gpu_pod(number: int) -> Object:
    limits = {"nvidia.com/gpu": str(1 + number % 4)}
    container = {"name": "main", "image": "x", "resources": {"limits": limits}}
    return {"metadata": {"name": f"g{number:05}"}, "spec": {"containers": [container]}}


def choosy_pod(number: int) -> Object:
    """A replica of one of 50 applications: even over the racks, no two on one node."""
    app = {"app": f"a{number % 50}"}
    selector = {"labelSelector": {"matchLabels": app}}
    spread = {**selector, "topologyKey": "rack", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}
    apart = [{**selector, "topologyKey": "kubernetes.io/hostname"}]
    made = plain_pod(number)
    made["metadata"] = {"name": f"c{number:05}", "labels": app}
    made["spec"]["topologySpreadConstraints"] = [spread]
    made["spec"]["affinity"] = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": apart}}
    return made


KINDS: tuple[tuple[str, Make], ...] = (
    ("plain pods", plain_pod),
    ("pods with GPUs", gpu_pod),
    ("with spread and anti-affinity", choosy_pod),
)


class Bound:
    """Which pods have a node, by a watch."""

    def __init__(self, client: Client) -> None:
        self.informer = Informer(client, PODS, Env.system(), namespace="bench")
        self._wanted, self._seen, self._done = 0, 0, asyncio.Event()
        self.informer.add_handler(self._take)

    def _take(self, old: Object | None, new: Object | None) -> None:
        if new is not None and new["spec"].get("nodeName") and not (old or {"spec": {}})["spec"].get("nodeName"):
            self._seen += 1
            if self._seen >= self._wanted:
                self._done.set()

    def expect(self, more: int) -> None:
        self._wanted, self._seen = more, 0
        self._done.clear()

    async def all(self, limit: float) -> float:
        """When the last one was seen."""
        async with asyncio.timeout(limit):
            await self._done.wait()
        return time.perf_counter()


async def rate(pool: Pool, bound: Bound, make: Make, pods: int, scheduler: str, limit: float) -> float:
    """Pods per second, from the first creation to the last binding; they are gone afterwards."""

    async def create(number: int) -> None:
        body = make(number)
        if scheduler:
            body["spec"]["schedulerName"] = scheduler
        await pool.ask("POST", SPACE, orjson.dumps(body), status=201)

    bound.expect(pods)
    began = time.perf_counter()
    await in_parallel(pods, 24, create)
    taken = await bound.all(limit) - began
    await pool.ask("DELETE", f"{SPACE}?gracePeriodSeconds=0", status=200)
    while bound.informer.store.values():  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)
    return pods / taken


async def latency(pool: Pool, bound: Bound, scheduler: str, times: int = 30) -> list[float]:
    """Seconds from sending one pod to hearing of its node."""
    found = []
    for number in range(times):
        body = plain_pod(number)
        if scheduler:
            body["spec"]["schedulerName"] = scheduler
        bound.expect(1)
        began = time.perf_counter()
        await pool.ask("POST", SPACE, orjson.dumps(body), status=201)
        found.append(await bound.all(30) - began)
        await asyncio.sleep(0.05)
    await pool.ask("DELETE", f"{SPACE}?gracePeriodSeconds=0", status=200)
    while bound.informer.store.values():  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    return found


async def outside(options: argparse.Namespace, directory: Path) -> list[Row]:
    rows: list[Row] = []
    server = Ours(directory)
    transport: HttpTransport | None = None
    tasks: list[asyncio.Task[None]] = []
    try:
        await server.start()
        assert server.config is not None
        transport = HttpTransport.from_config(server.config)
        client = Client(transport)
        await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}})
        nodes, bound = Informer(client, NODES, Env.system()), Bound(client)
        presence = Presence(client, Env.system(), [node(i) for i in range(options.nodes)], nodes, interval=20)
        tasks = [asyncio.create_task(each.run()) for each in (nodes, bound.informer, presence)]
        async with asyncio.timeout(60):
            await presence.registered.wait()
        await asyncio.sleep(3)
        async with Pool(server.address, 24) as pool:
            await _compare(options, server, pool, bound, directory, rows)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if transport is not None:
            await transport.close()
        server.stop()
    return rows


async def _compare(
    options: argparse.Namespace, server: Ours, pool: Pool, bound: Bound, directory: Path, rows: list[Row]
) -> None:
    pid = server._processes[0].pid
    ours: dict[str, float] = {}
    await rate(pool, bound, plain_pod, 100, "", 60)  # whatever is made once
    for title, make in KINDS:
        spent = cpu_seconds(pid)
        ours[title] = await rate(pool, bound, make, options.pods, "", options.limit)
        show(Row(f"{title}: bound by glebe", ours[title], "pods/s", FLOOR, True), rows)
        show(
            Row("  processor time, API server included", (cpu_seconds(pid) - spent) / options.pods * 1000, "ms/pod"),
            rows,
        )
    mine = await latency(pool, bound, "")
    show(Row("one pod on an idle cluster, p50", percentile(mine, 0.5) * 1000, "ms"), rows)
    show(Row("one pod on an idle cluster, p99", percentile(mine, 0.99) * 1000, "ms"), rows)
    folder = assets()
    if folder is None or not (folder / "kube-scheduler").exists():
        print("  kube-scheduler: not there (KUBEBUILDER_ASSETS), not compared")
        return
    config = directory / "scheduler.yaml"
    kubeconfig = directory / "data" / "kubeconfig"
    text = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"
    text += f"clientConnection: {{kubeconfig: {kubeconfig}, qps: 5000, burst: 5000}}\n"
    text += "leaderElection: {leaderElect: false}\nprofiles: [{schedulerName: peer}]\n"
    config.write_text(text, encoding="utf-8")
    command = [str(folder / "kube-scheduler"), f"--config={config}", "--secure-port=0"]
    peer = server.spawn(directory / "kube-scheduler.log", command)
    try:
        await rate(pool, bound, plain_pod, 100, "peer", 60)
        for title, make in KINDS:
            spent = cpu_seconds(pid) + cpu_seconds(peer.pid)
            theirs = await rate(pool, bound, make, options.pods, "peer", options.limit)
            show(Row(f"{title}: bound by kube-scheduler", theirs, "pods/s"), rows)
            busy = (cpu_seconds(pid) + cpu_seconds(peer.pid) - spent) / options.pods * 1000
            show(Row("  processor time, API server included", busy, "ms/pod"), rows)
            show(Row(f"  glebe's rate over kube-scheduler's, {title}", ours[title] / theirs, ""), rows)
        found = await latency(pool, bound, "peer")
        show(Row("one pod on an idle cluster, kube-scheduler, p50", percentile(found, 0.5) * 1000, "ms"), rows)
        show(Row("one pod on an idle cluster, kube-scheduler, p99", percentile(found, 0.99) * 1000, "ms"), rows)
    finally:
        peer.kill()
        peer.wait()
        server._processes.remove(peer)


async def inside(nodes: int, pods: int, make: Make) -> float:
    """Seconds from the binder's start until all pods (``make(number)``) are bound."""
    env = Env.system()
    server = ApiServer(MemoryStore(), env, TypeRegistry())
    await server.start()
    client = Client(InProcessTransport(server.handle))
    await client.create(NAMESPACES, {"metadata": {"name": "bench"}})
    informers = Informers(client, env)
    presence = Presence(client, env, [node(i) for i in range(nodes)], informers.get(NODES))
    tasks = [asyncio.create_task(informers.run()), asyncio.create_task(presence.run())]
    await presence.registered.wait()
    for each in (await client.list(NODES)).items:
        each["spec"].pop("taints", None)
        await client.update(NODES, each)
    for number in range(pods):
        await client.create(PODS, make(number), "bench")
    bound = Bound(client)
    bound.expect(pods)
    tasks.append(asyncio.create_task(bound.informer.run()))
    controller = binder.build(client, informers, env)
    began = time.perf_counter()
    tasks.append(asyncio.create_task(controller.run()))
    seconds = await bound.all(120) - began
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await server.close()
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--pods", type=int, default=2000)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds after which to give up")
    parser.add_argument("--inside", action="store_true", help="the binder alone, API server in memory, this process")
    options = parser.parse_args()
    print(f"binder, {options.pods} pods on {options.nodes} nodes")
    rows: list[Row] = []
    if options.inside:
        for title, make in KINDS:
            seconds = asyncio.run(inside(options.nodes, options.pods, make))
            show(Row(f"{title}, in memory", options.pods / seconds, "pods/s", FLOOR, True), rows)
    else:
        with tempfile.TemporaryDirectory() as directory:
            rows = asyncio.run(outside(options, Path(directory) / "ours"))
    return 0 if all(r.bound is None or r.value >= r.bound for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
