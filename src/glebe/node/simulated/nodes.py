"""Simulated nodes: pods that run no program but live, end and fail as real ones do.

One object serves any number of nodes from one pod informer. What a pod does follows from its annotations
(``sim.glebe.dev/run-time``, ``/exit-code``, ``/fail-after``) and its uid alone, so that a restarted process continues
every running pod where it was. Faults are injected by calling :meth:`SimulatedNodes.fail_node` and its siblings.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from glebe.kube.client import Client
from glebe.kube.clock import Env, parse_time
from glebe.kube.controller import Controller, Result
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey, condition_is_true, is_deleting, key_of
from glebe.kube.pods import BY_NODE, ENDED, has_ended, node_of
from glebe.kube.resources import NODES, PODS
from glebe.node.podwrites import finish_deletion, write_status
from glebe.node.presence import Presence
from glebe.node.simulated.pod import SimPod
from glebe.node.spec import NodeSpec
from glebe.node.status import pod_status

_WORKERS = 8
_LOST = ("NodeLost", "the simulated node failed while this pod was on it")


class SimulatedNodes:
    """Runs the simulated nodes ``specs``.

    :param informers: shared informers to read pods and nodes from (somebody else runs them); by default this object
        makes and runs its own.
    :param heartbeat_interval: seconds between two heartbeats of one node; by default 10, more for large fleets.
    """

    def __init__(
        self,
        client: Client,
        env: Env,
        specs: Sequence[NodeSpec],
        *,
        informers: Informers | None = None,
        heartbeat_interval: float | None = None,
    ) -> None:
        self._client = client
        self._env = env
        self._specs = {spec.name: spec for spec in specs}
        self._own_informers = informers is None
        self._informers = informers or Informers(client, env)
        self._pods = self._informers.get(PODS, indexers={BY_NODE: node_of})
        nodes = self._informers.get(NODES)
        self.presence = Presence(client, env, specs, nodes, interval=heartbeat_interval)
        self._sims: dict[ObjectKey, SimPod] = {}
        self._delays: dict[str, float] = {}
        self.controller = Controller("simulated-nodes", self._reconcile, env, workers=_WORKERS)
        self.controller.watch(self._pods, when=self._concerns)

    async def run(self) -> None:
        """Register the nodes and run what is bound to them, until cancelled."""
        async with asyncio.TaskGroup() as group:
            if self._own_informers:
                self._informers.start(group)
            group.create_task(self.presence.run(), name="simulated nodes: presence")
            group.create_task(self.controller.run(), name="simulated nodes: pods")

    async def wait_registered(self) -> None:
        """Wait until every node is in the API."""
        await self.presence.registered.wait()

    # --- faults

    def fail_node(self, name: str, *, crash: bool = True) -> None:
        """The node stops: no heartbeats, no status. With ``crash`` what ran on it is lost; else it was only cut off."""
        self._spec(name)
        self.presence.silence(name)
        if crash:
            now = self._env.clock.now()
            for pod in self._pods.store.by_index(BY_NODE, name):
                sim = self._sims.get(key_of(pod, self._client.cluster))
                if sim is not None and sim.running:
                    sim.state.disrupted = _LOST[1]
                    sim.kill(now, *_LOST)

    def recover_node(self, name: str) -> None:
        """The node comes back, reports what became of its pods, and takes new ones."""
        self._spec(name)
        self.presence.resume(name)
        for pod in self._pods.store.by_index(BY_NODE, name):
            self.controller.queue.add(key_of(pod, self._client.cluster))

    def fail_pod(self, namespace: str, name: str, *, exit_code: int = 1, message: str = "injected failure") -> bool:
        """The containers of a running pod exit now with ``exit_code``; ``False`` when it is not running here."""
        key = ObjectKey(self._client.cluster, namespace, name)
        sim = self._sims.get(key)
        if sim is None or not sim.running:
            return False
        sim.end(exit_code, self._env.clock.now(), message=message)
        self.controller.queue.add(key)
        return True

    def delay_status(self, name: str, seconds: float) -> None:
        """Every status write of this node comes ``seconds`` late; 0 ends that."""
        self._spec(name)
        self._delays[name] = seconds

    def running(self) -> list[ObjectKey]:
        """The pods that run now, in the order in which this process met them."""
        return [key for key, sim in self._sims.items() if sim.running]

    def _spec(self, name: str) -> NodeSpec:
        if name not in self._specs:
            raise KeyError(f'no simulated node is called "{name}"')
        return self._specs[name]

    # --- pods

    def _concerns(self, old: Object | None, new: Object | None) -> bool:
        pod = new or old
        if pod is None or pod["spec"].get("nodeName") not in self._specs:
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
        if pod is None:
            return None
        node = pod["spec"].get("nodeName", "")
        if not self.presence.is_alive(node):
            return None
        if has_ended(pod):
            self._sims.pop(key, None)
            if is_deleting(pod):
                await finish_deletion(self._client, pod)
            return None
        now = self._env.clock.now()
        if sim is None:
            sim = self._sims[key] = SimPod(pod, self._specs[node], now)
        sim.advance(now)
        sim.dirty = sim.dirty or _behind(pod)
        if is_deleting(pod) and sim.phase not in ENDED:
            sim.terminate(now, parse_time(pod["metadata"]["deletionTimestamp"]))
        if not await self._write(node, pod, sim):
            return None
        if is_deleting(pod) and not sim.stopping:
            await finish_deletion(self._client, pod)
            return None
        return Result(max(0.0, sim.next - self._env.clock.now())) if sim.next is not None else None

    async def _write(self, node: str, pod: Object, sim: SimPod) -> bool:
        """Bring the status to the API; ``False`` when there is no such pod, or no such node, any more."""
        if not sim.dirty:
            return True
        if self._delays.get(node):
            await asyncio.sleep(self._delays[node])
            if not self.presence.is_alive(node):
                return False
        sim.dirty = False
        try:
            now = self._env.clock.now()
            return await write_status(self._client, pod, lambda seen: pod_status(seen, sim.state, now))
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
    ) -> AsyncIterator[bytes]:
        """Log lines of a simulated container; each says that it is simulated. ``since``/``limit`` are not needed."""
        key = key_of(pod, self._client.cluster)
        sent = 0
        while True:
            current = self._pods.store.get(key) or pod
            lines = [] if previous else _story(current, container)
            first = sent if sent or tail_lines is None else max(0, len(lines) - tail_lines)
            for at, text in lines[first:]:
                yield ((at + " " if timestamps else "") + text + "\n").encode()
            sent = max(sent, len(lines))
            gone = self._pods.store.get(key) is None or current["metadata"]["uid"] != pod["metadata"]["uid"]
            if not follow or gone or has_ended(current):
                return
            await asyncio.sleep(1.0)


def _gates(pod: Object) -> dict[str, str | None]:
    """What is said of the pod's readiness gates."""
    gates = {gate["conditionType"] for gate in pod["spec"].get("readinessGates") or ()}
    if not gates:
        return {}
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return {c["type"]: c.get("status") for c in conditions if c["type"] in gates}


