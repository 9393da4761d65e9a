"""CEL's values in Python: most are themselves (int, float, str, bytes, bool, None, list, dict); these are not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from glebe.cel.budget import Budget, EvalError
from glebe.cel.syntax import UInt

INT_MIN, INT_MAX, UINT_MAX = -(1 << 63), (1 << 63) - 1, (1 << 64) - 1
_NANO = 1_000_000_000
_UNITS = {
    "ns": 1, "us": 1000, "µs": 1000, "μs": 1000, "ms": 1_000_000, "s": _NANO, "m": 60 * _NANO, "h": 3600 * _NANO,
}  # fmt: skip
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, order=True)
class Duration:
    """Nanoseconds."""

    nanos: int

    def text(self) -> str:
        """As CEL writes it: seconds."""
        whole, part = divmod(abs(self.nanos), _NANO)
        sign = "-" if self.nanos < 0 else ""
        return f"{sign}{whole}{f'.{part:09d}'.rstrip('0') if part else ''}s"


@dataclass(frozen=True, slots=True, order=True)
class Timestamp:
    """Nanoseconds since 1970 in UTC."""

    nanos: int

    def text(self) -> str:
        """RFC 3339."""
        part = self.nanos % _NANO
        when = _EPOCH + timedelta(seconds=self.nanos // _NANO)
        return when.strftime("%Y-%m-%dT%H:%M:%S") + (f".{part:09d}".rstrip("0") if part else "") + "Z"


@dataclass(frozen=True, slots=True)
class TypeValue:
    """A type as a value: ``type(x)``, ``int``."""

    name: str


class Optional:
    """``optional.of(value)`` or ``optional.none()``."""

    __slots__ = ("present", "value")

    def __init__(self, present: bool, value: Any = None) -> None:
        self.present = present
        self.value = value


NONE = Optional(False)


class StructValue(dict[str, Any]):
    """What ``Name{...}`` made."""

    __slots__ = ("type_name",)

    def __init__(self, type_name: str, fields: dict[str, Any]) -> None:
        super().__init__(fields)
        self.type_name = type_name


class Extension:
    """Base of the values that the libraries add; they say their own type's name and how they compare."""

    __slots__ = ()
    type_name = ""

    def equals(self, other: Any) -> bool:
        """Equal in CEL's sense; ``other`` is of the same class."""
        return self is other


class Defaulting(dict[str, Any]):
    """A map in which every key that is missing stands for ``{}``, though ``in`` says that it is missing."""

    __slots__ = ()

    def __missing__(self, key: str) -> dict[str, Any]:
        return {}


class Lazy:
    """A map whose fields are found when they are first asked for (``variables``)."""

    __slots__ = ()

    def get_field(self, name: str, budget: Budget) -> Any:
        """:raises EvalError: there is no such field."""
        raise NotImplementedError


_TYPE_NAMES: dict[type, str] = {
    int: "int", UInt: "uint", float: "double", str: "string", bytes: "bytes", bool: "bool", type(None): "null_type",
    list: "list", dict: "map", Duration: "google.protobuf.Duration", Timestamp: "google.protobuf.Timestamp",
    Optional: "optional_type", TypeValue: "type",
}  # fmt: skip


def type_name(value: Any) -> str:
    """The name of a value's type."""
    name = _TYPE_NAMES.get(type(value))
    if name is not None:
        return name
    if isinstance(value, (StructValue, Extension)):
        return value.type_name
    return "map" if isinstance(value, (dict, Lazy)) else type(value).__name__


def no_overload(name: str = "") -> EvalError:
    return EvalError(f"no such overload: {name}" if name else "no such overload")


def checked_int(value: int) -> int:
    if INT_MIN <= value <= INT_MAX:
        return value
    raise EvalError("integer overflow")


def checked_uint(value: int) -> UInt:
    if 0 <= value <= UINT_MAX:
        return UInt(value)
    raise EvalError("unsigned integer overflow")


def parse_duration(text: str) -> Duration:
    """Go's notation, e.g. ``1h30m``."""
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return Duration(0)
    total, at = 0, 0
    while at < len(rest):
        match = _DURATION.match(rest, at)
        if match is None or len(match.group(1)) > 30:
            break
        whole, _, part = match.group(1).partition(".")
        unit = _UNITS[match.group(2)]
        total += int(whole or 0) * unit + (int(part) * unit // 10 ** len(part) if part else 0)
        at = match.end()
    if at < len(rest) or not rest or total > INT_MAX:
        raise EvalError(f'time: invalid duration "{text}"')
    return Duration(-total if text[0] == "-" else total)


def parse_timestamp(text: str) -> Timestamp:
    """RFC 3339."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise EvalError(f'parsing time "{text}" as "2006-01-02T15:04:05Z07:00": cannot parse "{text}" as "2006"')
    year, month, day, hour, minute, second = (int(g) for g in match.groups()[:6])
    try:
        when = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError as error:
        raise EvalError(f'parsing time "{text}": {error}') from None
    zone = match.group(8)
    offset = 0 if zone in "zZ" else (int(zone[1:3]) * 3600 + int(zone[4:6]) * 60) * (-1 if zone[0] == "-" else 1)
    fraction = int((match.group(7) or ".0")[1:10].ljust(9, "0"))
    return Timestamp((int((when - _EPOCH).total_seconds()) - offset) * _NANO + fraction)


def equal(a: Any, b: Any, budget: Budget) -> bool:
    """CEL's ``==``: numbers by value whatever their type, collections by content, different types are not equal."""
    kind = type(a)
    if kind is str or kind is bytes:
        if type(b) is not kind or len(a) != len(b):
            return False
        budget.spend(1 + len(a) // 10)
        return bool(a == b)
    if kind is bool or a is None:
        return a is b
    if isinstance(a, (int, float)):
        return isinstance(b, (int, float)) and type(b) is not bool and a == b
    if kind is list:
        if type(b) is not list or len(a) != len(b):
            return False
        budget.spend(1 + len(a))
        return all(equal(x, y, budget) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        if not isinstance(b, dict) or len(a) != len(b):
            return False
        budget.spend(1 + len(a))
        return all(k in b and equal(v, b[k], budget) for k, v in a.items())
    if kind is Optional:
        if type(b) is not Optional or a.present != b.present:
            return False
        return not a.present or equal(a.value, b.value, budget)
    if kind is not type(b):
        return False
    return bool(a.equals(b)) if isinstance(a, Extension) else bool(a == b)


def key_of(value: Any) -> Any:
    """A value as the key of a Python dict: bool and int must not meet, equal numbers must."""
    if type(value) is bool:
        return value
    if type(value) is float and value.is_integer():
        return int(value)
    if isinstance(value, (str, int)):
        return value
    raise EvalError(f"unsupported key type: {type_name(value)}")


def find_key(mapping: dict[Any, Any], key: Any) -> Any:
    """The key under which ``mapping`` holds ``key``; raises KeyError."""
    wanted = key_of(key)
    if wanted not in mapping:
        raise KeyError(key)
    if (
        type(wanted) is not str
        and wanted in (0, 1)
        and not any(k is wanted or type(k) is type(wanted) for k in mapping)
    ):
        raise KeyError(key)  # True == 1 for Python
    return wanted
