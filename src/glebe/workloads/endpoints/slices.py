"""The EndpointSlice controller: the pods of each Service with a selector, as slices."""

from __future__ import annotations

from collections.abc import Iterable

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError, is_conflict, is_not_found
from glebe.kube.events import WARNING, EventRecorder
from glebe.kube.informer import Informers
from glebe.kube.objects import EVERY, Object, ObjectKey, annotations_of, is_deleting, key_of, labels_of
from glebe.kube.pods import BY_SPACE, space, space_of
from glebe.kube.resources import NODES, PODS, SERVICES
from glebe.workloads.endpoints.backends import endpoint_of, families, is_backend, ports_key, ports_of, selects
from glebe.workloads.endpoints.kinds import (
    BY_SERVICE,
    MANAGED_BY,
    SERVICE_NAME,
    SLICE_CONTROLLER,
    SLICES,
    TRIGGER_TIME,
    has_endpoints,
    service_of,
)
from glebe.workloads.endpoints.packing import Group, Plan, plan
from glebe.workloads.endpoints.trigger import TriggerTimes
from glebe.workloads.endpoints.watching import PodFeed, Written, in_ending_namespace

ZONE = "topology.kubernetes.io/zone"


class SliceController:
    """The shell; what goes into which slice is decided in ``packing``."""

    def __init__(self, client: Client, informers: Informers, env: Env, feed: PodFeed) -> None:
        self._client = client
        self._services = informers.get(SERVICES)
        self._pods = informers.get(PODS, indexers={BY_SPACE: space_of})
        self._slices = informers.get(SLICES, indexers={BY_SERVICE: service_of})
        self._nodes = informers.get(NODES)
        self._recorder = EventRecorder(client, env, "endpoint-slice-controller")
        self._written = Written()
        self._times = TriggerTimes()
        self._behind: dict[ObjectKey, None] = {}
        self._missing: dict[ObjectKey, dict[ObjectKey, None]] = {}  # node -> Services whose pods are said to be on it
        self._feed = feed
        self._controller = Controller("endpointslice", self.reconcile, env, workers=5)

    def controller(self) -> Controller:
        controller = self._controller
        controller.watch(self._services, when=_matters)
        self._feed.feed(controller)
        self._slices.add_handler(self._observe)
        controller.watch(self._slices, lambda _: ())
        controller.watch(self._nodes, self._waiting_for, when=lambda old, new: old is None)
        return controller

    def _observe(self, old: Object | None, new: Object | None) -> None:
        for slice_ in (old, new):
            if slice_ is None or labels_of(slice_).get(MANAGED_BY) != SLICE_CONTROLLER:
                continue
            name = labels_of(slice_).get(SERVICE_NAME)
            if not name:
                continue
            key = key_of(slice_, self._slices.cluster)._replace(name=name)
            if new is not None and self._written.is_ours(key, new) and key not in self._behind:
                continue
            self._controller.queue.add(key)

    def _waiting_for(self, node: Object) -> Iterable[ObjectKey]:
        return self._missing.pop(key_of(node, self._nodes.cluster), {})

    async def reconcile(self, key: ObjectKey) -> Result | None:
        service = self._services.store.get(key)
        if service is None:
            self._written.forget(key)
            self._times.forget(key)
            self._behind.pop(key, None)
            return None  # the garbage collector follows the owner reference
        if not has_endpoints(service):
            return None
        if self._written.is_behind(key, self._slices.store):
            self._behind[key] = None
            return Result(requeue_after=1.0)  # the event that we wait for wakes us earlier
        self._behind.pop(key, None)
        cluster = key.cluster if self._client.cluster == EVERY else ""
        here = self._pods.store.by_index(BY_SPACE, space(cluster, key.namespace))
        pods = [p for p in here if selects(service, p)]
        trigger = self._times.changed(key, service, pods)
        mine = f"{cluster}/{key.namespace}/{key.name}/{SLICE_CONTROLLER}"
        existing = [s for s in self._slices.store.by_index(BY_SERVICE, mine) if not is_deleting(s)]
        try:
            await self._write(key, service, self._plan(key, service, pods, existing), trigger)
        except ApiError as error:
            if not is_conflict(error):
                text = f"Error updating Endpoint Slices for Service {key.namespace}/{key.name}: {error.message}"
                await self._recorder.event(service, WARNING, "FailedToUpdateEndpointSlices", text)
            raise
        return None

    def _plan(self, key: ObjectKey, service: Object, pods: list[Object], existing: list[Object]) -> Plan:
        mine = families(service)
        out = Plan(delete=[s for s in existing if s.get("addressType") not in mine])
        for family in mine:
            groups = self._groups(key, service, pods, family)
            out.add(plan(service, family, groups, [s for s in existing if s.get("addressType") == family]))
        return out

    def _groups(self, key: ObjectKey, service: Object, pods: list[Object], family: str) -> list[Group]:
        groups: dict[object, Group] = {}
        for pod in sorted(pods, key=lambda p: str(p["metadata"]["name"])):
            if not is_backend(pod, terminating=True):
                continue
            ports = ports_of(service, pod)
            group = groups.setdefault(ports_key(ports), Group(ports))
            name = (pod.get("spec") or {}).get("nodeName")
            node = self._nodes.store.get(ObjectKey(key.cluster, "", name)) if name else None
            if node is None and not service["spec"].get("publishNotReadyAddresses"):
                if name:
                    self._missing.setdefault(ObjectKey(key.cluster, "", name), {})[key] = None
                continue
            zone = labels_of(node).get(ZONE, "") if node is not None else ""
            endpoint = endpoint_of(service, pod, family, zone)
            if endpoint["addresses"]:
                group.endpoints.append(endpoint)
        return list(groups.values())

    async def _write(self, key: ObjectKey, service: Object, todo: Plan, trigger: str) -> None:
        client = self._client.at(key.cluster)
        if not is_deleting(service):
            for slice_ in todo.create:
                try:
                    self._written.wrote(key, await client.create(SLICES, _timed(slice_, trigger)))
                except ApiError as error:
                    if in_ending_namespace(error):
                        return
                    raise
        for slice_ in todo.update:
            self._written.wrote(key, await client.update(SLICES, _timed(slice_, trigger)))
        for slice_ in todo.delete:
            self._written.deleted(key, slice_)
            try:
                await client.delete(SLICES, slice_["metadata"]["name"], key.namespace, uid=slice_["metadata"]["uid"])
            except ApiError as error:
                if not is_not_found(error):
                    self._written.forget(key)
                    raise


def _timed(slice_: Object, trigger: str) -> Object:
    notes = {name: value for name, value in annotations_of(slice_).items() if name != TRIGGER_TIME}
    if trigger:
        notes[TRIGGER_TIME] = trigger
    meta = {name: value for name, value in slice_["metadata"].items() if name != "annotations"}
    return {**slice_, "metadata": {**meta, "annotations": notes} if notes else meta}


def _matters(old: Object | None, new: Object | None) -> bool:
    """A Service's status concerns nobody here."""

    def seen(service: Object) -> object:
        return service.get("spec"), labels_of(service), is_deleting(service)

    return old is None or new is None or seen(old) != seen(new)


def build(client: Client, informers: Informers, env: Env) -> list[Controller]:
    """The endpoint controllers of what ``client`` reads: one cluster, or all."""
    from glebe.workloads.endpoints.legacy import EndpointsController
    from glebe.workloads.endpoints.mirroring import MirroringController

    feed = PodFeed(informers)
    return [
        SliceController(client, informers, env, feed).controller(),
        EndpointsController(client, informers, env, feed).controller(),
        MirroringController(client, informers, env).controller(),
    ]
