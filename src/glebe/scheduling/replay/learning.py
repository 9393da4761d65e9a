"""Run times as the production shell learns them, for replays."""

from __future__ import annotations

from glebe.scheduling.foresight.history import Facts, History
from glebe.scheduling.model import RunTime
from glebe.scheduling.replay.trace import Job

PRIOR = RunTime(3600.0, 4 * 3600.0)


class Learned:
    """History alone: what ended before, by queue, user, image and GPU count. Limits are used if ``declared``."""

    def __init__(self, *, declared: bool = True) -> None:
        self.history = History(PRIOR)
        self._declared = declared

    def predict(self, job: Job, now: float) -> RunTime:
        limit = job.limit if self._declared else None
        self.history.arrived(job.key, Facts(job.queue, job.user, job.image, job.gpus, limit), job.submitted)
        return self.history.predict(job.key, now)

    def started(self, job: Job, now: float) -> None:
        self.history.started(job.key, now)

    def ended(self, job: Job, now: float) -> None:
        self.history.ended(job.key, now)


class Declared:
    """Slurm's way: a job runs as long as its limit; without one, as long as ``otherwise``."""

    def __init__(self, otherwise: float = 86_400.0) -> None:
        self._otherwise = otherwise

    def predict(self, job: Job, now: float) -> RunTime:
        limit = job.limit if job.limit is not None else self._otherwise
        return RunTime(limit, limit, bound=job.limit)

    def started(self, job: Job, now: float) -> None:
        return None

    def ended(self, job: Job, now: float) -> None:
        return None
