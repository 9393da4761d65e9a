"""Discovery and the rules of custom kinds, beside a real kube-apiserver: the answers must be the same."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import orjson
import pytest
from kube_peer import real_kubernetes

from glebe.apiserver.discovery import groups as discovery
from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.resources import CUSTOM_RESOURCE_DEFINITIONS

pytestmark = [pytest.mark.cluster, pytest.mark.realtime]

STRING = {"type": "string"}


def obj(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def definition(schema: Any = None, **spec: Any) -> dict[str, Any]:
    names = {"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList"}
    versions = [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema or obj()}}]
    whole = {"group": "cmp.example.org", "scope": "Namespaced", "names": names, "versions": versions, **spec}
    kind = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    return {**kind, "metadata": {"name": f"foos.{whole['group']}"}, "spec": whole}


def version(**fields: Any) -> dict[str, Any]:
    return {**definition()["spec"]["versions"][0], **fields}


EITHER = [{"type": "integer"}, {"type": "string"}]
EMBEDDED = {"type": "object", "x-kubernetes-embedded-resource": True}
MAP_KEYS = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k", "o", "z", "n", "k"]}
BAD: dict[str, dict[str, Any]] = {
    "names left out": definition(names={"plural": "foos", "kind": "Foo"}),
    "names": definition(
        names={
            "plural": "foos",
            "singular": "-f",
            "kind": "Foo",
            "listKind": "Foo",
            "shortNames": ["A"],
            "categories": ["X"],
        }
    ),
    "scope": definition(scope="Somewhere"),
    "group": definition(group="cmp"),
    "versions": definition(versions=[]),
    "no schema": definition(versions=[{"name": "v1", "served": True, "storage": True}]),
    "types": definition({"properties": {"a": {"items": STRING}, "b": {}}}),
    "root": definition({"type": "array", "items": STRING}),
    "items": definition(obj(a={"type": "array"}, b={"type": "array", "items": [STRING]})),
    "both": definition(obj(a={**obj(x=STRING), "additionalProperties": STRING})),
    "root map": definition({"type": "object", "additionalProperties": STRING}),
    "junctors": definition(
        obj(
            a={
                **obj(x=STRING),
                "anyOf": [{"properties": {"x": {"type": "string", "description": "d"}, "y": {"minLength": 1}}}],
                "not": {"required": ["x"], "nullable": True, "default": "x"},
            }
        )
    ),
    "int or string": definition(
        obj(
            a={"x-kubernetes-int-or-string": True, "x-kubernetes-preserve-unknown-fields": True},
            b={"x-kubernetes-int-or-string": True, "anyOf": EITHER[::-1]},
            c={"x-kubernetes-int-or-string": True, "anyOf": EITHER},
        )
    ),
    "embedded": definition(
        obj(
            a={"x-kubernetes-embedded-resource": True},
            b=EMBEDDED,
            c={**EMBEDDED, "properties": {"kind": {"type": "integer"}, "metadata": STRING}},
        )
    ),
    "metadata": definition(obj(metadata=obj(labels={"type": "object"}))),
    "lists": definition(
        obj(
            a={"type": "string", "x-kubernetes-list-type": "set"},
            b={"type": "array", "items": STRING, "x-kubernetes-list-type": "foo"},
            c={"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "set"},
            e={"type": "array", "items": STRING, "x-kubernetes-list-map-keys": ["a"]},
        )
    ),
    "maps": definition(
        obj(
            a={"type": "array", "items": STRING, "x-kubernetes-list-type": "map"},
            b={"type": "array", "items": obj(k=STRING, o=obj(), n={**STRING, "nullable": True}), **MAP_KEYS},
            c={"type": "string", "x-kubernetes-map-type": "bad"},
        )
    ),
    "keywords": definition(
        obj(
            a={"type": "string", "id": "x", "$ref": "y"},
            b={"type": "object", "patternProperties": {"a": STRING}},
            c={"type": "null"},
            d={"type": "frob"},
            e={"type": "array", "items": STRING, "uniqueItems": True},
        )
    ),
    "pattern": definition(obj(a={"type": "string", "pattern": "a(b"})),
    "nullable root": definition({"type": "object", "nullable": True}),
    "defaults": definition(
        obj(
            a={"type": "integer", "default": "x"},
            b={**obj(x=STRING), "default": {"y": 1}},
            c={"type": "string", "enum": ["a", "b"], "default": "c"},
            metadata={"type": "object", "default": {}},
        )
    ),
    "scale": definition(
        versions=[version(subresources={"scale": {"specReplicasPath": ".foo", "statusReplicasPath": "status.x"}})]
    ),
    "columns": definition(
        versions=[version(additionalPrinterColumns=[{"name": "a", "type": "foo", "jsonPath": "x", "format": "foo"}])]
    ),
    "selectable": definition(
        versions=[
            version(
                schema={"openAPIV3Schema": obj(spec=obj(a=STRING, b=obj()))},
                selectableFields=[
                    {"jsonPath": p} for p in (".spec.a", ".spec.a", ".spec.b", ".spec.z", ".spec['a']", "spec")
                ],
            )
        ]
    ),
    "deprecation": definition(versions=[version(deprecationWarning="x")]),
    "conversion": definition(conversion={"strategy": "Webhook"}),
    "client": definition(
        conversion={
            "strategy": "Webhook",
            "webhook": {"conversionReviewVersions": ["v3", "v3"], "clientConfig": {"url": "http://u:p@x/y?z#f"}},
        }
    ),
    "preserve": definition(preserveUnknownFields=True),
    "protected": definition(group="x.k8s.io"),
    "rules": definition(
        obj(
            a={
                "type": "object",
                "x-kubernetes-validations": [
                    {"rule": " "},
                    {"rule": "true", "message": " "},
                    {"rule": "true\n&& true"},
                    {"rule": "true", "reason": "Foo"},
                    {"rule": "true", "fieldPath": ".zz"},
                ],
            }
        )
    ),
}


async def refusal(client: Client, crd: dict[str, Any]) -> Any:
    """(code, its causes in order), or 201."""
    try:
        await client.create(CUSTOM_RESOURCE_DEFINITIONS, copy.deepcopy(crd))
    except ApiError as error:
        causes = (error.details or {}).get("causes") or ()
        return error.code, sorted((c.get("field", ""), c.get("reason", ""), c.get("message", "")) for c in causes)
    return 201, []


async def test_the_server_says_of_itself_what_upstream_says(tmp_path: Path) -> None:
    with real_kubernetes(tmp_path) as peer:
        client = peer.client()
        try:
            await peer.ready(client)
            registry = TypeRegistry()
            groups = orjson.loads((await client.raw("GET", "/apis")).body)["groups"]
            ours = {g["name"]: g for g in discovery.group_list(registry, "root")["groups"]}
            assert list(ours) == [g["name"] for g in groups]
            for group in groups:
                assert ours[group["name"]]["versions"] == group["versions"]
                assert ours[group["name"]]["preferredVersion"] == group["preferredVersion"]
            versions = ["v1", *(v["groupVersion"] for g in groups for v in g["versions"])]
            for name in versions:
                path = f"/apis/{name}" if "/" in name else f"/api/{name}"
                theirs = orjson.loads((await client.raw("GET", path)).body)
                group, _, number = name.rpartition("/")
                assert discovery.resource_list(registry, "root", group, number) == theirs, name
            server = ApiServer(MemoryStore(), Env.system(), registry)
            await server.start()
            mine = Client(InProcessTransport(server.handle))
            for name, crd in BAD.items():
                assert await refusal(mine, crd) == await refusal(client, crd), name
            await server.close()
        finally:
            await client.close()
