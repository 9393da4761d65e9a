"""Keeps the scale of things as their HorizontalPodAutoscalers want it (``pkg/controller/podautoscaler``).

All autoscalers of a cluster are looked at in the same moment, each 15 s, so that one list of metrics serves them all.
What is remembered (recommendations, changes of scale) is in memory, as upstream: after a restart windows begin anew,
with the scale that there is as the first recommendation.
"""

from __future__ import annotations

import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from glebe.kube.client import Client
from glebe.kube.clock import Env, format_time
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError, is_not_found
from glebe.kube.events import NORMAL, WARNING, EventRecorder
from glebe.kube.informer import Informers
from glebe.kube.objects import EVERY, Object, ObjectKey, key_of, set_condition
from glebe.kube.pods import BY_SPACE, space, space_of
from glebe.kube.resources import PODS, Resource
from glebe.kube.selectors import LabelSelector, SelectorError
from glebe.workloads.autoscaling import behavior
from glebe.workloads.autoscaling.behavior import History, Sample
from glebe.workloads.autoscaling.metrics import Metrics, Scene, Unreadable, Wish, tolerances
from glebe.workloads.autoscaling.readings import Readings
from glebe.workloads.autoscaling.selecting import Pods, Selectors
from glebe.workloads.autoscaling.target import NoTarget, read_scale, write_scale

AUTOSCALERS = Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
PERIOD = 15.0
"""Seconds between two looks at an autoscaler."""


@dataclass(slots=True)
class _Look:
    """One look at one autoscaler; ``status`` is what it shall say afterwards."""

    key: ObjectKey
    hpa: Object
    now: float
    status: Object
    least: int = 1
    reason: str = ""
    metrics: list[Object] = field(default_factory=list)

    def set(self, kind: str, status: str, reason: str, message: str) -> None:
        conditions = self.status.get("conditions") or []
        self.status["conditions"] = set_condition(conditions, kind, status, reason, message, format_time(self.now))

    def conclude(self, current: int, desired: int | None = None, *, rescaled: bool = False) -> None:
        """Upstream writes no other field than these."""
        old, new = self.status, {"currentReplicas": current}
        status: Object = {field: value for field, value in new.items() if value}
        status["desiredReplicas"] = int(old.get("desiredReplicas") or 0) if desired is None else desired
        last = format_time(self.now) if rescaled else old.get("lastScaleTime")
        more = {"lastScaleTime": last, "currentMetrics": self.metrics, "conditions": old.get("conditions")}
        status.update({field: value for field, value in more.items() if value})
        self.status = status


class _Failed(Exception):
    """The look ends here; the status tells why."""


