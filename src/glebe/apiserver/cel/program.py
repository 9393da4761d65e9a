"""Checked tree -> closures that count what they do.

Every closure takes the frame: a list whose first element is the budget and whose others are variables.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

from glebe.apiserver.cel.budget import Budget, EvalError, OutOfBudget
from glebe.apiserver.cel.checker import Checked
from glebe.apiserver.cel.operators import BINARY, UNARY, index, optional_index
from glebe.apiserver.cel.registry import dispatcher
from glebe.apiserver.cel.syntax import (
    Call,
    Ident,
    ListLiteral,
    Literal,
    Macro,
    MapLiteral,
    Node,
    Select,
    StructLiteral,
)
from glebe.apiserver.cel.types import Type
from glebe.apiserver.cel.values import (
    NONE,
    Lazy,
    Optional,
    StructValue,
    TypeValue,
    equal,
    key_of,
    no_overload,
    parse_duration,
    parse_timestamp,
    type_name,
)

Frame = list[Any]
Step = Callable[[Frame], Any]

_TYPE_VALUES = {"Timestamp": "google.protobuf.Timestamp", "Duration": "google.protobuf.Duration"}


def _from_raw(kind: Type) -> Callable[[Any], Any] | None:
    """What turns a JSON value into CEL's where the schema says more than JSON can; leaves CEL's own as they are."""
    return _CONVERTERS.get(kind.kind)


def _bytes(value: Any) -> Any:
    if type(value) is not str:
        return value
    try:
        return base64.b64decode(value)
    except ValueError:
        raise EvalError("invalid base64") from None


_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "double": lambda v: float(v) if type(v) is int else v,
    "timestamp": lambda v: _time(v) if type(v) is str else v,
    "duration": lambda v: parse_duration(v) if type(v) is str else v,
    "bytes": _bytes,
}


def _time(text: str) -> Any:
    return parse_timestamp(text if len(text) > 10 else f"{text}T00:00:00Z")


def fetch(value: Any, name: str, budget: Budget) -> Any:
    """``value.name``."""
    if isinstance(value, dict):
        try:
            return value[name]
        except KeyError:
            raise EvalError(f"no such key: {name}") from None
    if isinstance(value, Lazy):
        return value.get_field(name, budget)
    if type(value) is Optional:
        return optional_fetch(value, name, budget)
    raise EvalError(f"type '{type_name(value)}' does not support field selection")


def optional_fetch(value: Any, name: str, budget: Budget) -> Optional:
    """``value.?name``."""
    if type(value) is Optional:
        return optional_fetch(value.value, name, budget) if value.present else value
    if isinstance(value, dict):
        return Optional(True, value[name]) if name in value else NONE
    if isinstance(value, Lazy):
        return Optional(True, value.get_field(name, budget))
    raise EvalError(f"type '{type_name(value)}' does not support field selection")


class Compiler:
    """Compiles one checked tree.

    :param slots: variable -> its place in the frame; places of macros' variables are added.
    :param raw: values are JSON under a schema, to be converted as their static types say.
    """

    def __init__(self, checked: Checked, slots: dict[str, int], raw: bool) -> None:
        self._checked = checked
        self._slots = dict(slots)
        self._raw = raw
        self.size = len(slots) + 1

    def compile(self, node: Node) -> Step:
        return _MAKERS[type(node)](self, node)

    # -- leaves --------------------------------------------------------------------------------------------------

    def _literal(self, node: Literal) -> Step:
        value = node.value
        return lambda frame: value

    def _ident(self, node: Ident) -> Step:
        if id(node) in self._checked.names:
            value = TypeValue(node.name)
            return lambda frame: value
        slot = self._slots[node.name]

        def run(frame: Frame) -> Any:
            budget = frame[0]
            budget.left -= 1
            if budget.left < 0:
                raise OutOfBudget
            return frame[slot]

        return run

    def _select(self, node: Select) -> Step:
        if (name := self._checked.names.get(id(node))) is not None:
            value = TypeValue(name)
            return lambda frame: value
        operand = self.compile(node.operand)
        key = self._checked.keys.get(id(node), node.field)
        typed = id(node) in self._checked.keys and self._raw
        if node.test:
            return _presence(operand, key, typed)
        if node.optional:
            return _charged(lambda frame: optional_fetch(operand(frame), key, frame[0]))
        kind = self._checked.type_of(node)
        convert = _from_raw(kind) if self._raw else None

        def run(frame: Frame) -> Any:
            budget = frame[0]
            budget.left -= 1
            if budget.left < 0:
                raise OutOfBudget
            value = operand(frame)
            if type(value) is dict:
                try:
                    value = value[key]
                except KeyError:
                    raise EvalError(f"no such key: {key}") from None
            else:
                value = fetch(value, key, budget)
            return value if convert is None else convert(value)

        return run

    # -- literals ------------------------------------------------------------------------------------------------

    def _list(self, node: ListLiteral) -> Step:
        items = [(self.compile(item), i in node.optional) for i, item in enumerate(node.items)]

        def run(frame: Frame) -> list[Any]:
            frame[0].spend(10 + len(items))
            out = []
            for item, optional in items:
                value = item(frame)
                if not optional:
                    out.append(value)
                elif type(value) is not Optional:
                    raise no_overload("optional element")
                elif value.present:
                    out.append(value.value)
            return out

        return run

    def _map(self, node: MapLiteral) -> Step:
        entries = [(self.compile(key), self.compile(value), optional) for key, value, optional in node.entries]

        def run(frame: Frame) -> dict[Any, Any]:
            frame[0].spend(30 + len(entries))
            out: dict[Any, Any] = {}
            for key_step, value_step, optional in entries:
                key, value = key_of(key_step(frame)), value_step(frame)
                if optional:
                    if type(value) is not Optional:
                        raise no_overload("optional entry")
                    if not value.present:
                        continue
                    value = value.value
                if key in out:
                    raise EvalError(f"Failed with repeated key {key}")
                out[key] = value
            return out

        return run

    def _struct(self, node: StructLiteral) -> Step:
        name = node.name
        fields = [(field, self.compile(value), optional) for field, value, optional, _ in node.entries]

        def run(frame: Frame) -> StructValue:
            frame[0].spend(40)
            out: dict[str, Any] = {}
            for field, step, optional in fields:
                value = step(frame)
                if optional:
                    if type(value) is not Optional:
                        raise no_overload("optional field")
                    if not value.present:
                        continue
                    value = value.value
                out[field] = value
            return StructValue(name, out)

        return run

    # -- calls ---------------------------------------------------------------------------------------------------

    def _call(self, node: Call) -> Step:
        special = _SPECIAL.get(node.name)
        if special is not None:
            return special([self.compile(arg) for arg in node.args])
        args = [self.compile(arg) for arg in node.args]
        if node.name in BINARY:
            return self._binary(node, args)
        if node.name in UNARY:
            return _apply(UNARY[node.name][0], args)
        if id(node) not in self._checked.names and node.target is not None:
            args.insert(0, self.compile(node.target))
        if node.name in ("orValue", "or") and node.target is not None:
            return _or_value(args[0], args[1], node.name == "orValue")
        return _apply(dispatcher(node.name, self._checked.overloads[id(node)]), args)

    def _binary(self, node: Call, args: list[Step]) -> Step:
        name = node.name
        if name in ("_[_]", "_[?_]"):
            convert = _from_raw(self._checked.type_of(node)) if self._raw else None
            chosen = index if name == "_[_]" else optional_index
            step = _apply(chosen, args)
            return step if convert is None else (lambda frame: convert(step(frame)))
        flavor = self._checked.type_of(node.args[0]).flavor
        if flavor and name in _FLAVORED:
            return _apply(_FLAVORED[name](flavor), args)
        return _apply(BINARY[name][0], args)

    # -- macros --------------------------------------------------------------------------------------------------

    def _macro(self, node: Macro) -> Step:
        operand = self.compile(node.operand)
        held = {name: self._slots.get(name) for name in node.names}
        places: list[int] = []
        for name in node.names:
            self._slots[name] = self.size
            places.append(self.size)
            self.size += 1
        args = [self.compile(arg) for arg in node.args]
        for name, slot in held.items():
            if slot is None:
                del self._slots[name]
            else:
                self._slots[name] = slot
        if node.kind in ("optMap", "optFlatMap"):
            return _opt_map(operand, places[0], args[0], node.kind == "optMap")
        over = self._checked.type_of(node.operand)
        convert = _from_raw(over.params[0]) if self._raw and over.kind == "list" and over.params else None
        return _COMPREHENSIONS[node.kind](_iteration(operand, places, convert), places, args)


def _charged(step: Step) -> Step:
    def run(frame: Frame) -> Any:
        frame[0].spend(1)
        return step(frame)

    return run


def _presence(operand: Step, key: str, typed: bool) -> Step:
    def run(frame: Frame) -> bool:
        frame[0].spend(1)
        value = operand(frame)
        if type(value) is Optional:
            if not value.present:
                return False
            value = value.value
        if isinstance(value, dict):
            return key in value and not (typed and value[key] is None)
        if isinstance(value, Lazy):
            return True
        raise EvalError(f"type '{type_name(value)}' does not support field selection")

    return run


def _apply(function: Callable[..., Any], args: list[Step]) -> Step:
    """Call ``function(budget, ...)`` with the arguments' values."""
    if len(args) == 1:
        (only,) = args

        def one(frame: Frame) -> Any:
            budget = frame[0]
            budget.left -= 1
            if budget.left < 0:
                raise OutOfBudget
            return function(budget, only(frame))

        return one
    if len(args) == 2:
        first, second = args

        def two(frame: Frame) -> Any:
            budget = frame[0]
            budget.left -= 1
            if budget.left < 0:
                raise OutOfBudget
            return function(budget, first(frame), second(frame))

        return two

    def many(frame: Frame) -> Any:
        frame[0].spend(1)
        return function(frame[0], *[arg(frame) for arg in args])

    return many


