"""Types of every node, with cel-go's complaints about what cannot be right."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from glebe.cel import regex
from glebe.cel import types as t
from glebe.cel.budget import EvalError
from glebe.cel.operators import BINARY, UNARY
from glebe.cel.parser import qualified_name
from glebe.cel.registry import Library, Overload, standard
from glebe.cel.syntax import (
    Call,
    Ident,
    ListLiteral,
    Literal,
    Macro,
    MapLiteral,
    Node,
    Select,
    StructLiteral,
    UInt,
)
from glebe.cel.types import Type
from glebe.cel.values import parse_duration, parse_timestamp

StructFields = Callable[[str], "Callable[[str], Type | None] | None"]
"""Name in ``Name{...}`` -> (field -> its type, or None), or None for what is no type."""

_LITERALS: dict[type, Type] = {
    bool: t.BOOL,
    int: t.INT,
    UInt: t.UINT,
    float: t.DOUBLE,
    str: t.STRING,
    bytes: t.BYTES,
    type(None): t.NULL,
}
_TYPE_IDENTS = {
    name: t.type_of(Type(name))
    for name in ("bool", "int", "uint", "double", "string", "bytes", "list", "map", "type", "dyn")
} | {"null_type": t.type_of(t.NULL), "optional_type": t.type_of(Type("optional"))}
_CLAUSE = re.compile(r"%(?:\.\d+)?[a-zA-Z]")
_CHECKED_LITERALS = {"duration": parse_duration, "timestamp": parse_timestamp}


@dataclass(frozen=True, slots=True)
class Issue:
    at: int
    message: str


@dataclass(slots=True)
class Checked:
    """What is known about a tree; keys are identities of its nodes."""

    types: dict[int, Type] = field(default_factory=dict)
    overloads: dict[int, list[Overload]] = field(default_factory=dict)
    #: selections that name a type or a function's receiver as a whole (``sets`` in ``sets.contains``)
    names: dict[int, str] = field(default_factory=dict)
    #: selections on objects with a schema: the key to look up
    keys: dict[int, str] = field(default_factory=dict)
    issues: list[Issue] = field(default_factory=list)

    def type_of(self, node: Node) -> Type:
        return self.types.get(id(node), t.DYN)


@lru_cache(maxsize=512)
def _signature(text: str) -> tuple[tuple[Type, ...], Type]:
    head, _, result = text.partition("->")
    parts: list[str] = []
    depth, piece = 0, ""
    for char in head:
        if char == "," and not depth:
            parts.append(piece)
            piece = ""
            continue
        depth += (char == "(") - (char == ")")
        piece += char
    return tuple(t.parse_type(p) for p in (*parts, piece)), t.parse_type(result)


class Checker:
    """Checks one tree against the declared ``variables`` and struct types."""

    def __init__(self, variables: Mapping[str, Type], structs: StructFields | None = None) -> None:
        self._scopes: list[dict[str, Type]] = [dict(variables)]
        self._structs = structs
        self._library: Library = standard()
        self.out = Checked()

    def check(self, node: Node) -> Type:
        """The type of ``node``; complaints land in ``out.issues``."""
        kind: Type = _VISITORS[type(node)](self, node)
        self.out.types[id(node)] = kind
        return kind

    def _complain(self, at: int, message: str) -> Type:
        self.out.issues.append(Issue(at, message))
        return t.DYN

    def _lookup(self, name: str) -> Type | None:
        for scope in reversed(self._scopes):
            if name in scope:
                return scope[name]
        return None

    # -- leaves --------------------------------------------------------------------------------------------------

    def _literal(self, node: Literal) -> Type:
        return _LITERALS[type(node.value)]

    def _ident(self, node: Ident) -> Type:
        found = self._lookup(node.name)
        if found is not None:
            return found
        if node.name in _TYPE_IDENTS:
            self.out.names[id(node)] = node.name
            return _TYPE_IDENTS[node.name]
        return self._complain(node.at, f"undeclared reference to '{node.name}' (in container '')")

    def _select(self, node: Select) -> Type:
        whole = qualified_name(node)
        if whole.startswith("google.protobuf.") and self._lookup("google") is None:
            self.out.names[id(node)] = whole
            return t.type_of(Type(whole.rpartition(".")[2].lower()))
        operand = self.check(node.operand)
        wrapped = operand.kind == "optional"
        inner = operand.params[0] if wrapped and operand.params else (t.DYN if wrapped else operand)
        result = self._field(node, inner)
        if node.test:
            return t.BOOL
        return t.optional_of(result) if (wrapped or node.optional) and result.kind != "optional" else result

    def _field(self, node: Select, operand: Type) -> Type:
        if operand.kind in ("dyn", "free", "param"):
            return t.DYN
        if operand.kind == "map":
            return operand.params[1] if operand.params else t.DYN
        if operand.kind == "object" and operand.struct is not None:
            found = operand.struct.field(node.field)
            if found is None:
                return self._complain(node.at, f"undefined field '{node.field}'")
            kind, self.out.keys[id(node)] = found
            return kind
        return self._complain(node.at, f"type '{operand}' does not support field selection")

    # -- literals ------------------------------------------------------------------------------------------------

    def _same(self, nodes: list[Node], given: list[Type]) -> Type:
        """The type that all of a literal's elements have."""
        out = t.DYN
        for node, kind in zip(nodes, given, strict=True):
            both = t.join([out, kind])
            if both is None:
                self._complain(node.at, f"expected type '{out}' but found '{kind}'")
                return t.DYN
            out = both
        return out

    def _list(self, node: ListLiteral) -> Type:
        given = [self.check(item) for item in node.items]
        for index in node.optional:
            given[index] = given[index].params[0] if given[index].params else t.DYN
        return t.list_of(self._same(node.items, given) if given else t.FREE)

    def _map(self, node: MapLiteral) -> Type:
        keys = [self.check(key) for key, _, _ in node.entries]
        values = [self.check(value) for _, value, _ in node.entries]
        for index, (_, _, optional) in enumerate(node.entries):
            if optional:
                values[index] = values[index].params[0] if values[index].params else t.DYN
        if not keys:
            return t.map_of(t.FREE, t.FREE)
        return t.map_of(
            self._same([k for k, _, _ in node.entries], keys), self._same([v for _, v, _ in node.entries], values)
        )

    def _struct(self, node: StructLiteral) -> Type:
        fields = self._structs(node.name) if self._structs is not None else None
        if fields is None:
            for _, value, _, _ in node.entries:
                self.check(value)
            return self._complain(node.at, f"undeclared reference to '{node.name}' (in container '')")
        for name, value, optional, at in node.entries:
            given = self.check(value)
            if optional:
                given = given.params[0] if given.params else t.DYN
            wanted = fields(name)
            if wanted is None:
                self._complain(at, f"undefined field '{name}'")
            elif not t.assignable(wanted, given, {}):
                self._complain(at, f"expected type of field '{name}' is '{wanted}' but provided type is '{given}'")
        return Type("object", struct=NamedStruct(node.name))

    # -- calls ---------------------------------------------------------------------------------------------------

    def _call(self, node: Call) -> Type:
        if node.name == "_?_:_":
            return self._conditional(node)
        if node.name in ("_&&_", "_||_", "!_"):
            given = [self.check(arg) for arg in node.args]
            if any(not t.assignable(t.BOOL, kind, {}) for kind in given):
                return self._no_overload(node, given[:2])
            return t.BOOL
        operator = BINARY.get(node.name) or UNARY.get(node.name)
        if operator is not None:
            return self._operator(node, operator[1])
        return self._function(node)

    def _conditional(self, node: Call) -> Type:
        condition, yes, no = (self.check(arg) for arg in node.args)
        if not t.assignable(t.BOOL, condition, {}):
            return self._no_overload(node, [condition, yes, no])
        both = t.join([yes, no])
        return self._no_overload(node, [condition, yes, no]) if both is None else both

    def _operator(self, node: Call, signatures: tuple[str, ...]) -> Type:
        given = [self.check(arg) for arg in node.args]
        if node.name in ("_[_]", "_[?_]") and given[0].kind == "object" and given[0].struct is not None:
            return self._keyed(node, given[0])
        return self._choose(node, given, [_signature(text) for text in signatures])

    def _keyed(self, node: Call, operand: Type) -> Type:
        """``self["name"]`` on an object with a schema is not CEL's; upstream refuses it."""
        return self._no_overload(node, [operand, self.out.type_of(node.args[1])])

    def _choose(self, node: Call, given: list[Type], ways: list[tuple[tuple[Type, ...], Type]]) -> Type:
        """The result of the overloads that fit; dyn when they differ."""
        results: list[Type] = []
        for wanted, result in ways:
            bound: t.Bindings = {}
            if len(wanted) == len(given) and all(t.assignable(w, g, bound) for w, g in zip(wanted, given, strict=True)):
                results.append(t.resolve(result, bound))
        if not results:
            return self._no_overload(node, given)
        first = results[0]
        return first if all(str(r) == str(first) for r in results) else t.DYN

    def _function(self, node: Call) -> Type:
        overloads = self._namespaced(node)
        given: list[Type] = []
        if overloads is None and node.target is not None:
            given.append(self.check(node.target))
        if node.name == "format" and given and len(node.args) == 1 and type(node.args[0]) is ListLiteral:
            given.append(self._format_list(node, node.args[0]))  # may hold anything
        else:
            given += [self.check(arg) for arg in node.args]
        if overloads is None:
            if not self._library.knows(node.name):
                return self._complain(node.at, f"undeclared reference to '{node.name}' (in container '')")
            overloads = self._library.overloads(node.name, node.target is not None, len(given))
        if not overloads:
            return self._no_overload(node, given)
        self.out.overloads[id(node)] = overloads
        self._check_literals(node)
        return self._choose(node, given, [(o.args, o.result) for o in overloads])

    def _format_list(self, node: Call, args: ListLiteral) -> Type:
        for item in args.items:
            self.check(item)
        if type(node.target) is Literal and type(node.target.value) is str and not args.optional:
            expected = len(_CLAUSE.findall(node.target.value.replace("%%", "")))
            if len(args.items) > expected:
                counts = f"(expected {expected}, got {len(args.items)})"
                self._complain(args.at, f"too many arguments supplied to string.format {counts}")
        self.out.types[id(args)] = t.list_of(t.DYN)
        return t.list_of(t.DYN)

    def _namespaced(self, node: Call) -> list[Overload] | None:
        """``sets.contains(...)`` is a function with a dotted name unless ``sets`` is a variable."""
        whole = qualified_name(node.target) if node.target is not None else ""
        if not whole or self._lookup(whole.partition(".")[0]) is not None:
            return None
        name = f"{whole}.{node.name}"
        if not self._library.knows(name):
            return None
        self.out.names[id(node)] = name
        return self._library.overloads(name, False, len(node.args))

    def _check_literals(self, node: Call) -> None:
        """Patterns, durations and times that stand in the text are checked with it."""
        last = node.args[0] if node.args and node.name in ("matches", "find", "findAll") else None
        if node.name == "matches" and node.target is None and len(node.args) == 2:
            last = node.args[1]
        if type(last) is Literal and type(last.value) is str:
            try:
                regex.compile(last.value)
            except regex.BadPattern:
                self._complain(last.at, f"invalid {node.name} argument")
        parse = _CHECKED_LITERALS.get(node.name) if node.target is None else None
        first = node.args[0] if node.args else None
        if parse is not None and type(first) is Literal and type(first.value) is str:
            try:
                parse(first.value)
            except EvalError:
                self._complain(first.at, f"invalid {node.name} argument")

    def _no_overload(self, node: Call, given: list[Type]) -> Type:
        if node.target is not None and id(node) not in self.out.names:
            shown = f"'{given[0]}.({', '.join(map(str, given[1:]))})'"
        else:
            shown = f"'({', '.join(map(str, given))})'"
        name = self.out.names.get(id(node), node.name)
        return self._complain(node.at, f"found no matching overload for '{name}' applied to {shown}")

    # -- macros --------------------------------------------------------------------------------------------------

    def _macro(self, node: Macro) -> Type:
        over = self.check(node.operand)
        if node.kind in ("optMap", "optFlatMap"):
            return self._opt_map(node, over)
        if node.kind == "bind":
            self._scopes.append({node.names[0]: over})
            result = self.check(node.args[0])
            self._scopes.pop()
            return result
        kinds = self._elements(node, over)
        self._scopes.append(dict(zip(node.names, kinds, strict=True)))
        given = [self.check(arg) for arg in node.args]
        self._scopes.pop()
        guards = given if node.kind in ("all", "exists", "exists_one", "filter") else given[:-1]
        for arg, kind in zip(node.args, guards, strict=False):
            if not t.assignable(t.BOOL, kind, {}):
                self._complain(arg.at, f"expected type 'bool' but found '{kind}'")
        return self._macro_result(node, over, given)

    def _macro_result(self, node: Macro, over: Type, given: list[Type]) -> Type:
        if node.kind in ("all", "exists", "exists_one"):
            return t.BOOL
        if node.kind == "filter":
            if over.kind == "map":
                return t.list_of(over.params[0] if over.params else t.DYN)
            return t.list_of(over.params[0]) if over.kind == "list" and over.params else t.list_of(t.DYN)
        if node.kind in ("map", "transformList"):
            return t.list_of(given[-1])
        key = over.params[0] if over.kind == "map" and over.params else (t.INT if over.kind == "list" else t.DYN)
        if node.kind == "transformMap":
            return t.map_of(key, given[-1])
        return given[-1] if given[-1].kind == "map" else t.map_of(t.DYN, t.DYN)

    def _elements(self, node: Macro, over: Type) -> tuple[Type, ...]:
        """The types of the macro's variables."""
        double = len(node.names) == 2
        if over.kind in ("dyn", "free", "param"):
            return (t.DYN,) * len(node.names)
        if over.kind == "list":
            item = over.params[0] if over.params else t.DYN
            return (t.INT, item) if double else (item,)
        if over.kind == "map":
            key, value = over.params if over.params else (t.DYN, t.DYN)
            return (key, value) if double else (key,)
        self._complain(
            node.operand.at,
            f"expression of type '{over}' cannot be range of a comprehension (must be list, map, or dynamic)",
        )
        return (t.DYN,) * len(node.names)

    def _opt_map(self, node: Macro, over: Type) -> Type:
        if over.kind not in ("optional", "dyn", "free"):
            return self._complain(
                node.at, f"found no matching overload for '{node.kind}' applied to '{over}.(dyn, dyn)'"
            )
        self._scopes.append({node.names[0]: over.params[0] if over.params else t.DYN})
        result = self.check(node.args[0])
        self._scopes.pop()
        return t.optional_of(result) if node.kind == "optMap" else result


class NamedStruct:
    """A type that is only a name: what ``Name{...}`` makes; its fields are read as dyn."""

    def __init__(self, name: str) -> None:
        self.name = name

    def field(self, name: str) -> tuple[Type, str] | None:
        return t.DYN, name


_VISITORS: dict[type, Callable[[Checker, Any], Type]] = {
    Literal: Checker._literal,
    Ident: Checker._ident,
    Select: Checker._select,
    ListLiteral: Checker._list,
    MapLiteral: Checker._map,
    StructLiteral: Checker._struct,
    Call: Checker._call,
    Macro: Checker._macro,
}
