"""What Deployments cost: 1,000 of 5 replicas at once across 100 logical clusters, until all are Available.

``python benchmarks/deployments.py`` starts ``glebe up`` (SQLite with fsync, TLS) with simulated nodes in every logical
cluster, makes the clusters, then all Deployments through the API as fast as it lets it, and watches until each has all
its replicas available: Deployment and ReplicaSet controllers, binder, nodes, endpoints, everything that runs there.
The bars: 60 s on 2 cores, and less than 5 % of a core afterwards.

``--inside`` runs the same platform in this process under a profiler and says which part takes what share.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import orjson

from density import Pool, cpu_seconds, in_parallel
from embedded import Row, show
from glebe.apiserver.store.sqlite import SQLiteStore
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.http import HttpTransport
from glebe.kube.informer import Informer
from glebe.kube.objects import EVERY, Object, condition_is_true
from glebe.kube.resources import DEPLOYMENTS, NODES
from glebe.kube.transport import Transport
from glebe.node.fleet import parse_fleet
from glebe.platform.embedded import Platform, PlatformConfig
from servers import Ours

LIMIT, AT_REST = 60.0, 5.0
FLEET = """\
apiVersion: glebe.dev/v1alpha1
kind: Fleet
pools: [{name: sim, count: 2, startDelay: 200ms, clusters: "*"}]
"""


def deployment(name: str, replicas: int) -> Object:
    labels = {"app": name}
    container = {"name": "main", "image": "registry.example/app:1", "ports": [{"containerPort": 80}]}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}


class Up(Ours):
    """``glebe up`` with a fleet file."""

    async def _serve(self, name: str, began: float, *more: str) -> float:
        fleet = self._directory / "fleet.yaml"
        fleet.write_text(FLEET, encoding="utf-8")
        return await self._begin("up", name, began, "--fleet", str(fleet), *more)


class Done:
    """How far the Deployments are, by a watch over all clusters."""

    def __init__(self, transport: Transport, replicas: int, nodes: int, deployments: int) -> None:
        every = Client(transport, cluster=EVERY)
        self.deployments, self.nodes = asyncio.Event(), asyncio.Event()
        self.available: set[tuple[str, str]] = set()
        env = Env.system()
        watched = Informer(every, DEPLOYMENTS, env)
        ready = Informer(every, NODES, env)

        def seen(_: Object | None, new: Object | None) -> None:
            if new is None or (new.get("status") or {}).get("availableReplicas") != replicas:
                return
            if condition_is_true(new, "Available"):
                self.available.add((new["metadata"]["clusterName"], new["metadata"]["name"]))
                if len(self.available) >= deployments:
                    self.deployments.set()

        def registered(_: Object | None, __: Object | None) -> None:
            if sum(condition_is_true(n, "Ready") for n in ready.store.values()) >= nodes:
                self.nodes.set()

        watched.add_handler(seen)
        ready.add_handler(registered)
        self.informers = (watched, ready)


async def drive(options: argparse.Namespace, ask: Any, done: Done) -> float:
    """Make clusters, wait for their nodes, make Deployments; seconds until all are Available."""

    async def cluster(number: int) -> None:
        await ask("POST", "/clusters", orjson.dumps({"metadata": {"name": f"c{number}"}}), status=201)

    async def make(number: int) -> None:
        path = f"/clusters/c{number % options.clusters}/apis/apps/v1/namespaces/default/deployments"
        await ask("POST", path, orjson.dumps(deployment(f"d{number}", options.replicas)), status=201)

    await in_parallel(options.clusters, 16, cluster)
    async with asyncio.timeout(60):
        await done.nodes.wait()
    await asyncio.sleep(3)
    if options.before is not None:
        options.before()
    began = time.perf_counter()
    await in_parallel(options.deployments, 16, make)
    async with asyncio.timeout(options.limit):
        await done.deployments.wait()
    return time.perf_counter() - began


async def outside(options: argparse.Namespace, directory: Path) -> list[Row]:
    """Against ``glebe up``."""
    rows: list[Row] = []
    server = Up(directory)
    try:
        await server.start()
        assert server.config is not None
        pid, transport = server._processes[0].pid, HttpTransport.from_config(server.config)
        done = Done(transport, options.replicas, 2 * (options.clusters + 1), options.deployments)
        tasks = [asyncio.create_task(each.run()) for each in done.informers]
        spent = [0.0]

        def mark() -> None:
            spent[0] = cpu_seconds(pid)

        options.before = mark
        try:
            async with Pool(server.address, 16) as pool:
                seconds = await drive(options, pool.ask, done)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await transport.close()
        busy = cpu_seconds(pid) - spent[0]
        what = f"{options.deployments} Deployments of {options.replicas} in {options.clusters} clusters"
        show(Row(f"{what}: all Available", seconds, "s", LIMIT), rows)
        show(Row("processor time of glebe up for that", busy, "s"), rows)
        show(Row("  for each pod", busy / options.deployments / options.replicas * 1000, "ms"), rows)
        show(Row("memory afterwards", server.resident_mib() or 0.0, "MiB"), rows)
        await asyncio.sleep(5)
        spent[0] = cpu_seconds(pid)
        await asyncio.sleep(options.rest)
        show(Row("at rest", (cpu_seconds(pid) - spent[0]) / options.rest * 100, "% cpu", AT_REST), rows)
    finally:
        server.stop()
    return rows


async def inside(options: argparse.Namespace, directory: Path) -> None:
    """The same platform in this process, under a profiler."""
    config = PlatformConfig(parse_fleet(FLEET), shared_cache=True, root_ca="PEM")
    profile = cProfile.Profile()
    async with AsyncExitStack() as stack:
        platform = await stack.enter_async_context(Platform(config, Env.system(), SQLiteStore(directory / "glebe.db")))
        done = Done(platform.client.transport, options.replicas, 2 * (options.clusters + 1), options.deployments)
        tasks = [asyncio.create_task(each.run()) for each in done.informers]
        client = platform.client

        async def ask(method: str, path: str, body: bytes, *, status: int) -> None:
            await client.raw(method, path, body=body)

        options.before = profile.enable
        seconds = await drive(options, ask, done)
        profile.disable()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    print(f"{seconds:.1f} s under the profiler, which slows down what calls a lot")
    stats = pstats.Stats(profile)
    shares: Counter[str] = Counter()
    for (file, _, _), (_, _, own, _, _) in stats.stats.items():  # type: ignore[attr-defined]
        shares[_room(file)] += own
    total = sum(shares.values())
    for room, own in shares.most_common(24):
        print(f"  {room:32} {own:7.2f} s {own / total * 100:5.1f} %")
    if options.profile:
        stats.dump_stats(options.profile)


def _room(file: str) -> str:
    _, found, rest = file.partition("/glebe/")
    parts = rest.split("/")
    return "/".join(parts[:-1][:2]) or rest if found else "Python and libraries"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deployments", type=int, default=1000)
    parser.add_argument("--replicas", type=int, default=5)
    parser.add_argument("--clusters", type=int, default=100)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds after which to give up")
    parser.add_argument("--rest", type=float, default=10.0, help="seconds over which the cost at rest is measured")
    parser.add_argument("--inside", action="store_true", help="in this process, under a profiler")
    parser.add_argument("--profile", help="with --inside: write the profile here")
    options = parser.parse_args()
    options.before = None
    with tempfile.TemporaryDirectory() as directory:
        if options.inside:
            asyncio.run(inside(options, Path(directory)))
            return 0
        rows = asyncio.run(outside(options, Path(directory) / "up"))
    return 0 if all(r.bound is None or r.value <= r.bound for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
