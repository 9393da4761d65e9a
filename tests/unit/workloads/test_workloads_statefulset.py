"""StatefulSets on the real API server: names, order, claims, updates, history."""

from __future__ import annotations

import asyncio
from typing import Any

from workloads_stage import Stage, events, gone, names, stage, until

from glebe.kube.client import Client
from glebe.kube.objects import Object
from glebe.kube.resources import CONTROLLER_REVISIONS, PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS
from glebe.workloads.garbage import collector
from glebe.workloads.statefulset import controller

ONE = (controller.build,)


def make(name: str = "web", image: str = "one", labels: dict[str, str] | None = None, **spec: Any) -> Object:
    labels = labels or {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": image}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": 3, "serviceName": "svc", "selector": {"matchLabels": labels}, "template": template, **spec,
        },
    }  # fmt: skip


def claim_template(name: str = "data") -> Object:
    return {
        "metadata": {"name": name, "labels": {"own": "label"}},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }


async def status(client: Client, name: str = "web") -> Object:
    return (await client.get(STATEFUL_SETS, name, "default")).get("status") or {}


async def settled(client: Client, name: str = "web", replicas: int = 3) -> Object:
    async def whole() -> Object | None:
        owner = await client.get(STATEFUL_SETS, name, "default")
        s = owner.get("status") or {}
        counts = [s.get(f, 0) for f in ("replicas", "readyReplicas", "availableReplicas", "updatedReplicas")]
        done = counts == [replicas] * 4 and s["observedGeneration"] == owner["metadata"]["generation"]
        return s if done and s["currentRevision"] == s["updateRevision"] else None

    return await until(whole)  # type: ignore[no-any-return]


async def change_image(client: Client, image: str, name: str = "web") -> None:
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": image}]}}}}
    await client.patch(STATEFUL_SETS, name, patch, "default", kind="strategic")


async def images(client: Client) -> dict[str, str]:
    return {p["metadata"]["name"]: p["spec"]["containers"][0]["image"] for p in (await client.list(PODS)).items}


async def test_pods_come_one_after_the_other_with_names_and_labels() -> None:
    async with stage(ONE) as world:
        await world.root.create(STATEFUL_SETS, make())
        last = await settled(world.root)
        assert world.history == [("create", f"web-{i}") for i in range(3)]
        pod = await world.root.get(PODS, "web-1", "default")
        assert pod["metadata"]["labels"] == {
            "app": "web",
            "apps.kubernetes.io/pod-index": "1",
            "controller-revision-hash": last["updateRevision"],
            "statefulset.kubernetes.io/pod-name": "web-1",
        }
        assert (pod["spec"]["hostname"], pod["spec"]["subdomain"]) == ("web-1", "svc")
        assert last["collisionCount"] == 0
        assert ("SuccessfulCreate", "Create Pod web-0 in StatefulSet web successful") in await events(world.root)


async def test_nothing_goes_on_while_a_pod_is_not_ready() -> None:
    async with stage(ONE) as world:
        world.ready = False
        await world.root.create(STATEFUL_SETS, make())
        await asyncio.sleep(60)
        assert await names(world.root) == ["web-0"]


async def test_parallel_does_not_wait() -> None:
    async with stage(ONE) as world:
        world.ready = False
        await world.root.create(STATEFUL_SETS, make(podManagementPolicy="Parallel"))
        await until(lambda: _is(world, ["web-0", "web-1", "web-2"]))
        await world.root.patch(STATEFUL_SETS, "web", {"spec": {"replicas": 1}}, "default")
        await until(lambda: _is(world, ["web-0"]))


async def _is(world: Stage, expected: list[str]) -> bool:
    return await names(world.root) == expected


