"""Amounts that are a number or a share: ``2`` or ``"25%"``."""

from __future__ import annotations


def scaled(value: int | str, total: int, *, up: bool) -> int:
    """``value`` as a number; a share of ``total`` is rounded up or down.

    :raises ValueError: neither a number nor a share.
    """
    if isinstance(value, int):
        return value
    if not value.endswith("%"):
        return int(value)
    share = int(value[:-1]) * total
    return -(-share // 100) if up else share // 100
