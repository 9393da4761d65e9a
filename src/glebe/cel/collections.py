"""Lists, sets and optional values: Kubernetes' list functions, the sets extension, ``optional``."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from glebe.cel.budget import Budget, EvalError
from glebe.cel.operators import add, less
from glebe.cel.registry import Library
from glebe.cel.values import NONE, Optional, equal

_ORDERED = ("int", "uint", "double", "bool", "duration", "timestamp", "string", "bytes")
_SUMMED = {"int": 0, "uint": 0, "double": 0.0, "duration": None}


def _is_sorted(budget: Budget, items: list[Any]) -> bool:
    budget.spend(1 + len(items))
    return not any(less(budget, b, a) for a, b in pairwise(items))


def _extreme(name: str, better: Callable[[Budget, Any, Any], bool]) -> Callable[[Budget, list[Any]], Any]:
    def run(budget: Budget, items: list[Any]) -> Any:
        budget.spend(1 + len(items))
        if not items:
            raise EvalError(f"{name} called on empty list")
        best = items[0]
        for item in items[1:]:
            if better(budget, item, best):
                best = item
        return best

    return run


def _sum(budget: Budget, items: list[Any]) -> Any:
    budget.spend(1 + len(items))
    if not items:
        return 0
    total = items[0]
    for item in items[1:]:
        total = add(budget, total, item)
    return total


def _index_of(budget: Budget, items: list[Any], wanted: Any) -> int:
    budget.spend(1 + len(items))
    return next((i for i, item in enumerate(items) if equal(item, wanted, budget)), -1)


def _last_index_of(budget: Budget, items: list[Any], wanted: Any) -> int:
    budget.spend(1 + len(items))
    return next((i for i in range(len(items) - 1, -1, -1) if equal(items[i], wanted, budget)), -1)


def _within(budget: Budget, items: list[Any], wanted: Any) -> bool:
    budget.spend(1 + len(items))
    return any(equal(item, wanted, budget) for item in items)


def _contains(budget: Budget, items: list[Any], wanted: list[Any]) -> bool:
    return all(_within(budget, items, each) for each in wanted)


def _equivalent(budget: Budget, a: list[Any], b: list[Any]) -> bool:
    return _contains(budget, a, b) and _contains(budget, b, a)


def _intersects(budget: Budget, a: list[Any], b: list[Any]) -> bool:
    return any(_within(budget, a, each) for each in b)


def _value(budget: Budget, optional: Optional) -> Any:
    if not optional.present:
        raise EvalError("optional.none() dereference")
    return optional.value


def _is_zero(value: Any) -> bool:
    return value is None or (not value and not isinstance(value, Optional))


def _flatten(budget: Budget, items: list[Any]) -> list[Any]:
    budget.spend(10 + len(items))
    return [item.value for item in items if type(item) is Optional and item.present]


def _slice(budget: Budget, items: list[Any], start: int, end: int) -> list[Any]:
    budget.spend(10 + max(0, end - start))
    if start < 0 or end > len(items) or start > end:
        raise EvalError(f"cannot slice({start}, {end}), list is length {len(items)}")
    return items[start:end]


def declare(library: Library) -> None:
    """Add all of these to ``library``."""
    add_, member = library.add, library.member
    for kind in _ORDERED:
        member(f"list({kind})", "isSorted() -> bool", _is_sorted, "items")
        member(f"list({kind})", f"min() -> {kind}", _extreme("min", less), "items")
        member(f"list({kind})", f"max() -> {kind}", _extreme("max", lambda b, x, y: less(b, y, x)), "items")
    for kind in _SUMMED:
        member(f"list({kind})", f"sum() -> {kind}", _sum, "items")
    member("list(A)", "indexOf(A) -> int", _index_of, "items")
    member("list(A)", "lastIndexOf(A) -> int", _last_index_of, "items")
    add_("sets.contains(list(A), list(A)) -> bool", _contains, "items*items")
    add_("sets.equivalent(list(A), list(A)) -> bool", _equivalent, "items*items")
    add_("sets.intersects(list(A), list(A)) -> bool", _intersects, "items*items")
    add_("optional.of(A) -> optional(A)", lambda b, v: Optional(True, v))
    add_("optional.ofNonZeroValue(A) -> optional(A)", lambda b, v: NONE if _is_zero(v) else Optional(True, v))
    add_("optional.none() -> optional(A)", lambda b: NONE)
    add_("optional.unwrap(list(optional(A))) -> list(A)", _flatten, "items")
    member("list(optional(A))", "unwrapOpt() -> list(A)", _flatten, "items")
    member("optional(A)", "hasValue() -> bool", lambda b, o: o.present)
    member("optional(A)", "value() -> A", _value)
    member("optional(A)", "orValue(A) -> A", lambda b, o, other: o.value if o.present else other)
    member("optional(A)", "or(optional(A)) -> optional(A)", lambda b, o, other: o if o.present else other)
