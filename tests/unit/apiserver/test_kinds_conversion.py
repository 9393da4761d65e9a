"""Kinds that are served in two forms and stored in one."""

from __future__ import annotations

from typing import Any

import pytest

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types import hpaconversion
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.resources import Resource

CORE = Resource("", "v1", "events", "Event", True)
NEW = Resource("events.k8s.io", "v1", "events", "Event", True)
HPA1 = Resource("autoscaling", "v1", "horizontalpodautoscalers", "HorizontalPodAutoscaler", True)
HPA2 = Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", True)


async def serve() -> Client:
    server = ApiServer(MemoryStore(), Env.seeded(1), TypeRegistry())
    await server.start()
    return Client(InProcessTransport(server.handle))


def event(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": "default"},
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "message": "text",
        "reason": "Why",
        "type": "Normal",
        "count": 3,
        "source": {"component": "me"},
        "reportingComponent": "them",
    }


async def test_an_event_of_the_core_group_is_seen_changed_and_deleted_through_the_other() -> None:
    client = await serve()
    await client.create(CORE, event("e"))
    seen = await client.get(NEW, "e", "default")
    assert seen["apiVersion"] == "events.k8s.io/v1"
    assert (seen["note"], seen["deprecatedCount"], seen["deprecatedSource"]) == ("text", 3, {"component": "me"})
    assert seen["regarding"]["name"] == "p"
    assert seen["reportingController"] == "them"
    assert "message" not in seen
    assert "involvedObject" not in seen
    await client.patch(NEW, "e", {"note": "new"}, "default")
    assert (await client.get(CORE, "e", "default"))["message"] == "new"
    chosen = await client.list(NEW, "default", field_selector="regarding.name=p,reportingController=them")
    assert [o["note"] for o in chosen.items] == ["new"]
    assert not (await client.list(CORE, "default", field_selector="involvedObject.name=q")).items
    assert len((await client.list(CORE, "default", field_selector="source=me")).items) == 1
    await client.delete(NEW, "e", "default")
    assert not (await client.list(CORE, "default")).items


async def test_an_autoscaler_of_the_old_version_is_one_of_the_new() -> None:
    client = await serve()
    spec = {
        "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"},
        "maxReplicas": 5,
        "targetCPUUtilizationPercentage": 70,
    }
    meta = {"name": "h", "namespace": "default"}
    await client.create(HPA1, {"apiVersion": "autoscaling/v1", "kind": HPA1.kind, "metadata": meta, "spec": spec})
    new = await client.get(HPA2, "h", "default")
    target = {"type": "Utilization", "averageUtilization": 70}
    assert new["spec"]["metrics"] == [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    new["spec"]["metrics"].append(
        {
            "type": "Pods",
            "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "5"}},
        }
    )
    new["spec"]["behavior"] = {"scaleDown": {"stabilizationWindowSeconds": 7}}
    await client.update(HPA2, new)
    old = await client.get(HPA1, "h", "default")
    assert old["spec"]["targetCPUUtilizationPercentage"] == 70
    assert "metrics" not in old["spec"]
    assert "rps" in old["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/metrics"]
    old["spec"]["maxReplicas"] = 6
    await client.update(HPA1, old)
    again = await client.get(HPA2, "h", "default")
    assert again["spec"]["maxReplicas"] == 6
    assert again["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 7
    assert {m["type"] for m in again["spec"]["metrics"]} == {"Resource", "Pods"}
    assert "annotations" not in again["metadata"]


@pytest.mark.parametrize(
    "metric",
    [
        {
            "type": "Object",
            "object": {
                "describedObject": {"kind": "Service", "name": "s"},
                "metric": {"name": "m"},
                "target": {"type": "Value", "value": "3"},
            },
        },
        {
            "type": "Object",
            "object": {
                "describedObject": {"kind": "Service", "name": "s"},
                "metric": {"name": "m"},
                "target": {"type": "AverageValue", "averageValue": "3"},
            },
        },
        {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
        {
            "type": "ContainerResource",
            "containerResource": {
                "name": "cpu",
                "container": "c",
                "target": {"type": "Utilization", "averageUtilization": 5},
            },
        },
        {
            "type": "External",
            "external": {
                "metric": {"name": "m", "selector": {"matchLabels": {"a": "b"}}},
                "target": {"type": "Value", "value": "3"},
            },
        },
    ],
)
def test_every_kind_of_metric_comes_back_as_it_went(metric: dict[str, Any]) -> None:
    new = {"apiVersion": "autoscaling/v2", "metadata": {"name": "h"}, "spec": {"maxReplicas": 1, "metrics": [metric]}}
    assert hpaconversion.to_v2(hpaconversion.to_v1(new)) == new


async def test_the_status_of_components_is_asked_and_not_stored() -> None:
    client = await serve()
    kind = Resource("", "v1", "componentstatuses", "ComponentStatus", False)
    found = (await client.list(kind)).items
    assert [c["metadata"]["name"] for c in found] == ["store"]
    assert (await client.get(kind, "store"))["conditions"][0]["status"] == "True"
    with pytest.raises(ApiError, match='componentstatuses "other" not found'):
        await client.get(kind, "other")
    with pytest.raises(ApiError, match="does not allow this method"):
        await client.create(kind, {"apiVersion": "v1", "kind": "ComponentStatus", "metadata": {"name": "x"}})