def _junction(absorbing: bool) -> Callable[[list[Step]], Step]:
    """``&&`` and ``||``: an error counts only if no other argument decides."""

    def make(args: list[Step]) -> Step:
        def run(frame: Frame) -> bool:
            error: EvalError | None = None
            for arg in args:
                try:
                    value = arg(frame)
                except EvalError as caught:
                    error = error or caught
                    continue
                if type(value) is not bool:
                    error = error or no_overload()
                elif value is absorbing:
                    return absorbing
            if error is not None:
                raise error
            return not absorbing

        return run

    return make


def _negation(args: list[Step]) -> Step:
    (only,) = args

    def run(frame: Frame) -> bool:
        frame[0].spend(1)
        value = only(frame)
        if type(value) is not bool:
            raise no_overload(f"!_ applied to ({type_name(value)})")
        return not value

    return run


def _choice(args: list[Step]) -> Step:
    condition, yes, no = args

    def run(frame: Frame) -> Any:
        value = condition(frame)
        if type(value) is not bool:
            raise no_overload()
        return yes(frame) if value else no(frame)

    return run


def _or_value(optional: Step, other: Step, unwrap: bool) -> Step:
    def run(frame: Frame) -> Any:
        frame[0].spend(1)
        value = optional(frame)
        if type(value) is not Optional:
            raise no_overload("orValue" if unwrap else "or")
        if value.present:
            return value.value if unwrap else value
        return other(frame)

    return run


