"""Who has which GPUs of this machine: given when a pod starts, written down before they are used, never given twice.

What there is comes from NVML when the node starts, or from a number in the fleet file. The API hears of it as node
capacity, labels, conditions and events, and as ResourceSlices.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from glebe.kube.client import Client
from glebe.kube.clock import Env, format_time
from glebe.kube.errors import ApiError, is_not_found
from glebe.kube.events import WARNING, EventRecorder
from glebe.kube.objects import Object, set_condition
from glebe.kube.pods import has_ended
from glebe.node.contracts import AdmissionError, SandboxError
from glebe.node.devices import claims, nvml
from glebe.node.devices.access import access
from glebe.node.devices.grants import Grant
from glebe.node.devices.health import Fault, Watch
from glebe.node.devices.labels import node_labels
from glebe.node.devices.pools import NotEnough, Pools
from glebe.node.devices.publisher import Publisher
from glebe.node.devices.slices import CLAIMS, devices, names
from glebe.node.spec import GPU_RESOURCE, NodeSpec

log = logging.getLogger("glebe.node")

PATIENCE = 10.0
"""Seconds for which a pod waits for devices of a pod that is just ending."""
_LOOK = 0.1
_NVML = 60.0  # seconds; a driver that sleeps needs some
PROBLEM = "GPUProblem"
"""The node's condition: whether a GPU is broken."""


