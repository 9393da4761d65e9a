"""Observes Jobs and their pods and carries out the plans of :mod:`glebe.workloads.job.reconcile`."""

from __future__ import annotations

from collections.abc import Iterable

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError, is_not_found
from glebe.kube.events import EventRecorder
from glebe.kube.informer import Informers
from glebe.kube.objects import EVERY, Object, ObjectKey, cluster_of, controller_of, labels_of
from glebe.kube.resources import JOBS, PODS
from glebe.workloads.job.facts import Facts
from glebe.workloads.job.plan import Plan
from glebe.workloads.job.pods import FINALIZER, is_tracked, name_of, uid_of
from glebe.workloads.job.reconcile import DEFAULT_MANAGER, MANAGED_BY, reconcile
from glebe.workloads.owned import BY_CONTROLLER, Claims, each, gone_is_fine, in_batches
from glebe.workloads.podwriter import PodWriter, Words

TRACKED = "tracked-by-job"
JOB_NAME = "batch.kubernetes.io/job-name"
BATCH_PER_POD = 0.001
LONGEST_BATCH = 1.0
"""Seconds for which changes of a Job's pods are gathered, by the number of its pods: a reconciliation looks at all of
them, so one per change would cost the square of their number."""


def tracked_by(pod: Object) -> list[str]:
    """``CLUSTER/NAMESPACE/NAME`` of the Job that a pod with the tracking finalizer waits for (an index of the pod
    informer); the cluster is empty where there is only one.

    A pod that was orphaned before its finalizer was removed is found by its label, one that lost this, too, under no
    name.
    """
    if not is_tracked(pod):
        return []
    owner = controller_of(pod)
    if owner is None:
        return [_place(cluster_of(pod), pod, labels_of(pod).get(JOB_NAME, ""))]
    if owner.get("kind") != "Job" or not str(owner.get("apiVersion", "")).startswith("batch/"):
        return []
    return [_place(cluster_of(pod), pod, owner["name"])]


def _place(cluster: str, pod: Object, job: str) -> str:
    return f"{cluster}/{pod['metadata'].get('namespace', '')}/{job}"


