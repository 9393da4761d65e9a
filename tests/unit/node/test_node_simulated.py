"""Simulated nodes against the real API server, under virtual time."""

from __future__ import annotations

import asyncio

import pytest
from node_world import World, world

from glebe.kube.clock import parse_time
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object, condition_is_true
from glebe.kube.resources import LEASES, NODES, PODS
from glebe.node.fleet import parse_fleet
from glebe.node.presence import heartbeat_interval
from glebe.node.simulated.nodes import SimulatedNodes
from glebe.node.simulated.plan import EXIT_CODE, INIT_TIME, RUN_TIME, STOP_TIME

FLEET = """\
apiVersion: glebe.dev/v1alpha1
kind: Fleet
pools: [{name: a, count: 2, gpu: {model: h200, count: 8}, startDelay: 1s, runTime: 60s}]
"""
SPECS = parse_fleet(FLEET).nodes


async def begin(w: World) -> SimulatedNodes:
    nodes = SimulatedNodes(w.client, w.env, SPECS)
    w.spawn(nodes.run())
    await nodes.wait_registered()
    return nodes


def ended(pod: Object) -> dict[str, object]:
    return dict(pod["status"]["containerStatuses"][0]["state"]["terminated"])


async def test_nodes_register_and_beat() -> None:
    async with world() as w:
        await begin(w)
        nodes = await w.client.list(NODES)
        assert [n["metadata"]["name"] for n in nodes.items] == ["a-00", "a-01"]
        assert nodes.items[0]["status"]["allocatable"]["nvidia.com/gpu"] == "8"
        assert all(condition_is_true(n, "Ready") for n in nodes.items)
        before = await w.client.get(LEASES, "a-00", "kube-node-lease")
        assert before["spec"]["leaseDurationSeconds"] == 40
        await asyncio.sleep(25)
        after = await w.client.get(LEASES, "a-00", "kube-node-lease")
        assert parse_time(after["spec"]["renewTime"]) - parse_time(before["spec"]["renewTime"]) == 20


async def test_pod_runs_for_its_time_with_two_status_writes() -> None:
    async with world() as w:
        await begin(w)
        made = await w.pod("p", "a-00", {RUN_TIME: "30s"})
        pod = await w.until_phase("p", "Succeeded")
        assert ended(pod)["exitCode"] == 0
        begun, done = parse_time(str(ended(pod)["startedAt"])), parse_time(str(ended(pod)["finishedAt"]))
        assert done - begun == 30
        assert begun - parse_time(made["metadata"]["creationTimestamp"]) == 1
        assert pod["status"]["hostIP"].startswith("10.")


async def test_failing_pod_and_logs() -> None:
    async with world() as w:
        nodes = await begin(w)
        await w.pod("p", "a-00", {RUN_TIME: "3s", EXIT_CODE: "7"})
        pod = await w.until_phase("p", "Running")
        text = b"".join([chunk async for chunk in nodes.logs(pod, "c", follow=True)])
        assert b"[simulated] container c of pod p on node a-00" in text
        assert b"exited with code 7" in text
        assert ended(await w.until_phase("p", "Failed"))["exitCode"] == 7


async def test_deletion_ends_a_running_pod() -> None:
    async with world() as w:
        nodes = await begin(w)
        await w.pod("p", "a-00")
        await w.until_phase("p", "Running")
        await w.client.delete(PODS, "p", "default")

        async def gone() -> bool:
            try:
                await w.get("p")
            except ApiError:
                return True
            return False

        await w.until(gone)
        assert nodes.running() == []


async def test_a_restarted_process_continues_running_pods() -> None:
    async with world() as w:
        nodes = SimulatedNodes(w.client, w.env, SPECS)
        task = w.spawn(nodes.run())
        await nodes.wait_registered()
        await w.pod("p", "a-00", {RUN_TIME: "100s"})
        await w.until_phase("p", "Running")
        await w.stop(task)
        await asyncio.sleep(50)
        await begin(w)
        pod = await w.until_phase("p", "Succeeded")
        end = ended(pod)
        assert parse_time(str(end["finishedAt"])) - parse_time(str(end["startedAt"])) == 100
        assert w.env.clock.now() - parse_time(str(end["finishedAt"])) < 1.1


async def test_injected_pod_failure() -> None:
    async with world() as w:
        nodes = await begin(w)
        await w.pod("p", "a-00")
        await w.until_phase("p", "Running")
        assert nodes.fail_pod("default", "p", exit_code=9)
        assert ended(await w.until_phase("p", "Failed", timeout=1))["exitCode"] == 9
        assert not nodes.fail_pod("default", "p")


async def test_failed_node_is_silent_and_loses_its_pods() -> None:
    async with world() as w:
        nodes = await begin(w)
        await w.pod("p", "a-00", {RUN_TIME: "30s"})
        await w.pod("q", "a-01", {RUN_TIME: "30s"})
        await w.until_phase("p", "Running")
        nodes.fail_node("a-00")
        await w.until_phase("q", "Succeeded")
        lease = await w.client.get(LEASES, "a-00", "kube-node-lease")
        assert w.env.clock.now() - parse_time(lease["spec"]["renewTime"]) > 20
        assert (await w.get("p"))["status"]["phase"] == "Running"
        nodes.recover_node("a-00")
        pod = await w.until_phase("p", "Failed", timeout=2)
        assert pod["status"]["reason"] == "NodeLost"
        assert condition_is_true(pod, "DisruptionTarget")


