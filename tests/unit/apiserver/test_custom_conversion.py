"""Custom kinds in several versions: a real conversion webhook, old objects read under new definitions."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from webhook_peer import WebhookPeer, webhook_peer

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.resources import CUSTOM_RESOURCE_DEFINITIONS, Resource
from glebe.kube.transport import PLATFORM, Request

V1 = Resource("stable.example.org", "v1", "ports", "Port", True)
V2 = Resource("stable.example.org", "v2", "ports", "Port", True)
NAME = "ports.stable.example.org"
STRING = {"type": "string"}


def version(name: str, *, storage: bool = False, **fields: Any) -> dict[str, Any]:
    spec = {"type": "object", "properties": fields}
    schema = {"type": "object", "properties": {"spec": spec}}
    return {"name": name, "served": True, "storage": storage, "schema": {"openAPIV3Schema": schema}}


def definition(*versions: dict[str, Any], conversion: dict[str, Any] | None = None) -> dict[str, Any]:
    names = {"plural": "ports", "singular": "port", "kind": "Port", "listKind": "PortList"}
    spec: dict[str, Any] = {"group": V1.group, "scope": "Namespaced", "names": names, "versions": list(versions)}
    if conversion is not None:
        spec["conversion"] = conversion
    meta = {"name": NAME}
    return {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": meta, "spec": spec}


def port(resource: Resource, name: str, **spec: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": resource.api_version, "kind": "Port", "metadata": meta, "spec": spec}


def converted(review: dict[str, Any]) -> dict[str, Any]:
    """v1 ``host: a:1`` <-> v2 ``host: a``, ``port: "1"``, as upstream's test webhook does."""
    out = []
    for given in review["request"]["objects"]:
        obj = copy.deepcopy(given)
        obj["apiVersion"] = review["request"]["desiredAPIVersion"]
        spec = obj["spec"]
        if obj["apiVersion"].endswith("/v2"):
            spec["host"], _, spec["port"] = spec.pop("host").partition(":")
        else:
            spec["host"] = f"{spec.pop('host')}:{spec.pop('port')}"
        obj["metadata"].setdefault("labels", {})["converted"] = "yes"
        obj["metadata"]["finalizers"] = ["never/this"]
        out.append(obj)
    response = {"uid": review["request"]["uid"], "convertedObjects": out, "result": {"status": "Success"}}
    return {"apiVersion": review["apiVersion"], "kind": "ConversionReview", "response": response}


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[ApiServer, Client]]:
    server = ApiServer(MemoryStore(), Env.seeded(1), TypeRegistry())
    await server.start()
    try:
        yield server, Client(InProcessTransport(server.handle))
    finally:
        await server.close()


async def change(client: Client, edit: Any) -> dict[str, Any]:
    crd = await client.get(CUSTOM_RESOURCE_DEFINITIONS, NAME)
    edit(crd)
    return await client.update(CUSTOM_RESOURCE_DEFINITIONS, crd)


def store_v2(crd: dict[str, Any]) -> None:
    crd["spec"]["versions"][0]["storage"] = False
    crd["spec"]["versions"][1]["storage"] = True


BOTH = (version("v1", storage=True, host=STRING), version("v2", host=STRING, port=STRING))


def by_webhook(peer: WebhookPeer, *reviews: str) -> dict[str, Any]:
    webhook = {"conversionReviewVersions": list(reviews or ("v1", "v1beta1")), "clientConfig": peer.config("/convert")}
    return {"strategy": "Webhook", "webhook": webhook}


