"""The part of JSONPath that printer columns use: fields, indexes, ``[*]``, ``[?(@.type=="Ready")]``, ``..`` not."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

JsonPath = Callable[[Any], list[Any]]
_Step = Callable[[Any], list[Any]]

_TOKEN = re.compile(
    r"""\.?(?P<name>[A-Za-z_][\w\\./-]*?)(?=\.|\[|$)
      | \.?\[\s*'(?P<quoted>(?:[^'\\]|\\.)*)'\s*\]
      | \[\s*(?P<index>-?\d+)\s*\]
      | (?P<all>\[\*\]|\.\*)
      | \[\?\(\s*@\.(?P<key>[\w.\\/-]+)\s*(?P<op>==|!=)\s*(?P<value>"[^"]*"|'[^']*'|[\w.-]+)\s*\)\]
    """,
    re.VERBOSE,
)
_PLAIN = re.compile(r"\.?((?:[^.\[\\]|\\.)+)")


class PathError(ValueError):
    """The text is not a path that this subset understands."""


@lru_cache(maxsize=1024)
def compile_path(text: str) -> JsonPath:
    """A function that finds what ``text`` (``.spec.replicas``, ``{.a}``) names; [] when there is nothing.

    :raises PathError: for syntax outside the subset.
    """
    path = text.strip()
    if path.startswith("{") and path.endswith("}"):
        path = path[1:-1].strip()
    path = path.removeprefix("$")
    steps: list[_Step] = []
    position = 0
    while position < len(path):
        step, position = _next(path, position)
        if step is not None:
            steps.append(step)

    def find(value: Any) -> list[Any]:
        found = [value]
        for step in steps:
            found = [item for one in found for item in step(one)]
            if not found:
                return []
        return [item for item in found if item is not None]

    return find


def _next(path: str, position: int) -> tuple[_Step | None, int]:
    if path[position] == "[" or path.startswith(".[", position) or path.startswith(".*", position):
        match = _TOKEN.match(path, position)
        if match is None:
            raise PathError(f"unsupported path: {path[position:]}")
        if match["quoted"] is not None:
            return _field(re.sub(r"\\(.)", r"\1", match["quoted"])), match.end()
        if match["index"] is not None:
            return _index(int(match["index"])), match.end()
        if match["all"] is not None:
            return _every, match.end()
        return _filter(match["key"], match["op"] == "==", match["value"].strip("\"'")), match.end()
    if path[position:] == ".":
        return None, position + 1
    match = _PLAIN.match(path, position)
    if match is None:
        raise PathError(f"unsupported path: {path[position:]}")
    return _field(re.sub(r"\\(.)", r"\1", match[1])), match.end()


def _field(name: str) -> _Step:
    return lambda value: [value[name]] if type(value) is dict and name in value else []


def _index(index: int) -> _Step:
    return lambda value: [value[index]] if type(value) is list and -len(value) <= index < len(value) else []


def _every(value: Any) -> list[Any]:
    if type(value) is list:
        return list(value)
    return list(value.values()) if type(value) is dict else []


def _filter(key: str, equal: bool, wanted: str) -> _Step:
    inner = compile_path("." + key)

    def step(value: Any) -> list[Any]:
        if type(value) is not list:
            return []
        return [item for item in value if (_first_text(inner(item)) == wanted) is equal]

    return step


def _first_text(found: list[Any]) -> str | None:
    if not found:
        return None
    value = found[0]
    if type(value) is bool:
        return "true" if value else "false"
    return str(value)
