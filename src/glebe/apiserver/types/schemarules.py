"""Rules of the schemas in CustomResourceDefinitions beyond structure: keywords that are allowed, list and map types,
the words of CEL rules, defaults (``apiextensions/validation.ValidateCustomResourceDefinitionOpenAPISchema``).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from glebe.apiserver.types import structural
from glebe.apiserver.types.fieldpaths import find_field
from glebe.apiserver.types.formats import FORMATS
from glebe.apiserver.types.schema import Schema
from glebe.apiserver.types.structuralrules import children, structural_faults
from glebe.kube import names as n
from glebe.kube.errors import Cause

Raw = dict[str, Any]

_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_UNSUPPORTED = ("id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref")
_META_FIELDS = ("metadata", "kind", "apiVersion")
_REASONS = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")
_NEWLINES = re.compile(r"[\n\r]")
#: Go's names of the fields that a root may have beside a status subresource, as upstream lists them
_ROOT_FIELDS = (
    "Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength MinLength Pattern "
    "MaxItems MinItems UniqueItems MultipleOf Required Items Properties ExternalDocs Example XPreserveUnknownFields "
    "XValidations"
)
_AT_ROOT = frozenset({name[0].lower() + name[1:] for name in _ROOT_FIELDS.split() if not name.startswith("X")}) | {
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
}


@dataclass(frozen=True, slots=True)
class _Place:
    """What is known of where a node stands."""

    no_defaults: str = ""
    """Why there may be no defaults; "" when there may."""
    inside_meta: bool = False


def schema_faults(schema: Raw, path: str, *, has_status: bool) -> list[Cause]:
    """Every fault of one version's ``openAPIV3Schema``."""
    causes: list[Cause] = []
    if has_status:
        causes += _root_faults(schema, path)
    if schema.get("nullable"):
        causes.append(n.forbidden(f"{path}.nullable", "nullable cannot be true at the root"))
    # A schema with lists of schemas cannot be taken for a structure at all: that alone is said then.
    structure = [] if _has_tuples(schema) else structural_faults(schema, path)
    causes += structure
    rules = list(_node(schema, path, _Place(), root=True))
    if not structure and not _has_tuples(schema):
        causes += _default_faults(schema, path)
    return causes + rules


def _has_tuples(node: Any) -> bool:
    """Does ``items`` hold a list of schemas anywhere?"""
    if isinstance(node, dict):
        values = (value for key, value in node.items() if key not in ("default", "enum", "example"))
        return isinstance(node.get("items"), list) or any(_has_tuples(value) for value in values)
    return isinstance(node, list) and any(_has_tuples(item) for item in node)


def _root_faults(schema: Raw, path: str) -> list[Cause]:
    """The schema of the status must be all that is said of it: it is used alone when only the status is written."""
    if schema.get("type") != "object" and schema.get("type"):
        why = 'only "object" is allowed as the type at the root of the schema if the status subresource is enabled'
        return [n.invalid(f"{path}.type", schema["type"], why)]
    for key, value in schema.items():
        if key not in _AT_ROOT and value not in (None, "", False, [], {}):
            where = "at the root of the schema if the status subresource is enabled"
            return [n.invalid(path, schema, f"only [{_ROOT_FIELDS}] fields are allowed {where}")]
    return []


def _node(schema: Any, path: str, place: _Place, *, root: bool = False) -> Iterator[Cause]:
    if not isinstance(schema, dict):
        return
    yield from _keywords(schema, path, place)
    additional = schema.get("additionalProperties")
    if additional is not None:
        if schema.get("properties") and additional is not True:
            why = "additionalProperties and properties are mutual exclusive"
            yield n.forbidden(f"{path}.additionalProperties", why)
        below = place
        if place.inside_meta:
            below = replace(place, no_defaults="inside additionalProperties applying to object metadata")
        yield from _node(additional, f"{path}.additionalProperties", below)
    for name, child in (schema.get("properties") or {}).items():
        below = place
        if (root or schema.get("x-kubernetes-embedded-resource")) and name in _META_FIELDS:
            below = _Place(f"in top-level {name}" if root else place.no_defaults, True)
        yield from _node(child, f"{path}.properties[{name}]", below)
    for junctor in ("allOf", "oneOf", "anyOf"):
        for index, branch in enumerate(schema.get(junctor) or ()):
            yield from _node(branch, f"{path}.{junctor}[{index}]", place)
    yield from _node(schema.get("not"), f"{path}.not", place)
    yield from _node(schema.get("items"), f"{path}.items", place)
    yield from _extensions(schema, path)
    yield from _rules(schema, path)


