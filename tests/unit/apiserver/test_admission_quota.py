"""ResourceQuota: what the conformance specs demand, and that nobody gets more than there is."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from admission_world import CLAIMS, QUOTAS, container, pod, refused, serve, thing, until
from etcd_peer import shared_etcd
from hypothesis import given, settings
from hypothesis import strategies as st

from glebe.apiserver.admission.quota import amounts, podusage
from glebe.apiserver.store import Entry, Key, Make, MemoryStore, Store
from glebe.apiserver.store.etcd import EtcdOptions, EtcdStore
from glebe.apiserver.store.sqlite import SQLiteStore
from glebe.kube.client import Client
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object
from glebe.kube.resources import CONFIGMAPS, CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, PODS, SECRETS, SERVICES, Resource


def quota(name: str, hard: dict[str, str], **spec: Any) -> Object:
    return thing(QUOTAS, name, spec={"hard": hard, **spec})


async def used(api: Client, name: str, wanted: dict[str, str], namespace: str = "default") -> None:
    """Wait until the quota's status says so."""

    async def same() -> bool:
        status = (await api.get(QUOTAS, name, namespace)).get("status") or {}
        return all((status.get("used") or {}).get(k) == v for k, v in wanted.items())

    await until(same)


def requests(**amounts_: str) -> dict[str, Any]:
    names = {k.replace("_", "-"): v for k, v in amounts_.items()}
    return container(requests=names)


async def test_the_status_is_calculated_at_once() -> None:
    _, api = await serve()
    await api.create(QUOTAS, quota("q", {"resourcequotas": "1", "pods": "5", "cpu": "1", "memory": "500Mi"}))
    await used(api, "q", {"resourcequotas": "1", "pods": "0", "cpu": "0", "memory": "0"})
    status = (await api.get(QUOTAS, "q", "default"))["status"]
    assert status["hard"] == {"resourcequotas": "1", "pods": "5", "cpu": "1", "memory": "500Mi"}
    assert "exceeded quota: q, requested: resourcequotas=1, used: resourcequotas=1, limited: resourcequotas=1" in (
        await refused(api.create(QUOTAS, quota("r", {"pods": "1"})))
    )


async def test_the_life_of_a_pod() -> None:
    _, api = await serve()
    hard = {"pods": "5", "cpu": "1", "memory": "500Mi", "ephemeral-storage": "50Gi", "requests.example.com/dongle": "3"}
    await api.create(QUOTAS, quota("test-quota", hard))
    dongles: dict[str, Any] = {
        "requests": {"cpu": "500m", "memory": "252Mi", "ephemeral-storage": "30Gi", "example.com/dongle": "2"}
    }
    dongles["limits"] = {"example.com/dongle": "2"}
    await api.create(PODS, pod("test-pod", "default", container(**dongles)))
    all_of_it = {"pods": "1", "cpu": "500m", "memory": "252Mi", "ephemeral-storage": "30Gi"}
    await used(api, "test-quota", {**all_of_it, "requests.example.com/dongle": "2"})
    text = await refused(api.create(PODS, pod("fail-pod", "default", requests(cpu="600m", memory="100Mi"))))
    assert text == (
        'pods "fail-pod" is forbidden: exceeded quota: test-quota, requested: cpu=600m, used: cpu=500m, limited: cpu=1'
    )
    dongles["requests"] = {**dongles["requests"], "memory": "100Mi", "ephemeral-storage": "1Gi"}
    text = await refused(api.create(PODS, pod("fail", "default", container(**dongles))))
    assert "requested: requests.example.com/dongle=2, used: requests.example.com/dongle=2, limited" in text
    await api.delete(PODS, "test-pod", "default", grace_period=0)
    zero = dict.fromkeys(hard, "0")
    await used(api, "test-quota", zero)


