"""Scenarios: what befalls simulated nodes and pods, from a file, the same for the same seed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from node_world import World, world

from glebe.kube.clock import parse_time
from glebe.kube.objects import Object, condition_is_true, get_condition
from glebe.kube.resources import EVENTS, NODES, PODS
from glebe.node.fleet import parse_fleet
from glebe.node.simulated.nodes import SimulatedNodes
from glebe.node.simulated.plan import FAIL_AFTER, READY_AFTER, RUN_TIME
from glebe.node.simulated.scenario import parse_scenario
from glebe.node.values.fields import FleetError

HEAD = "apiVersion: glebe.dev/v1alpha1\nkind: Scenario\nseed: 7\n"
FLEET = """\
apiVersion: glebe.dev/v1alpha1
kind: Fleet
pools:
- {name: a, count: 4, gpu: {model: h200, count: 8}, startDelay: 1s, runTime: 60s}
- {name: b, count: 2, startDelay: 1s}
"""


async def begin(w: World, scenario: str) -> SimulatedNodes:
    made = SimulatedNodes(w.client, w.env, parse_fleet(FLEET).nodes, scenario=parse_scenario(HEAD + scenario))
    w.spawn(made.run())
    await made.wait_registered()
    return made


def waiting(pod: Object) -> str:
    (container,) = pod["status"]["containerStatuses"]
    return str((container["state"].get("waiting") or {}).get("reason", ""))


async def ready_at(w: World, name: str, value: str, limit: float = 100.0) -> float:
    """Seconds until a node's Ready is ``value``."""
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def so() -> bool:
        return (get_condition(await w.client.get(NODES, name), "Ready") or {}).get("status") == value

    await w.until(so, timeout=limit)
    return loop.time() - began


async def test_a_node_flaps_as_often_as_the_scenario_says() -> None:
    async with world() as w:
        await begin(w, "nodes: [{do: notReady, names: [a-01], at: 10s, for: 5s, every: 20s}]")
        assert await ready_at(w, "a-01", "False") == pytest.approx(10, abs=0.2)
        assert await ready_at(w, "a-01", "True") == pytest.approx(5, abs=0.2)
        assert await ready_at(w, "a-01", "False") == pytest.approx(20, abs=0.2)
        assert condition_is_true(await w.client.get(NODES, "a-00"), "Ready")


async def test_a_failed_node_falls_silent_and_comes_back_with_its_pods_lost() -> None:
    async with world() as w:
        nodes = await begin(w, "nodes: [{do: fail, pools: [b], share: 1.0, at: 10s, for: 20s}]")
        await w.pod("p", "b-00", {RUN_TIME: "100s"})
        await w.pod("q", "a-00", {RUN_TIME: "100s"})
        await asyncio.sleep(15)
        assert not nodes.presence.is_alive(nodes.key("b-00"))
        await asyncio.sleep(20)
        lost = await w.get("p")
        assert (lost["status"]["phase"], lost["status"]["reason"]) == ("Failed", "NodeLost")
        assert (await w.get("q"))["status"]["phase"] == "Running"


