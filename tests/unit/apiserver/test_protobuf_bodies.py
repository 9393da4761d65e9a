"""Request bodies in Kubernetes' protobuf: what they become, and what is refused."""

from __future__ import annotations

from random import Random

import protobuf_encoder as enc
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glebe.apiserver.protobuf import messages
from glebe.apiserver.protobuf.decode import MAX_DEPTH, MAX_MESSAGES, decode
from glebe.apiserver.request import media
from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types import schema
from glebe.apiserver.types.registry import TypeRegistry, builtins
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.inprocess import InProcessTransport

PROTOBUF = media.PROTOBUF
#: Raw bytes of ConfigMap c: metadata.name, data {a: b}, binaryData {z: 0x00ff}, immutable: false.
CONFIG_MAP = (
    b"\x0a\x05\x0a\x01c\x12\x00"  # metadata: name, and an empty generateName
    b"\x12\x06\x0a\x01a\x12\x01b"  # data
    b"\x1a\x07\x0a\x01z\x12\x02\x00\xff"  # binaryData
    b"\x20\x00"  # immutable
)


def config_map(raw: bytes) -> bytes:
    return enc.envelope("v1", "ConfigMap", raw)


def refused(body: bytes) -> ApiError:
    with pytest.raises(ApiError) as caught:
        media.decode(body, PROTOBUF)
    assert caught.value.reason in ("BadRequest", "UnsupportedMediaType")
    return caught.value


def test_bytes_made_by_hand() -> None:
    assert media.decode(config_map(CONFIG_MAP), f"{PROTOBUF};charset=utf-8") == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "c"},
        "data": {"a": "b"},
        "binaryData": {"z": "AP8="},
        "immutable": False,
    }


def test_the_last_value_wins_and_parts_of_a_message_are_joined() -> None:
    first = enc.block(1, enc.string(1, "old") + enc.block(11, enc.string(1, "l") + enc.string(2, "1")))
    second = enc.block(1, enc.string(1, "new") + enc.block(11, enc.string(1, "l") + enc.string(2, "2")))
    obj = media.decode(config_map(first + second), PROTOBUF)
    assert obj["metadata"] == {"name": "new", "labels": {"l": "2"}}


def test_packed_numbers_are_read_too() -> None:
    codes = enc.block(3, enc.varint(1) + enc.varint(42))
    rule = enc.string(1, "FailJob") + enc.block(2, enc.string(2, "In") + codes)
    job = enc.block(2, enc.block(11, enc.block(1, rule)))
    obj = media.decode(enc.envelope("batch/v1", "Job", job), PROTOBUF)
    assert obj["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [1, 42]


def test_options_of_a_deletion_belong_to_every_group() -> None:
    raw = enc.number(1, 0) + enc.block(2, enc.string(1, "uid")) + enc.string(4, "Orphan") + enc.string(5, "All")
    obj = media.decode(enc.envelope("policy/v1", "DeleteOptions", raw), PROTOBUF)
    assert obj == {
        "apiVersion": "policy/v1",
        "kind": "DeleteOptions",
        "gracePeriodSeconds": 0,
        "preconditions": {"uid": "uid"},
        "propagationPolicy": "Orphan",
        "dryRun": ["All"],
    }


def test_unknown_fields_are_left_out_and_named() -> None:
    heard: list[str] = []
    body = config_map(CONFIG_MAP + enc.string(99, "x") + enc.number(77, 1))
    assert media.decode(body, PROTOBUF, heard.append)["metadata"] == {"name": "c"}
    assert heard == [f"protobuf field {n} of ConfigMap is not known and was left out" for n in (99, 77)]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "expected prefix"),
        (b'{"kind":"Pod"}', "expected prefix"),
        (b"k8s\x00", "'Kind' is missing"),
        (enc.envelope("", "Pod", b""), "'apiVersion' is missing"),
        (b"k8s\x00\x0a", "the data ends within a varint"),
        (b"k8s\x00\x0a\x05a", "field 1 wants 5 bytes, 1 are left"),
        (b"k8s\x00" + enc.number(1, 1), "expected a length and its bytes, got a varint"),
        (config_map(CONFIG_MAP[:-4]), "field 3 wants 7 bytes"),
        (config_map(b"\xff" * 11), "more than 10 bytes"),
        (config_map(b"\x20" + b"\xff" * 9 + b"\x02"), "more than 64 bits"),
        (config_map(b"\x02\x00"), "0 is not a field number"),
        (config_map(b"\x0b\x0c"), "unknown wire type 3"),
        (config_map(enc.number(1, 5)), "metadata: expected a length and its bytes, got a varint"),
        (config_map(enc.string(4, "x")), "immutable: expected a varint, got a length and its bytes"),
        (config_map(enc.block(1, enc.block(1, b"\xff"))), "metadata.name: the string is not UTF-8"),
        (config_map(enc.block(2, enc.number(2, 1))), "data: expected a length and its bytes, got a varint"),
        (config_map(enc.block(1, enc.block(9, enc.number(1, 2**62)))), "metadata.deletionTimestamp: "),
        (
            config_map(enc.block(1, enc.block(17, enc.block(7, enc.block(1, b"{"))))),
            "metadata.managedFields[0].fieldsV1",
        ),
    ],
)
def test_what_is_malformed_is_refused_where_it_is(body: bytes, why: str) -> None:
    error = refused(body)
    assert error.code == 400
    assert why in error.message
    assert error.message.startswith("the body cannot be decoded as protobuf: ")


