"""What a hostile client, or a stop at a bad moment, must not achieve."""

from __future__ import annotations

import gc
from typing import Any

import orjson
import pytest
import yaml

from glebe.apiserver.auth.rbac import RbacAuthorizer
from glebe.apiserver.auth.rules import Attributes
from glebe.apiserver.request import yamlbody
from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import Entry, Key, MemoryStore
from glebe.apiserver.types import structural
from glebe.apiserver.types.registry import TypeRegistry
from glebe.apiserver.types.schema import Schema
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import Object
from glebe.kube.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CONFIGMAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    NAMESPACES,
    PODS,
    ROLE_BINDINGS,
    ROLES,
    SECRETS,
    Resource,
)
from glebe.kube.transport import Request, User

WIDGETS = Resource("example.org", "v1", "widgets", "Widget")


async def serve(store: MemoryStore | None = None) -> tuple[ApiServer, Client]:
    server = ApiServer(store or MemoryStore(), Env.seeded(1), TypeRegistry())
    await server.start()
    return server, Client(InProcessTransport(server.handle))


def definition(field: str = "size") -> Object:
    spec = {"type": "object", "properties": {field: {"type": "integer"}}}
    schema = {"type": "object", "properties": {"spec": spec}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.org"},
        "spec": {"group": "example.org", "scope": "Namespaced", "names": names, "versions": [version]},
    }


# ------------------------------------------------------------------------------------------------------- YAML bodies


def doubled(levels: int, line: str) -> bytes:
    """``levels`` anchors, each made of nine aliases to the one before."""
    names = [chr(98 + i) for i in range(levels)]
    lines = [line.format(name=name, many=", ".join([f"*{chr(ord(name) - 1)}"] * 9)) for name in names]
    return "\n".join(["a: &a {k: v}", *lines]).encode()


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"[" * 200_000, "nested more than 250"),  # this one ended the process
        (b"a: " + b"{a: " * 600 + b"}" * 600, "nested more than 250"),
        (doubled(12, "{name}: &{name} [{many}]"), "excessive aliasing"),
        (doubled(12, "{name}: &{name} {{<<: [{many}]}}"), "excessive aliasing"),
        (b"a: &a {b: *a}", "excessive aliasing"),
        (b"a: 1\n---\nb: 2\n", "expected a single document"),
        (b"data: !!set {a, b}", "could not determine a constructor"),
        (b"data: {a: !!binary eA==}", "could not determine a constructor"),
    ],
)
async def test_a_yaml_body_cannot_exhaust_the_server(body: bytes, why: str) -> None:
    with pytest.raises(yaml.YAMLError, match=why):
        yamlbody.load(body)
    _, client = await serve()
    with pytest.raises(ApiError) as caught:
        await client.raw("POST", "/api/v1/namespaces/default/configmaps", body=body, content_type="application/yaml")
    assert caught.value.code == 400


async def test_a_deep_json_body_is_the_clients_fault() -> None:
    _, client = await serve()
    for depth in (50, 200, 400, 700, 1000, 5000):
        data = b'{"a":' * depth + b"1" + b"}" * depth
        body = b'{"metadata":{"name":"x%d"},"data":%s}' % (depth, data)
        with pytest.raises(ApiError) as caught:
            await client.raw("POST", "/api/v1/namespaces/default/configmaps", body=body)
        assert caught.value.code in (400, 422), depth


async def test_yaml_keys_are_text_and_honest_aliases_work() -> None:
    assert yamlbody.load(b"2: a\ntrue: b\nnull: c\n") == {"2": "a", "true": "b", "null": "c"}
    assert yamlbody.load(b"a: &x {b: 2020-01-01}\nc: *x\nd: {<<: *x, e: 1}\n") == {
        "a": {"b": "2020-01-01"},
        "c": {"b": "2020-01-01"},
        "d": {"b": "2020-01-01", "e": 1},
    }
    _, client = await serve()
    body = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {1: one}\n"
    await client.raw("POST", "/api/v1/namespaces/default/configmaps", body=body, content_type="application/yaml")
    assert (await client.get(CONFIGMAPS, "x", "default"))["data"] == {"1": "one"}


