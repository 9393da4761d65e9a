"""Deployments on the real API server, under virtual time; a kubelet that makes pods ready."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from test_workloads_server import until

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store.memory import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env, format_time, parse_time
from glebe.kube.errors import is_conflict, is_not_found
from glebe.kube.informer import Informers
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import EVERY, Object, annotations_of, controller_of, get_condition, labels_of
from glebe.kube.resources import DEPLOYMENTS, EVENTS, PODS, REPLICA_SETS
from glebe.workloads import serviceaccounts
from glebe.workloads.deployment import controller
from glebe.workloads.deployment.sets import template_hash
from glebe.workloads.garbage import collector
from glebe.workloads.replicas import controller as replicas

REVISION = "deployment.kubernetes.io/revision"


def deployment(image: str = "v1", count: int = 3, **spec: Any) -> Object:
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": image}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": count, "selector": {"matchLabels": labels}, "template": template, **spec},
    }


class Kubelet:
    """Binds pods, makes them ready after ``delay`` seconds (not those of ``broken`` images), ends deleted ones."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.delay = 1.0
        self.linger = 0.0
        self.broken: set[str] = set()
        self.env = Env.seeded(7)
        self.clock = self.env.clock
        self.seen: dict[str, float] = {}
        self.gone: dict[str, float] = {}

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(0.25)
            for p in (await self.client.list(PODS, "default")).items:
                name, uid = p["metadata"]["name"], p["metadata"]["uid"]
                since = self.seen.setdefault(uid, loop.time())
                image = p["spec"]["containers"][0]["image"]
                try:
                    if not p["spec"].get("nodeName"):
                        target = {"metadata": {"name": name}, "target": {"kind": "Node", "name": "n1"}}
                        await self.client.create(PODS, target, "default", name=name, subresource="binding")
                        continue
                    if "deletionTimestamp" in p["metadata"]:
                        gone = self.gone.setdefault(uid, loop.time())
                        if loop.time() - gone >= self.linger:
                            await self.client.delete(PODS, name, "default", grace_period=0)
                        continue
                    new = get_condition(p, "Ready") is None and image not in self.broken
                    if new and loop.time() - since >= self.delay:
                        await self.make_ready(p)
                except Exception as error:
                    if not is_conflict(error) and not is_not_found(error):
                        raise AssertionError(name) from error

    async def make_ready(self, p: Object) -> None:
        since = format_time(self.clock.now())
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": since}
        await self.client.update_status(
            PODS, {**p, "status": {**p["status"], "phase": "Running", "conditions": [ready]}}
        )


@asynccontextmanager
async def running(*names: str) -> AsyncIterator[Client]:
    """An API server with the controllers that matter here, for one cluster or (with ``names``) for all."""
    env = Env.seeded(7)
    server = ApiServer(MemoryStore(), env, TypeRegistry())
    await server.start()
    client = Client(InProcessTransport(server.handle), cluster=EVERY if names else "")
    informers = Informers(client, env)
    controllers = [
        serviceaccounts.build(client, informers, env, "PEM"),
        *replicas.build(client, informers, env),
        controller.build(client, informers, env),
        collector.build(client, informers, env),
    ]
    tasks = [asyncio.create_task(informers.run()), *(asyncio.create_task(c.run()) for c in controllers)]
    for name in names:
        await server.clusters.create(name)
    try:
        yield client
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.close()


@asynccontextmanager
async def world() -> AsyncIterator[tuple[Client, Kubelet]]:
    async with running() as client:
        kubelet = Kubelet(client)
        task = asyncio.create_task(kubelet.run())
        try:
            yield client, kubelet
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def sets_of(client: Client) -> list[Object]:
    items = (await client.list(REPLICA_SETS, "default")).items
    return sorted(items, key=lambda s: int(annotations_of(s).get(REVISION, "0")))


def condition(kind: str, **values: str) -> Callable[[Object], bool]:
    def check(obj: Object) -> bool:
        found = get_condition(obj, kind) or {}
        return all(found.get(k) == v for k, v in values.items()) and bool(found)

    return check


def status(**values: Any) -> Callable[[Object], bool]:
    return lambda obj: all((obj.get("status") or {}).get(k) == v for k, v in values.items())


def web(client: Client, *checks: Callable[[Object], bool]) -> Callable[[], Awaitable[Any]]:
    async def look() -> Any:
        obj = await client.get(DEPLOYMENTS, "web", "default")
        return obj if all(check(obj) for check in checks) else None

    return look


def at_revision(number: int) -> Callable[[Object], bool]:
    return lambda obj: annotations_of(obj).get(REVISION) == str(number)


