"""New objects hold what upstream's structs hold, held against what a kube-apiserver 1.36 answered."""

from __future__ import annotations

from typing import Any

import pytest

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry, builtins
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.inprocess import InProcessTransport

KINDS = {info.kind: info for info in reversed(builtins())}
TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
SELECTED = {"selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE}


async def serve() -> Client:
    server = ApiServer(MemoryStore(), Env.seeded(1), TypeRegistry())
    await server.start()
    return Client(InProcessTransport(server.handle))


def new(kind: str, **body: Any) -> dict[str, Any]:
    info = KINDS[kind]
    meta = {"name": "x", **({"namespace": "default"} if info.namespaced else {})}
    return {"apiVersion": info.api_version, "kind": kind, "metadata": meta, **body}


def at(obj: Any, path: str) -> Any:
    for part in path.split("."):
        obj = obj[int(part)] if isinstance(obj, list) else obj[part]
    return obj


CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1024Mi"}}}
REQUEST = {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c"}}]}}
SCALED = {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}
LEVEL = {"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": {}}}}
RULE = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": True}
FLOW = {
    "priorityLevelConfiguration": {"name": "x"},
    "rules": [{"subjects": [{"kind": "User", "user": {"name": "a"}}], "resourceRules": [RULE]}],
}
VOLUME = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}
BACKEND = {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}


@pytest.mark.parametrize(
    ("kind", "body", "path", "value"),
    [
        ("ReplicaSet", {"spec": SELECTED}, "status", {"replicas": 0}),
        ("StatefulSet", {"spec": {**SELECTED, "serviceName": "s"}}, "status", {"replicas": 0, "availableReplicas": 0}),
        ("DaemonSet", {"spec": SELECTED}, "status.numberReady", 0),
        ("DaemonSet", {"spec": SELECTED}, "metadata.annotations", {"deprecated.daemonset.template.generation": "1"}),
        ("Ingress", {"spec": BACKEND}, "status", {"loadBalancer": {}}),
        ("Event", {"involvedObject": {"namespace": "default"}, "reason": "r"}, "source", {}),
        ("Node", {}, "status.nodeInfo.kubeletVersion", ""),
        ("PersistentVolumeClaim", {"spec": CLAIM}, "spec.resources.requests.storage", "1Gi"),
        ("PersistentVolume", {"spec": VOLUME}, "spec.hostPath.type", ""),
        ("PersistentVolume", {"spec": VOLUME}, "status.lastPhaseTransitionTime", "2026-01-01T00:00:00Z"),
        ("ResourceClaim", {"spec": REQUEST}, "spec.devices.requests.0.exactly.allocationMode", "ExactCount"),
        ("ResourceClaim", {"spec": REQUEST}, "spec.devices.requests.0.exactly.count", 1),
        ("HorizontalPodAutoscaler", {"spec": SCALED}, "status.desiredReplicas", 0),
        ("PriorityLevelConfiguration", {"spec": LEVEL}, "spec.limited.nominalConcurrencyShares", 30),
        ("PriorityLevelConfiguration", {"spec": LEVEL}, "spec.limited.limitResponse.queuing.handSize", 8),
        ("FlowSchema", {"spec": FLOW}, "spec.matchingPrecedence", 1000),
        ("PodTemplate", {"template": TEMPLATE}, "metadata.generation", 1),
        ("DeviceClass", {"spec": {}}, "metadata.generation", 1),
    ],
)
async def test_a_new_object_has(kind: str, body: dict[str, Any], path: str, value: Any) -> None:
    client = await serve()
    made = await client.create(KINDS[kind].resource, new(kind, **body))
    assert at(made, path) == value
    again = await client.update(KINDS[kind].resource, made)
    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"], "the same again is no change"


async def test_nobody_owns_what_nobody_said() -> None:
    client = await serve()
    made = await client.create(KINDS["ReplicaSet"].resource, new("ReplicaSet", spec=SELECTED))
    owned = made["metadata"]["managedFields"][0]["fieldsV1"]
    assert set(owned) == {"f:spec"}
    inner = owned["f:spec"]["f:template"]["f:spec"]["f:containers"]
    assert list(inner) == ['k:{"name":"c"}']
    assert "f:resources" in inner['k:{"name":"c"}']


async def test_the_generation_of_an_endpoint_slice_counts_labels() -> None:
    client = await serve()
    info = KINDS["EndpointSlice"]
    made = await client.create(info.resource, new("EndpointSlice", addressType="IPv4", endpoints=[]))
    assert made["metadata"]["generation"] == 1
    changed = await client.patch(info.resource, "x", {"metadata": {"labels": {"a": "b"}}}, "default")
    assert changed["metadata"]["generation"] == 2
    changed = await client.patch(info.resource, "x", {"metadata": {"annotations": {"a": "b"}}}, "default")
    assert changed["metadata"]["generation"] == 2


async def test_the_template_generation_of_a_daemon_set_counts_changes_of_its_template() -> None:
    client = await serve()
    info = KINDS["DaemonSet"]
    await client.create(info.resource, new("DaemonSet", spec=SELECTED))
    labels = {"metadata": {"labels": {"a": "b", "c": "d"}}}
    note = "deprecated.daemonset.template.generation"
    changed = await client.patch(info.resource, "x", {"spec": {"minReadySeconds": 1}}, "default")
    assert changed["metadata"]["annotations"][note] == "1"
    changed = await client.patch(info.resource, "x", {"spec": {"template": labels}}, "default")
    assert changed["metadata"]["annotations"][note] == "2"