# ------------------------------------------------------------------------------------------- subresources of a pod


def pod(**spec: Any) -> Object:
    container = {"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}}
    spec = {"containers": [container], "schedulingGates": [{"name": "example.org/wait"}], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"}, "spec": spec}


async def test_the_right_to_debug_a_pod_is_no_right_to_change_it() -> None:
    _, client = await serve()
    made = await client.create(PODS, pod())
    debugger = {"name": "d", "image": "busybox"}
    wish = {
        "metadata": {"labels": {"team": "other"}},
        "spec": {
            "nodeName": "n1",
            "schedulingGates": None,
            "containers": [{"name": "c", "image": "evil"}],
            "ephemeralContainers": [debugger],
        },
    }
    changed = await client.patch(PODS, "p", wish, "default", subresource="ephemeralcontainers")
    assert changed["spec"]["ephemeralContainers"][0]["name"] == "d"
    assert {k: v for k, v in changed["spec"].items() if k != "ephemeralContainers"} == made["spec"]
    assert "labels" not in changed["metadata"]
    for wish, what in (([], "removed"), ([{**debugger, "image": "other"}], "changed")):
        patch = {"spec": {"ephemeralContainers": wish}}
        with pytest.raises(ApiError, match=what):
            await client.patch(PODS, "p", patch, "default", subresource="ephemeralcontainers")


async def test_the_right_to_resize_a_pod_is_no_right_to_change_it() -> None:
    _, client = await serve()
    made = await client.create(PODS, pod())
    wish = {"metadata": {"labels": {"team": "other"}}, "spec": {"schedulingGates": None, "tolerations": [{"key": "x"}]}}
    changed = await client.patch(PODS, "p", wish, "default", subresource="resize")
    assert changed["spec"] == made["spec"]
    assert "labels" not in changed["metadata"]


# --------------------------------------------------------------------------------------------------- logical clusters


async def test_a_cluster_is_whole_from_its_one_write() -> None:
    """So that a process that ends while it creates a cluster leaves none, or a whole one."""
    store = MemoryStore()
    _, client = await serve(store)
    before = store.revision
    await client.raw("POST", "/clusters", body=b'{"metadata":{"name":"t"}}')
    assert store.revision == before + 1
    _, client = await serve(store)
    found = (await client.for_cluster("t").list(NAMESPACES)).items
    assert [o["metadata"]["name"] for o in found] == ["default", "kube-node-lease", "kube-public", "kube-system"]


async def test_a_cluster_does_not_inherit_from_an_earlier_one_of_its_name() -> None:
    server, client = await serve()
    tenant = client.for_cluster("t")
    await client.raw("POST", "/clusters", body=b'{"metadata":{"name":"t"}}')
    await tenant.create(CUSTOM_RESOURCE_DEFINITIONS, definition("first"))
    first = (await tenant.raw("GET", "/openapi/v3/apis/example.org/v1")).body
    await client.raw("DELETE", "/clusters/t")
    # A write that was on its way when the cluster was deleted:
    late = {"metadata": {"name": "late", "resourceVersion": "1"}, "subjects": [], "roleRef": {}}
    key = Key("clusterrolebindings.rbac.authorization.k8s.io", "t", "", "late")
    await server.store.put(key, lambda _: orjson.dumps(late), None)
    await client.raw("POST", "/clusters", body=b'{"metadata":{"name":"t"}}')
    assert (await tenant.list(CLUSTER_ROLE_BINDINGS)).items == []
    await tenant.create(CUSTOM_RESOURCE_DEFINITIONS, definition("second"))
    second = (await tenant.raw("GET", "/openapi/v3/apis/example.org/v1")).body
    assert (b'"first"' in first, b'"first"' in second, b'"second"' in second) == (True, False, True)


async def test_the_register_of_clusters_has_one_address() -> None:
    _, client = await serve()
    for path in ("/clusters/root/clusters", "/clusters/root/clusters/"):
        with pytest.raises(ApiError) as caught:
            await client.raw("GET", path)
        assert caught.value.code == 404


# ---------------------------------------------------------------------------------------------------- kinds and events


async def test_the_end_of_a_kind_goes_on_after_a_restart() -> None:
    store = MemoryStore()
    _, client = await serve(store)
    await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition())
    meta = {"name": "w", "namespace": "default"}
    await client.create(WIDGETS, {"apiVersion": "example.org/v1", "kind": "Widget", "metadata": meta})
    # As if the process had ended between the mark and the deletion of the objects:
    key = Key("customresourcedefinitions.apiextensions.k8s.io", "root", "", "widgets.example.org")
    entry = store.get(key)
    assert entry is not None
    marked = entry.load()
    marked["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"

    def make(revision: int) -> bytes:
        marked["metadata"]["resourceVersion"] = str(revision)
        return orjson.dumps(marked)

    await store.put(key, make, None)
    _, client = await serve(store)
    assert (await client.list(CUSTOM_RESOURCE_DEFINITIONS)).items == []
    assert store.range("widgets.example.org", "root").entries == []


async def test_objects_of_a_kind_that_is_served_no_more_end_with_it() -> None:
    server, client = await serve()
    await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition())
    meta = {"name": "w", "namespace": "default"}
    await client.create(WIDGETS, {"apiVersion": "example.org/v1", "kind": "Widget", "metadata": meta})
    crd = await client.get(CUSTOM_RESOURCE_DEFINITIONS, "widgets.example.org")
    crd["spec"]["versions"][0]["served"] = False
    await client.update(CUSTOM_RESOURCE_DEFINITIONS, crd)
    await client.delete(CUSTOM_RESOURCE_DEFINITIONS, "widgets.example.org")
    assert server.store.range("widgets.example.org", "root").entries == []


async def test_what_is_built_in_cannot_be_declared_again() -> None:
    _, client = await serve()
    crd = definition()
    group = "rbac.authorization.k8s.io"
    crd["spec"] |= {"group": group, "names": {**crd["spec"]["names"], "plural": "clusterroles", "kind": "ClusterRole"}}
    crd["metadata"] = {"name": f"clusterroles.{group}"}
    with pytest.raises(ApiError, match="protected groups must have approval"):
        await client.create(CUSTOM_RESOURCE_DEFINITIONS, crd)
    crd["metadata"]["annotations"] = {"api-approved.kubernetes.io": "https://example.org/1"}
    with pytest.raises(ApiError, match="is built in"):
        await client.create(CUSTOM_RESOURCE_DEFINITIONS, crd)


async def test_events_of_both_groups_end_also_when_their_times_are_odd() -> None:
    server, client = await serve()
    new = Resource("events.k8s.io", "v1", "events", "Event")
    key = Key("events.events.k8s.io", "root", "default", "odd")
    odd: Object = {"metadata": {"name": "odd", "namespace": "default", "resourceVersion": "1"}, "lastTimestamp": "soon"}
    await server.store.put(key, lambda _: orjson.dumps(odd), None)
    server.event_expiry.note(key)
    assert isinstance(server.store.get(key), Entry)
    server.event_expiry._queue[0] = (0.0, key)
    event = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "e", "namespace": "default"},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "action": "a",
        "reason": "R",
        "type": "Normal",
        "reportingController": "example.org/c",
        "reportingInstance": "c-1",
    }
    await client.create(new, event)
    assert server.store.get(key) is None
    assert [k.name for _, k in server.event_expiry._queue] == ["e"]