async def test_a_gpu_with_an_xid_leaves_allocatable_fails_who_used_it_and_comes_back() -> None:
    async with world() as w:
        await begin(w, "nodes: [{do: xid, names: [a-02], code: 79, gpu: 2, at: 10s, for: 30s}]")
        for name, gpus in (("first", 2), ("second", 4)):
            limits = {"resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}
            await w.pod(name, "a-02", {RUN_TIME: "100s"}, containers=[{"name": "c", "image": "i", **limits}])
        await asyncio.sleep(15)
        node = await w.client.get(NODES, "a-02")
        assert node["status"]["allocatable"]["nvidia.com/gpu"] == "7"
        assert node["status"]["capacity"]["nvidia.com/gpu"] == "8"
        condition = get_condition(node, "GPUProblem") or {}
        assert (condition["status"], condition["reason"]) == ("True", "XidCriticalError")
        assert condition["message"] == "GPU 2: Xid 79, GPU has fallen off the bus"
        assert condition_is_true(node, "Ready")
        (event,) = [e for e in (await w.client.list(EVENTS, "default")).items if e["reason"] == "XidCriticalError"]
        assert (event["involvedObject"]["name"], event["type"]) == ("a-02", "Warning")
        assert (await w.get("first"))["status"]["phase"] == "Running"
        assert (await w.get("second"))["status"]["phase"] == "Failed"
        await asyncio.sleep(30)
        node = await w.client.get(NODES, "a-02")
        assert node["status"]["allocatable"]["nvidia.com/gpu"] == "8"
        assert (get_condition(node, "GPUProblem") or {})["reason"] == "GPUsHealthy"


async def test_an_application_error_takes_no_gpu_out_of_service() -> None:
    async with world() as w:
        await begin(w, "nodes: [{do: xid, names: [a-02], code: 31, at: 1s}]")
        await asyncio.sleep(5)
        node = await w.client.get(NODES, "a-02")
        assert node["status"]["allocatable"]["nvidia.com/gpu"] == "8"
        assert get_condition(node, "GPUProblem") is None


async def test_a_drain_cordons_evicts_and_ends() -> None:
    async with world() as w:
        await begin(w, "nodes: [{do: drain, names: [b-0*], at: 10s, for: 60s}]")
        await w.pod("p", "b-01", {RUN_TIME: "1000s"}, terminationGracePeriodSeconds=1)
        await asyncio.sleep(20)
        assert (await w.client.get(NODES, "b-00"))["spec"].get("unschedulable") is True
        assert [p for p in (await w.client.list(PODS)).items if p["spec"]["nodeName"] == "b-01"] == []
        await asyncio.sleep(60)
        assert "unschedulable" not in (await w.client.get(NODES, "b-00"))["spec"]


async def test_slow_status_does_not_hold_up_other_nodes() -> None:
    async with world() as w:
        await begin(w, "nodes: [{do: slowStatus, pools: [a], delay: 'uniform(10s, 11s)'}]")
        for i in range(20):
            await w.pod(f"slow{i}", "a-00", {RUN_TIME: "500s"})
        await w.pod("quick", "b-00", {RUN_TIME: "500s"})
        await w.until_phase("quick", "Running", timeout=2)
        assert (await w.get("slow0")).get("status", {}).get("phase") == "Pending"
        await asyncio.sleep(13)
        assert {(await w.get(f"slow{i}"))["status"]["phase"] for i in range(20)} == {"Running"}


async def test_images_that_cannot_be_pulled_come_after_a_while_or_never() -> None:
    async with world() as w:
        late = "{names: [late], imagePullError: 15s, imagePull: 3s}"
        await begin(w, f"pods: [{{images: ['*broken*'], imagePullError: forever}}, {late}]")
        await w.pod("never", "a-00", containers=[{"name": "c", "image": "registry.example/broken:1"}])
        began = asyncio.get_running_loop().time()
        await w.pod("late", "a-00")
        await asyncio.sleep(1.5)
        assert waiting(await w.get("late")) == "ErrImagePull"
        await asyncio.sleep(1.5)
        assert waiting(await w.get("late")) == "ImagePullBackOff"
        pod = await w.until_phase("late", "Running")
        assert asyncio.get_running_loop().time() - began == pytest.approx(1 + 10 + 20 + 3, abs=0.2)
        assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
        await asyncio.sleep(1000)
        never = await w.get("never")
        assert (never["status"]["phase"], waiting(never)) == ("Pending", "ImagePullBackOff")


async def test_crash_loops_oom_readiness_and_start_delays() -> None:
    async with world() as w:
        rules = """\
pods:
- {labels: {app: oom}, failAfter: 5s, failTimes: 2, exitReason: OOMKilled}
- {names: [slow], startDelay: 20s, readyAfter: 10s}
"""
        await begin(w, rules)
        await w.pod("slow", "a-00", {RUN_TIME: "500s"})
        pod: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "oom", "namespace": "default", "labels": {"app": "oom"}},
            "spec": {"containers": [{"name": "c", "image": "i"}], "nodeName": "a-00"},
        }
        await w.client.create(PODS, pod)
        await asyncio.sleep(8)
        (container,) = (await w.get("oom"))["status"]["containerStatuses"]
        ended = container["lastState"]["terminated"]
        assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)
        assert (await w.get("slow"))["status"]["phase"] == "Pending"
        await asyncio.sleep(14)
        slow = await w.get("slow")
        assert (slow["status"]["phase"], condition_is_true(slow, "Ready")) == ("Running", False)
        await asyncio.sleep(12)
        assert condition_is_true(await w.get("slow"), "Ready")
        await asyncio.sleep(200)
        (container,) = (await w.get("oom"))["status"]["containerStatuses"]
        assert (container["restartCount"], container["ready"]) == (2, True)