async def test_node_that_was_only_cut_off_reports_the_true_end() -> None:
    async with world() as w:
        nodes = await begin(w)
        await w.pod("p", "a-00", {RUN_TIME: "30s"})
        begun = await w.until_phase("p", "Running")
        nodes.fail_node("a-00", crash=False)
        await asyncio.sleep(100)
        nodes.recover_node("a-00")
        pod = await w.until_phase("p", "Succeeded", timeout=2)
        assert parse_time(str(ended(pod)["finishedAt"])) - parse_time(begun["status"]["startTime"]) == 30


async def test_ready_is_said_again_when_somebody_took_it_away() -> None:
    async with world() as w:
        await begin(w)
        node = await w.client.get(NODES, "a-00")
        conditions = [{**c, "status": "Unknown"} if c["type"] == "Ready" else c for c in node["status"]["conditions"]]
        await w.client.patch(NODES, "a-00", {"status": {"conditions": conditions}}, subresource="status")

        async def ready() -> bool:
            return condition_is_true(await w.client.get(NODES, "a-00"), "Ready")

        assert not await ready()
        await w.until(ready, timeout=5)


async def test_a_pod_that_was_called_not_ready_is_ready_when_its_node_is_back() -> None:
    async with world() as w:
        nodes = await begin(w)
        for name in ("p", "q"):
            await w.pod(name, name.replace("p", "a-00").replace("q", "a-01"), {RUN_TIME: "300s"})
            await w.until_phase(name, "Running")
        nodes.fail_node("a-00", crash=False)
        for name in ("p", "q"):
            patch = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
            await w.client.patch(PODS, name, patch, "default", kind="strategic", subresource="status")
        await asyncio.sleep(5)
        assert not condition_is_true(await w.get("p"), "Ready")
        assert condition_is_true(await w.get("q"), "Ready")
        nodes.recover_node("a-00")
        await asyncio.sleep(2)
        assert condition_is_true(await w.get("p"), "Ready")


async def test_slow_status_comes_late() -> None:
    async with world() as w:
        nodes = await begin(w)
        nodes.delay_status("a-00", 20)
        await w.pod("p", "a-00", {RUN_TIME: "60s"})
        await asyncio.sleep(15)
        assert (await w.get("p"))["status"]["phase"] == "Pending"
        await w.until_phase("p", "Running", timeout=10)


async def test_unknown_node_is_an_error() -> None:
    async with world() as w:
        nodes = await begin(w)
        with pytest.raises(KeyError, match="no simulated node"):
            nodes.fail_node("z")


def test_heartbeats_of_large_fleets_are_slower_within_the_grace_period() -> None:
    assert heartbeat_interval(16) == 10.0
    assert heartbeat_interval(1000) == 10.0
    assert heartbeat_interval(1500) == 15.0
    assert heartbeat_interval(2500) == 25.0
    assert heartbeat_interval(10_000) == 30.0


async def test_a_readiness_gate_opens_and_shuts() -> None:
    async with world() as w:
        await begin(w)
        await w.pod("p", "a-00", readinessGates=[{"conditionType": "x/open"}])
        pod = await w.until_phase("p", "Running")
        assert not condition_is_true(pod, "Ready")
        for value in ("True", "False", "True"):
            condition = {"type": "x/open", "status": value}
            patch = {"status": {"conditions": [condition]}}
            await w.client.patch(PODS, "p", patch, "default", kind="strategic", subresource="status")
            await asyncio.sleep(1)
            assert condition_is_true(await w.get("p"), "Ready") is (value == "True")


async def test_a_resize_is_done_and_accounted_for() -> None:
    async with world() as w:
        await begin(w)
        asked = {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}
        await w.pod("p", "a-00", containers=[{"name": "c", "image": "i", "resources": asked}])
        pod = await w.until_phase("p", "Running")
        assert pod["status"]["observedGeneration"] == pod["metadata"]["generation"] == 1
        more = {"requests": {"cpu": "1500m"}, "limits": {"cpu": "2"}}
        patch = {"spec": {"containers": [{"name": "c", "resources": more}]}}
        await w.client.patch(PODS, "p", patch, "default", kind="strategic", subresource="resize")
        await asyncio.sleep(1)
        pod = await w.get("p")
        assert pod["status"]["observedGeneration"] == pod["metadata"]["generation"] == 2
        (container,) = pod["status"]["containerStatuses"]
        assert container["resources"] == more
        assert container["allocatedResources"] == more["requests"]


async def test_a_pod_takes_its_time_to_initialize_and_to_stop() -> None:
    async with world() as w:
        await begin(w)
        notes = {INIT_TIME: "20s", STOP_TIME: "10s"}
        await w.pod("p", "a-00", notes, initContainers=[{"name": "i", "image": "i"}], restartPolicy="Always")
        await asyncio.sleep(10)
        status = (await w.get("p"))["status"]
        assert status["phase"] == "Pending"
        assert "running" in status["initContainerStatuses"][0]["state"]
        await w.until_phase("p", "Running")
        await w.client.delete(PODS, "p", "default", grace_period=30)
        await asyncio.sleep(9)
        assert (await w.get("p"))["status"]["phase"] == "Running"
        await asyncio.sleep(2)
        with pytest.raises(ApiError):
            await w.get("p")