def test_deep_and_wide_bodies_are_refused() -> None:
    deep = b""
    for _ in range(MAX_DEPTH):
        deep = enc.block(28, deep)  # not: {not: {...
    version = enc.string(1, "v1") + enc.block(4, enc.block(1, deep))
    body = enc.envelope(
        "apiextensions.k8s.io/v1", "CustomResourceDefinition", enc.block(1, b"") + enc.block(2, enc.block(7, version))
    )
    assert f"nested more than {MAX_DEPTH} levels" in refused(body).message
    wide = enc.block(2, enc.block(2, b"") * (MAX_MESSAGES // 2))
    assert f"more than {MAX_MESSAGES} parts" in refused(enc.envelope("v1", "Pod", wide)).message


@pytest.mark.parametrize(("api_version", "kind"), [("example.com/v1", "Thing"), ("v1", "Job"), ("v1", "PodSpec")])
def test_kinds_without_a_protobuf_form_are_a_415(api_version: str, kind: str) -> None:
    error = refused(enc.envelope(api_version, kind, b""))
    assert error.code == 415
    assert "accepted media types include: application/json, application/yaml (got" in error.message
    assert f'kind "{kind}" in version "{api_version}" has no protobuf form here' in error.message


def test_every_served_kind_has_all_its_fields() -> None:
    """The tables agree with the schemas, which come from another source."""
    known = set(messages.names())
    for info in builtins():
        assert messages.kinds()[f"{info.group}/{info.version}/{info.kind}"] == info.definition
    for name in sorted(known):
        package, _, short = name.rpartition(".")
        try:
            properties = schema.package(package)[short].get("properties")
        except (KeyError, FileNotFoundError):  # a message that is inlined, or that no served kind's JSON has
            continue
        if properties:
            assert {*json_names(name)} ^ {*properties} <= {"apiVersion", "kind"}, name


def json_names(name: str) -> list[str]:
    found = []
    for field in messages.fields(name).values():
        found += [field.name] if field.name else json_names(field.type)
    return found


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32))
def test_every_message_is_read_as_it_was_written(seed: int) -> None:
    drawn = enc.RandomObject(Random(seed))
    for key, name in messages.kinds().items():
        group, version, kind = key.split("/")
        wanted, raw = drawn.message(name)
        got, unknown = decode(enc.envelope(f"{group}/{version}" if group else version, kind, raw))
        assert unknown == []
        assert {k: v for k, v in got.items() if k not in ("apiVersion", "kind")} == wanted, name


def answered(body: bytes) -> int:
    """The status: 200 for an object; anything but an ApiError fails the test."""
    code = 200
    try:
        media.decode(body, PROTOBUF)
    except ApiError as error:
        code = error.code
    assert code in (200, 400, 415)
    return code


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
@example(b"\x0a\x00" * 100)
def test_arbitrary_bytes_are_read_or_refused(raw: bytes) -> None:
    assert answered(raw) == 400
    answered(b"k8s\x00" + raw)
    for kind in ("Pod", "Service", "Event"):
        answered(enc.envelope("v1", kind, raw))
    answered(enc.envelope("apiextensions.k8s.io/v1", "CustomResourceDefinition", raw))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.data())
def test_damaged_objects_are_read_or_refused(seed: int, data: st.DataObject) -> None:
    kinds = sorted(messages.kinds().items())
    key, name = data.draw(st.sampled_from(kinds))
    group, version, kind = key.split("/")
    _, raw = enc.RandomObject(Random(seed)).message(name)
    body = bytearray(enc.envelope(f"{group}/{version}" if group else version, kind, raw))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    answered(bytes(body[: data.draw(st.integers(0, len(body)))]))
    answered(bytes(body))


async def test_the_server_takes_protobuf_and_answers_as_asked() -> None:
    server = ApiServer(MemoryStore(), Env.system(), TypeRegistry())
    await server.start()
    warnings: list[str] = []
    client = Client(InProcessTransport(server.handle))
    client.on_warning = warnings.append
    try:
        response = await client.raw(
            "POST",
            "/api/v1/namespaces/default/configmaps",
            body=config_map(CONFIG_MAP + enc.string(99, "new")),
            content_type=PROTOBUF,
            accept=f"application/json,{PROTOBUF}",
        )
        assert response.status == 201
        assert media.load_json(response.body)["binaryData"] == {"z": "AP8="}
        assert warnings == ["protobuf field 99 of ConfigMap is not known and was left out"]
        with pytest.raises(ApiError, match="cannot be decoded as protobuf") as caught:
            await client.raw(
                "POST", "/api/v1/namespaces/default/configmaps", body=b"k8s\x00\x0a", content_type=PROTOBUF
            )
        assert caught.value.code == 400
        options = enc.envelope("v1", "DeleteOptions", enc.block(2, enc.string(1, "another")))
        with pytest.raises(ApiError) as caught:
            await client.raw("DELETE", "/api/v1/namespaces/default/configmaps/c", body=options, content_type=PROTOBUF)
        assert caught.value.code == 409
        with pytest.raises(ApiError) as caught:
            await client.raw(
                "POST", "/api/v1/namespaces/default/pods", body=config_map(CONFIG_MAP), content_type=PROTOBUF
            )
        assert "ConfigMap" in caught.value.message
    finally:
        await server.close()
