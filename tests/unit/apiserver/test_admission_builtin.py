"""The smaller built-in plugins, and how all are put together."""

from __future__ import annotations

from typing import Any

import pytest
from admission_world import (
    CLAIMS,
    RUNTIMES,
    STORAGE_CLASSES,
    as_user,
    container,
    pod,
    refused,
    serve,
    thing,
)

from glebe.apiserver.admission.base import AdmissionAttributes
from glebe.apiserver.admission.tolerations import is_superset, merge
from glebe.apiserver.assembly import DEFAULT_OFF, PLUGINS, ServerOptions
from glebe.kube.client import Client
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object
from glebe.kube.resources import (
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    PRIORITY_CLASSES,
    SERVICE_ACCOUNTS,
    SERVICES,
    Resource,
)
from glebe.kube.transport import User

INGRESSES = Resource("networking.k8s.io", "v1", "ingresses", "Ingress")
INGRESS_CLASSES = Resource("networking.k8s.io", "v1", "ingressclasses", "IngressClass", namespaced=False)
TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"


# -- putting them together


async def test_every_name_has_its_plugin_in_upstreams_order() -> None:
    server, _ = await serve(ServerOptions(enable=DEFAULT_OFF))
    names = [getattr(p, "name", "") for p in server.validating]
    known = [n for n in names if n]
    assert known == sorted(known, key=PLUGINS.index)
    made = {*known, *(getattr(p, "name", "") for p in server.admission)}
    theirs = {"Given", *(n for n in PLUGINS if "Policy" in n or "Webhook" in n or n.startswith("C"))}
    assert set(PLUGINS) - theirs <= made
    assert names[-1] == "ResourceQuota"


async def test_plugins_are_turned_on_and_off() -> None:
    _, api = await serve(ServerOptions(enable=frozenset({"AlwaysPullImages"}), disable=frozenset({"ServiceAccount"})))
    made = await api.create(PODS, pod())
    assert made["spec"]["containers"][0]["imagePullPolicy"] == "Always"
    assert "serviceAccountName" not in made["spec"]
    with pytest.raises(ValueError, match="unknown admission plugins: Nothing"):
        ServerOptions(enable=frozenset({"Nothing"}))
    with pytest.raises(ValueError, match="both on and off"):
        ServerOptions(enable=frozenset({"Priority"}), disable=frozenset({"Priority"}))


# -- ServiceAccount


def mounts(body: Object) -> list[str]:
    holders = (*body["spec"]["containers"], *(body["spec"].get("initContainers") or ()))
    return [m["mountPath"] for c in holders for m in c.get("volumeMounts") or ()]


async def test_the_token_is_mounted() -> None:
    _, api = await serve()
    made = await api.create(PODS, pod("p", initContainers=[container("i")]))
    volume = made["spec"]["volumes"][0]
    assert volume["name"].startswith("kube-api-access-")
    assert volume["projected"] == {
        "defaultMode": 420,
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {
                "downwardAPI": {
                    "items": [
                        {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
                    ]
                }
            },
        ],
    }
    mount = {"name": volume["name"], "readOnly": True, "mountPath": TOKEN_PATH}
    assert made["spec"]["containers"][0]["volumeMounts"] == [mount]
    assert mounts(made) == [TOKEN_PATH, TOKEN_PATH]


@pytest.mark.parametrize(
    ("account", "own", "mounted"),
    [(None, None, 1), (None, False, 0), (False, None, 0), (False, True, 1), (True, False, 0), (True, None, 1)],
)
async def test_who_may_opt_out_of_the_token(account: bool | None, own: bool | None, mounted: int) -> None:
    _, api = await serve()
    said: dict[str, Any] = {} if account is None else {"automountServiceAccountToken": account}
    await api.create(SERVICE_ACCOUNTS, thing(SERVICE_ACCOUNTS, "robot", **said))
    rest: dict[str, Any] = {} if own is None else {"automountServiceAccountToken": own}
    made = await api.create(PODS, pod("p", serviceAccountName="robot", **rest))
    assert len(mounts(made)) == len(made["spec"].get("volumes") or ()) == mounted


