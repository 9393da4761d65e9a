"""What makes a schema structural (KEP 1979, ``apiextensions-apiserver/pkg/apiserver/schema``): every node says its type
once, outside of ``allOf``/``anyOf``/``oneOf``/``not``, and what stands in those only restricts what stands outside.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from glebe.cel import regex
from glebe.kube import names as n
from glebe.kube.errors import Cause

Raw = dict[str, Any]

_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_EMBEDDED = "x-kubernetes-embedded-resource"
_INT_OR_STRING = "x-kubernetes-int-or-string"
_EITHER = [{"type": "integer"}, {"type": "string"}]
_LEVELS = {"root": "at the root", "item": "for specified array items", "field": "for specified object fields"}
#: what may not stand in a branch of a junctor -> the rest of the message
_FORBIDDEN = {
    "type": "must be empty to be structural",
    "additionalProperties": "must be undefined to be structural",
    "default": "must be undefined to be structural",
    "title": "must be empty to be structural",
    "description": "must be empty to be structural",
    "nullable": "must be false to be structural",
    _PRESERVE: "must be false to be structural",
    _EMBEDDED: "must be false to be structural",
    _INT_OR_STRING: "must be false to be structural",
    "x-kubernetes-list-map-keys": "must be empty to be structural",
    "x-kubernetes-list-type": "must be undefined to be structural",
    "x-kubernetes-map-type": "must be undefined to be structural",
    "x-kubernetes-validations": "must be empty to be structural",
}


def structural_faults(schema: Raw, path: str) -> list[Cause]:
    """Everything that keeps a root schema from being structural, in the order of the messages."""
    causes = [*_node(schema, path, "root"), *_complete(schema, schema, path, path)]
    return sorted(causes, key=lambda c: (c.field, c.message))


def children(schema: Raw, path: str) -> Iterator[tuple[Raw, str, str]]:
    """(node, path, level) of what stands right below, outside of junctors."""
    if isinstance(schema.get("items"), dict):
        yield schema["items"], f"{path}.items", "item"
    for name, child in (schema.get("properties") or {}).items():
        if isinstance(child, dict):
            yield child, f"{path}.properties[{name}]", "field"
    if isinstance(schema.get("additionalProperties"), dict):
        yield schema["additionalProperties"], f"{path}.additionalProperties", "field"


def _node(schema: Raw, path: str, level: str) -> Iterator[Cause]:
    kind = schema.get("type") or ""
    if kind == "array" and schema.get("items") is None:
        yield n.required(f"{path}.items", "must be specified")
    for child, where, below in children(schema, path):
        yield from _node(child, where, below)
    if level == "root" and schema.get("additionalProperties") is not None:
        yield n.forbidden(f"{path}.additionalProperties", "must not be used at the root")
    yield from _extensions(schema, path)
    yield from _values(schema, path, level, _is_either(schema.get("anyOf")), _first_is_either(schema))
    yield from _type(schema, kind, path, level)
    yield from _metadata(schema, path, level)
    if schema.get(_EMBEDDED) and not schema.get(_PRESERVE) and not schema.get("properties"):
        why = f"must not be empty if {_EMBEDDED} is true without {_PRESERVE}"
        yield n.required(f"{path}.properties", why)


def _extensions(schema: Raw, path: str) -> Iterator[Cause]:
    if schema.get(_INT_OR_STRING):
        for name in (_PRESERVE, _EMBEDDED):
            if schema.get(name):
                yield n.invalid(f"{path}.{name}", True, f"must be false if {_INT_OR_STRING} is true")


def _type(schema: Raw, kind: str, path: str, level: str) -> Iterator[Cause]:
    if schema.get(_EMBEDDED) and kind != "object":
        why = f"must be object if {_EMBEDDED} is true"
        yield n.invalid(f"{path}.type", kind, why) if kind else n.required(f"{path}.type", why)
    elif not kind and not schema.get(_INT_OR_STRING) and not schema.get(_PRESERVE):
        yield n.required(f"{path}.type", f"must not be empty {_LEVELS[level]}")
    if schema.get(_EMBEDDED) and schema.get("additionalProperties") is not None:
        yield n.forbidden(f"{path}.additionalProperties", f"must not be used if {_EMBEDDED} is set")
    if level == "root" and kind and kind != "object":
        yield n.invalid(f"{path}.type", kind, "must be object at the root")


def _metadata(schema: Raw, path: str, level: str) -> Iterator[Cause]:
    """``metadata`` is what it always is: schemas may restrict names only."""
    properties = schema.get("properties") or {}
    whole = level == "root" or bool(schema.get(_EMBEDDED))
    for name in ("kind", "apiVersion"):
        if whole and name in properties and properties[name].get("type") != "string":
            yield n.invalid(f"{path}.properties[{name}].type", properties[name].get("type") or "", "must be string")
    metadata = properties.get("metadata")
    if not isinstance(metadata, dict):
        return
    where = f"{path}.properties[metadata]"
    if whole and metadata.get("type") != "object":
        yield n.invalid(f"{where}.type", metadata.get("type") or "", "must be object")
    if level == "root":
        named = set(metadata.get("properties") or {})
        rest = {k for k in metadata if k not in ("type", "default", "properties")}
        if rest or not named <= {"name", "generateName"}:
            yield n.forbidden(
                where,
                "must not specify anything other than name and generateName, but metadata is implicitly specified",
            )


def _is_either(branches: Any) -> bool:
    """The one way to write the types of an int-or-string."""
    return bool(branches == _EITHER)


def _first_is_either(schema: Raw) -> bool:
    branches = schema.get("allOf") or []
    return bool(branches) and isinstance(branches[0], dict) and _is_either(branches[0].get("anyOf"))


def _values(schema: Raw, path: str, level: str, skip_any: bool, skip_first: bool) -> Iterator[Cause]:
    for index, branch in enumerate(schema.get("anyOf") or ()):
        if not skip_any:
            yield from _branch(branch, f"{path}.anyOf[{index}]", level, False)
    for index, branch in enumerate(schema.get("allOf") or ()):
        yield from _branch(branch, f"{path}.allOf[{index}]", level, skip_first and index == 0)
    for index, branch in enumerate(schema.get("oneOf") or ()):
        yield from _branch(branch, f"{path}.oneOf[{index}]", level, False)
    if "not" in schema:
        yield from _branch(schema["not"], f"{path}.not", level, False)
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and pattern:
        try:
            regex.compile(pattern)
        except regex.BadPattern as error:
            yield n.invalid(f"{path}.pattern", pattern, f"must be a valid regular expression, but isn't: {error}")


def _branch(branch: Any, path: str, level: str, skip_any: bool) -> Iterator[Cause]:
    if not isinstance(branch, dict):
        return
    yield from _values(branch, path, level, skip_any, False)
    if isinstance(branch.get("items"), dict):
        yield from _branch(branch["items"], f"{path}.items", level, False)
    for name, child in (branch.get("properties") or {}).items():
        yield from _branch(child, f"{path}.properties[{name}]", "field", False)
    for key, why in _FORBIDDEN.items():
        if branch.get(key) not in (None, "", False, []) or (key == "default" and "default" in branch):
            yield n.forbidden(f"{path}.{key}", why)
    if "metadata" in (branch.get("properties") or {}):
        yield n.forbidden(f"{path}.properties[metadata]", "must not be specified in a nested context")


def _complete(rules: Raw, schema: Any, schema_path: str, path: str) -> Iterator[Cause]:
    """Whatever a junctor speaks of must be specified outside of it."""
    for junctor in ("allOf", "anyOf", "oneOf"):
        for index, branch in enumerate(rules.get(junctor) or ()):
            yield from _branch_complete(branch, schema, schema_path, f"{path}.{junctor}[{index}]")
    if "not" in rules:
        yield from _branch_complete(rules["not"], schema, schema_path, f"{path}.not")


def _branch_complete(branch: Any, schema: Any, schema_path: str, path: str) -> Iterator[Cause]:
    if not isinstance(branch, dict):
        return
    if not isinstance(schema, dict):
        yield n.required(schema_path, f"because it is defined in {path}")
        return
    yield from _complete(branch, schema, schema_path, path)
    if "items" in branch:
        yield from _branch_complete(branch["items"], schema.get("items"), f"{schema_path}.items", f"{path}.items")
    known = schema.get("properties") or {}
    for name, child in (branch.get("properties") or {}).items():
        where = f"properties[{name}]"
        yield from _branch_complete(child, known.get(name), f"{schema_path}.{where}", f"{path}.{where}")
