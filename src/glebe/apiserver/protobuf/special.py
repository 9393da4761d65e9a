"""Messages whose JSON is not an object of their fields: times, quantities, raw JSON and their like."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import orjson

from glebe.apiserver.protobuf.wire import BYTES, NAMES, VARINT, MalformedError, fields, signed32, signed64

_META = "io.k8s.apimachinery.pkg.apis.meta.v1"
_EPOCH = datetime(1970, 1, 1)


def values(data: bytes, wanted: dict[int, int]) -> dict[int, Any]:
    """Number -> last value of the fields in ``wanted`` (number -> wire type)."""
    found: dict[int, Any] = {}
    for number, wire_type, value in fields(data):
        if number in wanted:
            if wire_type != wanted[number]:
                raise MalformedError(f"expected {NAMES[wanted[number]]}, got {NAMES[wire_type]}")
            found[number] = value
    return found


def text(data: bytes) -> str:
    """A string.

    :raises MalformedError: when it is not UTF-8.
    """
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise MalformedError("the string is not UTF-8") from None


def raw_json(data: bytes) -> Any:
    """JSON in a field of bytes; None when there is none."""
    if not data:
        return None
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise MalformedError(f"the raw value is not JSON: {error}") from None


def _quantity(data: bytes) -> str:
    return text(values(data, {1: BYTES}).get(1, b"")) or "0"


def _int_or_string(data: bytes) -> int | str:
    found = values(data, {1: VARINT, 2: VARINT, 3: BYTES})
    kind = found.get(1, 0)
    if kind not in (0, 1):
        raise MalformedError(f"{kind} is neither the type of an integer (0) nor of a string (1)")
    return text(found.get(3, b"")) if kind else signed32(found.get(2, 0))


def _moment(data: bytes) -> tuple[datetime, int] | None:
    """(UTC time in whole seconds, nanoseconds); None for the zero time, which has no bytes."""
    if not data:
        return None
    found = values(data, {1: VARINT, 2: VARINT})
    seconds, nanos = signed64(found.get(1, 0)), signed32(found.get(2, 0))
    if not 0 <= nanos < 10**9:
        raise MalformedError(f"{nanos} nanoseconds are not the fraction of a second")
    try:
        return _EPOCH + timedelta(seconds=seconds), nanos
    except OverflowError:
        raise MalformedError(f"{seconds} seconds since 1970 is not in the years 1 to 9999") from None


def _time(data: bytes) -> str | None:
    moment = _moment(data)
    return f"{moment[0].isoformat()}Z" if moment else None


def _micro_time(data: bytes) -> str | None:
    moment = _moment(data)
    return f"{moment[0].isoformat()}.{moment[1] // 1000:06d}Z" if moment else None


def _raw(data: bytes) -> Any:
    return raw_json(values(data, {1: BYTES}).get(1, b""))


#: full name -> what its bytes are in JSON; a zero value has no bytes
PLAIN: dict[str, Callable[[bytes], Any]] = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": _quantity,
    "io.k8s.apimachinery.pkg.runtime.RawExtension": _raw,
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": _int_or_string,
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON": _raw,
    f"{_META}.FieldsV1": _raw,
    f"{_META}.MicroTime": _micro_time,
    f"{_META}.Time": _time,
}


def base64_text(data: bytes) -> str:
    """Bytes as JSON has them."""
    return base64.b64encode(data).decode()
