"""Watches nodes, their leases and their pods; writes conditions and taints, and evicts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from glebe.kube.client import Client
from glebe.kube.clock import Env, format_time
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError, is_not_found
from glebe.kube.events import EventRecorder
from glebe.kube.informer import Informers
from glebe.kube.objects import EVERY, Object, ObjectKey, get_condition, is_deleting, key_of
from glebe.kube.pods import BY_PLACE, has_ended, node_of, place_of, space
from glebe.kube.resources import LEASES, NODES, PODS
from glebe.workloads.nodes.eviction import Eviction, Way, driving_out, evictions
from glebe.workloads.nodes.health import GRACE, assess, heartbeat_of, troubles
from glebe.workloads.nodes.lifetimes import Lifetimes
from glebe.workloads.nodes.unready import Unready

LEASE_NAMESPACE = "kube-node-lease"
_SWEEP = ObjectKey("", "", "")


class NodeHealth:
    """Notices silence. What counts is when *we* saw the last change, so a restart gives every node a fresh grace."""

    def __init__(self, client: Client, informers: Informers, env: Env) -> None:
        self._client = client
        self._env = env
        self._nodes = informers.get(NODES)
        self._leases = informers.get(LEASES)  # of all namespaces, as the garbage collector has them: one copy for both
        self._seen: dict[ObjectKey, tuple[tuple[str, str], float]] = {}
        """Node -> its last sign of life and when we saw that; who has been silent longest comes first."""
        self._overdue: set[ObjectKey] = set()
        self._asked: dict[ObjectKey, tuple[str, str]] = {}  # what the server itself last said

    def controller(self) -> Controller:
        controller = self._controller = Controller("nodehealth", self.reconcile, self._env, workers=4)
        controller.queue.add(_SWEEP)
        self._leases.add_handler(self._on_lease)
        controller.watch(self._nodes)
        controller.watch(self._leases, lambda _: ())
        return controller

    def _on_lease(self, old: Object | None, new: Object | None) -> None:
        if new is None or new["metadata"].get("namespace") != LEASE_NAMESPACE:
            return
        key = key_of(new, self._leases.cluster)._replace(namespace="")
        node = self._nodes.store.get(key)
        if node is not None:
            self._silence(key, node, new)

    def _silence(self, key: ObjectKey, node: Object, lease: Object | None) -> float:
        """Seconds since the last sign of life that we saw (by the loop's clock: the time of day may be set)."""
        now = asyncio.get_running_loop().time()
        beat = heartbeat_of(node, lease)
        known = self._seen.get(key)
        if known is None or known[0] != beat:
            known = self._note(key, beat, now)
        return now - known[1]

    def _note(self, key: ObjectKey, beat: tuple[str, str], now: float) -> tuple[tuple[str, str], float]:
        self._seen.pop(key, None)
        self._overdue.discard(key)
        self._seen[key] = beat, now
        return self._seen[key]

    def _sweep(self) -> Result:
        """Look at those who have been silent for too long, and at nobody else."""
        now = asyncio.get_running_loop().time()
        for key, (_, since) in self._seen.items():
            if now - since < GRACE:
                return Result(requeue_after=max(since + GRACE - now, 0.001))
            if key not in self._overdue:
                self._overdue.add(key)
                self._controller.queue.add(key)
        return Result(requeue_after=GRACE)

    async def _confirmed_silence(self, key: ObjectKey, node: Object) -> float:
        """As :meth:`_silence`, but before a node is given up the server is asked: the deaf one may be our watch."""
        silent = self._silence(key, node, self._leases.store.get(key._replace(namespace=LEASE_NAMESPACE)))
        if silent < GRACE or (get_condition(node, "Ready") or {}).get("status") == "Unknown":
            return silent
        try:
            lease = await self._client.at(key.cluster).get(LEASES, key.name, LEASE_NAMESPACE)
        except ApiError as error:
            if not is_not_found(error):
                raise
            return silent
        beat, cached = heartbeat_of(node, lease), self._seen[key][0]
        if beat in (cached, self._asked.get(key)):
            return silent
        self._asked[key] = beat
        self._note(key, cached, asyncio.get_running_loop().time())
        return 0.0

    async def reconcile(self, key: ObjectKey) -> Result | None:
        if key == _SWEEP:
            return self._sweep()
        node = self._nodes.store.get(key)
        if node is None or is_deleting(node):
            self._seen.pop(key, None)
            self._overdue.discard(key)
            self._asked.pop(key, None)
            return None
        now = self._env.clock.now()
        silent = await self._confirmed_silence(key, node)
        client = self._client.at(key.cluster)
        verdict = assess(node, silent, now)
        version = node["metadata"].get("resourceVersion")
        try:
            if verdict.taints is not None:
                # One write with a lock: somebody else's taint set in between must not be lost.
                patch = {"metadata": {"resourceVersion": version}, "spec": {"taints": verdict.taints}}
                node = await client.patch(NODES, key.name, patch)
                version = node["metadata"].get("resourceVersion")
            if verdict.conditions is not None:
                patch = {"metadata": {"resourceVersion": version}, "status": {"conditions": verdict.conditions}}
                await client.patch(NODES, key.name, patch, subresource="status")
        except ApiError as error:
            if not is_not_found(error):
                raise
        return Result(requeue_after=GRACE) if silent >= GRACE else None


class NodeEviction:
    """Taint-based eviction, removal of pods that nobody will end, readiness of those whose node is not ready.

    One key per node (existing or not).
    """

    def __init__(self, client: Client, informers: Informers, env: Env) -> None:
        self._client = client
        self._env = env
        self._nodes = informers.get(NODES)
        self._pods = informers.get(PODS, indexers={BY_PLACE: place_of})
        self._gone_since: dict[ObjectKey, float] = {}
        self._scheduled: dict[ObjectKey, dict[str, float]] = {}
        """Node -> pod's uid -> when taints were first seen to matter."""
        self._recorder = EventRecorder(client, env, "taint-eviction-controller")
        self._unready = Unready(client, env)

    def controller(self) -> Controller:
        controller = Controller("eviction", self.reconcile, self._env, workers=4)
        controller.watch(self._nodes, when=_matters)
        controller.watch(self._pods, self._keys)
        return controller

    def _keys(self, pod: Object) -> Iterable[ObjectKey]:
        """The pod's node, if that is missing or has a taint that drives pods out."""
        for name in node_of(pod):
            key = ObjectKey(key_of(pod, self._pods.cluster).cluster, "", name)
            node = self._nodes.store.get(key)
            if node is None or key in self._scheduled or driving_out(node):
                yield key

    async def reconcile(self, key: ObjectKey) -> Result | None:
        now = self._env.clock.now()
        node = self._nodes.store.get(key)
        pods = self._pods.store.by_index(
            BY_PLACE, space(key.cluster if self._client.cluster == EVERY else "", key.name)
        )
        if node is not None or not pods:
            self._gone_since.pop(key, None)
        gone_since = self._gone_since.setdefault(key, now) if node is None and pods else now
        marked = await self._unready.mark(key, node, pods)
        seen = self._scheduled.get(key, {})
        departures = evictions(node, gone_since, pods, now, seen)
        await self._remember(key, seen, pods, [d for d in departures if d.by_taint], now)
        due = [d for d in departures if d.at <= now]
        if due and node is None and await self._exists(key):
            return Result(requeue_after=5.0)  # the cache is behind
        done = [await self._evict(departure, key) for departure in due]
        if not all(done) or not marked:
            return Result(requeue_after=1.0)  # a pod has changed in the meantime: judge it again
        waits = [d.at - now for d in departures if d.at > now]
        return Result(requeue_after=min(waits) + 0.001) if waits else None

    async def _remember(
        self, node: ObjectKey, seen: dict[str, float], pods: list[Object], leaving: list[Eviction], now: float
    ) -> None:
        """Keep since when each pod's time runs; say so when it does not run any more."""
        uids = {d.pod["metadata"].get("uid", ""): d.pod for d in leaving}
        self._scheduled[node] = {uid: seen.get(uid, now) for uid in uids}
        if not uids:
            del self._scheduled[node]
        for pod in pods:
            meta = pod["metadata"]
            if meta.get("uid") in seen and meta.get("uid") not in uids and not is_deleting(pod) and not has_ended(pod):
                text = f"Cancelling deletion of Pod {meta['namespace']}/{meta['name']}"
                await self._recorder.event(pod, "Normal", "TaintManagerEviction", text)

    async def _exists(self, key: ObjectKey) -> bool:
        try:
            await self._client.at(key.cluster).get(NODES, key.name)
        except ApiError as error:
            if not is_not_found(error):
                raise
            return False
        return True

    async def _evict(self, departure: Eviction, node: ObjectKey) -> bool:
        """Repeatable: each write is skipped when it has been done. ``False``: the pod is not as our cache has it."""
        pod, meta = departure.pod, departure.pod["metadata"]
        lost = departure.way is Way.LOSE
        client = self._client.at(node.cluster)
        removed = is_deleting(pod) and meta.get("deletionGracePeriodSeconds") == 0
        if departure.way is Way.REMOVE and removed:
            return True
        try:
            if departure.way is not Way.REMOVE:
                await client.patch(
                    PODS,
                    meta["name"],
                    self._status(departure, node.name),
                    meta["namespace"],
                    kind="strategic",
                    subresource="status",
                )
            grace = None if departure.way is Way.ASK else 0
            await client.delete(PODS, meta["name"], meta["namespace"], uid=meta["uid"], grace_period=grace)
        except ApiError as error:
            if not is_not_found(error) and error.code != 409:
                raise
            return is_not_found(error)
        if departure.by_taint:
            text = f"Marking for deletion Pod {meta['namespace']}/{meta['name']}"
            await self._recorder.event(pod, "Warning" if lost else "Normal", "TaintManagerEviction", text)
        return True

    def _status(self, departure: Eviction, node: str) -> Object:
        pod = departure.pod
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "observedGeneration": pod["metadata"].get("generation", 0),
            "reason": departure.reason,
            "message": departure.message,
            "lastTransitionTime": format_time(self._env.clock.now()),
        }
        status: Object = {"conditions": [condition]} if departure.reason else {}
        if departure.way is Way.LOSE:
            status["phase"] = "Failed"
            status["reason"] = "NodeLost"
            status["message"] = f"Node {node} which was running pod {pod['metadata']['name']} is unresponsive"
        # The lock keeps a pod that has ended in the meantime from being lost all the same.
        lock = {"uid": pod["metadata"]["uid"], "resourceVersion": pod["metadata"]["resourceVersion"]}
        return {"metadata": lock, "status": status}


def _matters(old: Object | None, new: Object | None) -> bool:
    """Heartbeats do not."""

    def view(node: Object | None) -> object:
        if node is None:
            return None
        ready = [c.get("status") for c in (node.get("status") or {}).get("conditions") or () if c["type"] == "Ready"]
        return (node.get("spec") or {}).get("taints"), ready, troubles(node)

    return view(old) != view(new)


def build(client: Client, informers: Informers, env: Env) -> list[Controller]:
    """The node controllers of all logical clusters that ``client`` and ``informers`` cover."""
    return [
        NodeHealth(client, informers, env).controller(),
        NodeEviction(client, informers, env).controller(),
        Lifetimes(client, informers, env).controller(),
    ]