@pytest.mark.realtime
async def test_objects_are_converted_when_read_written_listed_and_watched(tmp_path: Path) -> None:
    async with serving() as (server, client), webhook_peer(tmp_path) as peer:
        peer.raw = converted
        crd = definition(*copy.deepcopy(BOTH), conversion=by_webhook(peer))
        await client.create(CUSTOM_RESOURCE_DEFINITIONS, crd)
        made = await client.create(V1, port(V1, "a", host="one:80"))
        assert peer.reviews == []  # written as it is stored
        seen = await client.get(V2, "a", "default")
        assert seen["spec"] == {"host": "one", "port": "80"}
        assert (seen["metadata"]["labels"], seen["metadata"].get("finalizers")) == ({"converted": "yes"}, None)
        assert seen["metadata"]["uid"] == made["metadata"]["uid"]
        other = await client.create(V2, port(V2, "b", host="two", port="81"))
        assert other["spec"] == {"host": "two", "port": "81"}
        assert (await client.get(V1, "b", "default"))["spec"] == {"host": "two:81"}
        listed = await client.list(V2, "default")
        assert [(o["apiVersion"], o["spec"]["port"]) for o in listed.items] == [
            (V2.api_version, p) for p in ("80", "81")
        ]
        assert [len(r["objects"]) for r in peer.reviews][-1] == 2  # one review for the whole list
        types = []
        async for event in client.watch(V2, "default"):
            types.append((event.type, event.object["spec"]))
            if len(types) == 2:
                await client.patch(V1, "a", {"spec": {"host": "one:82"}}, "default")
            if len(types) == 3:
                break
        assert types[2] == ("MODIFIED", {"host": "one", "port": "82"})
        # a change of the stored version: what is stored stays until it is written again
        crd = await change(client, store_v2)
        assert crd["status"]["storedVersions"] == ["v1", "v2"]
        await client.create(V2, port(V2, "c", host="three", port="83"))
        listed = await client.list(V1, "default")
        assert [o["spec"]["host"] for o in listed.items] == ["one:82", "two:81", "three:83"]
        raw = [orjson.loads(e.value)["apiVersion"] for e in server.store.range(NAME, "root").entries]
        assert raw == [V1.api_version, V1.api_version, V2.api_version]
        await client.update(V2, await client.get(V2, "a", "default"))  # an empty update moves it
        raw = [orjson.loads(e.value)["apiVersion"] for e in server.store.range(NAME, "root").entries]
        assert raw == [V2.api_version, V1.api_version, V2.api_version]
        with pytest.raises(ApiError) as caught:  # v1 is still needed
            await change(client, lambda crd: crd["spec"]["versions"].pop(0))
        assert "v1 was previously a storage version, and must remain in spec.versions" in caught.value.message
        await client.delete(V2, "b", "default")


@pytest.mark.realtime
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"uid": "other"}, 'failed: expected response.uid="'),
        ({"result": {"status": "Failure", "message": "no such thing"}}, "failed: no such thing"),
        ({"convertedObjects": []}, "returned 0 objects, expected 1"),
    ],
)
async def test_what_a_webhook_gets_wrong_is_said(tmp_path: Path, fault: dict[str, Any], message: str) -> None:
    async with serving() as (_, client), webhook_peer(tmp_path) as peer:
        peer.raw = lambda review: (answer := converted(review)) | {"response": answer["response"] | fault}
        crd = definition(*copy.deepcopy(BOTH), conversion=by_webhook(peer))
        await client.create(CUSTOM_RESOURCE_DEFINITIONS, crd)
        await client.create(V1, port(V1, "a", host="one:80"))
        with pytest.raises(ApiError) as caught:
            await client.get(V2, "a", "default")
        assert caught.value.code == 500
        start = f"conversion webhook for {V1.api_version}, Kind=Port"
        assert start in caught.value.message
        assert message in caught.value.message


async def test_without_conversion_only_the_version_differs_and_unknown_fields_go() -> None:
    async with serving() as (_, client):
        await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition(*copy.deepcopy(BOTH)))
        await client.create(V2, port(V2, "a", host="h", port="1"))
        assert (await client.get(V1, "a", "default"))["spec"] == {"host": "h"}  # v1 is stored, and knows no port
        assert (await client.get(V2, "a", "default"))["apiVersion"] == V2.api_version


async def test_defaults_that_came_later_are_there_when_old_objects_are_read() -> None:
    async with serving() as (server, client):
        await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition(version("v1", storage=True, host=STRING)))
        await client.create(V1, port(V1, "old", host="h"))

        def add(crd: dict[str, Any]) -> None:
            spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
            spec["properties"]["color"] = {"type": "string", "default": "red"}

        await change(client, add)
        assert (await client.get(V1, "old", "default"))["spec"] == {"host": "h", "color": "red"}
        await client.create(V1, port(V1, "new", host="h", color="blue"))
        listed = (await client.list(V1, "default")).items
        assert [o["spec"]["color"] for o in listed] == ["blue", "red"]
        assert b"red" not in server.store.range(NAME, "root").entries[1].value
        async for event in client.watch(V1, "default"):
            assert event.object["spec"]["color"] in ("red", "blue")
            break

        def narrow(crd: dict[str, Any]) -> None:
            del crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["color"]

        await change(client, narrow)
        assert [o["spec"] for o in (await client.list(V1, "default")).items] == [{"host": "h"}, {"host": "h"}]


