"""The protobuf wire format: bytes to (field number, wire type, value), with every bound checked.

Source: the public description of the encoding. Groups (wire types 3 and 4) are obsolete and refused.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
NAMES = {VARINT: "a varint", FIXED64: "8 bytes", BYTES: "a length and its bytes", FIXED32: "4 bytes"}
_MASK64 = (1 << 64) - 1


class MalformedError(ValueError):
    """Bytes that are not what they should be; ``path`` says in which field, outermost first."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.path: list[str] = []

    def __str__(self) -> str:
        where = ".".join(self.path).replace(".[", "[")
        return f"{where}: {self.args[0]}" if where else str(self.args[0])


def varint(data: bytes, at: int) -> tuple[int, int]:
    """(value below 2**64, the position after it)."""
    value = shift = 0
    for position in range(at, min(at + 10, len(data))):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value > _MASK64:
                raise MalformedError("a varint has more than 64 bits")
            return value, position + 1
        shift += 7
    raise MalformedError("a varint has more than 10 bytes" if shift == 70 else "the data ends within a varint")


def fields(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """(number, wire type, value) of each field in turn; the value is an integer for ``VARINT``, else its bytes."""
    at, end = 0, len(data)
    while at < end:
        key = data[at]  # nearly all keys and lengths are one byte: those need no call
        at += 1
        if key >= 0x80:
            key, at = varint(data, at - 1)
        number, wire_type = key >> 3, key & 7
        if not 0 < number < 1 << 29:
            raise MalformedError(f"{number} is not a field number")
        if wire_type in (VARINT, BYTES):
            if at < end and data[at] < 0x80:
                size = data[at]
                at += 1
            else:
                size, at = varint(data, at)
            if wire_type == VARINT:
                yield number, wire_type, size
                continue
        elif wire_type == FIXED64:
            size = 8
        elif wire_type == FIXED32:
            size = 4
        else:
            raise MalformedError(f"field {number} has the unknown wire type {wire_type}")
        if size > end - at:
            raise MalformedError(f"field {number} wants {size} bytes, {end - at} are left")
        yield number, wire_type, data[at : at + size]
        at += size


def signed64(value: int) -> int:
    """A varint as int64."""
    return value - (1 << 64) if value >> 63 else value


def signed32(value: int) -> int:
    """A varint as int32: its low half, as every implementation reads it."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def packed(data: bytes) -> Iterator[int]:
    """The varints of a packed list."""
    at = 0
    while at < len(data):
        value, at = varint(data, at)
        yield value


def double(data: bytes) -> float:
    """Eight bytes as a number."""
    value: float = struct.unpack("<d", data)[0]
    return value
