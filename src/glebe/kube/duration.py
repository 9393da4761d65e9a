"""Durations as people write them and as kubectl prints them."""

from __future__ import annotations

import math
import re

_UNITS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 604800.0,
}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h|d|w)", re.ASCII)
_NUMBER = re.compile(r"\d+(?:\.\d*)?|\.\d+", re.ASCII)


def parse_duration(text: str | float) -> float:
    """Seconds in ``1h30m``, ``90s``, ``1.5h``, ``2d`` or a plain number of seconds; a leading ``-`` is allowed.

    :raises ValueError: ``text`` is not a duration.
    """
    if isinstance(text, int | float) and not isinstance(text, bool):
        return float(text)
    stripped = str(text).strip()
    sign = -1.0 if stripped.startswith("-") else 1.0
    rest = stripped.removeprefix("-").removeprefix("+")
    if _NUMBER.fullmatch(rest):
        return sign * float(rest)
    total, position = 0.0, 0
    while match := _PART.match(rest, position):
        total += float(match[1]) * _UNITS[match[2]]
        position = match.end()
    if position != len(rest) or not rest:
        raise ValueError(f"{text!r} is not a duration: write for example 90s, 20m, 1h30m or 2d")
    return sign * total


def format_duration(seconds: float) -> str:
    """As kubectl prints ages (``5m10s``, ``3h5m``, ``2d4h``): two units where the smaller one still says something."""
    if seconds < 0:
        return "<invalid>" if seconds < -1 else "0s"
    whole = math.floor(seconds)
    if whole < 120:
        return f"{whole}s"
    minutes = whole // 60
    if minutes < 10:
        return _two(minutes, "m", whole % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    hours = whole // 3600
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    days = hours // 24
    if hours < 192:
        return _two(days, "d", hours % 24, "h")
    if days < 365 * 2:
        return f"{days}d"
    years = days // 365
    return _two(years, "y", days % 365, "d") if years < 8 else f"{years}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def format_go_duration(seconds: float) -> str:
    """As a ``metav1.Duration`` in an object: ``1h30m0s``, ``1m30s``, ``0s``, ``1.5s``."""
    sign, rest = ("-", -seconds) if seconds < 0 else ("", seconds)
    nanos = round(rest * 1e9)
    hours, nanos = divmod(nanos, 3600 * 10**9)
    minutes, nanos = divmod(nanos, 60 * 10**9)
    tail = f"{nanos / 1e9:.9f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{sign}{hours}h{minutes}m{tail}"
    return f"{sign}{minutes}m{tail}" if minutes else f"{sign if nanos else ''}{tail}"
