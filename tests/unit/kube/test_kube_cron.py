"""Schedules: fields, names, time zones, changes of clocks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glebe.kube.cron import ScheduleError, location, parse


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=location(zone)).timestamp()


def shown(moment: float | None, zone: str = "UTC") -> str:
    return "" if moment is None else datetime.fromtimestamp(moment, location(zone)).strftime("%Y-%m-%dT%H:%M%z")


@pytest.mark.parametrize(
    ("text", "after", "expected"),
    [
        ("* * * * *", "2026-01-01T00:00:00", "2026-01-01T00:01"),
        ("*/15 * * * *", "2026-01-01T00:14:59", "2026-01-01T00:15"),
        ("5 4 * * sun", "2026-01-01T00:00:00", "2026-01-04T04:05"),
        ("0 0 1 JAN ?", "2026-01-01T00:00:00", "2027-01-01T00:00"),
        ("0 22 * * 1-5", "2026-01-02T22:00:00", "2026-01-05T22:00"),
        ("0 0 13 * 5", "2026-01-01T00:00:00", "2026-01-02T00:00"),
        ("0 0 */2 * 5", "2026-01-02T00:00:00", "2026-01-03T00:00"),
        ("30 6-16/4 * * *", "2026-01-01T10:30:00", "2026-01-01T14:30"),
        ("7/20 * * * *", "2026-01-01T00:08:00", "2026-01-01T00:27"),
        ("0 0 29 2 *", "2026-01-01T00:00:00", "2028-02-29T00:00"),
        ("59 23 31 12 *", "2026-12-31T23:59:00", "2027-12-31T23:59"),
        ("@hourly", "2026-01-01T00:00:00", "2026-01-01T01:00"),
        ("@weekly", "2026-01-01T00:00:00", "2026-01-04T00:00"),
        ("@every 90m", "2026-01-01T00:00:00", "2026-01-01T01:30"),
    ],
)
def test_the_next_time(text: str, after: str, expected: str) -> None:
    assert shown(parse(text).next(at(after)))[:16] == expected


def test_a_day_that_never_comes() -> None:
    assert parse("59 23 31 2 *").next(at("2026-01-01T00:00:00")) is None


@pytest.mark.parametrize(
    ("text", "zone", "after", "expected"),
    [
        ("30 9 * * *", "America/New_York", "2026-07-01T00:00:00", "2026-07-01T09:30-0400"),
        ("30 2 * * *", "America/New_York", "2026-03-08T00:00:00", "2026-03-09T02:30-0400"),  # there is no 02:30
        ("30 1 * * *", "America/New_York", "2026-11-01T00:00:00", "2026-11-01T01:30-0400"),
        ("0 0 * * *", "America/Havana", "2026-03-07T12:00:00", "2026-03-09T00:00-0400"),  # there is no midnight
        ("0 * * * *", "Asia/Kolkata", "2026-01-01T00:10:00", "2026-01-01T01:00+0530"),
    ],
)
def test_local_time(text: str, zone: str, after: str, expected: str) -> None:
    assert shown(parse(text, zone).next(at(after, zone)), zone) == expected


def test_an_hour_that_comes_twice_has_its_times_twice() -> None:
    schedule, moment = parse("30 1 * * *", "America/New_York"), at("2026-11-01T00:00:00", "America/New_York")
    found = []
    for _ in range(3):
        moment = schedule.next(moment) or 0.0
        found.append(shown(moment, "America/New_York"))
    assert found == ["2026-11-01T01:30-0400", "2026-11-01T01:30-0500", "2026-11-02T01:30-0500"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty spec string"),
        ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
        ("1/2/3 * * * *", "too many slashes: 1/2/3"),
        ("x * * * *", 'failed to parse int from x: strconv.Atoi: parsing "x": invalid syntax'),
        ("@never", "unrecognized descriptor: @never"),
        ("TZ=Nowhere/Land * * * * *", "provided bad location Nowhere/Land: unknown time zone Nowhere/Land"),
    ],
)
def test_what_is_no_schedule(text: str, message: str) -> None:
    with pytest.raises(ScheduleError) as error:
        parse(text)
    assert str(error.value) == message


@settings(max_examples=60)
@given(
    minute=st.sampled_from(["*", "0", "7,30", "*/25"]),
    hour=st.sampled_from(["*", "2", "1-3", "*/6"]),
    day=st.sampled_from(["*", "8", "1,29"]),
    weekday=st.sampled_from(["*", "0", "1-5"]),
    zone=st.sampled_from(["UTC", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
    start=st.integers(0, 400 * 1440),
)
def test_nothing_is_skipped_and_nothing_invented(
    minute: str, hour: str, day: str, weekday: str, zone: str, start: int
) -> None:
    """Beside a walk through every minute."""
    schedule = parse(f"{minute} {hour} {day} * {weekday}", zone)
    first = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=start)
    where = location(zone)

    def due(moment: datetime) -> bool:
        local = moment.astimezone(where)
        on_day, on_weekday = local.day in schedule.days, local.isoweekday() % 7 in schedule.weekdays
        on = on_day and on_weekday if "*" in (day, weekday) else on_day or on_weekday
        return on and local.hour in schedule.hours and local.minute in schedule.minutes

    expected = next((m for i in range(1, 4000) if due(m := first + timedelta(minutes=i))), None)
    found = schedule.next(first.timestamp())
    if expected is not None:
        assert found == expected.timestamp()
    else:
        assert found is None or found > (first + timedelta(minutes=3999)).timestamp()
