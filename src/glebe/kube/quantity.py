"""Kubernetes quantities (``100m``, ``1.5Gi``, ``2e3``), exactly.

A quantity is a :class:`fractions.Fraction`, so nothing is ever rounded behind one's back. Where Kubernetes needs an
integer it rounds up: CPU to thousandths of a core, everything else to whole units (:func:`to_int`). The grammar and
the canonical form follow ``k8s.io/apimachinery/pkg/api/resource``.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import Final

_BINARY: Final = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_NUMBER: Final = re.compile(r"([+-]?)(\d+\.?\d*|\.\d+)(?:([KMGTPE]i)|([eE][+-]?\d+)|([numkMGTPE]))?", re.ASCII)
_DECIMAL_BY_EXPONENT: Final = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_NANO: Final = Fraction(1, 10**9)
_MAX_EXPONENT: Final = 1000  # a longer one is an attack, not an amount


class QuantityError(ValueError):
    """Text that is not a quantity."""

    def __init__(self, text: object) -> None:
        super().__init__(f"quantities must match the regular expression {PATTERN!r} (got {text!r})")


#: The pattern that upstream's error message quotes.
PATTERN: Final = "^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$"


def parse(value: str | int | float) -> Fraction:
    """The exact value of a quantity as it stands in an object (JSON numbers are allowed there, too).

    Below a billionth (10^-9) amounts are rounded up away from zero, as upstream does.

    :raises QuantityError: ``value`` is not a quantity.
    """
    if isinstance(value, bool):
        raise QuantityError(value)
    if isinstance(value, int):
        return Fraction(value)
    if isinstance(value, float):
        value = repr(value)
    return _parse_text(value)


@lru_cache(maxsize=4096)
def _parse_text(text: str) -> Fraction:
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise QuantityError(text)
    sign, digits, binary, scientific, suffix = match.groups()
    amount = Fraction(digits + "0" if digits.endswith(".") else digits)
    if binary:
        amount *= 1024 ** _BINARY[binary]
    elif scientific or suffix:
        exponent = int(scientific[1:]) if scientific else _DECIMAL[suffix]
        if abs(exponent) > _MAX_EXPONENT:
            raise QuantityError(text)
        amount *= Fraction(10) ** exponent
    amount = _ceil_to(amount, _NANO)
    return -amount if sign == "-" else amount


def _ceil_to(amount: Fraction, step: Fraction) -> Fraction:
    if (amount / step).denominator == 1:
        return amount
    return -(-amount // step) * step


def ceil(amount: Fraction) -> int:
    """The smallest integer not below ``amount``."""
    return -(-amount.numerator // amount.denominator)


@lru_cache(maxsize=8192)
def _text_to_int(value: str, milli: bool) -> int:
    return ceil(_parse_text(value) * 1000 if milli else _parse_text(value))


def to_int(value: str | int | float | Fraction, resource: str) -> int:
    """The integer that accounting uses: ``cpu`` in millicores, everything else in whole units or bytes, rounded up.

    >>> to_int("100m", "cpu"), to_int("1.5Gi", "memory"), to_int(8, "nvidia.com/gpu")
    (100, 1610612736, 8)

    :raises QuantityError: ``value`` is not a quantity.
    """
    milli = is_milli(resource)
    if isinstance(value, str):
        return _text_to_int(value, milli)
    amount = value if isinstance(value, Fraction) else parse(value)
    return ceil(amount * 1000 if milli else amount)


def is_milli(resource: str) -> bool:
    """Whether :func:`to_int` counts ``resource`` in thousandths: CPU, also as ``requests.cpu`` in a quota."""
    return resource == "cpu" or resource.endswith(".cpu")


def from_int(amount: int, resource: str) -> str:
    """The inverse of :func:`to_int`, in canonical form: binary suffixes for memory and storage, decimal otherwise."""
    value = Fraction(amount, 1000) if is_milli(resource) else Fraction(amount)
    return format_binary(value) if is_bytes(resource) else format_decimal(value)


def is_bytes(resource: str) -> bool:
    """Whether people write amounts of ``resource`` in KiB, MiB, GiB."""
    base = resource.rpartition(".")[2]
    return base in ("memory", "storage", "ephemeral-storage") or base.startswith("hugepages-")


def format_decimal(amount: Fraction | int) -> str:
    """Canonical form in decimal SI suffixes: an integer below 1000 where the value allows it (``1500m``, ``2k``)."""
    nanos = ceil(abs(Fraction(amount)) * 10**9)
    if nanos == 0:
        return "0"
    exponent = -9
    while exponent < 18 and nanos % 1000 == 0:
        nanos //= 1000
        exponent += 3
    return f"{'-' if amount < 0 else ''}{nanos}{_DECIMAL_BY_EXPONENT[exponent]}"


def format_binary(amount: Fraction | int) -> str:
    """Canonical form in binary suffixes (``1536Mi``); fractions fall back to the decimal form, as upstream's do."""
    value = Fraction(amount)
    if value.denominator != 1 or abs(value) < 1024:
        return format_decimal(value)
    number, suffix = abs(value.numerator), ""
    for candidate in _BINARY:
        if number % 1024:
            break
        number //= 1024
        suffix = candidate
    return f"{'-' if value < 0 else ''}{number}{suffix}"


def canonical(text: str | int | float) -> str:
    """``text`` in canonical form, keeping its family of suffixes (``1024Mi`` -> ``1Gi``, ``1000m`` -> ``1``).

    :raises QuantityError: ``text`` is not a quantity.
    """
    return _canonical_text(text) if isinstance(text, str) else format_decimal(parse(text))


@lru_cache(maxsize=4096)
def _canonical_text(text: str) -> str:
    amount = _parse_text(text)
    if text.endswith("i"):
        return format_binary(amount)
    if "e" in text or text.rstrip("0123456789").endswith(("E+", "E-")) or re.search(r"E\d", text):
        return _format_exponent(amount)
    return format_decimal(amount)


def _format_exponent(amount: Fraction) -> str:
    decimal = format_decimal(amount)
    digits = decimal.rstrip("numkMGTPE")
    exponent = _DECIMAL[decimal[len(digits) :]]
    return f"{digits}e{exponent}" if exponent else digits
