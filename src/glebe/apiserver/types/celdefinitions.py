"""CEL rules in definitions: they compile, look back only where that is possible, and cannot cost too much."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from glebe.apiserver.types.celrules import RULES, CompiledRule
from glebe.apiserver.types.schema import Schema
from glebe.apiserver.types.schematypes import LARGEST_REQUEST, smallest
from glebe.cel.budget import STATIC_PER_EXPRESSION, STATIC_PER_SCHEMA
from glebe.cel.environment import Program
from glebe.cel.estimate import estimate
from glebe.kube import names as n
from glebe.kube.errors import Cause

Raw = Mapping[str, Any]
_HINT = (
    "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are "
    "declared)"
)
_CONTRIBUTED = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
_MOST_EXPENSIVE = 4


@dataclass(slots=True)
class _Total:
    cost: int = 0
    expensive: list[tuple[int, str]] = field(default_factory=list)

    def add(self, cost: int, path: str) -> None:
        self.cost += cost
        if cost >= STATIC_PER_SCHEMA // 100:
            self.expensive = sorted([*self.expensive, (cost, path)], reverse=True)[:_MOST_EXPENSIVE]


def faults(schema: Raw, path: str, old: Raw | None) -> list[Cause]:
    """All faults of the rules in one version's ``openAPIV3Schema``; rules that were there before are kept."""
    node = Schema({"type": "object", **schema}, custom=True)
    total = _Total()
    known = _texts(old) if old is not None else frozenset()
    causes = list(_node(node, path, 1, "", total, known, root=True))
    if total.cost > STATIC_PER_SCHEMA and schema != old:
        causes += [n.forbidden(where, _CONTRIBUTED) for _, where in total.expensive]
        name = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema"
        causes.append(n.forbidden(path, _too_dear(name, total.cost, STATIC_PER_SCHEMA)))
    return causes


def _texts(schema: Any) -> frozenset[str]:
    """The rules that a schema holds."""
    found: set[str] = set()
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            for rule in node.get(RULES) or ():
                if isinstance(rule, dict):
                    found.add(str(rule.get("rule") or ""))
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node
    return frozenset(found)


def _node(
    schema: Schema, path: str, times: int | None, loose: str, total: _Total, known: frozenset[str], root: bool = False
) -> Iterator[Cause]:
    """:param times: how often a value may stand here at most; None: as often as fits into a request.
    :param loose: the list above in which items have no identity, so that nothing can be said about changes.
    """
    if not schema.custom:
        return
    rules = schema.root_rules if root else schema.rules
    for index, rule in enumerate(rules.own):
        where = f"{path}.{RULES}[{index}]"
        yield from _rule(rule, schema, schema.raw[RULES][index], where, times, loose, total, known)
    for name, child in schema.fields.items():
        if child.custom and child.ruled:
            yield from _node(child, f"{path}.properties[{name}]", times, loose, total, known)
    if schema.additional is not None and schema.additional.ruled:
        most = schema.raw.get("maxProperties")
        below = None if times is None or most is None else times * max(0, most)
        yield from _node(schema.additional, f"{path}.additionalProperties", below, loose, total, known)
    if schema.items is not None and schema.items.ruled:
        most = schema.raw.get("maxItems")
        below = None if times is None or most is None else times * max(0, most)
        uncorrelated = loose or ("" if schema.list_type == "map" else path)
        yield from _node(schema.items, f"{path}.items", below, uncorrelated, total, known)


def _rule(
    rule: CompiledRule,
    schema: Schema,
    raw: Raw,
    path: str,
    times: int | None,
    loose: str,
    total: _Total,
    known: frozenset[str],
) -> Iterator[Cause]:
    if rule.fault:
        yield _invalid(f"{path}.rule", raw, rule.fault)
    if rule.says_fault:
        yield _invalid(f"{path}.messageExpression", raw, rule.says_fault)
    count = times if times is not None else LARGEST_REQUEST // (smallest(schema) + 1)
    for program, name, what, factor in (
        (rule.program, "rule", "estimated rule cost", count),
        (rule.says, "messageExpression", "estimated messageExpression cost", 1),
    ):
        if program is None:
            continue
        cost = _cost(program) * factor
        if cost > STATIC_PER_EXPRESSION and str(raw.get("rule") or "") not in known:
            yield n.forbidden(f"{path}.{name}", _too_dear(what, cost, STATIC_PER_EXPRESSION))
        total.add(cost, f"{path}.{name}")
    if rule.uses_old and loose:
        why = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {loose}"
        yield n.invalid(f"{path}.rule", raw.get("rule"), why)
    elif not rule.uses_old and raw.get("optionalOldSelf") is not None and not rule.fault:
        why = "may not be set if oldSelf is not used in rule"
        yield n.invalid(f"{path}.optionalOldSelf", raw["optionalOldSelf"], why)


def _invalid(path: str, rule: Raw, why: str) -> Cause:
    """With the rule as upstream shows it: its Go form, escaped as for HTML."""
    shown = {
        "Rule": rule.get("rule") or "",
        "Message": rule.get("message") or "",
        "MessageExpression": rule.get("messageExpression") or "",
        "Reason": rule.get("reason"),
        "FieldPath": rule.get("fieldPath") or "",
        "OptionalOldSelf": rule.get("optionalOldSelf"),
    }
    text = n.show(shown)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Cause("FieldValueInvalid", f"Invalid value: {text}: {why}", path)


def _cost(program: Program) -> int:
    return estimate(program.tree, program.checked)


def _too_dear(what: str, cost: int, limit: int) -> str:
    factor = cost / limit
    if factor > 100:
        shown = "more than 100x"
    else:
        shown = f"{factor:f}x" if factor < 1.5 else f"{factor:.1f}x"
    return f"{what} exceeds budget by factor of {shown} {_HINT}"