def _keywords(schema: Raw, path: str, place: _Place) -> Iterator[Cause]:
    kind = schema.get("type") or ""
    if kind and kind not in _TYPES:
        yield n.not_supported(f"{path}.type", kind, list(_TYPES))
    if schema.get("default") is not None and place.no_defaults:
        yield n.forbidden(f"{path}.default", f"must not be set {place.no_defaults}")
    for key in _UNSUPPORTED:
        if schema.get(key) not in (None, "", {}):
            yield n.forbidden(f"{path}.{key}", f"{key} is not supported")
    if kind == "null":
        yield n.forbidden(f"{path}.type", "type cannot be set to null, use nullable as an alternative")
    if isinstance(schema.get("items"), list):
        yield n.forbidden(f"{path}.items", "items must be a schema object and not an array")
    if place.inside_meta and schema.get("x-kubernetes-embedded-resource"):
        yield n.forbidden(f"{path}.x-kubernetes-embedded-resource", "must not be used inside of resource meta")
    if schema.get("uniqueItems"):
        why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        yield n.forbidden(f"{path}.uniqueItems", why)


def _wrong_type(schema: Raw, path: str, want: str, extension: str) -> Cause:
    why = f"must be {want} if {extension} is specified"
    kind = schema.get("type") or ""
    return n.invalid(f"{path}.type", kind, why) if kind else n.required(f"{path}.type", why)


def _extensions(schema: Raw, path: str) -> Iterator[Cause]:
    """x-kubernetes-map-type, -list-type, -list-map-keys and -preserve-unknown-fields."""
    kind = schema.get("type") or ""
    if schema.get("x-kubernetes-preserve-unknown-fields") is False:
        yield n.invalid(f"{path}.x-kubernetes-preserve-unknown-fields", False, "must be true or undefined")
    map_type, list_type = schema.get("x-kubernetes-map-type"), schema.get("x-kubernetes-list-type")
    if map_type is not None:
        if kind != "object":
            yield _wrong_type(schema, path, "object", "x-kubernetes-map-type")
        if map_type not in ("atomic", "granular"):
            yield n.not_supported(f"{path}.x-kubernetes-map-type", map_type, ["atomic", "granular"])
    if list_type is not None:
        if kind != "array":
            yield _wrong_type(schema, path, "array", "x-kubernetes-list-type")
        elif list_type == "set" and isinstance(schema.get("items"), dict):
            yield from _set_items(schema["items"], f"{path}.items")
        if list_type not in ("atomic", "set", "map"):
            yield n.not_supported(f"{path}.x-kubernetes-list-type", list_type, ["atomic", "set", "map"])
    keys = schema.get("x-kubernetes-list-map-keys") or []
    if keys and list_type != "map":
        why = "must be map if x-kubernetes-list-map-keys is non-empty"
        where = f"{path}.x-kubernetes-list-type"
        yield n.required(where, why) if list_type is None else n.invalid(where, list_type, why)
    if list_type == "map":
        yield from _map_list(schema, keys, path)
    if list_type in ("set", "map") and isinstance(schema.get("items"), dict):
        yield from _items_of(schema["items"], keys if list_type == "map" else [], list_type, f"{path}.items")


def _set_items(items: Raw, path: str) -> Iterator[Cause]:
    why = "must be atomic as item of a list with x-kubernetes-list-type=set"
    if items.get("type") == "array" and items.get("x-kubernetes-list-type") not in (None, "atomic"):
        yield n.invalid(f"{path}.x-kubernetes-list-type", items.get("x-kubernetes-list-type"), why)
    if items.get("type") == "object" and items.get("x-kubernetes-map-type") != "atomic":
        yield n.invalid(f"{path}.x-kubernetes-map-type", items.get("x-kubernetes-list-type"), why)


def _map_list(schema: Raw, keys: list[str], path: str) -> Iterator[Cause]:
    if not keys:
        yield n.required(f"{path}.x-kubernetes-list-map-keys", "must not be empty if x-kubernetes-list-type is map")
    items = schema.get("items")
    if items is None:
        yield n.required(f"{path}.items", "must have a schema if x-kubernetes-list-type is map")
    if not isinstance(items, dict):
        return
    if items.get("type") != "object":
        why = "must be object if parent array's x-kubernetes-list-type is map"
        yield n.invalid(f"{path}.items.type", items.get("type") or "", why)
        return
    properties = items.get("properties") or {}
    where = f"{path}.x-kubernetes-list-map-keys"
    for index, key in enumerate(keys):
        if key not in properties:
            yield n.invalid(where, keys, "entries must all be names of item properties")
        elif properties[key].get("type") in ("array", "object"):
            why = "must be a scalar type if parent array's x-kubernetes-list-type is map"
            yield n.invalid(f"{path}.items.properties[{key}].type", items["type"], why)
        if key in keys[:index]:
            yield n.invalid(where, keys, "must not contain duplicate entries")


