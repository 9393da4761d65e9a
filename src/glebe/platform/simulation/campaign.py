"""Many seeds over all cores, and what they add up to."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from glebe.platform.simulation.harness import Report, simulate


@dataclass(slots=True)
class Summary:
    """What a campaign did. ``wall_seconds`` is real time; everything else is virtual or a count."""

    seeds: int = 0
    simulated_seconds: float = 0.0
    writes: int = 0
    faults: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    violations: list[Report] = field(default_factory=list)
    wall_seconds: float = 0.0

    def add(self, report: Report) -> None:
        self.seeds += 1
        self.simulated_seconds += report.simulated_seconds
        self.writes += report.writes
        self.faults += report.faults
        self.outcomes.update(report.outcomes)
        if report.violation:
            self.violations.append(report)

    def text(self) -> str:
        """One line a person can read."""
        hours = self.simulated_seconds / 3600
        jobs = ", ".join(f"{count} {name}" for name, count in sorted(self.outcomes.items()))
        rate = hours / self.wall_seconds if self.wall_seconds else 0.0
        return (
            f"{self.seeds} seeds: {hours:.1f} simulated hours in {self.wall_seconds:.1f} s"
            f" ({rate:.2f} simulated hours per second), {self.writes} writes checked,"
            f" {self.faults} faults injected; jobs: {jobs or 'none'}; {len(self.violations)} violations"
        )


def run(seeds: Iterable[int], *, workers: int = 0, progress: Callable[[Report], None] | None = None) -> Summary:
    """Run the seeds, in parallel when ``workers`` allows (0: one per core)."""
    summary = Summary()
    began = time.perf_counter()  # how long people wait, not simulated time
    for report in _reports(list(seeds), workers or os.cpu_count() or 1):
        summary.add(report)
        if progress is not None:
            progress(report)
    summary.wall_seconds = time.perf_counter() - began
    return summary


def _reports(seeds: list[int], workers: int) -> Iterator[Report]:
    if workers == 1 or len(seeds) == 1:
        yield from map(simulate, seeds)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(simulate, seeds, chunksize=max(1, min(8, len(seeds) // (workers * 4))))
