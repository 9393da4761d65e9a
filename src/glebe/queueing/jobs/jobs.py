"""Jobs and their Workloads: one reconciler for every kind that has a suspend switch.

A job's pods may run exactly while its workload is admitted and not evicted. What is written into a job is its switch
and, for kinds whose pods are not gated from birth, what the admission adds to pods (:mod:`.podsetinfo`): in one write
with the switch, and taken out again in one write with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env, format_micro_time
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError, is_already_exists, is_not_found
from glebe.kube.informer import Informers
from glebe.kube.objects import (
    EVERY,
    Object,
    ObjectKey,
    annotations_of,
    cluster_of,
    condition_is_true,
    controller_of,
    get_condition,
    is_deleting,
    key_of,
)
from glebe.kube.pods import has_ended
from glebe.queueing import labels
from glebe.queueing.jobkinds.shapes import Unreadable
from glebe.queueing.jobs import elastic, integrations, onhold, startstop
from glebe.queueing.jobs.construct import (
    FOLLOWED,
    Priority,
    in_sync,
    missing_class,
    priority_of,
    still_fits,
    workload_for,
    workload_name,
)
from glebe.queueing.jobs.integrations import Integration, JobKinds, read
from glebe.queueing.jobs.jobindex import OWNER_INDEX, Agreement, agreement, known_classes, owner_index, watch_classes
from glebe.queueing.jobs.podsetinfo import CannotStart, FlavorGone
from glebe.queueing.life import transitions
from glebe.queueing.picture import convert
from glebe.queueing.picture.world import World
from glebe.queueing.round.notices import Notices

#: Seconds for which an evicted workload's job may go on: (workload, job, now) -> seconds.
Grace = Callable[[Object, Object, float], float]
_UNREADABLE = 10.0
_LOOK_AGAIN = 0.5
#: Reason of a workload's end when what was admitted contradicts its job (Kueue's word).
FAILED_TO_START = "FailedToStart"


def no_grace(workload: Object, job: Object, now: float) -> float:
    """Evicted is stopped."""
    return 0.0


class JobReconciler:
    """Keeps one kind of job and its workloads in step."""

    def __init__(
        self,
        integration: Integration,
        client: Client,
        informers: Informers,
        env: Env,
        notices: Notices,
        kinds: JobKinds | None = None,
        grace: Grace = no_grace,
    ) -> None:
        self._integration = integration
        self._grace = grace
        self._agreed: dict[ObjectKey, Agreement] = {}
        """What jobs and their workloads were when they were last found to agree."""
        self._client = client
        self._env = env
        self._notices = notices
        kinds = kinds or JobKinds()
        self._copied_labels = kinds.copied_labels
        self._world = World(client, informers, kinds, integration.needs)
        self._jobs = informers.get(integration.resource).store
        self._workloads = informers.get(r.WORKLOADS, indexers={OWNER_INDEX: owner_index}).store

    async def reconcile(self, key: ObjectKey) -> Result | None:
        kind = self._integration
        job = self._jobs.get(key)
        owned = self._owned(key)
        # 1. no job, or not a queued one: no workload
        if job is None or not integrations.is_queued(job, kind) or self._is_somebodys(job):
            self._agreed.pop(key, None)
            for orphan in owned:
                await self._delete(orphan)
            return None
        if is_deleting(job) or integrations.is_skipped(kind, job):
            return None
        # 2. workloads of an earlier job of this name go
        name, uid = workload_name(kind, job), job["metadata"]["uid"]
        if elastic.is_elastic(kind, job):
            return await self._slices(job, [w for w in owned if (controller_of(w) or {}).get("uid") == uid])
        for stray in owned:
            if stray["metadata"]["name"] != name or (controller_of(stray) or {}).get("uid") != uid:
                await self._delete(stray)
        workload = self._workloads.get(ObjectKey(key.cluster, key.namespace, name))
        # 3. the job has ended
        if (end := integrations.finished(kind, job)) is not None:
            self._agreed.pop(key, None)
            if workload is not None and not convert.is_finished(workload):
                await self._finish(workload, *end)
            return None
        return await self._accompany(job, workload)

    async def _accompany(self, job: Object, workload: Object | None) -> Result | None:
        """A job that goes on: there is one workload, it says what the job says, and the job runs while it may."""
        key = key_of(job, self._client.cluster)
        facts = agreement(job, workload) if workload is not None and not self._integration.needs else None
        if workload is not None and facts is not None and self._agreed.get(key) == facts:
            return await self._steer(job, workload)  # what they say of each other has not changed since
        try:
            desired = self._desired(job, workload)
        except Unreadable as why:
            self._notices.say_of(job, "Warning", "PodsUnknown", f"the job's pods cannot be told: {why}")
            return Result(requeue_after=_UNREADABLE)
        if workload is None:
            if await self._stopped(job, None):  # quota is asked for when no pods of an earlier run are there
                await self._create(job, desired)
            return None
        if is_deleting(workload):
            return None
        if convert.is_finished(workload):
            if (get_condition(workload, labels.FINISHED) or {}).get("reason") != FAILED_TO_START:
                await self._delete(workload)  # a finished workload cannot start again, but its job goes on
            return None
        if not self._same(workload, desired):
            await self._sync(job, workload, desired)
            return None
        if facts is not None:
            self._agreed[key] = facts
        return await self._steer(job, workload)

    async def _slices(self, job: Object, owned: list[Object]) -> Result | None:
        """A job whose number of pods may change: see :mod:`.elastic`."""
        found = elastic.sorted_out(owned)
        if (end := integrations.finished(self._integration, job)) is not None:
            for workload in (w for w in owned if not convert.is_finished(w)):
                await self._finish(workload, *end)
            return None
        for workload, reason, message in found.surplus:
            await self._finish(workload, reason, message)
        if found.surplus:
            return None
        holder, current = found.holder, found.current
        if holder is not None and transitions.is_evicted(holder):
            return await self._steer(job, holder)
        desired = self._desired(job, current)
        if current is None:
            if await self._stopped(job, None):
                await self._create(job, elastic.first(desired))
            return None
        if is_deleting(current):
            return None
        if not elastic.is_compatible(current, desired):
            await self._sync(job, current, desired)
            return None
        if elastic.counts(current) != elastic.counts(desired):
            if convert.holds_quota(current) and elastic.grows(current, desired):
                await self._create(job, elastic.replacement(current, desired, job))
            else:
                await self._at(job).update(r.WORKLOADS, elastic.resized(current, desired))
            return None
        return await self._steer(job, holder or current)

    def _owned(self, key: ObjectKey) -> list[Object]:
        cluster = key.cluster if self._client.cluster == EVERY else ""
        kind = self._integration.resource.kind
        return self._workloads.by_index(OWNER_INDEX, f"{cluster}/{kind}/{key.namespace}/{key.name}")

    def _is_somebodys(self, job: Object) -> bool:
        """Whether it is a part of another queued job: that one stands in the queue, not this."""
        return self._world.queued_owner(job) is not None

    def _desired(self, job: Object, workload: Object | None) -> Object:
        """The workload that the job should have, marked where a class is missing: then the queue says so."""
        find = self._world.finder(job)
        missing = missing_class(self._integration, job, find)
        priority = priority_of(self._integration, job, find)
        if workload is not None and (convert.holds_quota(workload) or missing in known_classes(workload)):
            missing = ""  # it was there once; and a typo in a label ends no run
        if missing or priority.missing:
            priority = Priority(0, missing=missing)
        return workload_for(self._integration, job, priority, find, self._copied_labels)

    def _same(self, workload: Object, desired: Object) -> bool:
        # A class may vanish or change its value later: its priority at creation stays until the job names another.
        have, want = workload["spec"].get("priorityClassRef"), desired["spec"].get("priorityClassRef")
        agree = still_fits if convert.holds_quota(workload) else in_sync
        return agree(workload, desired) and (want is None or have == want)

    async def _create(self, job: Object, desired: Object) -> None:
        if not await self._still_there(job):
            return
        now = format_micro_time(self._env.clock.now())
        desired["metadata"].setdefault("annotations", {})[labels.SUBMITTED_AT] = now
        try:
            await self._at(job).create(r.WORKLOADS, desired)
        except Exception as error:
            if not is_already_exists(error):
                raise

    async def _still_there(self, job: Object) -> bool:
        """Ask the server, not the cache: behind a silent watch, garbage collection would take each new one away."""
        meta = job["metadata"]
        try:
            found = await self._at(job).get(self._integration.resource, meta["name"], meta["namespace"])
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
            await self._at(workload).delete(r.WORKLOADS, meta["name"], meta["namespace"], uid=meta["uid"])
        except Exception as error:
            if not is_not_found(error):
                raise

    async def _finish(self, workload: Object, reason: str, message: str) -> None:
        done = transitions.finish(workload, reason, message, self._env.clock.now())
        await self._client.update_status(r.WORKLOADS, done)
        self._notices.say(workload, "Normal" if reason != FAILED_TO_START else "Warning", "Finished", message)

    async def _sync(self, job: Object, workload: Object, desired: Object) -> None:
        """The job was changed: the waiting workload follows; one that holds quota is stopped and made anew."""
        if not convert.holds_quota(workload):
            spec = {**workload["spec"], **desired["spec"], "active": workload["spec"].get("active", True)}
            for field in ("maximumExecutionTimeSeconds", "priorityClassRef"):
                if field not in desired["spec"]:
                    spec.pop(field, None)
            meta = {**workload["metadata"], "labels": desired["metadata"]["labels"]}
            notes = {**annotations_of(workload), **annotations_of(desired)}
            for note in (labels.MISSING_CLASS, *FOLLOWED):
                if note not in annotations_of(desired):
                    notes.pop(note, None)
            await self._client.update(
                r.WORKLOADS, {**workload, "metadata": {**meta, "annotations": notes}, "spec": spec}
            )
            return
        if await self._stopped(job, workload):
            await self._delete(workload)

    async def _steer(self, job: Object, workload: Object) -> Result | None:
        now = self._env.clock.now()
        if not convert.holds_quota(workload):
            if not integrations.is_suspended(self._integration, job):
                await self._stopped(job, workload)
            elif integrations.is_on_hold(self._integration, job) != convert.is_on_hold(workload):
                await self._hold(workload, now)
            return None
        if transitions.is_evicted(workload):
            if (left := self._grace(workload, job, now)) > 0:
                return Result(requeue_after=left)
            if not await self._stopped(job, workload):
                return None
            if await self._pods_left(job):
                return Result(requeue_after=_LOOK_AGAIN)
            await self._client.update_status(r.WORKLOADS, transitions.release(workload, now))
            return None
        if integrations.is_on_hold(self._integration, job):
            if await self._stopped(job, workload):
                await self._hold(workload, now)
            return None
        if not convert.is_active(workload) or not condition_is_true(workload, labels.ADMITTED):
            return None  # its eviction is on the way, or checks are not passed yet
        if integrations.is_suspended(self._integration, job):
            return await self._start(job, workload)
        await self._report(job, workload, now)
        return None

    async def _hold(self, workload: Object, now: float) -> None:
        """The job asks for nothing as it is; or it does so again."""
        if convert.is_on_hold(workload):
            waiting = onhold.resume(workload, "the job may run again", now)
            await self._client.update(
                r.WORKLOADS, onhold.rejoined(await self._client.update_status(r.WORKLOADS, waiting), now)
            )
            return
        await self._client.update_status(r.WORKLOADS, onhold.put(workload, "the job cannot run as it is", now))
        self._notices.say(workload, "Warning", labels.ON_HOLD, "the job cannot run as it is: it asks for nothing")

    async def _pods_left(self, job: Object) -> bool:
        """Whether pods run that the job has not counted yet: one that was stopped as it started may have such."""
        meta = job["metadata"]
        if self._integration.resource != r.JOBS:
            return False  # of other kinds, pods belong to objects of their own
        selector = f"{labels.JOB_CONTROLLER_UID}={meta['uid']}"
        found = await self._at(job).list(r.PODS, meta["namespace"], label_selector=selector)
        return any(p["spec"].get("nodeName") and not has_ended(p) and not is_deleting(p) for p in found.items)

    async def _report(self, job: Object, workload: Object, now: float) -> None:
        """What a running job's status says of its pods: done for good, ready."""
        done = integrations.reclaimable(self._integration, job)
        known = read(workload, ("status", "reclaimablePods"), [])
        more = {d["name"]: d["count"] for d in done}
        if done != known and all(more.get(k["name"], 0) >= k["count"] for k in known):
            await self._client.update_status(r.WORKLOADS, transitions.with_status(workload, now, reclaimablePods=done))
            return
        count = sum(a.count for a in convert.assignments(workload))
        ready = integrations.pods_ready(self._integration, job, count)
        condition = get_condition(workload, labels.PODS_READY)
        if condition is None or (condition["status"] == "True") != ready:
            await self._client.update_status(r.WORKLOADS, transitions.pods_ready(workload, ready, now))

    async def _start(self, job: Object, workload: Object) -> Result | None:
        find = self._world.finder(job)
        try:
            started = startstop.started(self._integration, job, workload, self._world.flavor, find)
        except FlavorGone:
            return Result(requeue_after=_UNREADABLE)
        except CannotStart as why:
            await self._finish(workload, FAILED_TO_START, str(why))
            return None
        await self._write(job, started)
        return None

    async def _stopped(self, job: Object, workload: Object | None) -> bool:
        """Suspend the job and take out what the start put in; whether all its pods are gone."""
        if integrations.is_suspended(self._integration, job) and not startstop.is_changed(self._integration, job):
            return not integrations.is_active(self._integration, job)
        find = self._world.finder(job)
        wanted = startstop.stopped(self._integration, job, workload, find)
        if await self._write(job, wanted):
            return False
        return not integrations.is_active(self._integration, job)

    async def _write(self, job: Object, wanted: Object) -> bool:
        """Patch what differs; whether anything did."""
        patch = startstop.difference(job, wanted)
        if not patch:
            return False
        meta = job["metadata"]
        patch.setdefault("metadata", {})["resourceVersion"] = meta["resourceVersion"]
        await self._at(job).patch(self._integration.resource, meta["name"], patch, meta["namespace"])
        return True

    def _at(self, obj: Object) -> Client:
        return self._client.at(cluster_of(obj))


