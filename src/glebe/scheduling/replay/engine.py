"""The replay: a trace's jobs arrive, the production cycle starts them, and they end when the trace says.

Nothing that the trace knows about the future reaches the engine: run times are what ``oracle`` says at submission
(history, declared limits, or the truth), and a job that has a limit ends there at the latest.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from glebe.scheduling.foresight.course import Course, Started
from glebe.scheduling.model import GPU, Admitted, Pending, PodSet, RunTime, Snapshot, TopologyRequest
from glebe.scheduling.placement.fleet import Fleet
from glebe.scheduling.replay.trace import Job

GPUS_PER_POD = 8


@dataclass(slots=True)
class Life:
    """What became of one job. ``started`` is None for a job that never did."""

    job: Job
    started: float | None = None
    ended: float | None = None

    @property
    def wait(self) -> float | None:
        return None if self.started is None else self.started - self.job.submitted


class Oracle(Protocol):
    """Predicts run times, and is told what happens."""

    def predict(self, job: Job, now: float) -> RunTime: ...

    def started(self, job: Job, now: float) -> None: ...

    def ended(self, job: Job, now: float) -> None: ...


class Observer(Protocol):
    """Sees every step of a replay, after the cycle has run."""

    def step(self, replay: Replay, now: float, started: Sequence[Started]) -> None: ...


class Truth:
    """Knows run times beforehand: the bound of what prediction can give."""

    def predict(self, job: Job, now: float) -> RunTime:
        return RunTime(job.duration, job.duration, bound=job.limit)

    def started(self, job: Job, now: float) -> None:
        return None

    def ended(self, job: Job, now: float) -> None:
        return None


class Replay:
    """One trace on one fleet under one policy. ``lives`` (in the order of submission) is the result.

    :param world: nodes, flavors, queues, cohorts; nothing admitted or pending.
    :param topology: how jobs ask to be placed; None: by quota alone.
    """

    def __init__(
        self,
        world: Snapshot,
        jobs: Iterable[Job],
        oracle: Oracle,
        *,
        topology: TopologyRequest | None = None,
        fleet: Fleet | None = None,
    ) -> None:
        self.snapshot = world
        self.lives = [Life(job) for job in jobs]
        self.of = {life.job.key: life for life in self.lives}
        self.course = Course(world, fleet)
        self.running: dict[str, Admitted] = {}
        self.oracle = oracle
        self.arrived: list[str] = []  # at this step
        self._topology = topology
        self._ends: list[tuple[float, str]] = []

    def run(self, observers: Sequence[Observer] = ()) -> list[Life]:
        """Replay to the end of the last job."""
        coming = 0
        lives, ends, course = self.lives, self._ends, self.course
        while coming < len(lives) or ends:
            now = min(
                lives[coming].job.submitted if coming < len(lives) else float("inf"),
                ends[0][0] if ends else float("inf"),
            )
            while ends and ends[0][0] <= now:
                self._end(heapq.heappop(ends)[1], now)
            self.arrived = []
            while coming < len(lives) and lives[coming].job.submitted <= now:
                job = lives[coming].job
                course.arrive(pending(job, self.oracle.predict(job, now), self._topology))
                self.arrived.append(job.key)
                coming += 1
            started = course.run(now)
            for one in started:
                self._start(one, now)
            for observer in observers:
                observer.step(self, now, started)
        return lives

    def _end(self, key: str, now: float) -> None:
        self.course.end(key)
        del self.running[key]
        life = self.of[key]
        life.ended = now
        self.oracle.ended(life.job, now)

    def _start(self, one: Started, now: float) -> None:
        p = one.pending
        life = self.of[p.key]
        job = life.job
        life.started = now
        length = job.duration if job.limit is None else min(job.duration, job.limit)
        heapq.heappush(self._ends, (now + length, p.key))
        self.running[p.key] = Admitted(
            p.key, p.queue, p.priority, now, p.pod_sets, one.assignments, p.run_time, queued_at=p.queued_at
        )
        self.oracle.started(job, now)

    def view(self) -> Snapshot:
        """What the engine would see at this moment."""
        return replace(
            self.snapshot,
            admitted=tuple(self.running.values()),
            pending=tuple(self.course.waiting.values()),
        )


def pending(job: Job, run_time: RunTime, topology: TopologyRequest | None = None) -> Pending:
    """The job as the queue sees it: equal pods of at most 8 GPUs."""
    each = next(n for n in range(min(job.gpus, GPUS_PER_POD), 0, -1) if job.gpus % n == 0)
    pods = PodSet("main", job.gpus // each, {GPU: each}, topology=topology)
    return Pending(job.key, job.queue, job.priority, job.submitted, (pods,), run_time)