DONE = condition("Progressing", status="True", reason="NewReplicaSetAvailable")


def complete(obj: Object) -> bool:
    count, st = obj["spec"]["replicas"], obj.get("status") or {}
    numbers = [st.get(n, 0) for n in ("replicas", "updatedReplicas", "availableReplicas", "readyReplicas")]
    return numbers == [count] * 4 and st.get("observedGeneration") == obj["metadata"]["generation"]


async def set_image(client: Client, image: str, **annotations: str) -> Object:
    containers = [{"name": "main", "image": image}]
    patch: Object = {"spec": {"template": {"spec": {"containers": containers}}}}
    if annotations:
        patch["metadata"] = {"annotations": annotations}
    return await client.patch(DEPLOYMENTS, "web", patch, "default", kind="strategic")


async def messages(client: Client, reason: str = "ScalingReplicaSet") -> list[str]:
    return [e["message"] for e in (await client.list(EVENTS, "default")).items if e["reason"] == reason]


async def test_first_rollout() -> None:
    async with world() as (client, _):
        await client.create(DEPLOYMENTS, deployment())
        obj = await until(web(client, complete, DONE, condition("Available", status="True")))
        (rs,) = await sets_of(client)
        mark = template_hash(obj["spec"]["template"], None)
        assert rs["metadata"]["name"] == f"web-{mark}"
        assert labels_of(rs) == {"app": "web", "pod-template-hash": mark}
        assert rs["spec"]["selector"] == {"matchLabels": labels_of(rs)}
        assert annotations_of(rs) == {
            REVISION: "1",
            "deployment.kubernetes.io/desired-replicas": "3",
            "deployment.kubernetes.io/max-replicas": "4",
        }
        assert (controller_of(rs) or {})["uid"] == obj["metadata"]["uid"]
        assert annotations_of(obj)[REVISION] == "1"
        assert obj["status"]["terminatingReplicas"] == 0
        progressing = get_condition(obj, "Progressing") or {}
        assert progressing["message"] == f'ReplicaSet "web-{mark}" has successfully progressed.'
        assert (get_condition(obj, "Available") or {})["reason"] == "MinimumReplicasAvailable"
        assert await messages(client) == [f"Scaled up replica set web-{mark} from 0 to 3"]
        pods = (await client.list(PODS, "default")).items
        assert all(labels_of(p)["pod-template-hash"] == mark for p in pods)


async def test_rolling_update_keeps_to_its_bounds() -> None:
    async with world() as (client, _):
        rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2, "maxUnavailable": 1}}
        await client.create(DEPLOYMENTS, deployment(count=6, strategy=rolling))
        await until(web(client, complete, DONE))
        await set_image(client, "v2")
        obj = None
        for _ in range(600):
            await asyncio.sleep(0.1)
            sets = await sets_of(client)
            assert sum(s["spec"]["replicas"] for s in sets) <= 8
            pods = (await client.list(PODS, "default")).items
            ready = [p for p in pods if get_condition(p, "Ready") and "deletionTimestamp" not in p["metadata"]]
            assert len(ready) >= 5
            obj = await client.get(DEPLOYMENTS, "web", "default")
            if complete(obj) and DONE(obj) and len(sets) == 2 and sets[0]["spec"]["replicas"] == 0:
                break
        else:
            raise AssertionError(obj)
        old, new = await sets_of(client)
        assert (annotations_of(old)[REVISION], annotations_of(new)[REVISION]) == ("1", "2")
        assert annotations_of(obj)[REVISION] == "2"
        assert new["spec"]["replicas"] == 6


async def test_recreate_waits_for_the_last_old_pod() -> None:
    async with world() as (client, kubelet):
        await client.create(DEPLOYMENTS, deployment(count=2, strategy={"type": "Recreate"}))
        await until(web(client, complete, DONE))
        kubelet.linger = 15.0
        await set_image(client, "v2")
        await until(web(client, status(terminatingReplicas=2)))
        await asyncio.sleep(10)
        assert len(await sets_of(client)) == 1
        await until(web(client, complete, DONE))
        images = {p["spec"]["containers"][0]["image"] for p in (await client.list(PODS, "default")).items}
        assert images == {"v2"}


