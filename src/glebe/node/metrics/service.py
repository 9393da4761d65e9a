"""What nodes and pods of all logical clusters use, as ``metrics.k8s.io/v1beta1`` says it.

Nothing is done while nobody asks. This process' own node is asked directly, other nodes through the API server, and
pods of simulated nodes use what they declare.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from glebe.kube.client import Client
from glebe.kube.clock import Env, format_time
from glebe.kube.errors import ApiError
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey, cluster_of, key_of
from glebe.kube.pods import BY_PLACE, BY_SPACE, has_ended, place_of, space, space_of
from glebe.kube.resources import NODES, PODS
from glebe.kube.transport import ConnectionLost
from glebe.node.metrics import declared
from glebe.node.metrics.model import Place, Rate, Used, rate
from glebe.node.metrics.scraping import scrape
from glebe.node.metrics.stations import FRESH, Pair, Station, Take
from glebe.node.spec import KIND_LABEL

log = logging.getLogger("glebe.node.metrics")

GROUP, VERSION = "metrics.k8s.io", "v1beta1"
_API = f"{GROUP}/{VERSION}"
_BY_CLUSTER = "metrics-by-cluster"
_PARALLEL = 16
_FORGET = 600.0  # seconds after which a node that nobody asks for is forgotten
_TURN = 500  # pods between two turns of others

#: Takes a sample of a node that runs in this process; None for all others.
Local = Callable[[ObjectKey], Take | None]


class MetricsService:
    """
    :param client: of all logical clusters; :param informers: over all of them; somebody else runs them.
    """

    def __init__(self, client: Client, informers: Informers, env: Env, local: Local) -> None:
        self._client = client
        self._clock = env.clock
        self._local = local
        self._pods = informers.get(PODS, indexers={BY_PLACE: place_of, BY_SPACE: space_of, _BY_CLUSTER: _where})
        self._nodes = informers.get(NODES, indexers={_BY_CLUSTER: _where})
        self._stations: dict[ObjectKey, Station] = {}
        self._complaints: set[ObjectKey] = set()

    async def run(self) -> None:
        """Forget what nobody asks for any more, until cancelled."""
        while True:
            await asyncio.sleep(_FORGET)
            now = self._clock.now()
            for key in [k for k, s in self._stations.items() if now - s.taken > _FORGET and not s.lock.locked()]:
                del self._stations[key]

    # --- nodes

    async def nodes(self, cluster: str, choose: Callable[[Object], bool]) -> list[Object]:
        """``NodeMetrics`` of the chosen nodes that can be measured, by name."""
        await self._nodes.wait_synced()
        await self._pods.wait_synced()
        there = self._nodes.store.by_index(_BY_CLUSTER, cluster)
        chosen = sorted(((key_of(node), node) for node in there if choose(node)), key=lambda each: each[0])
        pairs = await self._pairs(key for key, node in chosen if not _simulated(node))
        out = []
        for key, node in chosen:
            found = self._declared(key) if _simulated(node) else _node_rate(pairs.get(key))
            if found is not None:
                out.append(_object("NodeMetrics", node, found, usage=_usage(found.cpu, found.memory)))
            if len(out) % 100 == 99:
                await asyncio.sleep(0)
        return out

    def _declared(self, node: ObjectKey) -> Rate:
        """A simulated node uses what its pods use."""
        cores, memory = 0.0, 0
        for pod in self._pods.store.by_index(BY_PLACE, space(node.cluster, node.name)):
            for cpu, used in declared.usage_of(pod).values():
                cores, memory = cores + cpu, memory + used
        return Rate(cores, memory, self._clock.now(), FRESH)

    # --- pods

    async def pods(self, cluster: str, namespace: str, choose: Callable[[Object], bool]) -> list[Object]:
        """``PodMetrics`` of the chosen pods that run and can be measured, by namespace ("": all) and name."""
        await self._nodes.wait_synced()
        await self._pods.wait_synced()
        chosen = await self._running(cluster, namespace, choose)
        pairs = await self._pairs({key: None for key, _, simulated in chosen if not simulated})
        out = []
        for index, (key, pod, simulated) in enumerate(chosen, 1):
            rates = self._declared_rates(pod) if simulated else _pod_rates(pod, pairs.get(key))
            if rates:
                first = min(rates.values(), key=lambda r: r.window)
                containers = [{"name": name, "usage": _usage(r.cpu, r.memory)} for name, r in rates.items()]
                out.append(_object("PodMetrics", pod, first, containers=containers))
            if index % _TURN == 0:
                await asyncio.sleep(0)
        return out

    async def _running(
        self, cluster: str, namespace: str, choose: Callable[[Object], bool]
    ) -> list[tuple[ObjectKey, Object, bool]]:
        """(node, pod, is the node simulated), in the order of the answer."""
        found: list[tuple[ObjectKey, Object, bool]] = []
        store = self._pods.store
        pods = (
            store.by_index(BY_SPACE, space(cluster, namespace)) if namespace else store.by_index(_BY_CLUSTER, cluster)
        )
        for index, pod in enumerate(pods, 1):
            node = pod["spec"].get("nodeName")
            if node and not has_ended(pod) and choose(pod):
                key = ObjectKey(cluster, "", node)
                known = self._nodes.store.get(key)
                if known is not None:
                    found.append((key, pod, _simulated(known)))
            if index % _TURN == 0:
                await asyncio.sleep(0)
        return sorted(found, key=lambda each: (each[1]["metadata"]["namespace"], each[1]["metadata"]["name"]))

    def _declared_rates(self, pod: Object) -> dict[str, Rate]:
        now = self._clock.now()
        return {name: Rate(cpu, memory, now, FRESH) for name, (cpu, memory) in declared.usage_of(pod).items()}

    # --- samples

    async def _pairs(self, keys: Iterable[ObjectKey]) -> dict[ObjectKey, Pair]:
        """Samples of all nodes that give any, a few nodes at a time."""
        todo = iter(list(keys))
        found: dict[ObjectKey, Pair] = {}

        async def work() -> None:
            for key in todo:
                pair = await self._pair(key)
                if pair is not None:
                    found[key] = pair

        await asyncio.gather(*(work() for _ in range(_PARALLEL)))
        return found

    async def _pair(self, key: ObjectKey) -> Pair | None:
        take = self._local(key) or self._remote(key)
        if take is None:
            return None
        try:
            pair = await self._stations.setdefault(key, Station()).pair(take, self._clock)
        except (ApiError, ConnectionLost, TimeoutError, ValueError, OSError) as error:
            if key not in self._complaints:
                self._complaints.add(key)
                log.warning("node %s gives no metrics: %s", key, error)
            return None
        self._complaints.discard(key)
        return pair

    def _remote(self, key: ObjectKey) -> Take | None:
        node = self._nodes.store.get(key) or {}
        endpoint = ((node.get("status") or {}).get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}
        if not endpoint.get("Port"):
            return None
        return lambda: scrape(self._client.at(key.cluster), key.name, self._clock.now())


def _where(obj: Object) -> list[str]:
    return [cluster_of(obj)]


def _simulated(node: Object) -> bool:
    return (node["metadata"].get("labels") or {}).get(KIND_LABEL) == "simulated"


def _node_rate(pair: Pair | None) -> Rate | None:
    return None if pair is None else rate(pair.before.node, pair.before.time, pair.last.node, pair.last.time)


def _pod_rates(pod: Object, pair: Pair | None) -> dict[str, Rate]:
    """By container; nothing at all while one that runs is not known, as the metrics server does."""
    if pair is None:
        return {}
    meta = pod["metadata"]
    out: dict[str, Rate] = {}
    for container in declared.running_containers(pod):
        place = Place(meta["namespace"], meta["name"], str(container["name"]))
        now: Used | None = pair.last.containers.get(place)
        found = rate(pair.before.containers.get(place), pair.before.time, now, pair.last.time) if now else None
        if found is None:
            return {}
        out[place.container] = found
    return out


def _usage(cores: float, memory: int) -> dict[str, str]:
    return {"cpu": f"{max(0, round(cores * 1e9))}n" if cores else "0", "memory": f"{-(-memory // 1024)}Ki"}


def _object(kind: str, of: Object, at: Rate, **more: object) -> Object:
    meta = of["metadata"]
    kept = {field: meta[field] for field in ("name", "namespace", "labels") if meta.get(field)}
    stamp = format_time(at.time)
    window = f"{at.window:.3f}".rstrip("0").rstrip(".") + "s"
    head = {"kind": kind, "apiVersion": _API, "metadata": {**kept, "creationTimestamp": stamp}}
    return {**head, "timestamp": stamp, "window": window, **more}
