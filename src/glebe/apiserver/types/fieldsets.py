"""Sets of field paths, kept in the very form in which ``metadata.managedFields`` stores them (FieldsV1).

A set is a dictionary: ``f:NAME`` is a field, ``k:{...}`` an item of a list with keys, ``v:VALUE`` an item of a set. An
entry belongs to the set when it is empty or holds ``"."``; otherwise only what stands below it does.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import orjson

from glebe.apiserver.types.remembered import VARYING, Memory, digest_of_spec
from glebe.apiserver.types.schema import Schema

FieldSet = dict[str, Any]

_SORTED = orjson.OPT_SORT_KEYS
#: Key fields that upstream's schema gives a default.
_KEY_DEFAULTS = {"protocol": "TCP"}
#: Parts that always exist in a built-in kind's struct, so that nobody can be said to have added them.
_ALWAYS_THERE = frozenset({"spec", "status", "metadata", "template", "strategy", "updateStrategy", "jobTemplate"})
#: Metadata that nobody owns.
UNOWNED_METADATA = frozenset(
    {
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    }
)
_TYPE_META = ("apiVersion", "kind")
_POD = "io.k8s.api.core.v1.Pod"


class ListKeyError(ValueError):
    """An item of a keyed list lacks its key, or repeats another's; the message starts with the list's path."""


def item_key(schema: Schema, item: Any) -> str:
    """The path element of an item of a list with keys (``k:``) or of a set (``v:``).

    :raises ListKeyError: when a key field is missing.
    """
    if schema.list_type != "map":
        return "v:" + orjson.dumps(item, option=_SORTED).decode()
    if type(item) is not dict:
        raise ListKeyError("associative list with keys may not have non-map elements")
    key = {}
    for name in schema.list_keys:
        value = item.get(name, _KEY_DEFAULTS.get(name))
        if value is None:
            field = schema.items.fields.get(name) if schema.items is not None else None
            value = field.default if field is not None else None
            if value is None:
                why = f'associative list with keys has an element that omits key field "{name}"'
                raise ListKeyError(f"{why} (and doesn't have default value)")
        key[name] = value
    if len(key) == 1 and type(value) is str:
        return _text_key(schema.list_keys[0], value)
    return "k:" + orjson.dumps(key, option=_SORTED).decode()


@lru_cache(maxsize=4096)
def _text_key(name: str, value: str) -> str:
    """Most lists are keyed by a name, and most names come again and again."""
    return "k:" + orjson.dumps({name: value}).decode()


def by_key(schema: Schema, items: list[Any]) -> dict[str, Any]:
    """Items by their path element, in order.

    :raises ListKeyError: when two items have one key.
    """
    out: dict[str, Any] = {}
    for index, item in enumerate(items):
        try:
            key = item_key(schema, item)
        except ListKeyError as error:
            raise ListKeyError(f"element {index}: {error}") from None
        if key in out:
            raise ListKeyError(f"duplicate entries for key {element_text(key)}")
        out[key] = item
    return out


def is_granular(schema: Schema | None, value: Any) -> bool:
    """Are the parts of ``value`` owned one by one?"""
    if schema is None:
        return False
    if type(value) is dict:
        if schema.map_type == "atomic":
            return False
        return schema.kind in ("object", "map") or (schema.custom and schema.preserve)
    return type(value) is list and schema.list_type in ("map", "set")


def field_schema(schema: Schema, name: str) -> Schema | None:
    """The schema below a field; None where nothing is known (an unknown part of a preserved object)."""
    return schema.additional if schema.kind == "map" else schema.fields.get(name) or schema.additional


# ------------------------------------------------------------------------------------------------------ making a set


def applied_set(schema: Schema | None, value: Any, path: str = "") -> FieldSet:
    """The fields that an applied configuration names: its leaves, and the items of its lists.

    :raises ListKeyError: for lists whose keys are missing or repeated.
    """
    if schema is None or not value or not is_granular(schema, value):
        return {}
    if type(value) is dict:
        return {f"f:{k}": applied_set(field_schema(schema, k), v, f"{path}.{k}") for k, v in value.items()}
    try:
        items = by_key(schema, value)
    except ListKeyError as error:
        raise ListKeyError(f"{path}: {error}") from None
    if schema.list_type == "set":
        return {key: {} for key in items}
    return {key: {".": {}, **applied_set(schema.items, item, path + element_text(key))} for key, item in items.items()}


def added_set(schema: Schema | None, value: Any, name: str = "", *, always: bool = False) -> FieldSet:
    """Everything of a value that was not there before, containers too."""
    if schema is None or not value or not is_granular(schema, value):
        return {}
    builtin = not schema.custom
    out: FieldSet = {} if always or (builtin and name in _ALWAYS_THERE) else {".": {}}
    if type(value) is dict:
        required, fields, extra = schema.required, schema.fields, schema.additional
        is_map = schema.kind == "map"
        for key, item in value.items():
            kind = type(item)
            if not item or (kind is not dict and kind is not list):  # most are leaves
                out["f:" + key] = {}
                continue
            child = extra if is_map else fields.get(key) or extra
            out["f:" + key] = added_set(child, item, key, always=builtin and kind is list and key in required)
        return out
    try:
        items = by_key(schema, value)
    except ListKeyError:
        return {}  # duplicates in stored lists: then the list is owned as one
    for key, item in items.items():
        out[key] = added_set(schema.items, item) if schema.list_type == "map" else {}
    return out


def changes(schema: Schema, old: dict[str, Any], new: dict[str, Any]) -> tuple[FieldSet, FieldSet]:
    """What an object's writer added or changed, and what it removed (an entry of which means all below it too)."""
    changed: FieldSet = {}
    removed: FieldSet = {}
    for name in {**new, **old}:
        if name in _TYPE_META or name == "metadata":
            continue
        if name == "spec" and schema.definition == _POD and not old.get("spec") and new.get("spec"):
            changed |= _new_spec(schema, old, new)
            continue
        _field_changes(schema, name, old, new, changed, removed)
    meta, before = new.get("metadata") or {}, old.get("metadata") or {}
    if meta != before:
        meta_schema = schema.fields.get("metadata")
        inner: FieldSet = {}
        gone: FieldSet = {}
        if meta_schema is not None:
            for name in {**meta, **before}:
                if name not in UNOWNED_METADATA:
                    _field_changes(meta_schema, name, before, meta, inner, gone)
        if inner:
            changed["f:metadata"] = inner
        if gone:
            removed["f:metadata"] = gone
    return changed, removed


