"""Which time of a schedule is due, and when the next one comes."""

from __future__ import annotations

from dataclasses import dataclass

from glebe.kube.cron import Schedule

MANY = 100
"""More missed times than this are worth a warning."""
DELTA = 0.1
"""Seconds after a time of the schedule at which it is looked at, so that it is not looked at too early."""


class NeverDue(ValueError):
    """A schedule whose times make no sense, such as the 31st of February."""


@dataclass(frozen=True, slots=True)
class Due:
    """``latest``: the last time that has come since ``earliest``. ``missed`` is estimated from the first interval."""

    earliest: float
    latest: float | None = None
    missed: int = 0


def look(schedule: Schedule, since: float, now: float, deadline: float | None = None) -> Due:
    """What has come due after ``since`` (and, with a deadline, within the last ``deadline`` seconds).

    :raises NeverDue: the schedule has no times.
    """
    earliest = since if deadline is None else max(since, now - deadline)
    first = schedule.next(earliest)
    second = None if first is None else schedule.next(first)
    if first is not None and now < first:
        return Due(earliest)
    if first is not None and second is not None and now < second:
        return Due(earliest, first)
    if first is None or second is None or second - first < 1:
        raise NeverDue("time difference between two schedules is less than 1 second")
    interval = int(second - first)
    missed = int(now - first) // interval + 1
    return Due(earliest, _last(schedule, first, now, interval), missed)


def _last(schedule: Schedule, first: float, now: float, interval: int) -> float:
    """The last time until ``now``, looked for from a few intervals before it: they may differ in length."""
    back = 2
    while (start := first + ((now - first) // interval - back) * interval) > first:
        moment = schedule.next(start)
        if moment is not None and moment <= now:
            break
        back *= 2
    latest = first if start <= first else moment or first
    moment = schedule.next(latest)
    while moment is not None and moment <= now:
        latest, moment = moment, schedule.next(moment)
    return latest


def until_next(schedule: Schedule, since: float, now: float) -> float:
    """Seconds until the next time of the schedule is to be looked at."""
    try:
        due = look(schedule, since, now)
        start = due.latest if due.latest is not None else now if due.missed else due.earliest
    except NeverDue:
        start = now
    following = schedule.next(start)
    return max(DELTA, (following if following is not None else now) + DELTA - now)
