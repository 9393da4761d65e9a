"""Merging an applied configuration into a live object, and taking back what a manager no longer applies."""

from __future__ import annotations

from typing import Any

from glebe.apiserver.types.fieldsets import FieldSet, by_key, field_schema, is_granular, member
from glebe.apiserver.types.schema import Schema


def merge(schema: Schema | None, live: Any, applied: Any) -> Any:
    """``live`` with everything in ``applied``. Neither is changed; parts are shared with the result."""
    if schema is None or type(live) is not type(applied) or not is_granular(schema, applied):
        return applied
    if type(applied) is dict:
        out = dict(live)
        for name, value in applied.items():
            out[name] = merge(field_schema(schema, name), live[name], value) if name in live else value
        return out
    return _merge_lists(schema, live, applied)


def _merge_lists(schema: Schema, live: list[Any], applied: list[Any]) -> list[Any]:
    """Applied items in their order; live ones that were not applied keep their places between them."""
    before, wanted = by_key(schema, live), by_key(schema, applied)
    order = list(before)
    position = {key: index for index, key in enumerate(order)}
    out: list[Any] = []
    next_live = 0
    for key, item in wanted.items():
        if key not in before:
            while next_live < len(order) and order[next_live] not in wanted:
                out.append(before[order[next_live]])
                next_live += 1
            out.append(item)
            continue
        while next_live <= position[key]:
            if order[next_live] not in wanted:
                out.append(before[order[next_live]])
            next_live += 1
        out.append(merge(schema.items, before[key], item))
    out.extend(before[key] for key in order[next_live:] if key not in wanted)
    return out


def take_back(schema: Schema | None, value: Any, dropped: FieldSet, kept: FieldSet) -> Any:
    """``value`` without the paths in ``dropped``, except where ``kept`` (what others own) still needs them.

    Containers that end up empty go too. Returns None when nothing is left of it.
    """
    if schema is None or not is_granular(schema, value):
        return value
    if type(value) is dict:
        out = dict(value)
        for key, below in dropped.items():
            name = key[2:]
            if key == "." or name not in out:
                continue
            rest = _without_part(field_schema(schema, name), out[name], below, kept.get(key))
            if rest is None:
                del out[name]
            else:
                out[name] = rest
        return out or None
    items = by_key(schema, value)
    for key, below in dropped.items():
        if key == "." or key not in items:
            continue
        rest = _without_part(schema.items, items[key], below, kept.get(key))
        if rest is None:
            del items[key]
        else:
            items[key] = rest
    return list(items.values()) or None


def _without_part(schema: Schema | None, value: Any, dropped: FieldSet, kept: FieldSet | None) -> Any:
    if member(dropped) and kept is None:
        return None
    if not dropped:
        return value  # a leaf that somebody else owns too
    rest = take_back(schema, value, _spare_keys(dropped, kept), kept or {})
    if rest is None and kept is not None and member(kept):
        return type(value)()  # the empty container itself is still applied
    return rest


def _spare_keys(dropped: FieldSet, kept: FieldSet | None) -> FieldSet:
    """An item that stays for somebody else keeps its leaves that this one owned too."""
    if kept is None:
        return dropped
    return {key: below for key, below in dropped.items() if not (key in kept and not below)}