async def test_rollback_gives_the_old_set_a_new_revision() -> None:
    async with world() as (client, _):
        await client.create(DEPLOYMENTS, deployment())
        await until(web(client, complete, DONE))
        await set_image(client, "v2", cause="second")
        await until(web(client, complete, DONE, at_revision(2)))
        await set_image(client, "v1", cause="third")
        await until(web(client, complete, DONE, at_revision(3)))
        two, three = await sets_of(client)
        assert annotations_of(three)["deployment.kubernetes.io/revision-history"] == "1"
        assert (annotations_of(two)["cause"], annotations_of(three)["cause"]) == ("second", "third")
        assert two["spec"]["template"]["spec"]["containers"][0]["image"] == "v2"


async def test_history_is_limited() -> None:
    async with world() as (client, _):
        await client.create(DEPLOYMENTS, deployment(count=1, revisionHistoryLimit=1))
        await until(web(client, complete, DONE))
        for number in range(2, 5):
            await set_image(client, f"v{number}")
            await until(web(client, complete, DONE, at_revision(number)))

        async def two() -> bool:
            return [annotations_of(s)[REVISION] for s in await sets_of(client)] == ["3", "4"]

        await until(two)


async def test_pause_holds_a_rollout_and_resume_goes_on() -> None:
    async with world() as (client, _):
        await client.create(DEPLOYMENTS, deployment())
        await until(web(client, complete, DONE))
        await client.patch(DEPLOYMENTS, "web", {"spec": {"paused": True}}, "default")
        await until(web(client, condition("Progressing", status="Unknown", reason="DeploymentPaused")))
        await set_image(client, "v2")
        await client.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 5}}, "default")  # scaling goes on
        await until(web(client, status(replicas=5, readyReplicas=5)))
        assert len(await sets_of(client)) == 1
        await client.patch(DEPLOYMENTS, "web", {"spec": {"paused": False}}, "default")
        await until(web(client, complete, DONE))
        assert [s["spec"]["replicas"] for s in await sets_of(client)] == [0, 5]


async def test_deadline_is_missed_and_met() -> None:
    async with world() as (client, kubelet):
        await client.create(DEPLOYMENTS, deployment(progressDeadlineSeconds=30))
        await until(web(client, complete, DONE))
        kubelet.broken.add("bad")
        await set_image(client, "bad")
        start = asyncio.get_running_loop().time()
        late = await until(web(client, condition("Progressing", status="False", reason="ProgressDeadlineExceeded")), 60)
        assert 29 <= asyncio.get_running_loop().time() - start <= 35
        name = (await sets_of(client))[-1]["metadata"]["name"]
        text = f'ReplicaSet "{name}" has timed out progressing.'
        assert (get_condition(late, "Progressing") or {})["message"] == text
        assert (get_condition(late, "Available") or {})["status"] == "True"
        await set_image(client, "good")  # rolls over: the bad pods go first
        await until(web(client, complete, DONE))


async def test_proportional_scaling() -> None:
    async with world() as (client, kubelet):
        rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}
        await client.create(DEPLOYMENTS, deployment(count=10, strategy=rolling))
        await until(web(client, complete, DONE))
        kubelet.broken.add("bad")
        await set_image(client, "bad")

        async def sizes(*wanted: int) -> Any:
            return [s["spec"]["replicas"] for s in await sets_of(client)] == list(wanted)

        await until(lambda: sizes(8, 5))
        await client.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 30}}, "default")
        await until(lambda: sizes(20, 13))  # as upstream's end-to-end test has it
        await asyncio.sleep(10)
        assert await sizes(20, 13)


async def test_adopts_a_set_with_its_template() -> None:
    async with world() as (client, _):
        obj = deployment()
        labels = {"app": "web", "pod": "httpd"}
        template = {"metadata": {"labels": labels}, "spec": obj["spec"]["template"]["spec"]}
        await client.create(
            REPLICA_SETS,
            {
                "metadata": {"name": "older", "namespace": "default", "labels": labels},
                "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
            },
        )
        await client.create(DEPLOYMENTS, {**obj, "spec": {**obj["spec"], "template": template, "replicas": 1}})
        await until(web(client, complete, DONE))
        (only,) = await sets_of(client)
        assert only["metadata"]["name"] == "older"
        assert annotations_of(only)[REVISION] == "1"
        assert controller_of(only)


async def test_a_name_that_is_taken_changes_the_hash() -> None:
    async with world() as (client, _):
        obj = deployment()
        probe = await client.create(DEPLOYMENTS, obj, dry_run=True)
        name = f"web-{template_hash(probe['spec']['template'], None)}"
        labels = {"other": "thing"}
        template = {**obj["spec"]["template"], "metadata": {"labels": labels}}
        spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
        await client.create(
            REPLICA_SETS, {"metadata": {"name": name, "namespace": "default", "labels": labels}, "spec": spec}
        )
        await client.create(DEPLOYMENTS, obj)
        done = await until(web(client, complete, DONE))
        assert done["status"]["collisionCount"] == 1


