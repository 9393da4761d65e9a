"""Tenants: Deployments in several logical clusters on simulated nodes of their own that fail, flap and are cut off.

One binder, one node life cycle and one simulator serve all clusters here, under the same faults as the rest of the
simulation. After every write: pods are on nodes of their own cluster, never move, and never get more than a node has.
In the end, with faults over and nodes back, every Deployment is complete.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import orjson

from glebe.apiserver.store import MemoryStore
from glebe.apiserver.store.base import Entry, Key, Make
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError, is_not_found
from glebe.kube.objects import Object, condition_is_true, is_deleting
from glebe.kube.resources import DEPLOYMENTS, NODES, PODS
from glebe.kube.transport import Transport
from glebe.node.fleet import parse_fleet
from glebe.node.simulated.scenario import parse_scenario
from glebe.platform.embedded import Platform, PlatformConfig
from glebe.platform.simulation.faults import FaultRates, FaultyTransport
from glebe.platform.simulation.world import phase, requests

NAMES = ("t0", "t1", "t2")
SPAN, SETTLE = 240.0, 1200.0
CPUS = 4
_FLEET = f"""\
apiVersion: glebe.dev/v1alpha1
kind: Fleet
pools: [{{name: team, count: 3, cpu: "{CPUS}", clusters: [{", ".join(NAMES)}], startDelay: 'uniform(200ms, 3s)'}}]
"""
_SCENARIO = """\
apiVersion: glebe.dev/v1alpha1
kind: Scenario
seed: {seed}
nodes:
- {{do: fail, share: 0.4, at: 'uniform(5s, 200s)', for: 'uniform(5s, 90s)'}}
- {{do: cutOff, share: 0.4, at: 'uniform(5s, 200s)', for: 'uniform(5s, 90s)'}}
- {{do: notReady, share: 0.5, at: 'uniform(5s, 200s)', for: 'uniform(2s, 40s)'}}
- {{do: slowStatus, share: 0.3, at: 'uniform(5s, 100s)', for: 60s, delay: 'uniform(1s, 5s)'}}
- {{do: drain, share: 0.2, at: 'uniform(5s, 150s)', for: 'uniform(10s, 60s)'}}
pods: [{{share: 0.1, failAfter: 'uniform(5s, 60s)', failTimes: 2}}, {{share: 0.1, readyAfter: 10s}}]
"""


class _Store(MemoryStore):
    """Tells of each committed write with its logical cluster."""

    def __init__(self, tell: Callable[[Key, bytes | None], None]) -> None:
        super().__init__()
        self._tell = tell

    async def put(self, key: Key, make: Make, expected: int | None) -> Entry:
        entry = await super().put(key, make, expected)
        self._tell(key, entry.value)
        return entry

    async def delete(self, key: Key, make: Make, expected: int | None) -> Entry:
        entry = await super().delete(key, make, expected)
        self._tell(key, None)
        return entry


class _Judge:
    """What must hold after every write; ``violation`` is the first that did not."""

    def __init__(self) -> None:
        self.violation = ""
        self.writes = 0
        self._pods: dict[tuple[str, str, str], Object] = {}

    def observe(self, key: Key, body: bytes | None) -> None:
        self.writes += 1
        if key.resource != "pods" or self.violation:
            return
        where = (key.cluster, key.namespace, key.name)
        old, new = self._pods.pop(where, None), orjson.loads(body) if body else None
        if new is None:
            return
        self._pods[where] = new
        self.violation = self._wrong(key.cluster, old, new)

    def _wrong(self, cluster: str, old: Object | None, new: Object) -> str:
        name, node = f"{cluster}:{new['metadata']['name']}", new["spec"].get("nodeName")
        if old is not None and old["metadata"]["uid"] == new["metadata"]["uid"]:
            if old["spec"].get("nodeName") not in (None, node):
                return f"pod {name} moved from {old['spec']['nodeName']} to {node}"
            if phase(old) in ("Succeeded", "Failed") and phase(new) != phase(old):
                return f"pod {name} ended as {phase(old)} and is {phase(new)}"
        if node is None:
            return ""
        if cluster not in NAMES or not node.startswith("team-"):
            return f"pod {name} is on node {node}, which its cluster does not have"
        used = sum(
            requests(pod).get("cpu", 0)
            for (other, _, _), pod in self._pods.items()
            if other == cluster and pod["spec"].get("nodeName") == node and phase(pod) not in ("Succeeded", "Failed")
        )
        return f"node {node} of {cluster} has given {used} of {CPUS} CPUs" if used > CPUS else ""


async def run(seed: int, rates: FaultRates, folder: Path) -> tuple[str, int, int]:
    """(the first violation or "", writes, faults) of one seed."""
    env, rng, judge = Env.seeded(seed), random.Random(f"tenants-{seed}"), _Judge()
    transports: list[FaultyTransport] = []

    def wrap(part: str, transport: Transport) -> Transport:
        faulty = FaultyTransport(transport, random.Random(f"tenants-{seed}-{part}-{len(transports)}"), rates)
        faulty.active = not calm
        transports.append(faulty)
        return faulty

    calm = False
    config = PlatformConfig(
        parse_fleet(_FLEET, "simulation"),
        ledger=folder / "tenants.db",
        scenario=parse_scenario(_SCENARIO.format(seed=seed), "simulation"),
    )
    async with Platform(config, env, _Store(judge.observe), wrap_transport=wrap) as platform:
        await _load(platform, rng)
        calm = True
        for transport in transports:
            transport.active = False
        left = await _settle(platform, judge)
    injected = sum(transport.injected for transport in transports)
    return judge.violation or left, judge.writes, injected


async def _load(platform: Platform, rng: random.Random) -> None:
    """Clusters come, one goes; Deployments are made and scaled; parts are killed and restarted."""
    todo: list[tuple[float, Callable[[], Awaitable[object]]]] = []
    clusters = platform.server.clusters
    for number, name in enumerate(NAMES):
        client, come = platform.client.for_cluster(name), rng.uniform(0, 60) * (number > 0)
        todo.append((come, partial(clusters.create, name)))
        for app in ("web", "api"):
            made, scaled = _deployment(app, rng.randint(1, 4)), {"spec": {"replicas": rng.randint(1, 5)}}
            todo.append((come + rng.uniform(0.1, 60), partial(client.create, DEPLOYMENTS, made)))
            at = come + rng.uniform(61, SPAN - 61)
            todo.append((at, partial(client.patch, DEPLOYMENTS, app, scaled, "default")))
    for _ in range(2):
        part, at = rng.choice(("workloads", "nodes")), rng.uniform(20, SPAN - 20)
        todo.append((at, partial(platform.crash, part)))
        todo.append((at + 4, partial(_again, platform, part)))
    if rng.random() < 0.5:
        todo.append((SPAN - 5, partial(clusters.delete, NAMES[-1])))
    loop = asyncio.get_running_loop()
    began = loop.time()
    for at, act in sorted(todo, key=lambda each: each[0]):
        await asyncio.sleep(max(0.0, began + at - loop.time()))
        await act()
    await asyncio.sleep(max(0.0, began + SPAN - loop.time()))


async def _again(platform: Platform, part: str) -> None:
    if not platform.parts.running(part):
        await platform.restart(part)


def _deployment(name: str, replicas: int) -> Object:
    labels = {"app": name}
    container = {"name": "main", "image": "app", "resources": {"requests": {"cpu": "1"}}}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}


async def _settle(platform: Platform, judge: _Judge) -> str:
    """Wait until everything is as it should be; what is not, if that takes too long."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SETTLE
    while True:
        left = [text for name in NAMES for text in await _unfinished(platform.client.for_cluster(name), name)]
        if not left or judge.violation:
            return ""
        if loop.time() > deadline:
            return f"not settled after {SETTLE:.0f} s without faults: {'; '.join(left[:5])}"
        await asyncio.sleep(10)


async def _unfinished(client: Client, cluster: str) -> list[str]:
    try:
        nodes = {n["metadata"]["name"]: n for n in (await client.list(NODES)).items}
        deployments = (await client.list(DEPLOYMENTS)).items
        pods = (await client.list(PODS)).items
    except ApiError as error:
        if is_not_found(error):
            return []  # the cluster is gone
        raise
    left = [f"{cluster}: node {n} is not ready" for n, node in nodes.items() if not condition_is_true(node, "Ready")]
    left += [] if len(nodes) == 3 else [f"{cluster}: {len(nodes)} nodes"]
    for each in deployments:
        status, wanted = each.get("status") or {}, each["spec"]["replicas"]
        if status.get("availableReplicas", 0) != wanted or status.get("replicas") != wanted:
            left.append(f"{cluster}: {each['metadata']['name']} has {status.get('availableReplicas', 0)} of {wanted}")
    wrong = [p["metadata"]["name"] for p in pods if is_deleting(p) or p["spec"].get("nodeName") not in nodes]
    return left + [f"{cluster}: pod {name}" for name in wrong]
