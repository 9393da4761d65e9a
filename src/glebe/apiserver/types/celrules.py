"""CEL rules of custom resources (``x-kubernetes-validations``): held against objects, and checked in definitions.

The rules of a schema's node are compiled when the first object is held against them, and stay with the node, which all
clusters with the same definition share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from glebe.apiserver.types.schema import Schema
from glebe.kube.errors import Cause
from glebe.kube.names import show

if TYPE_CHECKING:
    from glebe.cel.budget import Budget
    from glebe.cel.environment import Environment, Program

RULES = "x-kubernetes-validations"
ROOT = "<nil>"
_OLD = "oldSelf"
_LONGEST_MESSAGE = 5 * 1024
_EXHAUSTED = "validation failed due to running out of cost budget, no further validation rules will be run"


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """One rule. ``fault`` is why it cannot be compiled."""

    text: str
    program: Program | None
    fault: str
    says: Program | None
    says_fault: str
    message: str
    reason: str
    field: str
    uses_old: bool
    optional_old: bool


@dataclass(frozen=True, slots=True)
class RuleSet:
    """The rules of one node. ``transitions``: one at or below it looks at what was there before."""

    own: tuple[CompiledRule, ...]
    transitions: bool


class _Exhausted(Exception):
    """No more rules are run."""


def look_for_rules(schema: Schema) -> bool:
    """Does a rule stand at or below this node? Ask :attr:`Schema.ruled`, which remembers the answer."""
    if schema.raw.get(RULES):
        return True
    if not schema.custom:
        return False
    return any(child.ruled for child in (*schema.fields.values(), schema.items, schema.additional) if child is not None)


def compile_rules(schema: Schema) -> RuleSet:
    """The rules of this node. Ask :attr:`Schema.rules`, which remembers the answer."""
    own = tuple(_compiled(schema, False)) if schema.raw.get(RULES) else ()
    return RuleSet(own, any(rule.uses_old for rule in own) or any(c.rules.transitions for c in _children(schema)))


def compile_root_rules(schema: Schema) -> RuleSet:
    """The same for the schema of whole objects: their name, kind and version may be named, too."""
    own = tuple(_compiled(schema, True)) if schema.raw.get(RULES) else ()
    return RuleSet(own, any(rule.uses_old for rule in own) or any(c.rules.transitions for c in _children(schema)))


def _children(schema: Schema) -> list[Schema]:
    if not schema.custom:
        return []
    below = (*schema.fields.values(), schema.items, schema.additional)
    return [child for child in below if child is not None and child.custom and child.ruled]


def _compiled(schema: Schema, root: bool) -> Iterator[CompiledRule]:
    from glebe.apiserver.types.fieldpaths import find_field
    from glebe.apiserver.types.schematypes import type_of
    from glebe.cel import types as t  # late: only kinds with rules need any of it
    from glebe.cel.environment import Environment

    kind = type_of(schema, root=root)
    plain = Environment({"self": kind, _OLD: kind}, raw=True) if kind is not None else None
    careful = Environment({"self": kind, _OLD: t.optional_of(kind)}, raw=True) if kind is not None else None
    for rule in schema.raw.get(RULES) or ():
        optional = rule.get("optionalOldSelf") is True
        chosen = careful if optional else plain
        path = rule.get("fieldPath") or ""
        found = find_field(schema.raw, path) if path else ""
        yield _one(rule, chosen, plain, optional, path.lstrip(".") if path and not isinstance(found, str) else "")


def _one(
    rule: Mapping[str, Any], chosen: Environment | None, plain: Environment | None, optional: bool, field: str
) -> CompiledRule:
    from glebe.cel.syntax import names_in

    text, said = str(rule.get("rule") or ""), str(rule.get("messageExpression") or "")
    program, fault = _compile(chosen, text, "bool", "compilation failed: ", "cel expression must evaluate to a bool")
    says, says_fault = None, ""
    if said and not fault:
        preface = "messageExpression compilation failed: "
        says, says_fault = _compile(plain, said, "string", preface, "messageExpression must evaluate to a string")
    uses_old = program is not None and _OLD in names_in(program.tree)
    message = str(rule.get("message") or "").strip()
    reason = str(rule.get("reason") or "FieldValueInvalid")
    return CompiledRule(text.strip(), program, fault, says, says_fault, message, reason, field, uses_old, optional)


def _compile(
    environment: Environment | None, text: str, wanted: str, preface: str, otherwise: str
) -> tuple[Program | None, str]:
    from glebe.cel.environment import CompileError

    if environment is None:
        return None, "the schema cannot be seen by expressions"
    try:
        program = environment.compile(text)
    except CompileError as error:
        return None, f"{preface}{error}"
    return (program, "") if program.result.kind == wanted else (None, otherwise)


# ------------------------------------------------------------------------------------------------------ objects


def rule_faults(schema: Schema, value: Any, old: Any, path: str = "") -> Iterator[Cause]:
    """The rules that ``value`` breaks; ``old`` is what it replaces (None: nothing).

    What was let in once and has not changed is not held against a later write, but for rules about changes.
    """
    if value is None or not schema.ruled:
        return
    from glebe.cel.budget import PER_REQUEST, Budget  # late: see above

    walk = _Walk(Budget(PER_REQUEST))
    try:
        yield from walk.node(schema, value, old, path, schema.root_rules)
    except _Exhausted:
        return


class _Walk:
    def __init__(self, budget: Budget) -> None:
        self._budget = budget

    def node(self, schema: Schema, value: Any, old: Any, path: str, rules: RuleSet) -> Iterator[Cause]:
        same = old is not None and type(value) is type(old) and value == old
        if same and not rules.transitions:
            return
        for rule in rules.own:
            if same and not rule.uses_old:
                continue
            yield from self._held(rule, schema, value, old, path)
        if type(value) is dict:
            yield from self._fields(schema, value, old if type(old) is dict else {}, path)
        elif type(value) is list and schema.items is not None and schema.items.ruled:
            earlier = _matching(schema, value, old)
            for index, item in enumerate(value):
                if item is not None:
                    below = schema.items.rules
                    yield from self.node(schema.items, item, earlier[index], f"{path}[{index}]", below)

    def _fields(self, schema: Schema, value: dict[str, Any], old: dict[str, Any], path: str) -> Iterator[Cause]:
        for name, item in value.items():
            child = schema.fields.get(name)
            where = f"{path}.{name}" if path else name
            if child is None:
                child, where = schema.additional, f"{path}[{name}]"
            if child is not None and child.custom and child.ruled and item is not None:
                yield from self.node(child, item, old.get(name), where, child.rules)

    def _held(self, rule: CompiledRule, schema: Schema, value: Any, old: Any, path: str) -> Iterator[Cause]:
        from glebe.cel.budget import EvalError, OutOfBudget
        from glebe.cel.values import NONE, Optional

        shown = f'Invalid value: "{schema.raw.get("type", "")}": '
        where = path or ROOT
        if rule.program is None:
            if rule.fault:
                yield Cause("FieldValueInvalid", f"{shown}rule compile error: {rule.fault}", where)
            return
        if rule.uses_old and old is None and not rule.optional_old:
            return
        before = old
        if rule.optional_old:
            before = NONE if old is None else Optional(True, old)
        values = {"self": value, _OLD: before}
        try:
            held = rule.program.evaluate(values, self._budget)
        except EvalError as error:
            yield Cause("FieldValueInvalid", shown + _failure(str(error), rule), where)
            return
        except OutOfBudget as error:
            text = str(error)
            if text != _EXHAUSTED:
                text = f"'{text}': no further validation rules will be run due to call cost exceeds limit for rule: "
                text += rule.message or rule.text
            yield Cause("FieldValueInvalid", shown + text, where)
            raise _Exhausted from None
        if held is not True:
            yield self._broken(rule, value, values, path, shown)

    def _broken(self, rule: CompiledRule, value: Any, values: dict[str, Any], path: str, shown: str) -> Cause:
        where = (f"{path}.{rule.field}" if path else rule.field) if rule.field else path or ROOT
        message = self._said(rule, values) or rule.message or f"failed rule: {rule.text}"
        if rule.reason == "FieldValueForbidden":
            return Cause(rule.reason, f"Forbidden: {message}", where)
        if rule.reason == "FieldValueRequired":
            return Cause(rule.reason, f"Required value: {message}", where)
        omitted = type(value) in (dict, list)
        if rule.reason == "FieldValueDuplicate":
            return Cause(rule.reason, "Duplicate value" if omitted else f"Duplicate value: {show(value)}", where)
        return Cause(
            "FieldValueInvalid",
            f"Invalid value: {message}" if omitted else f"Invalid value: {show(value)}: {message}",
            where,
        )

    def _said(self, rule: CompiledRule, values: dict[str, Any]) -> str:
        """What the message's expression makes; "" when it makes nothing that could be shown."""
        from glebe.cel.budget import EvalError, OutOfBudget

        if rule.says is None:
            return ""
        if rule.optional_old:
            held = values[_OLD]
            values = {**values, _OLD: held.value if held.present else None}
        try:
            made = rule.says.evaluate(values, self._budget)
        except (EvalError, OutOfBudget):
            return ""
        text = made.strip() if isinstance(made, str) else ""
        return "" if len(text) > _LONGEST_MESSAGE or "\n" in text else text


def _failure(error: str, rule: CompiledRule) -> str:
    text = rule.message or rule.text
    if error.startswith("no such overload"):
        why = "call arguments did not match a supported operator, function or macro signature for rule"
        return f"'{error}': {why}: {text}"
    return f"{error} evaluating rule: {text}"


def _matching(schema: Schema, value: list[Any], old: Any) -> list[Any]:
    """For each item the one that it replaces: only items of keyed lists can be told."""
    if type(old) is not list or schema.list_type != "map":
        return [None] * len(value)
    keys = schema.list_keys
    by_key = {tuple(repr(i.get(k)) for k in keys): i for i in old if type(i) is dict}
    return [by_key.get(tuple(repr(i.get(k)) for k in keys)) if type(i) is dict else None for i in value]


def definition_faults(schema: Mapping[str, Any], path: str, old: Mapping[str, Any] | None) -> list[Cause]:
    """What is wrong with the rules of one version of a definition; ``old`` is what it replaces."""
    from glebe.apiserver.types import celdefinitions  # late: it needs the estimator

    return celdefinitions.faults(schema, path, old)
