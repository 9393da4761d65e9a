"""What volume claims cost: StatefulSets whose pods each have one, on simulated nodes, in several logical clusters.

``python benchmarks/claims.py`` assembles the platform in this process on a store in memory, makes the clusters and the
StatefulSets, and waits until every pod is on its node and every claim is bound; then the same without claims. The
difference is what claims cost. ``--profile`` says which part takes what share.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import sys
import time
from contextlib import suppress
from typing import Any

from embedded import Row, show
from glebe.apiserver.store.memory import MemoryStore
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.informer import Informer
from glebe.kube.objects import EVERY, Object
from glebe.kube.resources import NODES, PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS
from glebe.node.fleet import parse_fleet
from glebe.platform.embedded import Platform, PlatformConfig

PER_CLAIM = 15.0
"""Milliseconds: about four writes, and as many looks."""
FLEET = """\
apiVersion: glebe.dev/v1alpha1
kind: Fleet
pools: [{{name: sim, count: {nodes}, startDelay: 100ms, clusters: "*"}}]
"""


def stateful_set(name: str, replicas: int, claims: bool) -> Object:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "x"}]}}
    amount = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    spec: dict[str, Any] = {
        "replicas": replicas,
        "serviceName": name,
        "podManagementPolicy": "Parallel",
        "selector": {"matchLabels": labels},
        "template": template,
    }
    if claims:
        spec["volumeClaimTemplates"] = [{"metadata": {"name": "data"}, "spec": amount}]
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": meta, "spec": spec}


async def measure(options: argparse.Namespace, claims: bool) -> tuple[float, float]:
    """Wall and CPU seconds until everything is in place."""
    fleet = parse_fleet(FLEET.format(nodes=options.nodes), "fleet")
    config = PlatformConfig(fleet, shared_cache=True)
    async with Platform(config, Env.system(), MemoryStore()) as platform:
        every = Client(platform.client.transport, cluster=EVERY)
        names = [f"c{number}" for number in range(options.clusters)]
        for name in names:
            await platform.server.clusters.create(name)
        watched = {kind: Informer(every, kind, Env.system()) for kind in (NODES, PODS, PERSISTENT_VOLUME_CLAIMS)}
        tasks = [asyncio.create_task(each.run()) for each in watched.values()]
        await until(lambda: len(watched[NODES].store) >= options.nodes * options.clusters)
        await asyncio.sleep(2)
        total = options.sets * options.replicas
        began, cpu = time.perf_counter(), time.process_time()
        for number in range(options.sets):
            body = stateful_set(f"s{number}", options.replicas, claims)
            await every.for_cluster(names[number % len(names)]).create(STATEFUL_SETS, body)

        def placed() -> int:
            return sum(1 for pod in watched[PODS].store.values() if pod["spec"].get("nodeName"))

        def bound() -> int:
            claims_now = watched[PERSISTENT_VOLUME_CLAIMS].store.values()
            return sum(1 for claim in claims_now if (claim.get("status") or {}).get("phase") == "Bound")

        await until(lambda: placed() >= total and (not claims or bound() >= total))
        spent = time.perf_counter() - began, time.process_time() - cpu
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)
        return spent


async def until(what: Any) -> None:
    async with asyncio.timeout(300):
        while not what():  # noqa: ASYNC110 - the wait is what is measured
            await asyncio.sleep(0.05)


async def run(options: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    total = options.sets * options.replicas
    with_claims = await measure(options, True)
    without = await measure(options, False)
    for text, (wall, cpu) in (("with claims", with_claims), ("without", without)):
        show(Row(f"{total} pods {text}, until all are placed", wall, "s"), rows)
        show(Row(f"{total} pods {text}, CPU", cpu, "s"), rows)
    show(Row("CPU for one claim", (with_claims[1] - without[1]) / total * 1000, "ms", bound=PER_CLAIM), rows)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", type=int, default=20)
    parser.add_argument("--replicas", type=int, default=50)
    parser.add_argument("--clusters", type=int, default=4)
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    if options.profile:
        profile = cProfile.Profile()
        profile.runcall(asyncio.run, measure(options, True))
        pstats.Stats(profile).sort_stats("cumulative").print_stats("glebe", 60)
        return 0
    asyncio.run(run(options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
