"""CEL's standard functions: conversions, sizes, regular expressions, times."""

from __future__ import annotations

import math
import zoneinfo
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any

from glebe.cel import regex
from glebe.cel.budget import Budget, EvalError, of_text
from glebe.cel.registry import Library
from glebe.cel.syntax import UInt
from glebe.cel.values import (
    INT_MAX,
    INT_MIN,
    UINT_MAX,
    Duration,
    Timestamp,
    TypeValue,
    checked_int,
    checked_uint,
    parse_duration,
    parse_timestamp,
    type_name,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NANO = 1_000_000_000


def free(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that costs nothing beyond its step."""
    return lambda budget, *args: function(*args)


def text_cost(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that reads its first argument once."""

    def run(budget: Budget, first: Any, *args: Any) -> Any:
        budget.spend(of_text(len(first)))
        return function(first, *args)

    return run


def matches(budget: Budget, text: str, pattern: str) -> bool:
    """RE2, anywhere in the text."""
    budget.spend(of_text(len(text) + 1) * max(1, len(pattern) // 4))
    try:
        return regex.compile(pattern).search(text) is not None
    except regex.BadPattern as error:
        raise EvalError(str(error)) from None


def _to_int(value: Any) -> int:
    if type(value) is float:
        if not math.isfinite(value) or not INT_MIN < value < INT_MAX:
            raise EvalError("integer overflow")
        return int(value)
    if type(value) is str:
        try:
            return checked_int(int(value) if len(value) < 30 and "_" not in value else 1 << 70)
        except ValueError:
            raise EvalError(f'strconv.ParseInt: parsing "{value}": invalid syntax') from None
    if type(value) is Timestamp:
        return value.nanos // _NANO
    return checked_int(int(value))


def _to_uint(value: Any) -> UInt:
    if type(value) is float:
        if not math.isfinite(value) or not 0 <= value < UINT_MAX:
            raise EvalError("unsigned integer overflow")
        return UInt(int(value))
    if type(value) is str:
        try:
            return checked_uint(int(value) if len(value) < 30 and "_" not in value else -1)
        except ValueError:
            raise EvalError(f'strconv.ParseUint: parsing "{value}": invalid syntax') from None
    return checked_uint(int(value))


def _to_double(value: Any) -> float:
    try:
        return float(value)
    except ValueError:
        raise EvalError(f'strconv.ParseFloat: parsing "{value}": invalid syntax') from None
    except OverflowError:
        raise EvalError("double overflow") from None


def to_text(value: Any) -> str:
    """``string(value)``."""
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) is float:
        return format_double(value)
    if type(value) in (Timestamp, Duration):
        return str(value.text())
    if type(value) is bytes:
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise EvalError("invalid UTF-8 in bytes, cannot convert to string") from None
    return str(int(value)) if isinstance(value, int) else str(value)


def format_double(value: float) -> str:
    """As Go's ``%g`` with the shortest digits."""
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if math.isnan(value):
        return "NaN"
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    return repr(value).replace("e-0", "e-").replace("e+0", "e+")


def _to_bool(value: Any) -> bool:
    if type(value) is bool:
        return value
    if value in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if value in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise EvalError(f'strconv.ParseBool: parsing "{value}": invalid syntax')


def _zone(name: str) -> tzinfo:
    if name in ("UTC", ""):
        return UTC
    sign = -1 if name[0] == "-" else 1
    hours, colon, minutes = name.lstrip("+-").partition(":")
    if colon and hours.isdigit() and minutes.isdigit():
        return timezone(sign * timedelta(hours=int(hours), minutes=int(minutes)))
    try:
        if len(name) > 64 or ".." in name or name.startswith("/"):
            raise ValueError(name)
        return zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        raise EvalError(f"unknown time zone {name}") from None


def _when(stamp: Timestamp, zone: str) -> datetime:
    try:
        return (_EPOCH + timedelta(microseconds=stamp.nanos // 1000)).astimezone(_zone(zone))
    except OverflowError:
        raise EvalError("timestamp overflow") from None


_TIME_PARTS: dict[str, Callable[[datetime], int]] = {
    "getFullYear": lambda w: w.year,
    "getMonth": lambda w: w.month - 1,
    "getDayOfYear": lambda w: w.timetuple().tm_yday - 1,
    "getDayOfMonth": lambda w: w.day - 1,
    "getDate": lambda w: w.day,
    "getDayOfWeek": lambda w: w.isoweekday() % 7,
    "getHours": lambda w: w.hour,
    "getMinutes": lambda w: w.minute,
    "getSeconds": lambda w: w.second,
    "getMilliseconds": lambda w: w.microsecond // 1000,
}
_DURATION_PARTS = {"getHours": 3600 * _NANO, "getMinutes": 60 * _NANO, "getSeconds": _NANO}


def _size(value: Any) -> int:
    return len(value)


def declare(library: Library) -> None:
    """Add all of these to ``library``."""
    add, member = library.add, library.member
    for kind in ("string", "bytes", "list(A)", "map(A, B)"):
        add(f"size({kind}) -> int", free(_size))
        member(kind, "size() -> int", free(_size))
    add("matches(string, string) -> bool", matches, "regex")
    member("string", "matches(string) -> bool", matches, "regex")
    for kind in ("int", "uint", "double", "string", "timestamp"):
        add(f"int({kind}) -> int", free(_to_int), "text")
    for kind in ("uint", "int", "double", "string"):
        add(f"uint({kind}) -> uint", free(_to_uint), "text")
    for kind in ("double", "int", "uint", "string"):
        add(f"double({kind}) -> double", free(_to_double), "text")
    for kind in ("string", "bool", "int", "uint", "double", "timestamp", "duration"):
        add(f"string({kind}) -> string", free(to_text), "text")
    add("string(bytes) -> string", text_cost(to_text), "text")
    add("bytes(bytes) -> bytes", free(lambda b: b))
    add("bytes(string) -> bytes", text_cost(lambda s: s.encode()), "text")
    add("bool(bool) -> bool", free(_to_bool))
    add("bool(string) -> bool", free(_to_bool))
    add("dyn(A) -> dyn", free(lambda value: value))
    add("type(A) -> type", free(lambda value: TypeValue(type_name(value))))
    add("timestamp(string) -> timestamp", free(parse_timestamp), "text")
    add("timestamp(timestamp) -> timestamp", free(lambda value: value))
    add("timestamp(int) -> timestamp", free(lambda value: Timestamp(value * _NANO)))
    add("duration(string) -> duration", free(parse_duration), "text")
    add("duration(duration) -> duration", free(lambda value: value))
    add("duration(int) -> duration", free(lambda value: Duration(value)))
    for name, part in _TIME_PARTS.items():
        member("timestamp", f"{name}() -> int", free(lambda s, part=part: part(_when(s, "UTC"))))
        member("timestamp", f"{name}(string) -> int", free(lambda s, zone, part=part: part(_when(s, zone))))
    for name, unit in _DURATION_PARTS.items():
        member("duration", f"{name}() -> int", free(lambda d, unit=unit: math.trunc(d.nanos / unit)))
    member("duration", "getMilliseconds() -> int", free(lambda d: d.nanos % _NANO // 1_000_000))
