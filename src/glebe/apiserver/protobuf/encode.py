"""An object as its JSON has it to Kubernetes' protobuf: what a response is when a client asks for it.

Each message gets a writer when it is first needed: a table from the name in JSON to a function that appends the field's
bytes. Zero values are left out, as the encoding allows; what Go keeps behind a pointer is written when JSON has it.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Any

import orjson

from glebe.apiserver.protobuf import messages
from glebe.apiserver.protobuf.messages import IF_PRESENT, OR_NULL, SCALARS, Field

MAGIC = b"k8s\x00"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1"
_APIEXTENSIONS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1"
_OPTIONS = "DeleteOptions"
#: runtime.Unknown's contentEncoding and contentType, which Go writes though they are empty
_TAIL = b"\x1a\x00\x22\x00"

Append = Callable[[bytearray, Any], None]
Value = Callable[[Any], bytes]


def varint(value: int) -> bytes:
    """A number of up to 64 bits; negative ones in two's complement."""
    if 0 <= value < 0x80:
        return _SMALL[value]
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_SMALL = [bytes((i,)) for i in range(0x80)]


def block(number: int, data: bytes) -> bytes:
    """A field with a length."""
    return b"".join((varint(number << 3 | 2), varint(len(data)), data))


def message_name(api_version: str, kind: str) -> str | None:
    """The full name of a kind's message; None when it has no protobuf form here."""
    group, _, version = api_version.rpartition("/")
    if kind == _OPTIONS:
        group, version = "meta.k8s.io", "v1"
    return messages.kinds().get(f"{group}/{version}/{kind}")


def encode(obj: dict[str, Any]) -> bytes:
    """An object, a list or a Status with its envelope.

    :raises KeyError: for a kind without a protobuf form.
    """
    name = message_name(obj.get("apiVersion", ""), obj.get("kind", ""))
    if name is None:
        raise KeyError(obj.get("kind"))
    return envelope(obj["apiVersion"], obj["kind"], _writer(name)(obj))


def encode_list(api_version: str, kind: str, meta: dict[str, Any], items: list[bytes]) -> bytes:
    """A list whose items are encoded already (:func:`raw`)."""
    parts = [block(1, _writer(f"{_META}.ListMeta")(meta))]
    for item in items:
        parts.append(b"\x12")
        parts.append(varint(len(item)))
        parts.append(item)
    return envelope(api_version, kind, b"".join(parts))


def raw(obj: dict[str, Any]) -> bytes:
    """An object's message without its envelope, as lists hold it.

    :raises KeyError: for a kind without a protobuf form.
    """
    name = message_name(obj.get("apiVersion", ""), obj.get("kind", ""))
    if name is None:
        raise KeyError(obj.get("kind"))
    return _writer(name)(obj)


def envelope(api_version: str, kind: str, message: bytes) -> bytes:
    """A message with what says its kind (``runtime.Unknown``)."""
    return b"".join((_head(api_version, kind), varint(len(message)), message, _TAIL))


@lru_cache(maxsize=1024)
def _head(api_version: str, kind: str) -> bytes:
    type_meta = block(1, api_version.encode()) + block(2, kind.encode())
    return MAGIC + block(1, type_meta) + b"\x12"


def watch_frame(kind: str, enveloped: bytes) -> bytes:
    """One event of a watch stream: four bytes of length, then ``meta/v1 WatchEvent`` without an envelope."""
    event = block(1, kind.encode()) + block(2, block(1, enveloped))
    return struct.pack(">I", len(event)) + event


# ------------------------------------------------------------------------------------------------------------ writers


@cache
def _writer(name: str) -> Value:
    """The function that encodes a message by its full name."""
    if name in _SPECIAL:
        return _SPECIAL[name]
    package, _, short = name.rpartition(".")
    if short.startswith("JSONSchemaPropsOr"):
        return _either(f"{package}.JSONSchemaProps", short)
    table: dict[str, Append] = {}
    inlined: list[tuple[int, Value, frozenset[str]]] = []
    for field in messages.fields(name).values():
        if field.name:
            table[field.name] = _append(field)
        elif field.shape:
            return _list(field)  # a message that is a list in JSON
        else:
            inlined.append((field.number, _writer(field.type), _names(field.type)))
    if not inlined:
        return _plain(table)
    return _with_parts(table, inlined)


def _names(name: str) -> frozenset[str]:
    """The fields of a message whose fields stand in its parent, those of messages that stand in it so, too."""
    fields = messages.fields(name).values()
    deeper = (_names(field.type) for field in fields if not field.name and not field.shape)
    return frozenset(field.name for field in fields if field.name).union(*deeper)


def _plain(table: dict[str, Append]) -> Value:
    get = table.get

    def write(value: Any) -> bytes:
        out = bytearray()
        for key, item in value.items():
            append = get(key)
            if append is not None and item is not None:
                append(out, item)
        return bytes(out)

    return write


