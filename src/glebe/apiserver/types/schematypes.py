"""CEL types of a kind's schema, with how big values can be (``k8s.io/apiserver/pkg/cel/common``)."""

from __future__ import annotations

import re
from functools import lru_cache

from glebe.apiserver.types.schema import Schema
from glebe.cel import types as t
from glebe.cel.syntax import RESERVED
from glebe.cel.types import Type

#: As upstream: what does not say how long it is may fill a request.
LARGEST_REQUEST = 3 * 1024 * 1024
_NAME_LENGTH = 253
_ESCAPED = {"__": "__underscores__", ".": "__dot__", "-": "__dash__", "/": "__slash__"}
_SPECIAL = re.compile(r"__|[.\-/]")
_UNESCAPED = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*")
_KEYWORDS = RESERVED | {"true", "false", "null", "in"}


def escape(name: str) -> str | None:
    """A property's name as an identifier; None when it has no form."""
    if name in _KEYWORDS:
        return f"__{name}__"
    escaped = _SPECIAL.sub(lambda match: _ESCAPED[match.group()], name)
    return escaped if _UNESCAPED.fullmatch(escaped) else None


class SchemaStruct:
    """An object's fields by their names in CEL; what the schema does not say is not there."""

    __slots__ = ("_fields", "_root", "_schema", "name")

    def __init__(self, schema: Schema, name: str, root: bool) -> None:
        self.name = name
        self._schema = schema
        self._root = root
        self._fields: dict[str, tuple[Type, str]] | None = None

    def field(self, name: str) -> tuple[Type, str] | None:
        if self._fields is None:
            self._fields = dict(self._all())
        return self._fields.get(name)

    def _all(self) -> list[tuple[str, tuple[Type, str]]]:
        found: list[tuple[str, tuple[Type, str]]] = []
        children = dict(self._schema.fields)
        if self._root:
            for name in ("apiVersion", "kind", "metadata"):
                children.pop(name, None)
            metadata = Type("object", struct=_Metadata(f"{self.name}.metadata"))
            found += [("apiVersion", (_sized(t.STRING, _whole()), "apiVersion"))]
            found += [("kind", (_sized(t.STRING, _whole()), "kind")), ("metadata", (metadata, "metadata"))]
        for name, child in children.items():
            kind = type_of(child, f"{self.name}.{name}")
            escaped = escape(name)
            if kind is not None and escaped is not None:
                found.append((escaped, (kind, name)))
        return found


class _Metadata:
    """Only the name of an object may be read."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def field(self, name: str) -> tuple[Type, str] | None:
        lengths = {"name": _NAME_LENGTH, "generateName": _NAME_LENGTH - 1}
        return (_sized(t.STRING, lengths[name]), name) if name in lengths else None


def _whole() -> int:
    return LARGEST_REQUEST - 2


def _sized(kind: Type, largest: int) -> Type:
    return Type(kind.kind, kind.params, kind.struct, kind.flavor, largest)


def type_of(schema: Schema, name: str = "selfType", root: bool = False) -> Type | None:
    """The type of a schema's values; None when CEL does not see them."""
    kind, raw = schema.kind, schema.raw
    if kind == "int-or-string":
        return _sized(t.DYN, _whole())
    if kind == "string":
        return _string(schema)
    if kind in _SCALARS:
        return _SCALARS[kind]
    if kind == "array":
        if schema.items is None:
            return None
        item = type_of(schema.items, f"{name}.@items", schema.items.embedded)
        if item is None:
            return None
        most = raw.get("maxItems")
        largest = (LARGEST_REQUEST - 2) // (smallest(schema.items) + 1) if most is None else max(0, most)
        flavor = (schema.list_type, *schema.list_keys) if schema.list_type in ("set", "map") else ()
        return Type("list", (item,), None, flavor, largest)
    if kind == "map" and schema.additional is not None:
        value = type_of(schema.additional, f"{name}.@values", schema.additional.embedded)
        if value is None:
            return None
        most = raw.get("maxProperties")
        largest = (LARGEST_REQUEST - 2) // (smallest(schema.additional) + 6) if most is None else max(0, most)
        return Type("map", (_sized(t.STRING, _whole()), value), None, (), largest)
    if kind == "quantity":  # as it stands in JSON
        return _sized(t.STRING, _whole())
    if kind == "object":
        return Type("object", struct=SchemaStruct(schema, name, root or schema.embedded))
    return t.DYN if not schema.custom else None


_SCALARS = {"boolean": t.BOOL, "integer": t.INT, "number": t.DOUBLE}


def _string(schema: Schema) -> Type:
    raw = schema.raw
    most = raw.get("maxLength")
    if not schema.custom:  # built-in kinds reach expressions as they stand in JSON
        return _sized(t.STRING, _whole())
    if schema.format == "byte":
        return _sized(t.BYTES, max(0, most) if most is not None else _whole())
    if schema.format == "duration":
        return _sized(t.DURATION, 32)
    if schema.format in ("date", "date-time"):
        return _sized(t.TIMESTAMP, 27)
    if most is not None:
        return _sized(t.STRING, max(0, most) * 4)
    if schema.enum:
        return _sized(t.STRING, max(len(str(value)) for value in schema.enum))
    return _sized(t.STRING, _whole())


@lru_cache(maxsize=256)
def _constant(kind: str, form: str) -> int:
    if kind == "string":
        return {"date": 12, "date-time": 22, "duration": 4}.get(form, 2)
    return {"boolean": 4, "integer": 1, "number": 1, "int-or-string": 1}.get(kind, 2)


def smallest(schema: Schema) -> int:
    """How many bytes a value takes in a request at least."""
    if schema.kind != "object":
        return _constant(schema.kind, schema.format)
    size = 2
    for name in schema.required:
        child = schema.fields.get(name)
        if child is not None and "default" not in child.raw:
            size += len(name) + 4 + smallest(child)
    return size