def build(
    integration: Integration,
    client: Client,
    informers: Informers,
    env: Env,
    notices: Notices,
    kinds: JobKinds | None = None,
    grace: Grace = no_grace,
) -> Controller:
    """The controller of one kind of job."""
    reconciler = JobReconciler(integration, client, informers, env, notices, kinds, grace)
    kind = integration.resource.kind
    name = f"queue-{integration.resource.plural}"
    controller = Controller(name, reconciler.reconcile, env, workers=16)

    def is_ours(old: Object | None, new: Object | None) -> bool:
        return any(job is not None and integrations.is_queued(job, integration) for job in (old, new))

    controller.watch(informers.get(integration.resource), when=is_ours)

    def owner(workload: Object) -> Iterable[ObjectKey]:
        ref = controller_of(workload)
        if ref is not None and (ref["apiVersion"], ref["kind"]) == (integration.resource.api_version, kind):
            yield key_of(workload, client.cluster)._replace(name=ref["name"])

    controller.watch(informers.get(r.WORKLOADS), owner)
    watch_classes(controller, informers, owner)
    return controller


def job_of(
    workload: Object, informers: Informers, cluster: str, kinds: JobKinds | None = None
) -> tuple[Integration, Object] | None:
    """The job that a workload stands for, as the informers know it."""
    ref = controller_of(workload)
    find = kinds.for_kind if kinds is not None else integrations.for_kind
    integration = find(ref["apiVersion"], ref["kind"]) if ref else None
    if ref is None or integration is None:
        return None
    key = key_of(workload, cluster)._replace(name=ref["name"])
    job = informers.get(integration.resource).store.get(key)
    return (integration, job) if job is not None and job["metadata"]["uid"] == ref["uid"] else None
