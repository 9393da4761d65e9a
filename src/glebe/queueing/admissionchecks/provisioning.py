"""Asks an autoscaler for nodes: the controller of checks ``kueue.x-k8s.io/provisioning-request``.

The requests are looked up, not watched: their kind is served only where an autoscaler is installed, and few workloads
have one at a time.
"""

from __future__ import annotations

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError, is_already_exists, is_not_found
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey, cluster_of, condition_is_true, is_deleting, key_of
from glebe.kube.resources import Resource
from glebe.queueing import labels
from glebe.queueing.admissionchecks import provreqs
from glebe.queueing.admissionchecks.activity import controller_name
from glebe.queueing.admissionchecks.approvals import CHECK_INDEX, check_index
from glebe.queueing.jobs.integrations import read
from glebe.queueing.life import checks, transitions
from glebe.queueing.picture import convert
from glebe.queueing.picture.corepolicies import PROVISIONING, usable
from glebe.queueing.round.notices import Notices
from glebe.queueing.tenants import tenancy

#: Seconds between two looks at a request: while nodes are awaited, and while the workload runs on them.
_SOON, _LATER = 2.0, 30.0


class Provisioning:
    """One workload at a time: its requests, and what they mean for its checks."""

    def __init__(self, client: Client, informers: Informers, env: Env, notices: Notices) -> None:
        self._client = client
        self._env = env
        self._notices = notices
        self._host = tenancy.host_of(client.cluster)
        self._workloads = informers.get(r.WORKLOADS, indexers={CHECK_INDEX: check_index}).store
        self._checks = informers.get(r.ADMISSION_CHECKS).store
        self._configs = informers.get(r.PROVISIONING_REQUEST_CONFIGS).store
        self._flavors = informers.get(r.RESOURCE_FLAVORS).store

    async def reconcile(self, key: ObjectKey) -> Result | None:
        workload = self._workloads.get(key)
        if workload is None or is_deleting(workload):
            return None
        mine = [c for c in checks.listed(workload) if controller_name(self._check(c["name"])) == PROVISIONING]
        if not mine:
            return None
        over = convert.is_finished(workload) or transitions.is_evicted(workload)
        if not over and not convert.holds_quota(workload):
            return None
        try:
            owned = await self._owned(workload)
        except ApiError as error:
            if not is_not_found(error):
                raise
            await self._say_unserved(workload, mine)
            return Result(requeue_after=_LATER)
        if over:
            await self._remove(owned)
            return None
        return await self._follow(workload, mine, owned)

    async def _follow(self, workload: Object, mine: list[dict[str, object]], owned: list[Object]) -> Result:
        name, now = workload["metadata"]["name"], self._env.clock.now()
        listed = before = checks.listed(workload)
        kept: list[str] = []
        for check in mine:
            called = str(check["name"])
            config = self._config(called)
            if config is None:
                listed = checks.with_state(listed, called, checks.PENDING, provreqs.INACTIVE, now)
                continue
            if not provreqs.is_needed(workload, config):
                if check.get("state") != checks.READY:
                    listed = checks.with_state(listed, called, checks.READY, provreqs.NOT_NEEDED, now)
                continue
            found = provreqs.latest(owned, name, called, config)
            if found is None:
                if check.get("state") == checks.PENDING:
                    retries = check.get("retryCount")
                    attempt = (int(retries) if isinstance(retries, int) else 0) + 1
                    await self._create(workload, called, attempt, config)
                    kept.append(provreqs.request_name(name, called, attempt))
                continue
            kept.append(found[0]["metadata"]["name"])
            admitted = condition_is_true(workload, labels.ADMITTED)
            verdict = provreqs.judged(*found, workload, check, config, admitted=admitted)
            if verdict is not None:
                listed = self._with(listed, called, verdict, config, check, now)
        await self._remove([o for o in owned if o["metadata"]["name"] not in kept])
        if listed != before:
            await self._write(workload, before, listed, now)
        return Result(requeue_after=_LATER if condition_is_true(workload, labels.ADMITTED) else _SOON)

    def _with(
        self,
        listed: list[dict[str, object]],
        name: str,
        verdict: provreqs.Verdict,
        config: Object,
        check: dict[str, object],
        now: float,
    ) -> list[dict[str, object]]:
        fields: dict[str, object] = {}
        if verdict.updates is not None:
            fields["podSetUpdates"] = list(verdict.updates) or None
        if verdict.retry:
            strategy = read(config, ("spec", "retryStrategy"), {})
            count = int(str(check.get("retryCount") or 0)) + 1
            base, most = strategy.get("backoffBaseSeconds", 60), strategy.get("backoffMaxSeconds", 1800)
            fields["requeueAfterSeconds"] = int(checks.backoff(count, base, most))
        return checks.with_state(listed, name, verdict.state, verdict.message, now, **fields)

    async def _write(
        self, workload: Object, before: list[dict[str, object]], listed: list[dict[str, object]], now: float
    ) -> None:
        changed = transitions.with_status(workload, now, admissionChecks=listed)
        await self._at(workload).update_status(r.WORKLOADS, changed)
        old = {c["name"]: c.get("state") for c in before}
        for check in listed:
            if old.get(check["name"]) != check.get("state"):
                text = (
                    f"Admission check {check['name']} updated state from {old.get(check['name'])} to {check['state']}"
                )
                words = f" with message: {check['message']}" if check.get("message") else ""
                self._notices.say(workload, "Normal", "AdmissionCheckUpdated", text + words)

    async def _create(self, workload: Object, check: str, attempt: int, config: Object) -> None:
        request, templates = provreqs.made(workload, check, attempt, config, self._flavor)
        at = self._at(workload)
        for template in templates:
            await _create(at, provreqs.POD_TEMPLATES, template)
        if await _create(at, provreqs.REQUESTS, request):
            text = f'Created ProvisioningRequest: "{request["metadata"]["name"]}"'
            self._notices.say(workload, "Normal", "ProvisioningRequestCreated", text)

    async def _owned(self, workload: Object) -> list[Object]:
        found = await self._at(workload).list(provreqs.REQUESTS, workload["metadata"]["namespace"])
        uid = workload["metadata"]["uid"]
        return [o for o in found.items if any(ref["uid"] == uid for ref in o["metadata"].get("ownerReferences") or ())]

    async def _remove(self, requests: list[Object]) -> None:
        for request in requests:
            meta = request["metadata"]
            if is_deleting(request):
                continue
            try:
                at = self._client.at(cluster_of(request))
                await at.delete(provreqs.REQUESTS, meta["name"], meta["namespace"], uid=meta["uid"])
                for part in request["spec"].get("podSets") or ():
                    await at.delete(provreqs.POD_TEMPLATES, part["podTemplateRef"]["name"], meta["namespace"])
            except ApiError as error:
                if not is_not_found(error):
                    raise

    async def _say_unserved(self, workload: Object, mine: list[dict[str, object]]) -> None:
        """Nobody can bring nodes here."""
        text = "ProvisioningRequests (autoscaling.x-k8s.io/v1) are not served: no autoscaler is installed"
        now, listed = self._env.clock.now(), checks.listed(workload)
        for check in mine:
            if check.get("state") == checks.PENDING:
                listed = checks.with_state(listed, str(check["name"]), checks.PENDING, text, now)
        if listed != checks.listed(workload):
            changed = transitions.with_status(workload, now, admissionChecks=listed)
            await self._at(workload).update_status(r.WORKLOADS, changed)

    def _check(self, name: object) -> Object | None:
        return self._checks.get(ObjectKey(self._host, "", str(name)))

    def _config(self, check: str) -> Object | None:
        found = self._check(check)
        name = read(found, ("spec", "parameters", "name"), "")
        return self._configs.get(ObjectKey(self._host, "", name)) if usable(found) else None

    def _flavor(self, name: str) -> Object | None:
        return self._flavors.get(ObjectKey(self._host, "", name))

    def _at(self, obj: Object) -> Client:
        return self._client.at(cluster_of(obj))


