"""The words that many kinds' tables share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from glebe.kube.clock import parse_time
from glebe.kube.duration import format_duration
from glebe.kube.objects import Object

Fill: TypeAlias = Callable[[Object, float], list[Any]]
"""From an object and the present to the cells of its row."""
Printer: TypeAlias = tuple[tuple[str, ...], Fill]
"""The columns of a kind, and what fills them."""
Printers: TypeAlias = dict[str, Printer]
NONE = "<none>"


def since(text: str | None, now: float) -> str:
    """How long ago a time was, as kubectl says it."""
    if not text:
        return "<unknown>"
    try:
        return format_duration(max(0.0, now - parse_time(text)))
    except ValueError:
        return "<invalid>"


def age(obj: Object, now: float) -> str:
    return since(obj["metadata"].get("creationTimestamp"), now)


def name_of(obj: Object) -> str:
    return str(obj["metadata"]["name"])


def spec_of(obj: Object) -> dict[str, Any]:
    return obj.get("spec") or {}


def status_of(obj: Object) -> dict[str, Any]:
    return obj.get("status") or {}


def pairs(labels: dict[str, str] | None) -> str:
    return ",".join(f"{k}={v}" for k, v in sorted((labels or {}).items())) or NONE


def selector_text(selector: dict[str, Any] | None) -> str:
    if not selector:
        return NONE
    parts = [f"{k}={v}" for k, v in sorted((selector.get("matchLabels") or {}).items())]
    for term in selector.get("matchExpressions") or ():
        key, values = term["key"], ",".join(term.get("values") or ())
        text = {"In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})", "Exists": key}
        parts.append(text.get(term["operator"], f"!{key}"))
    return ",".join(parts) or NONE


def containers(obj: Object) -> list[str]:
    """Names and images of the pod template."""
    template = spec_of(obj).get("template") or spec_of(obj).get("jobTemplate", {}).get("spec", {}).get("template") or {}
    found = (template.get("spec") or {}).get("containers") or ()
    return [",".join(c.get("name", "") for c in found), ",".join(c.get("image", "") for c in found)]


def plain(value: Callable[[Object], Any]) -> Fill:
    """Name, one value, age."""
    return lambda obj, now: [name_of(obj), value(obj), age(obj, now)]