async def test_the_failure_of_a_set_is_the_deployments() -> None:
    async with world() as (client, _):
        quotas = REPLICA_SETS.__class__("", "v1", "resourcequotas", "ResourceQuota")
        quota = {"metadata": {"name": "q", "namespace": "default"}, "spec": {"hard": {"pods": "1"}}}
        made = await client.create(quotas, quota)
        await client.update_status(quotas, {**made, "status": {"hard": {"pods": "1"}, "used": {"pods": "0"}}})
        await client.create(DEPLOYMENTS, deployment())
        obj = await until(web(client, condition("ReplicaFailure", status="True", reason="FailedCreate")))
        assert "exceeded quota: q" in (get_condition(obj, "ReplicaFailure") or {})["message"]
        await client.delete(quotas, "q", "default")
        obj = await until(web(client, complete, DONE), 120)
        assert get_condition(obj, "ReplicaFailure") is None


async def test_min_ready_seconds_reach_the_set_without_a_rollout() -> None:
    async with world() as (client, _):
        await client.create(DEPLOYMENTS, deployment(count=1, minReadySeconds=10))
        await asyncio.sleep(6)
        obj = await client.get(DEPLOYMENTS, "web", "default")
        assert obj["status"]["readyReplicas"] == 1
        assert "availableReplicas" not in obj["status"]
        obj = await until(web(client, complete, DONE))
        available = get_condition(obj, "Available") or {}
        assert parse_time(available["lastTransitionTime"]) >= 10
        await client.patch(DEPLOYMENTS, "web", {"spec": {"minReadySeconds": 5}}, "default")

        async def renewed() -> bool:
            (only,) = await sets_of(client)
            return bool(only["spec"]["minReadySeconds"] == 5)

        await until(renewed)
        assert len(await messages(client)) == 1


async def test_the_old_rollback_annotation() -> None:
    async with world() as (client, _):
        await client.create(DEPLOYMENTS, deployment(count=1))
        await until(web(client, complete, DONE))
        await set_image(client, "v2")
        await until(web(client, complete, DONE, at_revision(2)))
        note = {"metadata": {"annotations": {"deprecated.deployment.rollback.to": "0"}}}
        await client.patch(DEPLOYMENTS, "web", note, "default")
        obj = await until(web(client, complete, DONE, at_revision(3)))
        assert obj["spec"]["template"]["spec"]["containers"][0]["image"] == "v1"
        assert "deprecated.deployment.rollback.to" not in annotations_of(obj)
        assert await messages(client, "DeploymentRollback") == ['Rolled back deployment "web" to revision 1']


async def test_nothing_moves_when_nothing_changes() -> None:
    async with world() as (client, _):
        await client.create(DEPLOYMENTS, deployment())
        await until(web(client, complete, DONE))
        await asyncio.sleep(5)
        before = [(await client.list(r, "default")).resource_version for r in (DEPLOYMENTS,)]
        await asyncio.sleep(600)
        assert [(await client.list(r, "default")).resource_version for r in (DEPLOYMENTS,)] == before


async def test_every_cluster_has_its_own() -> None:
    async with running("a", "b") as every:
        a, b = every.for_cluster("a"), every.for_cluster("b")
        await a.create(DEPLOYMENTS, deployment(count=2))
        await b.create(DEPLOYMENTS, deployment(image="v9", count=3))

        async def pods(client: Client) -> list[str]:
            return [p["spec"]["containers"][0]["image"] for p in (await client.list(PODS, "default")).items]

        async def both() -> bool:
            return (await pods(a), await pods(b)) == (["v1"] * 2, ["v9"] * 3)

        await until(both)
        # A namesake in another cluster, a pod that fits: neither concerns the other.
        stray = {"metadata": {"name": "stray", "namespace": "default", "labels": {"app": "web"}}}
        spec = {"containers": [{"name": "main", "image": "x"}]}
        (of_a,) = await sets_of(a)
        stray["metadata"]["labels"] = labels_of(of_a)
        await b.create(PODS, {**stray, "spec": spec})
        await asyncio.sleep(10)
        assert controller_of(await b.get(PODS, "stray", "default")) is None
        await a.delete(DEPLOYMENTS, "web", "default", propagation="Background")

        async def gone() -> bool:
            return not await pods(a)

        await until(gone)
        assert len(await pods(b)) == 4
        (of_b,) = await sets_of(b)
        assert "clusterName" not in str(of_b)
