"""Strategic merge patch: a merge patch that knows which lists are maps in disguise.

The kind's schema says for each list whether a patch replaces it or merges into it, and by which key. Directives in the
patch (``$patch``, ``$retainKeys``, ``$setElementOrder/...``, ``$deleteFromPrimitiveList/...``) say the rest.
"""

from __future__ import annotations

from typing import Any, Protocol

from glebe.kube.errors import ApiError, bad_request

_PATCH = "$patch"
_RETAIN = "$retainKeys"
_ORDER = "$setElementOrder/"
_DELETE_PRIMITIVES = "$deleteFromPrimitiveList/"


class Schema(Protocol):
    """What is needed of :class:`glebe.apiserver.types.schema.Schema`."""

    patch_strategy: tuple[str, ...]
    patch_merge_key: str
    items: Any

    def field(self, name: str) -> Any: ...


def apply(original: dict[str, Any], patch: dict[str, Any], schema: Schema | None) -> dict[str, Any]:
    """``original`` with ``patch`` merged in; ``original`` may be changed, ``patch`` is not.

    :raises ApiError: 400 for a patch that makes no sense.
    """
    result: dict[str, Any] = _merge_map(original, patch, schema)
    return result


def _bad(message: str) -> ApiError:
    return bad_request(f"error applying strategic merge patch: {message}")


def _merge_map(original: dict[str, Any], patch: dict[str, Any], schema: Schema | None) -> dict[str, Any]:
    for key in patch:
        if key[:1] == "$":
            return _merge_directed(original, patch, schema)
    for key, value in patch.items():
        _merge_field(original, key, value, schema)
    return original


def _merge_field(original: dict[str, Any], key: str, value: Any, schema: Schema | None) -> None:
    kind = type(value)
    if value is None:
        original.pop(key, None)
    elif kind is not dict and kind is not list:
        original[key] = value
    elif key not in original:
        original[key] = _clean(value)
    else:
        original[key] = _merge_value(original[key], value, schema.field(key) if schema is not None else None)


def _merge_directed(original: dict[str, Any], patch: dict[str, Any], schema: Schema | None) -> dict[str, Any]:
    """The same for a patch with directives."""
    directive = patch.get(_PATCH)
    if directive == "replace":
        replaced: dict[str, Any] = _clean({k: v for k, v in patch.items() if k != _PATCH})
        return replaced
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise _bad(f"unknown patch type {directive!r} found; expected one of delete, merge, replace")
    if _RETAIN in patch:
        original = _retained(original, patch)
    done = _ordered_lists(original, patch, schema)
    for key, value in patch.items():
        if key in done or key in (_PATCH, _RETAIN) or key.startswith(_ORDER):
            continue
        if key.startswith(_DELETE_PRIMITIVES):
            _delete_primitives(original, key[len(_DELETE_PRIMITIVES) :], value)
            continue
        _merge_field(original, key, value, schema)
    return original


def _merge_value(old: Any, new: Any, schema: Schema | None) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        if schema is not None and "replace" in schema.patch_strategy:
            return _clean(new)
        return _merge_map(old, new, schema)
    if isinstance(old, list) and isinstance(new, list) and schema is not None and "merge" in schema.patch_strategy:
        return _merge_list(old, new, schema)
    return _clean(new)


