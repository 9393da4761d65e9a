"""Field validation of custom resources: unknown and repeated fields, ratcheting, what server-side apply may name."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.resources import CUSTOM_RESOURCE_DEFINITIONS, Resource
from glebe.kube.transport import PLATFORM, Request

KIND = Resource("cr.example.org", "v1", "noxus", "Noxu", True)
PATH = f"/apis/{KIND.api_version}/namespaces/default/noxus"
STRING = {"type": "string"}
SPEC: dict[str, Any] = {
    "type": "object",
    "properties": {
        "foo": STRING,
        "list": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "required": ["k"], "properties": {"k": STRING, "v": STRING}},
        },
        "template": {
            "type": "object",
            "x-kubernetes-embedded-resource": True,
            "x-kubernetes-preserve-unknown-fields": True,
        },
    },
}


def definition(spec: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"spec": spec}}
    versions = [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}]
    names = {"plural": KIND.plural, "singular": "noxu", "kind": "Noxu", "listKind": "NoxuList"}
    whole = {"group": KIND.group, "scope": "Namespaced", "names": names, "versions": versions}
    kind = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    return {**kind, "metadata": {"name": f"noxus.{KIND.group}"}, "spec": whole}


async def serve(spec: dict[str, Any] = SPEC) -> tuple[ApiServer, Client]:
    server = ApiServer(MemoryStore(), Env.seeded(1), TypeRegistry())
    await server.start()
    client = Client(InProcessTransport(server.handle))
    await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition(spec))
    return server, client


async def send(
    server: ApiServer, method: str, body: str, mode: str, kind: str = "application/json"
) -> tuple[int, str, str]:
    """(status, message, warnings)."""
    path = PATH if method == "POST" else f"{PATH}/mytest"
    query = [("fieldValidation", mode), ("fieldManager", "m"), ("dryRun", "All")]
    answer = await server.handle(Request(method, path, query, {"content-type": kind}, body.encode(), PLATFORM))
    return answer.status, orjson.loads(answer.body).get("message", ""), answer.headers.get("warning", "")


HEAD = f'"apiVersion":"{KIND.api_version}","kind":"Noxu"'
UNKNOWN = f'{{{HEAD},"metadata":{{"name":"a","unknownMeta":1}},"spec":{{"foo":"1","foo":"2","bar":1}},"extra":1}}'
EMBEDDED = (
    f'{{{HEAD},"metadata":{{"name":"a"}},"spec":{{"template":{{"apiVersion":"v1","kind":"Sub",'
    '"metadata":{"name":"n","unknownSubMeta":1},"spec":{"anything":1}}}}'
)


async def test_unknown_and_repeated_fields_of_a_body() -> None:
    server, _ = await serve()
    listed = (
        'duplicate field "spec.foo", unknown field "extra", unknown field "metadata.unknownMeta", '
        'unknown field "spec.bar"'
    )
    start = 'Noxu in version "v1" cannot be handled as a Noxu: strict decoding error: '
    assert await send(server, "POST", UNKNOWN, "Strict") == (400, start + listed, "")
    status, _, warnings = await send(server, "POST", UNKNOWN, "Warn")
    assert status == 201
    assert warnings.count("299 - ") == 4
    assert await send(server, "POST", UNKNOWN, "Ignore") == (201, "", "")
    status, message, _ = await send(server, "POST", EMBEDDED, "Strict")
    assert (status, message) == (400, start + 'unknown field "spec.template.metadata.unknownSubMeta"')


YAML = f"""
apiVersion: {KIND.api_version}
kind: Noxu
metadata:
  name: mytest
spec:
  foo: one
  foo: two
"""
UNDECLARED = f"""
apiVersion: {KIND.api_version}
kind: Noxu
metadata:
  name: mytest
  unknownMeta: 1
spec:
  bar: one
  list:
  - k: a
    w: 1
"""


async def test_what_is_applied_must_be_declared_and_said_once() -> None:
    server, _ = await serve()
    apply = "application/apply-patch+yaml"
    repeated = 'line 8: key "foo" already set in map'
    message = f"error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  {repeated}"
    assert await send(server, "PATCH", YAML, "Strict", apply) == (400, message, "")
    status, _, warnings = await send(server, "PATCH", YAML, "Warn", apply)
    assert (status, repeated.replace('"', '\\"') in warnings) == (201, True)
    status, message, _ = await send(server, "PATCH", UNDECLARED, "Ignore", apply)
    assert status == 500
    assert message == (
        f"failed to create typed patch object (default/mytest; {KIND.api_version}, Kind=Noxu): errors:\n"
        "  .metadata.unknownMeta: field not declared in schema\n"
        "  .spec.bar: field not declared in schema\n"
        '  .spec.list[k="a"].w: field not declared in schema'
    )


async def test_free_objects_may_hold_anything_but_nothing_twice() -> None:
    server, _ = await serve({"type": "object", "x-kubernetes-preserve-unknown-fields": True})
    body = f'{{{HEAD},"metadata":{{"name":"a"}},"spec":{{"any":1,"deep":{{"a":1,"a":2}}}}}}'
    status, message, _ = await send(server, "POST", body, "Strict")
    assert (status, message.rpartition("error: ")[2]) == (400, 'duplicate field "spec.deep.a"')
    status, *_ = await send(
        server, "PATCH", YAML.replace("foo: two", "bar: two"), "Strict", "application/apply-patch+yaml"
    )
    assert status == 201


async def test_what_was_let_in_once_is_not_held_against_other_changes() -> None:
    _, client = await serve()
    meta = {"name": "a", "namespace": "default"}
    spec = {"foo": "long text", "list": [{"k": "1", "v": "long"}, {"k": "2", "v": "x"}]}
    await client.create(KIND, {"apiVersion": KIND.api_version, "kind": "Noxu", "metadata": meta, "spec": spec})
    crd = await client.get(CUSTOM_RESOURCE_DEFINITIONS, f"noxus.{KIND.group}")
    properties = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    properties["foo"] = {"type": "string", "maxLength": 4}
    properties["list"]["items"]["properties"]["v"] = {"type": "string", "maxLength": 2}
    await client.update(CUSTOM_RESOURCE_DEFINITIONS, crd)
    await client.patch(KIND, "a", {"metadata": {"labels": {"x": "y"}}}, "default")
    await client.patch(KIND, "a", {"spec": {"list": [{"k": "2", "v": "y"}, {"k": "1", "v": "long"}]}}, "default")
    for change in ({"foo": "other text"}, {"list": [{"k": "1", "v": "longer"}]}, {"list": [{"k": "3", "v": "long"}]}):
        with pytest.raises(ApiError) as caught:
            await client.patch(KIND, "a", {"spec": change}, "default")
        assert caught.value.code == 422


async def test_unknown_formats_are_warned_of() -> None:
    server, _ = await serve()
    crd = definition(
        {
            "type": "object",
            "properties": {"a": {**STRING, "format": "frobnicate"}, "b": {**STRING, "format": "date-time"}},
        }
    )
    crd["metadata"]["name"], crd["spec"]["names"] = (
        f"others.{KIND.group}",
        {"plural": "others", "singular": "other", "kind": "Other", "listKind": "OtherList"},
    )
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    headers = {"content-type": "application/json"}
    answer = await server.handle(Request("POST", path, [], headers, orjson.dumps(crd), PLATFORM))
    assert (answer.status, answer.headers["warning"]) == (201, '299 - "unrecognized format \\"frobnicate\\""')
