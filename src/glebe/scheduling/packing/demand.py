"""What pods ask for, and the distribution of what has arrived so far, as tables to look up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

WHOLE = 1000
_STEPS = 400  # of the tables of CPU and memory per GPU
_LEFTOVER = 0.3  # weight of what will be left of a GPU that is filled up, beside what is of no use in it now
_MOST = 0.995  # quantile at which these tables end

Floats = NDArray[np.float64]


class Ask(NamedTuple):
    """``gpus`` GPUs, each for ``share`` thousandths (1000 unless it is one GPU); ``models``: one of these."""

    cpu: int  # millicores
    memory: int  # any unit, the machines' own
    gpus: int = 0
    share: int = WHOLE
    models: frozenset[str] = frozenset()

    @property
    def milli(self) -> int:
        """Thousandths of GPUs in all."""
        return self.gpus * self.share


@dataclass(frozen=True, slots=True)
class Tables:
    """The distribution at one moment. Patterns are the different ways to want GPUs, K of them.

    ``below`` (K x CPUs x memory): the part of all arrivals with this pattern that want no more than that.
    """

    gpus: NDArray[np.int64]  # (K)
    share: NDArray[np.int64]  # (K)
    part: Floats  # (K): of all arrivals
    cpus: NDArray[np.int64]
    memory: NDArray[np.int64]
    below: Floats
    useless: Floats  # (1001 x K): thousandths of one GPU, so much free, that a pod of this pattern cannot use
    per_gpu: tuple[
        tuple[Floats, Floats], tuple[Floats, Floats]
    ]  # CPU, memory: grid, share of GPU demand that wants less

    def fitting(self, cpu: NDArray[np.int64], memory: NDArray[np.int64]) -> Floats:
        """(n x K): the part of all arrivals that n machines have CPUs and memory for."""
        at_cpu = np.searchsorted(self.cpus, cpu, side="right")
        at_memory = np.searchsorted(self.memory, memory, side="right")
        found: Floats = self.below[at_cpu, at_memory]
        return found


class Demand:
    """Counts what arrives."""

    def __init__(self) -> None:
        self._counts: dict[Ask, int] = {}
        self.total = 0

    def add(self, ask: Ask, count: int = 1) -> None:
        self._counts[ask] = self._counts.get(ask, 0) + count
        self.total += count

    def tables(self) -> Tables:
        """The distribution of all that was counted; of nothing: that of one whole GPU."""
        counts = {a: n for a, n in self._counts.items() if a.gpus} or {Ask(1, 1, 1): 1}
        patterns = sorted({(a.gpus, a.share) for a in counts})
        number = {pattern: i for i, pattern in enumerate(patterns)}
        total = max(self.total, sum(counts.values()))
        cpus = np.unique(np.array([a.cpu for a in counts], np.int64))
        memory = np.unique(np.array([a.memory for a in counts], np.int64))
        below = np.zeros((len(cpus) + 1, len(memory) + 1, len(patterns)))
        for ask, count in counts.items():
            at = np.searchsorted(cpus, ask.cpu) + 1, np.searchsorted(memory, ask.memory) + 1
            below[at[0], at[1], number[ask.gpus, ask.share]] += count / total
        below = below.cumsum(0).cumsum(1)
        share = np.array([s for _, s in patterns], np.int64)
        free = np.arange(WHOLE + 1)[:, None]
        shares = [(s, float(p)) for (_, s), p in zip(patterns, below[-1, -1], strict=True) if s < WHOLE]
        return Tables(
            gpus=np.array([g for g, _ in patterns], np.int64),
            share=share,
            part=below[-1, -1].copy(),
            cpus=cpus,
            memory=memory,
            below=below,
            useless=np.where(free < share[None, :], free, 0) + _LEFTOVER * leftovers(shares)[:, None],
            per_gpu=(
                _per_gpu((a.cpu * WHOLE / a.milli, a.milli * n) for a, n in counts.items()),
                _per_gpu((a.memory * WHOLE / a.milli, a.milli * n) for a, n in counts.items()),
            ),
        )


def leftovers(shares: list[tuple[int, float]]) -> Floats:
    """(1001): what is left of one GPU, so much free, when pods with these shares have filled it at random, on average.

    :param shares: (thousandths, how often).
    """
    left = np.arange(WHOLE + 1, dtype=np.float64)
    left[WHOLE] = 0.0  # a whole one is no piece
    for free in range(1, WHOLE):
        total = expected = 0.0
        for share, weight in shares:
            if share <= free:
                total += weight
                expected += weight * left[free - share]
        if total:
            left[free] = expected / total
    return left


def _per_gpu(wanted: Iterable[tuple[float, int]]) -> tuple[Floats, Floats]:
    """(grid, part of the GPU demand that wants no more than so much of a resource per GPU)."""
    listed = sorted(wanted)
    values = np.array([v for v, _ in listed])
    reached = np.cumsum([w for _, w in listed], dtype=np.float64)
    reached /= reached[-1]
    grid = np.linspace(0.0, max(1.0, values[np.searchsorted(reached, _MOST)]), _STEPS + 1)
    at = np.searchsorted(values, grid, side="right")
    parts = np.concatenate(([0.0], reached))[at]
    parts[-1] = 1.0
    return grid, parts
