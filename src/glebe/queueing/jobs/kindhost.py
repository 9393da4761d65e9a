"""Runs the controllers of all kinds of jobs that the cluster serves.

Kinds of Kubernetes itself run from the start. A kind that comes with a CRD runs while its CRD is established: until
then nothing of it exists here, no cache and no controller. Kinds that the ConfigMap declares come and go with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError
from glebe.kube.informer import Informers
from glebe.kube.objects import EVERY, Object, ObjectKey, condition_is_true
from glebe.kube.resources import Resource
from glebe.queueing.jobkinds import declared
from glebe.queueing.jobkinds.model import JobKind
from glebe.queueing.jobs.integrations import JobKinds
from glebe.queueing.round.notices import Notices

log = logging.getLogger("glebe.queueing.kinds")

#: Makes the controllers of one kind, not yet running.
Build = Callable[[JobKind], list[Controller]]


class KindHost:
    """Something to run beside the queue's other controllers.

    :param build: see :data:`Build`.
    """

    name = "queue-kinds"

    def __init__(
        self, client: Client, informers: Informers, env: Env, notices: Notices, kinds: JobKinds, build: Build
    ) -> None:
        self._client = client
        self._notices = notices
        self._kinds = kinds
        self._build = build
        self._crds = informers.get(r.CUSTOM_RESOURCE_DEFINITIONS)
        self._configmaps = informers.get(
            r.CONFIGMAPS, namespace=declared.NAMESPACE, field_selector=f"metadata.name={declared.NAME}"
        )
        self._running: dict[JobKind, list[asyncio.Task[None]]] = {}
        self._said: tuple[str, ...] = ()
        self._announced: tuple[JobKind, ...] | None = None
        self.announce: Callable[[Sequence[JobKind]], Awaitable[None]] | None = None
        """Told which kinds are declared, when that changes: brings admission policies where they are needed."""
        self._group: asyncio.TaskGroup | None = None
        self._controller = Controller(self.name, self._reconcile, env)
        key = ObjectKey(client.cluster, "", self.name)
        self._controller.watch(self._crds, lambda _: (key,), when=_serving_changed)
        self._controller.watch(self._configmaps, lambda _: (key,))
        self._controller.queue.add(key)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                await self._controller.run()
        finally:
            self._group = None
            self._running.clear()

    @property
    def running(self) -> list[JobKind]:
        """The kinds whose controllers run now."""
        return list(self._running)

    async def _reconcile(self, key: ObjectKey) -> Result | None:
        declared_now = self._read_declarations()
        if self.announce is not None and declared_now != self._announced:
            try:
                await self.announce(declared_now)
            except ApiError as error:
                if error.code != 403:
                    raise
                log.warning("no admission policies for declared kinds of jobs: %s", error.message)
            self._announced = declared_now
        served = self._served()
        wanted = {kind: None for kind in self._kinds.all if not kind.crd or _address(kind.resource) in served}
        for kind in [kind for kind in self._running if kind not in wanted]:
            await self._stop(kind)
        for kind in wanted:
            if kind not in self._running:
                self._start(kind)
        return None

    def _start(self, kind: JobKind) -> None:
        assert self._group is not None
        self._running[kind] = [
            self._group.create_task(controller.run(), name=f"controller {controller.name}")
            for controller in self._build(kind)
        ]

    async def _stop(self, kind: JobKind) -> None:
        for task in self._running.pop(kind):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def _served(self) -> set[tuple[str, str, str]]:
        """(group, version, plural) of established definitions."""
        out = set()
        for crd in self._crds.store.values():
            spec = crd["spec"]
            if not condition_is_true(crd, "Established") or "deletionTimestamp" in crd["metadata"]:
                continue
            for version in spec.get("versions") or ():
                if version.get("served"):
                    out.add((spec["group"], version["name"], spec["names"]["plural"]))
        return out

    def _read_declarations(self) -> tuple[JobKind, ...]:
        host = "root" if self._client.cluster == EVERY else self._client.cluster
        found = self._configmaps.store.get(ObjectKey(host, declared.NAMESPACE, declared.NAME))
        kinds, faults = declared.declared(found)
        self._kinds.declare(kinds)
        if found is not None and tuple(faults) != self._said:
            for fault in faults:
                log.warning("job kinds: %s", fault)
                self._notices.say_of(found, "Warning", "InvalidJobKind", fault)
            for kind in kinds if not faults else ():
                self._notices.say_of(found, "Normal", "JobKindDeclared", f"{kind.name} is a kind of job now")
        self._said = tuple(faults)
        return kinds


def _address(resource: Resource) -> tuple[str, str, str]:
    return resource.group, resource.version, resource.plural


def _serving_changed(old: Object | None, new: Object | None) -> bool:
    def facts(crd: Object | None) -> tuple[object, ...]:
        if crd is None:
            return ()
        served = [(v["name"], v.get("served")) for v in crd["spec"].get("versions") or ()]
        return condition_is_true(crd, "Established"), "deletionTimestamp" in crd["metadata"], served

    return facts(old) != facts(new)
