"""How long a simulated container runs: ``30s``, ``lognormal(60s, 0.5)``, ``uniform(10s, 1m)``, ``exponential(5m)``.

A sample is a pure function of the text and a seed (the pod's uid), so that a restarted simulation gives a running pod
the same length again.
"""

from __future__ import annotations

import math
import random
import re

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_CALL = re.compile(r"(lognormal|uniform|exponential)\(([^()]*)\)")
HELP = "write a duration such as 90s or 1h30m, lognormal(MEDIAN, SIGMA), uniform(LOW, HIGH) or exponential(MEAN)"


def seconds(text: str) -> float:
    """``1h30m``, ``90s``, ``250ms`` or a bare number of seconds.

    :raises ValueError: with a text that says what is allowed.
    """
    text = text.strip()
    try:
        value = float(text)
    except ValueError:
        parts = _DURATION.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            raise ValueError(f'"{text}" is not a duration: {HELP}') from None
        value = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not math.isfinite(value) or value < 0:
        raise ValueError(f'"{text}" is not a duration: it must be finite and not negative')
    return value


def check(text: str) -> None:
    """Raise ``ValueError`` unless :func:`sample` can use ``text``."""
    sample(text, "")


def sample(text: str, seed: str) -> float:
    """The length in seconds for this seed.

    :raises ValueError: when ``text`` is neither a duration nor a distribution.
    """
    call = _CALL.fullmatch(text.strip())
    if call is None:
        return seconds(text)
    name, arguments = call.group(1), [part.strip() for part in call.group(2).split(",")]
    rng = random.Random(f"{text}/{seed}")
    try:
        if name == "lognormal":
            median, sigma = seconds(arguments[0]), float(arguments[1])
            if not (len(arguments) == 2 and 0 <= sigma <= 10):
                raise ValueError
            return median * math.exp(rng.gauss(0.0, sigma))
        if name == "uniform":
            low, high = map(seconds, arguments)
            if low > high:
                raise ValueError
            return rng.uniform(low, high)
        (mean,) = map(seconds, arguments)
        return rng.expovariate(1.0 / mean) if mean else 0.0
    except (ValueError, IndexError):
        raise ValueError(f'"{text}" is not a run time: {HELP}') from None