async def _create(client: Client, resource: Resource, obj: Object) -> bool:
    """Whether it was made now, rather than before."""
    try:
        await client.create(resource, obj)
    except ApiError as error:
        if not is_already_exists(error):
            raise
        return False
    return True


def build(client: Client, informers: Informers, env: Env, notices: Notices) -> Controller:
    """Woken by workloads with checks, by checks, and by the time that passes."""
    provisioning = Provisioning(client, informers, env, notices)
    controller = Controller("queue-provisioning", provisioning.reconcile, env)
    store = informers.get(r.WORKLOADS).store

    def of_check(check: Object) -> list[ObjectKey]:
        return [key_of(w, client.cluster) for w in store.by_index(CHECK_INDEX, check["metadata"]["name"])]

    def of_config(_: Object) -> list[ObjectKey]:
        names = [c["metadata"]["name"] for c in informers.get(r.ADMISSION_CHECKS).store.values()]
        return [key_of(w, client.cluster) for n in names for w in store.by_index(CHECK_INDEX, n)]

    controller.watch(informers.get(r.WORKLOADS), when=_matters)
    controller.watch(informers.get(r.ADMISSION_CHECKS), of_check)
    controller.watch(informers.get(r.PROVISIONING_REQUEST_CONFIGS), of_config)
    return controller


def _matters(old: Object | None, new: Object | None) -> bool:
    return new is not None and bool(checks.listed(new))
