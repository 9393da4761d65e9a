"""Jobs and their Workloads: one reconciler for every integrated kind.

A job's pods may run exactly while its workload holds quota and is not evicted. Only ``spec.suspend`` of the job is
ever written.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env, format_micro_time
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError, is_already_exists, is_not_found
from glebe.kube.informer import Informers
from glebe.kube.objects import (
    Object,
    ObjectKey,
    annotations_of,
    controller_of,
    get_condition,
    is_deleting,
    key_of,
    labels_of,
)
from glebe.kube.resources import Resource
from glebe.queueing import convert, integrations, labels, transitions
from glebe.queueing.construct import (
    Priority,
    class_text,
    in_sync,
    missing_class,
    priority_of,
    workload_for,
    workload_name,
)
from glebe.queueing.integrations import Integration, read
from glebe.queueing.notices import Notices

OWNER_INDEX = "queueing/owner"
MISSING_INDEX = "queueing/missing-class"


def owner_index(workload: Object) -> Iterable[str]:
    owner = controller_of(workload)
    return (f"{owner['kind']}/{workload['metadata']['namespace']}/{owner['name']}",) if owner else ()


def missing_index(workload: Object) -> Iterable[str]:
    """The class that it waits for."""
    name = annotations_of(workload).get(labels.MISSING_CLASS)
    return (name,) if name else ()


class JobReconciler:
    """Keeps one kind of job and its workloads in step."""

    def __init__(
        self, integration: Integration, client: Client, informers: Informers, env: Env, notices: Notices
    ) -> None:
        self._integration = integration
        self._client = client
        self._env = env
        self._notices = notices
        self._cluster = client.cluster
        self._jobs = informers.get(integration.resource).store
        self._workloads = informers.get(r.WORKLOADS, indexers={OWNER_INDEX: owner_index}).store
        self._classes = {
            resource: informers.get(resource).store
            for resource in (r.WORKLOAD_PRIORITY_CLASSES, r.WORKLOAD_CLASSES, r.PRIORITY_CLASSES)
        }

    async def reconcile(self, key: ObjectKey) -> Result | None:
        kind = self._integration.resource.kind
        owned = self._workloads.by_index(OWNER_INDEX, f"{kind}/{key.namespace}/{key.name}")
        job = self._jobs.get(key)
        # 1. no job, or not a queued one: no workload
        if job is None or not integrations.is_queued(job):
            for orphan in owned:
                await self._delete(orphan)
            return None
        if is_deleting(job):
            return None
        # 2. workloads of an earlier job of this name go
        name, uid = workload_name(self._integration, job), job["metadata"]["uid"]
        for stray in owned:
            if stray["metadata"]["name"] != name or (controller_of(stray) or {}).get("uid") != uid:
                await self._delete(stray)
        workload = self._workloads.get(ObjectKey(self._cluster, key.namespace, name))
        # 3. the job has ended
        if (end := integrations.finished(self._integration, job)) is not None:
            if workload is not None and not convert.is_finished(workload):
                await self._finish(workload, *end)
            return None
        # 4. there is one workload, and it says what the job says
        desired = self._desired(job, workload)
        if workload is None:
            await self._create(job, desired)
            return None
        if is_deleting(workload):
            return None
        if convert.is_finished(workload):
            await self._delete(workload)  # a finished workload cannot start again, but its job goes on
            return None
        if not self._same(workload, desired):
            await self._sync(job, workload, desired)
            return None
        # 5. the job runs exactly while it may
        await self._steer(job, workload)
        return None

    def _desired(self, job: Object, workload: Object | None) -> Object:
        """The workload that the job should have, marked where a class is missing: then the queue says so."""

        def find(resource: Resource, name: str) -> Object | None:
            return self._classes[resource].get(ObjectKey(self._cluster, "", name))

        missing = missing_class(self._integration, job, find)
        priority = priority_of(self._integration, job, find)
        if workload is not None and (convert.holds_quota(workload) or missing in _known_classes(workload)):
            missing = ""  # it was there once; and a typo in a label ends no run
        if missing or priority.missing:
            priority = Priority(0, missing=missing)
        return workload_for(self._integration, job, priority)

    def _same(self, workload: Object, desired: Object) -> bool:
        # A class may vanish or change its value later: its priority at creation stays until the job names another.
        have, want = workload["spec"].get("priorityClassRef"), desired["spec"].get("priorityClassRef")
        return in_sync(workload, desired) and (want is None or have == want)

    async def _create(self, job: Object, desired: Object) -> None:
        if not await self._still_there(job):
            return
        now = format_micro_time(self._env.clock.now())
        desired["metadata"].setdefault("annotations", {})[labels.SUBMITTED_AT] = now
        try:
            await self._client.create(r.WORKLOADS, desired)
        except Exception as error:
            if not is_already_exists(error):
                raise

    async def _still_there(self, job: Object) -> bool:
        """Ask the server, not the cache: behind a silent watch, garbage collection would take each new one away."""
        meta = job["metadata"]
        try:
            found = await self._client.get(self._integration.resource, meta["name"], meta["namespace"])
        except ApiError as error:
            if is_not_found(error):
                return False
            raise
        return bool(found["metadata"]["uid"] == meta["uid"])

    async def _delete(self, workload: Object) -> None:
        meta = workload["metadata"]
        if is_deleting(workload):
            return
        try:
            await self._client.delete(r.WORKLOADS, meta["name"], meta["namespace"], uid=meta["uid"])
        except Exception as error:
            if not is_not_found(error):
                raise

    async def _finish(self, workload: Object, reason: str, message: str) -> None:
        done = transitions.finish(workload, reason, message, self._env.clock.now())
        await self._client.update_status(r.WORKLOADS, done)
        self._notices.say(workload, "Normal", "Finished", message)

    async def _sync(self, job: Object, workload: Object, desired: Object) -> None:
        """The job was changed: the waiting workload follows; one that holds quota is stopped and made anew."""
        if not convert.holds_quota(workload):
            spec = {**workload["spec"], **desired["spec"], "active": workload["spec"].get("active", True)}
            for name in ("maximumExecutionTimeSeconds", "priorityClassRef"):
                if name not in desired["spec"]:
                    spec.pop(name, None)
            notes = {**(workload["metadata"].get("annotations") or {})}
            for name in (labels.EXPECTED_RUN_TIME, labels.MISSING_CLASS):
                notes.pop(name, None)
            notes.update(desired["metadata"].get("annotations") or {})
            meta = {**workload["metadata"], "annotations": notes, "labels": desired["metadata"]["labels"]}
            await self._client.update(r.WORKLOADS, {**workload, "metadata": meta, "spec": spec})
            return
        if await self._stopped(job):
            await self._delete(workload)

    async def _steer(self, job: Object, workload: Object) -> None:
        now = self._env.clock.now()
        if not convert.holds_quota(workload):
            if not integrations.is_suspended(self._integration, job):
                await self._suspend(job, True)
            return
        if transitions.is_evicted(workload):
            if await self._stopped(job):
                await self._client.update_status(r.WORKLOADS, transitions.release(workload, now))
            return
        if not convert.is_active(workload):
            return  # its eviction is on the way
        if integrations.is_suspended(self._integration, job):
            await self._suspend(job, False)
            return
        ready = integrations.pods_ready(self._integration, job)
        condition = get_condition(workload, labels.PODS_READY)
        if condition is None or (condition["status"] == "True") != ready:
            await self._client.update_status(r.WORKLOADS, transitions.pods_ready(workload, ready, now))

    async def _stopped(self, job: Object) -> bool:
        """Suspend the job; whether all its pods are gone."""
        if not integrations.is_suspended(self._integration, job):
            await self._suspend(job, True)
            return False
        return not int(read(job, self._integration.active, 0))

    async def _suspend(self, job: Object, value: bool) -> None:
        patch: dict[str, Any] = {"metadata": {"resourceVersion": job["metadata"]["resourceVersion"]}}
        at = patch
        for name in self._integration.suspend[:-1]:
            at = at.setdefault(name, {})
        at[self._integration.suspend[-1]] = value
        meta = job["metadata"]
        await self._client.patch(self._integration.resource, meta["name"], patch, meta["namespace"])


def _known_classes(workload: Object) -> set[str]:
    """The classes that a workload names, if they were there when it began to."""
    if labels.MISSING_CLASS in annotations_of(workload):
        return set()
    ref, name = workload["spec"].get("priorityClassRef"), labels_of(workload).get(labels.CLASS)
    known = {class_text(ref["kind"], ref["name"])} if ref else set()
    return known | ({class_text(r.WORKLOAD_CLASSES.kind, name)} if name else set())


def build(integration: Integration, client: Client, informers: Informers, env: Env, notices: Notices) -> Controller:
    """The controller of one kind of job."""
    reconciler = JobReconciler(integration, client, informers, env, notices)
    controller = Controller(f"queue-{integration.resource.plural}", reconciler.reconcile, env, workers=4)
    controller.watch(informers.get(integration.resource), when=_is_ours)

    def owner(workload: Object) -> Iterable[ObjectKey]:
        ref = controller_of(workload)
        if ref is not None and ref["kind"] == integration.resource.kind:
            yield ObjectKey(client.cluster, workload["metadata"]["namespace"], ref["name"])

    controller.watch(informers.get(r.WORKLOADS), owner)
    workloads = informers.get(r.WORKLOADS, indexers={MISSING_INDEX: missing_index}).store
    for resource in (r.WORKLOAD_PRIORITY_CLASSES, r.WORKLOAD_CLASSES, r.PRIORITY_CLASSES):

        def waiting_for(found: Object, kind: str = resource.kind) -> Iterable[ObjectKey]:
            for workload in workloads.by_index(MISSING_INDEX, class_text(kind, found["metadata"]["name"])):
                yield from owner(workload)

        controller.watch(informers.get(resource), waiting_for)  # also: in sync before the first workload is made
    return controller


def _is_ours(old: Object | None, new: Object | None) -> bool:
    return any(job is not None and integrations.is_queued(job) for job in (old, new))


def job_of(workload: Object, informers: Informers, cluster: str) -> tuple[Integration, Object] | None:
    """The job that a workload stands for, as the informers know it."""
    ref = controller_of(workload)
    integration = integrations.for_kind(ref["apiVersion"], ref["kind"]) if ref else None
    if ref is None or integration is None:
        return None
    key = key_of(workload, cluster)._replace(name=ref["name"])
    job = informers.get(integration.resource).store.get(key)
    return (integration, job) if job is not None and job["metadata"]["uid"] == ref["uid"] else None
