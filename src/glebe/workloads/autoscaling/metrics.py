"""What one entry of ``spec.metrics`` asks for, and what the status says of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from glebe.kube.client import Client
from glebe.kube.objects import Object
from glebe.kube.quantity import ceil, format_binary, format_decimal, parse
from glebe.kube.selectors import LabelSelector, SelectorError
from glebe.workloads.autoscaling import calculator
from glebe.workloads.autoscaling.calculator import Tolerances, Uncountable
from glebe.workloads.autoscaling.readings import Readings
from glebe.workloads.autoscaling.target import NoTarget, resource_of


@dataclass(frozen=True, slots=True)
class Scene:
    """What all metrics of one autoscaler are judged by. ``pods``: those that its target's selector matches."""

    cluster: str
    namespace: str
    selector: LabelSelector
    pods: Sequence[Object]
    spec_replicas: int
    status_replicas: int
    tolerances: Tolerances
    now: float


@dataclass(frozen=True, slots=True)
class Wish:
    """How many replicas, by the metric called ``name``, and its entry in ``status.currentMetrics``."""

    replicas: int
    name: str
    status: Object


class Unreadable(Exception):
    """A metric that says nothing now.

    :param reason: of the condition. :param why: what went wrong, without the metric's name.
    """

    def __init__(self, reason: str, why: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.why = why


class Metrics:
    """Judges metrics with what :class:`Readings` says."""

    def __init__(self, client: Client, readings: Readings) -> None:
        self._client = client
        self._readings = readings

    async def wish(self, scene: Scene, spec: Object) -> Wish:
        """What one metric asks for.

        :raises Unreadable: it cannot be said.
        """
        kind = spec.get("type", "")
        judge = _JUDGES.get(kind)
        if judge is None:
            text = f'unknown metric source type "{kind}"'
            raise Unreadable("InvalidMetricSourceType", text, text)
        act, reason, prefix = judge
        source = spec[_FIELDS[kind]]
        try:
            return await act(self, scene, source)
        except Uncountable as error:
            text = prefix.format(name=_title(source), resource=source.get("name"), container=source.get("container"))
            raise Unreadable(reason, str(error), f"{text}: {error.prefix}{error}") from error

    async def _resource(self, scene: Scene, source: Object) -> Wish:
        replicas, current, name = await self._of_resource(scene, source, "")
        return Wish(replicas, name, {"type": "Resource", "resource": {"name": source["name"], "current": current}})

    async def _container(self, scene: Scene, source: Object) -> Wish:
        replicas, current, name = await self._of_resource(scene, source, source["container"])
        status = {"name": source["name"], "container": source["container"], "current": current}
        return Wish(replicas, name, {"type": "ContainerResource", "containerResource": status})

    async def _of_resource(self, scene: Scene, source: Object, container: str) -> tuple[int, Object, str]:
        resource, target = str(source["name"]), source["target"]
        average = target.get("averageValue")
        percent = target.get("averageUtilization")
        what = "usage" if average is not None else "utilization"
        if average is None and percent is None:
            raise Uncountable(
                "invalid resource metric source: neither an average utilization target nor an average value (usage) "
                "target was set"
            )
        try:
            try:
                readings = await self._readings.resource(
                    scene.cluster, scene.namespace, scene.pods, resource, container
                )
            except Uncountable as error:
                raise Uncountable(f"unable to get metrics for resource {resource}: {error}") from error
            given = (scene.pods, readings, resource, scene.tolerances, scene.now)
            if average is not None:
                got = calculator.by_value(scene.spec_replicas, _milli(average), *given)
            else:
                got = calculator.by_utilization(scene.spec_replicas, int(percent), *given, container)
        except Uncountable as error:
            raise Uncountable(f"failed to get {resource} {what}: {error}") from error
        current: Object = {"averageValue": _quantity(got.usage, resource)}
        if average is not None:
            return got.replicas, current, f"{resource} resource"
        current["averageUtilization"] = got.utilization
        of = "container resource" if container else "resource"
        return got.replicas, current, f"{resource} {of} utilization (percentage of request)"

    async def _pods(self, scene: Scene, source: Object) -> Wish:
        metric, target = source["metric"], _milli(source["target"]["averageValue"])
        selector = _selector(metric)
        try:
            readings = await self._readings.of_pods(
                scene.cluster, scene.namespace, metric["name"], str(scene.selector), selector
            )
        except Uncountable as error:
            raise Uncountable(f"unable to get metric {metric['name']}: {error}") from error
        got = calculator.by_value(scene.spec_replicas, target, scene.pods, readings, "", scene.tolerances, scene.now)
        status = {"metric": _identity(metric), "current": {"averageValue": _quantity(got.usage)}}
        return Wish(got.replicas, f"pods metric {metric['name']}", {"type": "Pods", "pods": status})

    async def _object(self, scene: Scene, source: Object) -> Wish:
        metric, target, of = source["metric"], source["target"], source["describedObject"]
        value, average = _targets(target)
        status: Object = {"describedObject": of, "metric": _identity(metric), "current": {}}
        if value is None and average is None:
            raise Uncountable(
                "invalid object metric source: neither a value target nor an average value target was set"
            )
        try:
            usage = await self._of_object(scene, of, metric)
        except Uncountable as error:
            text = f"unable to get metric {metric['name']}: {of['kind']} on {scene.namespace} {of['name']}/{error}"
            prefix = f"failed to get {metric['name']} object metric: " if value is None else ""
            raise Uncountable(text, prefix) from error
        if value is not None:
            got = calculator.by_ratio(scene.spec_replicas, usage, value, scene.pods, scene.tolerances)
            status["current"] = {"value": _quantity(got.usage)}
            name = f"{of['kind']} metric {metric['name']}"
        else:
            assert average is not None
            got = calculator.by_share(scene.status_replicas, usage, average, scene.tolerances)
            status["current"] = {"averageValue": _quantity(got.usage)}
            name = f"external metric {metric['name']}({_go(metric.get('selector'))})"
        return Wish(got.replicas, name, {"type": "Object", "object": status})

    async def _of_object(self, scene: Scene, of: Object, metric: Object) -> int:
        group = str(of.get("apiVersion", "")).rpartition("/")[0]
        resource = "namespaces"
        if (group, of["kind"]) != ("", "Namespace"):
            try:
                resource = (await resource_of(self._client.at(scene.cluster), group, of["kind"])).group_resource
            except NoTarget as error:
                raise Uncountable(f"unable to fetch metrics from custom metrics API: {error}") from error
        return await self._readings.of_object(
            scene.cluster, scene.namespace, resource, of["name"], metric["name"], _selector(metric)
        )

    async def _external(self, scene: Scene, source: Object) -> Wish:
        metric = source["metric"]
        value, average = _targets(source["target"])
        if value is None and average is None:
            raise Uncountable(
                "invalid external metric source: neither a value target nor an average value target was set"
            )
        name, shown = metric["name"], _go(metric.get("selector"))
        try:
            usage = sum(await self._readings.external(scene.cluster, scene.namespace, name, _selector(metric)))
        except Uncountable as error:
            text = f"unable to get external metric {scene.namespace}/{name}/{shown}: {error}"
            words = f"{name} external metric" if average is not None else f"external metric {name}"
            raise Uncountable(text, f"failed to get {words}: ") from error
        if average is not None:
            got = calculator.by_share(scene.status_replicas, usage, average, scene.tolerances)
            current = {"averageValue": _quantity(got.usage)}
        else:
            assert value is not None
            got = calculator.by_ratio(scene.spec_replicas, usage, value, scene.pods, scene.tolerances)
            current = {"value": _quantity(got.usage)}
        status = {"metric": _identity(metric), "current": current}
        return Wish(got.replicas, f"external metric {name}({shown})", {"type": "External", "external": status})


_FIELDS = {
    "Resource": "resource",
    "ContainerResource": "containerResource",
    "Pods": "pods",
    "Object": "object",
    "External": "external",
}
_Judge = Callable[[Metrics, Scene, Object], Awaitable[Wish]]
_JUDGES: Mapping[str, tuple[_Judge, str, str]] = {
    "Resource": (Metrics._resource, "FailedGetResourceMetric", "failed to get {resource} resource metric value"),
    "ContainerResource": (
        Metrics._container,
        "FailedGetContainerResourceMetric",
        "failed to get {container} container metric value",
    ),
    "Pods": (Metrics._pods, "FailedGetPodsMetric", "failed to get pods metric value"),
    "Object": (Metrics._object, "FailedGetObjectMetric", "failed to get object metric value"),
    "External": (Metrics._external, "FailedGetExternalMetric", "failed to get {name} external metric value"),
}


def tolerances(behavior: Mapping[str, Any] | None) -> Tolerances:
    """Of an autoscaler's ``spec.behavior``."""

    def of(direction: str) -> float:
        value = ((behavior or {}).get(direction) or {}).get("tolerance")
        return calculator.TOLERANCE if value is None else float(parse(value))

    return Tolerances(of("scaleDown"), of("scaleUp"))


def _targets(target: Object) -> tuple[int | None, int | None]:
    """(value, average value), as far as they are set."""
    value, average = target.get("value"), target.get("averageValue")
    return None if value is None else _milli(value), None if average is None else _milli(average)


def _milli(amount: Any) -> int:
    return ceil(parse(amount) * 1000)


def _quantity(milli: int, resource: str = "") -> str:
    amount = Fraction(milli, 1000)
    return format_binary(amount) if resource == "memory" else format_decimal(amount)


def _identity(metric: Object) -> Object:
    return {field: metric[field] for field in ("name", "selector") if metric.get(field) is not None}


def _title(source: Object) -> str:
    return str((source.get("metric") or {}).get("name", ""))


def _selector(metric: Object) -> str:
    """A metric's selector as text; without one everything is selected."""
    if metric.get("selector") is None:
        return ""
    try:
        return str(LabelSelector.from_object(metric["selector"]))
    except SelectorError as error:
        raise Uncountable(str(error)) from error


def _go(selector: Object | None) -> str:
    """A selector as Go prints it, which upstream's messages contain."""
    if selector is None:
        return "nil"
    labels = selector.get("matchLabels") or {}
    pairs = "".join(f"{name}: {labels[name]}," for name in sorted(labels))
    terms = "".join(
        f"LabelSelectorRequirement{{Key:{t['key']},Operator:{t['operator']},"
        f"Values:[{' '.join(t.get('values') or ())}],}},"
        for t in selector.get("matchExpressions") or ()
    )
    matches = f"MatchLabels:map[string]string{{{pairs}}}"
    return f"&LabelSelector{{{matches},MatchExpressions:[]LabelSelectorRequirement{{{terms}}},}}"