_SPECS: Memory[bytes] = Memory(512)


def _new_spec(schema: Schema, old: dict[str, Any], new: dict[str, Any]) -> FieldSet:
    """What the spec of a new pod adds. Equal specs add the same; the set is everybody's own to change."""
    changed: FieldSet = {}
    if not _SPECS.look():
        _field_changes(schema, "spec", old, new, changed, {})
        return changed
    there = ["spec" in old, *(name in new["spec"] for name in VARYING)]
    key = bytes(there) + digest_of_spec(new["spec"])
    known = _SPECS.get(key)
    if known is None:
        _field_changes(schema, "spec", old, new, changed, {})
        _SPECS.put(key, orjson.dumps(changed))
        return changed
    found: FieldSet = orjson.loads(known)
    return found


def _field_changes(
    schema: Schema, name: str, old: dict[str, Any], new: dict[str, Any], changed: FieldSet, removed: FieldSet
) -> None:
    key = f"f:{name}"
    if name not in new:
        removed[key] = {}
    elif name not in old:
        there = not schema.custom and name in schema.required and type(new[name]) is list
        changed[key] = added_set(field_schema(schema, name), new[name], name, always=there)
    elif old[name] != new[name] or type(old[name]) is not type(new[name]):
        _value_changes(field_schema(schema, name), key, old[name], new[name], changed, removed)


