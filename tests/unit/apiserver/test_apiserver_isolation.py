"""Nothing of one logical cluster is reachable from another: paths, names, selectors, tokens, watches, owners, kinds."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from glebe.apiserver.auth.assembly import secure
from glebe.apiserver.auth.pki import Pki
from glebe.apiserver.auth.scope import Scope
from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import Object
from glebe.kube.resources import CLUSTER_ROLE_BINDINGS, CONFIGMAPS, CUSTOM_RESOURCE_DEFINITIONS, SECRETS, Resource
from glebe.kube.transport import Request, Response, User

MARK = {"root": "cm9vdHNlY3JldA==", "a": "YXNlY3JldGFhYQ==", "b": "YnNlY3JldGJiYg=="}
FOREIGN = (MARK["root"].encode(), MARK["b"].encode())


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    made = Pki(tmp_path_factory.mktemp("pki"))
    made.ensure(["127.0.0.1"], 1_767_225_600.0)  # when virtual time begins
    return made


class World:
    """Three clusters with a secret each; ``ask`` is asked by the owner of cluster a."""

    def __init__(self, pki: Pki) -> None:
        self.pki = pki
        self.env = Env.seeded(1)
        self.server = ApiServer(MemoryStore(), self.env, TypeRegistry())
        secure(self.server, pki, self.env)
        self.client = Client(InProcessTransport(self.server.handle))
        self.der = b""

    async def start(self) -> World:
        await self.server.start()
        for name in ("a", "b"):
            await self.server.clusters.create(name)
        for name, mark in MARK.items():
            meta = {"name": f"of-{name}", "namespace": "default", "labels": {"app": "x"}}
            secret = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": {"password": mark}}
            await self.client.for_cluster(name).create(SECRETS, secret)
        self.der = self.certificate("owner", ("system:masters",), Scope("a", self.server.clusters.uid("a")))
        return self

    def certificate(self, user: str, groups: tuple[str, ...], scope: Scope | None) -> bytes:
        pair = self.pki.issue_client(user, groups, self.env.clock.now(), scope=scope)
        return x509.load_pem_x509_certificate(pair.certificate).public_bytes(Encoding.DER)

    async def ask(
        self, method: str, path: str, query: list[tuple[str, str]] | None = None, body: Any = None, **headers: str
    ) -> Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            named.setdefault("content-type", "application/json")
        data = orjson.dumps(body) if body is not None else b""
        return await self.server.handle(Request(method, unquote(path), query or [], named, data, None, self.der))

    async def text(self, response: Response) -> bytes:
        """Everything that comes within a moment."""
        if response.stream is None:
            return response.body
        chunks = [response.body]

        async def drain(stream: AsyncIterator[bytes]) -> None:
            async for chunk in stream:
                chunks.append(chunk)  # noqa: PERF401 - what came before the timeout counts

        with suppress(TimeoutError):
            async with asyncio.timeout(2):
                await drain(response.stream)
        await response.close()
        return b"".join(chunks)


SECRET = "/api/v1/namespaces/default/secrets"
PATHS = [
    f"{SECRET}/of-root",
    f"/clusters/root{SECRET}",
    f"/clusters/b{SECRET}",
    f"/clusters/b{SECRET}/of-b",
    "/clusters/b/api/v1/secrets",
    "/clusters/*/api/v1/secrets",
    "/clusters/%2A/api/v1/secrets",
    "/clusters/**/api/v1/secrets",
    "/clusters//api/v1/secrets",
    "/clusters/./api/v1/secrets",
    "/clusters/../api/v1/secrets",
    "/clusters/a/../b/api/v1/secrets",
    "/clusters/a/..%2Fb/api/v1/secrets",
    "/clusters/a%2F..%2Fb/api/v1/secrets",
    "/clusters/a%2f..%2froot/api/v1/secrets",
    "/clusters/a/clusters/b/api/v1/secrets",
    "/clusters/a//clusters//b/api/v1/secrets",
    "//clusters/b/api/v1/secrets",
    "/clusters//b/api/v1/secrets",
    "/./clusters/b/api/v1/secrets",
    "/Clusters/b/api/v1/secrets",
    "/clusters/B/api/v1/secrets",
    "/clusters/b%00/api/v1/secrets",
    "/clusters/b%20/api/v1/secrets",
    "/clusters/b;a/api/v1/secrets",
    "/clusters/a,b/api/v1/secrets",
    "/clusters/%62/api/v1/secrets",
    "/clusters/a%2Fapi/v1/namespaces/..%2F..%2Fb/secrets",
    "/clusters/a/api/v1/namespaces/default%2F..%2F..%2Fb/secrets/of-b",
    "/clusters/a/api/v1/namespaces/b%2Fdefault/secrets/of-b",
    "/clusters/a/api/v1/namespaces/default/secrets/of-b",
    "/clusters/a/api/v1/namespaces/default/secrets/..%2F..%2Fb%2Fof-b",
    "/clusters/a/api/v1/namespaces/*/secrets",
    "/clusters/a/api/v1/watch/namespaces/default/secrets/of-b",
    "/clusters/a/apis/glebe.dev/v1alpha1/clusters",
    "/clusters",
    "/clusters/",
    "/clusters/b",
    "/clusters/b/",
    "/clusters/*",
    "/clusters/b/openapi/v2",
    "/clusters/b/apis",
]


@pytest.mark.parametrize("path", PATHS)
async def test_no_path_leads_out_of_a_cluster(pki: Pki, path: str) -> None:
    world = await World(pki).start()
    allowed = unquote(path).startswith("/clusters/a/api/v1/")
    for method in ("GET", "PUT", "PATCH", "DELETE", "POST", "HEAD", "OPTIONS"):
        response = await world.ask(method, path)
        seen = await world.text(response)
        assert not any(mark in seen for mark in FOREIGN), (method, path)
        assert allowed or response.status >= 400, (method, path, response.status)
    response = await world.ask("GET", path, [("watch", "true"), ("timeoutSeconds", "1")])
    seen = await world.text(response)
    assert not any(mark in seen for mark in FOREIGN)
    for name, mark in MARK.items():
        kept = await world.client.for_cluster(name).get(SECRETS, f"of-{name}", "default")
        assert kept["data"]["password"] == mark, path


@pytest.mark.parametrize(
    "query",
    [
        [("labelSelector", "app=x")],
        [("fieldSelector", "metadata.name=of-b")],
        [("fieldSelector", "metadata.namespace=default")],
        [("resourceVersion", "1")],
        [("resourceVersion", "1"), ("resourceVersionMatch", "Exact")],
        [("watch", "true"), ("resourceVersion", "1"), ("timeoutSeconds", "1")],
        [
            ("watch", "true"),
            ("sendInitialEvents", "true"),
            ("resourceVersionMatch", "NotOlderThan"),
            ("timeoutSeconds", "1"),
        ],
        [("watch", "true"), ("labelSelector", "app"), ("timeoutSeconds", "1")],
    ],
)
async def test_no_selector_or_version_shows_another_cluster(pki: Pki, query: list[tuple[str, str]]) -> None:
    world = await World(pki).start()
    for path in ("/clusters/a/api/v1/secrets", f"/clusters/a{SECRET}"):
        seen = await world.text(await world.ask("GET", path, query))
        assert not any(mark in seen for mark in FOREIGN)


async def test_a_continue_token_is_good_for_its_own_list_only(pki: Pki) -> None:
    world = await World(pki).start()
    for name in ("a", "b"):
        for number in range(4):
            meta = {"name": f"c{number}", "namespace": "default"}
            await world.client.for_cluster(name).create(
                CONFIGMAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"of": name}}
            )

    async def go_on(cluster: str, token: str, resource: str = "configmaps", namespace: str = "default") -> Response:
        path = f"/clusters/{cluster}/api/v1/namespaces/{namespace}/{resource}"
        request = Request("GET", path, [("limit", "2"), ("continue", token)], user=User("p", ("system:masters",)))
        return await world.server.handle(request)

    of_b = (await world.client.for_cluster("b").list(CONFIGMAPS, "default", limit=2)).continue_
    assert (await go_on("b", of_b)).status == 200
    for response in (await go_on("a", of_b), await go_on("b", of_b, "secrets"), await go_on("b", of_b, namespace="x")):
        assert response.status == 400
        assert b"invalid continue token" in response.body
    every = (await world.client.for_cluster("*").list(CONFIGMAPS, limit=2)).continue_
    assert (await go_on("a", every)).status == 400
    forged = base64.urlsafe_b64encode(
        orjson.dumps({"v": "glebe/v1", "of": "*/configmaps/", "rv": 1, "after": ["b", "", ""]})
    )
    assert (await go_on("a", forged.decode().rstrip("="))).status == 400


async def test_impersonation_does_not_lead_out(pki: Pki) -> None:
    world = await World(pki).start()
    for user, group in (("system:admin", "system:masters"), ("system:glebe", "system:masters")):
        headers = {"impersonate_user": user, "impersonate_group": group}
        assert (await world.ask("GET", f"/clusters/a{SECRET}", **headers)).status == 200
        for path in (SECRET, f"/clusters/b{SECRET}", "/clusters/*/api/v1/secrets", "/clusters"):
            assert (await world.ask("GET", path, **headers)).status in (401, 403), path


async def test_the_wildcard_is_for_masters_of_the_platform_themselves(pki: Pki) -> None:
    world = await World(pki).start()
    everything = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "all"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [
            {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}
            for kind, name in (("User", "bob"), ("Group", "system:authenticated"), ("User", "system:anonymous"))
        ],
    }
    for name in ("root", "a", "b"):
        await world.client.for_cluster(name).create(CLUSTER_ROLE_BINDINGS, everything)
    headers = {"impersonate-user": "x", "impersonate-group": "system:masters"}
    for der in (world.certificate("bob", (), None), None):
        for extra in ({}, headers):
            request = Request("GET", "/clusters/*/api/v1/secrets", [], extra, b"", None, der)
            response = await world.server.handle(request)
            assert response.status in (401, 403)
            assert not any(mark.encode() in response.body for mark in MARK.values())
    admin = world.certificate("admin", ("system:masters",), None)
    response = await world.server.handle(Request("GET", "/clusters/*/api/v1/secrets", [], {}, b"", None, admin))
    assert response.status == 200
    assert orjson.loads(response.body)["clusters"] == ["a", "b", "root"]
    for method, path in (
        ("POST", "/clusters/*/api/v1/namespaces/default/secrets"),
        ("DELETE", "/clusters/*/api/v1/namespaces/default/secrets"),
        ("GET", "/clusters/*/api/v1/namespaces/default/secrets/of-a"),
        ("PATCH", "/clusters/*/api/v1/namespaces/default/secrets/of-a"),
        ("GET", "/clusters/*/api/v1/namespaces/default/pods/p/log"),
    ):
        assert (await world.server.handle(Request(method, path, [], {}, b"{}", None, admin))).status == 405, path


async def test_a_certificate_ends_with_its_cluster(pki: Pki) -> None:
    world = await World(pki).start()
    assert (await world.ask("GET", f"/clusters/a{SECRET}")).status == 200
    await world.server.clusters.delete("a")
    assert (await world.ask("GET", f"/clusters/a{SECRET}")).status == 401
    await world.server.clusters.create("a")
    assert (await world.ask("GET", f"/clusters/a{SECRET}")).status == 401


def definition(field: str) -> Object:
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {field: {"type": "string"}}}}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.org"},
        "spec": {
            "group": "example.org",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "singular": "widget", "listKind": "WidgetList"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


async def test_kinds_of_one_name_are_each_clusters_own(pki: Pki) -> None:
    world = await World(pki).start()
    widgets = Resource("example.org", "v1", "widgets", "Widget")
    a, b = world.client.for_cluster("a"), world.client.for_cluster("b")
    await b.create(CUSTOM_RESOURCE_DEFINITIONS, definition("bfield"))
    for path in ("/apis/example.org/v1", "/apis/example.org/v1/widgets", "/openapi/v3/apis/example.org/v1"):
        assert (await world.ask("GET", f"/clusters/a{path}")).status == 404, path
    for path in ("/apis", "/openapi/v2", "/openapi/v3"):
        response = await world.ask("GET", f"/clusters/a{path}")
        assert response.status == 200
        assert b"example.org" not in response.body
    await a.create(CUSTOM_RESOURCE_DEFINITIONS, definition("afield"))
    for client, field in ((a, "afield"), (b, "bfield")):
        spec = {"afield": "1", "bfield": "2"}
        meta = {"name": "w", "namespace": "default"}
        made = await client.create(
            widgets, {"apiVersion": "example.org/v1", "kind": "Widget", "metadata": meta, "spec": spec}
        )
        assert list(made["spec"]) == [field]
    found = await world.client.for_cluster("*").list(widgets)
    assert [(list(o["spec"]), o["metadata"]["clusterName"]) for o in found.items] == [
        (["afield"], "a"),
        (["bfield"], "b"),
    ]
    seen = await world.ask("GET", "/clusters/a/openapi/v3/apis/example.org/v1")
    assert b"afield" in seen.body
    assert b"bfield" not in seen.body
    await b.delete(CUSTOM_RESOURCE_DEFINITIONS, "widgets.example.org")
    assert (await a.get(widgets, "w", "default"))["spec"] == {"afield": "1"}


async def test_a_tenants_kind_cannot_shadow_the_register(pki: Pki) -> None:
    world = await World(pki).start()
    crd = definition("x")
    crd["metadata"]["name"] = "clusters.glebe.dev"
    crd["spec"] |= {"group": "glebe.dev", "scope": "Cluster"}
    crd["spec"]["names"] = {"plural": "clusters", "kind": "LogicalCluster", "singular": "cluster", "listKind": "LCList"}
    a = world.client.for_cluster("a")
    await a.create(CUSTOM_RESOURCE_DEFINITIONS, crd)
    mine = Resource("glebe.dev", "v1", "clusters", "LogicalCluster", False)
    await a.create(mine, {"apiVersion": "glebe.dev/v1", "kind": "LogicalCluster", "metadata": {"name": "evil"}})
    assert not world.server.clusters.exists("evil")
    await a.create(mine, {"apiVersion": "glebe.dev/v1", "kind": "LogicalCluster", "metadata": {"name": "b"}})
    await a.delete(mine, "b")
    assert world.server.clusters.exists("b")
