"""This machine as a node: the agent that takes pods, lets each live (:mod:`.runner`), and says how the node is.

What containers have of their own is as much as the machine allows (:mod:`glebe.node.containers.abilities`). They
outlive the platform for ``window`` seconds after it is gone, be it stopped or killed; a platform that comes back on the
same data directory within that time goes on with them, else their supervisors end them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.events import EventRecorder
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey, key_of
from glebe.kube.pods import BY_NODE, has_ended, node_of
from glebe.kube.resources import NODES, PODS
from glebe.node.containers import supervisor
from glebe.node.containers.containers import Containers
from glebe.node.containers.rundir import runs_in
from glebe.node.contracts import PodNetwork, VolumeError
from glebe.node.devices.devices import Devices
from glebe.node.kubelet.kubelet import Kubelet, KubeletOptions
from glebe.node.kubelet.pods import LogOptions, Pods
from glebe.node.network.network import Network
from glebe.node.network.options import NetworkOptions
from glebe.node.presence import Presence
from glebe.node.process import admission, classes, remains
from glebe.node.process.launch import Resolve
from glebe.node.process.machine import Machine
from glebe.node.process.pressure import DiskPressure
from glebe.node.process.runner import PodRunner
from glebe.node.spec import NodeSpec, node_status
from glebe.node.volumes.volumes import Volumes

log = logging.getLogger("glebe.node")

ADOPTION_WINDOW = 60.0  # seconds

_IMAGES_SHOWN = 50  # of the largest, as kubelets do


class ProcessNode:
    """Runs the node ``spec`` on this machine, with everything it remembers under ``data_dir``.

    :param window: seconds that containers go on without a platform.
    :param kubelet: how the node's own server knows its clients; without it there is none.
    :param network: how pods are connected; on the machine's loopback unless given.
    :param isolate: ``False``: containers are plain processes, whatever the machine allows.
    :param hidden: directories that containers do not see into.
    """

    def __init__(
        self,
        client: Client,
        env: Env,
        spec: NodeSpec,
        data_dir: Path,
        *,
        informers: Informers | None = None,
        window: float = ADOPTION_WINDOW,
        kubelet: KubeletOptions | None = None,
        network: NetworkOptions | None = None,
        isolate: bool = True,
        hidden: Sequence[Path] = (),
    ) -> None:
        self._client = client
        self._spec = spec
        self._root = data_dir / spec.name
        self._own_informers = informers is None
        self._informers = informers or Informers(client, env)
        only_mine = f"spec.nodeName={spec.name}" if self._own_informers else ""
        self._pods = self._informers.get(PODS, field_selector=only_mine, indexers={BY_NODE: node_of})
        self._nodes = self._informers.get(NODES)
        self.presence = Presence(client, env, [spec], self._nodes, status_of=self._status)
        self._port = 0
        self._runners: dict[str, PodRunner] = {}
        self._restored: set[str] = set()  # pods that an earlier agent had taken
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._news = asyncio.Event()
        self._known = asyncio.Event()  # what this machine allows
        events = EventRecorder(client, env, "kubelet", spec.name)
        self._machine = Machine(
            client=client,
            env=env,
            events=events,
            containers=Containers(
                self._root / "agent",
                window,
                isolate=isolate,
                hidden=hidden,
                now=env.clock.now,
                news=self._say_status,
                default_handler=spec.runtime,
            ),
            network=Network(self._informers, env, spec.name, self._root / "network", network),
            volumes=Volumes(client, env, spec, self._informers, self._root / "claims", self._image_root),
            devices=Devices(spec, client, env, events, over=self._is_over, tell=self._say_status),
            resolve=self._resolver,
        )
        self._pressure = DiskPressure(self._root, env.clock.now, self._runners.values, self._say_status)
        self.kubelet = Kubelet(
            spec.name,
            self._root,
            client,
            env,
            Pods(self._root / "pods", self._machine.containers, env.clock, self._bound),
            self._place,
            kubelet or KubeletOptions(open=False),
        )

    async def _image_root(self, pod: Object, source: dict[str, Any], secrets: list[Object]) -> Path:
        """For volumes that are images.

        :raises VolumeError: this machine has none. :raises ImageError: the image cannot be had.
        """
        containers = self._machine.containers
        if not containers.abilities.images:
            raise VolumeError("volumes of images need crun or runc on the node's machine")

        async def tell(kind: str, reason: str, text: str) -> None:
            await self._machine.events.event(pod, kind, reason, text)

        policy = source.get("pullPolicy") or "IfNotPresent"
        return (await containers.image(source.get("reference", ""), policy, secrets, tell)).root

    async def run(self) -> None:
        """Register and run what is bound here, until cancelled; containers go on after that."""
        with remains.held(self._root):
            agent = f"{os.getpid()} {supervisor.start_time(os.getpid())}"
            temporary = self._root / "agent.tmp"
            temporary.write_text(agent)
            temporary.replace(self._root / "agent")
            try:
                async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
                    if self._own_informers:
                        self._informers.start(group)
                    group.create_task(self.presence.run(), name="process node: presence")
                    await self._start_containers(group)
                    await self._machine.devices.start()
                    group.create_task(self._machine.devices.run(), name="process node: devices")
                    await self._machine.network.start(possible=self._machine.containers.abilities.networks)
                    self._known.set()
                    self._port = await stack.enter_async_context(self.kubelet.serving(self._address))
                    self._say_status()
                    group.create_task(self._machine.network.run(), name="process node: network")
                    group.create_task(self._machine.volumes.run(), name="process node: volumes")
                    await self._pods.wait_synced()
                    self._adopt(group)
                    self._pods.add_handler(self._on_pod)
                    group.create_task(self._work(group), name="process node: pods")
                    group.create_task(self._pressure.run(), name="process node: disk")
            finally:
                self._pods.remove_handler(self._on_pod)

    async def _start_containers(self, group: asyncio.TaskGroup) -> None:
        containers = self._machine.containers
        await containers.start()
        group.create_task(
            containers.run(lambda: remains.all_runs(self._root / "pods")), name="process node: containers"
        )
        group.create_task(classes.offer(self._client, containers.handlers), name="process node: runtime classes")

    @property
    def _address(self) -> str:
        return self._spec.address or self._machine.host_ip

    def _status(self, key: ObjectKey, spec: NodeSpec, conditions: list[dict[str, Any]], now: float) -> dict[str, Any]:
        endpoint = {"daemonEndpoints": {"kubeletEndpoint": {"Port": self._port}}}
        images = self._machine.containers.list_images()[:_IMAGES_SHOWN]
        reached = replace(spec, address=self._address)
        status = {
            **node_status(reached, conditions, now, ready=True),
            **endpoint,
            **({"images": images} if images else {}),
        }
        status["conditions"] = self._pressure.conditions(status["conditions"])
        return self._machine.devices.status(status)

    def _say_status(self) -> None:
        self.presence.tell(ObjectKey(self._client.cluster, "", self._spec.name))

    async def isolation(self) -> tuple[str, str]:
        """What this machine keeps apart, once that is known: a line about containers, one about their network."""
        await self._known.wait()
        return self._machine.containers.abilities.summary(), self._machine.network.summary()

    async def wait_registered(self) -> None:
        """Wait until the node is in the API."""
        await self.presence.registered.wait()

    async def drain(self, grace: float = 30.0) -> None:
        """End every container now (for a stop that is to leave nothing running)."""
        for runner in self._runners.values():
            runner.stop(grace)
        while any(not runner.finished for runner in self._runners.values()):  # noqa: ASYNC110 - files give no event
            await asyncio.sleep(0.05)

    # --- pods

    def _bound(self) -> list[Object]:
        return self._pods.store.by_index(BY_NODE, self._spec.name)

    def _mine(self, pod: Object) -> bool:
        return bool(pod["spec"].get("nodeName") == self._spec.name)

    def _adopt(self, group: asyncio.TaskGroup) -> None:
        """Remember what earlier processes gave to pods, and end what belongs to no pod any more."""
        present = {pod["metadata"]["uid"] for pod in self._bound()}
        for directory in sorted((self._root / "pods").iterdir()):
            if directory.name not in present:
                group.create_task(remains.bury(self._machine, directory))
            elif remains.restore(self._machine, directory):
                self._restored.add(directory.name)

    def _is_over(self, uid: str) -> bool:
        """Whether no process of the pod is left: it may be kept as an object for long after."""
        runner = self._runners.get(uid)
        runs = runs_in(self._root / "pods" / uid)
        return runner is not None and has_ended(runner.pod) and not any(r.supervisor and not r.exit for r in runs)

    def _on_pod(self, old: Object | None, new: Object | None) -> None:
        pod = new or old
        if pod is not None and self._mine(pod):
            runner = self._runners.get(pod["metadata"]["uid"])
            if runner is not None:
                runner.update(pod) if new is not None else runner.vanish()
            self._news.set()

    async def _work(self, group: asyncio.TaskGroup) -> None:
        while True:
            self._news.clear()
            for pod in self._bound():
                uid = pod["metadata"]["uid"]
                if uid not in self._tasks:
                    self._tasks[uid] = group.create_task(self._live(pod), name=f"pod {pod['metadata']['name']}")
            await self._news.wait()

    async def _live(self, pod: Object) -> None:
        """One pod, from its binding until its object is gone."""
        uid = pod["metadata"]["uid"]
        directory = self._root / "pods" / uid
        try:
            runner = self._runners[uid] = PodRunner(self._machine, pod, directory, self._admit, self._room)
            current = self._pods.store.get(key_of(pod, self._client.cluster))
            if current is None or current["metadata"]["uid"] != uid:
                runner.vanish()
            else:
                runner.update(current)
            await runner.run()
            await remains.bury(self._machine, directory)
        except Exception:  # a fault in one pod's life must not end the others'
            log.exception("pod %s: the node gave it up for now", pod["metadata"]["name"])
            await asyncio.sleep(5.0)
        finally:
            self._runners.pop(uid, None)
            self._tasks.pop(uid, None)
            self._news.set()

    def address_of(self, uid: str) -> str:
        """The address that a pod of this node was given; "" for others."""
        return self._machine.network.address(uid) or ""

    def _place(self, uid: str) -> PodNetwork | None:
        """Where a pod is in the network, to connect to it."""
        place = getattr(self._machine.network, "place", None)
        if place is not None:
            found: PodNetwork | None = place(uid)
            return found
        address = self._machine.network.address(uid)
        return PodNetwork(address) if address else None

    def _admit(self, pod: Object) -> None:
        """Take a new pod, or say why not.

        :raises AdmissionError: the pod must fail.
        """
        self._pressure.refuse(pod)
        node = self._nodes.store.get(ObjectKey(self._client.cluster, "", self._spec.name))
        if node is not None:
            admission.admit(pod, self._beside(pod), node)

    def _room(self, pod: Object) -> tuple[str, str] | None:
        """Whether a pod that runs may have the resources that it asks for now; if not, why."""
        node = self._nodes.store.get(ObjectKey(self._client.cluster, "", self._spec.name))
        return None if node is None else admission.room_to_resize(pod, self._beside(pod), node)

    def _beside(self, pod: Object) -> list[Object]:
        """The other pods that the node has taken and that have not ended."""
        taken = {uid for uid, runner in self._runners.items() if runner.admitted and not runner.finished}
        others = [p for p in self._bound() if p["metadata"]["uid"] in taken | self._restored and not has_ended(p)]
        return [p for p in others if p["metadata"]["uid"] != pod["metadata"]["uid"]]

    def _resolver(self, pod: Object) -> Resolve:
        namespace = pod["metadata"]["namespace"]

        async def resolve(hostname: str, subdomain: str) -> str:
            tries = 0
            while True:
                everywhere = tries % 20 == 19
                tries += 1
                for other in self._pods.store.values() if everywhere else self._bound():
                    spec, meta = other["spec"], other["metadata"]
                    if (meta["namespace"], spec.get("hostname"), spec.get("subdomain")) == (
                        namespace,
                        hostname,
                        subdomain,
                    ) and not has_ended(other):
                        address = self._machine.network.address(meta["uid"]) or (other.get("status") or {}).get("podIP")
                        if address:
                            return str(address)
                await asyncio.sleep(0.1)

        return resolve

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
        """What the container's latest run (or the one before it) printed.

        :raises ApiError: 400, with the first chunk: it has not printed anything yet, in a kubelet's words.
        """
        since = since_time if since_seconds is None else self._machine.env.clock.now() - since_seconds
        options = LogOptions(follow, previous, timestamps, tail_lines, since, limit_bytes, stream)
        async for chunk in self.kubelet.pods.logs(pod, container, options):
            yield chunk