async def test_scaling_goes_down_from_the_top_and_stops_at_a_pod_that_is_not_ready() -> None:
    async with stage(ONE) as world:
        await world.root.create(STATEFUL_SETS, make())
        await settled(world.root)
        await world.root.patch(STATEFUL_SETS, "web", {"spec": {"replicas": 1}}, "default", subresource="scale")
        await settled(world.root, replicas=1)
        assert world.history[3:] == [("delete", "web-2"), ("delete", "web-1")]


async def test_ordinals_start_where_they_are_told() -> None:
    async with stage(ONE) as world:
        await world.root.create(STATEFUL_SETS, make(replicas=2, ordinals={"start": 5}))
        await settled(world.root, replicas=2)
        assert await names(world.root) == ["web-5", "web-6"]
        await world.root.patch(STATEFUL_SETS, "web", {"spec": {"ordinals": {"start": 6}}}, "default")
        await until(lambda: _is(world, ["web-6", "web-7"]))


async def test_a_rolling_update_goes_from_the_top_one_at_a_time() -> None:
    async with stage(ONE) as world:
        await world.root.create(STATEFUL_SETS, make())
        first = await settled(world.root)
        await change_image(world.root, "two")
        second = await settled(world.root)
        assert world.history[3:] == [(v, f"web-{i}") for i in (2, 1, 0) for v in ("delete", "create")]
        assert set((await images(world.root)).values()) == {"two"}
        await change_image(world.root, "one")
        third = await settled(world.root)
        assert third["currentRevision"] == first["currentRevision"] != second["currentRevision"]
        numbers = {r["metadata"]["name"]: r["revision"] for r in (await world.root.list(CONTROLLER_REVISIONS)).items}
        assert numbers == {second["currentRevision"]: 2, first["currentRevision"]: 3}


async def test_a_partition_keeps_the_first_pods_even_when_they_are_made_anew() -> None:
    async with stage(ONE) as world:
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
        await world.root.create(STATEFUL_SETS, make(updateStrategy=strategy))
        await settled(world.root)
        await change_image(world.root, "two")
        new = {"web-0": "one", "web-1": "one", "web-2": "two"}

        async def canary() -> bool:
            s = await status(world.root)
            return await images(world.root) == new and (s.get("updatedReplicas"), s["currentReplicas"]) == (1, 2)

        await until(canary)
        for name in new:
            await world.root.delete(PODS, name, "default")
        await asyncio.sleep(30)
        assert await images(world.root) == new
        lower = {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}}
        await world.root.patch(STATEFUL_SETS, "web", lower, "default")
        await settled(world.root)
        assert set((await images(world.root)).values()) == {"two"}


async def test_max_unavailable_updates_several_at_once() -> None:
    async with stage(ONE) as world:
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": 2}}
        body = make(replicas=5, podManagementPolicy="Parallel", updateStrategy=strategy)
        await world.root.create(STATEFUL_SETS, body)
        await settled(world.root, replicas=5)
        before = len(world.history)
        await change_image(world.root, "two")
        await settled(world.root, replicas=5)
        assert {name for verb, name in world.history[before : before + 2] if verb == "delete"} == {"web-4", "web-3"}
        missing = most = 0
        for verb, _ in world.history[before:]:
            missing += 1 if verb == "delete" else -1
            most = max(most, missing)
        assert most == 2


async def test_on_delete_waits_for_the_user() -> None:
    async with stage(ONE) as world:
        await world.root.create(STATEFUL_SETS, make(updateStrategy={"type": "OnDelete"}))
        await until(lambda: _ready(world, 3))
        await change_image(world.root, "two")
        await asyncio.sleep(30)
        assert set((await images(world.root)).values()) == {"one"}
        await world.root.delete(PODS, "web-1", "default")
        await until(lambda: _ready(world, 3))
        assert (await images(world.root))["web-1"] == "two"


async def _ready(world: Stage, count: int) -> bool:
    await asyncio.sleep(3)
    return (await status(world.root)).get("readyReplicas") == count


