"""Fields that a JSON body names twice (a decoder keeps the last one and says nothing)."""

from __future__ import annotations

import json
from typing import Any

import orjson


class _Marked(dict[str, Any]):
    """An object with repeated names."""

    repeated: list[str]


def find(body: bytes, decoded: Any) -> list[str]:
    """Paths of the fields that ``body`` repeats. ``decoded`` is what the fast decoder made of it.

    Compact bodies (all that this platform's own client sends) are recognised by their length and cost nothing.
    """
    if len(orjson.dumps(decoded)) == len(body):
        return []
    found = False

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal found
        out = dict(pairs)
        if len(out) == len(pairs):
            return out
        found = True
        marked, seen = _Marked(out), set()
        marked.repeated = []
        for name, _ in pairs:
            if name in seen:
                marked.repeated.append(name)
            seen.add(name)
        return marked

    try:
        tree = json.loads(body, object_pairs_hook=build)
    except (ValueError, RecursionError):
        return []
    paths: list[str] = []
    if found:
        _walk(tree, "", paths)
    return paths


def _walk(node: Any, path: str, paths: list[str]) -> None:
    if isinstance(node, list):
        for i, item in enumerate(node):
            _walk(item, f"{path}[{i}]", paths)
    elif isinstance(node, dict):
        prefix = f"{path}." if path else ""
        if isinstance(node, _Marked):
            paths.extend(prefix + name for name in node.repeated)
        for name, value in node.items():
            _walk(value, prefix + name, paths)
