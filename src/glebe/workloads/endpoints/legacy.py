"""The Endpoints controller: the pods of each Service with a selector, as one Endpoints object of its name."""

from __future__ import annotations

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError, is_conflict, is_not_found
from glebe.kube.events import WARNING, EventRecorder
from glebe.kube.informer import Informers
from glebe.kube.objects import EVERY, Object, ObjectKey, annotations_of, is_deleting, key_of, labels_of
from glebe.kube.pods import BY_SPACE, space, space_of
from glebe.kube.resources import PODS, SERVICES
from glebe.workloads.endpoints.backends import selects
from glebe.workloads.endpoints.kinds import (
    ENDPOINTS,
    ENDPOINTS_CONTROLLER,
    ENDPOINTS_MANAGED_BY,
    HEADLESS,
    OVER_CAPACITY,
    TRIGGER_TIME,
    elects_leaders,
    has_endpoints,
    is_headless,
)
from glebe.workloads.endpoints.subsets import repack, size, subsets_of, truncated
from glebe.workloads.endpoints.trigger import TriggerTimes
from glebe.workloads.endpoints.watching import PodFeed, Written, in_ending_namespace


class EndpointsController:
    """The shell; what an Endpoints object says is decided in ``subsets``."""

    def __init__(self, client: Client, informers: Informers, env: Env, feed: PodFeed) -> None:
        self._client = client
        self._services = informers.get(SERVICES)
        self._pods = informers.get(PODS, indexers={BY_SPACE: space_of})
        self._endpoints = informers.get(ENDPOINTS)
        self._recorder = EventRecorder(client, env, "endpoint-controller")
        self._written = Written()
        self._times = TriggerTimes()
        self._departed: dict[ObjectKey, None] = {}
        self._feed = feed
        self._controller = Controller("endpoints", self.reconcile, env, workers=5)

    def controller(self) -> Controller:
        controller = self._controller
        self._services.add_handler(self._observe)
        controller.watch(self._services, lambda _: ())
        self._feed.feed(controller)
        controller.watch(self._endpoints, when=self._concerns)
        return controller

    def _observe(self, old: Object | None, new: Object | None) -> None:
        key = key_of(new or old or {}, self._services.cluster)
        if new is None:
            self._departed[key] = None
        self._controller.queue.add(key)

    def _concerns(self, old: Object | None, new: Object | None) -> bool:
        """Ours changed by others or deleted, and those that our watch still waits for."""
        if new is None:
            return True
        key = key_of(new, self._endpoints.cluster)
        return _ours(new) and not self._written.is_ours(key, new)

    async def reconcile(self, key: ObjectKey) -> Result | None:
        service = self._services.store.get(key)
        current = self._endpoints.store.get(key)
        if service is None:
            await self._remove(key, current)
            return None
        self._departed.pop(key, None)
        if not has_endpoints(service):
            return None
        if self._written.is_behind(key, self._endpoints.store):
            return Result(requeue_after=0.2)
        cluster = key.cluster if self._client.cluster == EVERY else ""
        here = self._pods.store.by_index(BY_SPACE, space(cluster, key.namespace))
        pods = [p for p in here if selects(service, p)]
        trigger = self._times.changed(key, service, pods)
        wanted = subsets_of(service, pods)
        if current is None or is_deleting(current) or not _says(current, service, wanted):
            await self._write(key, service, current, endpoints_for(service, current, wanted, trigger))
        return None

    async def _remove(self, key: ObjectKey, current: Object | None) -> None:
        """The Service is gone: with it go Endpoints of its name, also hand-made ones, but no locks of leaders."""
        self._written.forget(key)
        self._times.forget(key)
        left = current is not None and _ours(current)
        if (key in self._departed or left) and not (current is not None and elects_leaders(current)):
            try:
                await self._client.at(key.cluster).delete(ENDPOINTS, key.name, key.namespace)
            except ApiError as error:
                if not is_not_found(error):
                    raise
        self._departed.pop(key, None)

    async def _write(self, key: ObjectKey, service: Object, current: Object | None, new: Object) -> None:
        client = self._client.at(key.cluster)
        try:
            if current is None:
                self._written.wrote(key, await client.create(ENDPOINTS, new))
            else:
                self._written.wrote(key, await client.update(ENDPOINTS, new))
        except ApiError as error:
            if current is None and in_ending_namespace(error):
                return
            if not is_conflict(error):
                verb, reason = ("create", "FailedToCreateEndpoint") if current is None else ("update", _UPDATE_FAILED)
                what = f"endpoint for service {key}" if current is None else f"endpoint {key}"
                await self._recorder.event(service, WARNING, reason, f"Failed to {verb} {what}: {error.message}")
            raise


_UPDATE_FAILED = "FailedToUpdateEndpoint"


def _ours(endpoints: Object) -> bool:
    return labels_of(endpoints).get(ENDPOINTS_MANAGED_BY) == ENDPOINTS_CONTROLLER


def labels_for(service: Object) -> dict[str, str]:
    """The labels of a Service's Endpoints."""
    labels = {name: value for name, value in labels_of(service).items() if name != HEADLESS}
    if is_headless(service):
        labels[HEADLESS] = ""
    labels[ENDPOINTS_MANAGED_BY] = ENDPOINTS_CONTROLLER
    return labels


def _says(current: Object, service: Object, wanted: list[Object]) -> bool:
    """Whether the object is as it has to be; when the last change was is no reason to write."""
    old = current.get("subsets") or []
    limited = annotations_of(current).get(OVER_CAPACITY) == "truncated"
    return (
        _plain(repack(old)) == _plain(repack(truncated(wanted)))
        and labels_of(current) == labels_for(service)
        and limited == (size(wanted) > size(truncated(wanted)))
    )


def _plain(subsets: list[Object]) -> list[Object]:
    """Without what the server adds or old writers wrote."""
    out: list[Object] = []
    for subset in subsets:
        new: Object = {}
        for field in ("addresses", "notReadyAddresses"):
            new[field] = [_address(a) for a in subset.get(field) or ()]
        new["ports"] = [
            (p.get("name", ""), p.get("port"), p.get("protocol", "TCP"), p.get("appProtocol"))
            for p in subset.get("ports") or ()
        ]
        out.append(new)
    return out


def _address(address: Object) -> Object:
    target = {k: v for k, v in (address.get("targetRef") or {}).items() if k != "resourceVersion"}
    return {**address, "targetRef": target}


def endpoints_for(service: Object, current: Object | None, wanted: list[Object], trigger: str) -> Object:
    """The whole object to write."""
    meta = service["metadata"]
    notes = dict(annotations_of(current)) if current is not None else {}
    notes.pop(TRIGGER_TIME, None)
    notes.pop(OVER_CAPACITY, None)
    if trigger:
        notes[TRIGGER_TIME] = trigger
    limited = truncated(wanted)
    if size(limited) < size(wanted):
        notes[OVER_CAPACITY] = "truncated"
    own = current["metadata"] if current is not None else {"name": meta["name"], "namespace": meta["namespace"]}
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {**own, "labels": labels_for(service), "annotations": notes},
        "subsets": limited,
    }
