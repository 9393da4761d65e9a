"""Which fields a built-in kind's message has: ``fields.json``, read on first use and parsed message by message.

``tools/gen_protobuf.py`` writes that file and says what its entries mean.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources as package_files
from typing import Any

import orjson

SCALARS = frozenset({"string", "int32", "int64", "bool", "double", "bytes"})
OMIT_EMPTY, IF_PRESENT, ALWAYS, OR_NULL = "=", "?", "!", "~"

_ENTRY = re.compile(r"([^=?!~]*)([=?!~])(\d+)(\[\]|\{\})?(.+)")


@dataclass(frozen=True, slots=True)
class Field:
    """One field: ``name`` in JSON ("" for one whose own fields stand in the parent).

    ``shape`` is "" for one value, ``[]`` for a list, ``{}`` for a map with string keys. ``type`` is a scalar or a
    message's full name. ``flag`` says what JSON has when there is nothing on the wire.
    """

    name: str
    flag: str
    number: int
    shape: str
    type: str


@cache
def _data() -> dict[str, Any]:
    raw = (package_files.files("glebe.apiserver.protobuf") / "fields.json").read_bytes()
    loaded: dict[str, Any] = orjson.loads(raw)
    return loaded


def kinds() -> dict[str, str]:
    """``GROUP/VERSION/KIND`` -> the full name of its message."""
    found: dict[str, str] = _data()["kinds"]
    return found


def names() -> list[str]:
    """The full names of all messages that ``fields`` knows."""
    return [f"{package}.{short}" for package, messages in _data()["messages"].items() for short in messages]


@cache
def names_set() -> frozenset[str]:
    """:func:`names`, to look in."""
    return frozenset(names())


@cache
def fields(name: str) -> dict[int, Field]:
    """Number -> field of a message by its full name, e.g. ``io.k8s.api.core.v1.PodSpec``."""
    package, _, short = name.rpartition(".")
    found = {}
    for entry in _data()["messages"][package][short].split():
        match = _ENTRY.fullmatch(entry)
        assert match is not None, entry
        field, flag, number, shape, kind = match.groups()
        if kind not in SCALARS and "." not in kind:
            kind = f"{package}.{kind}"
        found[int(number)] = Field(field, flag, int(number), shape or "", kind)
    return found
