"""Quantities, semantic versions, named formats, JSON patch keys."""

from __future__ import annotations

import re
import uuid
from base64 import b64decode
from collections.abc import Callable
from datetime import date
from fractions import Fraction
from functools import cache
from typing import Any

from glebe.cel.budget import Budget, EvalError, of_text
from glebe.cel.registry import CLASSES, Library
from glebe.cel.standard import free, text_cost
from glebe.cel.values import INT_MAX, INT_MIN, NONE, Extension, Optional, parse_timestamp
from glebe.kube import quantity

_LONGEST = 128
_EXPONENT = re.compile(r".*[eE][+-]?\d{4,}")
_SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?"
)


class Quantity(Extension):
    """``resource.Quantity``."""

    __slots__ = ("amount",)
    type_name = "kubernetes.Quantity"

    def __init__(self, amount: Fraction) -> None:
        self.amount = amount

    def equals(self, other: Any) -> bool:
        return bool(self.amount == other.amount)


class Semver(Extension):
    """Semantic version 2.0.0; ``order`` sorts as its rules say."""

    __slots__ = ("numbers", "order")
    type_name = "kubernetes.Semver"

    def __init__(self, numbers: tuple[int, int, int], before: str) -> None:
        self.numbers = numbers
        parts = tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in before.split(".")) if before else ()
        self.order = (numbers, 0 if before else 1, parts)

    def equals(self, other: Any) -> bool:
        return bool(self.order == other.order)


class Format(Extension):
    """A named format; ``check`` lists what is wrong with a text."""

    __slots__ = ("check", "name")
    type_name = "kubernetes.NamedFormat"

    def __init__(self, name: str, check: Callable[[str], tuple[str, ...]]) -> None:
        self.name = name
        self.check = check

    def equals(self, other: Any) -> bool:
        return bool(self.name == other.name)


CLASSES.update({"quantity": (Quantity,), "semver": (Semver,), "format": (Format,)})


def _quantity(text: str) -> Quantity:
    if len(text) <= _LONGEST and not _EXPONENT.match(text):
        try:
            return Quantity(quantity.parse(text))
        except (quantity.QuantityError, ValueError):
            pass
    why = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    raise EvalError(why)


def _is_integer(q: Quantity) -> bool:
    return q.amount.denominator == 1 and INT_MIN <= q.amount <= INT_MAX


def _as_integer(q: Quantity) -> int:
    if not _is_integer(q):
        raise EvalError("cannot convert value to integer")
    return int(q.amount)


def _plain(value: Any) -> Fraction:
    return value.amount if isinstance(value, Quantity) else Fraction(value)


def _sign(a: Any, b: Any) -> int:
    return int(a > b) - int(a < b)


