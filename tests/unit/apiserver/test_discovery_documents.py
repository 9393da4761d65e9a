"""What the server says about itself: ETags and hashes, custom kinds in OpenAPI as upstream publishes them, health."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.resources import CUSTOM_RESOURCE_DEFINITIONS
from glebe.kube.transport import PLATFORM, Request, Response

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
STRING = {"type": "string"}
FOO: dict[str, Any] = {
    "description": "Foo CRD for Testing",
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "description": "Specification of Foo",
            "properties": {
                "nul": {"type": "object", "nullable": True, "properties": {"a": STRING}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {"a": STRING}},
                "any": {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True},
                "pod": {"type": "object", "x-kubernetes-embedded-resource": True, "properties": {"spec": STRING}},
                "bars": {
                    "type": "array",
                    "items": {"type": "object", "required": ["name"], "properties": {"name": STRING}},
                },
            },
            "required": ["nul", "bars"],
        }
    },
}


def definition(schema: dict[str, Any], *versions: str) -> dict[str, Any]:
    names = {"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList", "shortNames": ["fo"]}
    made = [
        {"name": v, "served": True, "storage": i == 0, "schema": {"openAPIV3Schema": copy.deepcopy(schema)}}
        for i, v in enumerate(versions or ("v1",))
    ]
    spec = {"group": "docs.example.com", "scope": "Namespaced", "names": names, "versions": made}
    kind = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    return {**kind, "metadata": {"name": "foos.docs.example.com"}, "spec": spec}


async def serve() -> tuple[ApiServer, Client]:
    server = ApiServer(MemoryStore(), Env.seeded(1), TypeRegistry(), clusters=("root", "a", "b"))
    await server.start()
    return server, Client(InProcessTransport(server.handle))


async def ask(server: ApiServer, path: str, **headers: str) -> Response:
    path, _, query = path.partition("?")
    pairs = [(k, v) for k, _, v in (part.partition("=") for part in query.split("&")) if k]
    return await server.handle(
        Request("GET", path, pairs, {k.replace("_", "-"): v for k, v in headers.items()}, b"", PLATFORM)
    )


async def v2(server: ApiServer) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads((await ask(server, "/openapi/v2")).body)
    return found


async def test_a_custom_kind_is_published_in_openapi_v2_as_upstream_does() -> None:
    server, client = await serve()
    await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition(FOO))
    found = (await v2(server))["definitions"]["com.example.docs.v1.Foo"]
    spec = found["properties"]["spec"]
    assert found["x-kubernetes-group-version-kind"] == [{"group": "docs.example.com", "kind": "Foo", "version": "v1"}]
    assert set(found["properties"]) == {"apiVersion", "kind", "metadata", "spec"}
    assert spec["properties"]["nul"] == {}
    assert spec["properties"]["free"] == {"x-kubernetes-preserve-unknown-fields": True}
    assert spec["properties"]["any"] == {"x-kubernetes-int-or-string": True}
    assert spec["required"] == ["bars"]
    assert spec["properties"]["pod"]["required"] == ["kind", "apiVersion"]
    listed = (await v2(server))["definitions"]["com.example.docs.v1.FooList"]
    assert listed["description"] == "FooList is a list of Foo"


async def test_a_root_that_keeps_unknown_fields_says_nothing_else() -> None:
    server, client = await serve()
    free = {**FOO, "x-kubernetes-preserve-unknown-fields": True}
    await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition(free))
    found = (await v2(server))["definitions"]["com.example.docs.v1.Foo"]
    assert {k for k in found if k != "x-kubernetes-group-version-kind"} == {"type"}
    part = orjson.loads((await ask(server, "/openapi/v3/apis/docs.example.com/v1")).body)
    schema = part["components"]["schemas"]["com.example.docs.v1.Foo"]
    assert schema["x-kubernetes-preserve-unknown-fields"] is True
    assert schema["properties"]["spec"]["properties"]["nul"]["nullable"] is True


async def test_definitions_follow_versions_that_come_and_go() -> None:
    server, client = await serve()
    await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition(FOO, "v2", "v3"))
    crd = await client.get(CUSTOM_RESOURCE_DEFINITIONS, "foos.docs.example.com")

    async def names() -> set[str]:
        return {n for n in (await v2(server))["definitions"] if n.startswith("com.example.docs") and n.endswith("Foo")}

    assert await names() == {"com.example.docs.v2.Foo", "com.example.docs.v3.Foo"}
    crd["spec"]["versions"][1]["name"] = "v4"
    crd = await client.update(CUSTOM_RESOURCE_DEFINITIONS, crd)
    assert await names() == {"com.example.docs.v2.Foo", "com.example.docs.v4.Foo"}
    crd["spec"]["versions"][1]["served"] = False
    await client.update(CUSTOM_RESOURCE_DEFINITIONS, crd)
    assert await names() == {"com.example.docs.v2.Foo"}
    await client.delete(CUSTOM_RESOURCE_DEFINITIONS, "foos.docs.example.com")
    assert await names() == set()


@pytest.mark.parametrize("path", ["/openapi/v2", "/openapi/v3/apis/apps/v1", "/apis"])
async def test_who_has_the_document_gets_nothing(path: str) -> None:
    server, client = await serve()
    first = await ask(server, path, accept=AGGREGATED if path == "/apis" else "application/json")
    again = await ask(
        server, path, accept=AGGREGATED if path == "/apis" else "application/json", if_none_match=first.headers["etag"]
    )
    assert (first.status, again.status, again.body) == (200, 304, b"")
    await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition(FOO))
    changed = await ask(server, path, accept=AGGREGATED if path == "/apis" else "application/json")
    assert (changed.headers["etag"] == first.headers["etag"]) == path.endswith("apps/v1")
    # clusters with the same kinds share documents, others do not see them
    await client.for_cluster("a").create(CUSTOM_RESOURCE_DEFINITIONS, definition(FOO))
    there, other = [
        await ask(server, f"/clusters/{c}{path}", accept=AGGREGATED if path == "/apis" else "application/json")
        for c in ("a", "b")
    ]
    assert there.headers["etag"] == changed.headers["etag"]
    assert other.headers["etag"] == first.headers["etag"]


async def test_an_address_with_a_hash_never_changes() -> None:
    server, _ = await serve()
    index = orjson.loads((await ask(server, "/openapi/v3")).body)["paths"]
    address = index["apis/batch/v1"]["serverRelativeURL"]
    found = await ask(server, address)
    assert found.headers["cache-control"].startswith("public, immutable")
    assert found.headers["etag"].strip('"') == address.rpartition("=")[2]
    old = await ask(server, "/clusters/a/openapi/v3/apis/batch/v1?hash=OLD")
    assert (old.status, old.headers["location"]) == (301, f"/clusters/a{address}")


def fields(data: bytes) -> list[tuple[int, bytes]]:
    """The length-delimited fields of a protobuf message."""
    out, at = [], 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while at < len(data):
        tag = varint()
        if tag & 7 == 2:
            size = varint()
            out.append((tag >> 3, data[at : at + size]))
            at += size
        else:
            at += 8 if tag & 7 == 1 else 0
            if tag & 7 == 0:
                varint()
    return out


async def test_openapi_v2_is_there_in_protobuf() -> None:
    server, client = await serve()
    await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition(FOO))
    answer = await ask(server, "/openapi/v2", accept=PROTOBUF)
    assert answer.headers["content-type"] == PROTOBUF.replace("@", ".")
    document = dict(fields(answer.body))
    schemas = {dict(fields(v))[1].decode(): dict(fields(v))[2] for _, v in fields(document[9])}
    assert set(schemas) == set((await v2(server))["definitions"])
    foo = dict(fields(schemas["com.example.docs.v1.Foo"]))
    assert foo[4] == b"Foo CRD for Testing"
    name, value = (dict(fields(foo[31]))[n] for n in (1, 2))
    assert name == b"x-kubernetes-group-version-kind"
    assert orjson.loads(dict(fields(value))[2])[0]["kind"] == "Foo"


async def test_a_terminating_kind_offers_no_writes() -> None:
    server, client = await serve()
    await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition(FOO))
    meta = {"name": "a", "namespace": "default", "finalizers": ["example.com/hold"]}
    request = Request(
        "POST",
        "/apis/docs.example.com/v1/namespaces/default/foos",
        [],
        {"content-type": "application/json"},
        orjson.dumps({"apiVersion": "docs.example.com/v1", "kind": "Foo", "metadata": meta}),
        PLATFORM,
    )
    assert (await server.handle(request)).status == 201
    await client.delete(CUSTOM_RESOURCE_DEFINITIONS, "foos.docs.example.com")
    listed = orjson.loads((await ask(server, "/apis/docs.example.com/v1")).body)["resources"][0]
    assert listed["verbs"] == ["delete", "deletecollection", "get", "list", "watch"]
    assert (await server.handle(request)).status == 405
    crd = await client.get(CUSTOM_RESOURCE_DEFINITIONS, "foos.docs.example.com")
    ending = next(c for c in crd["status"]["conditions"] if c["type"] == "Terminating")
    assert (ending["status"], ending["reason"]) == ("True", "InstanceDeletionInProgress")


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/healthz", 200, "ok"),
        ("/livez/etcd", 200, "ok"),
        ("/readyz/ping", 200, "ok"),
        ("/readyz/etcd", 404, "404 page not found\n"),
        ("/livez?verbose=1&exclude=etcd", 200, "[+]etcd excluded: ok"),
        (
            "/livez?verbose=1&exclude=nothing",
            200,
            'warn: some health checks cannot be excluded: no matches for "nothing"',
        ),
        ("/readyz?verbose=1", 200, "[+]shutdown ok\nreadyz check passed\n"),
    ],
)
async def test_health(path: str, status: int, text: str) -> None:
    server, _ = await serve()
    answer = await ask(server, path)
    assert answer.status == status
    assert text in answer.body.decode()


async def test_who_stops_is_not_ready() -> None:
    server, _ = await serve()
    await server.close()
    answer = await ask(server, "/readyz")
    assert answer.status == 500
    assert "[-]shutdown failed: reason withheld\n" in answer.body.decode()