# ------------------------------------------------------------------------------------------------------- selectors


async def test_selectors_and_timeouts_with_odd_numbers() -> None:
    server, client = await serve()
    crd = definition()
    crd["spec"]["versions"][0]["selectableFields"] = [{"jsonPath": ".spec.size"}]
    await client.create(CUSTOM_RESOURCE_DEFINITIONS, crd)
    meta = {"name": "w", "namespace": "default"}
    obj = {"apiVersion": "example.org/v1", "kind": "Widget", "metadata": meta, "spec": {"size": -5}}
    await client.create(WIDGETS, obj)
    assert len((await client.list(WIDGETS, field_selector="spec.size=-5")).items) == 1
    response = await server.handle(
        Request(
            "GET", "/api/v1/pods", [("watch", "1"), ("timeoutSeconds", "²")], {}, b"", User("x", ("system:masters",))
        )
    )
    assert response.status == 200
    await response.close()


# ------------------------------------------------------------------------------------------------------------- rights


async def test_roles_that_aggregate_in_a_circle_have_an_end() -> None:
    server, client = await serve()
    for name, selects in (("a", "b"), ("b", "a")):
        role = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": name, "labels": {"part": name}},
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"part": selects}}]},
        }
        await client.create(CLUSTER_ROLES, role)
    leaf = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "leaf", "labels": {"part": "a"}},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
    }
    await client.create(CLUSTER_ROLES, leaf)
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "x"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "a"},
        "subjects": [{"kind": "User", "name": "ann", "apiGroup": "rbac.authorization.k8s.io"}],
    }
    await client.create(CLUSTER_ROLE_BINDINGS, binding)
    authorizer = RbacAuthorizer(server)
    assert authorizer.decide(User("ann"), "root", Attributes("get", resource="pods"))[0]
    assert not authorizer.decide(User("ann"), "root", Attributes("list", resource="pods"))[0]