async def test_an_own_mount_in_that_place_is_kept() -> None:
    _, api = await serve()
    own = {**container(), "volumeMounts": [{"name": "v", "mountPath": TOKEN_PATH}]}
    made = await api.create(PODS, pod("p", "default", own, volumes=[{"name": "v", "emptyDir": {}}]))
    assert [v["name"] for v in made["spec"]["volumes"]] == ["v"]


async def test_pull_secrets_and_mountable_secrets() -> None:
    _, api = await serve()
    enforced = {"annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}}
    account = thing(SERVICE_ACCOUNTS, "robot", meta=enforced, secrets=[{"name": "a"}], imagePullSecrets=[{"name": "q"}])
    await api.create(SERVICE_ACCOUNTS, account)

    def using(secret: str) -> Object:
        volumes = [{"name": "v", "secret": {"secretName": secret}}]
        return pod("p", serviceAccountName="robot", volumes=volumes)

    text = await refused(api.create(PODS, using("b")))
    assert text == (
        'pods "p" is forbidden: volume with secret.secretName="b" is not allowed because service account robot does '
        "not reference that secret"
    )
    made = await api.create(PODS, using("a"))
    assert made["spec"]["imagePullSecrets"] == [{"name": "q"}]
    text = await refused(api.create(PODS, pod("r", serviceAccountName="robot", imagePullSecrets=[{"name": "z"}])))
    assert 'imagePullSecrets[0].name="z" is not allowed' in text


# -- RuntimeClass, PodNodeSelector, Priority


async def test_runtime_classes() -> None:
    _, api = await serve()
    assert await refused(api.create(PODS, pod(runtimeClassName="vm"))) == (
        'pods "p" is forbidden: pod rejected: RuntimeClass "vm" not found'
    )
    scheduling = {"nodeSelector": {"kind": "vm"}, "tolerations": [{"key": "vm", "operator": "Exists"}]}
    overhead = {"podFixed": {"cpu": "250m", "memory": "120Mi"}}
    await api.create(RUNTIMES, thing(RUNTIMES, "vm", handler="h", overhead=overhead, scheduling=scheduling))
    spec = (await api.create(PODS, pod(runtimeClassName="vm", nodeSelector={"a": "b"})))["spec"]
    assert spec["overhead"] == overhead["podFixed"]
    assert spec["nodeSelector"] == {"a": "b", "kind": "vm"}
    assert {"key": "vm", "operator": "Exists"} in spec["tolerations"]
    text = await refused(api.create(PODS, pod("q", runtimeClassName="vm", nodeSelector={"kind": "c"})))
    assert "conflict: runtimeClass.scheduling.nodeSelector[kind] = vm; pod.spec.nodeSelector[kind] = c" in text
    text = await refused(api.create(PODS, pod("q", runtimeClassName="vm", overhead={"cpu": "1"})))
    assert "Pod's Overhead doesn't match RuntimeClass's defined Overhead" in text
    assert "Pod Overhead set without corresponding" in await refused(api.create(PODS, pod("q", overhead={"cpu": "1"})))


def test_tolerations_are_merged() -> None:
    every = {"operator": "Exists"}
    one = {"key": "a", "operator": "Exists", "effect": "NoSchedule"}
    any_effect = {"key": "a", "operator": "Exists"}
    equal = {"key": "a", "operator": "Equal", "value": "x", "effect": "NoSchedule"}
    assert merge([one], [any_effect]) == [any_effect]
    assert merge([equal, one], [one]) == [one]
    assert merge([one, equal], [every]) == [every]
    assert not is_superset(equal, one)
    short = {"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
    assert merge([short], [{**short, "tolerationSeconds": 9}]) == [{**short, "tolerationSeconds": 9}]


async def test_a_namespace_chooses_nodes() -> None:
    _, api = await serve()
    chosen = {"scheduler.alpha.kubernetes.io/node-selector": "zone=a, team=x"}
    await api.patch(NAMESPACES, "default", {"metadata": {"annotations": chosen}})
    made = await api.create(PODS, pod(nodeSelector={"disk": "ssd"}))
    assert made["spec"]["nodeSelector"] == {"zone": "a", "team": "x", "disk": "ssd"}
    text = await refused(api.create(PODS, pod("q", nodeSelector={"zone": "b"})))
    assert text.endswith("pod node label selector conflicts with its namespace node label selector")


async def test_there_is_one_default_priority() -> None:
    _, api = await serve()

    def priority(name: str, **rest: Any) -> Object:
        return thing(PRIORITY_CLASSES, name, value=1, **rest)

    await api.create(PRIORITY_CLASSES, priority("a", globalDefault=True))
    text = await refused(api.create(PRIORITY_CLASSES, priority("b", globalDefault=True)))
    assert text.endswith("PriorityClass a is already marked as default. Only one default can exist")
    made = await api.create(PRIORITY_CLASSES, priority("c", preemptionPolicy="Never"))
    assert "already marked" in await refused(api.update(PRIORITY_CLASSES, {**made, "globalDefault": True}))
    text = await refused(api.create(PODS, pod(priorityClassName="c", preemptionPolicy="PreemptLowerPriority")))
    assert "the string value of PreemptionPolicy (PreemptLowerPriority) must not be provided" in text


async def test_default_tolerations_come_back() -> None:
    _, api = await serve(ServerOptions(not_ready_seconds=300, unreachable_seconds=200))
    made = await api.create(PODS, pod())
    tolerations = made["spec"]["tolerations"]
    assert [t["tolerationSeconds"] for t in tolerations] == [300, 200]
    made["spec"].pop("tolerations")
    assert (await api.update(PODS, made))["spec"]["tolerations"] == tolerations


async def test_extended_resources_are_tolerated_when_asked_for() -> None:
    _, api = await serve(ServerOptions(enable=frozenset({"ExtendedResourceToleration"})))
    gpu = {"nvidia.com/gpu": "1"}
    made = await api.create(PODS, pod("p", "default", container(requests=gpu, limits=gpu)))
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in made["spec"]["tolerations"]


# -- storage, ingresses, services


def claim(name: str, size: str = "1Gi", **spec: Any) -> Object:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec}
    return thing(CLAIMS, name, spec=spec)


async def test_default_classes() -> None:
    _, api = await serve()
    default = {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}
    for name in ("b", "a"):
        await api.create(STORAGE_CLASSES, thing(STORAGE_CLASSES, name, provisioner="x", meta=default))
    assert (await api.create(CLAIMS, claim("one")))["spec"]["storageClassName"] == "a"
    assert (await api.create(CLAIMS, claim("two", storageClassName="")))["spec"]["storageClassName"] == ""
    usual = {"annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}}
    await api.create(INGRESS_CLASSES, thing(INGRESS_CLASSES, "i", spec={"controller": "example.com/i"}, meta=usual))
    backend = {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}
    made = await api.create(INGRESSES, thing(INGRESSES, "web", spec=backend))
    assert made["spec"]["ingressClassName"] == "i"


async def test_only_bound_claims_of_willing_classes_grow() -> None:
    _, api = await serve()
    await api.create(STORAGE_CLASSES, thing(STORAGE_CLASSES, "fixed", provisioner="x"))
    await api.create(STORAGE_CLASSES, thing(STORAGE_CLASSES, "grows", provisioner="x", allowVolumeExpansion=True))
    for name in ("fixed", "grows"):
        made = await api.create(CLAIMS, claim(name, storageClassName=name))
        made = await api.update_status(CLAIMS, {**made, "status": {"phase": "Bound"}})
        made["spec"]["resources"]["requests"]["storage"] = "2Gi"
        if name == "grows":
            assert (await api.update(CLAIMS, made))["spec"]["resources"]["requests"]["storage"] == "2Gi"
        else:
            assert "only dynamically provisioned pvc can be resized" in await refused(api.update(CLAIMS, made))


async def test_external_addresses_can_be_forbidden() -> None:
    _, api = await serve(ServerOptions(enable=frozenset({"DenyServiceExternalIPs"})))
    spec = {"ports": [{"port": 80}], "externalIPs": ["192.0.2.1"]}
    text = await refused(api.create(SERVICES, thing(SERVICES, "s", spec=spec)))
    assert text == 'services "s" is forbidden: Use of external IPs is denied by admission control'


# -- nodes


async def nodes_world() -> tuple[Client, Client]:
    server, api = await serve()
    for name in ("n1", "n2"):
        await api.create(NODES, thing(NODES, name))
    await api.create(PODS, pod("mine", nodeName="n1"))
    await api.create(PODS, pod("theirs", nodeName="n2"))
    return as_user(server, "system:node:n1", "system:nodes", "system:authenticated"), api


async def test_a_node_changes_its_own_node_only() -> None:
    kubelet, api = await nodes_world()
    for name, text in (("n2", 'node "n1" is not allowed to modify node "n2"'), ("n1", "")):
        found = await api.get(NODES, name)
        found["metadata"]["annotations"] = {"a": "b"}
        if text:
            assert text in await refused(kubelet.update(NODES, found))
        else:
            await kubelet.update(NODES, found)
    for label, ok in (
        ("node-restriction.kubernetes.io/team", False),
        ("example.kubernetes.io/x", False),
        ("kubelet.kubernetes.io/x", True),
        ("topology.kubernetes.io/zone", True),
        ("example.com/x", True),
    ):
        patch = kubelet.patch(NODES, "n1", {"metadata": {"labels": {label: "v"}}})
        if ok:
            await patch
        else:
            assert f"is not allowed to modify labels: {label}" in await refused(patch)
    taints = kubelet.patch(NODES, "n1", {"spec": {"taints": []}})
    assert 'node "n1" is not allowed to modify taints' in await refused(taints)


async def test_a_node_has_only_its_own_pods() -> None:
    kubelet, api = await nodes_world()
    theirs, mine = await api.get(PODS, "theirs", "default"), await api.get(PODS, "mine", "default")
    text = await refused(kubelet.update_status(PODS, theirs))
    assert 'node "n1" can only update pod status for pods with spec.nodeName set to itself' in text
    mine["status"]["phase"] = "Running"
    mine = await kubelet.update_status(PODS, mine)
    labelled = {**mine, "metadata": {**mine["metadata"], "labels": {"a": "b"}}}
    assert "cannot update labels through pod status" in await refused(kubelet.update_status(PODS, labelled))
    assert "can only delete pods with spec.nodeName set to itself" in await refused(
        kubelet.delete(PODS, "theirs", "default")
    )
    assert "can only create mirror pods" in await refused(kubelet.create(PODS, pod("new", nodeName="n1")))
    owner = {"apiVersion": "v1", "kind": "Node", "name": "n1", "controller": True}
    owner["uid"] = (await api.get(NODES, "n1"))["metadata"]["uid"]
    meta = {"annotations": {"kubernetes.io/config.mirror": "x"}, "ownerReferences": [owner]}
    await kubelet.create(PODS, pod("mirror", nodeName="n1", meta=meta))
    named = pod("mirror2", nodeName="n1", meta=meta, volumes=[{"name": "v", "configMap": {"name": "c"}}])
    assert "can not create pods that reference configmaps (via configmap volumes)" in await refused(
        kubelet.create(PODS, named)
    )
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "theirs"}}
    text = await refused(kubelet.create(PODS, eviction, "default", name="theirs", subresource="eviction"))
    assert "node n1 can only evict pods with spec.nodeName set to itself" in text
    await kubelet.delete(PODS, "mine", "default", grace_period=0)


