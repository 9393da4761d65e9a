"""HorizontalPodAutoscalers on the real API server, with servers of metrics that say what the test wants."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
from workloads_stage import Stage, events, stage, until

from glebe.kube.client import Client
from glebe.kube.clock import Env, format_time
from glebe.kube.controller import Controller
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, get_condition
from glebe.kube.resources import DEPLOYMENTS, PODS, Resource
from glebe.kube.transport import Request, Response, Transport
from glebe.workloads.autoscaling.controller import AUTOSCALERS, build
from glebe.workloads.deployment.controller import build as build_deployments
from glebe.workloads.replicas.controller import REPLICA_SET, ReplicasController

CRDS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False)
USAGE = Resource("metrics.k8s.io", "v1beta1", "pods", "PodMetrics")


class Meter:
    """Servers of metrics, in front of the API server: ``cpu`` in thousandths for all pods or by name."""

    def __init__(self, inner: Transport, here: Callable[[], Stage]) -> None:
        self._inner, self._here = inner, here
        self.cpu: int | dict[str, int] | None = None
        self.custom: dict[str, Object] = {}  # path after the version -> list
        self.asked: list[str] = []

    async def send(self, request: Request) -> Response:
        path = request.path
        cluster = "root"
        if path.startswith("/clusters/"):
            _, _, cluster, path = path.split("/", 3)
            path = f"/{path}"
        if "metrics.k8s.io" not in path:
            return await self._inner.send(request)
        self.asked.append(f"{cluster}:{path}")
        body = await self._answer(cluster, path)
        if body is None:
            return await self._inner.send(request)
        return Response(200, {"content-type": "application/json"}, orjson.dumps(body))

    async def _answer(self, cluster: str, path: str) -> Object | None:
        if path == "/apis/metrics.k8s.io/v1beta1/pods" and self.cpu is not None:
            pods = (await self._here()[cluster].list(PODS)).items
            return {"items": [self._item(p) for p in pods if self._level(p) is not None]}
        if path == "/apis/custom.metrics.k8s.io" and self.custom:
            return {"versions": [{"version": "v1beta1"}, {"version": "v1beta2"}]}
        return self.custom.get(path)

    def _level(self, pod: Object) -> int | None:
        return self.cpu.get(pod["metadata"]["name"]) if isinstance(self.cpu, dict) else self.cpu

    def _item(self, pod: Object) -> Object:
        usage = {"cpu": f"{self._level(pod)}m"}
        meta = {"name": pod["metadata"]["name"], "namespace": pod["metadata"]["namespace"]}
        now = format_time(self._here().env.clock.now())
        return {"metadata": meta, "timestamp": now, "window": "15s", "containers": [{"name": "c", "usage": usage}]}

    async def close(self) -> None:
        await self._inner.close()


@asynccontextmanager
async def running(*clusters: str) -> AsyncIterator[tuple[Stage, Meter]]:
    made: list[Meter] = []
    there: list[Stage] = []

    def metered(client: Client, informers: Informers, env: Env) -> Controller:
        made.append(Meter(client.transport, lambda: there[0]))
        return build(Client(made[0], cluster=client.cluster), informers, env)

    def replica_sets(client: Client, informers: Informers, env: Env) -> Controller:
        return ReplicasController(REPLICA_SET, client, informers, env).controller()

    async with stage([metered, build_deployments, replica_sets], *clusters) as here:
        there.append(here)
        yield here, made[0]


def deployment(replicas: int, name: str = "web") -> Object:
    containers = [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "100m"}}}]
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": containers}}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}


def autoscaler(most: int = 10, name: str = "web", **spec: Any) -> Object:
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}
    body = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicas": 1,
        "maxReplicas": most,
        "metrics": [{"type": "Resource", "resource": cpu}],
        **spec,
    }
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": meta, "spec": body}


async def start(api: Client, replicas: int, **more: Any) -> None:
    """Pods older than the time in which their CPU usage is not believed would take 5 minutes: wait for them."""
    await api.create(DEPLOYMENTS, deployment(replicas))
    await until(lambda: ready(api, replicas))
    for each in (await api.list(PODS, "default")).items:
        body = {"status": {"startTime": format_time(0.0)}}
        await api.patch(PODS, each["metadata"]["name"], body, "default", subresource="status")
    await api.create(AUTOSCALERS, autoscaler(**more))


async def ready(api: Client, replicas: int) -> bool:
    return bool(((await api.get(DEPLOYMENTS, "web", "default")).get("status") or {}).get("readyReplicas") == replicas)


async def replicas(api: Client, count: int, name: str = "web") -> bool:
    return bool((await api.get(DEPLOYMENTS, name, "default"))["spec"]["replicas"] == count)


async def condition(api: Client, kind: str, reason: str, name: str = "web") -> Object:
    async def there() -> Object | None:
        found = get_condition(await api.get(AUTOSCALERS, name, "default"), kind)
        return found if found and found["reason"] == reason else None

    found: Object = await until(there)
    return found


async def test_it_scales_up_and_says_so() -> None:
    async with running() as (here, meter):
        meter.cpu = 90
        await start(here.root, 2)
        await until(lambda: replicas(here.root, 4))
        hpa = await here.root.get(AUTOSCALERS, "web", "default")
        status = hpa["status"]
        assert (status["currentReplicas"], status["desiredReplicas"]) == (2, 4)
        assert status["currentMetrics"] == [
            {
                "type": "Resource",
                "resource": {"name": "cpu", "current": {"averageUtilization": 90, "averageValue": "90m"}},
            }
        ]
        said = {c["type"]: (c["status"], c["reason"], c["message"]) for c in status["conditions"]}
        assert said == {
            "AbleToScale": (
                "True",
                "SucceededRescale",
                "the HPA controller was able to update the target scale to 4",
            ),
            "ScalingActive": (
                "True",
                "ValidMetricFound",
                "the HPA was able to successfully calculate a replica count from cpu resource utilization "
                "(percentage of request)",
            ),
            "ScalingLimited": (
                "False",
                "DesiredWithinRange",
                "the desired count is within the acceptable range",
            ),
        }
        text = "New size: 4; reason: cpu resource utilization (percentage of request) above target"
        assert ("SuccessfulRescale", text) in await events(here.root)
        assert "lastScaleTime" in status


async def test_without_a_metrics_server_the_condition_says_what_is_missing() -> None:
    async with running() as (here, _):
        await start(here.root, 1)
        found = await condition(here.root, "ScalingActive", "FailedGetResourceMetric")
        why = (
            "failed to get cpu utilization: unable to get metrics for resource cpu: unable to fetch metrics from "
            "resource metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)"
        )
        assert found["status"] == "False"
        assert found["message"] == f"the HPA was unable to compute the replica count: {why}"
        said = await events(here.root)
        assert ("FailedGetResourceMetric", why) in said
        text = "invalid metrics (1 invalid out of 1), first error is: failed to get cpu resource metric value: "
        assert ("FailedComputeMetricsReplicas", text + why) in said


async def test_scaling_down_waits_for_the_window_to_pass() -> None:
    async with running() as (here, meter):
        meter.cpu = 10
        await start(here.root, 4)
        began = here.env.clock.now()
        await condition(here.root, "AbleToScale", "ScaleDownStabilized")
        await until(lambda: replicas(here.root, 1), 400)
        assert 285 <= here.env.clock.now() - began <= 330
        text = "New size: 1; reason: All metrics below target"
        assert ("SuccessfulRescale", text) in await events(here.root)


async def test_the_range_is_kept_without_any_metric() -> None:
    async with running() as (here, _):
        await start(here.root, 1, minReplicas=3)
        await until(lambda: replicas(here.root, 3))
        text = "New size: 3; reason: Current number of replicas below Spec.MinReplicas"
        assert ("SuccessfulRescale", text) in await events(here.root)
        await here.root.patch(AUTOSCALERS, "web", {"spec": {"minReplicas": 1, "maxReplicas": 2}}, "default")
        await until(lambda: replicas(here.root, 2))


async def test_nothing_is_done_for_what_somebody_scaled_to_zero() -> None:
    async with running() as (here, meter):
        meter.cpu = 90
        await here.root.create(DEPLOYMENTS, deployment(0))
        await here.root.create(AUTOSCALERS, autoscaler())
        found = await condition(here.root, "ScalingActive", "ScalingDisabled")
        assert found["message"] == "scaling is disabled since the replica count of the target is zero"
        assert await replicas(here.root, 0)


async def test_what_is_not_there_cannot_be_scaled() -> None:
    async with running() as (here, _):
        await here.root.create(AUTOSCALERS, autoscaler())
        found = await condition(here.root, "AbleToScale", "FailedGetScale")
        text = 'the HPA controller was unable to get the target\'s current scale: deployments.apps "web" not found'
        assert found["message"] == text
        ref = {"apiVersion": "example.com/v1", "kind": "Nothing", "name": "x"}
        await here.root.create(AUTOSCALERS, autoscaler(name="other", scaleTargetRef=ref))
        found = await condition(here.root, "AbleToScale", "FailedGetScale", "other")
        assert found["message"].endswith('no matches for kind "Nothing" in group "example.com"')


async def test_two_autoscalers_of_the_same_pods_both_stop() -> None:
    async with running() as (here, meter):
        meter.cpu = 90
        await start(here.root, 2)
        ref = autoscaler()["spec"]["scaleTargetRef"]
        await here.root.create(AUTOSCALERS, autoscaler(name="rival", scaleTargetRef=ref))
        for name in ("web", "rival"):
            found = await condition(here.root, "ScalingActive", "AmbiguousSelector", name)
            assert found["message"] == (
                "pods by selector app=web are controlled by multiple HPAs: [{rival default} {web default}]"
            )


async def test_one_metric_that_says_nothing_keeps_it_from_shrinking_only() -> None:
    async with running() as (here, meter):
        meter.cpu = 10
        queue = {"metric": {"name": "length"}, "target": {"type": "Value", "value": "10"}}
        metrics = [{"type": "External", "external": queue}, *autoscaler()["spec"]["metrics"]]
        await start(here.root, 2, metrics=metrics)
        found = await condition(here.root, "ScalingActive", "FailedGetExternalMetric")
        assert found["message"] == (
            "the HPA was unable to compute the replica count: unable to get external metric default/length/nil: unable "
            "to fetch metrics from external metrics API: the server could not find the requested resource (get "
            "length.external.metrics.k8s.io)"
        )
        meter.cpu = 90
        await until(lambda: replicas(here.root, 4))
        status = (await here.root.get(AUTOSCALERS, "web", "default"))["status"]
        assert status["currentMetrics"][0] == {"type": ""}


async def test_custom_and_external_metrics() -> None:
    async with running() as (here, meter):
        now = format_time(here.env.clock.now())
        value = {"timestamp": now, "value": "30"}
        of = {"kind": "Service", "name": "s", "apiVersion": "v1"}
        base = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default"
        meter.custom[f"{base}/services/s/hits"] = {"items": [{"describedObject": of, **value}]}
        meter.custom["/apis/external.metrics.k8s.io/v1beta1/namespaces/default/length"] = {"items": [value, value]}
        hits = {"metric": {"name": "hits"}, "describedObject": of, "target": {"type": "Value", "value": "20"}}
        length = {
            "metric": {"name": "length", "selector": {"matchLabels": {"q": "a"}}},
            "target": {"type": "AverageValue", "averageValue": "20"},
        }
        metrics = [{"type": "Object", "object": hits}, {"type": "External", "external": length}]
        await start(here.root, 2, metrics=metrics)
        await until(lambda: replicas(here.root, 3))
        status = (await here.root.get(AUTOSCALERS, "web", "default"))["status"]
        assert [m["type"] for m in status["currentMetrics"]] == ["Object", "External"]
        assert status["currentMetrics"][0]["object"]["current"] == {"value": "30"}
        assert status["currentMetrics"][1]["external"]["current"] == {"averageValue": "30"}


async def test_one_list_serves_all_autoscalers_of_a_cluster_and_none_is_read_without_them() -> None:
    async with running("a", "b") as (here, meter):
        meter.cpu = 50
        await start(here["a"], 2)
        for number in range(5):
            await here["a"].create(DEPLOYMENTS, deployment(1, f"d{number}"))
            await here["a"].create(AUTOSCALERS, autoscaler(name=f"d{number}"))
        await start(here["b"], 2)
        await condition(here["a"], "ScalingActive", "ValidMetricFound")
        meter.asked.clear()
        await here_for(here, 60)
        assert meter.asked.count("a:/apis/metrics.k8s.io/v1beta1/pods") in (4, 5)
        assert meter.asked.count("b:/apis/metrics.k8s.io/v1beta1/pods") in (4, 5)
        assert len(meter.asked) <= 10
        for name in ["web", *(f"d{n}" for n in range(5))]:
            await here["a"].delete(AUTOSCALERS, name, "default")
        await here["b"].delete(AUTOSCALERS, "web", "default")
        await here_for(here, 20)
        meter.asked.clear()
        await here_for(here, 120)
        assert not meter.asked


async def here_for(here: Stage, seconds: float) -> None:
    began = here.env.clock.now()

    async def over() -> bool:
        return here.env.clock.now() - began >= seconds

    await until(over, seconds + 5)


async def test_a_custom_kind_with_a_scale_is_scaled() -> None:
    async with running() as (here, _):
        names = {"plural": "fleets", "singular": "fleet", "kind": "Fleet", "listKind": "FleetList"}
        scale = {
            "specReplicasPath": ".spec.size",
            "statusReplicasPath": ".status.size",
            "labelSelectorPath": ".status.of",
        }
        schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        version = {
            "name": "v1",
            "served": True,
            "storage": True,
            "subresources": {"status": {}, "scale": scale},
            "schema": {
                "openAPIV3Schema": {
                    "type": "object",
                    "properties": {
                        "spec": {"type": "object", "properties": {"size": {"type": "integer"}}},
                        "status": schema,
                    },
                }
            },
        }
        spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}
        crd = {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": "fleets.example.com"},
            "spec": spec,
        }
        await here.root.create(CRDS, crd)
        fleets = Resource("example.com", "v1", "fleets", "Fleet")
        fleet = {
            "apiVersion": "example.com/v1",
            "kind": "Fleet",
            "metadata": {"name": "f", "namespace": "default"},
            "spec": {"size": 9},
        }
        await here.root.create(fleets, fleet)
        ref = {"apiVersion": "example.com/v1", "kind": "Fleet", "name": "f"}
        await here.root.create(AUTOSCALERS, autoscaler(3, name="f", scaleTargetRef=ref))

        async def scaled() -> bool:
            return bool((await here.root.get(fleets, "f", "default"))["spec"]["size"] == 3)

        await until(scaled)
        found = await condition(here.root, "ScalingActive", "InvalidSelector", "f")
        assert found["message"] == "the HPA target's scale is missing a selector"
