"""Decoding what a client sent: types as the API's structs have them, nulls and unknown fields out.

Most objects are right already, so a compiled check runs first and says yes in microseconds; only when it says no does
the walk run that repairs the object and knows paths.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any

import orjson

from glebe.apiserver.types.registry import ResourceInfo
from glebe.apiserver.types.remembered import once
from glebe.apiserver.types.schema import POD_SPEC, Schema
from glebe.kube.errors import ApiError, bad_request
from glebe.kube.objects import Object

Check = Callable[[Any], bool]

_QUANTITY = re.compile(r"^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$")
_QUANTITY_ERROR = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
_TIME = re.compile(r"^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$")
_TIME_LAYOUT = "2006-01-02T15:04:05Z07:00"
_INT_MAX = {"int32": 2**31, "int64": 2**63, "": 2**63}


def _any(value: Any) -> bool:
    return value is not None


def _int_or_string(value: Any) -> bool:
    return type(value) is str or type(value) is int


def _quantity(value: Any) -> bool:
    return type(value) is str and _QUANTITY.match(value) is not None


def is_time(value: Any) -> bool:
    """Whether a field that is a time can hold this."""
    return type(value) is str and _TIME.match(value) is not None


def _number(value: Any) -> bool:
    return type(value) is int or type(value) is float


def _int32(value: Any) -> bool:
    return type(value) is int and -(2**31) <= value < 2**31


def _int64(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


def _bytes(value: Any) -> bool:
    if type(value) is not str:
        return False
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def compile_check(schema: Schema) -> Check | type:
    """What ``Schema.check`` holds: a type that a leaf must be, or a function; both mean "nothing to repair"."""
    kind = schema.kind
    if kind == "string":
        return {"date-time": is_time, "byte": _bytes}.get(schema.format, str)
    if kind == "integer":
        return _int32 if schema.format == "int32" else _int64
    if kind == "array":
        return _array_check(schema)
    if kind == "map":
        return _map_check(schema)
    if kind == "object":
        check = _object_check(schema)
        return once(check) if schema.definition == POD_SPEC and not schema.custom else check
    leaves: dict[str, Check | type] = {
        "boolean": bool,
        "number": _number,
        "quantity": _quantity,
        "int-or-string": _int_or_string,
    }
    return leaves.get(kind, _any)


def _object_check(schema: Schema) -> Check:
    if schema.custom and schema.preserve and not schema.fields:
        return lambda value: type(value) is dict
    fields = schema.fields
    checks: dict[str, Any] = {}
    strict = not (schema.custom and schema.preserve)

    def check(value: Any) -> bool:
        if type(value) is not dict:
            return False
        for key, item in value.items():
            want = checks.get(key)
            if want is None:
                field = fields.get(key)
                if field is None:
                    if strict:
                        return False
                    continue
                want = checks[key] = field.check
            if type(item) is want:
                continue
            if want is str or want is bool or not want(item):
                return False
        return True

    return check


def _map_check(schema: Schema) -> Check:
    child = schema.additional
    want: Any = child.check if child is not None else _any
    if want is str or want is bool:
        # an empty map is repaired away, so it is not "right"
        return lambda value: type(value) is dict and bool(value) and all(type(v) is want for v in value.values())
    return lambda value: type(value) is dict and bool(value) and all(want(v) for v in value.values())


def _array_check(schema: Schema) -> Check:
    child = schema.items
    want: Any = child.check if child is not None else _any
    if want is str or want is bool:
        return lambda value: type(value) is list and bool(value) and all(type(v) is want for v in value)
    return lambda value: type(value) is list and bool(value) and all(want(v) for v in value)


def prune(info: ResourceInfo, obj: Object) -> list[str]:
    """Make ``obj`` what the API's structs can hold, in place; the paths of unknown fields that were dropped.

    Nulls, and empty lists and maps that are optional, go too (built-in kinds only), as they do when upstream encodes.

    :raises ApiError: 400, when a built-in kind's field has the wrong type (a custom resource's wrong types are
        :func:`glebe.apiserver.types.structural.validate`'s to tell).
    """
    schema = info.schema
    if schema is None or schema.check(obj):
        return []
    unknown: list[str] = []
    try:
        if info.is_custom:
            _prune_custom(schema, obj, "", unknown)
        else:
            _repair(schema, obj, "", unknown, info.kind)
    except _Mismatch as error:
        raise cannot_be_handled(info, error.message) from None
    return unknown


def unknown_fields(schema: Schema, value: Any) -> list[str]:
    """The paths of a custom resource's ``value`` (or a part of it) that pruning drops; it is changed in place."""
    unknown: list[str] = []
    _prune_custom(schema, value, "", unknown)
    return unknown


def undeclared(schema: Schema, value: Any, path: str = "") -> list[str]:
    """The paths of fields that the schema does not know, as structured merge-diff writes them; nothing is changed."""
    found: list[str] = []
    if type(value) is dict and schema.kind in ("object", "map"):
        free = schema.preserve or (schema.custom and schema.kind == "object" and schema.raw.get("type") != "object")
        for key, item in value.items():
            child = schema.fields.get(key) or schema.additional
            if child is not None:
                found += undeclared(child, item, f"{path}.{key}")
            elif not free:
                found.append(f"{path}.{key}")
    elif type(value) is list and schema.items is not None:
        for index, item in enumerate(value):
            where = f"{path}[{index}]"
            if schema.list_type == "map" and type(item) is dict:
                keys = ",".join(f"{k}={orjson.dumps(item[k]).decode()}" for k in schema.list_keys if k in item)
                where = f"{path}[{keys}]"
            found += undeclared(schema.items, item, where)
    return found


