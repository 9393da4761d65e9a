"""Kinds with a life of their own: custom kinds, events, logical clusters."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.resources import CONFIGMAPS, CUSTOM_RESOURCE_DEFINITIONS, EVENTS, JOBS, NAMESPACES, Resource
from glebe.kube.transport import User

WIDGETS = Resource("example.org", "v1", "widgets", "Widget")


async def serve(**options: Any) -> tuple[ApiServer, Client]:
    server = ApiServer(MemoryStore(), Env.seeded(1), TypeRegistry(), **options)
    await server.start()
    return server, Client(InProcessTransport(server.handle))


def definition() -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {
            "spec": {"type": "object", "properties": {"size": {"type": "integer", "default": 3}}},
            "status": {"type": "object", "properties": {"ready": {"type": "boolean"}}},
        },
    }
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }
    names = {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.org"},
        "spec": {"group": "example.org", "scope": "Namespaced", "names": names, "versions": [version]},
    }


def widget(name: str, **meta: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": "default", **meta}
    return {"apiVersion": "example.org/v1", "kind": "Widget", "metadata": meta, "spec": {}}


async def test_a_custom_kind_is_served_at_once_and_ends_with_its_definition() -> None:
    _, client = await serve()
    made = await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition())
    assert made["status"] == {"storedVersions": ["v1"]}
    made = await client.get(CUSTOM_RESOURCE_DEFINITIONS, made["metadata"]["name"])
    assert {c["type"]: c["status"] for c in made["status"]["conditions"]} == {
        "NamesAccepted": "True",
        "Established": "True",
    }
    first = await client.create(WIDGETS, widget("a"))
    assert first["spec"] == {"size": 3}
    assert first["metadata"]["generation"] == 1
    await client.create(WIDGETS, widget("b", finalizers=["example.org/hold"]))
    first["status"] = {"ready": True}
    done = await client.update_status(WIDGETS, first)
    assert (done["status"], done["metadata"]["generation"]) == ({"ready": True}, 1)
    with pytest.raises(ApiError) as caught:
        await client.update(WIDGETS, widget("a"))
    assert "must be specified for an update" in caught.value.message
    await client.delete(CUSTOM_RESOURCE_DEFINITIONS, "widgets.example.org")
    assert [o["metadata"]["name"] for o in (await client.list(WIDGETS)).items] == ["b"]
    await client.patch(WIDGETS, "b", {"metadata": {"finalizers": None}}, "default")
    assert (await client.list(CUSTOM_RESOURCE_DEFINITIONS)).items == []
    with pytest.raises(ApiError) as caught:
        await client.list(WIDGETS)
    assert caught.value.code == 404


async def test_events_are_forgotten_after_an_hour() -> None:
    _, client = await serve()

    def event(name: str) -> dict[str, Any]:
        about = {"kind": "Pod", "name": "p", "namespace": "default"}
        meta = {"name": name, "namespace": "default"}
        return {"apiVersion": "v1", "kind": "Event", "metadata": meta, "involvedObject": about, "reason": "R"}

    await client.create(EVENTS, event("old"))
    chosen = await client.list(EVENTS, field_selector="involvedObject.name=p,involvedObject.kind=Pod")
    assert len(chosen.items) == 1
    assert (await client.list(EVENTS, field_selector="involvedObject.name=q")).items == []
    await asyncio.sleep(3601)
    await client.create(EVENTS, event("new"))
    assert [o["metadata"]["name"] for o in (await client.list(EVENTS)).items] == ["new"]


async def test_logical_clusters_do_not_see_each_other() -> None:
    server, root = await serve(clusters=("root", "a", "b"))
    a, b = root.for_cluster("a"), root.for_cluster("b")
    secret = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "only-a", "namespace": "default"}}
    await a.create(CONFIGMAPS, secret)
    await a.create(CUSTOM_RESOURCE_DEFINITIONS, definition())
    await a.create(WIDGETS, widget("only-a"))
    for other in (root, b):
        seen = [e async for e in other.watch(CONFIGMAPS, resource_version="1", timeout=1, bookmarks=False)]
        assert seen == []
        assert [o["metadata"]["name"] for o in (await other.list(NAMESPACES)).items] == [
            "default",
            "kube-node-lease",
            "kube-public",
            "kube-system",
        ]
        assert (await other.list(CONFIGMAPS)).items == []
        for path in (
            "/api/v1/namespaces/default/configmaps/only-a",
            "/apis/example.org/v1/widgets",
            "/apis/example.org/v1/namespaces/default/widgets/only-a",
            "/api/v1/namespaces/default/../../clusters/a/api/v1/configmaps",
            "/clusters/a/clusters/b/api/v1/namespaces/default/configmaps/only-a",
            "/clusters//api/v1/configmaps",
        ):
            with pytest.raises(ApiError) as caught:
                await other.raw("GET", path)
            assert caught.value.code == 404
    assert (await b.raw("GET", "/api/v1/configmaps")).status == 200
    assert server.clusters.names() == ["a", "b", "root"]


async def test_logical_clusters_come_and_go() -> None:
    server, root = await serve()
    made = await root.raw("POST", "/clusters", body=b'{"metadata":{"name":"t1"}}')
    assert made.status == 201
    tenant = root.for_cluster("t1")
    await tenant.create(CONFIGMAPS, widget("x") | {"apiVersion": "v1", "kind": "ConfigMap"})
    listed = await root.raw("GET", "/clusters")
    assert b'"t1"' in listed.body
    for name, code in (("Bad_Name", 422), ("t1", 409)):
        with pytest.raises(ApiError) as caught:
            await root.raw("POST", "/clusters", body=b'{"metadata":{"name":"%s"}}' % name.encode())
        assert caught.value.code == code
    await root.raw("DELETE", "/clusters/t1")
    with pytest.raises(ApiError) as caught:
        await tenant.list(CONFIGMAPS)
    assert caught.value.code == 404
    await root.raw("POST", "/clusters", body=b'{"metadata":{"name":"t1"}}')
    assert (await tenant.list(CONFIGMAPS)).items == []
    mere = Client(InProcessTransport(server.handle, User("someone")))
    with pytest.raises(ApiError) as caught:
        await mere.raw("GET", "/clusters")
    assert caught.value.code == 403


async def test_a_job_ends_in_an_orderly_way() -> None:
    _, client = await serve()
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}
    spec = {"template": {"spec": pod}}
    meta = {"name": "j", "namespace": "default"}
    await client.create(JOBS, {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": spec})

    async def say(*kinds: str, **status: Any) -> str:
        now = "2026-01-01T00:00:00Z"
        conditions = [{"type": kind, "status": "True", "lastTransitionTime": now} for kind in kinds]
        patch = {"status": {"startTime": now, "conditions": conditions, **status}}
        try:
            await client.patch(JOBS, "j", patch, "default", subresource="status")
        except ApiError as error:
            return error.message
        return ""

    end = {"completionTime": "2026-01-01T00:00:01Z"}
    assert "without the SuccessCriteriaMet=true condition" in await say("Complete", **end)
    assert "without the FailureTarget=true condition" in await say("Failed")
    assert "completionTime is required" in await say("SuccessCriteriaMet", "Complete")
    assert "active>0 is invalid" in await say("SuccessCriteriaMet", "Complete", active=1, **end)
    assert "must be empty" in await say(
        "SuccessCriteriaMet", "Complete", uncountedTerminatedPods={"failed": ["u"]}, **end
    )
    assert "startTime is required" in await say("FailureTarget", "Failed", startTime=None)
    assert "SuccessCriteriaMet=True and FailureTarget=true" in await say("SuccessCriteriaMet", "FailureTarget")
    assert await say("SuccessCriteriaMet") == ""
    assert await say("SuccessCriteriaMet", "Complete", **end) == ""
    assert "cannot disable the terminal Complete=True" in await say("SuccessCriteriaMet", completionTime=None)
