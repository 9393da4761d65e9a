"""Pods with ResourceClaims, from the template to the freed device, through API server, controllers and binder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from devices_world import DRIVER, attribute, device, klass, piece, wanted
from workloads_stage import Stage, events, stage, until

from glebe.kube.client import Client
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object, get_condition
from glebe.kube.resources import NAMESPACES, NODES, PODS
from glebe.workloads.binder import controller as binder
from glebe.workloads.claims import controller, taints
from glebe.workloads.claims.controller import claim_name
from glebe.workloads.claims.names import CLAIMS, DEVICE_CLASSES, FINALIZER, SLICES, TEMPLATES
from glebe.workloads.garbage import collector

BUILDS = (
    binder.build,
    collector.build,
    lambda *a: controller.build(*a)[0],
    lambda *a: controller.build(*a)[1],
    taints.build,
)


@asynccontextmanager
async def world(*clusters: str) -> AsyncIterator[Stage]:
    async with stage(BUILDS, *clusters) as here:
        yield here


async def add_node(client: Client, name: str, *devices: dict[str, Any]) -> None:
    amounts = {"cpu": "8", "memory": "32Gi", "pods": "110"}
    body = {"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}}
    await client.create(NODES, {"apiVersion": "v1", "kind": "Node", **body})
    status = {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": amounts, "capacity": amounts}
    await client.patch(NODES, name, {"status": status}, subresource="status")
    await client.patch(NODES, name, {"spec": {"taints": None}})
    if devices:
        made = piece(f"{name}-slice", devices, pool=name, nodeName=name)
        await client.create(SLICES, {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", **made})


async def add_class(client: Client, *expressions: str) -> None:
    made = {"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", **klass("gpu", *expressions)}
    await client.create(DEVICE_CLASSES, made)


async def add_template(client: Client, *requests: dict[str, Any], name: str = "one") -> None:
    inside = {"metadata": {"labels": {"made": "so"}}, "spec": {"devices": {"requests": list(requests)}}}
    body = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate", "metadata": {"name": name}}
    await client.create(TEMPLATES, {**body, "spec": inside}, "default")


async def add_claim(client: Client, name: str, *requests: dict[str, Any], namespace: str = "default") -> Object:
    body = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": name}}
    return await client.create(CLAIMS, {**body, "spec": {"devices": {"requests": list(requests)}}}, namespace)


async def add_pod(client: Client, name: str, **entry: str) -> Object:
    container = {"name": "c", "image": "i", "resources": {"claims": [{"name": "gpu"}]}}
    spec = {"containers": [container], "resourceClaims": [{"name": "gpu", **entry}]}
    return await client.create(
        PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}, "default"
    )


async def bound(client: Client, name: str) -> str:
    async def look() -> str:
        return str((await client.get(PODS, name, "default"))["spec"].get("nodeName") or "")

    return str(await until(look))


async def waits(client: Client, name: str, text: str) -> None:
    async def look() -> bool:
        found = get_condition(await client.get(PODS, name, "default"), "PodScheduled")
        return found is not None and text in found.get("message", "")

    await until(look)


async def claims_of(client: Client) -> list[Object]:
    return list((await client.list(CLAIMS, "default")).items)


def devices_of(claim: Object) -> list[str]:
    allocation = (claim.get("status") or {}).get("allocation") or {}
    return [f"{r['pool']}/{r['device']}" for r in (allocation.get("devices") or {}).get("results") or ()]


async def test_from_template_to_device_and_back() -> None:
    async with world() as here:
        client = here.root
        await add_class(client, attribute("size") + " > 1")
        await add_node(client, "plain")
        await add_node(client, "n1", device("a", size=1), device("b", size=2))
        await add_template(client, wanted())
        pod = await add_pod(client, "p", resourceClaimTemplateName="one")
        assert await bound(client, "p") == "n1"
        (claim,) = await claims_of(client)
        meta, status = claim["metadata"], claim["status"]
        assert meta["name"] == claim_name(pod, "gpu")
        assert meta["name"].startswith("p-gpu-")
        assert (meta["labels"], meta["finalizers"]) == ({"made": "so"}, [FINALIZER])
        assert meta["annotations"] == {"resource.kubernetes.io/pod-claim-name": "gpu"}
        assert meta["ownerReferences"][0]["uid"] == pod["metadata"]["uid"]
        assert devices_of(claim) == ["n1/b"]
        assert status["allocation"]["nodeSelector"]["nodeSelectorTerms"][0]["matchFields"][0]["values"] == ["n1"]
        assert status["reservedFor"] == [{"resource": "pods", "name": "p", "uid": pod["metadata"]["uid"]}]
        named = (await client.get(PODS, "p", "default"))["status"]["resourceClaimStatuses"]
        assert named == [{"name": "gpu", "resourceClaimName": meta["name"]}]
        await add_pod(client, "q", resourceClaimTemplateName="one")
        await waits(client, "q", "0/2 nodes are available: 2 cannot allocate all claims.")
        await client.delete(PODS, "p", "default")
        assert await bound(client, "q") == "n1"
        (claim,) = await claims_of(client)
        assert claim["metadata"]["name"].startswith("q-gpu-")


async def test_a_pod_that_has_ended_gives_its_claim_away() -> None:
    async with world() as here:
        client = here.root
        await add_class(client)
        await add_node(client, "n1", device("a"))
        await add_template(client, wanted())
        here.fails.add("p")
        await add_pod(client, "p", resourceClaimTemplateName="one")

        async def gone() -> bool:
            pod = await client.get(PODS, "p", "default")
            return pod["status"].get("phase") == "Failed" and not await claims_of(client)

        await until(gone)


async def test_a_claim_of_its_own_serves_many_pods_and_stays() -> None:
    async with world() as here:
        client = here.root
        await add_class(client)
        await add_node(client, "n1", device("a"))
        await add_node(client, "n2", device("a"))
        await add_claim(client, "mine", wanted())
        for name in ("p", "q", "r"):
            await add_pod(client, name, resourceClaimName="mine")
        assert {await bound(client, name) for name in ("p", "q", "r")} == {"n1"}
        (claim,) = await claims_of(client)
        assert sorted(r["name"] for r in claim["status"]["reservedFor"]) == ["p", "q", "r"]
        await client.delete(CLAIMS, "mine", "default")
        (claim,) = await claims_of(client)
        assert claim["metadata"]["deletionTimestamp"]  # in use
        for name in ("p", "q", "r"):
            await client.delete(PODS, name, "default")

        async def gone() -> bool:
            return not await claims_of(client)

        await until(gone)
        assert (await client.list(PODS, "default")).items == []


async def test_a_freed_claim_stays_without_devices() -> None:
    async with world() as here:
        client = here.root
        await add_class(client)
        await add_node(client, "n1", device("a"))
        await add_claim(client, "mine", wanted())
        await add_pod(client, "p", resourceClaimName="mine")
        assert await bound(client, "p") == "n1"
        await client.delete(PODS, "p", "default")

        async def free() -> bool:
            (claim,) = await claims_of(client)
            return not (claim.get("status") or {}) and not claim["metadata"].get("finalizers")

        await until(free)


@pytest.mark.parametrize(
    ("prepare", "entry", "why"),
    [
        ("", {"resourceClaimName": "none"}, 'resourceclaim.resource.k8s.io "none" not found'),
        ("class", {"resourceClaimName": "mine"}, "request r: device class gpu does not exist"),
        ("node", {"resourceClaimName": "mine"}, "0/1 nodes are available: 1 cannot allocate all claims."),
    ],
)
async def test_what_a_pod_waits_for(prepare: str, entry: dict[str, str], why: str) -> None:
    async with world() as here:
        client = here.root
        await add_node(client, "n1")
        if prepare != "class":
            await add_class(client)
        if prepare:
            await add_claim(client, "mine", wanted())
        await add_pod(client, "p", **entry)
        await waits(client, "p", why)
        if prepare == "class":
            await add_class(client)
        if not prepare:
            await add_claim(client, "none", wanted())
        await add_node(client, "n2", device("a"))
        assert await bound(client, "p") == "n2"


async def test_a_missing_template_is_told() -> None:
    async with world() as here:
        client = here.root
        await add_class(client)
        await add_node(client, "n1", device("a"))
        await add_pod(client, "p", resourceClaimTemplateName="one")

        async def told() -> bool:
            text = 'PodResourceClaim gpu: resource claim template "one": '
            text += 'resourceclaimtemplate.resource.k8s.io "one" not found'
            return ("FailedResourceClaimCreation", text) in await events(client)

        await until(told)
        assert get_condition(await client.get(PODS, "p", "default"), "PodScheduled") is None
        await add_template(client, wanted())
        assert await bound(client, "p") == "n1"


async def test_an_allocated_claim_that_ties_a_pod_to_the_wrong_node_is_freed() -> None:
    async with world() as here:
        client = here.root
        await add_class(client)
        await add_node(client, "n1", device("a"))
        await add_node(client, "n2", device("a"))
        claim = await add_claim(client, "mine", wanted())
        await client.patch(CLAIMS, "mine", {"metadata": {"finalizers": [FINALIZER]}}, "default")
        selector = {
            "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]
        }
        result = {"request": "r", "driver": DRIVER, "pool": "n1", "device": "a"}
        status = {"allocation": {"devices": {"results": [result]}, "nodeSelector": selector}}
        await client.patch(CLAIMS, "mine", {"status": status}, "default", subresource="status")
        await client.patch(NODES, "n1", {"spec": {"unschedulable": True}})
        await add_pod(client, "p", resourceClaimName="mine")
        assert await bound(client, "p") == "n2"
        (now,) = await claims_of(client)
        assert (devices_of(now), now["metadata"]["uid"]) == (["n2/a"], claim["metadata"]["uid"])


async def test_clusters_have_their_own_devices() -> None:
    async with world("a", "b") as here:
        for name in ("a", "b"):
            await add_class(here[name])
            await add_node(here[name], "n1", device("x"))
            await add_template(here[name], wanted())
            await add_pod(here[name], "p", resourceClaimTemplateName="one")
        for name in ("a", "b"):
            assert await bound(here[name], "p") == "n1"
            assert [devices_of(c) for c in await claims_of(here[name])] == [["n1/x"]]


async def test_fifty_pods_and_forty_devices() -> None:
    async with world() as here:
        client = here.root
        await add_class(client)
        for number in range(5):
            await add_node(client, f"n{number}", *(device(f"d{i}") for i in range(8)))
        await add_template(client, wanted())
        for number in range(50):
            await add_pod(client, f"p{number:02}", resourceClaimTemplateName="one")

        async def settled() -> bool:
            pods = (await client.list(PODS, "default")).items
            return sum(1 for p in pods if p["spec"].get("nodeName")) == 40

        await until(settled)
        given = [d for c in await claims_of(client) for d in devices_of(c)]
        assert (len(given), len(set(given))) == (40, 40)
        for number in range(10):
            await client.delete(PODS, (await _placed(client))[0], "default")
            assert number >= 0
        await until(settled)
        given = [d for c in await claims_of(client) for d in devices_of(c)]
        assert (len(given), len(set(given))) == (40, 40)


async def _placed(client: Client) -> list[str]:
    pods = (await client.list(PODS, "default")).items
    return [
        p["metadata"]["name"] for p in pods if p["spec"].get("nodeName") and "deletionTimestamp" not in p["metadata"]
    ]


async def test_admin_access_needs_a_label() -> None:
    async with world() as here:
        client = here.root
        with pytest.raises(ApiError) as caught:
            await add_claim(client, "admin", wanted(adminAccess=True))
        assert caught.value.code == 422
        assert "admin access to devices requires the `resource.kubernetes.io/admin-access: true` label" in str(
            caught.value
        )
        with pytest.raises(ApiError, match=r"spec.spec.devices.requests\[0\].adminAccess"):
            await add_template(client, wanted(adminAccess=True))
        label = {"metadata": {"labels": {"resource.kubernetes.io/admin-access": "true"}}}
        await client.patch(NAMESPACES, "default", label)
        await add_claim(client, "admin", wanted(adminAccess=True))


async def _taint(client: Client, node: str, **taint: str) -> None:
    found = await client.get(SLICES, f"{node}-slice")
    devices = [
        {**d, "taints": [{"key": "gpu.example.com/xid", "value": "79", **taint}]} for d in found["spec"]["devices"]
    ]
    await client.patch(SLICES, f"{node}-slice", {"spec": {"devices": devices}})


async def test_pods_leave_devices_with_taints() -> None:
    async with world() as here:
        client = here.root
        await add_class(client)
        await add_node(client, "n1", device("a"), device("b"))
        patient = {"key": "gpu.example.com/xid", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}
        await add_template(client, wanted())
        await add_template(client, wanted(tolerations=[patient]), name="two")
        await add_pod(client, "p", resourceClaimTemplateName="one")
        await add_pod(client, "q", resourceClaimTemplateName="two")
        assert [await bound(client, name) for name in ("p", "q")] == ["n1", "n1"]
        await _taint(client, "n1", effect="NoSchedule")
        await asyncio.sleep(5)
        assert len((await client.list(PODS, "default")).items) == 2
        began = here.env.clock.now()
        await _taint(client, "n1", effect="NoExecute")

        async def left(*names: str) -> bool:
            return sorted(p["metadata"]["name"] for p in (await client.list(PODS, "default")).items) == list(names)

        await until(lambda: left("q"))
        assert here.env.clock.now() - began < 5
        assert ("DeviceTaintManagerEviction", "Marking for deletion") in await events(client)
        await until(left)
        assert 29 < here.env.clock.now() - began < 35


async def test_what_an_allocation_may_become() -> None:
    async with world() as here:
        client = here.root
        await add_claim(client, "mine", wanted())
        result = {"request": "r", "driver": DRIVER, "pool": "n1", "device": "a"}

        async def write(**status: Any) -> str:
            try:
                await client.patch(CLAIMS, "mine", {"status": status}, "default", subresource="status")
            except ApiError as error:
                return str(error)
            return ""

        me = {"resource": "pods", "name": "p", "uid": "u"}
        assert "may not be specified when `allocated` is not set" in await write(reservedFor=[me])
        wrong = {"devices": {"results": [{**result, "request": "x"}]}}
        assert "must be the name of a request in the claim" in await write(allocation=wrong)
        assert await write(allocation={"devices": {"results": [result]}}, reservedFor=[me]) == ""
        other = {"devices": {"results": [{**result, "device": "b"}]}}
        assert "field is immutable" in await write(allocation=other)
        assert "Duplicate value" in await write(reservedFor=[me, {**me, "name": "q"}])
        assert await write(reservedFor=[], allocation=None) == ""


async def test_the_better_alternative_decides_on_the_node_and_used_nodes_fill_up() -> None:
    async with world() as here:
        client = here.root
        await add_class(client)
        await add_node(client, "n1", device("a", big=False), device("b", big=False))
        await add_node(client, "n2", device("a", big=True), device("b", big=False))
        big = {"name": "big", "deviceClassName": "gpu", "selectors": [{"cel": {"expression": attribute("big")}}]}
        await add_template(client, {"name": "r", "firstAvailable": [big, {"name": "any", "deviceClassName": "gpu"}]})
        await add_template(client, wanted(), name="two")
        await add_pod(client, "p", resourceClaimTemplateName="one")
        assert await bound(client, "p") == "n2"
        (claim,) = await claims_of(client)
        assert claim["status"]["allocation"]["devices"]["results"][0]["request"] == "r/big"
        await add_pod(client, "q", resourceClaimTemplateName="two")
        assert await bound(client, "q") == "n2"  # n1 stays whole
        await add_pod(client, "r", resourceClaimTemplateName="two")
        assert await bound(client, "r") == "n1"


async def test_a_pod_is_bound_when_its_device_is_ready() -> None:
    async with world() as here:
        client = here.root
        await add_class(client)
        conditions = {"bindingConditions": ["attached"], "bindingFailureConditions": ["broken"]}
        await add_node(client, "n1", {**device("a"), **conditions})
        await add_claim(client, "mine", wanted())
        await add_pod(client, "p", resourceClaimName="mine")

        async def allocated() -> bool:
            return [devices_of(claim) for claim in await claims_of(client)] == [["n1/a"]]

        async def report(kind: str) -> None:
            said = {
                "type": kind,
                "status": "True",
                "reason": "R",
                "message": "m",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
            one = {"driver": DRIVER, "pool": "n1", "device": "a", "conditions": [said]}
            await client.patch(CLAIMS, "mine", {"status": {"devices": [one]}}, "default", subresource="status")

        await until(allocated)
        await asyncio.sleep(20)
        assert not (await client.get(PODS, "p", "default"))["spec"].get("nodeName")
        await report("broken")
        why = 'device binding failed: claim=mine, reason=R, message="m"'

        async def told() -> bool:
            return ("FailedScheduling", why) in await events(client)

        await until(told)

        async def anew() -> bool:
            (claim,) = await claims_of(client)
            return devices_of(claim) == ["n1/a"] and not claim["status"].get("devices")

        await until(anew)  # freed, and allocated once more
        await report("attached")
        assert await bound(client, "p") == "n1"
