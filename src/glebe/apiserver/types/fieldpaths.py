"""Paths into schemas: what ``selectableFields`` and the ``fieldPath`` of CEL rules may name."""

from __future__ import annotations

import re
from typing import Any

_TOKEN = re.compile(r"'(?:\\'|[^'])*'|[.\[\]]|[^.\[\]]+")


def find_field(schema: dict[str, Any], path: str, *, brackets: bool = True) -> dict[str, Any] | str:
    """The schema of the field that ``path`` (``.spec.color``, ``.labels['a.b']``) names, or what is wrong with it.

    :param brackets: whether ``['key']`` may be used.
    """
    tokens = _TOKEN.findall(path)
    node: Any = schema
    position = 0
    while position < len(tokens):
        token = tokens[position]
        rest = tokens[position + 1 : position + 3]
        if token == "[":
            if not brackets:
                return "array notation is not allowed"
            if not rest:
                return "unexpected end of JSON path"
            name = rest[0]
            if len(name) < 2 or not (name.startswith("'") and name.endswith("'")):
                return f"expected single quoted string but got {name}"
            if len(rest) < 2:
                return "unexpected end of JSON path"
            if rest[1] != "]":
                return f"expected ] but got {rest[1]}"
            name, position = name[1:-1].replace("\\'", "'"), position + 3
        elif token == ".":
            if not rest:
                return "unexpected end of JSON path"
            name, position = rest[0], position + 2
        else:
            return f"expected [ or . but got: {token}"
        child = _step(node, name)
        if child is None:
            return "does not refer to a valid field"
        node = child
    if node is schema or not isinstance(node, dict):
        return "does not refer to a valid field"
    return node


def _step(node: Any, name: str) -> dict[str, Any] | None:
    if not isinstance(node, dict):
        return None
    if node.get("properties") is not None:
        found = node["properties"].get(name)
    else:
        found = node.get("additionalProperties")
    return found if isinstance(found, dict) else None