def _with_parts(table: dict[str, Append], inlined: list[tuple[int, Value, frozenset[str]]]) -> Value:
    """Some of the object's fields belong to messages of their own."""
    owner = {key: at for at, (_, _, names) in enumerate(inlined) for key in names}

    def write(value: Any) -> bytes:
        out = bytearray()
        parts: dict[int, dict[str, Any]] = {}
        for key, item in value.items():
            if item is None:
                continue
            append = table.get(key)
            if append is not None:
                append(out, item)
            elif (at := owner.get(key)) is not None:
                parts.setdefault(at, {})[key] = item
        for at, part in parts.items():
            number, writer, _ = inlined[at]
            out += block(number, writer(part))
        return bytes(out)

    return write


def _list(field: Field) -> Value:
    append = _append(field)

    def write(value: Any) -> bytes:
        out = bytearray()
        append(out, value)
        return bytes(out)

    return write


def _append(field: Field) -> Append:
    """The function that appends one field to a message."""
    if field.shape == "{}":
        return _map(field)
    kept = field.flag in (IF_PRESENT, OR_NULL) or bool(field.shape)
    one = _scalar(field, kept) if field.type in SCALARS else _message(field)
    if not field.shape:
        return one

    def repeated(out: bytearray, items: Any) -> None:
        for item in items:
            one(out, item)

    return repeated


def _message(field: Field) -> Append:
    tag, name = varint(field.number << 3 | 2), field.type
    write: Value | None = None  # looked up when first needed: messages may hold themselves

    def append(out: bytearray, value: Any) -> None:
        nonlocal write
        if write is None:
            write = _writer(name)
        data = write(value)
        out += tag
        size = len(data)
        out += _SMALL[size] if size < 0x80 else varint(size)
        out += data

    return append


def _scalar(field: Field, kept: bool) -> Append:
    """``kept``: zero values are written, too."""
    tag = varint(field.number << 3 | {"string": 2, "bytes": 2, "double": 1}.get(field.type, 0))
    if field.type == "string":

        def string(out: bytearray, value: Any) -> None:
            data = value.encode()
            size = len(data)
            if size or kept:
                out += tag
                out += _SMALL[size] if size < 0x80 else varint(size)
                out += data

        return string
    if field.type == "bytes":

        def octets(out: bytearray, value: Any) -> None:
            data = base64.b64decode(value)
            out += tag
            out += varint(len(data))
            out += data

        return octets
    if field.type == "double":

        def double(out: bytearray, value: Any) -> None:
            out += tag
            out += struct.pack("<d", value)

        return double

    def number(out: bytearray, value: Any) -> None:
        if value or kept:
            out += tag
            out += varint(int(value))

    return number


def _map(field: Field) -> Append:
    """A map with string keys: one message of key (1) and value (2) for each entry, in the order of keys."""
    tag = varint(field.number << 3 | 2)
    entry = Field("", IF_PRESENT, 2, "", field.type)
    one = _scalar(entry, True) if field.type in SCALARS else _message(entry)

    def append(out: bytearray, entries: Any) -> None:
        for key in sorted(entries):
            data = key.encode()
            part = bytearray(b"\x0a")
            part += varint(len(data))
            part += data
            value = entries[key]
            if value is not None:
                one(part, value)
            out += tag
            out += varint(len(part))
            out += part

    return append


# ------------------------------------------------------------------------- messages whose JSON is not their fields


@lru_cache(maxsize=4096)
def _quantity(value: Any) -> bytes:
    return block(1, str(value).encode())


def _int_or_string(value: Any) -> bytes:
    if isinstance(value, str):
        return b"\x08\x01\x10\x00" + block(3, value.encode())
    return b"\x08\x00\x10" + varint(value) + b"\x1a\x00"


@lru_cache(maxsize=4096)
def _time(text: str) -> bytes:
    """Seconds (1) and nanoseconds (2) since 1970; the zero time has no bytes."""
    if not text:
        return b""
    moment = datetime.fromisoformat(text.replace("z", "Z").replace("Z", "+00:00"))
    moment = moment.astimezone(UTC)
    seconds = round(moment.replace(microsecond=0).timestamp())
    return b"\x08" + varint(seconds) + b"\x10" + varint(moment.microsecond * 1000)


def _json(value: Any) -> bytes:
    return block(1, orjson.dumps(value))


def _either(props: str, short: str) -> Value:
    """A JSON schema, or what else stands where a schema may."""
    of_bool = short.endswith("OrBool")

    def write(value: Any) -> bytes:
        if isinstance(value, dict):
            schema = block(2 if of_bool else 1, _writer(props)(value))
            return b"\x08\x01" + schema if of_bool else schema
        if of_bool:
            return b"\x08\x01" if value else b"\x08\x00"
        if short.endswith("OrStringArray"):
            return b"".join(block(2, item.encode()) for item in value)
        return b"".join(block(2, _writer(props)(item)) for item in value)

    return write


_SPECIAL: dict[str, Value] = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": _quantity,
    "io.k8s.apimachinery.pkg.runtime.RawExtension": _json,
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": _int_or_string,
    f"{_APIEXTENSIONS}.JSON": _json,
    f"{_META}.FieldsV1": _json,
    f"{_META}.MicroTime": _time,
    f"{_META}.Time": _time,
}
