"""Discovery, OpenAPI and tables of the built-in kinds."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from glebe.apiserver.discovery import groups as discovery
from glebe.apiserver.discovery.openapi import documents as openapi
from glebe.apiserver.printers.table import to_table
from glebe.apiserver.types.registry import TypeRegistry, builtins

REGISTRY = TypeRegistry()
NOW = 1_767_225_900.0  # five minutes after the objects below were made
META = {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"}


def references(node: Any) -> set[str]:
    if isinstance(node, list):
        return {ref for item in node for ref in references(item)}
    if not isinstance(node, dict):
        return set()
    own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
    return own.union(*(references(value) for value in node.values()))


async def test_openapi_refers_only_to_what_it_holds() -> None:
    document = orjson.loads(await openapi.v2(REGISTRY, "root"))
    assert references(document) <= {f"#/definitions/{name}" for name in document["definitions"]}
    assert document["definitions"]["io.k8s.api.batch.v1.JobSpec"]["properties"]["parallelism"]["description"]
    index = openapi.v3_index(REGISTRY, "root")["paths"]
    for name in index:
        _, _, rest = name.partition("/")
        group, _, version = rest.rpartition("/")
        part = orjson.loads(await openapi.v3_group(REGISTRY, "root", group, version))
        held = {f"#/components/schemas/{schema}" for schema in part["components"]["schemas"]}
        assert references(part) <= held, name


async def test_openapi_says_that_patches_take_field_validation() -> None:
    part = orjson.loads(await openapi.v3_group(REGISTRY, "root", "batch", "v1"))
    patch = part["paths"]["/apis/batch/v1/namespaces/{namespace}/jobs/{name}"]["patch"]
    assert {"dryRun", "fieldValidation"} <= {p["name"] for p in patch["parameters"]}


def test_both_forms_of_discovery_tell_the_same() -> None:
    old = {
        (found["groupVersion"], r["name"])
        for group, versions in discovery.groups(REGISTRY, "root").items()
        for version in versions
        if (found := discovery.resource_list(REGISTRY, "root", group, version))
        for r in found["resources"]
    }
    new = set()
    for core in (True, False):
        for item in discovery.aggregated(REGISTRY, "root", core=core)["items"]:
            for version in item["versions"]:
                name = item["metadata"].get("name")
                where = f"{name}/{version['version']}" if name else version["version"]
                for resource in version["resources"]:
                    new.add((where, resource["resource"]))
                    new |= {
                        (where, f"{resource['resource']}/{s['subresource']}") for s in resource.get("subresources", ())
                    }
    assert old == new


@pytest.mark.parametrize(
    ("accept", "want"),
    [
        ("application/json", ""),
        ("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json", "v2"),
        ("application/json;g=apidiscovery.k8s.io;v=v3;as=APIGroupDiscoveryList,application/json", ""),
        ("application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList", "v2beta1"),
    ],
)
def test_which_form_of_discovery_is_wanted(accept: str, want: str) -> None:
    assert discovery.media_type(accept) == want


def test_every_kind_fills_its_columns() -> None:
    for kind in builtins():
        made = to_table(kind, [{"kind": kind.kind, "metadata": META}], NOW, {})
        extra = kind.plural == "ipaddresses"  # upstream has no column for its age either
        assert len(made["rows"][0]["cells"]) == len(made["columnDefinitions"]) + extra, kind


def cells(plural: str, group: str, obj: dict[str, Any]) -> list[Any]:
    kind = REGISTRY.lookup("root", group, "v1", plural)
    assert kind is not None
    row: list[Any] = to_table(kind, [{"metadata": META, **obj}], NOW, {})["rows"][0]["cells"]
    return row


def test_rows_read_as_kubectl_shows_them() -> None:
    waiting = {"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}, "restartCount": 2}]}
    pod = {"spec": {"containers": [{}]}, "status": {"phase": "Pending", **waiting}}
    assert cells("pods", "", pod)[:5] == ["a", "0/1", "ImagePullBackOff", "2", "5m"]
    running = {"containerStatuses": [{"state": {"running": {}}, "ready": True}]}
    ending = {"metadata": {**META, "deletionTimestamp": "x"}, "status": {"phase": "Running", **running}}
    assert cells("pods", "", {"spec": {"containers": [{}]}, **ending})[1:3] == ["1/1", "Terminating"]
    job = {"spec": {"completions": 4}, "status": {"succeeded": 1, "startTime": "2026-01-01T00:01:00Z"}}
    assert cells("jobs", "batch", job)[:5] == ["a", "Running", "1/4", "4m", "5m"]
    node = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}, "spec": {"unschedulable": True}}
    assert cells("nodes", "", node)[1] == "NotReady,SchedulingDisabled"
