"""DaemonSets on the real API server: where pods go, updates, failures, history."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from workloads_stage import Stage, events, names, stage, until

from glebe.kube.client import Client
from glebe.kube.clock import Env, LoopClock, format_time
from glebe.kube.controller import Controller
from glebe.kube.informer import Informers, InformersView
from glebe.kube.objects import Object
from glebe.kube.resources import CONTROLLER_REVISIONS, DAEMON_SETS, NODES, PODS
from glebe.workloads import ROOT
from glebe.workloads.binder import controller as binder
from glebe.workloads.daemonset import controller
from glebe.workloads.daemonset.backoff import FailedPods
from glebe.workloads.daemonset.facts import Facts
from glebe.workloads.daemonset.placing import Placing, target_of, tolerations_of
from glebe.workloads.daemonset.reconcile import reconcile
from glebe.workloads.daemonset.template import build_pod

ONE = (controller.build,)
NOW = LoopClock.EPOCH


def make(name: str = "agent", image: str = "one", pod: Object | None = None, **spec: Any) -> Object:
    labels = {"app": name}
    inner = {"containers": [{"name": "main", "image": image}], **(pod or {})}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": inner},
            **spec,
        },
    }


def node(name: str, labels: dict[str, str] | None = None, taints: Sequence[Object] = (), **spec: Any) -> Object:
    meta = {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}}
    return {"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": {"taints": list(taints), **spec}}


async def nodes(client: Client, count: int, first: int = 0) -> None:
    """Nodes that are ready: new ones are tainted until somebody has seen that."""
    for i in range(first, first + count):
        await client.create(NODES, node(f"n{i}"))
        await client.patch(NODES, f"n{i}", {"spec": {"taints": None}})


async def pods(client: Client) -> dict[str, Object]:
    """Living pods by node."""
    items = (await client.list(PODS, "default")).items
    return {target_of(p): p for p in items if "deletionTimestamp" not in p["metadata"]}


async def places(client: Client) -> list[str]:
    return sorted(await pods(client))


async def images(client: Client) -> list[str]:
    return sorted(p["spec"]["containers"][0]["image"] for p in (await client.list(PODS, "default")).items)


async def settled(client: Client, count: int, name: str = "agent") -> Object:
    async def whole() -> Object | None:
        owner = await client.get(DAEMON_SETS, name, "default")
        s = owner.get("status") or {}
        fields = ("desiredNumberScheduled", "currentNumberScheduled", "updatedNumberScheduled", "numberAvailable")
        done = [s.get(f, 0) for f in fields] == [count] * 4
        return s if done and s.get("observedGeneration") == owner["metadata"]["generation"] else None

    return await until(whole)  # type: ignore[no-any-return]


async def change_image(client: Client, image: str) -> None:
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": image}]}}}}
    await client.patch(DAEMON_SETS, "agent", patch, "default", kind="strategic")


async def test_every_node_has_one_pod_pinned_to_it() -> None:
    async with stage(ONE) as world:
        await nodes(world.root, 3)
        await world.root.create(DAEMON_SETS, make())
        last = await settled(world.root, 3)
        assert await places(world.root) == ["n0", "n1", "n2"]
        pod = (await pods(world.root))["n1"]
        assert {t["key"] for t in pod["spec"]["tolerations"]} >= {
            "node.kubernetes.io/not-ready",
            "node.kubernetes.io/unreachable",
            "node.kubernetes.io/unschedulable",
        }
        (revision,) = (await world.root.list(CONTROLLER_REVISIONS)).items
        assert pod["metadata"]["labels"]["controller-revision-hash"] == revision["metadata"]["name"].split("-")[-1]
        assert (last["numberReady"], last["numberMisscheduled"]) == (3, 0)
        await nodes(world.root, 1, first=3)
        await settled(world.root, 4)
        await world.root.delete(PODS, pod["metadata"]["name"], "default")
        await until(lambda: _gone(world, pod))

        async def back() -> bool:
            return await places(world.root) == ["n0", "n1", "n2", "n3"]

        await until(back)
        await settled(world.root, 4)


async def _gone(world: Stage, pod: Object) -> bool:
    return pod["metadata"]["name"] not in await names(world.root)


async def test_the_binder_understands_the_pin() -> None:
    def bind(client: Client, informers: Informers, env: Env) -> Controller:
        own = client.for_cluster("")
        return binder.build(own, InformersView(informers, ROOT, own), env)

    async with stage((controller.build, bind)) as world:
        await nodes(world.root, 3)
        state = {"allocatable": {"pods": "10"}, "conditions": [{"type": "Ready", "status": "True"}]}
        for name in ("n0", "n1", "n2"):
            await world.root.patch(NODES, name, {"status": state}, subresource="status")
        await world.root.create(DAEMON_SETS, make())

        async def bound() -> bool:
            items = (await world.root.list(PODS, "default")).items
            return sorted(p["spec"].get("nodeName", "") for p in items) == ["n0", "n1", "n2"]

        await until(bound)
        for pod in (await world.root.list(PODS, "default")).items:
            assert target_of({"spec": {"affinity": pod["spec"]["affinity"]}}) == pod["spec"]["nodeName"]


async def test_labels_decide_and_may_change() -> None:
    async with stage(ONE) as world:
        await nodes(world.root, 2)
        await world.root.create(DAEMON_SETS, make(pod={"nodeSelector": {"disk": "fast"}}))
        await settled(world.root, 0)
        await world.root.patch(NODES, "n1", {"metadata": {"labels": {"disk": "fast"}}})
        await settled(world.root, 1)
        assert await places(world.root) == ["n1"]
        await world.root.patch(NODES, "n1", {"metadata": {"labels": {"disk": "slow"}}})
        await settled(world.root, 0)
        await until(lambda: _nowhere(world))


async def _nowhere(world: Stage) -> bool:
    return not await names(world.root)


async def test_a_taint_keeps_new_pods_away_and_only_no_execute_drives_old_ones_out() -> None:
    async with stage(ONE) as world:
        await nodes(world.root, 2)
        await world.root.create(DAEMON_SETS, make())
        await settled(world.root, 2)
        taint = {"key": "k", "effect": "NoSchedule"}
        await world.root.patch(NODES, "n0", {"spec": {"taints": [taint]}})

        async def misplaced() -> bool:
            s = (await world.root.get(DAEMON_SETS, "agent", "default"))["status"]
            return (s["desiredNumberScheduled"], s["numberMisscheduled"]) == (1, 1)

        await until(misplaced)
        assert await places(world.root) == ["n0", "n1"]
        await world.root.patch(NODES, "n0", {"spec": {"taints": [{**taint, "effect": "NoExecute"}]}})
        await settled(world.root, 1)
        await asyncio.sleep(2)
        assert await places(world.root) == ["n1"]


async def test_a_rolling_update_replaces_as_many_at_once_as_may_be_unavailable() -> None:
    async with stage(ONE) as world:
        await nodes(world.root, 5)
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "40%"}}
        await world.root.create(DAEMON_SETS, make(updateStrategy=strategy))
        await settled(world.root, 5)
        before = len(world.history)
        await change_image(world.root, "two")
        await settled(world.root, 5)
        assert await images(world.root) == ["two"] * 5
        alive = least = 5
        for verb, _ in world.history[before:]:
            alive += 1 if verb == "create" else -1
            least = min(least, alive)
        assert least == 3


async def test_a_surge_puts_the_new_pod_first() -> None:
    async with stage(ONE) as world:
        await nodes(world.root, 4)
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2, "maxUnavailable": 0}}
        await world.root.create(DAEMON_SETS, make(updateStrategy=strategy))
        await settled(world.root, 4)
        before = len(world.history)
        await change_image(world.root, "two")

        async def done() -> bool:
            return await images(world.root) == ["two"] * 4

        await until(done)
        alive = least = most = 4
        for verb, _ in world.history[before:]:
            alive += 1 if verb == "create" else -1
            least, most = min(least, alive), max(most, alive)
        assert (least, most) == (4, 6)


async def test_on_delete_waits_for_the_user() -> None:
    async with stage(ONE) as world:
        await nodes(world.root, 2)
        await world.root.create(DAEMON_SETS, make(updateStrategy={"type": "OnDelete"}))
        await settled(world.root, 2)
        await change_image(world.root, "two")
        await asyncio.sleep(20)
        assert await images(world.root) == ["one", "one"]
        pod = (await pods(world.root))["n0"]
        await world.root.delete(PODS, pod["metadata"]["name"], "default")
        await asyncio.sleep(20)
        assert await images(world.root) == ["one", "two"]


async def test_a_failed_pod_is_replaced_ever_more_slowly() -> None:
    async with stage(ONE) as world:
        await nodes(world.root, 1)
        await world.root.create(DAEMON_SETS, make())
        await settled(world.root, 1)
        deaths: list[float] = []
        loop = asyncio.get_running_loop()

        async def fail_all() -> None:
            while True:
                for pod in (await world.root.list(PODS, "default")).items:
                    if (pod.get("status") or {}).get("phase") == "Running":
                        deaths.append(loop.time())
                        body = {"status": {"phase": "Failed"}}
                        await world.root.patch(PODS, pod["metadata"]["name"], body, "default", subresource="status")
                await asyncio.sleep(0.1)

        task = asyncio.create_task(fail_all())
        await asyncio.sleep(100)
        task.cancel()
        gaps = [round(b - a) for a, b in itertools.pairwise(deaths)]
        assert 6 <= len(deaths) <= 9
        assert gaps == sorted(gaps)
        assert any(reason == "FailedDaemonPod" for reason, _ in await events(world.root))


async def test_a_roll_back_leaves_pods_of_that_revision_alone() -> None:
    async with stage(ONE) as world:
        await nodes(world.root, 3)
        await world.root.create(DAEMON_SETS, make())
        await settled(world.root, 3)
        uids = {n: p["metadata"]["uid"] for n, p in (await pods(world.root)).items()}
        world.broken.add("bad")  # the update stops at the first node
        await change_image(world.root, "bad")
        await asyncio.sleep(30)
        assert await images(world.root) == ["bad", "one", "one"]
        await change_image(world.root, "one")
        await settled(world.root, 3)
        after = {n: p["metadata"]["uid"] for n, p in (await pods(world.root)).items()}
        assert sum(after[n] == uid for n, uid in uids.items()) == 2
        numbers = sorted(r["revision"] for r in (await world.root.list(CONTROLLER_REVISIONS)).items)
        assert numbers == [2, 3]


async def test_history_is_kept_to_its_limit() -> None:
    async with stage(ONE) as world:
        await nodes(world.root, 1)
        await world.root.create(DAEMON_SETS, make(revisionHistoryLimit=1))
        for image in ("two", "three", "four"):
            await settled(world.root, 1)
            await change_image(world.root, image)
        await settled(world.root, 1)
        await asyncio.sleep(5)
        assert sorted(r["revision"] for r in (await world.root.list(CONTROLLER_REVISIONS)).items) == [3, 4]


async def test_sets_of_two_clusters_see_their_own_nodes() -> None:
    async with stage(ONE, "a", "b") as world:
        await nodes(world["a"], 2)
        await nodes(world["b"], 1)
        await world["a"].create(DAEMON_SETS, make())
        await world["b"].create(DAEMON_SETS, make(image="other"))
        await settled(world["a"], 2)
        await settled(world["b"], 1)
        assert await places(world["a"]) == ["n0", "n1"]
        assert await places(world["b"]) == ["n0"]
        assert await names(world.root) == []


# --- decisions


def test_a_toleration_of_the_template_is_not_doubled() -> None:
    own = {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}
    assert tolerations_of({"tolerations": [own]}).count(own) == 1
    assert len(tolerations_of({})) == 6
    assert len(tolerations_of({"hostNetwork": True})) == 7


@pytest.mark.parametrize(
    ("pod", "fits"),
    [
        ({}, {"a": (True, True), "b": (False, True), "c": (False, False), "d": (True, True)}),
        ({"nodeName": "a"}, {"a": (True, True), "b": (False, False), "c": (False, False), "d": (False, False)}),
        (
            {"tolerations": [{"operator": "Exists"}], "nodeSelector": {"x": "1"}},
            {"a": (False, False), "b": (True, True), "c": (True, True), "d": (False, False)},
        ),
    ],
)
def test_placing(pod: Object, fits: dict[str, tuple[bool, bool]]) -> None:
    fleet = [
        node("a"),
        node("b", {"x": "1"}, [{"key": "k", "effect": "NoSchedule"}]),
        node("c", {"x": "1"}, [{"key": "k", "effect": "NoExecute"}]),
        node("d", taints=[{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}], unschedulable=True),
    ]
    placing = Placing({"spec": pod})
    assert {n["metadata"]["name"]: placing.judge(n) for n in fleet} == fits


def test_back_off_doubles_and_is_forgotten() -> None:
    failed, place = FailedPods(), ("u", 1, "n")
    assert failed.wait(place, 0.0) == 0
    for now, wait in ((0.0, 1.0), (1.0, 2.0), (3.0, 4.0)):
        failed.failed(place, now)
        assert failed.wait(place, now) == wait
    failed.failed(place, 5000.0)
    assert failed.wait(place, 5000.0) == 1.0
    failed.forget(10_000.0)
    assert len(failed) == 0


@given(st.data())
def test_whatever_pods_there_are_the_plan_leads_to_one_updated_pod_for_each_node(data: st.DataObject) -> None:
    """Carrying plans out until there is nothing to do ends with what was asked for, whatever there was before."""
    fleet = [node(f"n{i}") for i in range(data.draw(st.integers(0, 4)))]
    rolling = data.draw(
        st.sampled_from([{"maxUnavailable": 1}, {"maxSurge": 1, "maxUnavailable": 0}, {"maxSurge": "50%"}])
    )
    owner = make(updateStrategy={"type": "RollingUpdate", "rollingUpdate": rolling})
    owner["metadata"]["uid"] = "U"
    alive = [n["metadata"]["name"] for n in fleet]
    there = [_pod(data, owner, i) for i in range(data.draw(st.integers(0, 8)))]
    for _ in range(60):
        plan = reconcile(Facts(owner, fleet, there, "new", NOW))
        if plan.status:
            owner["status"] = plan.status
        if not plan.create and not plan.delete and plan.status is None:
            break
        doomed = [p["metadata"]["name"] for p in plan.delete]
        assert len(set(doomed)) == len(doomed)
        there = [p for p in there if p["metadata"]["name"] not in doomed]
        there = [p for p in there if p["spec"].get("nodeName") in (None, *alive)]  # pods of lost nodes are collected
        for pod in plan.create:
            assert pod["metadata"]["name"] not in [p["metadata"]["name"] for p in there]
            pod["metadata"]["uid"] = pod["metadata"]["name"]
            pod["metadata"]["creationTimestamp"] = format_time(NOW)
            pod["spec"]["nodeName"] = target_of(pod)
            pod["status"] = _status("True", "Running")
            there.append(pod)
        for pod in there:
            if pod["metadata"]["labels"]["controller-revision-hash"] == "new" and pod["status"]["phase"] != "Failed":
                pod["status"] = _status("True", "Running")  # what stays becomes ready some day
    else:
        raise AssertionError("no end of it")
    left = [p for p in there if target_of(p) in {n["metadata"]["name"] for n in fleet}]
    assert sorted(target_of(p) for p in left) == [n["metadata"]["name"] for n in fleet]
    assert all(p["metadata"]["labels"]["controller-revision-hash"] == "new" for p in left)
    assert owner.get("status", {}).get("numberAvailable", 0) == len(fleet)


def _status(ready: str, phase: str) -> Object:
    since = format_time(NOW - 100)
    return {"phase": phase, "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": since}]}


def _pod(data: st.DataObject, owner: Object, number: int) -> Object:
    where = data.draw(st.sampled_from(["n0", "n1", "n2", "gone"]))
    pod = build_pod(owner, where, data.draw(st.sampled_from(["new", "old", "older"])), str(number))
    pod["metadata"] |= {"uid": f"x{number}", "creationTimestamp": format_time(NOW - number)}
    if data.draw(st.booleans()):
        pod["spec"]["nodeName"] = where
    pod["status"] = _status(
        data.draw(st.sampled_from(["True", "False"])), data.draw(st.sampled_from(["Running", "Pending", "Failed"]))
    )
    return pod
