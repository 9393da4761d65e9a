"""Claims and volumes on the real API server, in several logical clusters, with the binder and StatefulSets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from workloads_stage import Stage, events, gone, names, stage, until

from glebe.kube.client import Client
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object, annotations_of, get_condition
from glebe.kube.resources import NODES, PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS
from glebe.kube.storage import CLASSES, SELECTED_NODE, SIMULATED, VOLUMES
from glebe.workloads import protection
from glebe.workloads.binder import controller as binder
from glebe.workloads.garbage import collector
from glebe.workloads.statefulset import controller as statefulset
from glebe.workloads.volumes import classes, ephemeral
from glebe.workloads.volumes.controller import Binding

CLAIMS = PERSISTENT_VOLUME_CLAIMS


def claims_of(client: Any, informers: Any, env: Any) -> Any:
    return Binding(client, informers, env).controllers()[0]


class Both:
    """The two controllers of :class:`Binding` as two builds that share one object."""

    def __init__(self) -> None:
        self._made: list[Any] = []

    def first(self, client: Any, informers: Any, env: Any) -> Any:
        self._made = Binding(client, informers, env).controllers()
        return self._made[0]

    def second(self, *_: Any) -> Any:
        return self._made[1]


def builds(*more: Any) -> list[Any]:
    both = Both()
    return [both.first, both.second, *more]


FULL = (
    binder.build,
    statefulset.build,
    collector.build,
    ephemeral.build,
    classes.build,
    lambda *a: protection.build(*a)[0],
    lambda *a: protection.build(*a)[1],
)


def volume(name: str, size: str = "1Gi", **spec: Any) -> Object:
    body = {
        "capacity": {"storage": size},
        "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": f"/data/{name}"},
        "persistentVolumeReclaimPolicy": "Retain",
        **spec,
    }
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": body}


def claim(name: str, size: str = "1Gi", **spec: Any) -> Object:
    body = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec}
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": body}


def storage_class(name: str, **more: Any) -> Object:
    body = {"provisioner": "kubernetes.io/no-provisioner", "reclaimPolicy": "Delete", **more}
    return {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name}, **body}


def node(name: str, kind: str = "simulated") -> Object:
    labels = {"kubernetes.io/hostname": name, "glebe.dev/node-kind": kind}
    amounts = {"cpu": "8", "memory": "32Gi", "pods": "110"}
    conditions = [{"type": "Ready", "status": "True"}]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "status": {"allocatable": amounts, "capacity": amounts, "conditions": conditions},
    }


async def add_node(client: Client, name: str) -> None:
    await client.create(NODES, node(name))
    await client.patch(NODES, name, {"spec": {"taints": None}})  # the life-cycle controller's part


def pod(name: str, *volumes: dict[str, Any], **spec: Any) -> Object:
    containers = [{"name": "c", "image": "i"}]
    body = {"containers": containers, "volumes": list(volumes), **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": body}


def uses(claim_name: str) -> dict[str, Any]:
    return {"name": "data", "persistentVolumeClaim": {"claimName": claim_name}}


async def phase(client: Client, resource: Any, name: str, wanted: str) -> Object:
    async def reached() -> Object | None:
        obj = await client.get(resource, name, "default" if resource.namespaced else None)
        return obj if (obj.get("status") or {}).get("phase") == wanted else None

    return dict(await until(reached))


async def test_static_binding_and_release() -> None:
    async with stage(builds(FULL[-1], FULL[-2]), "a", "b", kubelet=False) as s:
        a, b = s["a"], s["b"]
        for client, sizes in ((a, ("5Gi", "2Gi", "3Gi")), (b, ("2Gi",))):
            for number, size in enumerate(sizes):
                await client.create(VOLUMES, volume(f"v{number}", size))
        await phase(a, VOLUMES, "v0", "Available")
        await a.create(CLAIMS, claim("c", "2Gi"))
        bound = await phase(a, CLAIMS, "c", "Bound")
        assert bound["spec"]["volumeName"] == "v1"  # the smallest that suits
        assert bound["status"]["capacity"] == {"storage": "2Gi"}
        assert set(annotations_of(bound)) == {
            "pv.kubernetes.io/bind-completed",
            "pv.kubernetes.io/bound-by-controller",
        }
        assert (await a.get(VOLUMES, "v1"))["spec"]["claimRef"]["uid"] == bound["metadata"]["uid"]
        await phase(b, VOLUMES, "v0", "Available")  # another cluster's claims are nothing to it
        await a.delete(CLAIMS, "c", "default")
        await phase(a, VOLUMES, "v1", "Released")
        await a.create(CLAIMS, claim("c", "2Gi"))  # a released volume is not given again
        assert (await phase(a, CLAIMS, "c", "Bound"))["spec"]["volumeName"] == "v2"


async def test_reservations_and_refusals() -> None:
    async with stage(builds(), kubelet=False) as s:
        c = s.root
        await c.create(VOLUMES, volume("for-late", claimRef={"namespace": "default", "name": "late"}))
        await c.create(VOLUMES, volume("small", "1Gi", storageClassName="x"))
        await phase(c, VOLUMES, "for-late", "Available")
        await c.create(CLAIMS, claim("other", "9Gi", storageClassName=""))
        await c.create(CLAIMS, claim("picky", "2Gi", volumeName="small", storageClassName="x"))
        await c.create(CLAIMS, claim("absent", volumeName="nowhere", storageClassName=""))
        await asyncio.sleep(5)
        told = await events(c)
        assert ("FailedBinding", "no persistent volumes available for this claim and no storage class is set") in told
        text = 'Cannot bind to requested volume "small": requested PV is too small'
        assert ("VolumeMismatch", text) in told
        for name in ("other", "picky", "absent"):
            await phase(c, CLAIMS, name, "Pending")
        await c.create(CLAIMS, claim("late", storageClassName=""))
        bound = await phase(c, CLAIMS, "late", "Bound")
        assert bound["spec"]["volumeName"] == "for-late"
        assert "pv.kubernetes.io/bound-by-controller" not in annotations_of(await c.get(VOLUMES, "for-late"))
        await c.create(VOLUMES, volume("nowhere"))
        await phase(c, CLAIMS, "absent", "Bound")


async def test_two_claims_that_want_one_volume() -> None:
    async with stage(builds(), kubelet=False) as s:
        for number in range(20):
            await s.root.create(CLAIMS, claim(f"c{number}", storageClassName=""))
        for number in range(10):
            await s.root.create(VOLUMES, volume(f"v{number}"))
        await asyncio.sleep(60)
        claims = (await s.root.list(CLAIMS, "default")).items
        given = [c["spec"]["volumeName"] for c in claims if c["status"]["phase"] == "Bound"]
        assert sorted(given) == sorted(f"v{n}" for n in range(10))
        for name in given:
            await phase(s.root, VOLUMES, name, "Bound")


async def test_a_volume_that_vanishes_leaves_its_claim_lost() -> None:
    async with stage(builds(), kubelet=False) as s:
        await s.root.create(VOLUMES, volume("v"))
        await s.root.create(CLAIMS, claim("c", storageClassName=""))
        await phase(s.root, CLAIMS, "c", "Bound")
        body = await s.root.get(VOLUMES, "v")
        await s.root.update(VOLUMES, {**body, "metadata": {**body["metadata"], "finalizers": []}})
        await s.root.delete(VOLUMES, "v")
        await phase(s.root, CLAIMS, "c", "Lost")
        text = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
        assert ("ClaimLost", text) in await events(s.root)


async def test_default_classes_come_late_and_provisioners_elsewhere_are_asked() -> None:
    async with stage(builds(), kubelet=False) as s:
        c = s.root
        await c.create(CLAIMS, claim("early"))
        await c.create(CLAIMS, claim("none", storageClassName=""))
        await asyncio.sleep(2)
        default = storage_class("std", provisioner="example.com/x", volumeBindingMode="Immediate")
        default["metadata"]["annotations"] = {"storageclass.kubernetes.io/is-default-class": "true"}
        await c.create(CLASSES, default)

        async def asked() -> bool:
            marks = annotations_of(await c.get(CLAIMS, "early", "default"))
            return marks.get("volume.kubernetes.io/storage-provisioner") == "example.com/x"

        await until(asked)
        assert (await c.get(CLAIMS, "early", "default"))["spec"]["storageClassName"] == "std"
        assert (await c.get(CLAIMS, "none", "default"))["spec"]["storageClassName"] == ""
        told = dict(await events(c))
        assert "Waiting for a volume to be created either by the external" in told["ExternalProvisioning"]


async def test_volumes_that_nobody_can_delete_or_recycle_fail_and_say_so() -> None:
    async with stage(builds(FULL[-2]), kubelet=False) as s:
        for policy in ("Delete", "Recycle"):
            name = policy.lower()
            await s.root.create(VOLUMES, volume(name, persistentVolumeReclaimPolicy=policy))
            await s.root.create(CLAIMS, claim(name, volumeName=name, storageClassName=""))
            await phase(s.root, CLAIMS, name, "Bound")
            await s.root.delete(CLAIMS, name, "default")
            await phase(s.root, VOLUMES, name, "Failed")
        told = dict(await events(s.root, "default"))
        assert told["VolumeFailedRecycle"] == "No recycler plugin found for the volume!"
        assert (
            told["VolumeFailedDelete"] == "host_path deleter only supports /tmp/.+ but received provided /data/delete"
        )


@pytest.mark.parametrize("cluster", ["root", "tenant"])
async def test_a_stateful_set_with_claims_on_simulated_nodes(cluster: str) -> None:
    async with stage(builds(*FULL), "tenant") as s:
        c = s[cluster]
        for number in range(3):
            await add_node(c, f"n{number}")
        await until(lambda: _there(c, CLASSES, "local-path"))
        template = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
        claims = [{"metadata": {"name": "data"}, "spec": claim("x")["spec"]}]
        body = {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {"name": "db", "namespace": "default"},
            "spec": {
                "replicas": 3,
                "serviceName": "db",
                "podManagementPolicy": "Parallel",
                "selector": {"matchLabels": {"app": "x"}},
                "template": template,
                "volumeClaimTemplates": claims,
                "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Retain"},
            },
        }
        await c.create(STATEFUL_SETS, body)

        async def bound() -> list[Object] | None:
            pods = (await c.list(PODS, "default")).items
            return pods if len(pods) == 3 and all(p["spec"].get("nodeName") for p in pods) else None

        for each in await until(bound):
            made = await c.get(CLAIMS, f"data-{each['metadata']['name']}", "default")
            assert made["status"]["phase"] == "Bound"
            assert made["spec"]["storageClassName"] == "local-path"
            assert annotations_of(made)[SELECTED_NODE] == each["spec"]["nodeName"]
            one = await c.get(VOLUMES, made["spec"]["volumeName"])
            assert annotations_of(one)[SIMULATED] == "true"
            terms = one["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
            assert terms[0]["matchExpressions"][0]["values"] == [each["spec"]["nodeName"]]
        # A pod that comes again goes to where its data is.
        old = await c.get(PODS, "db-1", "default")
        await c.delete(PODS, "db-1", "default")

        async def again() -> Object | None:
            try:
                new = await c.get(PODS, "db-1", "default")
            except ApiError:
                return None
            return new if new["metadata"]["uid"] != old["metadata"]["uid"] and new["spec"].get("nodeName") else None

        assert (await until(again))["spec"]["nodeName"] == old["spec"]["nodeName"]
        await c.delete(STATEFUL_SETS, "db", "default")

        async def clean() -> bool:
            return not await names(c, CLAIMS) and not (await c.list(VOLUMES)).items

        await until(clean)


async def _there(client: Client, resource: Any, name: str) -> bool:
    return not await gone(client, resource, name, None)


async def local_disks(s: Stage, **sizes: str) -> None:
    await s.root.create(CLASSES, storage_class("disks", volumeBindingMode="WaitForFirstConsumer"))
    for name, size in sizes.items():
        host, _, _ = name.partition("_")
        term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [host]}]}
        affinity = {"required": {"nodeSelectorTerms": [term]}}
        body = volume(name.replace("_", "-"), size, storageClassName="disks", nodeAffinity=affinity)
        del body["spec"]["hostPath"]
        body["spec"]["local"] = {"path": f"/mnt/{name}"}
        await s.root.create(VOLUMES, body)


async def test_local_disks_wait_for_their_pod_and_bring_it_to_their_node() -> None:
    async with stage(builds(*FULL)) as s:
        for name in ("n0", "n1"):
            await add_node(s.root, name)
        await local_disks(s, n0_a="1Gi", n1_a="10Gi", n1_b="5Gi")
        await s.root.create(CLAIMS, claim("big", "4Gi", storageClassName="disks"))
        await asyncio.sleep(2)
        await phase(s.root, CLAIMS, "big", "Pending")
        text = "waiting for first consumer to be created before binding"
        assert ("WaitForFirstConsumer", text) in await events(s.root)
        await s.root.create(PODS, pod("p", uses("big")))
        bound = await phase(s.root, CLAIMS, "big", "Bound")
        assert bound["spec"]["volumeName"] == "n1-b"
        await until(lambda: _on(s.root, "p", "n1"))
        # Two claims of one pod get two volumes of one node, or the pod waits.
        for name in ("x", "y"):
            await s.root.create(CLAIMS, claim(name, storageClassName="disks"))
        await s.root.create(PODS, pod("q", uses("x"), {**uses("y"), "name": "other"}))
        await asyncio.sleep(5)
        waiting = get_condition(await s.root.get(PODS, "q", "default"), "PodScheduled") or {}
        assert "2 node(s) didn't find available persistent volumes to bind" in waiting["message"]
        await local_disks_more(s, "n0-c")
        await until(lambda: _on(s.root, "q", "n0"))


async def local_disks_more(s: Stage, name: str) -> None:
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n0"]}]}
    affinity = {"required": {"nodeSelectorTerms": [term]}}
    await s.root.create(VOLUMES, volume(name, "1Gi", storageClassName="disks", nodeAffinity=affinity))


async def _on(client: Client, name: str, where: str) -> bool:
    return bool((await client.get(PODS, name, "default"))["spec"].get("nodeName") == where)


async def test_generic_ephemeral_volumes_come_and_go_with_their_pod() -> None:
    async with stage(builds(*FULL)) as s:
        await add_node(s.root, "n0")
        await until(lambda: _there(s.root, CLASSES, "local-path"))
        await s.root.create(CLAIMS, claim("taken-scratch"))
        template = {"metadata": {"labels": {"a": "b"}}, "spec": claim("x")["spec"]}
        scratch = {"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}
        for name in ("p", "taken"):
            await s.root.create(PODS, pod(name, scratch))
        await until(lambda: _on(s.root, "p", "n0"))
        made = await s.root.get(CLAIMS, "p-scratch", "default")
        assert made["metadata"]["labels"] == {"a": "b"}
        assert made["metadata"]["ownerReferences"][0]["name"] == "p"
        text = "PVC default/taken-scratch was not created for pod default/taken (pod is not owner)"
        assert ("FailedBinding", f"ephemeral volume scratch: {text}") in await events(s.root)
        await s.root.delete(PODS, "p", "default")
        await until(lambda: gone(s.root, CLAIMS, "p-scratch"))

        async def no_volume() -> bool:
            return all(v["spec"]["claimRef"]["name"] != "p-scratch" for v in (await s.root.list(VOLUMES)).items)

        await until(no_volume)


async def test_a_local_path_grows_on_paper() -> None:
    async with stage(builds(*FULL)) as s:
        await add_node(s.root, "n0")
        await until(lambda: _there(s.root, CLASSES, "local-path"))
        await s.root.create(CLAIMS, claim("c"))
        await s.root.create(PODS, pod("p", uses("c")))
        bound = await phase(s.root, CLAIMS, "c", "Bound")
        spec = {"resources": {"requests": {"storage": "5Gi"}}}
        await s.root.patch(CLAIMS, "c", {"spec": spec}, "default")

        async def grown() -> bool:
            now = await s.root.get(CLAIMS, "c", "default")
            return bool(now["status"]["capacity"] == {"storage": "5Gi"})

        await until(grown)
        assert (await s.root.get(VOLUMES, bound["spec"]["volumeName"]))["spec"]["capacity"] == {"storage": "5Gi"}


async def test_a_pod_of_one_alone() -> None:
    async with stage(builds(*FULL)) as s:
        await add_node(s.root, "n0")
        await until(lambda: _there(s.root, CLASSES, "local-path"))
        await s.root.create(CLAIMS, claim("c", accessModes=["ReadWriteOncePod"]))
        await s.root.create(PODS, pod("p", uses("c")))
        await until(lambda: _on(s.root, "p", "n0"))
        await s.root.create(PODS, pod("q", uses("c")))
        await asyncio.sleep(5)
        assert not (await s.root.get(PODS, "q", "default"))["spec"].get("nodeName")
        await s.root.delete(PODS, "p", "default")
        await until(lambda: _on(s.root, "q", "n0"))
