"""What every cluster has from the beginning is what its own kinds' rules accept."""

from __future__ import annotations

import copy

from glebe.apiserver.clusters.firstobjects import first_objects
from glebe.apiserver.server import ApiServer
from glebe.apiserver.services.advertising import advertise
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.defaults import apply_defaults
from glebe.apiserver.types.prune import prune
from glebe.apiserver.types.registry import TypeRegistry, builtins
from glebe.apiserver.types.validation import validate
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.resources import Resource

SERVICES = Resource("", "v1", "services", "Service", True)
ENDPOINTS = Resource("", "v1", "endpoints", "Endpoints", True)

KINDS = {info.group_resource: info for info in builtins()}


def test_they_are_complete_and_valid() -> None:
    given = first_objects("192.0.2.1", 6443)
    assert len({(r, o["metadata"]["name"]) for r, o in given}) == len(given)
    for resource, obj in given:
        info = KINDS[resource]
        assert (obj["apiVersion"], obj["kind"]) == (info.api_version, info.kind)
        whole = copy.deepcopy(obj)
        assert prune(info, whole) == []
        apply_defaults(info, whole)
        assert whole == obj, "defaults are filled in already"
        assert validate(info, whole) == []


def test_every_flow_schema_has_its_level() -> None:
    given = first_objects("192.0.2.1", 6443)
    levels = {o["metadata"]["name"] for r, o in given if r.startswith("prioritylevel")}
    used = {o["spec"]["priorityLevelConfiguration"]["name"] for r, o in given if r.startswith("flowschemas")}
    assert used == levels


def test_the_service_points_at_the_server() -> None:
    given = {(r, o["metadata"]["name"]): o for r, o in first_objects("2001:db8::5", 7443)}
    subset = given["endpoints", "kubernetes"]["subsets"][0]
    piece = given["endpointslices.discovery.k8s.io", "kubernetes"]
    assert subset["addresses"] == [{"ip": "2001:db8::5"}]
    assert (piece["addressType"], piece["endpoints"][0]["addresses"]) == ("IPv6", ["2001:db8::5"])
    assert subset["ports"][0]["port"] == piece["ports"][0]["port"] == 7443
    address = given["services", "kubernetes"]["spec"]["clusterIP"]
    assert given["ipaddresses.networking.k8s.io", address]["spec"]["parentRef"]["name"] == "kubernetes"


async def test_clusters_have_them_and_the_roots_service_follows_the_listener() -> None:
    server = ApiServer(MemoryStore(), Env.seeded(1), TypeRegistry())
    await server.start()
    await server.clusters.create("tenant")
    root = Client(InProcessTransport(server.handle))
    tenant = Client(InProcessTransport(server.handle), cluster="tenant")
    for client in (root, tenant):
        service = await client.get(SERVICES, "kubernetes", "default")
        endpoints = await client.get(ENDPOINTS, "kubernetes", "default")
        assert service["spec"]["ports"][0]["targetPort"] == endpoints["subsets"][0]["ports"][0]["port"] == 6443
        assert service["metadata"]["uid"]
    await advertise(server, "0.0.0.0", 7000)
    moved = await root.get(ENDPOINTS, "kubernetes", "default")
    assert moved["subsets"][0]["addresses"] == [{"ip": "127.0.0.1"}]
    assert moved["subsets"][0]["ports"][0]["port"] == 7000
    changed = await root.get(SERVICES, "kubernetes", "default")
    await advertise(server, "0.0.0.0", 7000)
    assert await root.get(SERVICES, "kubernetes", "default") == changed