# -------------------------------------------------------------------------------------------------------------- memory


async def test_a_definition_that_is_gone_leaves_no_schema_behind() -> None:
    _, client = await serve()
    wide = definition()
    size = {"type": "integer", "anyOf": [{"minimum": 10}, {"maximum": 5}], "not": {"enum": [3]}}
    rules = [{"rule": "self.size != 4", "message": "not four"}]
    spec = {"type": "object", "properties": {"size": size}, "x-kubernetes-validations": rules}
    wide["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"] = spec
    await client.create(CUSTOM_RESOURCE_DEFINITIONS, wide)
    obj: Object = {"apiVersion": "example.org/v1", "kind": "Widget", "metadata": {"name": "w", "namespace": "default"}}
    for number, good in ((3, False), (4, False), (7, False), (5, True)):
        wish = {**obj, "spec": {"size": number}}
        if good:
            await client.create(WIDGETS, wish)
        else:
            with pytest.raises(ApiError):
                await client.create(WIDGETS, wish)
    gc.collect()
    before = sum(isinstance(o, Schema) and o.custom for o in gc.get_objects())
    await client.delete(CUSTOM_RESOURCE_DEFINITIONS, "widgets.example.org")
    gc.collect()
    assert sum(isinstance(o, Schema) and o.custom for o in gc.get_objects()) <= before - 6


# ------------------------------------------------------------------------------------------------------------ junctors


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "integer", "not": {"minimum": 3}}, [2, -1], [3, 7]),
        ({"type": "integer", "anyOf": [{"minimum": 10}, {"maximum": 5}]}, [5, 10], [6, 9]),
        ({"type": "string", "oneOf": [{"pattern": "^a"}, {"maxLength": 2}]}, ["abc", "xy"], ["xyz", "ab"]),
        (
            {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "array", "items": {"type": "string"}}},
                "allOf": [{"properties": {"a": {"minimum": 1}, "b": {"items": {"maxLength": 2}}}}],
            },
            [{}, {"a": 1, "b": ["xy"]}],
            [{"a": 0}, {"b": ["xyz"]}],
        ),
        (
            {
                "type": "object",
                "additionalProperties": {"type": "integer"},
                "not": {"additionalProperties": {"maximum": 5}, "required": ["x"]},
            },
            [{"x": 6}, {"y": 1}],
            [{"x": 5}],
        ),
    ],
)
def test_a_branch_has_the_type_that_is_said_outside_of_it(schema: Object, good: list[Any], bad: list[Any]) -> None:
    parsed = Schema(schema, custom=True)
    assert [structural.validate(parsed, value, "x") for value in good] == [[] for _ in good]
    assert all(structural.validate(parsed, value, "x") for value in bad)