async def test_what_must_be_stated() -> None:
    _, api = await serve()
    await api.create(QUOTAS, quota("q", {"limits.cpu": "1", "memory": "1Gi"}))
    two = [container("c1", requests={"memory": "1Mi"}), container("c2")]
    text = await refused(api.create(PODS, pod("p", "default", *two)))
    assert text.endswith("failed quota: q: must specify limits.cpu for: c1,c2; memory for: c2")
    whole = {"requests": {"memory": "1Mi"}, "limits": {"cpu": "100m"}}
    await api.create(PODS, pod("p", "default", *two, resources=whole))


async def test_counts_of_everything() -> None:
    _, api = await serve()
    hard = {"configmaps": "1", "count/configmaps": "2", "secrets": "1", "count/widgets.example.com": "1"}
    await api.create(QUOTAS, quota("q", hard))
    await api.create(CONFIGMAPS, thing(CONFIGMAPS, "a"))
    assert "requested: configmaps=1, used: configmaps=1" in await refused(
        api.create(CONFIGMAPS, thing(CONFIGMAPS, "b"))
    )
    await api.create(SECRETS, thing(SECRETS, "a"))
    await used(api, "q", {"configmaps": "1", "count/configmaps": "1", "secrets": "1"})
    await refused(api.create(SECRETS, thing(SECRETS, "b")))
    await api.delete(SECRETS, "a", "default")
    await api.create(SECRETS, thing(SECRETS, "b"))
    schema = {"type": "object"}
    names = {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}
    crds = CUSTOM_RESOURCE_DEFINITIONS
    await api.create(crds, thing(crds, "widgets.example.com", spec=spec))
    widgets = Resource("example.com", "v1", "widgets", "Widget")
    await api.create(widgets, thing(widgets, "one"))
    assert "count/widgets.example.com=1" in await refused(api.create(widgets, thing(widgets, "two")))
    await used(api, "q", {"count/widgets.example.com": "1"})


def service(name: str, kind: str, **spec: Any) -> Object:
    return thing(SERVICES, name, "shop", spec={"type": kind, "ports": [{"port": 80}], **spec})


async def test_services_by_type() -> None:
    _, api = await serve()
    await api.create(NAMESPACES, thing(NAMESPACES, "shop"))
    hard = {"services": "10", "services.nodeports": "1", "services.loadbalancers": "1"}
    await api.create(QUOTAS, thing(QUOTAS, "q", "shop", spec={"hard": hard}))
    await api.create(SERVICES, service("a", "ClusterIP"))
    await api.create(SERVICES, service("np", "NodePort"))
    assert "services.nodeports=1" in await refused(api.create(SERVICES, service("lb", "LoadBalancer")))
    await api.create(SERVICES, service("lb", "LoadBalancer", allocateLoadBalancerNodePorts=False))
    await used(api, "q", {"services": "3", "services.nodeports": "1", "services.loadbalancers": "1"}, "shop")
    await api.delete(SERVICES, "np", "shop")
    await api.patch(SERVICES, "a", {"spec": {"type": "NodePort"}}, "shop")
    await used(api, "q", {"services": "2", "services.nodeports": "1"}, "shop")


def claim(name: str, size: str, **spec: Any) -> Object:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec}
    return thing(CLAIMS, name, spec=spec)


async def test_storage_by_class() -> None:
    _, api = await serve()
    gold = "gold.storageclass.storage.k8s.io/"
    hard = {"requests.storage": "5Gi", "persistentvolumeclaims": "3", f"{gold}requests.storage": "1Gi"}
    await api.create(QUOTAS, quota("q", hard))
    await api.create(CLAIMS, claim("a", "1Gi", storageClassName="gold"))
    await api.create(CLAIMS, claim("b", "2Gi", storageClassName="tin"))
    text = await refused(api.create(CLAIMS, claim("c", "1Gi", storageClassName="gold")))
    assert text.endswith(
        f"requested: {gold}requests.storage=1Gi, used: {gold}requests.storage=1Gi, limited: {gold}requests.storage=1Gi"
    )
    await used(api, "q", {"requests.storage": "3Gi", "persistentvolumeclaims": "2"})


