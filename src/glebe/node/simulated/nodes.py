"""Simulated nodes: pods that run no program but live, end and fail as real ones do.

One object serves any number of nodes in any number of logical clusters from one pod informer. What a pod does follows
from its annotations (:mod:`.plan`), the scenario and its uid alone, so that a restarted process continues every running
pod where it was. Faults are injected by calling :meth:`SimulatedNodes.fail_node` and its siblings.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from typing import Any

from glebe.gpu import xids
from glebe.kube.client import Client
from glebe.kube.clock import Env, parse_time
from glebe.kube.controller import Controller, Result
from glebe.kube.events import WARNING, EventRecorder
from glebe.kube.informer import Informers
from glebe.kube.objects import EVERY, Object, ObjectKey, condition_is_true, is_deleting, key_of
from glebe.kube.pods import BY_PLACE, ENDED, has_ended, is_overruled, place_of, space
from glebe.kube.resources import NODES, PODS
from glebe.node.devices.simulated import SimulatedSlices
from glebe.node.podwrites import finish_deletion, write_status
from glebe.node.presence import Presence
from glebe.node.simulated import runtimes
from glebe.node.simulated.health import XID_ERROR, Health
from glebe.node.simulated.places import Places
from glebe.node.simulated.pod import SimPod
from glebe.node.simulated.scenario import NO_SCENARIO, Scenario
from glebe.node.simulated.story import story
from glebe.node.simulated.timeline import Timeline
from glebe.node.spec import GPU_RESOURCE, KIND_LABEL, ROOT, NodeSpec
from glebe.node.status import pod_status

_WORKERS = 8
_LOST = ("NodeLost", "the simulated node failed while this pod was on it")


class SimulatedNodes:
    """Runs the simulated nodes ``specs``.

    :param client: of one cluster, or of all logical clusters (:data:`EVERY`); in the latter case each node is in those
        that its specification names.
    :param informers: shared informers to read pods and nodes from (somebody else runs them); by default this object
        makes and runs its own.
    :param heartbeat_interval: seconds between two heartbeats of one node; by default 10, more for large fleets.
    :param scenario: what befalls nodes and pods.
    """

    def __init__(
        self,
        client: Client,
        env: Env,
        specs: Sequence[NodeSpec],
        *,
        informers: Informers | None = None,
        heartbeat_interval: float | None = None,
        scenario: Scenario = NO_SCENARIO,
    ) -> None:
        self._client = client
        self._env = env
        self._specs = {spec.name: spec for spec in specs}
        self._scenario = scenario
        self._everywhere = client.cluster == EVERY
        self.home = ROOT if self._everywhere else client.cluster
        """The cluster that is meant where none is named."""
        self._own_informers = informers is None
        self._informers = informers or Informers(client, env)
        bound, ours = ("spec.nodeName!=", f"{KIND_LABEL}=simulated") if self._own_informers else ("", "")
        self._pods = self._informers.get(PODS, field_selector=bound, indexers={BY_PLACE: place_of})
        self._nodes = self._informers.get(NODES, label_selector=ours)
        own = [] if self._everywhere else [spec for spec in specs if spec.serves(ROOT)]
        self.presence = Presence(client, env, own, self._nodes, interval=heartbeat_interval, status_of=self._status_of)
        self._timeline = Timeline(self, scenario, env)
        wanted = {cluster for spec in specs for cluster in spec.clusters} if self._everywhere else set()
        self._places = Places(client, wanted, self._come, self._go)
        if self._everywhere:
            self._come(ROOT)
        else:
            self._timeline.come(self.home, own)
        self._health: dict[ObjectKey, Health] = {}
        self._sims: dict[ObjectKey, SimPod] = {}
        self._delays: dict[ObjectKey, str] = {}
        self._writes = 0
        self._recorder = EventRecorder(client, env, "kubelet")
        self.controller = Controller("simulated-nodes", self._reconcile, env, workers=_WORKERS)
        self.controller.watch(self._pods, when=self._concerns)

    async def run(self) -> None:
        """Register the nodes and run what is bound to them, until cancelled."""
        async with asyncio.TaskGroup() as group:
            if self._own_informers:
                self._informers.start(group)
            group.create_task(self._places.run(), name="simulated nodes: clusters")
            group.create_task(self.presence.run(), name="simulated nodes: presence")
            group.create_task(self.controller.run(), name="simulated nodes: pods")
            group.create_task(self._timeline.run(), name="simulated nodes: scenario")
            if SimulatedSlices.wanted(self._specs.values()):
                slices = SimulatedSlices(self._client, self._env, self._informers, self.presence.spec)
                group.create_task(slices.controller.run(), name="simulated nodes: ResourceSlices")

    async def wait_registered(self) -> None:
        """Wait until every node is in the API; those of other logical clusters follow."""
        await self.presence.registered.wait()

    # --- clusters

    def _in(self, cluster: str) -> list[NodeSpec]:
        return [spec for spec in self._specs.values() if spec.serves(cluster)]

    def _come(self, cluster: str) -> None:
        specs = self._in(cluster)
        self.presence.settle(cluster, specs)
        self._timeline.come(cluster, specs)

    def _go(self, cluster: str) -> None:
        self.presence.leave(cluster)
        self._timeline.go(cluster)

    def key(self, node: str, cluster: str | None = None) -> ObjectKey:
        """The address of a node.

        :raises KeyError: no simulated node is called so there.
        """
        key = ObjectKey(self.home if cluster is None else cluster, "", node)
        if self.presence.spec(key) is None:
            raise KeyError(f'no simulated node is called "{node}"')
        return key

    def runs(self, pod: Object) -> bool:
        """Whether the pod is on one of these nodes."""
        return self._node_of(pod) is not None

    def _node_of(self, pod: Object) -> ObjectKey | None:
        name = pod["spec"].get("nodeName")
        spec = self._specs.get(name) if name else None
        if spec is None:
            return None
        cluster = key_of(pod, self._client.cluster).cluster
        return ObjectKey(cluster, "", name) if spec.serves(cluster if self._everywhere else ROOT) else None

    def _on(self, node: ObjectKey) -> list[Object]:
        return self._pods.store.by_index(BY_PLACE, space(node.cluster if self._everywhere else "", node.name))

    # --- faults

    def fail_node(self, name: str, *, crash: bool = True, cluster: str | None = None) -> None:
        """The node stops: no heartbeats, no status. With ``crash`` what ran on it is lost; else it was only cut off."""
        key = self.key(name, cluster)
        self.presence.silence(key)
        if crash:
            now = self._env.clock.now()
            for pod in self._on(key):
                sim = self._sims.get(key_of(pod, self._client.cluster))
                if sim is not None and sim.running:
                    sim.state.disrupted = _LOST[1]
                    sim.kill(now, *_LOST)

    def recover_node(self, name: str, *, cluster: str | None = None) -> None:
        """The node comes back, reports what became of its pods, and takes new ones."""
        key = self.key(name, cluster)
        self.presence.resume(key)
        for pod in self._on(key):
            self.controller.queue.add(key_of(pod, self._client.cluster))

    def set_ready(self, name: str, ready: bool, *, cluster: str | None = None) -> None:
        """What the node says of itself."""
        key = self.key(name, cluster)
        self._health.setdefault(key, Health()).ready = ready
        self.presence.tell(key)

    async def break_gpu(self, name: str, number: int, code: int, *, cluster: str | None = None) -> None:
        """The driver reports an XID error: an event, the application that used the GPU fails, and unless only that was
        to blame the GPU leaves the node's allocatable until :meth:`mend_gpu`."""
        key = self.key(name, cluster)
        if xids.breaks(code):
            self._health.setdefault(key, Health()).broken[number] = code
            self.presence.tell(key)
        self._fail_user_of_gpu(key, number)
        if (node := self._nodes.store.get(key)) is not None:
            await self._recorder.event(node, WARNING, XID_ERROR, f"GPU {number}: {xids.text(code)}")

    def mend_gpu(self, name: str, number: int, *, cluster: str | None = None) -> None:
        """The GPU has been repaired."""
        key = self.key(name, cluster)
        if self._health.setdefault(key, Health()).broken.pop(number, None) is not None:
            self.presence.tell(key)

    def _fail_user_of_gpu(self, node: ObjectKey, number: int) -> None:
        """GPUs are taken to be given out in the order in which pods came."""
        first = 0
        for pod in self._on(node):
            key = key_of(pod, self._client.cluster)
            sim = self._sims.get(key)
            if sim is None or not sim.running:
                continue
            first += _gpus(pod)
            if number < first:
                sim.end(1, self._env.clock.now(), message="CUDA error: the GPU reported an XID error (simulated)")
                self.controller.queue.add(key)
                return

    def fail_pod(
        self,
        namespace: str,
        name: str,
        *,
        exit_code: int = 1,
        message: str = "injected failure",
        cluster: str | None = None,
    ) -> bool:
        """The containers of a running pod exit now with ``exit_code``; ``False`` when it is not running here."""
        key = ObjectKey(self.home if cluster is None else cluster, namespace, name)
        sim = self._sims.get(key)
        if sim is None or not sim.running:
            return False
        sim.end(exit_code, self._env.clock.now(), message=message)
        self.controller.queue.add(key)
        return True

    def delay_status(self, name: str, delay: float | str, *, cluster: str | None = None) -> None:
        """Every status write of this node comes so late (seconds, or a distribution as for run times); 0 ends that."""
        key = self.key(name, cluster)
        if delay in (0, "", "0"):
            self._delays.pop(key, None)
        else:
            self._delays[key] = delay if isinstance(delay, str) else f"{delay}s"

    def running(self) -> list[ObjectKey]:
        """The pods that run now, in the order in which this process met them."""
        return [key for key, sim in self._sims.items() if sim.running]

    def pods_on(self, name: str, *, cluster: str | None = None) -> list[Object]:
        """The pods that are bound to a node."""
        return self._on(self.key(name, cluster))

    def client_of(self, cluster: str) -> Client:
        return self._client.at(cluster)

    def _status_of(
        self, key: ObjectKey, spec: NodeSpec, conditions: list[dict[str, Any]], now: float
    ) -> dict[str, Any]:
        return (self._health.get(key) or Health()).status(spec, conditions, now)

    # --- pods

    def _concerns(self, old: Object | None, new: Object | None) -> bool:
        pod = new or old
        if pod is None:
            return False
        if self._places.needed:
            self._places.hint(key_of(pod, self._client.cluster).cluster)
        if self._node_of(pod) is None:
            return False
        if old is None or new is None:
            return True
        if old["spec"].get("nodeName") != new["spec"].get("nodeName") or is_deleting(old) != is_deleting(new):
            return True
        return has_ended(old) != has_ended(new) or _asks(old) != _asks(new)

    async def _reconcile(self, key: ObjectKey) -> Result | None:
        pod = self._pods.store.get(key)
        sim = self._sims.get(key)
        if sim is not None and (pod is None or pod["metadata"]["uid"] != sim.uid):
            del self._sims[key]
            sim = None
        node = self._node_of(pod) if pod is not None else None
        if pod is None or node is None:
            return None
        if not self.presence.is_alive(node):
            # Of a cluster that was not heard of yet, or the node is down: then its return brings the pod here again.
            return Result(1.0) if self.presence.spec(node) is None and self._places.needed else None
        client = self._client.at(key.cluster)
        if has_ended(pod):
            self._sims.pop(key, None)
            if is_deleting(pod):
                await finish_deletion(client, pod)
            return None
        now = self._env.clock.now()
        if sim is None:
            wishes = self._scenario.wishes(key.cluster or ROOT, pod)
            sim = self._sims[key] = SimPod(pod, self._specs[node.name], now, wishes)
        sim.advance(now)
        sim.dirty = sim.dirty or _behind(pod)
        if is_deleting(pod) and sim.phase not in ENDED:
            sim.terminate(now, parse_time(pod["metadata"]["deletionTimestamp"]))
        if (late := self._late(node, sim, now)) > 0:
            return Result(late)
        if not await self._write(client, pod, sim):
            return None
        if is_deleting(pod) and not sim.stopping:
            await finish_deletion(client, pod)
            return None
        return Result(max(0.0, sim.next - self._env.clock.now())) if sim.next is not None else None

    def _late(self, node: ObjectKey, sim: SimPod, now: float) -> float:
        """Seconds for which this status is still held up on a slow node."""
        if not sim.dirty or node not in self._delays:
            return 0.0
        if sim.held_until is None:
            self._writes += 1
            sim.held_until = now + runtimes.sample(self._delays[node], f"{self._scenario.seed}/{self._writes}")
        if sim.held_until > now:
            return sim.held_until - now
        sim.held_until = None
        return 0.0

    async def _write(self, client: Client, pod: Object, sim: SimPod) -> bool:
        """Bring the status to the API; ``False`` when there is no such pod any more."""
        if not sim.dirty:
            return True
        sim.dirty = False
        try:
            now = self._env.clock.now()
            return await write_status(client, pod, lambda seen: pod_status(seen, sim.state, now))
        except BaseException:
            sim.dirty = True
            raise

    # --- PodLogs

    async def logs(
        self,
        pod: Object,
        container: str,
        *,
        follow: bool = False,
        tail_lines: int | None = None,
        since_seconds: int | None = None,
        previous: bool = False,
        timestamps: bool = False,
        limit_bytes: int | None = None,
        since_time: float | None = None,
        stream: str = "",
    ) -> AsyncIterator[bytes]:
        """Log lines of a simulated container; each says that it is simulated. All go to standard output."""
        key = key_of(pod, self._client.cluster)
        since = since_time if since_seconds is None else self._env.clock.now() - since_seconds
        sent, left = 0, float("inf") if limit_bytes is None else limit_bytes
        while True:
            current = self._pods.store.get(key) or pod
            lines = [] if previous or stream == "stderr" else story(current, container)
            first = sent if sent or tail_lines is None else max(0, len(lines) - tail_lines)
            for at, text in lines[first:]:
                if since is None or parse_time(at) >= since:
                    line = ((at + " " if timestamps else "") + text + "\n").encode()[: int(min(left, 1 << 20))]
                    left -= len(line)
                    yield line
                    if not left:
                        return
            sent = max(sent, len(lines))
            gone = self._pods.store.get(key) is None or current["metadata"]["uid"] != pod["metadata"]["uid"]
            if not follow or gone or has_ended(current):
                return
            await asyncio.sleep(1.0)


