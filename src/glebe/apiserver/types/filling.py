"""How a default gets into an object."""

from __future__ import annotations

from typing import Any


def fill(values: dict[str, Any], name: str, default: Any) -> Any:
    """Give ``values[name]`` its default unless it has a value; returns what it has then.

    null is no value, and neither is "" where a text is due: typed clients send the empty text for what was not set.
    """
    present = values.get(name)
    if present is None or (present == "" and default.__class__ is str):
        values[name] = default
        return default
    return present
