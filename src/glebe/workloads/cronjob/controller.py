"""Observes CronJobs and their Jobs and carries out the plans of ``reconcile``."""

from __future__ import annotations

from typing import Any

from glebe.kube.client import Client
from glebe.kube.clock import Env, format_time
from glebe.kube.controller import Controller, Result
from glebe.kube.cron import ScheduleError, parse
from glebe.kube.errors import ApiError, is_already_exists, is_not_found
from glebe.kube.events import NORMAL, WARNING, EventRecorder
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey, controller_of, key_of
from glebe.kube.resources import CRON_JOBS, JOBS
from glebe.workloads.cronjob.plan import Plan
from glebe.workloads.cronjob.reconcile import Facts, reconcile
from glebe.workloads.cronjob.times import until_next
from glebe.workloads.owned import BY_CONTROLLER, controller_uid, gone_is_fine


class CronJobController:
    """The shell; all decisions are in ``reconcile``."""

    def __init__(self, client: Client, informers: Informers, env: Env) -> None:
        self._client = client
        self._env = env
        self._owners = informers.get(CRON_JOBS)
        self._jobs = informers.get(JOBS, indexers={BY_CONTROLLER: controller_uid})
        self._recorder = EventRecorder(client, env, "cronjob-controller")
        self._written: dict[ObjectKey, str] = {}
        self._removed: dict[ObjectKey, set[str]] = {}  # uids of Jobs that were deleted and are in the cache still
        self._controller = Controller("cronjob", self.reconcile, env, workers=4)

    def controller(self) -> Controller:
        controller = self._controller
        self._owners.add_handler(self._on_owner)
        self._jobs.add_handler(self._on_job)
        for informer in (self._owners, self._jobs):
            controller.watch(informer, lambda _: (), when=lambda *_: False)  # only to wait for its first list
        return controller

    def _on_owner(self, old: Object | None, new: Object | None) -> None:
        key = key_of(new or old or {}, self._owners.cluster)
        if old is not None and new is not None and _times(old) != _times(new):
            # A new schedule counts from now on: times that it would have had before are not made up for.
            try:
                schedule = parse(*_times(new))
            except ScheduleError:
                pass
            else:
                now = self._env.clock.now()
                self._controller.queue.add_after(key, until_next(schedule, now, now))
                return
        self._controller.queue.add(key)

    def _on_job(self, old: Object | None, new: Object | None) -> None:
        for job in (old, new):
            ref = None if job is None else controller_of(job)
            if job is not None and ref is not None and ref.get("kind") == CRON_JOBS.kind:
                self._controller.queue.add(key_of(job, self._jobs.cluster)._replace(name=str(ref["name"])))

    # --- one reconciliation

    async def reconcile(self, key: ObjectKey) -> Result | None:
        owner = self._owners.store.get(key)
        if owner is None:
            self._written.pop(key, None)
            self._removed.pop(key, None)
            return None
        if self._written.get(key) == owner["metadata"].get("resourceVersion"):
            return Result(requeue_after=1.0)  # our own last write is not in the cache yet; its event wakes us earlier
        jobs = self._own_jobs(key, owner)
        facts = Facts(owner, jobs, self._env.clock.now(), await self._lost(key, owner, jobs))
        plan = reconcile(facts)
        try:
            await self._carry_out(key, owner, plan)
        finally:
            await self._write_status(key, owner, plan)
        return None if plan.requeue_after is None else Result(requeue_after=plan.requeue_after)

    def _own_jobs(self, key: ObjectKey, owner: Object) -> list[Object]:
        jobs = self._jobs.store.by_index(BY_CONTROLLER, str(owner["metadata"].get("uid")))
        removed = self._removed.pop(key, set()) & {str(j["metadata"].get("uid")) for j in jobs}
        if removed:
            self._removed[key] = removed
        return [j for j in jobs if j["metadata"].get("uid") not in removed]

    async def _lost(self, key: ObjectKey, owner: Object, jobs: list[Object]) -> list[str]:
        """Active Jobs that the cache does not have and the API does not know (any more)."""
        known = {j["metadata"].get("uid") for j in jobs}
        out: list[str] = []
        for ref in (owner.get("status") or {}).get("active") or ():
            if ref.get("uid") in known:
                continue
            try:
                live = await self._client.at(key.cluster).get(JOBS, ref["name"], key.namespace)
            except ApiError as error:
                if not is_not_found(error):
                    raise
                out.append(str(ref.get("uid")))
                continue
            if live["metadata"].get("uid") != ref.get("uid"):
                out.append(str(ref.get("uid")))
        return out

    async def _carry_out(self, key: ObjectKey, owner: Object, plan: Plan) -> None:
        for event in plan.events:
            await self._recorder.event(owner, *event)
        for job in plan.remove:
            await self._delete(key, owner, job["metadata"]["name"], str(job["metadata"].get("uid")))
        left, plan.replace = plan.replace, []
        plan.active += left  # until they are gone
        for ref in left:
            await self._delete(key, owner, str(ref["name"]), str(ref.get("uid")))
            plan.active.remove(ref)
        if plan.create is not None:
            await self._create(key, owner, plan, plan.create)

    # --- single writes

    async def _delete(self, key: ObjectKey, owner: Object, name: str, uid: str) -> None:
        client = self._client.at(key.cluster)
        try:
            await gone_is_fine(client.delete(JOBS, name, key.namespace, uid=uid, propagation="Background"))
        except ApiError as error:
            await self._recorder.event(owner, WARNING, "FailedDelete", f"Deleted job: {error.message}")
            raise
        self._removed.setdefault(key, set()).add(uid)
        await self._recorder.event(owner, NORMAL, "SuccessfulDelete", f"Deleted job {name}")

    async def _create(self, key: ObjectKey, owner: Object, plan: Plan, job: Object) -> None:
        client, name = self._client.at(key.cluster), job["metadata"]["name"]
        try:
            made = await client.create(JOBS, job)
        except ApiError as error:
            if not is_already_exists(error):
                if not _ends(error):
                    await self._recorder.event(owner, WARNING, "FailedCreate", f"Error creating job: {error.message}")
                raise
            made = await client.get(JOBS, name, key.namespace)
            if (controller_of(made) or {}).get("uid") != owner["metadata"].get("uid"):
                plan.create = None  # somebody else's, who shall see to it
                return
        else:
            await self._recorder.event(owner, NORMAL, "SuccessfulCreate", f"Created job {name}")
        plan.active = [*plan.active, _reference(made)]

    async def _write_status(self, key: ObjectKey, owner: Object, plan: Plan) -> None:
        status: dict[str, Any] = dict(owner.get("status") or {})
        status["active"] = plan.active
        if plan.last_success:
            status["lastSuccessfulTime"] = plan.last_success
        if plan.create is not None and any(r.get("name") == plan.create["metadata"]["name"] for r in plan.active):
            status["lastScheduleTime"] = format_time(plan.scheduled)
        if not plan.active:
            del status["active"]
        if status == (owner.get("status") or {}):
            return
        old = owner["metadata"].get("resourceVersion", "")
        new = await self._client.update_status(CRON_JOBS, {**owner, "status": status})
        if new["metadata"].get("resourceVersion") != old:
            self._written[key] = old


def _times(owner: Object) -> tuple[str, str]:
    spec = owner.get("spec") or {}
    return str(spec.get("schedule", "")), str(spec.get("timeZone") or "")


def _reference(job: Object) -> dict[str, Any]:
    meta = job["metadata"]
    return {
        "apiVersion": JOBS.api_version,
        "kind": JOBS.kind,
        "namespace": meta["namespace"],
        "name": meta["name"],
        "uid": meta["uid"],
        "resourceVersion": meta["resourceVersion"],
    }


def _ends(error: ApiError) -> bool:
    """Whether the namespace is on its way out, so that any creation fails."""
    return any(c.get("reason") == "NamespaceTerminating" for c in error.details.get("causes") or ())


def build(client: Client, informers: Informers, env: Env) -> Controller:
    """The CronJob controller of what ``client`` reads: one cluster, or all."""
    return CronJobController(client, informers, env).controller()
