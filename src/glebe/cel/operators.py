"""Arithmetic, comparison, containment, indexing."""

from __future__ import annotations

import math
from typing import Any

from glebe.cel.budget import Budget, EvalError, of_text
from glebe.cel.syntax import UInt
from glebe.cel.values import (
    Defaulting,
    Duration,
    Lazy,
    Optional,
    Timestamp,
    checked_int,
    checked_uint,
    equal,
    find_key,
    no_overload,
    type_name,
)


def _pair(a: Any, b: Any) -> str:
    return f"({type_name(a)}, {type_name(b)})"


def add(budget: Budget, a: Any, b: Any) -> Any:
    kind, other = type(a), type(b)
    if kind is other:
        if kind is int:
            return checked_int(a + b)
        if kind is str or kind is bytes:
            budget.spend(of_text(len(a) + len(b)))
            return a + b
        if kind is list:
            budget.spend(10 + (len(a) + len(b)) // 10)
            return a + b
        if kind is float:
            return a + b
        if kind is UInt:
            return checked_uint(int(a) + int(b))
        if kind is Duration:
            return Duration(_nanos(a.nanos + b.nanos))
    elif (kind, other) in ((Timestamp, Duration), (Duration, Timestamp)):
        return Timestamp(_nanos(a.nanos + b.nanos, 1 << 70))
    raise no_overload(f"_+_ applied to {_pair(a, b)}")


def subtract(budget: Budget, a: Any, b: Any) -> Any:
    kind, other = type(a), type(b)
    if kind is other:
        if kind is int:
            return checked_int(a - b)
        if kind is float:
            return a - b
        if kind is UInt:
            return checked_uint(int(a) - int(b))
        if kind is Duration or kind is Timestamp:
            return Duration(_nanos(a.nanos - b.nanos))
    elif kind is Timestamp and other is Duration:
        return Timestamp(_nanos(a.nanos - b.nanos, 1 << 70))
    raise no_overload(f"_-_ applied to {_pair(a, b)}")


def _nanos(value: int, limit: int = 1 << 63) -> int:
    if -limit <= value < limit:
        return value
    raise EvalError("duration overflow" if limit == 1 << 63 else "timestamp overflow")


def multiply(budget: Budget, a: Any, b: Any) -> Any:
    kind = type(a)
    if kind is type(b):
        if kind is int:
            return checked_int(a * b)
        if kind is float:
            return a * b
        if kind is UInt:
            return checked_uint(int(a) * int(b))
    raise no_overload(f"_*_ applied to {_pair(a, b)}")


def divide(budget: Budget, a: Any, b: Any) -> Any:
    kind = type(a)
    if kind is type(b):
        if kind is float:
            if b == 0:
                return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1, b)
            return a / b
        if kind is int or kind is UInt:
            if b == 0:
                raise EvalError("division by zero")
            quotient = abs(int(a)) // abs(int(b))
            signed = quotient if (a < 0) == (b < 0) else -quotient
            return checked_int(signed) if kind is int else UInt(signed)
    raise no_overload(f"_/_ applied to {_pair(a, b)}")


def modulo(budget: Budget, a: Any, b: Any) -> Any:
    kind = type(a)
    if kind is type(b) and kind in (int, UInt):
        if b == 0:
            raise EvalError("modulus by zero")
        rest = abs(int(a)) % abs(int(b))
        return UInt(rest) if kind is UInt else (-rest if a < 0 else rest)
    raise no_overload(f"_%_ applied to {_pair(a, b)}")


def negate(budget: Budget, a: Any) -> Any:
    if type(a) is int:
        return checked_int(-a)
    if type(a) is float:
        return -a
    if type(a) is Duration:
        return Duration(_nanos(-a.nanos))
    raise no_overload(f"-_ applied to ({type_name(a)})")


_ORDERED = (str, bytes, bool, Timestamp, Duration)


def less(budget: Budget, a: Any, b: Any) -> bool:
    kind, other = type(a), type(b)
    if kind is other and kind in _ORDERED:
        if kind is str or kind is bytes:
            budget.spend(of_text(min(len(a), len(b))))
        return bool(a < b)
    if isinstance(a, (int, float)) and isinstance(b, (int, float)) and kind is not bool and other is not bool:
        return bool(a < b)
    raise no_overload(f"_<_ applied to {_pair(a, b)}")


def less_equal(budget: Budget, a: Any, b: Any) -> bool:
    if type(a) is float or type(b) is float:  # NaN is neither less nor greater
        return less(budget, a, b) or equal(a, b, budget)
    return not less(budget, b, a)


def greater(budget: Budget, a: Any, b: Any) -> bool:
    return less(budget, b, a)


