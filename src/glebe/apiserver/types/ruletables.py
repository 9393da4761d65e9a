"""Rules of kinds as tables: a path in the object, and what must hold there.

A path's ``[]`` stands for every item of a list; a rule below something that is missing is not asked, unless the path is
that of a struct that always exists (its parents are then taken as empty).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from typing import Any, TypeAlias

from glebe.kube import names as n
from glebe.kube.errors import Cause
from glebe.kube.objects import Object

Check: TypeAlias = Callable[[Any, str], list[Cause]]
"""(value or None, concrete path) -> faults."""
Table: TypeAlias = tuple[tuple[str, Check], ...]

PORT_RANGE = "must be between 1 and 65535, inclusive"
IP_ERROR = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
CIDR_ERROR = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"


def check(table: Table, obj: Object) -> list[Cause]:
    """All faults that the table finds in ``obj``."""
    return [cause for path, rule in table for where, value in values(obj, path) for cause in rule(value, where)]


def values(obj: Any, path: str) -> Iterator[tuple[str, Any]]:
    """(concrete path, value or None) of everything that ``path`` names; ``x?.y`` needs an ``x``."""
    yield from _values(obj, path.split("."), "")


def _values(value: Any, parts: list[str], where: str) -> Iterator[tuple[str, Any]]:
    if not parts:
        yield where, value
        return
    part, rest = parts[0], parts[1:]
    name = part.removesuffix("[]").removesuffix("?")
    below = value.get(name) if isinstance(value, dict) else None
    path = f"{where}.{name}" if where else name
    if part.endswith("[]"):
        for index, item in enumerate(below or ()):
            yield from _values(item, rest, f"{path}[{index}]")
    elif not (part.endswith("?") and below is None):
        yield from _values(below, rest, path)


# -------------------------------------------------------------------------------------------------------------- rules


def required(why: str = "") -> Check:
    """It must be there and not empty."""
    return lambda value, path: [] if value or value is False else [n.required(path, why)]


def named(faults: Callable[[str], tuple[str, ...]], *, optional: bool = False, why: str | None = None) -> Check:
    """A name by ``faults``; missing is a fault of the name's, or required when ``why`` is given."""

    def rule(value: Any, path: str) -> list[Cause]:
        if not value:
            if optional:
                return []
            if why is not None:
                return [n.required(path, why)]
        return [n.invalid(path, value or "", fault) for fault in faults(str(value or ""))]

    return rule


def port(value: Any, path: str) -> list[Cause]:
    number = value or 0
    return [] if isinstance(number, str) or 1 <= number <= 65535 else [n.invalid(path, number, PORT_RANGE)]


def optional_port(value: Any, path: str) -> list[Cause]:
    return [] if value is None else port(value, path)


def one_of(*allowed: str) -> Check:
    """One of the allowed values; missing is none of them."""
    return lambda value, path: [] if value in allowed else [n.not_supported(path, value or "", list(allowed))]


def at_least(least: int, why: str = "") -> Check:
    text = why or f"must be greater than or equal to {least}"
    return lambda value, path: [n.invalid(path, value, text)] if value is not None and value < least else []


def more_than_zero(value: Any, path: str) -> list[Cause]:
    return [] if (value or 0) > 0 else [n.invalid(path, value or 0, "must be greater than zero")]


def address(value: Any, path: str) -> list[Cause]:
    try:
        ip_address(str(value or ""))
    except ValueError:
        return [n.invalid(path, value or "", IP_ERROR)]
    return []


def network(value: Any, path: str) -> list[Cause]:
    try:
        ip_network(str(value or ""))
    except ValueError:
        return [n.invalid(path, value or "", CIDR_ERROR)]
    return []


def qualified(value: Any, path: str) -> list[Cause]:
    return [n.invalid(path, value or "", fault) for fault in n.key_faults(str(value or ""))]
