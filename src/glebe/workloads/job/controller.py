"""Observes Jobs and their pods and carries out the plans of :mod:`glebe.workloads.job.reconcile`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError, is_already_exists, is_conflict, is_not_found
from glebe.kube.events import EventRecorder
from glebe.kube.informer import Informers
from glebe.kube.objects import EVERY, Object, ObjectKey, cluster_of, controller_of, labels_of
from glebe.kube.resources import JOBS, PODS
from glebe.kube.transport import ConnectionLost
from glebe.workloads.expectations import Expectations
from glebe.workloads.job.facts import Facts, owned_by
from glebe.workloads.job.plan import Plan
from glebe.workloads.job.pods import FINALIZER, is_tracked, name_of, uid_of
from glebe.workloads.job.reconcile import reconcile

POD_INDEX = "job"
JOB_NAME = "batch.kubernetes.io/job-name"
BATCH_PER_POD = 0.001
LONGEST_BATCH = 1.0
"""Seconds for which changes of a Job's pods are gathered, by the number of its pods: a reconciliation looks at all of
them, so one per change would cost the square of their number."""
PARALLEL = 32
"""Requests in flight at once for one Job."""


def job_of(pod: Object) -> list[str]:
    """``CLUSTER/NAMESPACE/NAME`` of the Job that controls ``pod`` (an index of the pod informer); the cluster is empty
    where there is only one.

    A pod that was orphaned before its finalizer was removed is found by its label.
    """
    owner = controller_of(pod)
    if owner is None and is_tracked(pod) and (name := labels_of(pod).get(JOB_NAME)):
        return [_place(cluster_of(pod), pod, name)]
    if owner is None or owner.get("kind") != "Job" or not str(owner.get("apiVersion", "")).startswith("batch/"):
        return []
    return [_place(cluster_of(pod), pod, owner["name"])]


def _place(cluster: str, pod: Object, job: str) -> str:
    return f"{cluster}/{pod['metadata'].get('namespace', '')}/{job}"


class JobController:
    """The shell; all decisions are in ``reconcile``."""

    def __init__(self, client: Client, informers: Informers, env: Env) -> None:
        self._client = client
        self._env = env
        self._jobs = informers.get(JOBS)
        self._pods = informers.get(PODS, indexers={POD_INDEX: job_of})
        self._expectations = Expectations(env.clock)
        self._recorder = EventRecorder(client, env, "job-controller")
        self._written: dict[ObjectKey, str] = {}
        self._controller = Controller("job", self.reconcile, env, workers=4)

    def controller(self) -> Controller:
        controller = self._controller
        self._pods.add_handler(self._observe)
        controller.watch(self._jobs)
        controller.watch(self._pods, lambda _: ())  # ours is the handler above; this waits for the first list
        return controller

    def _keys(self, pod: Object) -> Iterable[ObjectKey]:
        for owner in job_of(pod):
            cluster, namespace, name = owner.split("/")
            yield ObjectKey(cluster or self._client.cluster, namespace, name)

    def _index(self, key: ObjectKey) -> str:
        """What :func:`job_of` says of the pods of a Job."""
        return f"{key.cluster if self._client.cluster == EVERY else ''}/{key.namespace}/{key.name}"

    def _observe(self, old: Object | None, new: Object | None) -> None:
        for key in self._keys(new or old or {}):
            self._expectations.observed(key, old, new)
            pods = self._pods.store.count(POD_INDEX, self._index(key))
            self._controller.queue.add_after(key, min(LONGEST_BATCH, pods * BATCH_PER_POD))

    # --- one reconciliation

    async def reconcile(self, key: ObjectKey) -> Result | None:
        job = self._jobs.store.get(key)
        pods = self._pods.store.by_index(POD_INDEX, self._index(key))
        await self._release_strays(key, pods, "" if job is None else uid_of(job))
        if job is None:
            self._expectations.forget(key)
            self._written.pop(key, None)
            return None
        if self._is_stale(key, job):
            return Result(requeue_after=1.0)  # our own last write is not in the cache yet; its event wakes us earlier
        await self._resolve_doubts(key)
        mine = owned_by(pods, job)
        facts = Facts(job, mine, self._env.clock.now(), settled=self._expectations.settled(key))
        plan = reconcile(facts)
        await self._carry_out(key, job, plan)
        waits = [s for s in (plan.requeue_after, self._expectations.wait(key)) if s is not None]
        return Result(requeue_after=min(waits) + 0.001) if waits else None

    def _is_stale(self, key: ObjectKey, job: Object) -> bool:
        """Whether the cache still shows the version that our last status write replaced (it would only conflict)."""
        return self._written.get(key, "") == str(job["metadata"].get("resourceVersion"))

    async def _resolve_doubts(self, key: ObjectKey) -> None:
        for name in self._expectations.doubtful(key):
            if key._replace(name=name) in self._pods.store:
                self._expectations.created_not(key, name)
                continue
            try:
                await self._client.at(key.cluster).get(PODS, name, key.namespace)
            except ApiError as error:
                if not is_not_found(error):
                    raise
                self._expectations.created_not(key, name)
            else:
                self._expectations.creating(key, name)  # it is there: wait for the cache

    async def _carry_out(self, key: ObjectKey, job: Object, plan: Plan) -> None:
        if plan.status is not None:
            await self._write_status(key, job, plan.status)
        for event in plan.events:
            await self._recorder.event(job, event.type, event.reason, event.message)
        await self._all(plan.release, self._release)
        await self._all(plan.delete, lambda pod: self._delete(key, job, pod))
        await self._all(plan.discard, lambda pod: self._discard(key, job, pod))
        await self._create_all(key, job, plan.create)
        if plan.delete_job:
            await _gone_is_fine(
                self._client.at(key.cluster).delete(
                    JOBS, key.name, key.namespace, uid=uid_of(job), propagation="Foreground"
                )
            )

    async def _write_status(self, key: ObjectKey, job: Object, status: Object) -> None:
        old = job["metadata"].get("resourceVersion", "")
        new = await self._client.update_status(JOBS, {**job, "status": status})
        if new["metadata"].get("resourceVersion") != old:
            self._written[key] = old

    async def _release_strays(self, key: ObjectKey, pods: list[Object], job_uid: str) -> None:
        """Pods of a Job that is gone (or of a namesake) must not wait for it for ever."""
        strays = [p for p in pods if is_tracked(p) and (controller_of(p) or {}).get("uid") != job_uid]
        if not strays:
            return
        try:
            live = uid_of(await self._client.at(key.cluster).get(JOBS, key.name, key.namespace))
        except ApiError as error:
            if not is_not_found(error):
                raise
            live = ""
        await self._all([p for p in strays if (controller_of(p) or {}).get("uid") != live], self._release)

    # --- single writes

    async def _release(self, pod: Object) -> None:
        """Remove the tracking finalizer of this very pod (not of a namesake's)."""
        meta = pod["metadata"]
        rest = [f for f in meta.get("finalizers") or () if f != FINALIZER]
        if len(rest) == len(meta.get("finalizers") or ()):
            return
        body = {"metadata": {"uid": uid_of(pod), "resourceVersion": meta.get("resourceVersion"), "finalizers": rest}}
        client = self._client.at(cluster_of(pod))
        await _gone_is_fine(client.patch(PODS, name_of(pod), body, meta["namespace"]))

    async def _delete(self, key: ObjectKey, job: Object, pod: Object) -> None:
        uid = uid_of(pod)
        self._expectations.deleting(key, uid)
        try:
            await _gone_is_fine(self._client.at(key.cluster).delete(PODS, name_of(pod), key.namespace, uid=uid))
        except BaseException:
            self._expectations.deleted_not(key, uid)
            raise
        await self._recorder.event(job, "Normal", "SuccessfulDelete", f"Deleted pod: {name_of(pod)}")

    async def _discard(self, key: ObjectKey, job: Object, pod: Object) -> None:
        await self._release(pod)
        await self._delete(key, job, pod)

    async def _create(self, key: ObjectKey, job: Object, pod: Object) -> None:
        name = name_of(pod)
        self._expectations.creating(key, name)
        try:
            await self._client.at(key.cluster).create(PODS, pod)
        except ApiError as error:
            self._expectations.unsure(key, name)  # an error may come after the effect; the look-up is cheap
            if is_already_exists(error):
                return
            await self._recorder.event(job, "Warning", "FailedCreate", f"Error creating: {error.message}")
            raise
        except ConnectionLost:
            self._expectations.unsure(key, name)
            raise
        await self._recorder.event(job, "Normal", "SuccessfulCreate", f"Created pod: {name}")

    async def _create_all(self, key: ObjectKey, job: Object, pods: list[Object]) -> None:
        """In batches of 1, 2, 4, ...: a quota or an admission that refuses them is asked once, not 500 times."""
        start, size = 0, 1
        while start < len(pods):
            await self._all(pods[start : start + size], lambda pod: self._create(key, job, pod))
            start, size = start + size, min(size * 2, PARALLEL)

    async def _all(self, pods: list[Object], act: Callable[[Object], Awaitable[None]]) -> None:
        """Do ``act`` for each, a few at once; all are tried, then the first error is raised."""
        for start in range(0, len(pods), PARALLEL):
            results = await asyncio.gather(*(act(p) for p in pods[start : start + PARALLEL]), return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result


async def _gone_is_fine(request: Awaitable[Object]) -> None:
    try:
        await request
    except ApiError as error:
        if not is_not_found(error) and not (is_conflict(error) and "uid" in error.message.lower()):
            raise


def build(client: Client, informers: Informers, env: Env) -> Controller:
    """The Job controller of what ``client`` reads: one cluster, or all."""
    return JobController(client, informers, env).controller()
