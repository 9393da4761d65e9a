"""A body in Kubernetes' protobuf to the object that the same client would have sent as JSON."""

from __future__ import annotations

import math
from typing import Any

from glebe.apiserver.protobuf import messages, special, wire
from glebe.apiserver.protobuf.messages import ALWAYS, OMIT_EMPTY, Field
from glebe.apiserver.protobuf.wire import BYTES, FIXED64, NAMES, VARINT, MalformedError

MAGIC = b"k8s\x00"
#: Messages within messages: far above any real object, far below what Python's stack can take.
MAX_DEPTH = 100
#: Messages in one body: an empty one takes two bytes there and hundreds here.
MAX_MESSAGES = 100_000
#: Unknown fields that are named; a newer client has few.
MAX_NAMED = 10

_WIRE_TYPES = {"int32": VARINT, "int64": VARINT, "bool": VARINT, "double": FIXED64}
_ZEROS: dict[str, Any] = {"string": "", "int32": 0, "int64": 0, "bool": False, "double": 0.0, "bytes": ""}
_OPTIONS = "DeleteOptions"


class UnknownKindError(ValueError):
    """A kind without a protobuf form here: a custom one, or one that is not served."""


def decode(body: bytes) -> tuple[dict[str, Any], list[str]]:
    """(the object, one line for each field that is not known and was left out).

    :raises MalformedError: for bytes that are not such an object.
    :raises UnknownKindError: for a kind that has no protobuf form here.
    """
    if body[:4] != MAGIC:
        raise MalformedError(
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0] (k8s and a zero)"
        )
    envelope = special.values(body[4:], {1: BYTES, 2: BYTES})  # runtime.Unknown: typeMeta, raw
    type_meta = special.values(envelope.get(1, b""), {1: BYTES, 2: BYTES})
    api_version, kind = (special.text(type_meta.get(number, b"")) for number in (1, 2))
    if not kind:
        raise MalformedError("Object 'Kind' is missing in the body's TypeMeta")
    if not api_version:
        raise MalformedError("Object 'apiVersion' is missing in the body's TypeMeta")
    group, _, version = api_version.rpartition("/")
    # every group has the options of requests among its kinds
    key = f"meta.k8s.io/v1/{kind}" if kind == _OPTIONS else f"{group}/{version}/{kind}"
    name = messages.kinds().get(key)
    if name is None:
        raise UnknownKindError(f'kind "{kind}" in version "{api_version}" has no protobuf form here')
    reader = _Reader()
    obj = reader.message(name, envelope.get(2, b""), 0)
    return {"apiVersion": api_version, "kind": kind, **obj}, reader.unknown