def _retained(original: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    keep = patch[_RETAIN]
    if not isinstance(keep, list):
        raise _bad(f"{_RETAIN} must be a list")
    for key, value in patch.items():
        if not key.startswith("$") and value is not None and key not in keep:
            raise _bad(f"{_RETAIN} directive does not list the field {key} that the patch sets")
    return {k: v for k, v in original.items() if k in keep}


def _delete_primitives(original: dict[str, Any], key: str, values: Any) -> None:
    if isinstance(original.get(key), list) and isinstance(values, list):
        original[key] = [v for v in original[key] if v not in values]


def _clean(value: Any) -> Any:
    """A patch's value where there was nothing before: directives and nulls have nothing to act on."""
    if isinstance(value, dict):
        return {k: _clean(v) for k, v in value.items() if v is not None and not k.startswith("$")}
    if isinstance(value, list):
        return [_clean(v) for v in value if not (isinstance(v, dict) and v.get(_PATCH) in ("delete", "replace"))]
    return value


def _merge_list(old: list[Any], new: list[Any], schema: Schema) -> list[Any]:
    merge_key = schema.patch_merge_key
    if not merge_key:
        merged = list(dict.fromkeys([*old, *new]))
        return _in_order(merged, new, old, "")
    return _merge_items(old, new, merge_key, schema.items)


def _merge_items(old: list[Any], new: list[Any], merge_key: str, items: Schema | None) -> list[Any]:
    plain: list[dict[str, Any]] = []
    replace = False
    merged = list(old)
    for item in new:
        if not isinstance(item, dict):
            raise _bad(f"expected an object with the key {merge_key}, got {item!r}")
        directive = item.get(_PATCH)
        if directive == "replace":
            replace = True
            rest = {k: v for k, v in item.items() if k != _PATCH}
            if rest:
                plain.append(rest)
        elif directive == "delete":
            _need_key(item, merge_key)
            merged = [m for m in merged if m.get(merge_key) != item[merge_key]]
        elif directive is None:
            plain.append(item)
        elif directive == "merge":
            plain.append({k: v for k, v in item.items() if k != _PATCH})
        else:
            raise _bad(f"unknown patch type {directive!r} found; expected one of delete, merge, replace")
    if replace:
        return [_clean(item) for item in plain]
    place = _positions(merged, merge_key)
    in_order, last = len(merged) == len(place) == len(old), -1
    for item in plain:
        _need_key(item, merge_key)
        key = item[merge_key]
        i = place.get(key)
        if i is None:
            place[key] = len(merged)
            merged.append(_clean(item))
            in_order = False
        else:
            merged[i] = _merge_map(dict(merged[i]), item, items)
            in_order = in_order and i > last
            last = i
    # What is there already and is named in the order in which it is there, stays where it is.
    return merged if in_order else _in_order(merged, plain, old, merge_key)


def _need_key(item: dict[str, Any], merge_key: str) -> None:
    if merge_key not in item:
        raise _bad(f"map: {item} does not contain declared merge key: {merge_key}")


def _ordered_lists(original: dict[str, Any], patch: dict[str, Any], schema: Schema | None) -> set[str]:
    """Lists whose order the patch gives; returns the fields that are done with."""
    done: set[str] = set()
    for directive, order in patch.items():
        if not directive.startswith(_ORDER):
            continue
        key = directive[len(_ORDER) :]
        field = schema.field(key) if schema is not None else None
        if not isinstance(order, list):
            raise _bad(f"{directive} must be a list")
        if field is None or "merge" not in field.patch_strategy:
            continue
        old, new = original.get(key), patch.get(key)
        if old is None and new is None:
            continue
        if new is None and key in patch:
            original.pop(key, None)
        else:
            merged = _clean(new) if old is None else old if new is None else _merge_list(old, new, field)
            removed = patch.get(_DELETE_PRIMITIVES + key)
            if isinstance(removed, list):
                merged = [v for v in merged if v not in removed]
            original[key] = _in_order(merged, order, old or [], field.patch_merge_key)
        done.add(key)
        done.add(_DELETE_PRIMITIVES + key)
    return done


def _in_order(merged: list[Any], order: list[Any], live: list[Any], merge_key: str) -> list[Any]:
    """``merged`` with the items of ``order`` in that order and the others where they were in ``live``, if possible.

    The others are inserted before the first ordered item that followed them in ``live``; an ordered item that is not
    in ``live`` goes first (as upstream).
    """
    wanted = _positions(order, merge_key)
    place = _positions(live, merge_key)
    named = sorted((m for m in merged if _key(m, merge_key) in wanted), key=lambda m: wanted[_key(m, merge_key)])
    others = [m for m in merged if _key(m, merge_key) not in wanted]
    others.sort(key=lambda m: place.get(_key(m, merge_key), len(place)))
    out: list[Any] = []
    i = j = 0
    while i < len(others) and j < len(named):
        left, right = place.get(_key(others[i], merge_key)), place.get(_key(named[j], merge_key))
        if left is not None and right is not None and left < right:
            out.append(others[i])
            i += 1
        else:
            out.append(named[j])
            j += 1
    return [*out, *others[i:], *named[j:]]


def _positions(items: list[Any], merge_key: str) -> dict[Any, int]:
    positions: dict[Any, int] = {}
    for i, item in enumerate(items):
        positions.setdefault(_key(item, merge_key), i)
    return positions


def _key(item: Any, merge_key: str) -> Any:
    if merge_key and isinstance(item, dict):
        return item.get(merge_key)
    return item
