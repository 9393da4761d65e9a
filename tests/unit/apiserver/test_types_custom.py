"""Custom resources: pruning, defaulting, validation and printing by their schema; the rules of definitions."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glebe.apiserver.printers import table
from glebe.apiserver.types import structural
from glebe.apiserver.types.defaults import apply_defaults
from glebe.apiserver.types.jsonpath import compile_path
from glebe.apiserver.types.prune import prune
from glebe.apiserver.types.registry import TypeRegistry
from glebe.apiserver.types.validation import validate

STRING, INTEGER = {"type": "string"}, {"type": "integer"}
FIELDS: dict[str, Any] = {
    "req": STRING,
    "n": {"type": "integer", "minimum": 1, "maximum": 10, "multipleOf": 2},
    "s": {"type": "string", "minLength": 2, "maxLength": 4, "pattern": "^a.*$"},
    "e": {"type": "string", "enum": ["a", "b"]},
    "l": {"type": "array", "minItems": 1, "maxItems": 2, "items": INTEGER},
    "set": {"type": "array", "items": STRING, "x-kubernetes-list-type": "set"},
    "m": {
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["k"],
        "items": {"type": "object", "required": ["k"], "properties": {"k": STRING, "v": INTEGER}},
    },
    "mp": {"type": "object", "additionalProperties": INTEGER, "maxProperties": 2},
    "ios": {"x-kubernetes-int-or-string": True},
    "qty": {"x-kubernetes-int-or-string": True, "pattern": "^[0-9]+[km]?$", "minimum": 0},
    "nul": {"type": "string", "nullable": True},
    "d": {"type": "integer", "default": 5},
    "do": {"type": "object", "default": {}, "properties": {"x": {"type": "string", "default": "q"}}},
    "i32": {"type": "integer", "format": "int32"},
    "t": {"type": "string", "format": "date-time"},
    "any": {"x-kubernetes-preserve-unknown-fields": True},
    "one": {
        "type": "object",
        "properties": {"a": STRING, "b": STRING},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
    },
}
CRD: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "foos.x.io"},
    "spec": {
        "group": "x.io",
        "scope": "Namespaced",
        "names": {"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "required": ["spec"],
                        "properties": {"spec": {"type": "object", "required": ["req"], "properties": FIELDS}},
                    }
                },
                "additionalPrinterColumns": [
                    {"name": "N", "type": "integer", "jsonPath": ".spec.n"},
                    {"name": "First", "type": "string", "jsonPath": '.spec.m[?(@.k=="one")].v'},
                ],
            }
        ],
    },
    "status": {"conditions": [{"type": "Established", "status": "True"}], "storedVersions": ["v1"]},
}
REGISTRY = TypeRegistry()
FOOS = REGISTRY.set_crd("root", CRD)[0]
DEFINITIONS = REGISTRY.lookup("root", "apiextensions.k8s.io", "v1", "customresourcedefinitions")


def foo(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "x.io/v1", "kind": "Foo", "metadata": {"name": "f"}, "spec": {"req": "r", **spec}}


def faults(obj: dict[str, Any]) -> list[str]:
    prune(FOOS, obj)
    apply_defaults(FOOS, obj)
    return [c.text() for c in validate(FOOS, obj)]


@pytest.mark.parametrize(
    ("spec", "want"),
    [
        ({"req": 1}, ['spec.req: Invalid value: "integer": spec.req in body must be of type string: "integer"']),
        ({"n": 0}, ["spec.n: Invalid value: 0: spec.n in body should be greater than or equal to 1"]),
        (
            {"n": 11},
            [
                "spec.n: Invalid value: 11: spec.n in body should be a multiple of 2",
                "spec.n: Invalid value: 11: spec.n in body should be less than or equal to 10",
            ],
        ),
        ({"s": "a"}, ['spec.s: Invalid value: "a": spec.s in body should be at least 2 chars long']),
        ({"s": "aaaaa"}, ["spec.s: Too long: may not be more than 4 bytes"]),
        ({"s": "bbb"}, ["spec.s: Invalid value: \"bbb\": spec.s in body should match '^a.*$'"]),
        ({"e": "c"}, ['spec.e: Unsupported value: "c": supported values: "a", "b"']),
        ({"l": [1, 2, 3]}, ["spec.l: Too many: 3: must have at most 2 items"]),
        ({"l": ["x"]}, ['spec.l[0]: Invalid value: "string": spec.l[0] in body must be of type integer: "string"']),
        ({"set": ["a", "a"]}, ['spec.set[1]: Duplicate value: "a"']),
        ({"m": [{"k": "a"}, {"k": "a"}]}, ['spec.m[1]: Duplicate value: {"k":"a"}']),
        ({"m": [{"v": 1}]}, ["spec.m[0].k: Required value"]),
        ({"mp": {"a": 1, "b": 2, "c": 3}}, ["spec.mp: Too many: 3: must have at most 2 items"]),
        (
            {"ios": True},
            ['spec.ios: Invalid value: "boolean": spec.ios in body must be of type integer,string: "boolean"'],
        ),
        ({"qty": "5k"}, []),
        ({"qty": 5}, []),
        ({"qty": "lots"}, ["spec.qty: Invalid value: \"lots\": spec.qty in body should match '^[0-9]+[km]?$'"]),
        ({"qty": -1}, ["spec.qty: Invalid value: -1: spec.qty in body should be greater than or equal to 0"]),
        ({"req": None}, ["spec.req: Required value"]),
        ({"t": "x"}, ['spec.t: Invalid value: "x": spec.t in body must be of type date-time: "x"']),
        (
            {"one": {"a": "1", "b": "2"}},
            [
                '<nil>: Invalid value: "": "spec.one" must validate one and only one schema (oneOf). '
                "Found 2 valid alternatives"
            ],
        ),
    ],
)
def test_faults_are_worded_as_upstream_words_them(spec: dict[str, Any], want: list[str]) -> None:
    assert faults(foo(**spec)) == want


def test_defaults_nulls_and_unknown_fields() -> None:
    obj = foo(unk=1, do={"zz": 1}, n=None, nul=None, d=None, any={"x": None})
    assert sorted(prune(FOOS, obj)) == ["spec.do.zz", "spec.unk"]
    apply_defaults(FOOS, obj)
    assert obj["spec"] == {"req": "r", "do": {"x": "q"}, "nul": None, "d": 5, "any": {"x": None}}


def test_cel_rules() -> None:
    crd = copy.deepcopy(CRD)
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["properties"] |= {
        "cel": {**INTEGER, "x-kubernetes-validations": [{"rule": "self > 3", "message": "must be big"}]},
        "cel2": {**INTEGER, "x-kubernetes-validations": [{"rule": "self > 3"}]},
        "imm": {**STRING, "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "is immutable"}]},
        "odd": {**STRING, "x-kubernetes-validations": [{"rule": "quantity(self).isInteger()"}]},
    }
    kind = TypeRegistry().set_crd("team", crd)[0]
    assert [c.text() for c in validate(kind, foo(cel=1, cel2=1))] == [
        "spec.cel: Invalid value: 1: must be big",
        "spec.cel2: Invalid value: 1: failed rule: self > 3",
    ]
    assert validate(kind, foo(cel=4, imm="a", odd="1")) == []
    assert [c.text() for c in validate(kind, foo(imm="b"), foo(imm="a"))] == [
        'spec.imm: Invalid value: "b": is immutable'
    ]


def test_a_definition_must_be_structural() -> None:
    assert DEFINITIONS is not None
    assert validate(DEFINITIONS, copy.deepcopy(CRD)) == []
    bad = copy.deepcopy(CRD)
    bad["metadata"]["name"] = "bars.x.io"
    schema = bad["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["properties"]["l"] = {"type": "array"}
    schema["properties"]["spec"]["properties"]["x"] = {}
    fields = [c.field for c in validate(DEFINITIONS, bad)]
    base = "spec.validation.openAPIV3Schema.properties[spec].properties"
    assert fields == ["metadata.name", f"{base}[l].items", f"{base}[x].type"]


def test_two_versions_are_served_and_go_with_their_definition() -> None:
    registry = TypeRegistry()
    crd = copy.deepcopy(CRD)
    old = copy.deepcopy(crd["spec"]["versions"][0])
    crd["spec"]["versions"].append({**old, "name": "v1beta1", "storage": False})
    registry.set_crd("team", crd)
    found = registry.lookup("team", "x.io", "v1beta1", "foos")
    assert found is not None
    assert found.storage_version == "v1"
    assert registry.lookup("root", "x.io", "v1", "foos") is None
    before = registry.fingerprint("team")
    registry.remove_crd("team", crd)
    assert registry.lookup("team", "x.io", "v1", "foos") is None
    assert registry.fingerprint("team") != before


def test_printer_columns() -> None:
    obj = foo(n=4, m=[{"k": "one", "v": 7}])
    made = table.to_table(FOOS, [obj], 0.0, {})
    assert [c["name"] for c in made["columnDefinitions"]] == ["Name", "N", "First"]
    assert made["rows"][0]["cells"] == ["f", 4, "7"]


@pytest.mark.parametrize(
    ("path", "want"),
    [
        (".a.b", [1]),
        ("{.a.b}", [1]),
        (".l[0]", ["x"]),
        (".l[-1]", ["y"]),
        (".l[*]", ["x", "y"]),
        ('.c[?(@.type=="Ready")].status', ["True"]),
        (".labels['a.b/c']", ["v"]),
        (".labels.a\\.b/c", ["v"]),
        (".missing.b", []),
    ],
)
def test_json_paths(path: str, want: list[Any]) -> None:
    value = {
        "a": {"b": 1},
        "l": ["x", "y"],
        "c": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}],
        "labels": {"a.b/c": "v"},
    }
    assert compile_path(path)(value) == want


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 20) | st.sampled_from(["a", "aa", "b", "r"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*FIELDS, "k", "v", "x", "?"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from([*FIELDS, "zz"]), _JSON, max_size=6))
def test_any_object_settles_and_the_quick_check_agrees_with_the_walk(spec: dict[str, Any]) -> None:
    obj = foo(**spec)
    prune(FOOS, obj)
    apply_defaults(FOOS, obj)
    once = copy.deepcopy(obj)
    assert prune(FOOS, obj) == []
    apply_defaults(FOOS, obj)
    assert obj == once
    schema = FOOS.schema
    assert schema is not None
    causes: list[Any] = []
    structural._walk(schema, obj, "", causes)
    assert schema.validator(obj) == (not causes)
