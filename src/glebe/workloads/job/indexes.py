"""Completion indexes as Kubernetes writes them: ``0-3,5`` (sorted, closed intervals, an interval of two as ``1,2``)."""

from __future__ import annotations

from collections.abc import Iterable


def parse_indexes(text: str | None, limit: int | None = None) -> set[int]:
    """The indexes in ``text`` that are below ``limit``; malformed parts are skipped (they were never written by us)."""
    out: set[int] = set()
    for part in (text or "").split(","):
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            continue
        end = int(last) if dash else int(first)
        if limit is not None:
            end = min(end, limit - 1)
        out.update(range(int(first), end + 1))
    return out


def format_indexes(indexes: Iterable[int]) -> str:
    """Inverse of :func:`parse_indexes`."""
    parts: list[str] = []
    first = last = -2
    for index in [*sorted(indexes), None]:
        if index is not None and index == last + 1:
            last = index
            continue
        if first >= 0:
            if last == first:
                parts.append(str(first))
            else:
                parts.append(f"{first},{last}" if last == first + 1 else f"{first}-{last}")
        if index is not None:
            first = last = index
    return ",".join(parts)
