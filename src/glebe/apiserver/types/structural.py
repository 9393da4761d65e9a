"""Custom resources: validation by their structural schema, with upstream's wording.

Validation runs in two steps like decoding: a compiled yes/no check, and only for a "no" the walk that knows paths.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import orjson

from glebe.apiserver.types.formats import FORMATS
from glebe.apiserver.types.schema import Schema
from glebe.cel import regex
from glebe.kube.errors import Cause

# -------------------------------------------------------------------------------------------------- the yes/no check

Validator = Callable[[Any], bool]


def _matches(pattern: str, text: str) -> bool:
    try:
        return regex.compile(pattern).search(text) is not None
    except regex.BadPattern:
        return True  # no definition with such a pattern is accepted: an earlier version of this server let it in


_JUNCTORS = ("allOf", "anyOf", "oneOf", "not")


def compile_validator(schema: Schema) -> Validator:
    """A function that says whether a value satisfies ``schema`` (types, bounds, patterns, uniqueness, junctors)."""
    inner = _type_validator(schema)
    extra: list[Validator] = []
    if schema.enum is not None:
        allowed = schema.enum
        extra.append(lambda value: any(value == item and type(value) is type(item) for item in allowed))
    raw = schema.raw
    if any(key in raw for key in _JUNCTORS):
        extra.append(lambda value: not _junctors(schema, value, "", []))
    if not extra and not schema.nullable:
        return inner
    nullable = schema.nullable

    def check(value: Any) -> bool:
        if value is None and nullable:
            return True
        return inner(value) and all(e(value) for e in extra)

    return check


def _type_validator(schema: Schema) -> Validator:
    if not schema.custom:
        return lambda value: True  # metadata: decoding has seen to it
    kind = schema.kind
    if kind == "string":
        return _string_validator(schema)
    if kind in ("integer", "number"):
        return lambda value: not list(_number_faults(schema, value, ""))
    if kind == "boolean":
        return lambda value: type(value) is bool
    if kind == "int-or-string":
        if not _LIMITS & schema.raw.keys():
            return lambda value: type(value) is str or type(value) is int
        return lambda value: not list(_int_or_string_faults(schema, value, ""))
    if kind == "array":
        return _array_validator(schema)
    if kind in ("object", "map"):
        return _object_validator(schema)
    if schema.raw.get("type") == "object":
        return lambda value: type(value) is dict
    return lambda value: True


def _string_validator(schema: Schema) -> Validator:
    if not any(key in schema.raw for key in ("minLength", "maxLength", "pattern")) and schema.format not in FORMATS:
        return lambda value: type(value) is str
    return lambda value: type(value) is str and not list(_string_faults(schema, value, ""))


def _array_validator(schema: Schema) -> Validator:
    raw = schema.raw
    low, high = raw.get("minItems", 0), raw.get("maxItems")
    item = schema.items.validator if schema.items is not None else None
    unique = schema.list_type in ("set", "map") or raw.get("uniqueItems", False)

    def check(value: Any) -> bool:
        if type(value) is not list or len(value) < low or (high is not None and len(value) > high):
            return False
        if item is not None and not all(item(v) for v in value):
            return False
        return not unique or next(_duplicates(schema, value), None) is None

    return check


def _object_validator(schema: Schema) -> Validator:
    fields = schema.fields
    required = schema.required
    additional = schema.additional
    low, high = schema.raw.get("minProperties", 0), schema.raw.get("maxProperties")
    checks: dict[str, Validator] = {}

    def check(value: Any) -> bool:
        if type(value) is not dict or len(value) < low or (high is not None and len(value) > high):
            return False
        for name in required:
            if name not in value:
                return False
        for key, item in value.items():
            test = checks.get(key)
            if test is None:
                child = fields.get(key)
                if child is None:
                    if additional is None or additional.validator(item):
                        continue
                    return False
                test = checks[key] = child.validator
            if not test(item):
                return False
        return True

    return check


# --------------------------------------------------------------------------------------- the walk that words faults


def validate(schema: Schema, obj: Any, path: str = "", old: Any = None) -> list[Cause]:
    """Every fault of ``obj``, worded as upstream words it; empty for nearly every object, and then cheap.

    What is wrong in a part that is as it was in ``old`` is not held against an update (ratcheting, KEP 4008).
    """
    if schema.validator(obj):
        return []
    causes: list[Cause] = []
    _walk(schema, obj, path, causes)
    if old is not None and causes:
        causes = [cause for cause in causes if not _was_there(schema, obj, old, cause.field)]
    return causes


_PART = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


def _was_there(schema: Schema, new: Any, old: Any, field: str) -> bool:
    """Does ``field`` lie in a part of ``new`` that is the same in ``old``? Items of lists without keys have no past."""
    node: Schema | None = schema
    if field == "<nil>":
        return bool(new == old)
    for index, name in _PART.findall(field):
        if new == old:
            return True
        if index:
            if node is None or node.list_type != "map" or type(new) is not list or type(old) is not list:
                return False
            item = new[int(index)] if int(index) < len(new) else None
            keys = node.list_keys
            if type(item) is not dict:
                return False
            same = [o for o in old if type(o) is dict and all(o.get(k) == item.get(k) for k in keys)]
            if len(same) != 1:
                return False
            new, old, node = item, same[0], node.items
        else:
            if type(new) is not dict or type(old) is not dict or name not in new or name not in old:
                return False
            new, old, node = new[name], old[name], node.field(name) if node is not None else None
    return bool(new == old)


def type_fault(path: str, want: str, value: Any) -> Cause:
    got = _json_type(value)
    body = f'{path} in body must be of type {want}: "{got}"'
    return Cause("FieldValueTypeInvalid", f'Invalid value: "{got}": {body}', path)


def show(value: Any) -> str:
    """A value as upstream prints it in a message."""
    return orjson.dumps(value).decode()


def _json_type(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return {int: "integer", float: "number", str: "string", dict: "object", list: "array"}[type(value)]


def _invalid(path: str, value: Any, why: str) -> Cause:
    return Cause("FieldValueInvalid", f"Invalid value: {show(value)}: {path} in body {why}", path)


def _too_many(path: str, count: int, limit: int) -> Cause:
    return Cause("FieldValueTooMany", f"Too many: {count}: must have at most {limit} items", path)


def _walk(schema: Schema, value: Any, path: str, causes: list[Cause]) -> None:
    if not schema.custom or (value is None and schema.nullable):
        return
    kind = schema.kind
    if kind == "string":
        causes.extend(_string_faults(schema, value, path))
    elif kind in ("integer", "number"):
        causes.extend(_number_faults(schema, value, path))
    elif kind == "boolean" and type(value) is not bool:
        causes.append(type_fault(path, "boolean", value))
    elif kind == "int-or-string":
        causes.extend(_int_or_string_faults(schema, value, path))
    elif kind == "array":
        _walk_array(schema, value, path, causes)
    elif kind in ("object", "map") or schema.raw.get("type") == "object":
        _walk_object(schema, value, path, causes)
    if schema.enum is not None and not any(value == e and type(value) is type(e) for e in schema.enum):
        listed = ", ".join(show(e) for e in schema.enum)
        causes.append(
            Cause("FieldValueNotSupported", f"Unsupported value: {show(value)}: supported values: {listed}", path)
        )
    causes.extend(_junctors(schema, value, path, []))


def _walk_object(schema: Schema, value: Any, path: str, causes: list[Cause]) -> None:
    if type(value) is not dict:
        causes.append(type_fault(path, "object", value))
        return
    high, low = schema.raw.get("maxProperties"), schema.raw.get("minProperties", 0)
    if high is not None and len(value) > high:
        causes.append(_too_many(path, len(value), high))
    if len(value) < low:
        causes.append(_invalid(path, len(value), f"should have at least {low} properties"))
    causes.extend(
        Cause("FieldValueRequired", "Required value", f"{path}.{name}" if path else name)
        for name in schema.required
        if name not in value
    )
    for key, item in value.items():
        child = schema.fields.get(key) or schema.additional
        if child is not None:
            _walk(child, item, f"{path}.{key}" if path else key, causes)


def _walk_array(schema: Schema, value: Any, path: str, causes: list[Cause]) -> None:
    if type(value) is not list:
        causes.append(type_fault(path, "array", value))
        return
    raw = schema.raw
    if (high := raw.get("maxItems")) is not None and len(value) > high:
        causes.append(_too_many(path, len(value), high))
    if len(value) < (low := raw.get("minItems", 0)):
        causes.append(_invalid(path, len(value), f"should have at least {low} items"))
    if schema.items is not None:
        for index, item in enumerate(value):
            _walk(schema.items, item, f"{path}[{index}]", causes)
            if schema.list_type == "map" and type(item) is not dict:
                why = f"Invalid value: {show(item)}: must be an object for an array of list-type map"
                causes.append(Cause("FieldValueInvalid", why, f"{path}[{index}]"))
    for index, text in _duplicates(schema, value):
        causes.append(Cause("FieldValueDuplicate", f"Duplicate value: {text}", f"{path}[{index}]"))


def _duplicates(schema: Schema, value: list[Any]) -> Iterator[tuple[int, str]]:
    """Index and key of every item that repeats an earlier one, for sets and maps."""
    seen: set[bytes] = set()
    for index, item in enumerate(value):
        if schema.list_type == "map":
            if type(item) is not dict:
                continue
            item = {k: item[k] for k in schema.list_keys if k in item}
        elif schema.list_type != "set" and not schema.raw.get("uniqueItems"):
            return
        key = orjson.dumps(item, option=orjson.OPT_SORT_KEYS)
        if key in seen:
            yield index, key.decode()
        seen.add(key)


def _string_faults(schema: Schema, value: Any, path: str) -> Iterable[Cause]:
    if type(value) is not str:
        yield type_fault(path, "string", value)
        return
    raw = schema.raw
    if (high := raw.get("maxLength")) is not None and len(value) > high:
        yield Cause("FieldValueTooLong", f"Too long: may not be more than {high} bytes", path)
        return
    if (low := raw.get("minLength")) is not None and len(value) < low:
        yield _invalid(path, value, f"should be at least {low} chars long")
    if (pattern := raw.get("pattern")) is not None and not _matches(pattern, value):
        yield _invalid(path, value, f"should match '{pattern}'")
    test = FORMATS.get(schema.format)
    if test is not None and not test(value):
        body = f"{path} in body must be of type {schema.format}: {show(value)}"
        yield Cause("FieldValueTypeInvalid", f"Invalid value: {show(value)}: {body}", path)


_LIMITS = frozenset({"pattern", "minLength", "maxLength", "minimum", "maximum", "multipleOf"})


def _int_or_string_faults(schema: Schema, value: Any, path: str) -> Iterable[Cause]:
    """Bounds are for numbers, lengths and patterns for strings, as everywhere."""
    if type(value) is str:
        return _string_faults(schema, value, path)
    if type(value) is int:
        return _number_faults(schema, value, path)
    return [type_fault(path, "integer,string", value)]


_INT_BITS = {"int32": 31, "int64": 63}


def _number_faults(schema: Schema, value: Any, path: str) -> Iterable[Cause]:
    whole = type(value) is int or (type(value) is float and value.is_integer())
    if type(value) not in (int, float) or (schema.kind == "integer" and not whole):
        yield type_fault(path, schema.kind, value)
        return
    raw = schema.raw
    bits = _INT_BITS.get(schema.format, 63)
    if schema.kind == "integer" and not -(2**bits) <= value < 2**bits:
        text = f"Checked value must be of type integer with format {schema.format} in {path}"
        yield Cause("FieldValueInvalid", f'Invalid value: "": {text}', "<nil>")
        return
    if (step := raw.get("multipleOf")) is not None and value % step:
        yield _invalid(path, value, f"should be a multiple of {step}")
    if (high := raw.get("maximum")) is not None:
        if raw.get("exclusiveMaximum") and value >= high:
            yield _invalid(path, value, f"should be less than {high}")
        elif value > high:
            yield _invalid(path, value, f"should be less than or equal to {high}")
    if (low := raw.get("minimum")) is not None:
        if raw.get("exclusiveMinimum") and value <= low:
            yield _invalid(path, value, f"should be greater than {low}")
        elif value < low:
            yield _invalid(path, value, f"should be greater than or equal to {low}")


def _branch_faults(schema: Schema, raw: dict[str, Any], value: Any, path: str) -> list[Cause]:
    """Faults of ``value`` under one branch of a junctor of ``schema`` (a value validation without types of its own)."""
    branch = schema.branches.get(id(raw))
    if branch is None:
        branch = schema.branches[id(raw)] = Schema(_typed(raw, schema.raw), custom=True)
    if not any(key in raw for key in _JUNCTORS):
        return validate(branch, value, path)
    causes: list[Cause] = []  # looking first whether there is any would look at everything below twice, at each level
    _walk(branch, value, path, causes)
    return causes


def _typed(branch: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """``branch`` with the types that structural schemas say only once, outside of junctors: in ``base``."""
    out = dict(branch)
    if "type" not in out and "type" in base:
        out["type"] = base["type"]
    elif "type" not in out and ("required" in out or "properties" in out):
        out["type"] = "object"
    others = base.get("additionalProperties")
    others = others if isinstance(others, dict) else {}
    if "properties" in out:
        known = base.get("properties") or {}
        out["properties"] = {name: _typed(child, known.get(name, others)) for name, child in out["properties"].items()}
    if isinstance(out.get("additionalProperties"), dict):
        out["additionalProperties"] = _typed(out["additionalProperties"], others)
    if isinstance(out.get("items"), dict):
        out["items"] = _typed(out["items"], base.get("items") or {})
    return out


def _junctors(schema: Schema, value: Any, path: str, causes: list[Cause]) -> list[Cause]:
    raw = schema.raw
    if branches := raw.get("allOf"):
        results = [_branch_faults(schema, branch, value, path) for branch in branches]
        if any(results):
            tail = ". None validated" if all(results) else ""
            message = f'Invalid value: "": "{path}" must validate all the schemas (allOf){tail}'
            causes.append(Cause("FieldValueInvalid", message, "<nil>"))
        causes.extend(fault for result in results for fault in result)
    for name, what in (("anyOf", "at least one schema (anyOf)"), ("oneOf", "one and only one schema (oneOf)")):
        branches = raw.get(name)
        if not branches or schema.kind == "int-or-string":
            continue
        results = [_branch_faults(schema, branch, value, path) for branch in branches]
        passed = sum(not r for r in results)
        if passed == 1 or (passed and name == "anyOf"):
            continue
        tail = ""
        if name == "oneOf":
            tail = f". Found {passed} valid alternatives" if passed else ". Found none valid"
        message = f'Invalid value: "": "{path}" must validate {what}{tail}'
        causes.append(Cause("FieldValueInvalid", message, "<nil>"))
        if not passed:
            nearest: list[Cause] = min(results, key=len)
            causes.extend(nearest)
    if "not" in raw and not _branch_faults(schema, raw["not"], value, path):
        message = f'Invalid value: "": "{path}" must not validate the schema (not)'
        causes.append(Cause("FieldValueInvalid", message, "<nil>"))
    return causes
