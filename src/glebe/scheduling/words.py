"""Amounts, times and names in words, as messages use them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from glebe.scheduling.model import GPU
from glebe.scheduling.placement.fleet import HOSTNAME

DAY = 86_400.0


def amount(resource: str, value: int) -> str:
    """``64 GPUs``, ``1.5 CPUs``, ``512Gi memory``, ``3 example.com/fpga``."""
    if resource == GPU:
        return f"{value} GPU{'' if value == 1 else 's'}"
    if resource == "cpu":
        return f"{value / 1000:g} CPU{'' if value == 1000 else 's'}"
    if resource in ("memory", "ephemeral-storage"):
        return f"{_bytes(value)} {resource}"
    return f"{value} {resource}"


def bare(resource: str, value: int) -> str:
    """The amount without the resource's name."""
    if resource == "cpu":
        return f"{value / 1000:g}"
    return _bytes(value) if resource in ("memory", "ephemeral-storage") else str(value)


def more(number: str) -> str:
    """``24 more are``, ``1 more is``."""
    return f"{number} more {'is' if number == '1' else 'are'}"


def _bytes(value: int) -> str:
    for unit, size in (("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return str(value)


def clock(at: float, now: float) -> str:
    """``12:40 UTC``; with the date when it is not within a day."""
    moment = datetime.fromtimestamp(at, UTC)
    return moment.strftime("%H:%M UTC" if at - now < DAY else "%d %b %H:%M UTC")


def level(key: str) -> str:
    """A topology level's label key as a word: ``topology.glebe.dev/block`` is a block."""
    if key in (HOSTNAME, ""):
        return "host"
    return key.rsplit("/", 1)[-1].removeprefix("topology-")


def names(items: Iterable[str], most: int = 3) -> str:
    """``a, b and c``; ``a, b, c and 4 others``."""
    listed = list(items)
    if len(listed) > most:
        more = len(listed) - most
        return f"{', '.join(listed[:most])} and {more} other{'s' * (more > 1)}"
    return " and ".join(filter(None, [", ".join(listed[:-1]), *listed[-1:]]))