def _asks(pod: Object) -> object:
    """What a pod that runs can still be told: a new spec, a readiness gate."""
    return pod["metadata"].get("generation"), _gates(pod)


def _behind(pod: Object) -> bool:
    """Whether a status that was written before does not account for the pod as it is now."""
    status = pod.get("status") or {}
    if not status.get("startTime"):
        return False
    if status.get("observedGeneration") != pod["metadata"].get("generation"):
        return True
    if not pod["spec"].get("readinessGates"):
        return False
    open_ = _gates(pod)
    shut = any(open_.get(g["conditionType"]) != "True" for g in pod["spec"]["readinessGates"])
    ready = condition_is_true(pod, "Ready")
    return ready if shut else not ready and condition_is_true(pod, "ContainersReady")


def _story(pod: Object, container: str) -> list[tuple[str, str]]:
    """(time, text) of everything there is to say about a simulated container."""
    out: list[tuple[str, str]] = []
    where = pod["spec"].get("nodeName", "")
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        state = status.get("state") or {}
        run = state.get("running") or state.get("terminated") or {}
        if status.get("name") != container or not run.get("startedAt"):
            continue
        text = (
            f"[simulated] container {container} of pod {pod['metadata']['name']} on node {where}: no program runs here"
        )
        out.append((run["startedAt"], text))
        if "terminated" in state:
            out.append((run["finishedAt"], f"[simulated] container {container} exited with code {run['exitCode']}"))
    return out