# --------------------------------------------------------------------------------------------------- tricks with paths

_DETOURS = (
    "/api/v1/namespaces/other/secrets/s",
    "//api//v1//namespaces//other//secrets//s",
    "/api/v1/namespaces/mine/../other/secrets/s",
    "/api/v1/namespaces/mine/secrets/../../other/secrets/s",
    "/api/v1/namespaces/mine/configmaps/../../../namespaces/other/secrets/s",
    "/api/v1/namespaces/other/secrets/s/status",
    "/api/v1/namespaces/other/secrets/",
    "/api/v1/namespaces//secrets/s",
    "/api/v1/secrets",
    "/api/v1/secrets/s",
    "/api/v1/watch/namespaces/other/secrets",
    "/api/v1/watch/namespaces/mine/configmaps/../../other/secrets",
    "/api/v1/namespaces/mine/namespaces/other/secrets/s",
    "/clusters/root/api/v1/namespaces/other/secrets/s",
    "/clusters/root/clusters/root/api/v1/namespaces/other/secrets/s",
    "/clusters//api/v1/namespaces/other/secrets/s",
    "/clusters/root//api/v1/namespaces/other/secrets/s",
    "/api/v1/namespaces/other/secrets/s\x00",
    "/api/v1/namespaces/OTHER/secrets/s",
    "/API/v1/namespaces/other/secrets/s",
    "/apis//v1/namespaces/other/secrets/s",
    "/healthz/../api/v1/namespaces/other/secrets/s",
    "/version/../api/v1/namespaces/other/secrets/s",
)


@pytest.mark.parametrize("query", [[], [("watch", "true")], [("fieldSelector", "metadata.namespace=mine")]])
async def test_no_path_leads_around_the_rights(query: list[tuple[str, str]]) -> None:
    server, client = await serve()
    server.authorizer = RbacAuthorizer(server)
    for namespace in ("mine", "other"):
        meta: Object = {"name": namespace}
        await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
    data = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "other"}}
    await client.create(SECRETS, {**data, "stringData": {"k": "precious"}})
    rules = [{"apiGroups": [""], "resources": ["configmaps", "secrets"], "verbs": ["*"]}]
    group = "rbac.authorization.k8s.io"
    meta = {"name": "all", "namespace": "mine"}
    await client.create(ROLES, {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": meta, "rules": rules})
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding",
        "metadata": meta,
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "all"},
        "subjects": [{"kind": "User", "name": "ann", "apiGroup": group}],
    }
    await client.create(ROLE_BINDINGS, binding)
    ann = User("ann", ("system:authenticated",))
    allowed = await server.handle(Request("GET", "/api/v1/namespaces/mine/secrets", user=ann))
    assert allowed.status == 200
    for path in _DETOURS:
        for method in ("GET", "HEAD", "DELETE", "POST"):
            response = await server.handle(Request(method, path, list(query), user=ann))
            await response.close()
            harmless = path.startswith(("/healthz", "/version"))  # answered with their own words, whatever follows
            assert response.status in (403, 404, 405) or (harmless and b"precious" not in response.body), (method, path)
    assert (await client.get(SECRETS, "s", "other"))["data"] == {"k": "cHJlY2lvdXM="}


# ------------------------------------------------------------------------------------------------------------- patches


async def test_a_patch_that_copies_a_value_into_itself_has_an_end() -> None:
    _, client = await serve()
    await client.create(
        CONFIGMAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "default"}}
    )
    doubling = [{"op": "copy", "from": "/data", "path": f"/data/{i}"} for i in range(200)]
    patch = [{"op": "add", "path": "/data", "value": {"a": "x" * 100}}, *doubling]
    with pytest.raises(ApiError, match="accumulated size increase of copy") as caught:
        await client.patch(CONFIGMAPS, "x", patch, "default", kind="json")
    assert caught.value.code == 413
