"""Amounts as whole numbers of a billionth: exact, quick to add, and small enough a step for any quantity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any, TypeAlias

from glebe.kube.quantity import QuantityError, canonical, format_binary, format_decimal, parse

ONE = 10**9
Amounts: TypeAlias = dict[str, int]
"""By resource name, in billionths."""


@lru_cache(maxsize=4096)
def _of_text(text: str) -> int:
    amount = parse(text) * ONE
    return -(-amount.numerator // amount.denominator)


def of(value: Any) -> int:
    """A quantity as it stands in an object; what is no quantity counts as nothing (validation refuses it)."""
    try:
        if isinstance(value, str):
            return _of_text(value)
        amount = parse(value) * ONE
    except (QuantityError, TypeError):
        return 0
    return -(-amount.numerator // amount.denominator)


def amounts(quantities: Any) -> Amounts:
    """All of a resource list."""
    return {str(name): of(value) for name, value in quantities.items()} if isinstance(quantities, Mapping) else {}


def add(into: Amounts, more: Mapping[str, int]) -> None:
    for name, amount in more.items():
        into[name] = into.get(name, 0) + amount


def raise_to(into: Amounts, floor: Mapping[str, int]) -> None:
    for name, amount in floor.items():
        if amount > into.get(name, amount - 1):
            into[name] = amount


def text(amount: int, like: Any) -> str:
    """Canonical form; with binary suffixes when the amount, or ``like`` (the limit), looks as if it were written so."""
    step = 1024 if isinstance(like, str) and like.endswith("i") else 1024**2
    value = Fraction(amount, ONE)
    return format_decimal(value) if amount % (step * ONE) else format_binary(value)


def listed(amounts_: Mapping[str, int], names: Iterable[str], hard: Mapping[str, Any]) -> str:
    """``cpu=500m,pods=2`` for messages."""
    return ",".join(f"{name}={text(amounts_.get(name, 0), hard.get(name))}" for name in sorted(names))


def limits(names: Iterable[str], hard: Mapping[str, Any]) -> str:
    """The same of the limits, as they were written."""
    return ",".join(f"{name}={canonical(hard[name])}" for name in sorted(names))
