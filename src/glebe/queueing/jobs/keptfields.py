"""Fields of an object taken out with the place where they stood, and put back there. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from glebe.kube.objects import Object

#: (path, value) of each field; a path's parts are names of fields, or ``{"name": N}`` for the item N of a list.
Kept = list[tuple[list[Any], Any]]


def take_out(obj: Object, paths: tuple[str, ...]) -> Kept:
    """Remove what stands at ``paths`` (``a.b[].c``) and say where it stood."""
    found: Kept = []
    for path in paths:
        for holder, name, where in _places(obj, path.split("."), []):
            found.append(([*where, name], holder.pop(name)))
    return found


def _places(value: Any, parts: list[str], where: list[Any]) -> Iterator[tuple[dict[str, Any], str, list[Any]]]:
    """The objects that hold a field at a path, the field's name, and the way to them."""
    if not isinstance(value, dict):
        return
    name, rest = parts[0], parts[1:]
    if not rest:
        if name in value:
            yield value, name, where
    elif name.endswith("[]"):
        name = name.removesuffix("[]")
        items = value.get(name)
        for item in items if isinstance(items, list) else ():
            if isinstance(item, dict):
                yield from _places(item, rest, [*where, name, {"name": item.get("name")}])
    else:
        yield from _places(value.get(name), rest, [*where, name])


def put_back(obj: Object, kept: Kept) -> None:
    """Put fields where they stood, unless the place is gone or taken."""
    for path, value in kept:
        holder: Any = obj
        for part in path[:-1]:
            holder = _step(holder, part)
        if isinstance(holder, dict) and isinstance(path[-1], str):
            holder.setdefault(path[-1], value)


def _step(holder: Any, part: Any) -> Any:
    if isinstance(part, dict) and isinstance(holder, list):
        return next((i for i in holder if isinstance(i, dict) and i.get("name") == part.get("name")), None)
    return holder.get(part) if isinstance(part, str) and isinstance(holder, dict) else None
