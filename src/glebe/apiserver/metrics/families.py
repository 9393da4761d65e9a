"""Metric families, and the Prometheus text format (version 0.0.4)."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Values = Mapping[tuple[str, ...], float]


class Family:
    """Counters or gauges of one name. ``values`` are by label values, in the order of ``labels``.

    :param read: asked for the values at each scrape, instead of keeping them here.
    """

    def __init__(
        self,
        name: str,
        text: str,
        labels: Sequence[str] = (),
        *,
        kind: str = "counter",
        read: Callable[[], Values] | None = None,
    ) -> None:
        self.name = name
        self.text = text
        self.labels = tuple(labels)
        self.kind = kind
        self.values: dict[tuple[str, ...], float] = {}
        self._read = read

    def add(self, labels: tuple[str, ...], value: float = 1.0) -> None:
        self.values[labels] = self.values.get(labels, 0.0) + value

    def lines(self) -> Iterable[str]:
        found = self.values if self._read is None else self._read()
        for labels, value in sorted(found.items()):
            yield f"{self.name}{braces(self.labels, labels)} {number(value)}"


class Buckets:
    """The observations of one series of a histogram."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Histogram(Family):
    """Observations by label values."""

    def __init__(self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        super().__init__(name, text, labels, kind="histogram")
        self.bounds = tuple(bounds)
        self.series: dict[tuple[str, ...], Buckets] = {}

    def of(self, *labels: str) -> Buckets:
        """The series of these label values; keep it where it is used often."""
        found = self.series.get(labels)
        if found is None:
            found = self.series[labels] = Buckets(self.bounds)
        return found

    def lines(self) -> Iterable[str]:
        for labels, held in sorted(self.series.items()):
            below = 0
            for bound, many in zip((*map(number, self.bounds), "+Inf"), held.counts, strict=True):
                below += many
                yield f"{self.name}_bucket{braces((*self.labels, 'le'), (*labels, bound))} {below}"
            yield f"{self.name}_sum{braces(self.labels, labels)} {number(held.total)}"
            yield f"{self.name}_count{braces(self.labels, labels)} {below}"


class Families:
    """All families of one server, in the order of their names."""

    def __init__(self) -> None:
        self._by_name: dict[str, Family] = {}

    def put(self, family: Family) -> None:
        self._by_name[family.name] = family

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Family:
        family = Family(name, text, labels)
        self.put(family)
        return family

    def histogram(self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float]) -> Histogram:
        family = Histogram(name, text, labels, bounds)
        self.put(family)
        return family

    def reading(
        self, name: str, text: str, labels: Sequence[str], read: Callable[[], Values], kind: str = "gauge"
    ) -> None:
        self.put(Family(name, text, labels, kind=kind, read=read))

    def names(self) -> list[str]:
        return sorted(self._by_name)

    def text(self) -> bytes:
        """What a scrape gets."""
        out: list[str] = []
        for name in self.names():
            family = self._by_name[name]
            lines = list(family.lines())
            if lines:
                out += (f"# HELP {name} {family.text}", f"# TYPE {name} {family.kind}", *lines)
        return ("\n".join(out) + "\n").encode()


def braces(names: Sequence[str], values: Sequence[str]) -> str:
    if not names:
        return ""
    return "{" + ",".join(f'{n}="{_escaped(v)}"' for n, v in zip(names, values, strict=True)) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def number(value: float) -> str:
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))
