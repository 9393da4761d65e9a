"""Responses in Kubernetes' protobuf: objects, lists, errors, watches."""

from __future__ import annotations

import struct
from random import Random
from typing import Any

import orjson
import protobuf_encoder as enc
import pytest

from glebe.apiserver.protobuf import decode, encode, messages, special, wire
from glebe.apiserver.request import media
from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.clock import Env
from glebe.kube.transport import PLATFORM, Request, Response

PROTOBUF = media.PROTOBUF
MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"


async def serve() -> ApiServer:
    server = ApiServer(MemoryStore(), Env.seeded(1), TypeRegistry())
    await server.start()
    return server


async def ask(server: ApiServer, method: str, path: str, body: Any = None, accept: str = PROTOBUF) -> Response:
    headers = {"accept": accept, "content-type": media.JSON}
    path, _, query = path.partition("?")
    pairs = [tuple(p.split("=", 1)) for p in query.split("&") if p]
    data = orjson.dumps(body) if body is not None else b""
    return await server.handle(Request(method, path, pairs, headers, data, PLATFORM))  # type: ignore[arg-type]


def config_map(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}}


@pytest.mark.parametrize("key", sorted(messages.kinds()))
def test_every_kind_comes_back_as_it_went(key: str) -> None:
    """Random objects of every kind: bytes -> object -> bytes -> object."""
    version, _, kind = key.rpartition("/")
    version = version.removeprefix("/")
    if kind == "DeleteOptions":
        version = "v1"
    for seed in range(2):
        _, raw = enc.RandomObject(Random(seed)).message(messages.kinds()[key])
        obj, _ = decode.decode(enc.envelope(version, kind, raw))
        assert without_nulls(decode.decode(encode.encode(obj))[0]) == without_nulls(obj)


def test_messages_inside_messages_that_json_writes_as_one() -> None:
    rule = {
        "operations": ["CREATE"],
        "apiGroups": ["apps"],
        "apiVersions": ["v1"],
        "resources": ["deployments"],
        "resourceNames": ["a"],
    }
    obj = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "x"},
        "spec": {"matchConstraints": {"resourceRules": [rule]}},
    }
    again, _ = decode.decode(encode.encode(obj))
    assert again["spec"]["matchConstraints"]["resourceRules"] == [rule]


def without_nulls(value: Any) -> Any:
    """A null in a field of raw JSON is nothing on the wire."""
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return [without_nulls(v) for v in value] if isinstance(value, list) else value


async def test_objects_lists_and_errors_come_in_protobuf_for_who_asks() -> None:
    server = await serve()
    made = await ask(server, "POST", MAPS, config_map("a"))
    assert (made.status, made.headers["content-type"]) == (201, PROTOBUF)
    assert decode.decode(made.body)[0]["data"] == {"a": "b"}
    plain = orjson.loads((await ask(server, "GET", f"{MAPS}/a", accept=media.JSON)).body)
    assert decode.decode((await ask(server, "GET", f"{MAPS}/a")).body)[0] == plain
    listed = decode.decode((await ask(server, "GET", MAPS)).body)[0]
    assert (listed["kind"], listed["apiVersion"]) == ("ConfigMapList", "v1")
    assert [{**o, "kind": "ConfigMap", "apiVersion": "v1"} for o in listed["items"]] == [plain]
    missing = await ask(server, "GET", f"{MAPS}/b")
    assert (missing.status, missing.headers["content-type"]) == (404, PROTOBUF)
    assert decode.decode(missing.body)[0]["message"] == 'configmaps "b" not found'


@pytest.mark.parametrize(
    ("accept", "path", "wanted"),
    [
        (f"{PROTOBUF},{media.JSON}", MAPS, PROTOBUF),
        (f"{media.JSON},{PROTOBUF}", MAPS, media.JSON),
        (f"{PROTOBUF},{media.JSON}", "/apis/example.dev/v1/things", media.JSON),
        (f"{PROTOBUF};as=Table;v=v1;g=meta.k8s.io,{media.JSON}", MAPS, media.JSON),
    ],
)
async def test_the_first_form_that_the_resource_has_is_given(accept: str, path: str, wanted: str) -> None:
    server = await serve()
    names = {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.dev"},
        "spec": {"group": "example.dev", "names": names, "scope": "Cluster", "versions": [version]},
    }
    await ask(server, "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
    assert (await ask(server, "GET", path, accept=accept)).headers["content-type"] == wanted


async def test_metadata_alone_comes_in_protobuf() -> None:
    server = await serve()
    await ask(server, "POST", MAPS, config_map("a"))
    form = f"{PROTOBUF};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    listed = decode.decode((await ask(server, "GET", MAPS, accept=form)).body)[0]
    assert listed["kind"] == "PartialObjectMetadataList"
    assert [o["metadata"]["name"] for o in listed["items"]] == ["a"]
    form = f"{PROTOBUF};as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
    one = decode.decode((await ask(server, "GET", f"{MAPS}/a", accept=form)).body)[0]
    assert "data" not in one


def events(data: bytes) -> list[tuple[str, dict[str, Any]]]:
    found, at = [], 0
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        event = special.values(data[at + 4 : at + 4 + size], {1: wire.BYTES, 2: wire.BYTES})
        raw = special.values(event[2], {1: wire.BYTES})[1]
        found.append((event[1].decode(), decode.decode(raw)[0]))
        at += 4 + size
    return found


async def test_a_watch_is_a_stream_of_frames() -> None:
    server = await serve()
    await ask(server, "POST", MAPS, config_map("a"))
    accept = f"{PROTOBUF};stream=watch"
    watch = await ask(server, "GET", f"{MAPS}?watch=1&allowWatchBookmarks=1&timeoutSeconds=90", accept=accept)
    assert watch.headers["content-type"] == f"{PROTOBUF};stream=watch"
    assert watch.stream is not None
    got = events(await anext(watch.stream))
    assert [(kind, obj["metadata"]["name"]) for kind, obj in got] == [("ADDED", "a")]
    await ask(server, "DELETE", f"{MAPS}/a")
    got = events(await anext(watch.stream))
    assert [(kind, obj["data"]) for kind, obj in got] == [("DELETED", {"a": "b"})]
    got = events(await anext(watch.stream))
    assert got[0][0] == "BOOKMARK"
    assert got[0][1]["kind"] == "ConfigMap"
    await watch.close()
    old = await ask(server, "GET", f"{MAPS}?watch=1&resourceVersion=1", accept=accept)
    server.store.compact(server.store.revision)  # type: ignore[attr-defined]
    old = await ask(server, "GET", f"{MAPS}?watch=1&resourceVersion=1", accept=accept)
    assert old.stream is not None
    kind, status = events(await anext(old.stream))[0]
    assert (kind, status["code"]) == ("ERROR", 410)
