"""Lists that a schema calls a set or a map: order does not count, and items have an identity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from glebe.cel.budget import Budget
from glebe.cel.values import equal, no_overload


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


FLAVORED: dict[str, Callable[[tuple[str, ...]], Callable[..., Any]]] = {
    "_==_": _flavored_equal,
    "_!=_": lambda flavor: lambda budget, a, b: not _flavored_equal(flavor)(budget, a, b),
    "_+_": _flavored_add,
}
