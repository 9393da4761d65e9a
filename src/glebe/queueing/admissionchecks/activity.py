"""AdmissionChecks themselves: whether somebody works on them, and that they stay while a queue asks for them."""

from __future__ import annotations

from collections.abc import Iterable

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env, format_time
from glebe.kube.controller import Controller, Result
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey, cluster_of, get_condition, is_deleting, key_of, set_condition
from glebe.queueing import labels
from glebe.queueing.jobs.integrations import read
from glebe.queueing.life import checks
from glebe.queueing.picture.corepolicies import PROVISIONING

#: Controller of the checks that a person decides.
APPROVAL = "glebe.dev/approval"
#: Checks whose controllers are here.
OURS = (APPROVAL, PROVISIONING)


def controller_name(check: Object | None) -> str:
    return str(read(check, ("spec", "controllerName"), ""))


class CheckActivity:
    """Writes the condition ``Active`` of the checks that are ours, and the finalizer of all that are in use."""

    def __init__(self, client: Client, informers: Informers, env: Env) -> None:
        self._client = client
        self._env = env
        self._checks = informers.get(r.ADMISSION_CHECKS).store
        self._configs = informers.get(r.PROVISIONING_REQUEST_CONFIGS).store
        self._queues = informers.get(r.CLUSTER_QUEUES).store

    async def reconcile(self, key: ObjectKey) -> Result | None:
        check = self._checks.get(key)
        if check is None:
            return None
        if await self._guard(check):
            return None
        if controller_name(check) not in OURS or is_deleting(check):
            return None
        active, reason, message = self._state(key, check)
        known = get_condition(check, "Active") or {}
        if (known.get("status"), known.get("reason"), known.get("message")) == (active, reason, message):
            return None
        status = dict(check.get("status") or {})
        listed = list(status.get("conditions") or ())
        now, generation = format_time(self._env.clock.now()), check["metadata"].get("generation")
        status["conditions"] = set_condition(listed, "Active", active, reason, message, now, generation)
        await self._at(check).update_status(r.ADMISSION_CHECKS, {**check, "status": status})
        return None

    def _state(self, key: ObjectKey, check: Object) -> tuple[str, str, str]:
        if controller_name(check) == PROVISIONING and (problem := self._bad_parameters(key, check)):
            return "False", "BadParametersRef", problem
        return "True", "Active", "The admission check is active"

    def _bad_parameters(self, key: ObjectKey, check: Object) -> str:
        ref = read(check, ("spec", "parameters"))
        if not ref:
            return "missing parameters reference"
        kind = r.PROVISIONING_REQUEST_CONFIGS
        if (ref.get("apiGroup"), ref.get("kind")) != (kind.group, kind.kind):
            return f"wrong parameters reference: a {kind.kind} of {kind.group} is wanted"
        if self._configs.get(key._replace(name=ref.get("name", ""))) is None:
            return f'{kind.kind} "{ref.get("name")}" not found'
        return ""

    async def _guard(self, check: Object) -> bool:
        """Put the finalizer on, or take it off when the check is deleted and no queue asks for it."""
        present = list(check["metadata"].get("finalizers") or ())
        name = check["metadata"]["name"]
        asked_for = any(name in checks.of_queue(q) for q in self._queues.values() if cluster_of(q) == cluster_of(check))
        if is_deleting(check):
            if labels.IN_USE not in present or asked_for:
                return False
            wanted = [f for f in present if f != labels.IN_USE]
        elif labels.IN_USE not in present:
            wanted = [*present, labels.IN_USE]
        else:
            return False
        meta = {"finalizers": wanted, "resourceVersion": check["metadata"]["resourceVersion"]}
        await self._at(check).patch(r.ADMISSION_CHECKS, name, {"metadata": meta})
        return True

    def _at(self, obj: Object) -> Client:
        return self._client.at(cluster_of(obj))


def build(client: Client, informers: Informers, env: Env) -> Controller:
    """Woken by checks, by the configurations that they name and by the queues that ask for them."""
    activity = CheckActivity(client, informers, env)
    controller = Controller("queue-checks", activity.reconcile, env)
    store = informers.get(r.ADMISSION_CHECKS).store

    def of_config(config: Object) -> Iterable[ObjectKey]:
        for check in store.values():
            if read(check, ("spec", "parameters", "name")) == config["metadata"]["name"]:
                yield key_of(check, client.cluster)

    def of_queue(queue: Object) -> Iterable[ObjectKey]:
        for name in checks.of_queue(queue):
            yield key_of(queue, client.cluster)._replace(name=name)

    controller.watch(informers.get(r.ADMISSION_CHECKS))
    controller.watch(informers.get(r.PROVISIONING_REQUEST_CONFIGS), of_config)
    controller.watch(informers.get(r.CLUSTER_QUEUES), of_queue, when=_asks_otherwise)
    return controller


def _asks_otherwise(old: Object | None, new: Object | None) -> bool:
    return old is None or new is None or checks.of_queue(old) != checks.of_queue(new)
