"""A small encoder of Kubernetes' protobuf, as Go clients write it, and random objects to feed it."""

from __future__ import annotations

import struct
from random import Random
from typing import Any

import orjson

from glebe.apiserver.protobuf import messages
from glebe.apiserver.protobuf.messages import Field

META = "io.k8s.apimachinery.pkg.apis.meta.v1"
_WIRE_TYPES = {"int32": 0, "int64": 0, "bool": 0, "double": 1}
_ZEROS: dict[str, Any] = {"string": "", "int32": 0, "int64": 0, "bool": False, "double": 0}


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def block(number: int, data: bytes) -> bytes:
    """A field with a length."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def number(at: int, value: int) -> bytes:
    """A varint field."""
    return varint(at << 3) + varint(value)


def string(at: int, value: str) -> bytes:
    return block(at, value.encode())


def envelope(api_version: str, kind: str, raw: bytes) -> bytes:
    """A whole body."""
    type_meta = string(1, api_version) + string(2, kind)
    return b"k8s\x00" + block(1, type_meta) + block(2, raw) + string(3, "") + string(4, "")


def scalar(kind: str, at: int, value: Any) -> bytes:
    if kind == "string":
        return string(at, value)
    if kind == "double":
        return varint(at << 3 | 1) + struct.pack("<d", value)
    return number(at, int(value))


class RandomObject:
    """Draws objects: each method returns (JSON, its bytes)."""

    def __init__(self, random: Random) -> None:
        self.random = random

    def scalar(self, kind: str) -> Any:
        choose = self.random.choice
        if kind == "string":
            return choose(["", "a", "ü✓", "x" * 200])
        if kind == "bool":
            return choose([True, False])
        if kind == "double":
            return choose([0, 1, -2.5, 1e300])
        largest = 2**31 if kind == "int32" else 2**63
        return choose([0, 1, -1, largest - 1, -largest, 300])

    def special(self, name: str, depth: int) -> tuple[Any, bytes]:
        short, choose = name.rpartition(".")[2], self.random.choice
        if short == "Quantity":
            text = choose(["0", "100m", "1Gi"])
            return text, string(1, text)
        if short == "IntOrString":
            value = choose([0, -5, 80, "", "50%"])
            if isinstance(value, str):
                return value, number(1, 1) + number(2, 0) + string(3, value)
            return value, number(1, 0) + number(2, value) + string(3, "")
        if short in ("Time", "MicroTime"):
            seconds, text = choose([(0, "1970-01-01T00:00:00"), (1709201472, "2024-02-29T10:11:12")])
            nanos = choose([0, 123456000]) if short == "MicroTime" else 0
            fraction = f".{nanos // 1000:06d}" if short == "MicroTime" else ""
            return choose([(None, b""), (f"{text}{fraction}Z", number(1, seconds) + number(2, nanos))])
        if short.startswith("JSONSchemaPropsOr"):
            return self.either(name, short, depth)
        value = choose([{}, [1, {"a": None}], "x", 2.5, {"f:metadata": {".": {}}}])
        return value, block(1, orjson.dumps(value))

    def either(self, name: str, short: str, depth: int) -> tuple[Any, bytes]:
        props = f"{name.rpartition('.')[0]}.JSONSchemaProps"
        schema, data = self.message(props, depth + 1)
        if short == "JSONSchemaPropsOrBool":
            allows = self.random.choice([True, False])
            return self.random.choice([(schema, number(1, 1) + block(2, data)), (allows, number(1, int(allows)))])
        if self.random.choice([True, False]):
            return schema, block(1, data)
        if short == "JSONSchemaPropsOrArray":
            return [schema, schema], block(2, data) * 2
        return ["a", ""], string(2, "a") + string(2, "")

    def value(self, kind: str, at: int, depth: int) -> tuple[Any, bytes]:
        """One value as a field."""
        if kind == "bytes":
            return self.random.choice([("", block(at, b"")), ("AP8=", block(at, b"\x00\xff"))])
        if kind in messages.SCALARS:
            plain = self.scalar(kind)
            return plain, scalar(kind, at, plain)
        value, data = self.message(kind, depth + 1)
        return value, block(at, data)

    def message(self, name: str, depth: int = 0) -> tuple[Any, bytes]:
        if name not in messages.names():
            return self.special(name, depth)
        out: dict[str, Any] = {}
        wire = b""
        for field in messages.fields(name).values():
            value, data, there = self.field(field, depth)
            wire += data
            if not field.name and field.shape:
                return value, wire
            if not field.name:
                out.update(value)
            elif there:
                out[field.name] = value
        return out, wire

    def field(self, field: Field, depth: int) -> tuple[Any, bytes, bool]:
        """(JSON, bytes, whether JSON has it)."""
        if field.shape:
            size = self.random.randint(0, 2) if depth < 4 else 0
            if field.shape == "[]":
                pairs = [self.value(field.type, field.number, depth) for _ in range(size)]
                value, data = [v for v, _ in pairs], b"".join(d for _, d in pairs)
            else:
                value, data = self.map(field, size, depth)
            if size:
                return value, data, True
            return ([] if not field.name else None), b"", field.flag == messages.OR_NULL
        if field.flag in (messages.IF_PRESENT, messages.OR_NULL) and (depth > 3 or self.random.random() < 0.5):
            return None, b"", field.flag == messages.OR_NULL
        value, data = self.value(field.type, field.number, depth)
        return value, data, field.flag != messages.OMIT_EMPTY or bool(value)

    def map(self, field: Field, size: int, depth: int) -> tuple[Any, bytes]:
        out, wire = {}, b""
        for key in ["", "k/ü"][:size]:
            out[key], data = self.value(field.type, 2, depth)
            wire += block(field.number, string(1, key) + data)
        return out, wire