def _opt_map(operand: Step, place: int, body: Step, wrap: bool) -> Step:
    def run(frame: Frame) -> Any:
        frame[0].spend(1)
        value = operand(frame)
        if type(value) is not Optional:
            raise no_overload("optMap")
        if not value.present:
            return value
        frame[place] = value.value
        result = body(frame)
        if wrap:
            return Optional(True, result)
        if type(result) is not Optional:
            raise no_overload("optFlatMap")
        return result

    return run


_SPECIAL: dict[str, Callable[[list[Step]], Step]] = {
    "_&&_": _junction(False),
    "_||_": _junction(True),
    "!_": _negation,
    "_?_:_": _choice,
}


# --------------------------------------------------------------------------------------------------- comprehensions


def _iteration(
    operand: Step, places: list[int], convert: Callable[[Any], Any] | None
) -> Callable[[Frame], Iterator[None]]:
    """Goes over the range with the variables in their places, at the cost of one step each."""
    first = places[0]
    second = places[1] if len(places) == 2 else 0

    def run(frame: Frame) -> Iterator[None]:
        over = operand(frame)
        budget = frame[0]
        if type(over) is list:
            for position, item in enumerate(over):
                budget.left -= 1
                if budget.left < 0:
                    raise OutOfBudget
                value = item if convert is None else convert(item)
                if second:
                    frame[first], frame[second] = position, value
                else:
                    frame[first] = value
                yield
        elif isinstance(over, dict):
            for key, value in list(over.items()):
                budget.spend(1)
                frame[first] = key
                if second:
                    frame[second] = value
                yield
        else:
            raise no_overload("comprehension range")

    return run


_Over = Callable[[Frame], Iterator[None]]


def _quantifier(absorbing: bool) -> Callable[[_Over, list[int], list[Step]], Step]:
    def make(over: _Over, places: list[int], args: list[Step]) -> Step:
        (body,) = args

        def run(frame: Frame) -> bool:
            error: EvalError | None = None
            for _ in over(frame):
                try:
                    value = body(frame)
                except EvalError as caught:
                    error = error or caught
                    continue
                if type(value) is not bool:
                    error = error or no_overload()
                elif value is absorbing:
                    return absorbing
            if error is not None:
                raise error
            return not absorbing

        return run

    return make


