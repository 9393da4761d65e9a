from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glebe.kube.duration import format_duration, format_go_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1h30m", 5400), ("90s", 90), ("90", 90), ("1.5h", 5400), ("2d", 172800), ("250ms", 0.25), ("-5m", -300), (7, 7)],
)
def test_parse(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "5x", "1h 30m", "five", "1h30", "--5s"])
def test_not_a_duration(text: str) -> None:
    with pytest.raises(ValueError, match="write for example"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119.9, "119s"),
        (120, "2m"),
        (310, "5m10s"),
        (600, "10m"),
        (3 * 3600 + 300, "3h5m"),
        (9 * 3600 + 300, "9h"),
        (50 * 3600, "2d2h"),
        (30 * 86400, "30d"),
        (3 * 365 * 86400, "3y"),
        (-5, "<invalid>"),
    ],
)
def test_as_kubectl_prints_ages(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (90, "1m30s"), (5400, "1h30m0s"), (1.5, "1.5s"), (-60, "-1m0s"), (3600, "1h0m0s")]
)
def test_as_it_stands_in_objects(seconds: float, text: str) -> None:
    assert format_go_duration(seconds) == text


@given(st.integers(0, 10**8))
def test_comes_back(milliseconds: int) -> None:
    assert parse_duration(format_go_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000, abs=1e-6)
