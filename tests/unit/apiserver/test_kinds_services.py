"""Services get addresses and node ports, keep them, and give them back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from glebe.apiserver.server import ApiServer
from glebe.apiserver.services import pools
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.resources import Resource

SERVICES = Resource("", "v1", "services", "Service", True)
ADDRESSES = Resource("networking.k8s.io", "v1", "ipaddresses", "IPAddress", False)


async def serve(store: MemoryStore | None = None) -> tuple[ApiServer, Client]:
    server = ApiServer(store or MemoryStore(), Env.seeded(1), TypeRegistry())
    await server.start()
    return server, Client(InProcessTransport(server.handle))


def service(name: str, *ports: dict[str, Any], **spec: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": "default"}
    ports = ports or ({"port": 80},)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta,
        "spec": {"selector": {"a": "b"}, "ports": list(ports), **spec},
    }


async def held(client: Client) -> set[str]:
    for _ in range(5):
        await asyncio.sleep(0)  # what is given back goes a little later
    return {o["metadata"]["name"] for o in (await client.list(ADDRESSES)).items if o["metadata"]["name"] != "10.96.0.1"}


async def test_a_service_gets_an_address_that_is_its_own_until_it_goes() -> None:
    _, client = await serve()
    made = await client.create(SERVICES, service("a"))
    spec = made["spec"]
    assert spec["clusterIP"].startswith("10.96.")
    assert spec["clusterIPs"] == [spec["clusterIP"]]
    assert (spec["ipFamilies"], spec["ipFamilyPolicy"]) == (["IPv4"], "SingleStack")
    assert (spec["internalTrafficPolicy"], spec["sessionAffinity"]) == ("Cluster", "None")
    assert made["status"] == {"loadBalancer": {}}
    assert await held(client) == {spec["clusterIP"]}
    record = await client.get(ADDRESSES, spec["clusterIP"])
    assert record["spec"]["parentRef"] == {"name": "a", "namespace": "default", "resource": "services"}
    with pytest.raises(ApiError, match="provided IP is already allocated"):
        await client.create(SERVICES, service("b", clusterIP=spec["clusterIP"]))
    with pytest.raises(ApiError, match="the provided network does not match the current range"):
        await client.create(SERVICES, service("b", clusterIP="192.0.2.1"))
    await client.delete(SERVICES, "a", "default")
    assert await held(client) == set()
    assert (await client.create(SERVICES, service("b", clusterIP=spec["clusterIP"])))["spec"]["clusterIPs"]


async def test_an_update_that_leaves_addresses_out_keeps_them() -> None:
    _, client = await serve()
    made = await client.create(SERVICES, service("a", type="NodePort"))
    plain = service("a", {"port": 81}, type="NodePort")
    changed = await client.update(SERVICES, plain)
    assert changed["spec"]["clusterIP"] == made["spec"]["clusterIP"]
    assert changed["spec"]["ports"][0]["nodePort"] == made["spec"]["ports"][0]["nodePort"]
    with pytest.raises(ApiError, match=r"spec.clusterIPs\[0\]: Invalid value: .*: may not change once set"):
        await client.patch(SERVICES, "a", {"spec": {"clusterIP": "10.96.7.7", "clusterIPs": ["10.96.7.7"]}}, "default")


async def test_between_external_name_and_cluster_ip() -> None:
    _, client = await serve()
    made = await client.create(SERVICES, service("a", type="ExternalName", externalName="example.com"))
    assert "clusterIP" not in made["spec"]
    made["spec"] |= {"type": "ClusterIP", "externalName": ""}
    changed = await client.update(SERVICES, made)
    assert changed["spec"]["clusterIP"]
    changed["spec"] |= {"type": "ExternalName", "externalName": "example.com"}
    back = await client.update(SERVICES, changed)
    assert not {"clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"} & set(back["spec"])
    assert await held(client) == set()


async def test_headless_services_have_no_address() -> None:
    _, client = await serve()
    made = await client.create(SERVICES, service("a", clusterIP="None"))
    assert (made["spec"]["clusterIP"], made["spec"]["clusterIPs"]) == ("None", ["None"])
    assert made["spec"]["ipFamilies"] == ["IPv4"]
    bare = service("b", clusterIP="None")
    del bare["spec"]["selector"]
    made = await client.create(SERVICES, bare)
    assert (made["spec"]["ipFamilyPolicy"], made["spec"]["ipFamilies"]) == ("RequireDualStack", ["IPv4", "IPv6"])
    assert await held(client) == set()


async def test_node_ports_are_given_taken_shared_and_freed() -> None:
    _, client = await serve()
    tcp, udp = {"name": "t", "port": 53, "protocol": "TCP"}, {"name": "u", "port": 53, "protocol": "UDP"}
    made = await client.create(SERVICES, service("a", tcp, udp, type="NodePort"))
    first, second = (p["nodePort"] for p in made["spec"]["ports"])
    assert first == second
    assert first in pools.NODE_PORTS
    with pytest.raises(ApiError, match="provided port is already allocated"):
        await client.create(SERVICES, service("b", {"port": 1, "nodePort": first}, type="NodePort"))
    with pytest.raises(ApiError, match="valid ports is 30000-32767"):
        await client.create(SERVICES, service("b", {"port": 1, "nodePort": 80}, type="NodePort"))
    made["spec"]["type"] = "ClusterIP"
    changed = await client.update(SERVICES, made)
    assert all("nodePort" not in p for p in changed["spec"]["ports"])
    await client.create(SERVICES, service("b", {"port": 1, "nodePort": first}, type="NodePort"))


async def test_a_load_balancer_with_local_traffic_has_a_port_for_health_checks() -> None:
    _, client = await serve()
    made = await client.create(SERVICES, service("a", type="LoadBalancer", externalTrafficPolicy="Local"))
    assert made["spec"]["healthCheckNodePort"] in pools.NODE_PORTS
    assert made["spec"]["allocateLoadBalancerNodePorts"] is True
    made["spec"]["externalTrafficPolicy"] = "Cluster"
    assert "healthCheckNodePort" not in (await client.update(SERVICES, made))["spec"]
    quiet = service("b", type="LoadBalancer", allocateLoadBalancerNodePorts=False)
    assert "nodePort" not in (await client.create(SERVICES, quiet))["spec"]["ports"][0]


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"ipFamilyPolicy": "RequireDualStack"}, "this cluster is not configured for dual-stack services"),
        ({"ipFamilies": ["IPv6"]}, "not configured on this cluster"),
        ({"ipFamilies": ["IPv4", "IPv6"]}, "when multiple IP families are specified"),
    ],
)
async def test_families_that_the_cluster_has_not_are_refused(spec: dict[str, Any], why: str) -> None:
    _, client = await serve()
    with pytest.raises(ApiError, match=why):
        await client.create(SERVICES, service("a", **spec))


async def test_what_a_refused_or_tried_service_took_is_free_again() -> None:
    _, client = await serve()
    await client.create(SERVICES, service("a"))
    taken = await held(client)
    with pytest.raises(ApiError, match="already exists"):
        await client.create(SERVICES, service("a", {"port": 1, "nodePort": 30001}, type="NodePort"))
    tried = await client.create(SERVICES, service("b", type="NodePort"), dry_run=True)
    assert tried["spec"]["clusterIP"]
    assert await held(client) == taken
    await client.create(SERVICES, service("c", {"port": 1, "nodePort": 30001}, type="NodePort"))


async def test_addresses_whose_service_a_crash_prevented_are_freed_after_a_while() -> None:
    store = MemoryStore()
    server, client = await serve(store)
    pool = pools.Pools(server, "root")
    address = await pool.next_address(4, "default", "never-written")
    assert await held(client) == {address}
    await pool.repair()
    assert await held(client) == {address}, "its service may be about to be written"
    await asyncio.sleep(pools.GRACE + 1)
    await client.create(SERVICES, service("a"))
    assert address not in await held(client)


async def test_clusters_have_their_own_addresses() -> None:
    server, client = await serve()
    await server.clusters.create("other")
    other = Client(InProcessTransport(server.handle), cluster="other")
    made = await client.create(SERVICES, service("a", {"port": 1, "nodePort": 30001}, type="NodePort"))
    wanted = made["spec"]["clusterIP"]
    again = await other.create(
        SERVICES, service("a", {"port": 1, "nodePort": 30001}, type="NodePort", clusterIP=wanted)
    )
    assert again["spec"]["clusterIP"] == wanted
