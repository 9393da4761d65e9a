"""JSON values as CEL's, where a schema says more than JSON can."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from glebe.cel.budget import EvalError
from glebe.cel.types import Type
from glebe.cel.values import parse_duration, parse_timestamp


def from_raw(kind: Type) -> Callable[[Any], Any] | None:
    """What turns a JSON value into CEL's where the schema says more than JSON can; leaves CEL's own as they are."""
    return _CONVERTERS.get(kind.kind)


def _bytes(value: Any) -> Any:
    if type(value) is not str:
        return value
    try:
        return base64.b64decode(value)
    except ValueError:
        raise EvalError("invalid base64") from None


_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "double": lambda v: float(v) if type(v) is int else v,
    "timestamp": lambda v: _time(v) if type(v) is str else v,
    "duration": lambda v: parse_duration(v) if type(v) is str else v,
    "bytes": _bytes,
}


def _time(text: str) -> Any:
    return parse_timestamp(text if len(text) > 10 else f"{text}T00:00:00Z")
