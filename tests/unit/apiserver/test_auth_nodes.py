"""What a node reaches: its own, and what the pods on it need."""

from __future__ import annotations

from typing import Any

import pytest

from glebe.apiserver.auth.nodes import NodeAuthorizer, node_of
from glebe.apiserver.auth.rules import Attributes
from glebe.apiserver.store import Key, MemoryStore
from glebe.kube.objects import Object
from glebe.kube.transport import User


class Cluster:
    """Objects put straight into a store, and the authorizer over it."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.nodes = NodeAuthorizer(lambda: self.store)

    async def put(self, resource: str, obj: Object, cluster: str = "root") -> None:
        import orjson

        meta = obj["metadata"]
        key = Key(resource, cluster, meta.get("namespace", ""), meta["name"])
        await self.store.put(key, lambda revision: orjson.dumps(obj), None)

    async def remove(self, resource: str, namespace: str, name: str) -> None:
        await self.store.delete(Key(resource, "root", namespace, name), lambda revision: b"{}", None)

    def may(self, node: str, verb: str, resource: str, name: str = "", namespace: str = "d", **more: str) -> bool:
        cluster = more.pop("cluster", "root")
        asked = Attributes(verb, resource=resource, namespace=namespace, name=name, **more)
        return self.nodes.decide(node, cluster, asked)[0]


def pod(name: str, node: str, **spec: Any) -> Object:
    return {
        "metadata": {"name": name, "namespace": "d"},
        "spec": {"nodeName": node, "serviceAccountName": "sa", **spec},
    }


FULL = {
    "imagePullSecrets": [{"name": "pull"}],
    "volumes": [
        {"name": "a", "secret": {"secretName": "mounted"}},
        {"name": "b", "configMap": {"name": "settings"}},
        {"name": "c", "persistentVolumeClaim": {"claimName": "disk"}},
        {"name": "e", "projected": {"sources": [{"secret": {"name": "part"}}, {"configMap": {"name": "piece"}}]}},
        {"name": "f", "ephemeral": {"volumeClaimTemplate": {}}},
        {"name": "g", "csi": {"nodePublishSecretRef": {"name": "csi"}}},
    ],
    "containers": [
        {"name": "c", "envFrom": [{"secretRef": {"name": "env"}}, {"configMapRef": {"name": "envmap"}}]},
        {"name": "d", "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}}]},
    ],
    "initContainers": [{"name": "i", "env": [{"name": "Y", "valueFrom": {"configMapKeyRef": {"name": "initmap"}}}]}],
    "resourceClaims": [{"name": "gpu", "resourceClaimName": "gpus"}],
}


async def test_a_node_reads_what_its_pods_name_and_nothing_else() -> None:
    c = Cluster()
    await c.put("pods", pod("p", "n1", **FULL))
    for secret in ("pull", "mounted", "part", "csi", "env", "key"):
        assert c.may("n1", "get", "secrets", secret), secret
        assert not c.may("n2", "get", "secrets", secret)
        assert not c.may("n1", "get", "secrets", secret, "other")
        assert not c.may("n1", "get", "secrets", secret, cluster="a")
    for config in ("settings", "piece", "envmap", "initmap"):
        assert c.may("n1", "watch", "configmaps", config), config
    assert c.may("n1", "get", "persistentvolumeclaims", "disk")
    assert c.may("n1", "get", "persistentvolumeclaims", "p-f")
    assert c.may("n1", "get", "resourceclaims", "gpus", group="resource.k8s.io")
    assert not c.may("n1", "get", "secrets", "else")
    assert not c.may("n1", "list", "secrets")
    assert not c.may("n1", "update", "secrets", "mounted")
    assert not c.may("n1", "get", "configmaps", "mounted")


async def test_the_way_to_a_volume_leads_over_its_claim() -> None:
    c = Cluster()
    await c.put("pods", pod("p", "n1", volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "disk"}}]))
    spec = {
        "claimRef": {"namespace": "d", "name": "disk"},
        "csi": {"nodeStageSecretRef": {"name": "s", "namespace": "x"}},
    }
    await c.put("persistentvolumes", {"metadata": {"name": "pv"}, "spec": spec})
    assert c.may("n1", "get", "persistentvolumes", "pv", "")
    assert c.may("n1", "get", "secrets", "s", "x")
    assert not c.may("n2", "get", "persistentvolumes", "pv", "")
    assert not c.may("n2", "get", "secrets", "s", "x")
    await c.put("persistentvolumes", {"metadata": {"name": "pv"}, "spec": {}})
    assert not c.may("n1", "get", "persistentvolumes", "pv", "")
    assert not c.may("n1", "get", "secrets", "s", "x")


async def test_changes_hold_from_the_next_question() -> None:
    c = Cluster()
    volumes = [{"name": "v", "secret": {"secretName": "s"}}]
    assert not c.may("n1", "get", "secrets", "s")
    await c.put("pods", pod("p", "", volumes=volumes))
    assert not c.may("n1", "get", "secrets", "s")
    await c.put("pods", pod("p", "n1", volumes=volumes))
    await c.put("pods", pod("q", "n1", volumes=volumes))
    assert c.may("n1", "get", "secrets", "s")
    await c.remove("pods", "d", "p")
    assert c.may("n1", "get", "secrets", "s")  # the other one needs it still
    await c.remove("pods", "d", "q")
    assert not c.may("n1", "get", "secrets", "s")


async def test_a_mirror_pod_gives_a_node_nothing() -> None:
    c = Cluster()
    mirror = pod("m", "n1", volumes=[{"name": "v", "secret": {"secretName": "s"}}])
    mirror["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
    await c.put("pods", mirror)
    assert not c.may("n1", "get", "secrets", "s")
    assert c.may("n1", "get", "pods", "m")


async def test_own_node_own_lease_own_pods() -> None:
    c = Cluster()
    await c.put("pods", pod("p", "n1"))
    leases = {"group": "coordination.k8s.io"}

    def lease(verb: str, name: str, namespace: str = "kube-node-lease") -> bool:
        return c.nodes.decide(
            "n1", "root", Attributes(verb, resource="leases", namespace=namespace, name=name, **leases)
        )[0]

    assert lease("update", "n1")
    assert lease("create", "")
    assert not lease("update", "n2")
    assert not lease("get", "n1", "kube-system")
    assert not lease("list", "")
    assert c.may("n1", "get", "nodes", "n1", "")
    assert not c.may("n1", "get", "nodes", "n2", "")
    assert not c.may("n1", "list", "nodes", "", "")
    assert c.may("n1", "patch", "nodes", "n1", "", subresource="status")
    assert not c.may("n1", "delete", "nodes", "n1", "")
    assert c.may("n1", "list", "pods", "", "", fields="spec.nodeName=n1")
    assert not c.may("n1", "list", "pods", "", "", fields="spec.nodeName=n2")
    assert not c.may("n1", "list", "pods", "", "", fields="spec.nodeName!=n1")
    assert not c.may("n1", "list", "pods", "", "")
    assert c.may("n1", "get", "pods", "p")
    assert not c.may("n2", "get", "pods", "p")
    assert c.may("n1", "create", "serviceaccounts", "sa", subresource="token")
    assert not c.may("n1", "create", "serviceaccounts", "other", subresource="token")
    assert not c.may("n2", "create", "serviceaccounts", "sa", subresource="token")
    assert c.may("n1", "list", "services", "", "")
    assert not c.may("n1", "create", "services", "")


@pytest.mark.parametrize(
    ("user", "node"),
    [
        (User("system:node:n1", ("system:nodes",)), "n1"),
        (User("system:node:n1", ()), None),
        (User("system:node:", ("system:nodes",)), None),
        (User("n1", ("system:nodes",)), None),
    ],
)
def test_who_is_a_node(user: User, node: str | None) -> None:
    assert node_of(user) == node