def parse_semver(text: str, normalize: bool = False) -> Semver:
    """:raises EvalError: it is no semantic version."""
    if normalize and len(text) <= _LONGEST:
        core, mark, rest = re.fullmatch(r"v?([^-+]*)([-+]?)(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
        numbers = core.split(".")
        numbers += ["0"] * (3 - len(numbers))
        text = ".".join(n.lstrip("0") or n[:1] for n in numbers) + mark + rest
    match = _SEMVER.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        raise EvalError("No Major.Minor.Patch elements found")
    return Semver((int(match[1]), int(match[2]), int(match[3])), match[4] or "")


def _is(make: Callable[..., Any]) -> Callable[..., bool]:
    def run(text: str, *args: Any) -> bool:
        try:
            make(text, *args)
        except EvalError:
            return False
        return True

    return run


def _holds(parse: Callable[[str], Any], why: str) -> Callable[[str], tuple[str, ...]]:
    def check(text: str) -> tuple[str, ...]:
        try:
            parse(text)
        except (ValueError, EvalError):
            return (why,)
        return ()

    return check


def _uri(text: str) -> None:
    from glebe.cel.network import Url

    Url(text)


def _uuid(text: str) -> None:
    if len(text) != 36 or str(uuid.UUID(text)) != text.lower():
        raise ValueError(text)


@cache
def formats() -> dict[str, Format]:
    """All named formats."""
    from glebe.kube import names

    def prefix(check: Callable[[str], tuple[str, ...]]) -> Callable[[str], tuple[str, ...]]:
        return lambda text: tuple(check(text[:-1] + "a" if text.endswith("-") else text))

    subdomain, label, label_1035 = names.subdomain_faults, names.label_faults, names.label_1035_faults
    table: dict[str, Callable[[str], tuple[str, ...]]] = {
        "dns1123Label": label,
        "dns1123Subdomain": subdomain,
        "dns1035Label": label_1035,
        "qualifiedName": names.key_faults,
        "dns1123LabelPrefix": prefix(label),
        "dns1123SubdomainPrefix": prefix(subdomain),
        "dns1035LabelPrefix": prefix(label_1035),
        "labelValue": names.value_faults,
        "uri": _holds(_uri, "invalid URI"),
        "uuid": _holds(_uuid, "does not match the UUID format"),
        "byte": _holds(lambda text: b64decode(text, validate=True), "invalid base64"),
        "date": _holds(date.fromisoformat, "invalid date"),
        "datetime": _holds(parse_timestamp, "invalid datetime"),
    }
    return {name: Format(name, check) for name, check in table.items()}


def _named(name: str) -> Optional:
    found = formats().get(name)
    return NONE if found is None else Optional(True, found)


def _validate(budget: Budget, chosen: Format, text: str) -> Optional:
    budget.spend(10 + of_text(len(text)) * 4)
    faults = list(chosen.check(text))
    return Optional(True, faults) if faults else NONE


def declare(library: Library) -> None:
    """Add all of these to ``library``."""
    add, member = library.add, library.member
    add("quantity(string) -> quantity", text_cost(_quantity), "text")
    add("isQuantity(string) -> bool", text_cost(_is(_quantity)), "text")
    member("quantity", "isInteger() -> bool", free(_is_integer))
    member("quantity", "asInteger() -> int", free(_as_integer))
    member("quantity", "asApproximateFloat() -> double", free(lambda q: float(q.amount)))
    member("quantity", "isGreaterThan(quantity) -> bool", free(lambda a, b: a.amount > b.amount))
    member("quantity", "isLessThan(quantity) -> bool", free(lambda a, b: a.amount < b.amount))
    member("quantity", "compareTo(quantity) -> int", free(lambda a, b: _sign(a.amount, b.amount)))
    for kind in ("quantity", "int"):
        member("quantity", f"add({kind}) -> quantity", free(lambda a, b: Quantity(a.amount + _plain(b))))
        member("quantity", f"sub({kind}) -> quantity", free(lambda a, b: Quantity(a.amount - _plain(b))))
    for args in ("string", "string, bool"):
        add(f"semver({args}) -> semver", text_cost(parse_semver), "text")
        add(f"isSemver({args}) -> bool", text_cost(_is(parse_semver)), "text")
    for index, name in enumerate(("major", "minor", "patch")):
        member("semver", f"{name}() -> int", free(lambda s, index=index: s.numbers[index]))
    member("semver", "isGreaterThan(semver) -> bool", free(lambda a, b: a.order > b.order))
    member("semver", "isLessThan(semver) -> bool", free(lambda a, b: a.order < b.order))
    member("semver", "compareTo(semver) -> int", free(lambda a, b: _sign(a.order, b.order)))
    add("format.named(string) -> optional(format)", free(_named))
    for name in ("dns1123Label", "dns1123Subdomain", "dns1035Label", "qualifiedName", "dns1123LabelPrefix",
                 "dns1123SubdomainPrefix", "dns1035LabelPrefix", "labelValue", "uri", "uuid", "byte", "date",
                 "datetime"):  # fmt: skip
        add(f"format.{name}() -> format", free(lambda name=name: formats()[name]))
    member("format", "validate(string) -> optional(list(string))", _validate, "text")
    add("jsonpatch.escapeKey(string) -> string", text_cost(lambda s: s.replace("~", "~0").replace("/", "~1")), "text")
