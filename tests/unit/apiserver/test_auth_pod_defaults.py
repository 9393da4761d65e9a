"""What admission adds to pods and new nodes."""

from __future__ import annotations

from typing import Any

import pytest

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import Object
from glebe.kube.resources import NODES, PODS, PRIORITY_CLASSES


async def client() -> Client:
    server = ApiServer(MemoryStore(), Env.seeded(1), TypeRegistry())
    await server.start()
    return Client(InProcessTransport(server.handle))


def pod(name: str = "p", **spec: Any) -> Object:
    containers = [{"name": "main", "image": "x"}]
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": containers, **spec}}


def priority(name: str, value: int, **more: Any) -> Object:
    meta = {"name": name}
    return {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": meta, "value": value, **more}


async def test_a_plain_pod() -> None:
    spec = (await (await client()).create(PODS, pod()))["spec"]
    assert spec["serviceAccountName"] == "default"
    assert spec["priority"] == 0
    assert {(t["key"], t["tolerationSeconds"]) for t in spec["tolerations"]} == {
        ("node.kubernetes.io/not-ready", 15),
        ("node.kubernetes.io/unreachable", 15),
    }


async def test_what_the_pod_says_counts() -> None:
    mine = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}
    spec = (await (await client()).create(PODS, pod(tolerations=[mine])))["spec"]
    assert spec["tolerations"][0] == mine
    assert [t["key"] for t in spec["tolerations"][1:]] == ["node.kubernetes.io/not-ready"]
    every = (await (await client()).create(PODS, pod(tolerations=[{"operator": "Exists"}])))["spec"]
    assert every["tolerations"] == [{"operator": "Exists"}]


async def test_priority_classes() -> None:
    api = await client()
    await api.create(PRIORITY_CLASSES, priority("high", 1000, preemptionPolicy="Never"))
    await api.create(PRIORITY_CLASSES, priority("usual", 5, globalDefault=True))
    high = (await api.create(PODS, pod("a", priorityClassName="high")))["spec"]
    assert (high["priority"], high["preemptionPolicy"]) == (1000, "Never")
    usual = (await api.create(PODS, pod("b")))["spec"]
    assert (usual["priority"], usual["priorityClassName"]) == (5, "usual")
    critical = (await api.create(PODS, pod("c", priorityClassName="system-node-critical")))["spec"]
    assert critical["priority"] == 2_000_001_000


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"priorityClassName": "none"}, "no PriorityClass with name none was found"),
        ({"priority": 7}, "the integer value of priority (7) must not be provided in pod spec"),
        ({"serviceAccountName": "robot"}, 'serviceaccount "robot" not found'),
    ],
)
async def test_what_cannot_be_is_refused(spec: Object, text: str) -> None:
    with pytest.raises(ApiError) as caught:
        await (await client()).create(PODS, pod(**spec))
    assert caught.value.code == 403
    assert text in caught.value.message


async def test_a_new_node_takes_no_pods_until_it_is_ready() -> None:
    api = await client()
    mark = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
    mine = {"key": "example.org/mine", "effect": "NoSchedule"}
    for name, given, wanted in (("a", [], [mark]), ("b", [mine], [mine, mark]), ("c", [mark], [mark])):
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"taints": given}}
        assert (await api.create(NODES, node))["spec"]["taints"] == wanted
    patch = {"spec": {"taints": []}}
    await api.patch(NODES, "a", patch)
    assert not (await api.get(NODES, "a"))["spec"].get("taints")
