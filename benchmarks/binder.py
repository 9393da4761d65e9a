"""How many pods per second the binder binds on 1,000 nodes, with the API server's part and the events included.

Beside it kube-scheduler's own floors (scheduler_perf, 5,000 nodes): 680 pods/s for 10,000 basic pods, 810 for 50,000.
Theirs are another machine and another size; the ratio gives the order of magnitude and no more.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.informer import Informers
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import Object
from glebe.kube.resources import NAMESPACES, NODES, PODS
from glebe.workloads.binder import controller as binder

FLOOR = 500.0  # pods/s
UPSTREAM = 680.0


def node(number: int) -> Object:
    amounts = {"cpu": "192", "memory": "2Ti", "pods": "110", "nvidia.com/gpu": "8"}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "", "lastTransitionTime": None}
    return {
        "metadata": {
            "name": f"n{number:04}",
            "labels": {"kubernetes.io/hostname": f"n{number:04}", "rack": f"r{number % 20:02}"},
        },
        "status": {"conditions": [ready], "allocatable": amounts, "capacity": amounts},
    }


def choosy_pod(number: int) -> Object:
    """A replica of one of 50 applications: even over the racks, no two on one node."""
    app = {"app": f"a{number % 50}"}
    selector = {"labelSelector": {"matchLabels": app}}
    spread = {**selector, "topologyKey": "rack", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}
    apart = [{**selector, "topologyKey": "kubernetes.io/hostname"}]
    made = pod(number)
    made["metadata"]["labels"] = app
    made["spec"]["topologySpreadConstraints"] = [spread]
    made["spec"]["affinity"] = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": apart}}
    return made


def pod(number: int) -> Object:
    limits = {"nvidia.com/gpu": str(1 + number % 4)}
    container = {"name": "main", "image": "x", "resources": {"limits": limits}}
    return {"metadata": {"name": f"p{number:05}"}, "spec": {"containers": [container]}}


async def measure(nodes: int, pods: int, make: Callable[[int], Object] = pod) -> float:
    """Seconds from the binder's start until all pods (``make(number)``) are bound."""
    env = Env.system()
    server = ApiServer(MemoryStore(), env, TypeRegistry())
    await server.start()
    client = Client(InProcessTransport(server.handle))
    await client.create(NAMESPACES, {"metadata": {"name": "bench"}})
    for number in range(nodes):
        wanted = node(number)
        made = await client.create(NODES, wanted)
        made["spec"].pop("taints", None)
        made = await client.update(NODES, made)
        await client.update_status(NODES, {**made, "status": wanted["status"]})
    for number in range(pods):
        await client.create(PODS, make(number), "bench")
    informers = Informers(client, env)
    bound: set[str] = set()
    done = asyncio.Event()

    def count(_: Object | None, new: Object | None) -> None:
        if new is not None and new["spec"].get("nodeName"):
            bound.add(new["metadata"]["name"])
            if len(bound) == pods:
                done.set()

    informers.get(PODS).add_handler(count)
    controller = binder.build(client, informers, env)
    began = time.perf_counter()
    async with asyncio.timeout(120):
        tasks = [asyncio.create_task(informers.run()), asyncio.create_task(controller.run())]
        await done.wait()
        seconds = time.perf_counter() - began
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await server.close()
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--pods", type=int, default=2500)
    options = parser.parse_args()
    print(f"binder, {options.pods} pods on {options.nodes} nodes, API server and events included")
    for title, make in (("plain pods", pod), ("with spread and anti-affinity", choosy_pod)):
        rate = options.pods / asyncio.run(measure(options.nodes, options.pods, make))
        verdict = "holds" if rate >= FLOOR else "MISSED"
        print(
            f"  {title}: bound {rate:.0f} pods/s, at least {FLOOR:.0f} wanted, {rate / FLOOR:.1f} times that  {verdict}"
        )
        print(f"    kube-scheduler's floor {UPSTREAM:.0f} pods/s: {rate / UPSTREAM:.1f} times that")
    return 0


if __name__ == "__main__":
    sys.exit(main())
