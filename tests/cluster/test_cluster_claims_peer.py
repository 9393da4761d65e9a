"""Claims on devices: our controllers, binder and API server beside Kubernetes' own, one story, word for word.

Needs kube-controller-manager and kube-scheduler beside kube-apiserver.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from kube_peer import real_kubernetes, upstream

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store.memory import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.informer import Informers
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import EVERY, Object, get_condition
from glebe.kube.resources import NODES, PODS
from glebe.workloads.binder import controller as binder
from glebe.workloads.claims import controller as claims
from glebe.workloads.claims.names import CLAIMS, DEVICE_CLASSES, SLICES, TEMPLATES
from glebe.workloads.garbage import collector

pytestmark = [pytest.mark.cluster, pytest.mark.realtime]
V1 = "resource.k8s.io/v1"
DRIVER = "gpu.example.com"
UPSTREAM = (
    ("kube-controller-manager", "--controllers=resourceclaim-controller,garbage-collector-controller"),
    ("kube-scheduler",),
)


class Story:
    def __init__(self, client: Client) -> None:
        self.client = client
        self.facts: dict[str, Any] = {}

    async def prepare(self) -> None:
        amounts = {"cpu": "8", "memory": "32Gi", "pods": "110"}
        await self.client.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})
        status = {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": amounts, "capacity": amounts}
        await self.client.patch(NODES, "n1", {"status": status}, subresource="status")
        await self.client.patch(NODES, "n1", {"spec": {"taints": None}})
        devices = [
            {"name": f"d{i}", "attributes": {"size": {"int": i}, "board": {"string": f"b{i // 2}"}}} for i in range(4)
        ]
        pool = {"name": "n1", "generation": 1, "resourceSliceCount": 1}
        spec = {"driver": DRIVER, "nodeName": "n1", "pool": pool, "devices": devices}
        await self.client.create(
            SLICES, {"apiVersion": V1, "kind": "ResourceSlice", "metadata": {"name": "s"}, "spec": spec}
        )
        await self.add_class("gpu", f"device.driver == '{DRIVER}'")

    async def add_class(self, name: str, expression: str) -> None:
        selectors = [{"cel": {"expression": expression}}]
        body = {"apiVersion": V1, "kind": "DeviceClass", "metadata": {"name": name}, "spec": {"selectors": selectors}}
        await self.client.create(DEVICE_CLASSES, body)

    def devices(self, klass: str = "gpu", *expressions: str, count: int = 1, constraints: Any = ()) -> Object:
        selectors = [{"cel": {"expression": e}} for e in expressions]
        exactly = {"deviceClassName": klass, "count": count, "selectors": selectors}
        return {"devices": {"requests": [{"name": "r", "exactly": exactly}], "constraints": list(constraints)}}

    async def claim(self, name: str, spec: Object) -> None:
        body = {"apiVersion": V1, "kind": "ResourceClaim", "metadata": {"name": name}, "spec": spec}
        await self.client.create(CLAIMS, body, "default")

    async def pod(self, name: str, **entry: str) -> None:
        container = {"name": "c", "image": "x", "resources": {"claims": [{"name": "g"}]}}
        spec = {"containers": [container], "resourceClaims": [{"name": "g", **entry}]}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        await self.client.create(PODS, body, "default")

    async def waits(self, name: str) -> str:
        """Why it waits; what both say in the same words."""
        for _ in range(60):
            found = get_condition(await self.client.get(PODS, name, "default"), "PodScheduled") or {}
            if found.get("message"):
                return str(found["message"])
            await asyncio.sleep(0.1)
        return ""

    async def bound(self, name: str) -> str:
        for _ in range(150):
            pod = await self.client.get(PODS, name, "default")
            if pod["spec"].get("nodeName"):
                return str(pod["spec"]["nodeName"])
            await asyncio.sleep(0.1)
        raise AssertionError(f"{name} was not bound: {await self.waits(name)}")

    async def refused(self, name: str, spec: Object) -> str:
        try:
            await self.claim(name, spec)
        except ApiError as error:
            return str(error)
        return ""

    async def play(self) -> None:
        facts = self.facts
        await self.prepare()
        await self.claim("no-class", self.devices("none"))
        await self.claim("too-big", self.devices("gpu", f"device.attributes['{DRIVER}'].size > 10"))
        await self.pod("a", resourceClaimName="no-class")
        await self.pod("b", resourceClaimName="too-big")
        facts["no class"] = await self.waits("a")
        facts["too big"] = await self.waits("b")
        same = [{"matchAttribute": f"{DRIVER}/board"}]
        picky = self.devices("gpu", f"device.attributes['{DRIVER}'].size >= 1", count=2, constraints=same)
        inside = {"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}, "spec": picky}
        template = {"apiVersion": V1, "kind": "ResourceClaimTemplate", "metadata": {"name": "t"}, "spec": inside}
        await self.client.create(TEMPLATES, template, "default")
        await self.pod("c", resourceClaimTemplateName="t")
        facts["bound"] = await self.bound("c")
        mine = [x for x in (await self.client.list(CLAIMS, "default")).items if x["metadata"]["name"].startswith("c-")]
        facts["claim"] = [_shape(x) for x in mine]
        pod = await self.client.get(PODS, "c", "default")
        facts["named"] = [sorted(s) for s in pod["status"]["resourceClaimStatuses"]]
        facts["bad selector"] = await self.refused("x", self.devices("gpu", "device.nope"))
        facts["not bool"] = await self.refused("x", self.devices("gpu", "1"))
        admin = self.devices("gpu")
        admin["devices"]["requests"][0]["exactly"]["adminAccess"] = True
        facts["admin"] = await self.refused("x", admin)
        changed = {"status": {"allocation": {"devices": {"results": []}}}}
        try:
            await self.client.patch(CLAIMS, mine[0]["metadata"]["name"], changed, "default", subresource="status")
        except ApiError as error:
            facts["immutable"] = re.sub(r"c-g-\w+", "C", str(error)).partition("Invalid value")[0]
        await self.client.delete(PODS, "c", "default", grace_period=0)
        for _ in range(150):
            if all(
                not x["metadata"]["name"].startswith("c-") for x in (await self.client.list(CLAIMS, "default")).items
            ):
                facts["gone"] = True
                break
            await asyncio.sleep(0.1)


def _exactly(**spec: Any) -> Object:
    return {"name": "r", "exactly": {"deviceClassName": "gpu", **spec}}


def _cel(text: str) -> list[Object]:
    return [{"cel": {"expression": text.replace("ATTR", f"device.attributes['{DRIVER}']")}}]


def _choice(name: str, text: str, **spec: Any) -> Object:
    return {"name": name, "deviceClassName": "gpu", "selectors": _cel(text), **spec}


BOARD = f"{DRIVER}/board"
#: What pods ask for, one after the other; each keeps what it gets.
CASES: dict[str, Object] = {
    "first": {"requests": [_exactly()]},
    "two alike": {"requests": [_exactly(count=2)], "constraints": [{"matchAttribute": BOARD}]},
    "two unlike": {
        "requests": [_exactly(count=2, selectors=_cel("ATTR.kind == 'whole'"))],
        "constraints": [{"distinctAttribute": BOARD}],
    },
    "choice": {
        "requests": [
            {
                "name": "r",
                "firstAvailable": [_choice("no", "ATTR.kind == 'none'"), _choice("part", "ATTR.kind == 'part'")],
            }
        ]
    },
    "big part": {"requests": [_exactly(selectors=_cel("ATTR.kind == 'part' && ATTR.slices > 4"))]},
    "other part": {"requests": [_exactly(selectors=_cel("ATTR.kind == 'part'"))]},
    "third part": {"requests": [_exactly(selectors=_cel("ATTR.kind == 'part'"))]},
    "tainted": {"requests": [_exactly(selectors=_cel("ATTR.kind == 'bad'"))]},
    "tolerated": {
        "requests": [_exactly(selectors=_cel("ATTR.kind == 'bad'"), tolerations=[{"key": "k", "operator": "Exists"}])]
    },
    "shared": {
        "requests": [_exactly(selectors=_cel("ATTR.kind == 'shared'"), capacity={"requests": {"memory": "3Gi"}})]
    },
    "shared more": {
        "requests": [_exactly(selectors=_cel("ATTR.kind == 'shared'"), capacity={"requests": {"memory": "5Gi"}})]
    },
    "shared too much": {
        "requests": [_exactly(selectors=_cel("ATTR.kind == 'shared'"), capacity={"requests": {"memory": "4Gi"}})]
    },
    "all left": {"requests": [_exactly(allocationMode="All", selectors=_cel("ATTR.kind == 'last'"))]},
    "fails": {"requests": [_exactly(selectors=_cel("ATTR.nope > 1"))]},
}


async def _allocations(client: Client) -> dict[str, Any]:
    """What each case gets, or why it waits."""
    story = Story(client)
    await story.prepare()
    await client.delete(SLICES, "s")
    whole = [_device(f"w{i}", kind="whole", board=f"b{i // 2}") for i in range(6)]
    parts = [
        {**_device(name, kind="part", slices=size), "consumesCounters": [_counter(size)]}
        for name, size in (("p0", 4), ("p1", 4), ("p2", 7))
    ]
    policy = {"default": "1Gi", "validRange": {"min": "1Gi", "step": "1Gi"}}
    shared = {**_device("s0", kind="shared"), "allowMultipleAllocations": True}
    shared["capacity"] = {"memory": {"value": "10Gi", "requestPolicy": policy}}
    bad = {**_device("x0", kind="bad"), "taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}
    last = [_device(f"z{i}", kind="last") for i in range(2)]
    common = {"driver": DRIVER, "nodeName": "n1", "pool": {"name": "n1", "generation": 2, "resourceSliceCount": 2}}
    counters = {"sharedCounters": [{"name": "k", "counters": {"slices": {"value": "8"}}}]}
    for name, spec in (("s1", {"devices": [*whole, *parts, shared, bad, *last]}), ("s2", counters)):
        body = {"apiVersion": V1, "kind": "ResourceSlice", "metadata": {"name": name}, "spec": {**common, **spec}}
        await client.create(SLICES, body)
    await asyncio.sleep(0.5)
    found: dict[str, Any] = {}
    for name, devices in CASES.items():
        key = name.replace(" ", "-")
        await story.claim(key, {"devices": devices})
        await story.pod(key, resourceClaimName=key)
        found[name] = await _outcome(client, key)
    return found


def _device(name: str, **attributes: Any) -> dict[str, Any]:
    return {"name": name, "attributes": {k: {"int" if type(v) is int else "string": v} for k, v in attributes.items()}}


def _counter(size: int) -> Object:
    return {"counterSet": "k", "counters": {"slices": {"value": str(size)}}}


async def _outcome(client: Client, name: str) -> Any:
    for _ in range(150):
        pod = await client.get(PODS, name, "default")
        if pod["spec"].get("nodeName"):
            claim = await client.get(CLAIMS, name, "default")
            results = claim["status"]["allocation"]["devices"]["results"]
            return [{k: v for k, v in r.items() if k != "shareID"} for r in results]
        condition = get_condition(pod, "PodScheduled") or {}
        if condition.get("message"):
            return str(condition["message"]).partition(" still not")[0]
        await asyncio.sleep(0.1)
    return "nothing"


def _shape(claim: Object) -> Object:
    """What does not depend on chance."""
    meta, status = claim["metadata"], claim["status"]
    allocation = {k: v for k, v in status["allocation"].items() if k != "allocationTimestamp"}
    owner = {k: v for k, v in meta["ownerReferences"][0].items() if k != "uid"}
    users = [{k: v for k, v in u.items() if k != "uid"} for u in status["reservedFor"]]
    found = {k: meta.get(k) for k in ("labels", "annotations", "finalizers")}
    stamped = "allocationTimestamp" in status["allocation"]
    return {
        **found,
        "owner": owner,
        "allocation": allocation,
        "users": users,
        "spec": claim["spec"],
        "stamped": stamped,
    }


async def _ours(play: Callable[[Client], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    env = Env.system()
    server = ApiServer(MemoryStore(), env, TypeRegistry())
    await server.start()
    every = Client(InProcessTransport(server.handle), cluster=EVERY)
    informers = Informers(every, env)
    made = [binder.build(every, informers, env), collector.build(every, informers, env)]
    made += claims.build(every, informers, env)
    tasks = [asyncio.create_task(c.run()) for c in made]
    tasks.append(asyncio.create_task(informers.run()))
    try:
        return await play(every.for_cluster("root"))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.close()


async def _theirs(data: Path, play: Callable[[Client], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    with real_kubernetes(data) as peer:
        client = peer.client()
        await peer.ready(client)
        with upstream(peer, data, *UPSTREAM):
            try:
                return await play(client)
            finally:
                await client.close()


async def _story(client: Client) -> dict[str, Any]:
    story = Story(client)
    await story.play()
    return story.facts


async def test_one_story_on_both(tmp_path: Path) -> None:
    assert await _ours(_story) == await _theirs(tmp_path, _story)


async def test_the_same_devices_on_both(tmp_path: Path) -> None:
    ours, theirs = await _ours(_allocations), await _theirs(tmp_path, _allocations)
    for found in (ours, theirs):  # the same fault; ours is told as of each node, theirs as the scheduler's own error
        assert "claim default/fails: selector #0: CEL runtime error: no such key: nope" in found.pop("fails")
    assert ours == theirs
