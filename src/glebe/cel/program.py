"""Checked tree -> closures that count what they do.

Every closure takes the frame: a list whose first element is the budget and whose others are variables.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from glebe.cel import control
from glebe.cel.budget import Budget, EvalError, OutOfBudget
from glebe.cel.checker import Checked
from glebe.cel.comprehensions import COMPREHENSIONS, Frame, Step, iteration
from glebe.cel.keyedlists import FLAVORED
from glebe.cel.operators import BINARY, UNARY, index, optional_index
from glebe.cel.rawvalues import from_raw
from glebe.cel.registry import dispatcher
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
)
from glebe.cel.values import (
    NONE,
    Lazy,
    Optional,
    StructValue,
    TypeValue,
    key_of,
    no_overload,
    type_name,
)


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
        convert = from_raw(kind) if self._raw else None

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
        special = control.SPECIAL.get(node.name)
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
            return control.or_value(args[0], args[1], node.name == "orValue")
        return _apply(dispatcher(node.name, self._checked.overloads[id(node)]), args)

    def _binary(self, node: Call, args: list[Step]) -> Step:
        name = node.name
        if name in ("_[_]", "_[?_]"):
            convert = from_raw(self._checked.type_of(node)) if self._raw else None
            chosen = index if name == "_[_]" else optional_index
            step = _apply(chosen, args)
            return step if convert is None else (lambda frame: convert(step(frame)))
        flavor = self._checked.type_of(node.args[0]).flavor
        if flavor and name in FLAVORED:
            return _apply(FLAVORED[name](flavor), args)
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
            return control.opt_map(operand, places[0], args[0], node.kind == "optMap")
        if node.kind == "bind":
            return control.bound(operand, places[0], args[0])
        over = self._checked.type_of(node.operand)
        convert = from_raw(over.params[0]) if self._raw and over.kind == "list" and over.params else None
        return COMPREHENSIONS[node.kind](iteration(operand, places, convert), places, args)


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
