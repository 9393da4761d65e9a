"""How long a workload is predicted to run: what its owner says, what its class says, or a wide guess."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from glebe.kube.duration import parse_duration
from glebe.scheduling.model import RunTime

#: Of one value given as expectation, the 90th percentile is this much longer.
SPREAD = 1.5
UNKNOWN = RunTime(3600.0, 4 * 3600.0)


def parse_expected(text: str) -> RunTime:
    """``20m`` (the median) or ``20m..35m`` (median and 90th percentile).

    :raises ValueError: with what is wrong and what would be right.
    """
    first, dots, second = text.partition("..")
    try:
        p50 = float(parse_duration(first.strip()))
        p90 = float(parse_duration(second.strip())) if dots else p50 * SPREAD
    except ValueError as error:
        raise ValueError(
            f"{text!r} is not a run time ({error}): write 20m, or 20m..35m for median..90th percentile"
        ) from error
    if p50 <= 0 or p90 < p50:
        raise ValueError(f"{text!r} is not a run time: it must be above zero, and the second value not below the first")
    return RunTime(p50, p90)


def predict(expected: str | None, class_p50: float | None, class_p90: float | None, bound: float | None) -> RunTime:
    """The prediction from the annotation, else from the class, else :data:`UNKNOWN`; never above ``bound``.

    An annotation that cannot be read counts as missing (admission refuses it, but objects may come from elsewhere).
    """
    run_time = UNKNOWN
    if class_p50 is not None:
        run_time = RunTime(class_p50, max(class_p50, class_p90 if class_p90 is not None else class_p50 * SPREAD))
    if expected:
        with contextlib.suppress(ValueError):
            run_time = parse_expected(expected)
    if bound is not None:
        run_time = RunTime(min(run_time.p50, bound), min(run_time.p90, bound))
    return run_time


def seconds_label(labels: Mapping[str, str], name: str) -> int | None:
    """A label that holds whole seconds above zero; anything else counts as missing."""
    text = labels.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and int(text) > 0 else None