class AutoscalerController:
    """The shell; the arithmetic is in ``calculator`` and ``behavior``."""

    def __init__(self, client: Client, informers: Informers, env: Env) -> None:
        self._client = client
        self._env = env
        self._autoscalers = informers.get(AUTOSCALERS)
        self._pods = informers.get(PODS, indexers={BY_SPACE: space_of})
        self._recorder = EventRecorder(client, env, "horizontal-pod-autoscaler")
        self._metrics = Metrics(client, Readings(client, env.clock))
        self._history: dict[ObjectKey, History] = {}
        self._selected = Pods(lambda where: self._pods.store.by_index(BY_SPACE, where))
        self._selectors: dict[tuple[str, str], Selectors] = {}  # by cluster and namespace
        self._controller = Controller("horizontal-pod-autoscaler", self.reconcile, env, workers=5)

    def controller(self) -> Controller:
        self._autoscalers.add_handler(self._observe)
        for informer in (self._autoscalers, self._pods):
            self._controller.watch(informer, lambda _: (), when=lambda *_: False)  # only to wait for its first list
        return self._controller

    def _observe(self, old: Object | None, new: Object | None) -> None:
        key = key_of(new or old or {}, self._autoscalers.cluster)
        if new is None:
            self._controller.queue.add(key)
        elif old is None or old["metadata"].get("uid") != new["metadata"].get("uid"):
            self._controller.queue.add_after(key, self._until_next(key.cluster))

    def _until_next(self, cluster: str) -> float:
        """Clusters have different moments, autoscalers of one cluster the same."""
        phase = zlib.crc32(cluster.encode()) % 15_000 / 1000
        return PERIOD - (self._env.clock.now() - phase) % PERIOD

    # --- one look

    async def reconcile(self, key: ObjectKey) -> Result | None:
        hpa = self._autoscalers.store.get(key)
        if hpa is None:
            self._forget(key)
            return None
        look = _Look(key, hpa, self._env.clock.now(), dict(hpa.get("status") or {}))
        with suppress(_Failed):
            await self._look(look)
        await self._write(look)
        return Result(requeue_after=self._until_next(key.cluster))

    def _forget(self, key: ObjectKey) -> None:
        self._history.pop(key, None)
        space_ = (key.cluster, key.namespace)
        near = self._selectors.get(space_)
        if near is not None:
            near.drop(key.name)
            if not near:
                del self._selectors[space_]

    async def _look(self, look: _Look) -> None:
        spec, client = look.hpa["spec"], self._client.at(look.key.cluster)
        try:
            resource, scale = await read_scale(client, spec["scaleTargetRef"], look.key.namespace)
        except NoTarget as error:
            await self._tell(look, WARNING, "FailedGetScale", str(error))
            text = f"the HPA controller was unable to get the target's current scale: {error}"
            look.set("AbleToScale", "False", "FailedGetScale", text)
            raise _Failed from error
        text = "the HPA controller was able to get the target's current scale"
        look.set("AbleToScale", "True", "SucceededGetScale", text)
        current = int((scale.get("spec") or {}).get("replicas") or 0)
        history = self._history.get(look.key)
        if history is None:
            history = self._history[look.key] = History([Sample(look.now, current)])
        look.least = int(spec.get("minReplicas", 1))
        desired = await self._desired(look, scale, history, current)
        if desired == current:
            look.conclude(current, current)
            return
        try:
            await write_scale(client, resource, scale, desired)
        except NoTarget as error:
            text = f"New size: {desired}; reason: {look.reason}; error: {error}"
            await self._tell(look, WARNING, "FailedRescale", text)
            text = f"the HPA controller was unable to update the target scale: {error}"
            look.set("AbleToScale", "False", "FailedUpdateScale", text)
            look.conclude(current)
            raise _Failed from error
        text = f"the HPA controller was able to update the target scale to {desired}"
        look.set("AbleToScale", "True", "SucceededRescale", text)
        await self._tell(look, NORMAL, "SuccessfulRescale", f"New size: {desired}; reason: {look.reason}")
        history.scaled(spec.get("behavior"), current, desired, look.now)
        look.conclude(current, desired, rescaled=True)

    async def _desired(self, look: _Look, scale: Object, history: History, current: int) -> int:
        """The number of replicas to have now; ``look.reason`` says why it is another one."""
        spec = look.hpa["spec"]
        most = int(spec["maxReplicas"])
        if current == 0:
            text = "scaling is disabled since the replica count of the target is zero"
            look.set("ScalingActive", "False", "ScalingDisabled", text)
            return 0
        if current > most:
            look.reason = "Current number of replicas above Spec.MaxReplicas"
            return most
        if current < look.least:
            look.reason = "Current number of replicas below Spec.MinReplicas"
            return look.least
        wish = await self._wishes(look, scale, current)
        if wish.replicas > current:
            look.reason = f"{wish.name} above target"
        elif wish.replicas < current:
            look.reason = "All metrics below target"
        got = behavior.normalize(spec.get("behavior"), history, current, wish.replicas, look.least, most, look.now)
        look.set("AbleToScale", "True", *got.able)
        look.set("ScalingLimited", "True" if got.limited else "False", *got.limit)
        return got.replicas

    async def _wishes(self, look: _Look, scale: Object, current: int) -> Wish:
        """The greatest wish of all metrics. Those that say nothing keep it from being less than there is."""
        specs = look.hpa["spec"].get("metrics") or []
        try:
            selector = await self._selector(look, (scale.get("status") or {}).get("selector") or "")
        except _Failed as error:
            await self._give_up(look, current, str(error))
            raise
        scene = self._scene(look, scale, selector, current)
        best, failures = Wish(0, "", {}), list[Unreadable]()
        for spec in specs:
            try:
                wish = await self._metrics.wish(scene, spec)
            except Unreadable as error:
                await self._tell(look, WARNING, error.reason, error.why)
                failures.append(error)
                look.metrics.append({"type": ""})
                continue
            look.metrics.append(wish.status)
            if best.replicas == 0 or wish.replicas > best.replicas:
                best = wish
        if failures and (len(failures) >= len(specs) or best.replicas < current):
            first = failures[0]
            text = f"the HPA was unable to compute the replica count: {first.why}"
            look.set("ScalingActive", "False", first.reason, text)
            text = f"invalid metrics ({len(failures)} invalid out of {len(specs)}), first error is: {first}"
            await self._give_up(look, current, text)
            raise _Failed
        text = f"the HPA was able to successfully calculate a replica count from {best.name}"
        look.set("ScalingActive", "True", "ValidMetricFound", text)
        return best

    async def _give_up(self, look: _Look, current: int, why: str) -> None:
        look.conclude(current)
        await self._tell(look, WARNING, "FailedComputeMetricsReplicas", why)

    def _scene(self, look: _Look, scale: Object, selector: LabelSelector, current: int) -> Scene:
        there = int((scale.get("status") or {}).get("replicas") or 0)
        tolerance = tolerances(look.hpa["spec"].get("behavior"))
        pods = self._pods_of(look, selector)
        return Scene(look.key.cluster, look.key.namespace, selector, pods, current, there, tolerance, look.now)

    def _pods_of(self, look: _Look, selector: LabelSelector) -> list[Object]:
        where = space(look.key.cluster if self._client.cluster == EVERY else "", look.key.namespace)
        return self._selected.selected(where, selector, look.now)

    async def _selector(self, look: _Look, text: str) -> LabelSelector:
        """The target's selector, when it has one and no other autoscaler's target has the same pods."""
        if not text:
            why = "selector is required"
            await self._tell(look, WARNING, "SelectorRequired", why)
            look.set("ScalingActive", "False", "InvalidSelector", "the HPA target's scale is missing a selector")
            raise _Failed(why)
        try:
            selector = LabelSelector.parse(text)
        except SelectorError as error:
            why = f"couldn't convert selector into a corresponding internal selector object: {error}"
            await self._tell(look, WARNING, "InvalidSelector", why)
            look.set("ScalingActive", "False", "InvalidSelector", why)
            raise _Failed(why) from error
        near = self._selectors.setdefault((look.key.cluster, look.key.namespace), Selectors())
        near.put(look.key.name, selector)
        if rivals := near.rivals(look.key.name, self._pods_of(look, selector)):
            names = " ".join(f"{{{name} {look.key.namespace}}}" for name in sorted([look.key.name, *rivals]))
            why = f"pods by selector {text} are controlled by multiple HPAs: [{names}]"
            await self._tell(look, WARNING, "AmbiguousSelector", why)
            look.set("ScalingActive", "False", "AmbiguousSelector", why)
            raise _Failed(why)
        return selector

    # --- words and writes

    async def _tell(self, look: _Look, kind: str, reason: str, text: str) -> None:
        await self._recorder.event(look.hpa, kind, reason, text)

    async def _write(self, look: _Look) -> None:
        look.status.setdefault("desiredReplicas", 0)
        if look.status == (look.hpa.get("status") or {}):
            return
        body: dict[str, Any] = {**look.hpa, "status": look.status}
        try:
            await self._client.update_status(AUTOSCALERS, body)
        except ApiError as error:
            if not is_not_found(error):
                await self._tell(look, WARNING, "FailedUpdateStatus", error.message)


def build(client: Client, informers: Informers, env: Env) -> Controller:
    """The autoscalers' controller, of what ``client`` reads: one cluster, or all."""
    return AutoscalerController(client, informers, env).controller()