@pytest.mark.parametrize(
    ("scope", "inside", "outside"),
    [
        ({"scopes": ["Terminating"]}, {"activeDeadlineSeconds": 60}, {}),
        ({"scopes": ["NotTerminating"]}, {}, {"activeDeadlineSeconds": 60}),
        ({"scopes": ["BestEffort"]}, {}, {"containers": [requests(cpu="1", memory="1Mi")]}),
        ({"scopes": ["NotBestEffort"]}, {"containers": [requests(cpu="1", memory="1Mi")]}, {}),
        (
            {"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["system-cluster-critical"]}]}},  # noqa: E501
            {"priorityClassName": "system-cluster-critical"},
            {"priorityClassName": "system-node-critical"},
        ),
        (
            {"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "Exists"}]}},
            {"priorityClassName": "system-cluster-critical"},
            {},
        ),
        (
            {"scopes": ["CrossNamespacePodAffinity"]},
            {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": "zone", "labelSelector": {}, "namespaceSelector": {}}]}}},
            {},
        ),
    ],
)  # fmt: skip
async def test_scopes(scope: dict[str, Any], inside: dict[str, Any], outside: dict[str, Any]) -> None:
    _, api = await serve()
    await api.create(QUOTAS, quota("q", {"pods": "1"}, **scope))
    for number in range(2):
        await api.create(PODS, pod(f"out-{number}", **outside))
    await used(api, "q", {"pods": "0"})
    await api.create(PODS, pod("in", **inside))
    assert "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1" in await refused(
        api.create(PODS, pod("more", **inside))
    )
    await used(api, "q", {"pods": "1"})
    await api.delete(PODS, "in", "default", grace_period=0)
    await used(api, "q", {"pods": "0"})


async def test_a_quota_counts_what_was_there_and_forgets_pods_that_ended() -> None:
    _, api = await serve()
    made = await api.create(PODS, pod("a"))
    await api.create(PODS, pod("b"))
    await api.create(QUOTAS, quota("q", {"pods": "2", "count/pods": "3"}))
    await used(api, "q", {"pods": "2", "count/pods": "2"})
    await refused(api.create(PODS, pod("c")))
    made["status"]["phase"] = "Succeeded"
    await api.update_status(PODS, made)
    await used(api, "q", {"pods": "1", "count/pods": "2"})
    await api.create(PODS, pod("c"))
    text = await refused(api.create(PODS, pod("d")))
    assert "requested: count/pods=1,pods=1, used: count/pods=3,pods=2, limited: count/pods=3,pods=2" in text


async def test_a_pod_on_a_lost_node_stops_to_count() -> None:
    _, api = await serve()
    await api.create(QUOTAS, quota("q", {"pods": "1"}))
    await api.create(PODS, pod("a", nodeName="lost"))
    await api.delete(PODS, "a", "default", grace_period=30)
    await refused(api.create(PODS, pod("b")))
    await asyncio.sleep(70)
    await used(api, "q", {"pods": "0"})
    await api.create(PODS, pod("b"))


async def test_dry_runs_and_failures_take_nothing() -> None:
    _, api = await serve()
    await api.create(QUOTAS, quota("q", {"configmaps": "2"}))
    for _ in range(3):
        await api.create(CONFIGMAPS, thing(CONFIGMAPS, "a"), dry_run=True)
    await api.create(CONFIGMAPS, thing(CONFIGMAPS, "a"))
    for _ in range(3):
        with pytest.raises(ApiError, match="already exists"):
            await api.create(CONFIGMAPS, thing(CONFIGMAPS, "a"))
    await api.create(CONFIGMAPS, thing(CONFIGMAPS, "b"))
    await refused(api.create(CONFIGMAPS, thing(CONFIGMAPS, "c"), dry_run=True))


async def test_limits_and_status_can_be_changed() -> None:
    _, api = await serve()
    made = await api.create(QUOTAS, quota("q", {"configmaps": "1"}))
    await api.create(CONFIGMAPS, thing(CONFIGMAPS, "a"))
    await refused(api.create(CONFIGMAPS, thing(CONFIGMAPS, "b")))
    await api.patch(QUOTAS, "q", {"spec": {"hard": {"configmaps": "2"}}}, "default")
    await api.create(CONFIGMAPS, thing(CONFIGMAPS, "b"))
    await api.patch(QUOTAS, "q", {"status": {"hard": {"configmaps": "7"}}}, "default", subresource="status")
    await used(api, "q", {"configmaps": "2"})

    async def reset() -> bool:
        return bool((await api.get(QUOTAS, "q", "default"))["status"]["hard"] == {"configmaps": "2"})

    await until(reset)
    assert made["spec"]["hard"] == {"configmaps": "1"}
    await api.delete(QUOTAS, "q", "default")
    await api.create(CONFIGMAPS, thing(CONFIGMAPS, "c"))


async def test_two_quotas_both_count() -> None:
    _, api = await serve()
    await api.create(QUOTAS, quota("a", {"resourcequotas": "3"}))
    await api.create(QUOTAS, quota("b", {"resourcequotas": "3", "configmaps": "1"}))
    await used(api, "a", {"resourcequotas": "2"})
    await used(api, "b", {"resourcequotas": "2"})
    await api.create(CONFIGMAPS, thing(CONFIGMAPS, "x"))
    assert "exceeded quota: b" in await refused(api.create(CONFIGMAPS, thing(CONFIGMAPS, "y")))
    await api.delete(QUOTAS, "b", "default")
    await used(api, "a", {"resourcequotas": "1"})


async def test_clusters_have_quotas_of_their_own() -> None:
    server, api = await serve()
    await server.clusters.create("t1")
    other = api.for_cluster("t1")
    await other.create(QUOTAS, quota("q", {"configmaps": "0"}))
    await refused(other.create(CONFIGMAPS, thing(CONFIGMAPS, "a")))
    await api.create(CONFIGMAPS, thing(CONFIGMAPS, "a"))
    await server.clusters.delete("t1")
    await server.clusters.create("t1")
    await other.create(CONFIGMAPS, thing(CONFIGMAPS, "a"))


async def _storm(store: Store, limit: int, crowd: int) -> None:
    server, api = await serve(store=store)
    await api.create(QUOTAS, quota("q", {"pods": str(limit), "requests.nvidia.com/gpu": str(limit * 2)}))

    async def one(number: int) -> bool:
        gpus = container(requests={"nvidia.com/gpu": "2"}, limits={"nvidia.com/gpu": "2"})
        try:
            await api.create(PODS, pod(f"p-{number}", "default", gpus))
        except ApiError as error:
            if "exceeded quota: q" not in error.message:
                raise
            return False
        return True

    answers = await asyncio.gather(*(one(number) for number in range(crowd)))
    assert sum(answers) == limit
    assert len((await api.list(PODS, "default")).items) == limit
    await used(api, "q", {"pods": str(limit), "requests.nvidia.com/gpu": str(limit * 2)})
    await server.close()


async def test_a_storm_gets_exactly_what_there_is_in_memory() -> None:
    await _storm(MemoryStore(), 50, 200)


@pytest.mark.realtime
async def test_a_storm_gets_exactly_what_there_is_on_disk(tmp_path: Path) -> None:
    await _storm(SQLiteStore(tmp_path / "glebe.db"), 50, 200)


class Shared(MemoryStore):
    """A store to which others write, too, and whose writes take their time."""

    lags = True

    async def put(self, key: Key, make: Make, expected: int | None) -> Entry:
        await asyncio.sleep(0.001 + len(key.name) % 3 / 1000)
        return await super().put(key, make, expected)


async def test_two_servers_on_one_store_give_no_more_than_there_is() -> None:
    store = Shared()
    one, api = await serve(store=store)
    two, other = await serve(store=store)
    await api.create(QUOTAS, quota("q", {"configmaps": "10"}))

    async def make(client: Client, number: int) -> bool:
        try:
            await client.create(CONFIGMAPS, thing(CONFIGMAPS, f"{'x' * (number % 4)}{number}"))
        except ApiError as error:
            if error.code != 403:
                raise
            return False
        return True

    answers = await asyncio.gather(*(make(api if n % 2 else other, n) for n in range(40)))
    assert len((await api.list(CONFIGMAPS, "default")).items) == sum(answers) <= 10
    await used(api, "q", {"configmaps": str(sum(answers))})
    for name in [c["metadata"]["name"] for c in (await api.list(CONFIGMAPS, "default")).items]:
        await api.delete(CONFIGMAPS, name, "default")
    await used(api, "q", {"configmaps": "0"})
    await one.close()
    await two.close()


@pytest.mark.realtime
async def test_two_replicas_on_one_etcd_give_no_more_than_there_is(tmp_path: Path) -> None:
    options = EtcdOptions((shared_etcd().url,), prefix=f"/{tmp_path.name}-quota/")
    one, api = await serve(store=EtcdStore(options))
    two, other = await serve(store=EtcdStore(options))
    await api.create(QUOTAS, quota("q", {"configmaps": "5"}))
    await other.list(QUOTAS, "default")  # the most recent state: both replicas know of the quota from here on

    async def make(client: Client, number: int) -> bool:
        try:
            await client.create(CONFIGMAPS, thing(CONFIGMAPS, f"c{number}"))
        except ApiError as error:
            if error.code != 403:
                raise
            return False
        return True

    answers = await asyncio.gather(*(make(api if n % 2 else other, n) for n in range(24)))
    assert 1 <= sum(answers) <= 5
    assert len((await other.list(CONFIGMAPS, "default")).items) == sum(answers)
    await one.close()
    await two.close()


_sizes = st.sampled_from(["0", "1", "100m", "250m", "2", "1500m"])
_changes = st.lists(
    st.tuples(st.sampled_from(["create", "delete", "finish"]), st.integers(0, 5), _sizes), max_size=25
)  # fmt: skip


@settings(max_examples=30)
@given(_changes)
def test_the_sum_is_what_is_stored(changes: list[tuple[str, int, str]]) -> None:
    """Whatever happens in whatever order: no sum drifts, and none ever exceeds its limit."""
    from glebe.kube import virtualtime

    async def run() -> None:
        server, api = await serve()
        await api.create(QUOTAS, quota("q", {"requests.cpu": "3", "pods": "4"}))
        for what, number, size in changes:
            name = f"p{number}"
            try:
                if what == "create":
                    await api.create(PODS, pod(name, "default", requests(cpu=size)))
                elif what == "delete":
                    await api.delete(PODS, name, "default", grace_period=0)
                else:
                    found = await api.get(PODS, name, "default")
                    await api.update_status(PODS, {**found, "status": {**found["status"], "phase": "Failed"}})
            except ApiError as error:
                if error.code not in (403, 404, 409):
                    raise
            live = [p for p in (await api.list(PODS, "default")).items if p["status"].get("phase") != "Failed"]
            total = sum(podusage.pod_resources(p, "requests").get("cpu", 0) for p in live)
            assert total <= 3 * amounts.ONE
            assert len(live) <= 4
        ledger = next(p for p in server.validating if getattr(p, "name", "") == "ResourceQuota").ledger  # type: ignore[attr-defined]
        found_quota = ledger.of("root", "default")["q"]
        assert found_quota.used == {
            "requests.cpu": total if changes else 0,
            "pods": len(live) * amounts.ONE if changes else 0,
        }
        assert not found_quota.reserved
        await server.close()

    virtualtime.run(run())