def _gpus(pod: Object) -> int:
    def asked(container: Object) -> int:
        with suppress(ValueError):
            return int(((container.get("resources") or {}).get("limits") or {}).get(GPU_RESOURCE) or 0)
        return 0

    return sum(map(asked, pod["spec"]["containers"]))


def _gates(pod: Object) -> dict[str, str | None]:
    """What is said of the pod's readiness gates."""
    gates = {gate["conditionType"] for gate in pod["spec"].get("readinessGates") or ()}
    if not gates:
        return {}
    conditions: Iterable[Object] = (pod.get("status") or {}).get("conditions") or ()
    return {c["type"]: c.get("status") for c in conditions if c["type"] in gates}


def _asks(pod: Object) -> object:
    """What a pod that runs can still be told: a new spec, a readiness gate, that it is not ready."""
    return pod["metadata"].get("generation"), _gates(pod), is_overruled(pod)


def _behind(pod: Object) -> bool:
    """Whether a status that was written before does not account for the pod as it is now."""
    status = pod.get("status") or {}
    if not status.get("startTime"):
        return False
    if status.get("observedGeneration") != pod["metadata"].get("generation"):
        return True
    gates = pod["spec"].get("readinessGates") or ()
    open_ = _gates(pod) if gates else {}
    shut = any(open_.get(g["conditionType"]) != "True" for g in gates)
    return condition_is_true(pod, "Ready") if shut else is_overruled(pod)
