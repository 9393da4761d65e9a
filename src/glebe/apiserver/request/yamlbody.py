"""YAML as Kubernetes reads it, from people who may not mean well.

The fast parser composes a document by recursion in C: a body of nested brackets would end the whole process, and
aliases of aliases (``&a [*b, *b]``) can name a terabyte in a kilobyte. Both are refused before anything is built.
"""

from __future__ import annotations

from typing import Any

import yaml

#: Collections within collections: no more than the JSON encoder writes.
MAX_DEPTH = 250
#: What a document may hold once its aliases are written out: nodes and characters. No body without aliases has more.
MAX_WEIGHT = 8 * 1024 * 1024


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """No timestamps: dates stay text, as in JSON. Keys are text, too."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:
        return {_key(key): value for key, value in super().construct_mapping(node, deep=deep).items()}


def _key(key: Any) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    return "null" if key is None else str(key)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}
# What JSON has no words for is refused, as any other unknown tag.
_Loader.yaml_constructors = {
    tag: constructor
    for tag, constructor in _Loader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] not in ("binary", "set", "omap", "pairs", "timestamp")
}


def load(body: bytes) -> Any:
    """Decode one YAML document.

    :raises yaml.YAMLError: it is none, or too deep, or too big once its aliases are written out.
    """
    _check_depth(body)
    loader = _Loader(body)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _weight(node, {}) > MAX_WEIGHT:
            raise yaml.YAMLError("the document contains excessive aliasing")
        return loader.construct_document(node)
    finally:
        loader.dispose()


def repeated_keys(body: bytes) -> list[str]:
    """What a document repeats, in the words of Go's YAML decoder; [] for what is no document."""
    loader = _Loader(body)
    try:
        node = loader.get_single_node()
    except yaml.YAMLError:
        return []
    finally:
        loader.dispose()
    found: list[tuple[int, str]] = []
    seen: set[int] = set()
    todo = [node] if node is not None else []
    while todo:
        node = todo.pop()
        if id(node) in seen or isinstance(node, yaml.ScalarNode):
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            todo.extend(node.value)
            continue
        names: set[str] = set()
        for key, value in node.value:
            todo.append(value)
            if isinstance(key, yaml.ScalarNode):
                if key.value in names:
                    line = key.start_mark.line + 1
                    found.append((line, f'line {line}: key "{key.value}" already set in map'))
                names.add(key.value)
    return [text for _, text in sorted(found)]


def _check_depth(body: bytes) -> None:
    depth = 0
    for event in yaml.parse(body, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise yaml.YAMLError(f"the document is nested more than {MAX_DEPTH} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _weight(node: yaml.Node, known: dict[int, int]) -> int:
    """Nodes and characters below ``node``, each alias counted as what it stands for."""
    weight = known.get(id(node))
    if weight is not None:
        return weight
    if isinstance(node, yaml.ScalarNode):
        weight = 1 + len(node.value)
    else:
        known[id(node)] = MAX_WEIGHT + 1  # an alias to a collection from within itself has no end
        weight = 1
        for child in node.value:
            for part in child if isinstance(child, tuple) else (child,):
                weight += _weight(part, known)
    known[id(node)] = weight
    return weight