async def test_a_node_has_only_its_own_lease() -> None:
    kubelet, api = await nodes_world()
    if not any(n["metadata"]["name"] == "kube-node-lease" for n in (await api.list(NAMESPACES)).items):
        await api.create(NAMESPACES, thing(NAMESPACES, "kube-node-lease"))
    await kubelet.create(LEASES, thing(LEASES, "n1", "kube-node-lease", spec={}))
    text = await refused(kubelet.create(LEASES, thing(LEASES, "n2", "kube-node-lease", spec={})))
    assert "can only access node lease with the same name as the requesting node" in text
    text = await refused(kubelet.create(LEASES, thing(LEASES, "n1", spec={})))
    assert 'can only access leases in the "kube-node-lease" system namespace' in text


async def test_a_bound_pod_gets_its_nodes_zone() -> None:
    _, api = await serve()
    labels = {"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r", "other": "o"}
    await api.create(NODES, thing(NODES, "n", meta={"labels": labels}))
    await api.create(PODS, pod())
    target = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}}
    await api.create(PODS, target, "default", name="p", subresource="binding")
    found = (await api.get(PODS, "p", "default"))["metadata"]["labels"]
    assert found == {"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r"}


async def test_a_pod_is_not_resized_beyond_its_node() -> None:
    server, api = await serve()
    node = await api.create(NODES, thing(NODES, "n"))
    await api.update_status(NODES, {**node, "status": {"allocatable": {"cpu": "2", "memory": "1Gi"}}})
    old = await api.create(PODS, pod("p", "default", container(requests={"cpu": "1"}), nodeName="n"))
    new = {**old, "spec": {**old["spec"], "containers": [container(requests={"cpu": "3"})]}}
    plugin = next(p for p in server.validating if getattr(p, "name", "") == "PodResizeValidator")
    info = server.registry.lookup("root", "", "v1", "pods")
    assert info is not None
    a = AdmissionAttributes(
        "UPDATE", "root", info, "resize", "default", "p", new, old, User("u", ()), False, lambda text: None
    )
    with pytest.raises(ApiError) as caught:
        await plugin.validate(a)
    assert "node didn't have enough allocatable resources: cpu, requested: 3000, allocatable: 2000" in str(caught.value)
    assert caught.value.details["causes"] == [{"reason": "NodeCapacity"}]


