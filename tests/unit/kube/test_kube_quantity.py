from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glebe.kube import quantity
from glebe.kube.quantity import QuantityError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("100m", Fraction(1, 10)),
        ("1.5Gi", 1610612736),
        ("2e3", 2000),
        ("2E3", 2000),
        ("1E", 10**18),
        ("1e-3", Fraction(1, 1000)),
        (".5", Fraction(1, 2)),
        ("5.", 5),
        ("-3k", -3000),
        ("+1", 1),
        ("12Ki", 12288),
        ("1n", Fraction(1, 10**9)),
        ("0.1n", Fraction(1, 10**9)),  # rounded up
        ("-0.1n", Fraction(-1, 10**9)),  # away from zero
        (8, 8),
        (0.5, Fraction(1, 2)),
        (1e21, 10**21),
    ],
)
def test_parse(text: str | float, value: Fraction | int) -> None:
    assert quantity.parse(text) == value


@pytest.mark.parametrize(
    "text", ["", " ", "1 ", "x", "1K", "1KI", "1ki", "--1", "1..2", "1e", "1.5.5", "1mi", "٣", True]
)
def test_not_a_quantity(text: str) -> None:
    with pytest.raises(QuantityError, match="quantities must match"):
        quantity.parse(text)


def test_an_exponent_cannot_exhaust_the_machine() -> None:
    with pytest.raises(QuantityError):
        quantity.parse("1e999999999")


@pytest.mark.parametrize(
    ("text", "resource", "value"),
    [
        ("100m", "cpu", 100),
        ("1", "cpu", 1000),
        ("0.1m", "cpu", 1),
        (2, "cpu", 2000),
        (0.5, "cpu", 500),
        ("500m", "requests.cpu", 500),
        ("1Ki", "memory", 1024),
        ("1500m", "memory", 2),
        ("8", "nvidia.com/gpu", 8),
        (Fraction(3, 2), "cpu", 1500),
    ],
)
def test_to_int_rounds_up(text: str, resource: str, value: int) -> None:
    assert quantity.to_int(text, resource) == value


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("1024Mi", "1Gi"),
        ("1536Mi", "1536Mi"),
        ("1.5Gi", "1536Mi"),
        ("1000m", "1"),
        ("1500m", "1500m"),
        ("1.5", "1500m"),
        ("2000", "2k"),
        ("1000000", "1M"),
        ("0Mi", "0"),
        ("0.5Mi", "512Ki"),
        ("100Ki", "100Ki"),
        ("1e3", "1e3"),
        ("100e1", "1e3"),
        ("12e6", "12e6"),
        ("-1024Ki", "-1Mi"),
        ("1025", "1025"),
        (8, "8"),
        ("1E", "1E"),
    ],
)
def test_canonical(text: str | int, canonical: str) -> None:
    assert quantity.canonical(text) == canonical


def test_from_int() -> None:
    assert quantity.from_int(1500, "cpu") == "1500m"
    assert quantity.from_int(192000, "cpu") == "192"
    assert quantity.from_int(2 * 1024**4, "memory") == "2Ti"
    assert quantity.from_int(8, "nvidia.com/gpu") == "8"
    assert quantity.from_int(1024, "requests.storage") == "1Ki"


NANOS = st.integers(-(10**24), 10**24)


@settings(max_examples=300)
@given(NANOS)
def test_decimal_form_is_exact_and_comes_back(nanos: int) -> None:
    amount = Fraction(nanos, 10**9)
    assert quantity.parse(quantity.format_decimal(amount)) == amount


@settings(max_examples=300)
@given(st.integers(-(2**70), 2**70))
def test_binary_form_is_exact_and_comes_back(amount: int) -> None:
    assert quantity.parse(quantity.format_binary(amount)) == amount


@settings(max_examples=300)
@given(
    st.from_regex(r"\A-?[0-9]{1,15}(\.[0-9]{1,9})?\Z"),
    st.sampled_from(["", "m", "k", "M", "G", "Ki", "Mi", "Gi", "e3", "e-2"]),
)
def test_canonical_form_keeps_the_value_and_is_stable(digits: str, suffix: str) -> None:
    text = digits + suffix
    once = quantity.canonical(text)
    assert quantity.parse(once) == quantity.parse(text)
    assert quantity.canonical(once) == once


@settings(max_examples=200)
@given(st.integers(0, 10**12), st.sampled_from(["cpu", "memory", "nvidia.com/gpu"]))
def test_integers_come_back(amount: int, resource: str) -> None:
    assert quantity.to_int(quantity.from_int(amount, resource), resource) == amount
