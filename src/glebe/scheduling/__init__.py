"""The pure scheduling core: snapshots in, explained decisions and forecasts out. No I/O, clock or randomness."""

from glebe.scheduling.decide import decide, prepare
from glebe.scheduling.forecast import forecast

__all__ = ["decide", "forecast", "prepare"]
