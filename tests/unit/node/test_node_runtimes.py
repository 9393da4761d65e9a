from __future__ import annotations

import statistics

import pytest

from glebe.node.simulated import runtimes


@pytest.mark.parametrize(
    ("text", "expected"), [("90", 90.0), ("30s", 30.0), ("1h30m", 5400.0), ("250ms", 0.25), ("1.5m", 90.0), ("0", 0.0)]
)
def test_plain_durations(text: str, expected: float) -> None:
    assert runtimes.sample(text, "x") == expected


def test_distributions_are_pure_functions_of_text_and_seed() -> None:
    text = "lognormal(60s, 0.5)"
    samples = [runtimes.sample(text, str(i)) for i in range(2000)]
    assert samples == [runtimes.sample(text, str(i)) for i in range(2000)]
    assert 55 < statistics.median(samples) < 65
    assert all(10 <= runtimes.sample("uniform(10s, 1m)", str(i)) <= 60 for i in range(100))
    assert runtimes.sample("exponential(0s)", "x") == 0.0


@pytest.mark.parametrize(
    "text",
    ["", "often", "-5s", "nan", "inf", "lognormal(60s)", "lognormal(60s, -1)", "uniform(2s, 1s)", "exponential()"],
)
def test_nonsense_is_refused_with_help(text: str) -> None:
    with pytest.raises(ValueError):
        runtimes.check(text)