async def test_watches_end_when_the_kind_is_served_no_more() -> None:
    async with serving() as (server, client):
        await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition(version("v1", storage=True, host=STRING)))
        await client.create(V1, port(V1, "a", host="h"))
        request = Request("GET", f"/apis/{V1.api_version}/ports", [("watch", "true")], {}, b"", PLATFORM)
        response = await server.handle(request)
        assert response.stream is not None
        await client.delete(CUSTOM_RESOURCE_DEFINITIONS, NAME)
        frames = [frame async for frame in response.stream]
        kinds = [orjson.loads(line)["type"] for frame in frames for line in frame.splitlines()]
        assert kinds == ["ADDED", "DELETED"]


async def test_two_definitions_may_not_have_the_same_name() -> None:
    async with serving() as (_, client):
        await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition(version("v1", storage=True)))
        rival = definition(version("v1", storage=True))
        rival["metadata"]["name"] = f"harbours.{V1.group}"
        rival["spec"]["names"] |= {"plural": "harbours", "singular": "port", "shortNames": ["ports", "hb"]}
        await client.create(CUSTOM_RESOURCE_DEFINITIONS, rival)

        async def conditions() -> dict[str, tuple[str, str, str]]:
            found = await client.get(CUSTOM_RESOURCE_DEFINITIONS, rival["metadata"]["name"])
            return {c["type"]: (c["status"], c["reason"], c["message"]) for c in found["status"]["conditions"]}

        assert await conditions() == {
            "NamesAccepted": ("False", "ListKindConflict", '"PortList" is already in use'),
            "Established": ("False", "NotAccepted", "not all names are accepted"),
        }
        harbours = Resource(V1.group, "v1", "harbours", "Port", True)
        with pytest.raises(ApiError) as caught:
            await client.list(harbours)
        assert caught.value.code == 404
        await client.delete(CUSTOM_RESOURCE_DEFINITIONS, NAME)  # the names are free
        assert await conditions() == {
            "NamesAccepted": ("True", "NoConflicts", "no conflicts found"),
            "Established": ("True", "InitialNamesAccepted", "the initial names have been accepted"),
        }
        assert (await client.list(harbours)).items == []


async def test_ten_thousand_clusters_share_one_schema() -> None:
    registry = TypeRegistry()
    crd = definition(version("v1", storage=True, host=STRING))
    crd["status"] = {"conditions": [{"type": "Established", "status": "True"}], "storedVersions": ["v1"]}
    for index in range(1000):
        registry.set_crd(f"c{index}", copy.deepcopy(crd))
    first, last = (registry.lookup(c, V1.group, "v1", "ports") for c in ("c0", "c999"))
    assert first is last is not None
    assert registry.fingerprint("c0") == registry.fingerprint("c999")
    changed = copy.deepcopy(crd)
    changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["x"] = STRING
    registry.set_crd("c0", changed)
    assert registry.lookup("c0", V1.group, "v1", "ports") is not last


async def test_users_of_a_deprecated_version_are_told() -> None:
    async with serving() as (server, client):
        old = version("v1alpha1", host=STRING) | {"deprecated": True}
        older = version("v1alpha2", host=STRING) | {"deprecated": True, "deprecationWarning": "use v1"}
        crd = definition(version("v1", storage=True, host=STRING), old, older)
        await client.create(CUSTOM_RESOURCE_DEFINITIONS, crd)

        async def warning(name: str) -> str | None:
            path = f"/apis/{V1.group}/{name}/namespaces/default/ports"
            return (await server.handle(Request("GET", path, [], {}, b"", PLATFORM))).headers.get("warning")

        assert await warning("v1") is None
        assert await warning("v1alpha1") == f'299 - "{V1.group}/v1alpha1 Port is deprecated"'
        assert await warning("v1alpha2") == '299 - "use v1"'
