"""OpenAPI v2 in the protobuf form that client-go asks for (gnostic's ``openapi.v2.Document``).

The document's JSON is the source; a table says which message and field number each key has. What has no field (the
``x-...`` keys) goes into ``vendor_extension`` as YAML text, of which JSON is a part.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterator
from typing import Any

import orjson

_BREATHE = 20
"""So many definitions or paths are written between two breaths."""

#: message -> JSON key -> (field number, kind). Kinds: ``s`` text, ``b`` boolean, ``i`` integer, ``d`` double, ``any``
#: any value as YAML, or the name of a message or writer; a ``*`` behind it: repeated.
_BOUNDS = [
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "uniqueItems",
    "enum",
    "multipleOf",
]
_BOUND_KINDS = {
    "maximum": "d",
    "minimum": "d",
    "multipleOf": "d",
    "exclusiveMaximum": "b",
    "exclusiveMinimum": "b",
    "uniqueItems": "b",
    "pattern": "s",
    "enum": "any*",
}


def _bounds(first: int) -> dict[str, tuple[int, str]]:
    return {name: (first + i, _BOUND_KINDS.get(name, "i")) for i, name in enumerate(_BOUNDS)}


_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Info": {"title": (1, "s"), "version": (2, "s"), "description": (3, "s")},
    "Schema": {
        "$ref": (1, "s"),
        "format": (2, "s"),
        "title": (3, "s"),
        "description": (4, "s"),
        "default": (5, "any"),
        "multipleOf": (6, "d"),
        "maximum": (7, "d"),
        "exclusiveMaximum": (8, "b"),
        "minimum": (9, "d"),
        "exclusiveMinimum": (10, "b"),
        "maxLength": (11, "i"),
        "minLength": (12, "i"),
        "pattern": (13, "s"),
        "maxItems": (14, "i"),
        "minItems": (15, "i"),
        "uniqueItems": (16, "b"),
        "maxProperties": (17, "i"),
        "minProperties": (18, "i"),
        "required": (19, "s*"),
        "enum": (20, "any*"),
        "additionalProperties": (21, "additional"),
        "type": (22, "strings"),
        "items": (23, "items"),
        "allOf": (24, "Schema*"),
        "properties": (25, "properties"),
        "example": (30, "any"),
    },
    "Operation": {
        "tags": (1, "s*"),
        "summary": (2, "s"),
        "description": (3, "s"),
        "operationId": (5, "s"),
        "produces": (6, "s*"),
        "consumes": (7, "s*"),
        "parameters": (8, "parameter*"),
        "responses": (9, "responses"),
        "schemes": (10, "s*"),
        "deprecated": (11, "b"),
    },
    "PathItem": {
        **{
            method: (2 + i, "Operation")
            for i, method in enumerate(["get", "put", "post", "delete", "options", "head", "patch"])
        },
        "parameters": (9, "parameter*"),
    },
    "Response": {"description": (1, "s"), "schema": (2, "schema item")},
    "BodyParameter": {
        "description": (1, "s"),
        "name": (2, "s"),
        "in": (3, "s"),
        "required": (4, "b"),
        "schema": (5, "Schema"),
    },
    "QueryParameter": {
        "required": (1, "b"),
        "in": (2, "s"),
        "description": (3, "s"),
        "name": (4, "s"),
        "allowEmptyValue": (5, "b"),
        "type": (6, "s"),
        "format": (7, "s"),
        "default": (10, "any"),
        **_bounds(11),
    },
    "PathParameter": {
        "required": (1, "b"),
        "in": (2, "s"),
        "description": (3, "s"),
        "name": (4, "s"),
        "type": (5, "s"),
        "format": (6, "s"),
        "default": (9, "any"),
        **_bounds(10),
    },
    "ApiKeySecurity": {"type": (1, "s"), "name": (2, "s"), "in": (3, "s"), "description": (4, "s")},
}
#: where a message keeps its vendor extensions
_EXTENSIONS = {"Schema": 31, "Operation": 13, "PathItem": 10, "Response": 5, "BodyParameter": 6, "ApiKeySecurity": 5}


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _text(number: int, value: str) -> bytes:
    return _field(number, value.encode())


def _any(value: Any) -> bytes:
    """``openapi.v2.Any``: the value as YAML."""
    return _field(2, orjson.dumps(value) + b"\n")


def _named(number: int, name: str, data: bytes) -> bytes:
    return _field(number, _text(1, name) + _field(2, data))


def _message(kind: str, value: dict[str, Any]) -> bytes:
    table = _MESSAGES[kind]
    out: list[bytes] = []
    extensions: list[bytes] = []
    for key, item in value.items():
        known = table.get(key)
        if known is not None:
            out.extend(_value(known[0], known[1], item))
        elif key.startswith("x-") and kind in _EXTENSIONS:
            extensions.append(_named(_EXTENSIONS[kind], key, _any(item)))
    return b"".join((*out, *extensions))


def _value(number: int, kind: str, item: Any) -> Iterator[bytes]:
    if kind.endswith("*"):
        for one in item:
            yield from _value(number, kind[:-1], one)
    elif kind == "s":
        yield _text(number, str(item))
    elif kind == "b":
        if item:
            yield _varint(number << 3) + b"\1"
    elif kind == "i":
        yield _varint(number << 3) + _varint(int(item))
    elif kind == "d":
        yield _varint(number << 3 | 1) + struct.pack("<d", float(item))
    elif kind == "any":
        yield _field(number, _any(item))
    elif kind in _MESSAGES:
        yield _field(number, _message(kind, item))
    else:
        yield _field(number, _WRITERS[kind](item))


def _additional(item: Any) -> bytes:
    return b"\x10" + (b"\1" if item else b"\0") if isinstance(item, bool) else _field(1, _message("Schema", item))


def _properties(item: dict[str, Any]) -> bytes:
    return b"".join(_named(1, name, _message("Schema", schema)) for name, schema in item.items())


def _strings(item: Any) -> bytes:
    return b"".join(_text(1, one) for one in (item if isinstance(item, list) else [item]))


def _items(item: Any) -> bytes:
    return b"".join(_field(1, _message("Schema", one)) for one in (item if isinstance(item, list) else [item]))


def _parameter(item: dict[str, Any]) -> bytes:
    if "$ref" in item:
        return _field(2, _text(1, item["$ref"]))
    if item.get("in") == "body":
        return _field(1, _field(1, _message("BodyParameter", item)))
    if item.get("in") == "path":
        inner = _field(4, _message("PathParameter", item))
    else:
        inner = _field(3, _message("QueryParameter", item))
    return _field(1, _field(2, inner))


def _responses(item: dict[str, Any]) -> bytes:
    return b"".join(_named(1, code, _field(1, _message("Response", one))) for code, one in item.items())


_WRITERS: dict[str, Callable[[Any], bytes]] = {
    "additional": _additional,
    "items": _items,
    "parameter": _parameter,
    "properties": _properties,
    "responses": _responses,
    "schema item": lambda item: _field(1, _message("Schema", item)),
    "strings": _strings,
}


async def encode_v2(body: bytes) -> bytes:
    """The protobuf form of an OpenAPI v2 document (JSON)."""
    document = orjson.loads(body)
    paths, definitions = [], []
    for index, (path, item) in enumerate(document["paths"].items()):
        paths.append(_named(2, path, _message("PathItem", item)))
        if index % _BREATHE == _BREATHE - 1:
            await asyncio.sleep(0)
    for index, (name, schema) in enumerate(document["definitions"].items()):
        definitions.append(_named(1, name, _message("Schema", schema)))
        if index % _BREATHE == _BREATHE - 1:
            await asyncio.sleep(0)
    security = b"".join(
        _named(1, name, _field(2, _message("ApiKeySecurity", item)))
        for name, item in document["securityDefinitions"].items()
    )
    required = b"".join(
        _field(12, b"".join(_named(1, name, _strings(scopes)) for name, scopes in one.items()))
        for one in document["security"]
    )
    return b"".join(
        (
            _text(1, document["swagger"]),
            _field(2, _message("Info", document["info"])),
            _field(8, b"".join(paths)),
            _field(9, b"".join(definitions)),
            required,
            _field(13, security),
        )
    )