class Rights:
    """An authorizer that allows everything but what is listed."""

    def __init__(self, *forbidden: tuple[str, str, str]) -> None:
        self.forbidden = set(forbidden)

    async def authorize(self, user: Any, cluster: str, verb: str, group: str, resource: str, sub: str, *_: str) -> Any:
        return (verb, resource, sub) not in self.forbidden, "no right"


async def test_owners_need_rights_when_that_is_asked_for() -> None:
    server, api = await serve(ServerOptions(enable=frozenset({"OwnerReferencesPermissionEnforcement"})))
    server.authorizer = Rights(("delete", "pods", ""), ("update", "*", "finalizers"), ("update", "nodes", "finalizers"))
    node = await api.create(NODES, thing(NODES, "n"))
    someone = as_user(server, "someone")
    owner = {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": node["metadata"]["uid"]}
    await someone.create(PODS, pod("a", meta={"ownerReferences": [owner]}))
    text = await refused(
        someone.create(PODS, pod("b", meta={"ownerReferences": [{**owner, "blockOwnerDeletion": True}]}))
    )
    assert "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on" in text
    await someone.create(PODS, pod("c"))
    patch = {"metadata": {"ownerReferences": [owner]}}
    text = await refused(someone.patch(PODS, "c", patch, "default"))
    assert "cannot set an ownerRef on a resource you can't delete: no right" in text
