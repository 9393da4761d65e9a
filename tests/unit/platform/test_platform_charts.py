"""What teams bring, from one end to the other: rendered charts on the whole platform under virtual time.

``tests/clients/test_clients_charts.py`` does the same with kubectl.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from platform_charts import apply, render

from glebe.apiserver.store import MemoryStore
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object, annotations_of, condition_is_true, get_condition
from glebe.kube.resources import DEPLOYMENTS, PODS, REPLICA_SETS, STATEFUL_SETS, Resource
from glebe.node.fleet import parse_fleet
from glebe.platform.embedded import Platform, PlatformConfig

FLEET = """\
apiVersion: glebe.dev/v1alpha1
kind: Fleet
pools:
- {name: cpu, count: 3}
"""
AUTOSCALERS = Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
BUDGETS = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
SLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
INGRESSES = Resource("networking.k8s.io", "v1", "ingresses", "Ingress")


@asynccontextmanager
async def platform() -> AsyncIterator[Client]:
    async with Platform(PlatformConfig(parse_fleet(FLEET)), Env.seeded(1), MemoryStore()) as running:
        yield running.client


async def until(what: Callable[[], Awaitable[Any]], seconds: float = 300.0) -> Any:
    async with asyncio.timeout(seconds):
        while not (value := await what()):  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.5)
    return value


async def rolled_out(client: Client, replicas: int) -> Object | None:
    """The Deployment, when all of its replicas are new and available (as ``kubectl rollout status`` finds)."""
    found = await client.get(DEPLOYMENTS, "web", "default")
    status = found.get("status") or {}
    wanted = {"replicas": replicas, "updatedReplicas": replicas, "availableReplicas": replicas}
    fresh = status.get("observedGeneration") == found["metadata"]["generation"]
    return found if fresh and all(status.get(k) == v for k, v in wanted.items()) else None


async def checksums(client: Client) -> set[str]:
    pods = (await client.list(PODS, "default", label_selector="app.kubernetes.io/name=web")).items
    return {annotations_of(pod)["checksum/config"] for pod in pods if "deletionTimestamp" not in pod["metadata"]}


def web(version: str, message: str, usage: str = "50%") -> str:
    return render("web", VERSION=version, MESSAGE=message, USAGE=usage)


async def test_a_web_application_is_installed_upgraded_twice_and_rolled_back() -> None:
    async with platform() as client:
        await apply(client, web("1.0", "hello"))
        await until(lambda: rolled_out(client, 2))  # the autoscaler's minimum
        first = await checksums(client)
        assert len(first) == 1

        # A change of the configuration alone rolls the pods, and never are there fewer than before.
        counting = asyncio.create_task(_fewest_available(client))
        await apply(client, web("1.0", "good evening"))
        await until(lambda: _only(client, first))
        await until(lambda: rolled_out(client, 2))
        counting.cancel()
        assert min(await counting) == 2
        second = await checksums(client)
        assert second != first

        await apply(client, web("1.1", "good evening"))
        found = await until(lambda: rolled_out(client, 2))
        assert found["spec"]["template"]["spec"]["containers"][0]["image"].endswith(":1.1")
        assert annotations_of(found)["deployment.kubernetes.io/revision"] == "3"

        # Rolled back: the first manifests again meet the first ReplicaSet again.
        sets = {s["metadata"]["uid"] for s in (await client.list(REPLICA_SETS, "default")).items}
        await apply(client, web("1.0", "hello"))
        await until(lambda: rolled_out(client, 2))
        await until(lambda: _is(client, first))
        assert {s["metadata"]["uid"] for s in (await client.list(REPLICA_SETS, "default")).items} == sets
        revision = annotations_of(await client.get(DEPLOYMENTS, "web", "default"))
        assert revision["deployment.kubernetes.io/revision"] == "4"

        # All that belongs to it says what is so.
        budget = (await client.get(BUDGETS, "web", "default"))["status"]
        assert (budget["currentHealthy"], budget["expectedPods"], budget["disruptionsAllowed"]) == (2, 2, 1)
        (endpoints,) = (await client.list(SLICES, "default", label_selector="kubernetes.io/service-name=web")).items
        assert [e["conditions"]["ready"] for e in endpoints["endpoints"]] == [True, True]
        assert endpoints["ports"][0]["port"] == 8080
        assert (await client.get(INGRESSES, "web", "default"))["spec"]["rules"][0]["host"] == "web.example.com"


async def _fewest_available(client: Client) -> list[int]:
    """How many were available, until it is cancelled."""
    seen = []
    with suppress(asyncio.CancelledError):
        while True:
            status = (await client.get(DEPLOYMENTS, "web", "default")).get("status") or {}
            seen.append(int(status.get("availableReplicas", 0)))
            await asyncio.sleep(0.2)
    return seen


async def _only(client: Client, old: set[str]) -> bool:
    return not (old & await checksums(client))


async def _is(client: Client, wanted: set[str]) -> bool:
    return await checksums(client) == wanted


async def test_its_autoscaler_follows_what_the_pods_use_and_keeps_the_scale_through_upgrades() -> None:
    async with platform() as client:
        await apply(client, web("1.0", "hello", "110%"))
        await until(lambda: rolled_out(client, 4), 600)  # 2 pods at 110 % of their request, 60 % wanted
        hpa = await client.get(AUTOSCALERS, "web", "default")
        assert condition_is_true(hpa, "ScalingActive")
        current = hpa["status"]["currentMetrics"][0]["resource"]["current"]
        assert (current["averageUtilization"], current["averageValue"]) == (110, "110m")
        await until(lambda: rolled_out(client, 6), 600)  # its maximum
        await until(lambda: _limited(client), 60)
        await apply(client, web("1.1", "hello", "10%"))
        await until(lambda: rolled_out(client, 6), 120)  # Helm does not say how many
        began = asyncio.get_running_loop().time()
        await until(lambda: rolled_out(client, 2), 900)
        assert asyncio.get_running_loop().time() - began > 200, "it waits for what it recommended in the last 5 minutes"


async def _limited(client: Client) -> bool:
    return condition_is_true(await client.get(AUTOSCALERS, "web", "default"), "ScalingLimited")


async def test_evictions_of_it_keep_to_its_budget() -> None:
    async with platform() as client:
        await apply(client, web("1.0", "hello"))
        await until(lambda: rolled_out(client, 2))
        await until(lambda: _allowed(client, 1))
        codes = []
        for pod in (await client.list(PODS, "default", label_selector="app.kubernetes.io/name=web")).items:
            meta = {"name": pod["metadata"]["name"], "namespace": "default"}
            body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta}
            try:
                await client.create(PODS, body, "default", name=meta["name"], subresource="eviction")
            except ApiError as error:
                codes.append(error.code)
            else:
                codes.append(201)
        assert codes == [201, 429]
        await until(lambda: rolled_out(client, 2))
        await until(lambda: _allowed(client, 1))


async def _allowed(client: Client, count: int) -> bool:
    status = (await client.get(BUDGETS, "web", "default")).get("status") or {}
    return bool(status.get("disruptionsAllowed") == count)


# --- a database


def database(replicas: int, version: str = "16", scaled: str = "Retain") -> str:
    return render("database", REPLICAS=str(replicas), VERSION=version, SCALED=scaled)


async def members(client: Client, replicas: int, version: str = "16") -> list[Object]:
    """The members, when so many are ready and all of one version."""
    pods = (await client.list(PODS, "default", label_selector="app.kubernetes.io/name=database")).items
    image = f"registry.example.com/database:{version}"
    fine = all(p["spec"]["containers"][0]["image"] == image and condition_is_true(p, "Ready") for p in pods)
    return pods if fine and len(pods) == replicas else []


async def claims(client: Client) -> dict[str, str]:
    """Names of the claims, and the uids of the volumes that they are bound to."""
    found = (await client.list(CLAIMS, "default")).items
    return {c["metadata"]["name"]: c["spec"].get("volumeName", "") for c in found}


async def test_a_database_starts_in_order_and_keeps_its_disks() -> None:
    async with platform() as client:
        await apply(client, database(3))
        pods = await until(lambda: members(client, 3))
        assert [p["metadata"]["name"] for p in pods] == ["database-0", "database-1", "database-2"]
        ready = [_since(p, "Ready") for p in pods]
        started = [p["metadata"]["creationTimestamp"] for p in pods]
        assert ready[0] <= started[1] <= ready[1] <= started[2]
        disks = await claims(client)
        assert list(disks) == ["data-database-0", "data-database-1", "data-database-2"]
        assert len(set(disks.values())) == 3
        assert all(disks.values())

        # Scaled down and up again: the same member has the same disk.
        await apply(client, database(1))
        await until(lambda: members(client, 1))
        assert await claims(client) == disks
        await apply(client, database(3, version="17"))
        await until(lambda: members(client, 3, "17"))
        assert await claims(client) == disks
        of = "kubernetes.io/service-name"
        dns = (await client.list(SLICES, "default", label_selector=f"{of}=database-headless")).items
        assert sorted(e["hostname"] for e in dns[0]["endpoints"]) == ["database-0", "database-1", "database-2"]
        (first,) = (await client.list(SLICES, "default", label_selector=f"{of}=database")).items
        assert [e["targetRef"]["name"] for e in first["endpoints"]] == ["database-0"]


async def test_disks_of_members_that_are_scaled_away_go_where_the_chart_says_so() -> None:
    async with platform() as client:
        await apply(client, database(3, scaled="Delete"))
        await until(lambda: members(client, 3))
        await apply(client, database(1, scaled="Delete"))

        async def only_one() -> bool:
            return list(await claims(client)) == ["data-database-0"]

        await until(only_one)
        await client.delete(STATEFUL_SETS, "database", "default", propagation="Foreground")
        await until(lambda: members_gone(client))
        assert await only_one(), "whenDeleted: Retain"


async def members_gone(client: Client) -> bool:
    return not (await client.list(PODS, "default")).items


def _since(pod: Object, kind: str) -> str:
    return str((get_condition(pod, kind) or {})["lastTransitionTime"])
