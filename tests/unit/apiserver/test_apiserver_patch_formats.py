"""JSON patch, merge patch and strategic merge patch as pure functions."""

from __future__ import annotations

import copy
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from glebe.apiserver.patch import json_patch, merge_patch, strategic
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.errors import ApiError

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


def pod_schema() -> Any:
    info = TypeRegistry().lookup("root", "", "v1", "pods")
    assert info is not None
    return info.schema


def patched(spec: dict[str, Any], patch: dict[str, Any]) -> Any:
    return strategic.apply({"spec": copy.deepcopy(spec)}, {"spec": patch}, pod_schema())["spec"]


def containers(*names: str) -> dict[str, Any]:
    return {"containers": [{"name": n, "image": n} for n in names]}


def names(spec: dict[str, Any]) -> list[str]:
    return [c["name"] for c in spec["containers"]]


# -- RFC 6902 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "operation", "result"),
    [
        ({"a": 1}, {"op": "add", "path": "/b", "value": 2}, {"a": 1, "b": 2}),
        ({"a": [1, 3]}, {"op": "add", "path": "/a/1", "value": 2}, {"a": [1, 2, 3]}),
        ({"a": [1]}, {"op": "add", "path": "/a/-", "value": 2}, {"a": [1, 2]}),
        ({"a": 1}, {"op": "add", "path": "", "value": []}, []),
        ({"a/b": {"c~d": 1}}, {"op": "remove", "path": "/a~1b/c~0d"}, {"a/b": {}}),
        ({"a": [1, 2]}, {"op": "remove", "path": "/a/0"}, {"a": [2]}),
        ({"a": {"b": 1}}, {"op": "replace", "path": "/a/b", "value": None}, {"a": {"b": None}}),
        ({"a": {"b": 1}}, {"op": "move", "from": "/a/b", "path": "/c"}, {"a": {}, "c": 1}),
        ({"a": {"b": [1]}}, {"op": "copy", "from": "/a", "path": "/c"}, {"a": {"b": [1]}, "c": {"b": [1]}}),
        ({"a": 1}, {"op": "test", "path": "/a", "value": 1.0}, {"a": 1}),
        ({}, {"op": "test", "path": "/a", "value": None}, {}),
        ({"": 1}, {"op": "replace", "path": "/", "value": 2}, {"": 2}),
    ],
)
def test_json_patch_operations(document: Any, operation: dict[str, Any], result: Any) -> None:
    assert json_patch.apply(document, [operation]) == result


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        ({"op": "test", "path": "/a", "value": True}, 422),
        ({"op": "remove", "path": "/nothing"}, 422),
        ({"op": "replace", "path": "/l/7", "value": 1}, 422),
        ({"op": "add", "path": "/no/parent", "value": 1}, 422),
        ({"op": "add", "path": "/l/01", "value": 1}, 422),
        ({"op": "add", "path": "/l/9", "value": 1}, 422),
        ({"op": "move", "from": "/o", "path": "/o/x"}, 422),
        ({"op": "add", "path": "/x"}, 400),
        ({"op": "shout", "path": "/x"}, 422),
        ({"op": "remove"}, 400),
    ],
)
def test_json_patch_refusals(operation: dict[str, Any], code: int) -> None:
    with pytest.raises(ApiError) as caught:
        json_patch.apply({"a": 1, "l": [1], "o": {}}, [operation])
    assert caught.value.code == code


@given(_JSON, _JSON)
def test_replacing_the_root_gives_the_value(before: Any, after: Any) -> None:
    assert json_patch.apply(before, [{"op": "replace", "path": "", "value": after}]) == after


# -- RFC 7386 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "foo"}, None, None),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_examples_of_the_standard(target: Any, patch: Any, result: Any) -> None:
    assert merge_patch.apply(target, patch) == result


@given(_JSON, _JSON)
def test_merging_twice_is_merging_once(target: Any, patch: Any) -> None:
    once = merge_patch.apply(copy.deepcopy(target), copy.deepcopy(patch))
    assert merge_patch.apply(copy.deepcopy(once), copy.deepcopy(patch)) == once


# -- strategic --------------------------------------------------------------------------------------------------------


def test_list_items_merge_by_key_and_new_ones_go_first() -> None:
    spec = patched(containers("a", "b"), {"containers": [{"name": "b", "image": "B"}, {"name": "c", "image": "c"}]})
    assert {c["name"]: c["image"] for c in spec["containers"]} == {"a": "a", "b": "B", "c": "c"}
    assert names(patched(containers("a", "b"), {"containers": [{"name": "c", "image": "c"}]})) == ["c", "a", "b"]


def test_items_are_deleted_and_lists_replaced_on_demand() -> None:
    assert names(patched(containers("a", "b"), {"containers": [{"name": "a", "$patch": "delete"}]})) == ["b"]
    replacement = {"containers": [{"$patch": "replace"}, {"name": "z", "image": "z"}]}
    assert patched(containers("a", "b"), replacement) == containers("z")


def test_maps_are_replaced_and_keys_retained_on_demand() -> None:
    spec = {**containers("a"), "nodeSelector": {"a": "1", "b": "2"}}
    assert patched(spec, {"nodeSelector": {"c": "3", "$patch": "replace"}})["nodeSelector"] == {"c": "3"}
    volumes = {"volumes": [{"name": "v", "emptyDir": {}}]}
    patch = {"volumes": [{"name": "v", "configMap": {"name": "c"}, "$retainKeys": ["name", "configMap"]}]}
    assert patched(volumes, patch)["volumes"] == [{"name": "v", "configMap": {"name": "c"}}]


def test_the_order_of_elements_is_set() -> None:
    order = {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}
    assert names(patched(containers("a", "b"), order)) == ["b", "a"]
    both = {"$setElementOrder/containers": [{"name": "a"}, {"name": "c"}], "containers": [{"name": "c", "image": "c"}]}
    assert names(patched(containers("a", "b"), both)) == ["a", "c", "b"]


def test_primitive_lists_merge_as_sets() -> None:
    meta = {"metadata": {"finalizers": ["x", "y"]}}
    out = strategic.apply(copy.deepcopy(meta), {"metadata": {"finalizers": ["y", "z"]}}, pod_schema())
    assert set(out["metadata"]["finalizers"]) == {"x", "y", "z"}
    patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"]}}
    assert strategic.apply(copy.deepcopy(meta), patch, pod_schema())["metadata"]["finalizers"] == ["y"]


def test_atomic_lists_are_replaced_and_nulls_delete() -> None:
    spec = {**containers("a"), "tolerations": [{"key": "x"}]}
    assert patched(spec, {"tolerations": [{"key": "y"}]})["tolerations"] == [{"key": "y"}]
    assert "tolerations" not in patched(spec, {"tolerations": None})


def test_nonsense_is_refused() -> None:
    with pytest.raises(ApiError, match="does not contain declared merge key: name"):
        patched(containers("a"), {"containers": [{"image": "x"}]})
    with pytest.raises(ApiError, match="unknown patch type"):
        patched(containers("a"), {"$patch": "explode"})