def greater_equal(budget: Budget, a: Any, b: Any) -> bool:
    return less_equal(budget, b, a)


def equals(budget: Budget, a: Any, b: Any) -> bool:
    return equal(a, b, budget)


def differs(budget: Budget, a: Any, b: Any) -> bool:
    return not equal(a, b, budget)


def contained(budget: Budget, a: Any, b: Any) -> bool:
    """``a in b``."""
    if type(b) is list:
        budget.spend(len(b))
        return any(equal(a, item, budget) for item in b)
    if isinstance(b, dict):
        try:
            find_key(b, a)
        except KeyError:
            return False
        return True
    raise no_overload(f"@in applied to {_pair(a, b)}")


def index(budget: Budget, a: Any, b: Any) -> Any:
    """``a[b]``."""
    if type(a) is Optional:
        return optional_index(budget, a, b)
    if type(a) is list:
        position = _position(b)
        if not 0 <= position < len(a):
            raise EvalError(f"index out of bounds: {position}")
        return a[position]
    if isinstance(a, dict):
        try:
            return a[find_key(a, b)]
        except KeyError:
            if type(a) is Defaulting:
                return {}
            raise EvalError(f"no such key: {b}") from None
    if isinstance(a, Lazy) and type(b) is str:
        return a.get_field(b, budget)
    raise no_overload(f"_[_] applied to {_pair(a, b)}")


def _position(b: Any) -> int:
    if isinstance(b, int) and type(b) is not bool:
        return int(b)
    if type(b) is float and b.is_integer():
        return int(b)
    raise EvalError(f"unsupported index type '{type_name(b)}' in list")


def optional_index(budget: Budget, a: Any, b: Any) -> Optional:
    """``a[?b]``."""
    if type(a) is Optional:
        return optional_index(budget, a.value, b) if a.present else a
    if type(a) is list:
        position = _position(b)
        return Optional(True, a[position]) if 0 <= position < len(a) else Optional(False)
    if isinstance(a, dict):
        try:
            return Optional(True, a[find_key(a, b)])
        except KeyError:
            return Optional(True, {}) if type(a) is Defaulting else Optional(False)
    raise no_overload(f"_[?_] applied to {_pair(a, b)}")


#: operator -> (implementation, overloads of the checker: argument types and result)
BINARY: dict[str, tuple[Any, tuple[str, ...]]] = {
    "_+_": (
        add,
        (
            "int, int -> int",
            "uint, uint -> uint",
            "double, double -> double",
            "string, string -> string",
            "bytes, bytes -> bytes",
            "list(A), list(A) -> list(A)",
            "timestamp, duration -> timestamp",
            "duration, timestamp -> timestamp",
            "duration, duration -> duration",
        ),
    ),
    "_-_": (
        subtract,
        (
            "int, int -> int",
            "uint, uint -> uint",
            "double, double -> double",
            "timestamp, timestamp -> duration",
            "timestamp, duration -> timestamp",
            "duration, duration -> duration",
        ),
    ),
    "_*_": (multiply, ("int, int -> int", "uint, uint -> uint", "double, double -> double")),
    "_/_": (divide, ("int, int -> int", "uint, uint -> uint", "double, double -> double")),
    "_%_": (modulo, ("int, int -> int", "uint, uint -> uint")),
    "_==_": (equals, ("A, A -> bool",)),
    "_!=_": (differs, ("A, A -> bool",)),
    "@in": (contained, ("A, list(A) -> bool", "A, map(A, B) -> bool")),
    "_[_]": (
        index,
        (
            "list(A), int -> A",
            "map(A, B), A -> B",
            "optional(list(A)), int -> optional(A)",
            "optional(map(A, B)), A -> optional(B)",
        ),
    ),
    "_[?_]": (
        optional_index,
        (
            "list(A), int -> optional(A)",
            "map(A, B), A -> optional(B)",
            "optional(list(A)), int -> optional(A)",
            "optional(map(A, B)), A -> optional(B)",
        ),
    ),
}
_COMPARED = ("bool", "string", "bytes", "timestamp", "duration")
_NUMBERS = ("int", "uint", "double")
_COMPARISONS = (
    *(f"{kind}, {kind} -> bool" for kind in (*_NUMBERS, *_COMPARED)),
    *(f"{a}, {b} -> bool" for a in _NUMBERS for b in _NUMBERS if a != b),
)
for _name, _run in (("_<_", less), ("_<=_", less_equal), ("_>_", greater), ("_>=_", greater_equal)):
    BINARY[_name] = (_run, _COMPARISONS)
UNARY: dict[str, tuple[Any, tuple[str, ...]]] = {
    "-_": (negate, ("int -> int", "double -> double", "duration -> duration")),
}