class _Reader:
    """Decodes one body."""

    def __init__(self) -> None:
        self.unknown: list[str] = []
        self._left = MAX_MESSAGES

    def message(self, name: str, data: bytes, depth: int) -> Any:
        """A message by its full name, as JSON has it (null for the zero value of some)."""
        self._left -= 1
        if depth > MAX_DEPTH:
            raise MalformedError(f"the object is nested more than {MAX_DEPTH} levels deep")
        if self._left < 0:
            raise MalformedError(f"the object has more than {MAX_MESSAGES} parts")
        if (plain := special.PLAIN.get(name)) is not None:
            return plain(data)
        package, _, short = name.rpartition(".")
        if short.startswith("JSONSchemaPropsOr"):
            return self._either(f"{package}.JSONSchemaProps", short, data, depth)
        known = messages.fields(name)
        found = self._sort(name, data, known)
        out: dict[str, Any] = {}
        for number, field in known.items():
            try:
                value, there = self._field(field, found.get(number), depth)
            except MalformedError as error:
                if field.name:
                    error.path.insert(0, field.name)
                raise
            if field.name:
                if there:
                    out[field.name] = value
            elif field.shape:
                return value  # a message that is a list in JSON
            else:
                out.update(value)
        return out

    def _sort(self, name: str, data: bytes, known: dict[int, Field]) -> dict[int, list[Any]]:
        """What the wire has of each known field, in its order."""
        found: dict[int, list[Any]] = {}
        for number, wire_type, value in wire.fields(data):
            field = known.get(number)
            if field is None:
                self._note(name, number)
                continue
            wanted = BYTES if field.shape == "{}" else _WIRE_TYPES.get(field.type, BYTES)
            if wire_type == wanted:
                found.setdefault(number, []).append(value)
            elif wire_type == BYTES and wanted == VARINT and field.shape:
                assert isinstance(value, bytes)
                found.setdefault(number, []).extend(wire.packed(value))
            else:
                error = MalformedError(f"expected {NAMES[wanted]}, got {NAMES[wire_type]}")
                error.path = [field.name] if field.name else []
                raise error
        return found

    def _note(self, name: str, number: int) -> None:
        """Remember an unknown field, as long as there are few."""
        if len(self.unknown) < MAX_NAMED:
            line = f"protobuf field {number} of {name.rpartition('.')[2]} is not known and was left out"
            if line not in self.unknown:
                self.unknown.append(line)

    def _field(self, field: Field, found: list[Any] | None, depth: int) -> tuple[Any, bool]:
        """(value, whether JSON has it)."""
        if found is None:
            if field.flag == ALWAYS or not field.name:
                return (self._zero(field, depth), True)
            return None, field.flag == messages.OR_NULL
        if field.shape == "[]":
            return [self._item(field, item, f"[{i}]", depth) for i, item in enumerate(found)], True
        if field.shape == "{}":
            return dict(self._entry(field, item, depth) for item in found), True
        if field.type in messages.SCALARS:
            value = _scalar(field.type, found[-1])
        else:  # parts of one message are one message
            value = self.message(field.type, found[0] if len(found) == 1 else b"".join(found), depth + 1)
        return value, field.flag != OMIT_EMPTY or bool(value)

    def _zero(self, field: Field, depth: int) -> Any:
        if field.shape:
            return []
        return _ZEROS[field.type] if field.type in messages.SCALARS else self.message(field.type, b"", depth + 1)

    def _item(self, field: Field, value: Any, where: str, depth: int) -> Any:
        try:
            if field.type in messages.SCALARS:
                return _scalar(field.type, value)
            return self.message(field.type, value, depth + 1)
        except MalformedError as error:
            error.path.insert(0, where)
            raise

    def _entry(self, field: Field, data: bytes, depth: int) -> tuple[str, Any]:
        """One entry of a map: key (1) and value (2)."""
        found = special.values(data, {1: BYTES, 2: _WIRE_TYPES.get(field.type, BYTES)})
        key = special.text(found.get(1, b""))
        if 2 not in found and field.type in messages.SCALARS:
            return key, _ZEROS[field.type]
        return key, self._item(field, found.get(2, b""), f"[{key}]", depth)

    def _either(self, props: str, short: str, data: bytes, depth: int) -> Any:
        """A JSON schema, or what else stands where a schema may: a list of them, true or false, a list of names."""
        schema: list[bytes] = []
        others: list[Any] = []
        for number, wire_type, value in wire.fields(data):
            of_bool = short.endswith("OrBool")
            is_schema = number == (2 if of_bool else 1)
            wanted = VARINT if of_bool and not is_schema else BYTES
            if number in (1, 2) and wire_type != wanted:
                raise MalformedError(f"expected {NAMES[wanted]}, got {NAMES[wire_type]}")
            if is_schema:
                assert isinstance(value, bytes)
                schema.append(value)
            elif number in (1, 2):
                others.append(value)
        if short.endswith("OrBool"):
            return self.message(props, b"".join(schema), depth + 1) if schema else bool(others and others[-1])
        if others and short.endswith("OrStringArray"):
            return [special.text(value) for value in others]
        if others:
            return [self.message(props, value, depth + 1) for value in others]
        return self.message(props, b"".join(schema), depth + 1) if schema else None


def _scalar(kind: str, value: Any) -> Any:
    """A scalar's wire value as JSON has it."""
    if kind == "string":
        return special.text(value)
    if kind == "int32":
        return wire.signed32(value)
    if kind == "int64":
        return wire.signed64(value)
    if kind == "bool":
        return value != 0
    if kind == "bytes":
        return special.base64_text(value)
    number = wire.double(value)
    if not math.isfinite(number):
        raise MalformedError(f"{number} is not a number that JSON has")
    return int(number) if number.is_integer() and abs(number) < 2**53 else number
