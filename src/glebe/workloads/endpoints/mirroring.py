"""The EndpointSlice mirroring controller: hand-made Endpoints of Services without selectors, as slices."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError, is_conflict, is_not_found
from glebe.kube.events import WARNING, EventRecorder
from glebe.kube.informer import Informers
from glebe.kube.objects import EVERY, Object, ObjectKey, is_deleting, key_of, labels_of
from glebe.kube.resources import SERVICES
from glebe.workloads.endpoints.kinds import (
    BY_SERVICE,
    ENDPOINTS,
    MANAGED_BY,
    MIRROR_CONTROLLER,
    SERVICE_NAME,
    SLICES,
    service_of,
)
from glebe.workloads.endpoints.mirrored import MOST, Mirror, mirror, wants_mirror
from glebe.workloads.endpoints.packing import Plan
from glebe.workloads.endpoints.watching import Written, in_ending_namespace


class MirroringController:
    """The shell; what is mirrored is decided in ``mirrored``."""

    def __init__(self, client: Client, informers: Informers, env: Env) -> None:
        self._client = client
        self._services = informers.get(SERVICES)
        self._endpoints = informers.get(ENDPOINTS)
        self._slices = informers.get(SLICES, indexers={BY_SERVICE: service_of})
        self._recorder = EventRecorder(client, env, "endpoint-slice-mirroring-controller")
        self._written = Written()
        self._told: dict[ObjectKey, tuple[str, int, int]] = {}
        self._controller = Controller("endpointslicemirroring", self.reconcile, env, workers=2)

    def controller(self) -> Controller:
        controller = self._controller
        controller.watch(self._endpoints, when=_either_wants)
        controller.watch(self._services, when=_selector_changed)
        controller.watch(self._slices, _mirrored_from(self._slices.cluster))
        return controller

    async def reconcile(self, key: ObjectKey) -> Result | None:
        endpoints, service = self._endpoints.store.get(key), self._services.store.get(key)
        if self._written.is_behind(key, self._slices.store):
            return Result(requeue_after=0.2)
        cluster = key.cluster if self._client.cluster == EVERY else ""
        mine = f"{cluster}/{key.namespace}/{key.name}/{MIRROR_CONTROLLER}"
        existing = [s for s in self._slices.store.by_index(BY_SERVICE, mine) if not is_deleting(s)]
        unmanaged = service is not None and not (service.get("spec") or {}).get("selector")
        if endpoints is None or not wants_mirror(endpoints) or not unmanaged:
            self._told.pop(key, None)
            await self._write(key, Plan(delete=existing), create=False)
            return None
        made = mirror(endpoints, existing)
        await self._tell(key, endpoints, made)
        try:
            await self._write(key, made.plan, create=not is_deleting(endpoints))
        except ApiError as error:
            if not is_conflict(error):
                text = f"Error updating Endpoint Slices for Endpoints {key.namespace}/{key.name}: {error.message}"
                await self._recorder.event(endpoints, WARNING, "FailedToUpdateEndpointSlices", text)
            raise
        return None

    async def _tell(self, key: ObjectKey, endpoints: Object, made: Mirror) -> None:
        """What is left out is said once per state of the Endpoints."""
        state = endpoints["metadata"].get("resourceVersion", ""), made.invalid, made.skipped
        if self._told.get(key) == state:
            return
        self._told[key] = state
        if made.invalid:
            text = f"Skipped {made.invalid} invalid IP addresses when mirroring to EndpointSlices"
            await self._recorder.event(endpoints, WARNING, "InvalidIPAddress", text)
        if made.skipped > made.invalid:
            text = (
                f"A max of {MOST} addresses can be mirrored to EndpointSlices per Endpoints subset. "
                f"{made.skipped} addresses were skipped"
            )
            await self._recorder.event(endpoints, WARNING, "TooManyAddressesToMirror", text)

    async def _write(self, key: ObjectKey, todo: Plan, *, create: bool) -> None:
        client = self._client.at(key.cluster)
        for slice_ in todo.create if create else ():
            try:
                self._written.wrote(key, await client.create(SLICES, slice_))
            except ApiError as error:
                if in_ending_namespace(error):
                    return
                raise
        for slice_ in todo.update:
            self._written.wrote(key, await client.update(SLICES, slice_))
        for slice_ in todo.delete:
            self._written.deleted(key, slice_)
            try:
                await client.delete(SLICES, slice_["metadata"]["name"], key.namespace, uid=slice_["metadata"]["uid"])
            except ApiError as error:
                if not is_not_found(error):
                    self._written.forget(key)
                    raise


def _either_wants(old: Object | None, new: Object | None) -> bool:
    return any(e is not None and wants_mirror(e) for e in (old, new))


def _selector_changed(old: Object | None, new: Object | None) -> bool:
    """Only the selector decides whose the endpoints are."""
    if old is None or new is None:
        return True
    return bool((old.get("spec") or {}).get("selector")) != bool((new.get("spec") or {}).get("selector"))


def _mirrored_from(cluster: str) -> Callable[[Object], Iterable[ObjectKey]]:
    def keys(slice_: Object) -> Iterable[ObjectKey]:
        labels = labels_of(slice_)
        if labels.get(MANAGED_BY) == MIRROR_CONTROLLER and labels.get(SERVICE_NAME):
            yield key_of(slice_, cluster)._replace(name=labels[SERVICE_NAME])

    return keys
