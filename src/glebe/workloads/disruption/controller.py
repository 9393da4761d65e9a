"""The disruption controller: keeps the status of PodDisruptionBudgets (``pkg/controller/disruption``).

What may be disrupted is what the eviction subresource may take; here it is counted anew whenever pods change. A second
controller takes back ``DisruptionTarget`` from pods that were not deleted after all.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from glebe.kube.client import Client
from glebe.kube.clock import Env, format_time, parse_time
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError, is_not_found
from glebe.kube.events import NORMAL, WARNING, EventRecorder
from glebe.kube.informer import Informers
from glebe.kube.objects import (
    EVERY,
    Object,
    ObjectKey,
    get_condition,
    is_deleting,
    key_of,
    labels_of,
    set_condition,
)
from glebe.kube.pods import BY_SPACE, has_ended, space, space_of
from glebe.kube.resources import PODS, Resource
from glebe.kube.selectors import LabelSelector
from glebe.workloads.disruption.counting import count, needs_scale, status_of, wanted, with_condition
from glebe.workloads.disruption.scale import NoScale, expected_scale

BUDGETS = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
STALE = 120.0
"""Seconds after which a pod that was to be disrupted, and is still there, is no longer said to be."""


class DisruptionController:
    def __init__(self, client: Client, informers: Informers, env: Env) -> None:
        self._client = client
        self._env = env
        self._pods = informers.get(PODS, indexers={BY_SPACE: space_of})
        self._budgets = informers.get(BUDGETS, indexers={BY_SPACE: space_of})
        self._recorder = EventRecorder(client, env, "controllermanager")
        self._told: dict[ObjectKey, str] = {}

    def controllers(self) -> list[Controller]:
        budgets = Controller("disruption", self.reconcile, self._env)
        budgets.watch(self._budgets)
        budgets.watch(self._pods, self._budgets_for)
        stale = Controller("stale-disruption", self.take_back, self._env)
        stale.watch(self._pods, when=lambda old, new: new is not None and _is_target(new))
        return [budgets, stale]

    def _budgets_for(self, pod: Object) -> Iterable[ObjectKey]:
        for budget in self._budgets.store.by_index(BY_SPACE, space_of(pod)[0]):
            if _selector(budget).matches(labels_of(pod)):
                yield key_of(budget, self._client.cluster)

    async def reconcile(self, key: ObjectKey) -> Result | None:
        budget = self._budgets.store.get(key)
        if budget is None:
            self._told.pop(key, None)
            return None
        where = space(key.cluster if self._client.cluster == EVERY else "", key.namespace)
        selector = _selector(budget)
        pods = [p for p in self._pods.store.by_index(BY_SPACE, where) if selector.matches(labels_of(p))]
        try:
            return await self._sync(key, budget, pods)
        except (NoScale, ValueError) as error:
            reason = "CalculateExpectedPodCountFailed"
            text = f"Failed to calculate the number of expected pods: {error}"
            await self._tell(key, budget, WARNING, reason, text)
            await self._fail(key, budget, str(error))
            return None

    async def _sync(self, key: ObjectKey, budget: Object, pods: list[Object]) -> Result | None:
        spec, client = budget.get("spec") or {}, self._client.at(key.cluster)
        if not pods:
            await self._tell(key, budget, NORMAL, "NoPods", "No matching pods found")
        scale, unmanaged = 0, list[str]()
        if needs_scale(spec):
            scale, unmanaged = await expected_scale(client, key.namespace, pods)
        if unmanaged:
            text = (
                f"Pods selected by this PodDisruptionBudget (selector: {spec.get('selector')}) were found to be "
                "unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in "
                'undefined behavior. To account for these pods please set ".spec.minAvailable" field of the PDB to an '
                "integer value."
            )
            await self._tell(key, budget, WARNING, "UnmanagedPods", text)
        if pods and not unmanaged:
            self._told.pop(key, None)
        expected, desired = wanted(spec, len(pods), scale)
        now = self._env.clock.now()
        status = budget.get("status") or {}
        counts = count(pods, expected, desired, status.get("disruptedPods"), now)
        generation = budget["metadata"].get("generation", 0)
        await self._write(client, budget, status_of(counts, status, generation, format_time(now)))
        return None if counts.recheck_after is None else Result(requeue_after=counts.recheck_after + 0.001)

    async def _fail(self, key: ObjectKey, budget: Object, why: str) -> None:
        """What cannot be counted allows nothing."""
        status = budget.get("status") or {}
        now, generation = format_time(self._env.clock.now()), status.get("observedGeneration", 0)
        conditions = with_condition(status.get("conditions") or [], "False", "SyncFailed", why, generation, now)
        new = {**status, "disruptionsAllowed": 0, "conditions": conditions}
        await self._write(self._client.at(key.cluster), budget, new)

    async def _write(self, client: Client, budget: Object, status: dict[str, Any]) -> None:
        if (budget.get("status") or {}) == status:
            return
        try:
            await client.update_status(BUDGETS, {**budget, "status": status})
        except ApiError as error:
            if not is_not_found(error):
                raise

    async def _tell(self, key: ObjectKey, budget: Object, kind: str, reason: str, text: str) -> None:
        """Say something once, until it changes."""
        if self._told.get(key) != text:
            self._told[key] = text
            await self._recorder.event(budget, kind, reason, text)

    async def take_back(self, key: ObjectKey) -> Result | None:
        """``DisruptionTarget`` of a pod that is still there after a while becomes False."""
        pod = self._pods.store.get(key)
        if pod is None or not _is_target(pod):
            return None
        since = parse_time((get_condition(pod, "DisruptionTarget") or {})["lastTransitionTime"])
        left = since + STALE - self._env.clock.now()
        if left > 0:
            return Result(requeue_after=left)
        conditions = pod["status"]["conditions"]
        now = format_time(self._env.clock.now())
        changed = set_condition(conditions, "DisruptionTarget", "False", "", "", now)
        for condition in changed:
            if condition["type"] == "DisruptionTarget":
                condition.pop("reason"), condition.pop("message")
        body = {**pod, "status": {**pod["status"], "conditions": changed}}
        try:
            await self._client.at(key.cluster).update_status(PODS, body)
        except ApiError as error:
            if not is_not_found(error):
                raise
        return None


def _selector(budget: Object) -> LabelSelector:
    """No selector selects nothing, an empty one everything."""
    return LabelSelector.from_object((budget.get("spec") or {}).get("selector"))


def _is_target(pod: Object) -> bool:
    if is_deleting(pod) or has_ended(pod):
        return False
    condition = get_condition(pod, "DisruptionTarget") or {}
    return condition.get("status") == "True" and condition.get("reason") != "TerminationByKubelet"


def build(client: Client, informers: Informers, env: Env) -> list[Controller]:
    """The controllers, for one cluster or (with a client over :data:`EVERY`) for all."""
    return DisruptionController(client, informers, env).controllers()