async def test_min_ready_seconds_hold_the_next_pod_back() -> None:
    async with stage(ONE) as world:
        await world.root.create(STATEFUL_SETS, make(replicas=2, minReadySeconds=30))
        await asyncio.sleep(20)
        s = await status(world.root)
        assert (s["readyReplicas"], s["availableReplicas"]) == (1, 0)
        assert await names(world.root) == ["web-0"]
        await asyncio.sleep(15)
        assert await names(world.root) == ["web-0", "web-1"]


async def test_a_failed_pod_is_made_anew_under_its_name() -> None:
    async with stage(ONE) as world:
        await world.root.create(STATEFUL_SETS, make())
        await settled(world.root)
        old = await world.root.get(PODS, "web-1", "default")
        world.fails.add("web-1")
        await until(lambda: _happened(world, ("delete", "web-1")))
        world.fails.clear()
        await settled(world.root)
        assert (await world.root.get(PODS, "web-1", "default"))["metadata"]["uid"] != old["metadata"]["uid"]
        assert await names(world.root) == ["web-0", "web-1", "web-2"]


async def _happened(world: Stage, what: tuple[str, str]) -> bool:
    return what in world.history


async def test_claims_come_first_and_outlive_the_set() -> None:
    async with stage((controller.build, collector.build)) as world:
        await world.root.create(STATEFUL_SETS, make(replicas=2, volumeClaimTemplates=[claim_template()]))
        await settled(world.root, replicas=2)
        assert await names(world.root, PERSISTENT_VOLUME_CLAIMS) == ["data-web-0", "data-web-1"]
        claim = await world.root.get(PERSISTENT_VOLUME_CLAIMS, "data-web-0", "default")
        assert claim["metadata"]["labels"] == {"own": "label", "app": "web"}
        assert "ownerReferences" not in claim["metadata"]
        pod = await world.root.get(PODS, "web-0", "default")
        assert {"name": "data", "persistentVolumeClaim": {"claimName": "data-web-0"}} in pod["spec"]["volumes"]
        said = await events(world.root)
        assert ("SuccessfulCreate", "Create Claim data-web-0 Pod web-0 in StatefulSet web success") in said
        await world.root.delete(STATEFUL_SETS, "web", "default")
        await until(lambda: _is(world, []))
        await asyncio.sleep(10)
        assert await names(world.root, PERSISTENT_VOLUME_CLAIMS) == ["data-web-0", "data-web-1"]


async def test_claims_go_with_the_set_and_with_its_size_where_the_policy_says_so() -> None:
    async with stage((controller.build, collector.build)) as world:
        policy = {"whenDeleted": "Delete", "whenScaled": "Delete"}
        body = make(volumeClaimTemplates=[claim_template()], persistentVolumeClaimRetentionPolicy=policy)
        await world.root.create(STATEFUL_SETS, body)
        await settled(world.root)
        await world.root.patch(STATEFUL_SETS, "web", {"spec": {"replicas": 1}}, "default")

        async def one() -> bool:
            claims = (await world.root.list(PERSISTENT_VOLUME_CLAIMS)).items
            alive = [c["metadata"]["name"] for c in claims if "deletionTimestamp" not in c["metadata"]]
            return alive == ["data-web-0"]

        await until(one)
        await _take_protection_off(world.root)
        await world.root.delete(STATEFUL_SETS, "web", "default")

        async def none() -> bool:
            await _take_protection_off(world.root)
            return await names(world.root, PERSISTENT_VOLUME_CLAIMS) == []

        await until(none)


async def _take_protection_off(client: Client) -> None:
    for claim in (await client.list(PERSISTENT_VOLUME_CLAIMS)).items:
        if "deletionTimestamp" in claim["metadata"] and claim["metadata"].get("finalizers"):
            patch = {"metadata": {"finalizers": None}}
            await client.patch(PERSISTENT_VOLUME_CLAIMS, claim["metadata"]["name"], patch, "default")


