"""YAML as Kubernetes reads it, from people who may not mean well.

The fast parser composes a document by recursion in C: a body of nested brackets would end the whole process, and
aliases of aliases (``&a [*b, *b]``) can name a terabyte in a kilobyte. Both are refused before anything is built.
"""

from __future__ import annotations

import math
import re
from typing import Any, ClassVar

import yaml

#: Collections within collections: no more than the JSON encoder writes.
MAX_DEPTH = 250
#: What a document may hold once its aliases are written out: nodes and characters. No body without aliases has more.
MAX_WEIGHT = 8 * 1024 * 1024


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Plain words mean what they mean to Go's decoder. Keys are text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:
        return {_key(key): value for key, value in super().construct_mapping(node, deep=deep).items()}


def _key(key: Any) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    return "null" if key is None else str(key)


def _words(*lower: str) -> str:
    """``yes`` as ``yes``, ``Yes`` or ``YES``."""
    return "|".join(form for word in lower for form in dict.fromkeys((word, word.capitalize(), word.upper())))


_TAG = "tag:yaml.org,2002:"
_TRUE, _FALSE = _words("y", "yes", "true", "on"), _words("n", "no", "false", "off")
_INT = re.compile(r"[-+]?(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NO_NUMBER = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_BASES = {"x": 16, "b": 2, "o": 8}


def _integer(text: str) -> int | None:
    """What 64 bits hold, signed or not."""
    if len(text) > 70 or not _INT.fullmatch(text):
        return None
    sign, digits = (-1 if text[0] == "-" else 1), text.lstrip("+-").lower()
    if digits[0] == "0" and len(digits) > 1:
        base = _BASES.get(digits[1], 8)
        value = sign * int(digits[2:] if digits[1] in _BASES else digits[1:], base)
    else:
        value = sign * int(digits)
    return value if -(2**63) <= value < (2**64 if text[0] not in "+-" else 2**63) else None


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | float | str:
    """A number as Go's decoder reads it and JSON writes it: whole ones without a point; text if it is too big."""
    plain = str(node.value).replace("_", "")
    if (whole := _integer(plain)) is not None:
        return whole
    if _NO_NUMBER.fullmatch(plain):
        raise yaml.YAMLError(f"json: unsupported value: {plain}")
    if not _FLOAT.fullmatch(plain):
        raise yaml.YAMLError(f"cannot decode `{plain[:100]}` as a number")
    value = float(plain)
    if math.isinf(value):
        return str(node.value)
    return int(value) if value.is_integer() and abs(value) < 1e21 else value


def _boolean(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> bool:
    if re.fullmatch(f"{_TRUE}|{_FALSE}", node.value) is None:
        raise yaml.YAMLError(f"cannot decode `{node.value[:100]}` as a !!bool")
    return re.fullmatch(_TRUE, node.value) is not None


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """What plain words mean to Go's decoder (YAML 1.1 without numbers of base 60 and without timestamps)."""
    # Underscores may stand anywhere in a number.
    number = re.compile(
        r"[-+]?(0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|(\.[0-9_]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?)$"
        rf"|({_NO_NUMBER.pattern})$"
    )
    words = (
        (_TAG + "bool", re.compile(f"({_TRUE}|{_FALSE})$"), "yYnNtTfFoO"),
        (_TAG + "null", re.compile(f"(~|{_words('null')}|)$"), ["~", "n", "N", ""]),
        (_TAG + "int", number, "+-.0123456789"),
        (_TAG + "merge", re.compile("<<$"), "<"),
    )
    found: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for tag, pattern, firsts in words:
        for first in firsts:
            found.setdefault(first, []).append((tag, pattern))
    return found


_Loader.yaml_implicit_resolvers = _resolvers()


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Quotes what is a word of its own for Go's decoder or for Python's."""

    yaml_implicit_resolvers: ClassVar = {
        first: [*_resolvers().get(first, ()), *yaml.SafeDumper.yaml_implicit_resolvers.get(first, ())]
        for first in {**_resolvers(), **yaml.SafeDumper.yaml_implicit_resolvers}
    }


# What JSON has no words for is refused, as any other unknown tag.
_Loader.yaml_constructors = {
    tag: constructor
    for tag, constructor in _Loader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] not in ("binary", "set", "omap", "pairs", "timestamp")
} | {_TAG + "int": _number, _TAG + "float": _number, _TAG + "bool": _boolean}


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


def dump(value: Any) -> bytes:
    """JSON-able ``value`` as one YAML document."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=True, default_flow_style=False, allow_unicode=True).encode()


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