async def test_a_pods_own_words_and_probes_count() -> None:
    async with world() as w:
        await begin(w, "pods: [{failAfter: 1s, readyAfter: 30s}]")
        probe = {"initialDelaySeconds": 20, "tcpSocket": {"port": 80}}
        own = {FAIL_AFTER: "100s", READY_AFTER: "5s", RUN_TIME: "500s"}
        await w.pod("own", "a-00", own, containers=[{"name": "c", "image": "i", "readinessProbe": probe}])
        await asyncio.sleep(8)
        assert condition_is_true(await w.get("own"), "Ready")
    async with world() as w:
        await begin(w, "")
        await w.pod("p", "a-00", {RUN_TIME: "50s"}, containers=[{"name": "c", "image": "i", "readinessProbe": probe}])
        await asyncio.sleep(20)
        assert not condition_is_true(await w.get("p"), "Ready")
        await asyncio.sleep(2)
        assert condition_is_true(await w.get("p"), "Ready")


async def _moments(seed: int) -> list[str]:
    async with world() as w:
        text = (
            HEAD.replace("7", str(seed))
            + "nodes: [{do: notReady, share: 0.5, every: exponential(20s), for: 'uniform(1, 9)'}]"
        )
        made = SimulatedNodes(w.client, w.env, parse_fleet(FLEET).nodes, scenario=parse_scenario(text))
        w.spawn(made.run())
        await asyncio.sleep(120)
        nodes = (await w.client.list(NODES)).items
        return [str(parse_time((get_condition(n, "Ready") or {})["lastTransitionTime"])) for n in nodes]


async def test_the_same_seed_brings_the_same() -> None:
    first = await _moments(1)
    start = asyncio.get_running_loop().time()
    second = await _moments(1)
    assert [float(b) - start for b in second] == pytest.approx([float(a) for a in first], abs=1.1)
    assert len(set(first)) > 2


@pytest.mark.parametrize(
    ("text", "field", "says"),
    [
        ("nodes: [{do: dance}]", "nodes[0].do", "use one of fail"),
        ("nodes: [{do: xid}]", "nodes[0].code", "whole number"),
        ("nodes: [{do: slowStatus}]", "nodes[0].delay", "duration"),
        ("nodes: [{do: fail, code: 3}]", "nodes[0].code", "known fields are"),
        ("nodes: [{do: fail, every: 3s}]", "nodes[0].every", "for: 30s"),
        ("nodes: [{do: fail, share: 2}]", "nodes[0].share", "0.1 is one of ten"),
        ("nodes: [{do: fail, at: soon}]", "nodes[0].at", "lognormal"),
        ("pods: [{labels: {a: b}}]", "pods[0]", "startDelay"),
        ("pods: [{exitCode: 999}]", "pods[0].exitCode", "0 to 255"),
        ("pods: [{imagePullError: often}]", "pods[0].imagePullError", "lognormal"),
    ],
)
def test_errors_name_the_field_and_the_remedy(text: str, field: str, says: str) -> None:
    with pytest.raises(FleetError) as caught:
        parse_scenario(HEAD + text, "s.yaml")
    assert (caught.value.file, caught.value.field) == ("s.yaml", field)
    assert says in caught.value.remedy