async def test_orphans_are_adopted_and_strays_released() -> None:
    async with stage((controller.build, collector.build)) as world:
        await world.root.create(STATEFUL_SETS, make())
        await settled(world.root)
        uids = {p["metadata"]["name"]: p["metadata"]["uid"] for p in (await world.root.list(PODS)).items}
        await world.root.delete(STATEFUL_SETS, "web", "default", propagation="Orphan")
        await until(lambda: gone(world.root, STATEFUL_SETS, "web"))
        await world.root.create(STATEFUL_SETS, make())
        await settled(world.root)
        assert {p["metadata"]["name"]: p["metadata"]["uid"] for p in (await world.root.list(PODS)).items} == uids
        revisions = (await world.root.list(CONTROLLER_REVISIONS)).items
        owner = await world.root.get(STATEFUL_SETS, "web", "default")
        assert [r["metadata"]["ownerReferences"][0]["uid"] for r in revisions] == [owner["metadata"]["uid"]]
        patch = {"metadata": {"labels": {"app": "other"}}}
        await world.root.patch(PODS, "web-2", patch, "default")

        async def released() -> bool:
            return not (await world.root.get(PODS, "web-2", "default"))["metadata"].get("ownerReferences")

        await until(released)


async def test_history_is_kept_to_its_limit() -> None:
    async with stage(ONE) as world:
        await world.root.create(STATEFUL_SETS, make(replicas=1, revisionHistoryLimit=2))
        for image in ("two", "three", "four", "five"):
            await settled(world.root, replicas=1)
            await change_image(world.root, image)
        await settled(world.root, replicas=1)
        await asyncio.sleep(1)
        assert sorted(r["revision"] for r in (await world.root.list(CONTROLLER_REVISIONS)).items) == [3, 4, 5]


async def test_sets_of_two_clusters_do_not_know_of_each_other() -> None:
    async with stage(ONE, "a", "b") as world:
        await world["a"].create(STATEFUL_SETS, make())
        await world["b"].create(STATEFUL_SETS, make(image="other", replicas=1))
        await settled(world["a"])
        await settled(world["b"], replicas=1)
        assert await names(world["a"]) == ["web-0", "web-1", "web-2"]
        assert await names(world["b"]) == ["web-0"]
        assert await names(world.root) == []
        await change_image(world["b"], "newer")
        await settled(world["b"], replicas=1)
        assert set((await images(world["a"])).values()) == {"one"}


async def test_a_name_that_somebody_else_has_is_waited_for_and_not_fought_for() -> None:
    async with stage(ONE) as world:
        stranger = {"metadata": {"name": "web-0"}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
        await world.root.create(PODS, stranger, "default")
        made = controller.build(world.every, world.informers, world.env)
        run = asyncio.create_task(made.run())
        await world.root.create(STATEFUL_SETS, make(replicas=1))
        await asyncio.sleep(120)
        assert made.failed < 40
        await world.root.delete(PODS, "web-0", "default")
        await settled(world.root, replicas=1)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)


async def test_a_pod_waits_for_a_claim_that_is_on_its_way_out() -> None:
    async with stage(ONE) as world:
        claim = {**claim_template(), "metadata": {"name": "data-web-0", "finalizers": ["example.com/hold"]}}
        await world.root.create(PERSISTENT_VOLUME_CLAIMS, claim, "default")
        await world.root.delete(PERSISTENT_VOLUME_CLAIMS, "data-web-0", "default")
        await world.root.create(STATEFUL_SETS, make(replicas=1, volumeClaimTemplates=[claim_template()]))
        await asyncio.sleep(20)
        assert await names(world.root) == []
        why = "Create Pod web-0 in StatefulSet web failed error: pvc data-web-0 is being deleted"
        assert ("FailedCreate", why) in await events(world.root)
        await _take_protection_off(world.root)
        await settled(world.root, replicas=1)