def _value_changes(schema: Schema | None, key: str, old: Any, new: Any, changed: FieldSet, removed: FieldSet) -> None:
    if schema is None or type(old) is not type(new) or not is_granular(schema, new):
        changed[key] = {}
        return
    inner: FieldSet = {}
    gone: FieldSet = {}
    if type(new) is dict:
        for name in {**new, **old}:
            _field_changes(schema, name, old, new, inner, gone)
    else:
        try:
            before, after = by_key(schema, old), by_key(schema, new)
        except ListKeyError:
            changed[key] = {}
            return
        for element in before:
            if element not in after:
                gone[element] = {}
        for element, item in after.items():
            if element not in before:
                inner[element] = added_set(schema.items, item) if schema.list_type == "map" else {}
            elif before[element] != item:
                _value_changes(schema.items, element, before[element], item, inner, gone)
    if not new and old:
        inner["."] = {}  # emptied: the empty container is a leaf now
    if inner:
        changed[key] = inner
    if gone:
        removed[key] = gone


# ----------------------------------------------------------------------------------------------------- set operations


def member(node: FieldSet) -> bool:
    return not node or "." in node


def union(a: FieldSet, b: FieldSet) -> FieldSet:
    """Paths in ``a`` or ``b``. Neither is changed; parts may be shared with the result."""
    out = dict(a)
    for key, below in b.items():
        if key == ".":
            out["."] = {}
        elif key not in out:
            out[key] = below
        elif out[key] != below:
            out[key] = _union_node(out[key], below)
    return out


def _union_node(a: FieldSet, b: FieldSet) -> FieldSet:
    out = union(a, b)
    if out and (member(a) or member(b)):
        out["."] = {}
    return out


def difference(a: FieldSet, b: FieldSet) -> FieldSet:
    """Paths in ``a`` but not in ``b``."""
    out: FieldSet = {}
    for key, below in a.items():
        if key == ".":
            continue
        other = b.get(key)
        if other is None:
            out[key] = below
            continue
        rest = difference(below, other)
        stays = member(below) and not member(other)
        if rest:
            out[key] = {".": {}, **rest} if stays else rest
        elif stays:
            out[key] = {}
    return out


def intersection(a: FieldSet, b: FieldSet) -> FieldSet:
    """Paths in both."""
    out: FieldSet = {}
    for key, below in a.items():
        other = b.get(key)
        if key == "." or other is None:
            continue
        inner = intersection(below, other)
        both = member(below) and member(other)
        if inner:
            out[key] = {".": {}, **inner} if both else inner
        elif both:
            out[key] = {}
    return out


def without(a: FieldSet, removed: FieldSet) -> FieldSet:
    """``a`` without the subtrees that ``removed`` names."""
    out: FieldSet = {}
    for key, below in a.items():
        gone = removed.get(key)
        if gone is None or key == ".":
            out[key] = below
        elif gone and below:
            rest = without(below, gone)
            if rest:
                out[key] = rest
        elif gone:
            out[key] = below
    return out


def paths(a: FieldSet, prefix: str = "") -> Iterator[str]:
    """Every path of a set as upstream prints it: ``.spec.containers[name="c"].image``."""
    for key in sorted(k for k in a if k != "."):
        where = prefix + element_text(key)
        if member(a[key]):
            yield where
        yield from paths(a[key], where)


def element_text(key: str) -> str:
    """One element of a path: ``.name``, ``[name="c"]`` or ``[="value"]``."""
    if key.startswith("f:"):
        return f".{key[2:]}"
    if key.startswith("k:"):
        fields = orjson.loads(key[2:])
        return "[" + ",".join(f"{k}={orjson.dumps(v).decode()}" for k, v in fields.items()) + "]"
    return f"[={key[2:]}]"
