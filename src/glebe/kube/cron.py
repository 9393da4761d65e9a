"""Schedules as CronJobs have them: five fields, named schedules, ``@every``; in any time zone.

A schedule stands for all whole minutes whose local time matches its fields: an hour that a change of clocks leaves out
has none, one that comes twice has them twice. Words of errors are those of the parser that upstream uses
(``robfig/cron``).
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final, NamedTuple

from glebe.kube.duration import parse_duration

_YEARS = 5  # how far ahead a next time is looked for


class ScheduleError(ValueError):
    """Not a schedule."""


class _Field(NamedTuple):
    low: int
    high: int
    names: Mapping[str, int] = {}


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: Final = (
    _Field(0, 59),
    _Field(0, 23),
    _Field(1, 31),
    _Field(1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    _Field(0, 6, {name: number for number, name in enumerate(_DAYS)}),
)
_NAMED: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_EVERY = "@every "


@dataclass(frozen=True, slots=True)
class Schedule:
    """When something is due. Either ``every`` (seconds) or the five sets of numbers count.

    ``any_day`` and ``any_weekday``: the field says ``*``. When both days are restricted, either is enough.
    """

    zone: tzinfo = UTC
    every: float = 0.0
    minutes: frozenset[int] = frozenset()
    hours: frozenset[int] = frozenset()
    days: frozenset[int] = frozenset()
    months: frozenset[int] = frozenset()
    weekdays: frozenset[int] = frozenset()
    any_day: bool = True
    any_weekday: bool = True
    _minutes: tuple[int, ...] = field(default=())

    def next(self, after: float) -> float | None:
        """The first time (Unix seconds) later than ``after``; ``None`` when there is none within five years."""
        if self.every:
            return float(int(after)) + self.every
        moment = float(int(after) // 60 * 60 + 60)
        last = datetime.fromtimestamp(moment, self.zone).year + _YEARS
        while True:
            local = datetime.fromtimestamp(moment, self.zone)
            if local.year > last:
                return None
            if local.month not in self.months:
                first = datetime(local.year + local.month // 12, local.month % 12 + 1, 1, tzinfo=self.zone)
                moment = max(first.timestamp(), moment + 60)
            elif not self._on(local):
                midnight = datetime(local.year, local.month, local.day, tzinfo=self.zone) + timedelta(days=1)
                moment = max(midnight.timestamp(), moment + 60)
            elif local.hour not in self.hours:
                moment += 3600 - local.minute * 60 - local.second
            elif local.minute not in self.minutes:
                later = next((m for m in self._minutes if m > local.minute), 60)
                moment += (later - local.minute) * 60 - local.second
            else:
                return moment

    def _on(self, local: datetime) -> bool:
        day, weekday = local.day in self.days, local.isoweekday() % 7 in self.weekdays
        return (day and weekday) if self.any_day or self.any_weekday else (day or weekday)


@lru_cache(maxsize=1024)
def parse(text: str, zone: str = "") -> Schedule:
    """The schedule ``text`` in a time zone (by default UTC). ``TZ=NAME`` before the fields wins, as it always did.

    :raises ScheduleError: no schedule, or no such time zone.
    """
    if text.startswith(("TZ=", "CRON_TZ=")):
        head, _, text = text.partition(" ")
        zone = head.partition("=")[2]
        try:
            where = location(zone)
        except ScheduleError as error:
            raise ScheduleError(f"provided bad location {zone}: {error}") from None
        text = text.strip()
    else:
        where = location(zone)
    if not text:
        raise ScheduleError("empty spec string")
    if text.startswith(_EVERY):
        return Schedule(where, every=_period(text))
    if text.startswith("@"):
        if text not in _NAMED:
            raise ScheduleError(f"unrecognized descriptor: {text}")
        text = _NAMED[text]
    parts = text.split()
    if len(parts) != len(_FIELDS):
        raise ScheduleError(f"expected exactly 5 fields, found {len(parts)}: [{' '.join(parts)}]")
    sets = [_field(part, bounds) for part, bounds in zip(parts, _FIELDS, strict=True)]
    (minutes, _), (hours, _), (days, any_day), (months, _), (weekdays, any_weekday) = sets
    return Schedule(
        where, 0.0, minutes, hours, days, months, weekdays, any_day, any_weekday, tuple(sorted(minutes))
    )  # fmt: skip


def location(name: str) -> tzinfo:
    """A time zone by its name in the IANA database; "" is UTC.

    :raises ScheduleError: there is none of that name.
    """
    if name in ("", "UTC"):
        return UTC
    try:
        return zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        raise ScheduleError(f"unknown time zone {name}") from None


def _period(text: str) -> float:
    try:
        seconds = parse_duration(text[len(_EVERY) :])
    except ValueError as error:
        raise ScheduleError(f"failed to parse duration {text}: {error}") from None
    return float(max(1, int(seconds)))


def _field(text: str, bounds: _Field) -> tuple[frozenset[int], bool]:
    """The numbers of a field, and whether it is ``*``."""
    numbers: set[int] = set()
    star = False
    for part in text.split(","):
        if part:
            found, whole = _range(part, bounds)
            numbers |= set(found)
            star = star or whole
    return frozenset(numbers), star


def _range(text: str, bounds: _Field) -> tuple[range, bool]:
    """``*``, ``N``, ``N-M``, each with ``/STEP``."""
    span, *steps = text.split("/")
    ends = span.split("-")
    star = ends[0] in ("*", "?")
    if star:
        low, high = bounds.low, bounds.high
    else:
        low = high = _number(ends[0], bounds.names)
        if len(ends) == 2:
            high = _number(ends[1], bounds.names)
        elif len(ends) > 2:
            raise ScheduleError(f"too many hyphens: {text}")
    step = 1
    if len(steps) > 1:
        raise ScheduleError(f"too many slashes: {text}")
    if steps:
        step = _number(steps[0], {})
        high = bounds.high if len(ends) == 1 else high
    if low < bounds.low:
        raise ScheduleError(f"beginning of range ({low}) below minimum ({bounds.low}): {text}")
    if high > bounds.high:
        raise ScheduleError(f"end of range ({high}) above maximum ({bounds.high}): {text}")
    if low > high:
        raise ScheduleError(f"beginning of range ({low}) beyond end of range ({high}): {text}")
    if step == 0:
        raise ScheduleError(f"step of range should be a positive number: {text}")
    return range(low, high + 1, step), star and step == 1


def _number(text: str, names: Mapping[str, int]) -> int:
    if text.lower() in names:
        return names[text.lower()]
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not (digits.isascii() and digits.isdigit()):
        raise ScheduleError(f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax')
    if int(text) < 0:
        raise ScheduleError(f"negative number ({int(text)}) not allowed: {text}")
    return int(text)