class Devices:
    """The devices of one node.

    :param over: whether the containers of the pod with this uid have all ended; what such a pod has is free.
    :param tell: called when the node's status is to be written anew.
    :param load: gives NVML's module, initialised (:func:`glebe.node.devices.nvml.load`).
    """

    def __init__(
        self,
        spec: NodeSpec,
        client: Client,
        env: Env,
        events: EventRecorder,
        *,
        over: Callable[[str], bool] = lambda _: False,
        tell: Callable[[], None] = lambda: None,
        load: Callable[[], Any] | None = None,
    ) -> None:
        self._spec = spec
        self._client = client
        self._env = env
        self._events = events
        self._over = over
        self._tell = tell
        self._load = load
        count = int(spec.capacity.get(GPU_RESOURCE, "0"))
        self._pools = Pools({GPU_RESOURCE: tuple(map(str, range(count)))} if count else {})
        self._publisher = Publisher(client, spec.name)
        self._watch: Watch | None = None
        self._news: asyncio.Queue[Fault] = asyncio.Queue()

    # --- what there is

    async def start(self) -> None:
        """Look for GPUs, unless the fleet file says how many there are. Can take seconds where there is a driver."""
        if self._spec.gpus is not None or (self._load is None and not nvml.has_driver()):
            return
        try:
            async with asyncio.timeout(_NVML):
                module = await asyncio.to_thread(self._load or nvml.load)
                inventory = await asyncio.to_thread(nvml.discover, module)
        except (nvml.NoNvml, TimeoutError) as error:
            why = str(error) or "the driver does not answer"
            log.warning("node %s: GPUs cannot be asked (%s); they are known by number only", self._spec.name, why)
            return
        for each in inventory.lost:
            log.warning("node %s: %s", self._spec.name, each)
        known = self._pools.grants
        self._pools = Pools.of(inventory, self._spec.mig_strategy)
        self._pools.grants.update(known)
        if inventory.gpus:
            loop = asyncio.get_running_loop()
            self._watch = Watch(module, inventory, lambda fault: _post(loop, self._news, fault))
            self._watch.start()
        self._changed()

    async def run(self) -> None:
        """Tell the API, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._publisher.run())
                while True:
                    fault = await self._news.get()
                    self.fail(fault)
                    await self._events.event(self._node(), WARNING, fault.reason, fault.text)
        finally:
            if self._watch is not None:
                self._watch.stop()

    def _node(self) -> Object:
        name = self._spec.name
        return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "uid": name}}

    def fail(self, fault: Fault) -> None:
        """A device is broken, until the node starts anew."""
        faults = self._pools.faults.setdefault(fault.uuid, [])
        if fault not in faults:
            faults.append(fault)
            log.warning("node %s: %s", self._spec.name, fault.text)
            self._changed()

    def _changed(self) -> None:
        pools = self._pools
        if pools.inventory.gpus:
            labels = {**self._theirs(), **node_labels(pools.inventory, self._spec.mig_strategy)}
            self._publisher.want(devices(pools.inventory, pools.taints()), labels)
            self._tell()

    def _theirs(self) -> dict[str, str]:
        """Labels under the same prefix that the fleet file gives."""
        return {key: value for key, value in self._spec.labels.items() if key.startswith("nvidia.com/")}

    def status(self, status: dict[str, Any]) -> dict[str, Any]:
        """The node's status with what is known of devices: amounts, and a condition where there are GPUs."""
        if not self._pools.inventory.gpus:
            return status
        amounts = self._pools.amounts()
        rest = {key: value for key, value in status["capacity"].items() if key != GPU_RESOURCE}
        made = {
            **status,
            "capacity": {**rest, **{name: str(count) for name, (count, _) in amounts.items()}},
            "allocatable": {**rest, **{name: str(free) for name, (_, free) in amounts.items()}},
        }
        faults = [fault for each in self._pools.faults.values() for fault in each]
        text = "; ".join(fault.text for fault in faults) or "all GPUs answer, and have reported no error"
        reason = faults[0].reason if faults else "GPUsHealthy"
        now = format_time(self._env.clock.now())
        made["conditions"] = set_condition(
            list(status.get("conditions") or ()), PROBLEM, "True" if faults else "False", reason, text, now
        )
        return made

    # --- who has it

    async def allocate(self, pod: Object) -> Grant:
        """Devices for the pod; the same again for a pod that has some.

        :raises AdmissionError: there are not enough, and nobody is about to leave.
        :raises SandboxError: a claim is not ready for the pod (yet).
        """
        uid = str(pod["metadata"]["uid"])
        if uid in self._pools.grants:
            return self._usable(self._pools.grants[uid])
        if has_ended(pod):
            return Grant()
        given, whose = await self._claimed(pod)
        waited = 0.0
        while True:
            try:
                self._check(given)
                resources, containers = self._pools.give(pod["spec"])
                break
            except NotEnough as error:
                if waited >= PATIENCE:
                    raise AdmissionError("UnexpectedAdmissionError", str(error)) from None
            await asyncio.sleep(_LOOK)
            waited += _LOOK
            self._collect()
        for name, ids in claims.share(pod, given).items():
            containers[name] = (*containers.get(name, ()), *ids)
        grant = self._pools.grants[uid] = Grant(resources, containers, whose)
        if grant.ids or grant.claims:
            self._changed()
        return self._usable(grant)

    async def _claimed(self, pod: Object) -> tuple[dict[str, dict[str, tuple[str, ...]]], dict[str, tuple[str, ...]]]:
        """UUIDs by entry and request, and by the claims' uids."""
        given: dict[str, dict[str, tuple[str, ...]]] = {}
        whose: dict[str, tuple[str, ...]] = {}
        known = names(self._pools.inventory)
        for entry, name in claims.claim_names(pod).items():
            try:
                claim = await self._client.get(CLAIMS, name, pod["metadata"]["namespace"])
            except ApiError as error:
                if not is_not_found(error):
                    raise
                raise SandboxError(f"failed to prepare dynamic resources: {error}") from None
            claims.check(pod, claim)
            given[entry] = claims.ids(claim, self._spec.name, known)
            if uuids := tuple(dict.fromkeys(i for ids in given[entry].values() for i in ids)):
                whose[claim["metadata"]["uid"]] = uuids
        return given, whose

    def _check(self, given: dict[str, dict[str, tuple[str, ...]]]) -> None:
        """:raises NotEnough: a pod has one of the claims' devices as an extended resource."""
        extended = self._pools.extended()
        for requests in given.values():
            for uuid in (i for ids in requests.values() for i in ids):
                if self._pools.clashes(uuid, extended):
                    raise NotEnough(f"device {uuid} of a ResourceClaim is in use by another pod")

    def _usable(self, grant: Grant) -> Grant:
        inventory = self._pools.inventory
        if not inventory.gpus or not grant.containers:
            return grant
        return replace(grant, access={name: access(inventory, ids) for name, ids in grant.containers.items()})

    def _collect(self) -> None:
        over = [uid for uid in self._pools.grants if self._over(uid)]
        for uid in over:
            del self._pools.grants[uid]
        if over:
            self._changed()

    def restore(self, uid: str, record: Any) -> Grant:
        """What an earlier process wrote down for the pod (:attr:`Grant.record`)."""
        grant = self._pools.grants[uid] = Grant.of_record(record)
        self._changed()
        return grant

    async def release(self, uid: str) -> None:
        """The pod needs nothing any more."""
        if self._pools.grants.pop(uid, None) is not None:
            self._changed()


def _post(loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[Fault], fault: Fault) -> None:
    """From the watching thread to the loop."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(queue.put_nowait, fault)
