"""Places in objects: ``spec.template``, ``spec.groups[].replicas``, ``metadata.annotations[a.b/c]``. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

#: Names of fields; :data:`EACH` stands for every item of a list and every value of a map.
Path = tuple[str, ...]
#: The same for one place of one object: numbers are positions in lists.
Place = tuple[str | int, ...]
EACH = "[]"
_PART = re.compile(r"([A-Za-z0-9_-]+)|\[([^\]]*)\]")


def parse_path(text: str) -> Path:
    """:raises ValueError: not a path."""
    parts: list[str] = []
    at = 0
    while at < len(text):
        found = _PART.match(text, at)
        if found is None:
            raise ValueError(f'"{text}" is not a path: write e.g. spec.groups[].replicas')
        name, key = found.groups()
        parts.append(name if name is not None else key or EACH)
        at = found.end()
        if at < len(text) and text[at] == ".":
            at += 1
            if at == len(text):
                raise ValueError(f'"{text}" is not a path: it ends with a dot')
        elif at < len(text) and text[at] != "[":
            raise ValueError(f'"{text}" is not a path: write e.g. spec.groups[].replicas')
    if not parts:
        raise ValueError("a path must name at least one field")
    return tuple(parts)


def path_text(path: Sequence[str | int]) -> str:
    """The path as it is written in manifests and messages."""
    out = ""
    for part in path:
        if part == EACH or isinstance(part, int):
            out += "[]" if part == EACH else f"[{part}]"
        elif re.fullmatch(r"[A-Za-z0-9_-]+", part):
            out += f".{part}" if out else part
        else:
            out += f"[{part}]"
    return out


def read(obj: Any, path: Sequence[str | int], default: Any = None) -> Any:
    """The value at ``path``; ``default`` where any part is missing or null."""
    for name in path:
        if isinstance(name, int):
            obj = obj[name] if isinstance(obj, list) and name < len(obj) else None
        else:
            obj = obj.get(name) if isinstance(obj, dict) else None
        if obj is None:
            return default
    return obj


def every(obj: Any, path: Path) -> Iterator[Any]:
    """All values at a path with :data:`EACH`; nothing where a part is missing."""
    for at, name in enumerate(path):
        if name == EACH:
            items = obj.values() if isinstance(obj, dict) else obj if isinstance(obj, list) else ()
            for item in items:
                yield from every(item, path[at + 1 :])
            return
        obj = obj.get(name) if isinstance(obj, dict) else None
        if obj is None:
            return
    yield obj


def put(obj: Any, place: Place, value: Any) -> None:
    """Set the value at ``place``; maps on the way are made, lists must be there."""
    for name in place[:-1]:
        if isinstance(name, int):
            obj = obj[name]
            continue
        child = obj.get(name)
        if not isinstance(child, dict | list):
            child = obj[name] = {}
        obj = child
    obj[place[-1]] = value


def number(value: Any) -> int | None:
    """A whole number, also when it is written as text (labels and annotations are)."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,9}", value):
        return int(value)
    return None
