"""Server-side apply: who owns what, conflicts, force, removal; the sets' algebra; field sets that upstream computed."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glebe.apiserver.patch.apply import server_side_apply, update_managed_fields
from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types import fieldsets as fs
from glebe.apiserver.types.defaults import apply_defaults
from glebe.apiserver.types.registry import ResourceInfo, TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import Object

REGISTRY = TypeRegistry()


def info(group: str, plural: str) -> ResourceInfo:
    found = REGISTRY.lookup("root", group, "v1", plural)
    assert found is not None
    return found


CONFIG, DEPLOYMENTS = info("", "configmaps"), info("apps", "deployments")


def config(data: dict[str, str], **meta: Any) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", **meta}, "data": data}


def apply(
    kind: ResourceInfo, live: Object | None, applied: Object, who: str, force: bool = False, sub: str = ""
) -> Object:
    out = server_side_apply(kind, live, copy.deepcopy(applied), who, force, "2026-01-01T00:00:00Z", sub)
    apply_defaults(kind, out)
    return out


def owners(obj: Object) -> dict[tuple[str, str], fs.FieldSet]:
    return {(e["manager"], e["operation"]): e["fieldsV1"] for e in obj["metadata"].get("managedFields", ())}


def fields(*names: str) -> fs.FieldSet:
    return {"f:data": {f"f:{n}": {} for n in names}}


def test_conflict_names_every_owner_and_field() -> None:
    live = apply(CONFIG, None, config({"a": "1", "b": "2"}), "m1")
    live = apply(CONFIG, live, config({"a": "1", "c": "3"}), "m2")
    with pytest.raises(ApiError) as caught:
        apply(CONFIG, live, config({"a": "5", "c": "6"}), "m3")
    error = caught.value
    assert (error.code, error.reason) == (409, "Conflict")
    assert error.message == (
        'Apply failed with 3 conflicts: conflict with "m1": .data.a\nconflicts with "m2":\n- .data.a\n- .data.c'
    ) or error.message == (
        'Apply failed with 3 conflicts: conflicts with "m1":\n- .data.a\nconflicts with "m2":\n- .data.a\n- .data.c'
    )
    assert [(c["message"], c["field"]) for c in error.details["causes"]] == [
        ('conflict with "m1"', ".data.a"),
        ('conflict with "m2"', ".data.a"),
        ('conflict with "m2"', ".data.c"),
    ]
    forced = apply(CONFIG, live, config({"a": "5", "c": "6"}), "m3", force=True)
    assert owners(forced) == {("m1", "Apply"): fields("b"), ("m3", "Apply"): fields("a", "c")}


def test_what_is_no_longer_applied_goes_unless_others_own_it() -> None:
    live = apply(CONFIG, None, config({"a": "1", "b": "2"}, labels={"x": "y"}), "m1")
    live = apply(CONFIG, live, config({"a": "1"}), "m2")
    live = apply(CONFIG, live, config({"b": "2"}), "m1")
    assert live["data"] == {"a": "1", "b": "2"}
    assert "labels" not in live["metadata"]
    live = apply(CONFIG, live, config({}), "m2")
    assert live["data"] == {"b": "2"}


def test_an_update_takes_ownership_and_apply_then_conflicts() -> None:
    live = apply(CONFIG, None, config({"b": "2"}), "m1")
    new = copy.deepcopy(live)
    new["data"] = {"b": "new", "z": "zz"}
    update_managed_fields(CONFIG, live, new, "upd", now="t")
    assert owners(new) == {("upd", "Update"): fields("b", "z")}
    with pytest.raises(ApiError, match=r'conflict with "upd" using v1: \.data\.b'):
        apply(CONFIG, new, config({"b": "2"}), "m1")


def deployment() -> Object:
    one = {
        "name": "c",
        "image": "i",
        "args": ["x", "y"],
        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
        "ports": [{"containerPort": 80}],
    }
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [one, {"name": "d", "image": "i2"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template},
    }


def test_field_sets_are_upstreams() -> None:
    live = apply(DEPLOYMENTS, None, deployment(), "m1")
    named = {".": {}, "f:name": {}, "f:value": {}}
    container = {
        ".": {},
        "f:args": {},
        "f:env": {'k:{"name":"A"}': named, 'k:{"name":"B"}': named},
        "f:image": {},
        "f:name": {},
        "f:ports": {'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}},
    }
    other = {".": {}, "f:image": {}, "f:name": {}}
    containers = {'k:{"name":"c"}': container, 'k:{"name":"d"}': other}
    template = {"f:metadata": {"f:labels": {"f:a": {}}}, "f:spec": {"f:containers": containers}}
    assert owners(live)[("m1", "Apply")] == {"f:spec": {"f:replicas": {}, "f:selector": {}, "f:template": template}}


def test_items_merge_by_key_in_upstreams_order() -> None:
    live = apply(DEPLOYMENTS, None, deployment(), "m1")
    mine: Object = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}}
    env = [{"name": "A", "value": "9"}, {"name": "C", "value": "3"}]
    mine["spec"] = {"replicas": 3, "template": {"spec": {"containers": [{"name": "c", "env": env}]}}}
    with pytest.raises(ApiError) as caught:
        apply(DEPLOYMENTS, live, mine, "m2")
    assert [c["field"] for c in caught.value.details["causes"]] == [
        ".spec.replicas",
        '.spec.template.spec.containers[name="c"].env[name="A"].value',
    ]
    live = apply(DEPLOYMENTS, live, mine, "m2", force=True)
    assert [e["name"] for e in live["spec"]["template"]["spec"]["containers"][0]["env"]] == ["A", "B", "C"]
    less = deployment()
    less["spec"]["template"]["spec"]["containers"].pop()
    del less["spec"]["replicas"]
    less["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "A", "value": "9"}]
    live = apply(DEPLOYMENTS, live, less, "m1")
    assert [c["name"] for c in live["spec"]["template"]["spec"]["containers"]] == ["c"]
    assert [e["name"] for e in live["spec"]["template"]["spec"]["containers"][0]["env"]] == ["A", "C"]
    assert live["spec"]["replicas"] == 3


def test_status_is_another_managers_and_the_main_resource_ignores_it() -> None:
    live = apply(DEPLOYMENTS, None, {**deployment(), "status": {"replicas": 7}}, "m1")
    assert "status" not in live
    said = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 9}}
    live = apply(DEPLOYMENTS, live, {**said, "status": {"replicas": 1}}, "st", sub="status")
    assert live["spec"]["replicas"] == 2
    entry = next(e for e in live["metadata"]["managedFields"] if e["manager"] == "st")
    assert (entry["subresource"], entry["fieldsV1"]) == ("status", {"f:status": {"f:replicas": {}}})


def test_repeated_keys_are_refused() -> None:
    twice = deployment()
    twice["spec"]["template"]["spec"]["containers"][1]["name"] = "c"
    with pytest.raises(ApiError, match=r'.spec.template.spec.containers: duplicate entries for key \[name="c"\]'):
        apply(DEPLOYMENTS, None, twice, "m1")


def test_many_updaters_are_joined() -> None:
    live = config({})
    for number in range(15):
        new = copy.deepcopy(live)
        new["data"][f"k{number}"] = "v"
        update_managed_fields(CONFIG, live, new, f"u{number:02}", now=f"t{number:02}")
        live = new
    updaters = [e["manager"] for e in live["metadata"]["managedFields"]]
    assert len(updaters) == 10
    assert "ancient-changes" in updaters


# --------------------------------------------------------------------------------------------------------- properties

_SETS = st.recursive(
    st.just({}),
    lambda inner: st.dictionaries(st.sampled_from(["f:a", "f:b", 'v:"x"', "."]), inner, max_size=3).map(
        lambda d: {**d, **({".": {}} if "." in d else {})}
    ),
    max_leaves=6,
)


def _members(a: fs.FieldSet) -> set[str]:
    return set(fs.paths(a))


@settings(max_examples=150, deadline=None)
@given(_SETS, _SETS)
def test_set_algebra(a: fs.FieldSet, b: fs.FieldSet) -> None:
    assert _members(fs.union(a, b)) == _members(a) | _members(b)
    assert _members(fs.difference(a, b)) == _members(a) - _members(b)
    assert _members(fs.intersection(a, b)) == _members(a) & _members(b)


_DATA = st.dictionaries(st.sampled_from("abcd"), st.sampled_from("12"), max_size=4)
_STEPS = st.lists(st.tuples(st.sampled_from(["m1", "m2", "m3"]), st.booleans(), _DATA), min_size=1, max_size=6)


@settings(max_examples=100, deadline=None)
@given(_STEPS)
def test_apply_is_idempotent_and_owners_agree_with_the_object(steps: list[tuple[str, bool, dict[str, str]]]) -> None:
    live: Object | None = None
    for who, is_update, data in steps:
        if is_update and live is not None:
            new = {**copy.deepcopy(live), "data": dict(data)}
            update_managed_fields(CONFIG, live, new, who, now="t")
            live = new
        else:
            live = apply(CONFIG, live, config(data), who, force=True)
            again = apply(CONFIG, live, config(data), who)
            assert again == live
            assert {k: live["data"][k] for k in data} == data
        owned = {path for owner in owners(live).values() for path in fs.paths(owner)}
        leaves = {f".data.{key}" for key in live.get("data") or {}}
        assert {p for p in owned if p != ".data"} <= leaves, "a field is owned that is not there"
        assert leaves <= owned, "a field is there that nobody owns"
        updaters = [s for (_, operation), s in owners(live).items() if operation == "Update"]
        for index, one in enumerate(updaters):
            for other in updaters[index + 1 :]:
                assert not _members(fs.intersection(one, other)), "two updaters own one field"


async def test_who_changes_nothing_but_the_owners_is_heard() -> None:
    """kubectl moves ownership from client-side to server-side apply by a JSON patch of managedFields alone."""
    server = ApiServer(MemoryStore(), Env.system(), REGISTRY)
    await server.start()
    client = Client(InProcessTransport(server.handle))
    path = "/api/v1/namespaces/default/configmaps"
    made = orjson.loads((await client.raw("POST", path, body=config({"a": "1", "b": "2"}))).body)
    entry = {**made["metadata"]["managedFields"][0], "manager": "m", "operation": "Apply"}
    moved = [{"op": "replace", "path": "/metadata/managedFields", "value": [entry]}]
    await client.raw("PATCH", f"{path}/c", body=moved, content_type="application/json-patch+json")
    answer = await client.raw(
        "PATCH",
        f"{path}/c",
        query=[("fieldManager", "m")],
        body=config({"a": "1"}),
        content_type="application/apply-patch+yaml",
    )
    assert orjson.loads(answer.body)["data"] == {"a": "1"}
    await server.close()


def test_sets_are_written_in_upstreams_order() -> None:
    obj: Object = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "labels": {"z": "1", "a": "2"}},
        "spec": {"template": {"spec": {"containers": [{"name": "b", "image": "i"}, {"name": "a", "env": []}]}}},
    }
    update_managed_fields(info("apps", "deployments"), None, obj, "me", "Update", "2026-01-01T00:00:00Z")

    def check(fields: dict[str, Any]) -> None:
        assert list(fields) == sorted(fields)
        for each in fields.values():
            check(each)

    fields = obj["metadata"]["managedFields"][0]["fieldsV1"]
    assert list(fields["f:metadata"]["f:labels"]) == [".", "f:a", "f:z"]
    check(fields)
