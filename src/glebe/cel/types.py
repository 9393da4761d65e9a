"""Static types. ``dyn`` goes with everything; what is not known until run time is checked there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol


class Struct(Protocol):
    """A type with named fields."""

    @property
    def name(self) -> str: ...
    def field(self, name: str) -> tuple[Type, str] | None:
        """(type, key under which the value is found) of a field by its name in CEL."""
        ...


@dataclass(frozen=True, slots=True)
class Type:
    """``kind`` is a simple type's name, or list, map, optional, type, object (with ``struct``), or param (A, B)."""

    kind: str
    params: tuple[Type, ...] = ()
    struct: Struct | None = None
    #: list types of schemas: set or map, with the keys; "" for lists that CEL makes
    flavor: tuple[str, ...] = ()
    #: how big values can be at most, for cost estimates: characters, items or entries; -1: unknown
    largest: int = -1

    def __str__(self) -> str:
        if self.kind == "object":
            return self.struct.name if self.struct is not None else "object"
        name = _SHOWN.get(self.kind, self.kind)
        return f"{name}({', '.join(map(str, self.params))})" if self.params else name


_SHOWN = {
    "free": "dyn",
    "timestamp": "timestamp",
    "null": "null",
    "optional": "optional_type",
    "quantity": "kubernetes.Quantity",
    "url": "kubernetes.URL",
    "ip": "net.IP",
    "cidr": "net.CIDR",
    "semver": "kubernetes.Semver",
    "format": "kubernetes.NamedFormat",
    "authorizer": "kubernetes.authorization.Authorizer",
    "pathcheck": "kubernetes.authorization.PathCheck",
    "groupcheck": "kubernetes.authorization.GroupCheck",
    "resourcecheck": "kubernetes.authorization.ResourceCheck",
    "decision": "kubernetes.authorization.Decision",
}
DYN, BOOL, INT, UINT, DOUBLE = Type("dyn"), Type("bool"), Type("int"), Type("uint"), Type("double")
STRING, BYTES, NULL, TIMESTAMP, DURATION = (
    Type("string"),
    Type("bytes"),
    Type("null"),
    Type("timestamp"),
    Type("duration"),
)
#: what the elements of ``[]`` are: anything that they meet
FREE = Type("free")


def list_of(item: Type) -> Type:
    return Type("list", (item,))


def map_of(key: Type, value: Type) -> Type:
    return Type("map", (key, value))


def optional_of(value: Type) -> Type:
    return Type("optional", (value,))


def type_of(value: Type) -> Type:
    return Type("type", (value,))


Bindings = dict[str, Type]


def resolve(kind: Type, bound: Bindings) -> Type:
    """``kind`` with its parameters filled in; free ones are dyn."""
    if kind.kind == "param":
        found = bound.get(kind.params[0].kind)
        return DYN if found is None else found
    if not kind.params:
        return kind
    return Type(kind.kind, tuple(resolve(p, bound) for p in kind.params), kind.struct, kind.flavor, kind.largest)


def assignable(wanted: Type, given: Type, bound: Bindings) -> bool:
    """May ``given`` stand where ``wanted`` is declared? Binds free parameters."""
    if wanted.kind == "param":
        name = wanted.params[0].kind
        held = bound.get(name)
        if held is None or held.kind in ("dyn", "free"):
            bound[name] = given
            return True
        if assignable(held, given, bound):
            if given.kind == "dyn" or held.kind == "null" or is_free(held):
                bound[name] = given
            return True
        return assignable(given, held, bound)
    if wanted.kind in _ANY or given.kind in _ANY:
        return True
    if wanted.kind == "null":
        return given.kind in ("null", "object", "timestamp", "duration", *_ABSTRACT)
    if given.kind == "null":
        return wanted.kind in ("object", "timestamp", "duration", *_ABSTRACT)
    if wanted.kind != given.kind:
        return False
    if wanted.kind == "object":
        return wanted.struct is given.struct or str(wanted) == str(given)
    if wanted.kind == "type":
        return True
    return len(wanted.params) == len(given.params) and all(
        assignable(w, g, bound) for w, g in zip(wanted.params, given.params, strict=True)
    )


_ABSTRACT = ("optional",)
_ANY = ("dyn", "free")


def is_free(kind: Type) -> bool:
    """Does it hold nothing yet that says what it is a list or map of?"""
    return kind.kind == "free" or any(map(is_free, kind.params))


def join(types: list[Type]) -> Type | None:
    """The one type of a literal's elements; None when they differ."""
    out: Type | None = None
    for each in types:
        if out is None or (out.kind == "dyn" and each.kind != "dyn"):
            out = each
        elif not assignable(out, each, {}):
            return None
        elif is_free(out):
            out = each
    return out


_WORD = re.compile(r"\s*([A-Za-z]+|[(),])")


def parse_type(text: str) -> Type:
    """``list(A)``, ``map(string, dyn)``, ``int`` ... as the libraries' tables write them."""
    words = list(_WORD.findall(text))
    at = 0

    def one() -> Type:
        nonlocal at
        word = words[at]
        at += 1
        params: list[Type] = []
        if at < len(words) and words[at] == "(":
            at += 1
            while words[at] != ")":
                params.append(one())
                if words[at] == ",":
                    at += 1
            at += 1
        if len(word) == 1:
            return Type("param", (Type(word),))
        return Type(word, tuple(params))

    return one()
