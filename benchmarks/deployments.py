"""What Deployments cost: many at once across many logical clusters, until all are Available.

One process: the API server (memory), all controllers over all clusters, and a simulated node that binds each pod it
sees and says that it is ready. Prints seconds, CPU seconds, requests and what the process costs at rest.

    python benchmarks/deployments.py [--deployments 1000] [--replicas 5] [--clusters 100] [--profile FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import resource
import time
from typing import Any

from glebe import workloads
from glebe.apiserver.server import ApiServer
from glebe.apiserver.store.memory import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env, format_time
from glebe.kube.errors import ApiError
from glebe.kube.informer import Informers
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import EVERY, Object, cluster_of, condition_is_true
from glebe.kube.resources import DEPLOYMENTS, PODS


def deployment(name: str, replicas: int) -> Object:
    labels = {"app": name}
    container = {"name": "main", "image": "registry.example/app:1", "ports": [{"containerPort": 80}]}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}


class Node:
    """Says of every pod that it is ready, once. A simulated node in one write per pod."""

    def __init__(self, every: Client, informers: Informers, env: Env) -> None:
        self._every, self._env = every, env
        self._todo: asyncio.Queue[Object] = asyncio.Queue()
        informers.get(PODS).add_handler(self._seen)

    def _seen(self, old: Object | None, new: Object | None) -> None:
        if old is None and new is not None and not condition_is_true(new, "Ready"):
            self._todo.put_nowait(new)

    async def run(self) -> None:
        while True:
            pod = await self._todo.get()
            now = format_time(self._env.clock.now())
            conditions = [
                {"type": kind, "status": "True", "lastTransitionTime": now}
                for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
            ]
            status = {"status": {"phase": "Running", "conditions": conditions, "podIP": "10.0.0.1"}}
            meta = pod["metadata"]
            try:
                client = self._every.at(cluster_of(pod))
                await client.patch(PODS, meta["name"], status, meta["namespace"], subresource="status")
            except ApiError as error:
                if error.code != 404:
                    raise


async def measure(args: argparse.Namespace) -> dict[str, Any]:
    env = Env.system()
    server = ApiServer(MemoryStore(), env, TypeRegistry())
    server.clusters.root_ca = "PEM"
    await server.start()
    every = Client(InProcessTransport(server.handle), cluster=EVERY)
    informers = Informers(every, env)
    made = workloads.controllers(every, informers, env, root_ca="PEM")
    node = Node(every, informers, env)
    tasks = [asyncio.create_task(t) for t in (informers.run(), node.run(), *(c.run() for c in made))]
    for i in range(args.clusters):
        await server.clusters.create(f"c{i}")
    await asyncio.sleep(2)
    store = informers.get(DEPLOYMENTS).store
    revision, started, cpu = server.store.revision, time.perf_counter(), time.process_time()
    profile = cProfile.Profile() if args.profile else None
    if profile:
        profile.enable()
    for i in range(args.deployments):
        await every.for_cluster(f"c{i % args.clusters}").create(DEPLOYMENTS, deployment(f"d{i}", args.replicas))
    sent = time.perf_counter() - started
    while time.perf_counter() - started < args.limit:
        await asyncio.sleep(0.1)
        full = [d for d in store.values() if (d.get("status") or {}).get("availableReplicas") == args.replicas]
        if len(full) == args.deployments and all(condition_is_true(d, "Available") for d in full):
            break
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    if profile:
        profile.disable()
        profile.dump_stats(args.profile)
    writes = server.store.revision - revision
    await asyncio.sleep(3)
    idle = time.process_time()
    await asyncio.sleep(args.rest)
    idle = (time.process_time() - idle) / args.rest
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {
        "available": len(full),
        "seconds": round(seconds, 2),
        "seconds_to_create": round(sent, 2),
        "cpu_seconds": round(cpu, 2),
        "writes": writes,
        "writes_per_pod": round(writes / (args.deployments * args.replicas), 2),
        "reconciliations": {c.name: c.reconciled for c in made if c.reconciled},
        "failures": {c.name: c.failed for c in made if c.failed},
        "cpu_at_rest": round(idle, 4),
        "max_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deployments", type=int, default=1000)
    parser.add_argument("--replicas", type=int, default=5)
    parser.add_argument("--clusters", type=int, default=100)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds after which to give up")
    parser.add_argument("--rest", type=float, default=5.0, help="seconds over which the cost at rest is measured")
    parser.add_argument("--profile", help="write a profile of the busy phase here")
    print(json.dumps(asyncio.run(measure(parser.parse_args())), indent=1))


if __name__ == "__main__":
    main()
