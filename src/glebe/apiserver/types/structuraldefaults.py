"""Defaults of custom resources, by their structural schema."""

from __future__ import annotations

import copy
from typing import Any

from glebe.apiserver.types.schema import Schema

_UNSET = object()


def apply_defaults(schema: Schema, obj: dict[str, Any]) -> None:
    """Fill in the schema's defaults, and drop nulls where null is not allowed. In place; idempotent."""
    for name, field in schema.fields.items():
        if not field.custom:
            continue
        value = obj.get(name, _UNSET)
        if value is None and not field.nullable:
            if "default" not in field.raw:
                del obj[name]
                continue
            value = _UNSET
        if value is _UNSET:
            if "default" not in field.raw:
                continue
            value = obj[name] = copy.deepcopy(field.default)
        _default_inside(field, value)
    if schema.additional is not None and not schema.fields:
        child = schema.additional
        for key in [k for k, v in obj.items() if v is None and not child.nullable]:
            if "default" in child.raw:
                obj[key] = copy.deepcopy(child.default)
            else:
                del obj[key]
        for value in obj.values():
            _default_inside(child, value)


def _default_inside(schema: Schema, value: Any) -> None:
    if type(value) is dict:
        apply_defaults(schema, value)
    elif type(value) is list and schema.items is not None:
        item = schema.items
        if item.kind in ("object", "map", "array"):
            for element in value:
                _default_inside(item, element)
