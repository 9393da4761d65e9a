"""Who gets which GPU of a machine: by UUID, per container, never twice, also after a restart; what the API hears."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_nvml import FakeNvml, a100_pairs, hgx
from hypothesis import given, settings
from hypothesis import strategies as st
from node_world import World, world

from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.events import EventRecorder
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, get_condition
from glebe.kube.resources import EVENTS, NODES, PODS
from glebe.node.contracts import AdmissionError, SandboxError
from glebe.node.devices import nvml
from glebe.node.devices.devices import Devices
from glebe.node.devices.grants import Grant
from glebe.node.devices.health import LOST, XID, Fault
from glebe.node.devices.pools import NotEnough, Pools
from glebe.node.devices.slices import CLAIMS, DEVICE_CLASSES, SLICES
from glebe.node.process.node import ProcessNode
from glebe.node.spec import NodeSpec, node_object, node_status, standard_labels
from glebe.workloads.binder import controller as binder
from glebe.workloads.claims import controller as claim_controllers
from glebe.workloads.claims.names import TEMPLATES

SPEC = NodeSpec("local", {"cpu": "2", "memory": "4Gi", "pods": "110"})
GPU = "nvidia.com/gpu"


def pod(uid: str, *wanted: int, resource: str = GPU, **spec: Any) -> Object:
    containers = [
        {"name": f"c{i}", "resources": {"limits": {resource: str(n)}} if n else {}} for i, n in enumerate(wanted)
    ]
    meta = {"name": uid, "namespace": "default", "uid": uid}
    return {"metadata": meta, "spec": {"containers": containers, **spec}, "status": {}}


@contextlib.asynccontextmanager
async def machine(
    fake: FakeNvml | None, spec: NodeSpec = SPEC, over: Callable[[str], bool] = lambda _: False
) -> AsyncIterator[tuple[World, Devices]]:
    async with world() as w:
        node = node_object(spec, 0.0)
        node["metadata"]["labels"]["nvidia.com/gpu.stale"] = "x"  # of GPUs that were there earlier
        await w.client.create(NODES, node)
        made = Devices(
            spec, w.client, w.env, EventRecorder(w.client, w.env, "kubelet"), over=over,
            load=(lambda: fake) if fake is not None else None,
        )  # fmt: skip
        if fake is not None:  # no thread under virtual time
            made._pools = Pools.of(nvml.discover(fake, "/nowhere"), spec.mig_strategy)
            made._changed()
        w.spawn(made.run())
        yield w, made


def seen(grant: Grant, name: str) -> list[str]:
    env = grant.env({"name": name})
    assert env["NVIDIA_VISIBLE_DEVICES"] == (env["CUDA_VISIBLE_DEVICES"] or "void")
    return env["CUDA_VISIBLE_DEVICES"].split(",") if env["CUDA_VISIBLE_DEVICES"] else []


async def test_each_container_sees_what_it_asked_for() -> None:
    async with machine(hgx(4)) as (_, devices):
        grant = await devices.allocate(pod("a", 1, 0, 2))
        uuids = [grant.resources[GPU][0]], list(grant.resources[GPU][1:])
        assert (seen(grant, "c0"), seen(grant, "c1"), seen(grant, "c2")) == (uuids[0], [], uuids[1])
        assert all(uuid.startswith("GPU-") for uuid in grant.resources[GPU])
        assert (await devices.allocate(pod("a", 1, 0, 2))).record == grant.record
        assert grant.nodes({"name": "c0"})[-1] == "/dev/nvidia0"
        assert grant.nodes({"name": "c1"}) == ()


async def test_init_containers_use_what_main_containers_get_later() -> None:
    init = [
        {"name": "s", "restartPolicy": "Always", "resources": {"limits": {GPU: "1"}}},
        {"name": "i", "resources": {"limits": {GPU: "2"}}},
    ]
    async with machine(hgx(4)) as (_, devices):
        grant = await devices.allocate(pod("a", 1, initContainers=init))
        assert len(grant.resources[GPU]) == 3
        sidecar, first, main = seen(grant, "s"), seen(grant, "i"), seen(grant, "c0")
        assert not set(sidecar) & {*first, *main}
        assert set(main) < set(first)


async def test_connected_gpus_go_together() -> None:
    async with machine(a100_pairs()) as (_, devices):
        one = await devices.allocate(pod("a", 1))
        two = await devices.allocate(pod("b", 2))
        index = [int(i.split("-")[1]) for i in (*one.resources[GPU], *two.resources[GPU])]
        assert index[1] ^ 1 == index[2]


async def test_numbers_from_the_fleet_file_are_indexes() -> None:
    async with machine(None, replace(SPEC, capacity={**SPEC.capacity, GPU: "2"}, gpus=2)) as (_, devices):
        grant = await devices.allocate(pod("a", 2))
        assert seen(grant, "c0") == ["0", "1"]
        with pytest.raises(AdmissionError, match=r"Requested: 1, Available: 0, which is unexpected") as caught:
            await devices.allocate(pod("b", 1))
        assert caught.value.reason == "UnexpectedAdmissionError"
        devices.restore("a", {"gpus": [0]})  # as an earlier release wrote it
        assert seen(await devices.allocate(pod("b", 1)), "c0") == ["1"]


async def test_a_pod_waits_for_one_that_is_just_ending() -> None:
    over: set[str] = set()
    async with machine(hgx(1), over=over.__contains__) as (_, devices):
        await devices.allocate(pod("a", 1))
        waiting = asyncio.ensure_future(devices.allocate(pod("b", 1)))
        await asyncio.sleep(3)
        assert not waiting.done()
        over.add("a")
        assert len((await waiting).ids) == 1


async def test_the_api_hears_of_gpus_and_of_their_faults() -> None:
    async with machine(hgx(2)) as (w, devices):

        async def slices() -> list[Object]:
            found = (await w.client.list(SLICES)).items
            return list(found[0]["spec"]["devices"]) if found else []

        await w.until(slices)
        assert {c["metadata"]["name"] for c in (await w.client.list(DEVICE_CLASSES)).items} == {
            "gpu.nvidia.com",
            "mig.nvidia.com",
        }
        node = await w.client.get(NODES, "local")
        assert node["metadata"]["labels"]["nvidia.com/gpu.product"] == "NVIDIA-H100-80GB-HBM3"
        assert "nvidia.com/gpu.stale" not in node["metadata"]["labels"]
        status = devices.status(node_status(SPEC, [], 0.0, ready=True))
        assert (status["capacity"][GPU], status["allocatable"][GPU]) == ("2", "2")
        assert (get_condition({"status": status}, "GPUProblem") or {})["status"] == "False"
        grant = await devices.allocate(pod("a", 1))

        async def tainted() -> Any:
            return [d.get("taints") for d in await slices() if d.get("taints")]

        (given_,) = await w.until(tainted)
        assert [(t["key"], t["effect"]) for t in given_] == [("glebe.dev/given", "NoSchedule")]
        uuid = next(iter(grant.ids))
        await devices._news.put(Fault(uuid, XID, "79", f"GPU {uuid}: XID 79"))

        async def told() -> Any:
            return [e for e in (await w.client.list(EVENTS)).items if e["reason"] == "XidCriticalError"]

        (event,) = await w.until(told)
        assert (event["involvedObject"]["kind"], event["type"]) == ("Node", "Warning")
        status = devices.status(node_status(SPEC, [], 0.0, ready=True))
        assert (status["capacity"][GPU], status["allocatable"][GPU]) == ("2", "1")
        problem = get_condition({"status": status}, "GPUProblem") or {}
        assert (problem["status"], problem["reason"], problem["message"]) == (
            "True",
            "XidCriticalError",
            f"GPU {uuid}: XID 79",
        )
        await devices.release("a")
        devices.fail(Fault(uuid, LOST, "true", "lost"))

        async def both() -> Any:
            return [d for d in await slices() if {t["key"] for t in d.get("taints") or ()} == {XID, LOST}]

        await w.until(both)
        (found,) = (await w.client.list(SLICES)).items
        assert found["spec"]["pool"]["generation"] > 1
        assert found["metadata"]["ownerReferences"][0]["name"] == "local"


async def _claim(w: World, name: str, device: str, *users: str) -> Object:
    request = {"name": "r", "exactly": {"deviceClassName": "gpu.nvidia.com"}}
    body = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": name}}
    await w.client.create(CLAIMS, {**body, "spec": {"devices": {"requests": [request]}}}, "default")
    result = {"request": "r", "driver": "gpu.nvidia.com", "pool": "local", "device": device}
    status = {
        "allocation": {"devices": {"results": [result]}},
        "reservedFor": [{"resource": "pods", "name": u, "uid": u} for u in users],
    }
    return await w.client.patch(CLAIMS, name, {"status": status}, "default", subresource="status")


def claimant(uid: str, name: str, **used: str) -> Object:
    made = pod(uid, 0, 0, resourceClaims=[{"name": "gpu", "resourceClaimName": name}])
    made["spec"]["containers"][0]["resources"] = {"claims": [{"name": "gpu", **used}]}
    return made


async def test_devices_of_claims_go_to_the_containers_that_name_them() -> None:
    async with machine(hgx(2)) as (w, devices):
        await _claim(w, "mine", "gpu-1", "a", "b")
        for uid in ("a", "b"):  # a claim may be shared
            grant = await devices.allocate(claimant(uid, "mine"))
            assert [s.split("-")[1] for s in seen(grant, "c0")] == ["00000001"]
            assert seen(grant, "c1") == []
        assert seen(await devices.allocate(pod("c", 1)), "c0")[0].startswith("GPU-00000000")
        status = devices.status(node_status(SPEC, [], 0.0, ready=True))
        assert (status["capacity"][GPU], status["allocatable"][GPU]) == ("2", "1")
        with pytest.raises(AdmissionError):
            await devices.allocate(pod("d", 1))
        await _claim(w, "late", "gpu-0", "e")
        with pytest.raises(AdmissionError, match="of a ResourceClaim is in use by another pod"):
            await devices.allocate(claimant("e", "late"))


async def test_claims_that_are_not_ready() -> None:
    async with machine(hgx(1)) as (w, devices):
        with pytest.raises(SandboxError, match='"mine" not found'):
            await devices.allocate(claimant("a", "mine"))
        await _claim(w, "mine", "gpu-0", "b")
        with pytest.raises(SandboxError, match=r"pod a\(a\) is not allowed to use ResourceClaim mine"):
            await devices.allocate(claimant("a", "mine"))
        await _claim(w, "gone", "gpu-7", "a")
        with pytest.raises(SandboxError, match="device gpu-7 of ResourceClaim gone is not on this node"):
            await devices.allocate(claimant("a", "gone"))
        template = pod("a", 1, resourceClaims=[{"name": "gpu", "resourceClaimTemplateName": "t"}])
        with pytest.raises(SandboxError, match="ResourceClaim for gpu not created yet"):
            await devices.allocate(template)


def test_a_board_and_its_parts_exclude_each_other() -> None:
    fake = hgx(1)
    fake.boards[0].partition("3g.40gb", "3g.40gb")
    inventory = nvml.discover(fake, "/nowhere")
    pools = Pools.of(inventory, "none")
    part = inventory.gpus[0].instances[0].uuid
    pools.grants["x"] = Grant(claims={"claim": (part,)})
    with pytest.raises(NotEnough):
        pools.give(pod("a", 1)["spec"])
    pools = Pools.of(inventory, "mixed")
    chosen, _ = pools.give(pod("a", 1, 1, resource="nvidia.com/mig-3g.40gb")["spec"])
    assert [i[:4] for i in chosen["nvidia.com/mig-3g.40gb"]] == ["MIG-", "MIG-"]
    pools.faults[inventory.gpus[0].uuid] = [Fault(inventory.gpus[0].uuid, LOST, "true", "")]
    assert pools.amounts() == {"nvidia.com/mig-3g.40gb": (2, 0)}


_steps = st.lists(
    st.tuples(st.sampled_from(["pod", "end", "crash"]), st.integers(0, 6), st.integers(1, 4)), max_size=25
)


@settings(max_examples=40, deadline=None)
@given(_steps)
def test_no_gpu_is_ever_given_twice_also_by_a_new_agent(steps: list[tuple[str, int, int]]) -> None:
    inventory = nvml.discover(hgx(), "/nowhere")
    pools, records = Pools.of(inventory, "mixed"), {}
    for what, number, count in steps:
        uid = f"p{number}"
        if what == "pod" and uid not in pools.grants:
            with contextlib.suppress(NotEnough):
                pools.grants[uid] = Grant(*pools.give(pod(uid, count)["spec"]))
                records[uid] = pools.grants[uid].record  # on disk before anything is started
        elif what == "end":
            pools.grants.pop(uid, None)
            records.pop(uid, None)
        elif what == "crash":
            pools = Pools.of(inventory, "mixed")
            pools.grants = {name: Grant.of_record(record) for name, record in records.items()}
        given_ = [i for grant in pools.grants.values() for i in grant.resources[GPU]]
        assert len(set(given_)) == len(given_)
        assert {uid: grant.record for uid, grant in pools.grants.items()} == records


@pytest.mark.realtime
async def test_processes_see_their_devices_also_after_a_new_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = hgx(3)
    monkeypatch.setattr(nvml, "has_driver", lambda root="": True)
    monkeypatch.setattr(nvml, "load", lambda: fake)
    script = {"name": "c", "image": "i", "command": ["sh", "-c", "echo [$CUDA_VISIBLE_DEVICES]; sleep 60"]}
    async with world(Env.system()) as w:

        async def start() -> tuple[ProcessNode, asyncio.Task[Any]]:
            node = ProcessNode(
                w.client, w.env, replace(SPEC, labels=standard_labels("local", "process")), tmp_path, window=20
            )
            task = w.spawn(node.run())
            await node.wait_registered()
            return node, task

        async def said(node: ProcessNode, name: str) -> str:
            async def look() -> str:
                found = await w.get(name)
                with contextlib.suppress(ApiError):
                    return b"".join([chunk async for chunk in node.logs(found, "c")]).decode().strip()
                return ""

            return str(await w.until(look, timeout=8, every=0.02))

        node, task = await start()
        limits = {"resources": {"limits": {GPU: "1"}}}
        await w.pod("a", "local", containers=[{**script, **limits}])
        await w.pod("none", "local", containers=[script])
        uuids = [board.uuid for board in fake.boards]
        first = await said(node, "a")
        assert first.strip("[]") in uuids
        assert await said(node, "none") == "[]"
        await w.stop(task)  # as kill -9 would: the processes go on
        node, _ = await start()
        await w.pod("b", "local", containers=[{**script, "resources": {"limits": {GPU: "2"}}}])
        second = (await said(node, "b")).strip("[]").split(",")
        assert sorted([first.strip("[]"), *second]) == uuids
        shown = await w.client.get(NODES, "local")
        assert shown["status"]["allocatable"][GPU] == "3"
        async with asyncio.timeout(5):
            await node.drain(0.0)


@pytest.mark.realtime
async def test_a_claim_becomes_a_device_of_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the template through controllers and binder to the environment of a real process, and back."""
    fake = hgx(2)
    fake.boards[1].partition("3g.40gb", "1g.10gb")
    monkeypatch.setattr(nvml, "has_driver", lambda root="": True)
    monkeypatch.setattr(nvml, "load", lambda: fake)
    async with world(Env.system()) as w:
        informers = Informers(w.client, w.env)
        made = [binder.build(w.client, informers, w.env), *claim_controllers.build(w.client, informers, w.env)]
        for controller in made:
            w.spawn(controller.run())
        spec = replace(SPEC, labels=standard_labels("local", "process"))
        node = ProcessNode(w.client, w.env, spec, tmp_path, informers=informers, window=5)
        w.spawn(node.run())
        w.spawn(informers.run())
        await node.wait_registered()
        await w.client.patch(NODES, "local", {"spec": {"taints": None}})
        profile = "device.attributes['gpu.nvidia.com'].profile == '3g.40gb'"
        exactly = {"deviceClassName": "mig.nvidia.com", "selectors": [{"cel": {"expression": profile}}]}
        inside = {"spec": {"devices": {"requests": [{"name": "r", "exactly": exactly}]}}}
        template = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate", "metadata": {"name": "t"}}
        await w.client.create(TEMPLATES, {**template, "spec": inside}, "default")
        run = {"name": "c", "image": "i", "command": ["sh", "-c", "echo [$CUDA_VISIBLE_DEVICES]"]}
        body = {
            "containers": [{**run, "resources": {"claims": [{"name": "g"}]}}],
            "resourceClaims": [{"name": "g", "resourceClaimTemplateName": "t"}],
            "restartPolicy": "Never",
        }
        meta = {"name": "p", "namespace": "default"}
        pod_ = await w.client.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": body})
        await w.until_phase("p", "Succeeded", timeout=15)
        text = b"".join([chunk async for chunk in node.logs(pod_, "c")]).decode().strip()
        assert text == f"[{fake.boards[1].instances[0].uuid}]"

        async def gone() -> bool:
            return not (await w.client.list(CLAIMS, "default")).items

        await w.until(gone, timeout=8)
        async with asyncio.timeout(5):
            await node.drain(0.0)
