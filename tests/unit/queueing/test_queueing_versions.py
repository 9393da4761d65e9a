"""v1beta1 and v1beta2 of Kueue's kinds: converted both ways, whatever their schemas allow, and nothing is lost."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from glebe.kube.crdgen import custom_resource_definition
from glebe.queueing import labels, versions
from glebe.queueing.kinds import KINDS
from glebe.queueing.picture import topology
from glebe.queueing.versions import NEW, OLD, convert

SCHEMAS: dict[tuple[str, str], dict[str, Any]] = {
    (kind.resource.kind, version["name"]): version["schema"]["openAPIV3Schema"]
    for kind in KINDS
    if kind.older
    for version in custom_resource_definition(kind)["spec"]["versions"]
}
NAMES = ("alpha", "beta", "gamma")
words = st.sampled_from(NAMES)


def values_of(schema: dict[str, Any], path: str = "") -> st.SearchStrategy[Any]:
    """Anything that a schema allows, small."""
    if path.endswith(".topologyAssignment"):
        return assignments("slices" in schema["properties"])
    if schema.get("x-kubernetes-int-or-string"):
        return st.sampled_from([0, 3, "1500m", "2Gi"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema["type"]
    if kind == "array":
        return lists_of(schema, path)
    if kind == "object":
        return objects_of(schema, path)
    if schema.get("format") == "date-time":
        return st.just("2026-01-02T03:04:05Z")
    if kind == "integer":
        return st.integers(schema.get("minimum", -5), 9)
    return st.booleans() if kind == "boolean" else words


def lists_of(schema: dict[str, Any], path: str) -> st.SearchStrategy[Any]:
    items, least = values_of(schema["items"], path + "[]"), schema.get("minItems", 0)
    keys = schema.get("x-kubernetes-list-map-keys")
    if keys:
        return st.lists(items, min_size=least, max_size=2, unique_by=lambda i: tuple(str(i[k]) for k in keys))
    return st.lists(items, min_size=least, max_size=2)


def objects_of(schema: dict[str, Any], path: str) -> st.SearchStrategy[Any]:
    properties = schema.get("properties")
    if properties is None:
        inner = schema.get("additionalProperties")
        return st.dictionaries(words, values_of(inner, path + "{}") if inner else words, max_size=2)
    needed = {*schema.get("required", ()), *(n for n, p in properties.items() if path.endswith("[]") and n == "name")}
    made = {n: values_of(p, f"{path}.{n}") for n, p in properties.items()}
    return st.fixed_dictionaries(
        {n: s for n, s in made.items() if n in needed}, optional={n: s for n, s in made.items() if n not in needed}
    )


@st.composite
def assignments(draw: Any, compact: bool) -> dict[str, Any]:
    levels = draw(st.lists(words, min_size=1, max_size=3, unique=True))
    values = st.tuples(*(st.sampled_from(("", "r-1-x", "r-2-x", "q")) for _ in levels))
    found = draw(st.lists(st.tuples(values, st.integers(1, 4)), min_size=1, max_size=5))
    if compact:
        return topology.compact(levels, found)
    return {"levels": levels, "domains": [{"values": list(v), "count": c} for v, c in found]}


def objects(kind: str, version: str) -> st.SearchStrategy[Any]:
    schema = SCHEMAS[kind, version]
    properties = {n: p for n, p in schema["properties"].items() if n not in ("apiVersion", "kind", "metadata")}
    notes = st.one_of(st.none(), st.dictionaries(words, words, min_size=1, max_size=1))
    body = objects_of({**schema, "properties": properties}, "")

    def whole(parts: tuple[dict[str, Any], dict[str, str] | None]) -> dict[str, Any]:
        meta: dict[str, Any] = {"name": "x", "uid": "u"}
        if parts[1] is not None:
            meta["annotations"] = parts[1]
        return {"apiVersion": f"{versions.GROUP}/{version}", "kind": kind, "metadata": meta, **parts[0]}

    return st.tuples(body, notes).map(whole)


def expanded(obj: dict[str, Any]) -> dict[str, Any]:
    """With topology assignments written out, since one can be written in several ways; without an empty default."""
    out = copy.deepcopy(obj)
    if (out.get("spec") or {}).get("priorityClassSource") == "":
        del out["spec"]["priorityClassSource"]
    for a in ((out.get("status") or {}).get("admission") or {}).get("podSetAssignments") or ():
        if "slices" in (a.get("topologyAssignment") or {}):
            a["topologyAssignment"]["slices"] = list(topology.domains(a["topologyAssignment"]))
    return out


def unknown(schema: dict[str, Any], value: Any, path: str = "") -> list[str]:
    """Fields that a schema does not have."""
    if isinstance(value, list):
        return [u for item in value for u in unknown(schema["items"], item, path + "[]")]
    properties = schema.get("properties")
    if not isinstance(value, dict) or properties is None:
        return []
    found = (
        [] if schema.get("x-kubernetes-preserve-unknown-fields") else [f"{path}.{n}" for n in value.keys() - properties]
    )
    return found + [u for n in value.keys() & properties for u in unknown(properties[n], value[n], f"{path}.{n}")]


@pytest.mark.parametrize(("version", "other"), [("v1beta2", OLD), ("v1beta1", NEW)])
@pytest.mark.parametrize("kind", ["ClusterQueue", "LocalQueue", "Workload", "Topology"])
def test_there_and_back_is_the_same(kind: str, version: str, other: str) -> None:
    schema = SCHEMAS[kind, other.rpartition("/")[2]]

    @settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
    @given(objects(kind, version))
    def both_ways(obj: dict[str, Any]) -> None:
        spec = obj.get("spec") or {}
        assume(not (spec.get("admissionChecks") and "admissionChecksStrategy" in spec))  # say the same twice
        before = copy.deepcopy(obj)
        [there] = convert([obj], other)
        assert obj == before, "the object given is not touched"
        assert unknown(schema, {**there, "metadata": {}}) == []
        [back] = convert([there], before["apiVersion"])
        assert expanded(back) == expanded(before)

    both_ways()


def test_other_kinds_differ_by_deprecated_fields_only() -> None:
    for kind in {kind for kind, _ in SCHEMAS} - set(versions.FORMS):
        old_ones, new_ones = (set(fields_of(SCHEMAS[kind, v])) for v in ("v1beta1", "v1beta2"))
        assert new_ones - old_ones == set(), kind
        assert old_ones - new_ones <= {".spec.retryDelayMinutes", *PAST_USE}, kind


PAST = ".status.fairSharing.admissionFairSharingStatus"
PAST_USE = {PAST, f"{PAST}.consumedResources", f"{PAST}.lastUpdate"}


def fields_of(schema: dict[str, Any], path: str = "") -> Iterator[str]:
    for name, inner in (schema.get("properties") or schema.get("items", {}).get("properties") or {}).items():
        yield f"{path}.{name}"
        yield from fields_of(inner, f"{path}.{name}")


def cluster_queue(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": OLD, "kind": "ClusterQueue", "metadata": {"name": "q"}, "spec": spec}


def new(obj: dict[str, Any]) -> dict[str, Any]:
    return convert([obj], NEW)[0]


def old(obj: dict[str, Any]) -> dict[str, Any]:
    return convert([obj], OLD)[0]


def test_words_that_v1beta2_says_otherwise() -> None:
    queue = new(
        cluster_queue(
            cohort="all",
            admissionChecks=["a", "b"],
            flavorFungibility={"whenCanBorrow": "Borrow", "whenCanPreempt": "Preempt"},
        )
    )
    assert queue["spec"] == {
        "cohortName": "all",
        "admissionChecksStrategy": {"admissionChecks": [{"name": "a"}, {"name": "b"}]},
        "flavorFungibility": {"whenCanBorrow": "MayStopSearch", "whenCanPreempt": "MayStopSearch"},
    }
    queue["spec"]["admissionChecksStrategy"]["admissionChecks"].pop()
    queue["spec"]["flavorFungibility"]["whenCanBorrow"] = "TryNextFlavor"
    assert old(queue)["spec"] == {
        "cohort": "all",
        "admissionChecksStrategy": {"admissionChecks": [{"name": "a"}]},
        "flavorFungibility": {"whenCanBorrow": "TryNextFlavor", "whenCanPreempt": "Preempt"},
    }, "what was changed since is shown as it is, what was not in the words of its writer"


def test_a_client_of_v1beta1_does_not_lose_what_it_does_not_know() -> None:
    request = {"podsetSliceRequiredTopologyConstraints": [{"topology": "rack", "size": 2}]}
    stored = {
        "apiVersion": NEW,
        "kind": "Workload",
        "metadata": {"name": "w"},
        "spec": {
            "priority": 1,
            "priorityClassRef": {"group": "glebe.dev", "kind": "WorkloadClass", "name": "batch"},
            "preemptionGates": [{"name": "g"}],
            "podSets": [
                {"name": "a", "template": {}},
                {
                    "name": "b",
                    "template": {},
                    "topologyRequest": request,
                },
            ],
        },
    }
    seen = old(stored)
    assert "priorityClassName" not in seen["spec"]
    seen["spec"]["active"] = False
    seen["spec"]["podSets"].reverse()
    wanted = copy.deepcopy(stored)
    wanted["spec"]["active"] = False
    wanted["spec"]["podSets"].reverse()
    assert new(seen) == wanted
    seen["spec"] |= {"priorityClassName": "urgent", "priorityClassSource": "kueue.x-k8s.io/workloadpriorityclass"}
    del seen["spec"]["podSets"][0]
    changed = new(seen)["spec"]
    assert changed["priorityClassRef"]["name"] == "urgent"
    assert changed["podSets"] == [{"name": "a", "template": {}}]


def test_assignments_by_topology_are_rewritten() -> None:
    given_domains = [{"values": ["b1", "r1"], "count": 4}, {"values": ["b1", "r2"], "count": 2}]
    workload = {
        "apiVersion": OLD,
        "kind": "Workload",
        "metadata": {"name": "w"},
        "status": {
            "accumulatedPastExexcutionTimeSeconds": 7,
            "admission": {
                "clusterQueue": "q",
                "podSetAssignments": [
                    {"name": "main", "topologyAssignment": {"levels": ["block", "rack"], "domains": given_domains}}
                ],
            },
        },
    }
    status = new(workload)["status"]
    assert status["accumulatedPastExecutionTimeSeconds"] == 7
    [made] = status["admission"]["podSetAssignments"][0]["topologyAssignment"]["slices"]
    assert made == {
        "domainCount": 2,
        "valuesPerLevel": [{"universal": "b1"}, {"individual": {"prefix": "r", "roots": ["1", "2"]}}],
        "podCounts": {"individual": [4, 2]},
    }


def test_what_somebody_else_put_into_the_annotation_does_no_harm() -> None:
    for text in ("{", '[["a"]]', "[[1,2]]", '[[["spec","x",{"name":1}],2]]', '[[["metadata","name"],"other"]]'):
        queue = cluster_queue()
        queue["metadata"]["annotations"] = {labels.FIELDS_OF_V1BETA2: text}
        assert new(queue) == {"apiVersion": NEW, "kind": "ClusterQueue", "metadata": {"name": "q"}, "spec": {}}


def test_reviews_are_answered() -> None:
    request = {"uid": "1", "desiredAPIVersion": NEW, "objects": [cluster_queue(cohort="c")]}
    answer = versions.review({"request": request})["response"]
    assert answer["uid"] == "1"
    assert answer["result"] == {"status": "Success"}
    assert answer["convertedObjects"][0]["spec"] == {"cohortName": "c"}
    refused = versions.review({"request": {**request, "desiredAPIVersion": "kueue.x-k8s.io/v9"}})["response"]
    assert refused["result"]["status"] == "Failure"
    assert "v9" in refused["result"]["message"]
