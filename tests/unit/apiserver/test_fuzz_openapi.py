"""schemathesis makes requests from the server's own OpenAPI v3: no 5xx, and answers as the document says."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
import requests
from fuzz_world import DEFINITIONS, GADGET, JSON, MERGE, World, definition, few, tell
from hypothesis import Phase, given, settings

schemathesis = pytest.importorskip("schemathesis")

CHECKS = [
    schemathesis.checks.response_schema_conformance,
    schemathesis.checks.content_type_conformance,
]
TEMPLATE: dict[str, Any] = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
NAMESPACED = "/namespaces/{namespace}"
#: (document, collection, status of objects)
KINDS = (
    ("api/v1", "/api/v1/namespaces"),
    ("api/v1", f"/api/v1{NAMESPACED}/configmaps"),
    ("api/v1", f"/api/v1{NAMESPACED}/pods"),
    ("api/v1", f"/api/v1{NAMESPACED}/services"),
    ("apis/apps/v1", f"/apis/apps/v1{NAMESPACED}/deployments"),
    ("apis/fuzz.example.org/v1", f"/apis/fuzz.example.org/v1{NAMESPACED}/gadgets"),
)
BELOW = ("", "/{name}", "/{name}/status")
METHODS = ("get", "post", "put", "patch", "delete")


async def documents(world: World) -> dict[str, Any]:
    await world.ask("POST", DEFINITIONS, definition(GADGET))
    paths = sorted({path for path, _ in KINDS})
    return {path: orjson.loads((await world.ask("GET", f"/openapi/v3/{path}")).body) for path in paths}


DOCUMENTS = tell(documents)
SCHEMAS = {path: schemathesis.openapi.from_dict(document) for path, document in DOCUMENTS.items()}
OPERATIONS = [
    (path, collection + below, method)
    for path, collection in KINDS
    for below in BELOW
    for method in METHODS
    if method in DOCUMENTS[path]["paths"].get(collection + below, {})
]


def test_the_operations_are_those_of_upstream() -> None:
    assert len(OPERATIONS) == 6 * (3 + 4 + 3) - 1 - 3, "namespaces have no deletecollection, ConfigMaps no status"


#: To generate pods takes seconds: once is enough.
ONCE = [f for f in OPERATIONS if not (f[2] == "put" and ("/pods/" in f[1] or "/deployments/" in f[1]))]


@pytest.mark.parametrize(("path", "where", "method"), ONCE)
def test_answers_are_as_the_document_says(path: str, where: str, method: str) -> None:
    operation = SCHEMAS[path][where][method.upper()]

    @settings(few(4), phases=[Phase.generate])
    @given(operation.as_strategy())
    def check(case: Any) -> None:
        tell(lambda world: ask(world, case))

    check()


BASE: dict[str, dict[str, Any]] = {
    "namespaces": {"apiVersion": "v1", "kind": "Namespace"},
    "configmaps": {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}},
    "pods": {"apiVersion": "v1", "kind": "Pod", "spec": TEMPLATE["spec"]},
    "services": {"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 80}]}},
    "deployments": {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE},
    },
    "gadgets": {"apiVersion": "fuzz.example.org/v1", "kind": "Gadget", "spec": {"parts": [{"id": "p"}]}},
}


async def ask(world: World, case: Any) -> None:
    """A request as generated, but about an object that is there: otherwise hardly one would pass."""
    await world.ask("POST", DEFINITIONS, definition(GADGET))
    names = {"namespace": "default", "name": "x"}
    where = case.path.format(**names)
    plural = next(word for word in case.path.replace(NAMESPACED, "").split("/") if word in BASE)
    collection = where.partition(f"/{plural}")[0] + f"/{plural}"
    there = {**BASE[plural], "metadata": {"name": "x"}}
    assert (await world.ask("POST", collection, there)).status == 201
    query: dict[str, Any] = {key: str(value) for key, value in (case.query or {}).items() if key != "watch"}
    body, kind = case.body if isinstance(case.body, dict) else {}, JSON
    if case.method in ("POST", "PUT"):
        given_meta = body.get("metadata")
        meta = given_meta if isinstance(given_meta, dict) else {}
        meta = {key: meta[key] for key in ("labels", "annotations", "ownerReferences", "generation") if key in meta}
        body = {**BASE[plural], **body, "apiVersion": there["apiVersion"], "kind": there["kind"]}
        body["metadata"] = {**meta, "name": "y" if case.method == "POST" else "x"}
    elif case.method == "PATCH":
        kind = case.media_type if "patch+" in (case.media_type or "") else MERGE
        query |= {"fieldManager": "m"}
    answer = await world.ask(case.method, where, json.dumps(body).encode(), kind, allow=(504,), **query)
    request = requests.Request(case.method, f"https://server{where}", params=query).prepare()
    headers = {name: [value] for name, value in answer.headers.items()}
    seen = schemathesis.Response(answer.status, headers, answer.body, request, 0.0, False)
    if answer.status < 300 and (case.method, plural) != ("DELETE", "namespaces"):  # said is a Status, as upstream
        case.validate_response(seen, checks=CHECKS)