def _exists_one(over: _Over, places: list[int], args: list[Step]) -> Step:
    (body,) = args
    return lambda frame: sum(_truth(body(frame)) for _ in over(frame)) == 1


def _truth(value: Any) -> bool:
    if type(value) is not bool:
        raise no_overload()
    return value


def _filter(over: _Over, places: list[int], args: list[Step]) -> Step:
    (body,) = args
    place = places[0]

    def run(frame: Frame) -> list[Any]:
        frame[0].spend(10)
        return [frame[place] for _ in over(frame) if _truth(body(frame))]

    return run


def _transform_list(over: _Over, places: list[int], args: list[Step]) -> Step:
    body = args[-1]
    guard = args[0] if len(args) == 2 else None

    def run(frame: Frame) -> list[Any]:
        frame[0].spend(10)
        return [body(frame) for _ in over(frame) if guard is None or _truth(guard(frame))]

    return run


def _transform_map(over: _Over, places: list[int], args: list[Step]) -> Step:
    body = args[-1]
    guard = args[0] if len(args) == 2 else None
    place = places[0]

    def run(frame: Frame) -> dict[Any, Any]:
        frame[0].spend(30)
        out: dict[Any, Any] = {}
        for _ in over(frame):
            if guard is None or _truth(guard(frame)):
                out[frame[place]] = body(frame)
        return out

    return run


def _transform_entry(over: _Over, places: list[int], args: list[Step]) -> Step:
    body = args[-1]
    guard = args[0] if len(args) == 2 else None

    def run(frame: Frame) -> dict[Any, Any]:
        frame[0].spend(30)
        out: dict[Any, Any] = {}
        for _ in over(frame):
            if guard is not None and not _truth(guard(frame)):
                continue
            entry = body(frame)
            if not isinstance(entry, dict):
                raise no_overload("transformMapEntry")
            for key, value in entry.items():
                frame[0].spend(1)
                if key in out:
                    raise EvalError(f"insert failed: key {key} already exists")
                out[key] = value
        return out

    return run


_COMPREHENSIONS: dict[str, Callable[[_Over, list[int], list[Step]], Step]] = {
    "all": _quantifier(False),
    "exists": _quantifier(True),
    "exists_one": _exists_one,
    "filter": _filter,
    "map": _transform_list,
    "transformList": _transform_list,
    "transformMap": _transform_map,
    "transformMapEntry": _transform_entry,
}


# ------------------------------------------------------------------------------------- lists that schemas call set, map


def _identity(flavor: tuple[str, ...]) -> Callable[[Any], Any]:
    keys = flavor[1:]
    if flavor[0] == "set":
        return lambda item: item
    return lambda item: [item.get(key) for key in keys] if isinstance(item, dict) else item


def _flavored_equal(flavor: tuple[str, ...]) -> Callable[[Budget, Any, Any], bool]:
    """Order does not count."""

    def run(budget: Budget, a: Any, b: Any) -> bool:
        if type(a) is not list or type(b) is not list or len(a) != len(b):
            return False
        for item in a:
            budget.spend(1 + len(b))
            if not any(equal(item, other, budget) for other in b):
                return False
        return True

    return run


def _flavored_add(flavor: tuple[str, ...]) -> Callable[[Budget, Any, Any], list[Any]]:
    """Items of the right side replace those of the left with the same identity, in their place."""
    identity = _identity(flavor)

    def run(budget: Budget, a: Any, b: Any) -> list[Any]:
        if type(a) is not list or type(b) is not list:
            raise no_overload("_+_")
        out = list(a)
        for item in b:
            budget.spend(1 + len(out))
            mine = identity(item)
            same = next((i for i, other in enumerate(out) if equal(identity(other), mine, budget)), -1)
            if same < 0:
                out.append(item)
            else:
                out[same] = item
        return out

    return run


_FLAVORED: dict[str, Callable[[tuple[str, ...]], Callable[..., Any]]] = {
    "_==_": _flavored_equal,
    "_!=_": lambda flavor: lambda budget, a, b: not _flavored_equal(flavor)(budget, a, b),
    "_+_": _flavored_add,
}
_MAKERS: dict[type, Callable[[Compiler, Any], Step]] = {
    Literal: Compiler._literal,
    Ident: Compiler._ident,
    Select: Compiler._select,
    ListLiteral: Compiler._list,
    MapLiteral: Compiler._map,
    StructLiteral: Compiler._struct,
    Call: Compiler._call,
    Macro: Compiler._macro,
}