def cannot_be_handled(info: ResourceInfo, why: str) -> ApiError:
    """The 400 for a body that cannot be decoded as its kind."""
    return bad_request(f'{info.kind} in version "{info.version}" cannot be handled as a {info.kind}: {why}')


class _Mismatch(Exception):
    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def _go_type(schema: Schema) -> str:
    kind = schema.kind
    if kind == "integer":
        return schema.format or "int64"
    if kind == "array":
        return "[]" + (_go_type(schema.items) if schema.items is not None else "interface {}")
    if kind == "map":
        return "map[string]" + (_go_type(schema.additional) if schema.additional is not None else "interface {}")
    if kind == "object":
        package, _, name = schema.definition.rpartition(".")
        return f"{package.rpartition('.')[2]}.{name}"
    return {"boolean": "bool", "number": "float64"}.get(kind, kind)


def _json_name(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, dict):
        return "object"
    return "array" if isinstance(value, list) else ("string" if isinstance(value, str) else "null")


def _mismatch(schema: Schema, value: Any, path: str, struct: str) -> _Mismatch:
    if schema.kind == "quantity":
        # upstream stops here; the field and what stood there are what the user needs
        return _Mismatch(f"{_QUANTITY_ERROR}: {path}: {orjson.dumps(value).decode()}")
    if schema.kind == "string" and isinstance(value, str):
        if schema.format == "byte":
            return _Mismatch("illegal base64 data at input byte 0")
        part = value[:1] and value
        return _Mismatch(f'parsing time "{value}" as "{_TIME_LAYOUT}": cannot parse "{part}" as "2006"')
    what = _json_name(value)
    if what == "number" and schema.kind == "integer":
        what = f"number {value}"
    clean = re.sub(r"\[\d+\]", "", path)
    return _Mismatch(f"json: cannot unmarshal {what} into Go struct field {struct}.{clean} of type {_go_type(schema)}")


def _repair(schema: Schema, value: Any, path: str, unknown: list[str], struct: str) -> None:
    """Walk a built-in kind's object: raise on wrong types, drop nulls, empties and unknown fields."""
    kind = schema.kind
    if kind == "object":
        if type(value) is not dict:
            raise _mismatch(schema, value, path, struct)
        _repair_object(schema, value, path, unknown)
    elif kind == "map":
        if type(value) is not dict:
            raise _mismatch(schema, value, path, struct)
        child = schema.additional
        for key in [k for k, v in value.items() if v is None]:
            value[key] = _zero(child)
        for key, item in value.items():
            if child is not None:
                if child.kind == "quantity":
                    value[key] = item = _quantity_text(item)
                _repair(child, item, f"{path}.{key}" if child.kind in ("object", "quantity") else path, unknown, struct)
    elif kind == "array":
        if type(value) is not list:
            raise _mismatch(schema, value, path, struct)
        child = schema.items
        if child is not None:
            for index, item in enumerate(value):
                if item is None:
                    value[index] = item = _zero(child)
                _repair(child, item, f"{path}[{index}]", unknown, struct)
    else:
        want = schema.check
        right = type(value) is want if isinstance(want, type) else want(value)
        if not right:
            raise _mismatch(schema, value, path, struct)


def _quantity_text(value: Any) -> Any:
    """A bare number is a quantity too."""
    return str(value) if type(value) in (int, float) else value


def _zero(schema: Schema | None) -> Any:
    """What null means as an element."""
    kind = schema.kind if schema is not None else "any"
    return {"string": "", "object": {}, "map": {}, "array": [], "integer": 0, "boolean": False}.get(kind)


def _repair_object(schema: Schema, value: dict[str, Any], path: str, unknown: list[str]) -> None:
    name = schema.definition.rpartition(".")[2]
    dropped: list[str] = []
    for key, item in value.items():
        field = schema.fields.get(key)
        where = f"{path}.{key}" if path else key
        if field is None:
            unknown.append(where)
            dropped.append(key)
        elif item is None:
            dropped.append(key)
        elif not item and item in ([], {}) and field.kind in ("array", "map") and type(item) in (list, dict):
            if key not in schema.required:
                _repair(field, item, where, unknown, name)
                dropped.append(key)
        else:
            if field.kind == "quantity":
                value[key] = item = _quantity_text(item)
            _repair(field, item, where, unknown, name)
    for key in dropped:
        del value[key]


def _prune_custom(schema: Schema, value: Any, path: str, unknown: list[str]) -> None:
    """Drop what a structural schema does not name; wrong types stay for validation to report."""
    if type(value) is dict:
        fields, extra = schema.fields, schema.additional
        dropped = []
        for key, item in value.items():
            field = fields.get(key) or extra
            where = f"{path}.{key}" if path else key
            if field is not None:
                if field.custom:
                    _prune_custom(field, item, where, unknown)
                elif field.kind == "object" and type(item) is dict:
                    _repair(field, item, where, unknown, "ObjectMeta")
            elif not (schema.preserve or schema.kind == "any"):
                unknown.append(where)
                dropped.append(key)
        for key in dropped:
            del value[key]
    elif type(value) is list and schema.items is not None:
        for index, item in enumerate(value):
            _prune_custom(schema.items, item, f"{path}[{index}]", unknown)