class JobController:
    """The shell; all decisions are in ``reconcile``."""

    def __init__(self, client: Client, informers: Informers, env: Env) -> None:
        self._client = client
        self._env = env
        self._claims = Claims(client, informers, JOBS, PODS, finalizer=FINALIZER)
        self._jobs = self._claims.owners
        self._pods = informers.get(PODS, indexers={TRACKED: tracked_by})
        self._recorder = EventRecorder(client, env, "job-controller")
        self._writer = PodWriter(client, self._pods, env, self._recorder, Words())
        self._written: dict[ObjectKey, str] = {}
        self._controller = Controller("job", self.reconcile, env, workers=4)

    def controller(self) -> Controller:
        controller = self._controller
        self._claims.on_change(self._observe)
        self._pods.add_handler(self._observe_orphan)
        controller.watch(self._jobs)
        controller.watch(self._pods, lambda _: ())  # ours are the handlers above; this waits for the first list
        return controller

    def _observe(self, key: ObjectKey, old: Object | None, new: Object | None) -> None:
        self._writer.observed(key, old, new)
        job = self._jobs.store.get(key)
        pods = 0 if job is None else self._pods.store.count(BY_CONTROLLER, uid_of(job))
        self._controller.queue.add_after(key, min(LONGEST_BATCH, pods * BATCH_PER_POD))

    def _observe_orphan(self, old: Object | None, new: Object | None) -> None:
        """Nobody's pod that still has the finalizer: its Job may be long gone, and nobody else is told."""
        if new is not None and controller_of(new) is None:
            for place in tracked_by(new):
                cluster, namespace, name = place.split("/")
                self._controller.queue.add(ObjectKey(cluster or self._client.cluster, namespace, name))

    # --- one reconciliation

    async def reconcile(self, key: ObjectKey) -> Result | None:
        job = self._jobs.store.get(key)
        if job is None:
            await self._release_strays(key, "", ())
            self._writer.forget(key)
            self._written.pop(key, None)
            return None
        if self._is_stale(key, job):
            return Result(requeue_after=1.0)  # our own last write is not in the cache yet; its event wakes us earlier
        facts = await self._facts(key, job)
        await self._release_strays(key, uid_of(job), facts.pods)
        plan = reconcile(facts)
        await self._carry_out(key, job, plan)
        waits = [s for s in (plan.requeue_after, self._writer.wait(key)) if s is not None]
        return Result(requeue_after=min(waits) + 0.001) if waits else None

    def _is_stale(self, key: ObjectKey, job: Object) -> bool:
        """Whether the cache still shows the version that our last status write replaced (it would only conflict)."""
        return self._written.get(key, "") == str(job["metadata"].get("resourceVersion"))

    async def _facts(self, key: ObjectKey, job: Object) -> Facts:
        """What is known, after adopting and releasing pods where the Job goes on and is ours."""
        settled = await self._writer.settled(key)

        def taken(name: str) -> bool:
            there = self._pods.store.get(key._replace(name=name))
            return there is not None and (controller_of(there) or {}).get("uid") != uid_of(job)

        facts = Facts(job, self._claims.owned(job), self._env.clock.now(), settled, taken)
        if facts.deleting or facts.finished or (facts.spec.get("managedBy") or DEFAULT_MANAGER) != MANAGED_BY:
            return facts
        pods = await self._claims.claim(key, job)
        return Facts(job, pods, self._env.clock.now(), settled, taken)

    async def _carry_out(self, key: ObjectKey, job: Object, plan: Plan) -> None:
        if plan.status is not None:
            await self._write_status(key, job, plan.status)
        for event in plan.events:
            await self._recorder.event(job, event.type, event.reason, event.message)
        await each(plan.release, self._release)
        await each(plan.delete, lambda pod: self._writer.delete(key, job, pod))
        await each(plan.discard, lambda pod: self._discard(key, job, pod))
        await in_batches(plan.create, lambda pod: self._writer.create(key, job, pod))
        if plan.delete_job:
            client = self._client.at(key.cluster)
            await gone_is_fine(client.delete(JOBS, key.name, key.namespace, uid=uid_of(job), propagation="Foreground"))

    async def _write_status(self, key: ObjectKey, job: Object, status: Object) -> None:
        old = job["metadata"].get("resourceVersion", "")
        new = await self._client.update_status(JOBS, {**job, "status": status})
        if new["metadata"].get("resourceVersion") != old:
            self._written[key] = old

    async def _release_strays(self, key: ObjectKey, job_uid: str, mine: Iterable[Object]) -> None:
        """Pods of a Job that is gone (or of a namesake) must not wait for it for ever."""
        place = f"{key.cluster if self._client.cluster == EVERY else ''}/{key.namespace}/{key.name}"
        known = {uid_of(pod) for pod in mine}
        waiting = [p for p in self._pods.store.by_index(TRACKED, place) if uid_of(p) not in known]
        strays = [p for p in waiting if (controller_of(p) or {}).get("uid") != job_uid]
        if not strays:
            return
        live = await self._live_uid(key) if key.name else ""
        await each([p for p in strays if (controller_of(p) or {}).get("uid") != live], self._release)

    async def _live_uid(self, key: ObjectKey) -> str:
        try:
            return uid_of(await self._client.at(key.cluster).get(JOBS, key.name, key.namespace))
        except ApiError as error:
            if not is_not_found(error):
                raise
            return ""

    # --- single writes

    async def _release(self, pod: Object) -> None:
        """Remove the tracking finalizer of this very pod (not of a namesake's)."""
        meta = pod["metadata"]
        rest = [f for f in meta.get("finalizers") or () if f != FINALIZER]
        if len(rest) == len(meta.get("finalizers") or ()):
            return
        body = {"metadata": {"uid": uid_of(pod), "resourceVersion": meta.get("resourceVersion"), "finalizers": rest}}
        client = self._client.at(cluster_of(pod))
        await gone_is_fine(client.patch(PODS, name_of(pod), body, meta["namespace"]))

    async def _discard(self, key: ObjectKey, job: Object, pod: Object) -> None:
        await self._release(pod)
        await self._writer.delete(key, job, pod)


def build(client: Client, informers: Informers, env: Env) -> Controller:
    """The Job controller of what ``client`` reads: one cluster, or all."""
    return JobController(client, informers, env).controller()
