"""CEL values as JSON, for what expressions make."""

from __future__ import annotations

import base64
from typing import Any

from glebe.cel.budget import EvalError
from glebe.cel.kubernetes import Quantity
from glebe.cel.standard import to_text
from glebe.cel.values import Duration, Optional, Timestamp, type_name
from glebe.kube import quantity


def to_json(value: Any) -> Any:
    """Plain dicts, lists and scalars.

    :raises EvalError: the value has no form in JSON.
    """
    if value is None or type(value) in (bool, str, float):
        return value
    if isinstance(value, int):
        return int(value)
    if type(value) is list:
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {_key(key): to_json(item) for key, item in value.items()}
    if type(value) in (Timestamp, Duration):
        return value.text()
    if type(value) is bytes:
        return base64.b64encode(value).decode()
    if isinstance(value, Quantity):
        return quantity.format_decimal(value.amount)
    if type(value) is Optional and value.present:
        return to_json(value.value)
    raise EvalError(f"type '{type_name(value)}' cannot be written as JSON")


def _key(key: Any) -> str:
    return key if type(key) is str else to_text(key)