def _items_of(items: Raw, keys: list[str], list_type: str, path: str) -> Iterator[Cause]:
    if items.get("nullable"):
        yield n.forbidden(f"{path}.nullable", f"cannot be nullable when x-kubernetes-list-type is {list_type}")
    for key in keys:
        prop = (items.get("properties") or {}).get(key)
        if not isinstance(prop, dict):
            continue
        where = f"{path}.properties[{key}]"
        if key not in (items.get("required") or ()) and prop.get("default") is None:
            why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
            yield n.required(f"{where}.default", why)
        if prop.get("nullable"):
            yield n.forbidden(
                f"{where}.nullable", "this property is in x-kubernetes-list-map-keys, so it cannot be nullable"
            )


def _rules(schema: Raw, path: str) -> Iterator[Cause]:
    """The words around CEL rules; the rules themselves are :mod:`glebe.apiserver.types.celrules`'s."""
    for index, rule in enumerate(schema.get("x-kubernetes-validations") or ()):
        where = f"{path}.x-kubernetes-validations[{index}]"
        text, message = rule.get("rule") or "", rule.get("message") or ""
        said = rule.get("messageExpression") or ""
        if not text.strip():
            yield n.required(f"{where}.rule", "rule is not specified")
        elif message and not message.strip():
            yield n.invalid(f"{where}.message", message, "must be non-empty if specified")
        elif _NEWLINES.search(message.strip()):
            yield n.invalid(f"{where}.message", message, "must not contain line breaks")
        elif _NEWLINES.search(text.strip()) and not message.strip():
            yield n.required(f"{where}.message", "message must be specified if rule contains line breaks")
        if said and not said.strip():
            yield n.required(f"{where}.messageExpression", "messageExpression must be non-empty if specified")
        if rule.get("reason") is not None and rule["reason"] not in _REASONS:
            yield n.not_supported(f"{where}.reason", rule["reason"], list(_REASONS))
        field = rule.get("fieldPath") or ""
        if field and not field.strip():
            yield n.invalid(f"{where}.fieldPath", field, "must be non-empty if specified")
        if _NEWLINES.search(field):
            yield n.invalid(f"{where}.fieldPath", field, "must not contain line breaks")
        if field and isinstance(find_field(schema, field), str):
            yield n.invalid(f"{where}.fieldPath", field, "must be a valid path")


# ------------------------------------------------------------------------------------------------------------- formats

_NUMBER_FORMATS = {"integer": ("int32", "int64"), "number": ("float", "double")}
#: formats of strings that are known though nothing is checked
_UNCHECKED = ("password", "creditcard", "rgbcolor")


def unknown_formats(crd: Raw) -> list[str]:
    """Formats in a definition's schemas that nothing here knows; they are ignored, and their author should know."""
    found: list[str] = []
    for version in (crd.get("spec") or {}).get("versions") or ():
        _look_for_formats((version.get("schema") or {}).get("openAPIV3Schema"), found)
    return found


def _look_for_formats(node: Any, found: list[str]) -> None:
    if not isinstance(node, dict):
        return
    name, kind = node.get("format"), node.get("type") or "string"
    if isinstance(name, str) and name:
        known = _NUMBER_FORMATS.get(kind, (*FORMATS, *_UNCHECKED) if kind == "string" else ())
        if name not in known and name.replace("-", "") not in (k.replace("-", "") for k in known):
            found.append(name)
    for child, _, _ in children(node, ""):
        _look_for_formats(child, found)
    for junctor in ("allOf", "anyOf", "oneOf"):
        for branch in node.get(junctor) or ():
            _look_for_formats(branch, found)
    _look_for_formats(node.get("not"), found)


# ------------------------------------------------------------------------------------------------------------ defaults


def _default_faults(schema: Raw, path: str) -> list[Cause]:
    """Defaults must be what the schema itself would let in, and nothing that pruning would take away."""
    causes: list[Cause] = []
    _walk_defaults(schema, path, causes)
    return causes


def _walk_defaults(schema: Raw, path: str, causes: list[Cause]) -> None:
    default = schema.get("default")
    if default is not None:
        where = f"{path}.default"
        node = Schema(schema, custom=True)
        if _has_unknown(node, copy.deepcopy(default)):
            causes.append(n.invalid(where, default, "must not have unknown fields"))
        for fault in structural.validate(node, default):
            field = fault.field if fault.field != "<nil>" else ""
            causes.append(Cause(fault.reason, fault.message, where + (f".{field}" if field else "")))
    if isinstance(schema.get("items"), dict):
        _walk_defaults(schema["items"], f"{path}.items", causes)
    for name, child in (schema.get("properties") or {}).items():
        _walk_defaults(child, f"{path}.properties[{name}]", causes)


def _has_unknown(node: Schema, value: Any) -> bool:
    from glebe.apiserver.types.prune import unknown_fields

    return bool(unknown_fields(node, value))
