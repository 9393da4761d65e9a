"""Forecasts of starts on Microsoft's Philly trace: do P50 and P90 hold, and is P50 better than simpler ways?

Protocol. Every virtual cluster of the published list is a queue of its own. Its nodes (8 GPUs each) are taken away one
by one until a third of its jobs have to wait; jobs larger than what is left are dropped. The engine knows no run time:
it learns from what ended (queue and GPU count; the trace names no users). Forecasts are made at most every six hours,
as soon as somebody new waits; each job is judged by the first one after its submission, if it waits then.

Baselines, at the same moments: submission plus the mean wait of the last 20 jobs that the queue started; and Slurm's
way, the same plan with every job lasting as long as its declared limit. The trace has no limits, so they are made from
the true run time (which favours this baseline): times 1 to 3, rounded up to what people write (10 min, 30 min, 1 h,
2 h, 4 h, 8 h, 12 h, 1, 2, 3, 5, 7, 14, 30, 60, 120 days).
"""

from __future__ import annotations

import argparse
import csv
import gzip
import random
import time
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

from glebe.scheduling.model import GPU, ClusterQueue, Flavor, FlavorQuotas, Quota, ResourceGroup, RunTime, Snapshot
from glebe.scheduling.replay.engine import Life, Replay
from glebe.scheduling.replay.foretelling import Forecaster, Foretold
from glebe.scheduling.replay.learning import Declared, Learned
from glebe.scheduling.replay.scores import forecast_scores
from glebe.scheduling.replay.trace import Job, read_csv

HOUR, DAY = 3600.0, 86_400.0
WRITTEN = [600.0, 1800.0, *(HOUR * h for h in (1, 2, 4, 8, 12)), *(DAY * d for d in (1, 2, 3, 5, 7, 14, 30, 60, 120))]
WAITING = 1 / 3


class Written(Declared):
    """Limits as people write them."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        super().__init__()
        rng = random.Random(1)
        wanted = {j.key: min(j.duration * rng.uniform(1, 3), WRITTEN[-1]) for j in jobs}
        self._limits = {key: WRITTEN[bisect_left(WRITTEN, length)] for key, length in wanted.items()}

    def predict(self, job: Job, now: float) -> RunTime:
        return RunTime(self._limits[job.key], self._limits[job.key])


def world(name: str, gpus: int) -> Snapshot:
    quotas = (FlavorQuotas("gpu", {GPU: Quota(gpus)}),)
    return Snapshot(flavors=(Flavor("gpu"),), queues=(ClusterQueue(name, (ResourceGroup((GPU,), quotas),)),))


def shrunk(name: str, jobs: Sequence[Job], nodes: int) -> int:
    """The most nodes with which a third of the jobs wait."""
    low, high = 1, nodes
    while low < high:
        middle = (low + high + 1) // 2
        replay = Replay(world(name, 8 * middle), [j for j in jobs if j.gpus <= 8 * middle], Declared())
        waited = [(life.wait or 0.0) > 0 for life in replay.run()]
        if sum(waited) >= WAITING * len(waited):
            low = middle
        else:
            high = middle - 1
    return low


def show(name: str, lives: Sequence[Life], told: Sequence[Foretold], seconds: float) -> None:
    s = forecast_scores(lives, told)
    errors = [s[k] / HOUR for k in ("medianError", "medianErrorMovingAverage", "medianErrorDeclaredLimits")]
    holds = "holds" if 0.85 <= s["p90Held"] <= 0.95 else "outside 85-95 %"
    better = "better than both" if errors[0] < min(errors[1:]) else "NOT better than both"
    names = ("median error", "moving average", "declared limits")
    held = (f"P50 held {s['p50Held']:4.0%}", f"P90 held {s['p90Held']:6.1%} ({holds})")
    said = [f"{what} {hours:6.2f} h" for what, hours in zip(names, errors, strict=True)]
    print(
        f"  {name:<14}", f"{s['told']:5} told", *held, *said, f"({better})", f"{seconds:.0f} s", sep="   ", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared/data/philly")
    parser.add_argument("--every", type=float, default=6 * HOUR)
    parser.add_argument("clusters", nargs="*", help="only these virtual clusters")
    args = parser.parse_args()
    with gzip.open(args.data / "philly_pollux_82247.csv.gz", "rt") as file:
        trace = read_csv(file, {"submitted": "timestamp", "gpus": "num_gpus", "queue": "cluster"})
    with (args.data / "philly_vc_nodes.csv").open() as file:
        nodes = {row["vc"]: int(row["node num"]) for row in csv.DictReader(file)}
    print("forecasts of starts on Philly, virtual clusters shrunk until a third of the jobs wait")
    lives: list[Life] = []
    told: list[Foretold] = []
    begin = time.process_time()
    for name in args.clusters or sorted(nodes):
        start = time.process_time()
        jobs = [j for j in trace.jobs if j.queue == name]
        left = shrunk(name, jobs, nodes[name])
        jobs = [j for j in jobs if j.gpus <= 8 * left]
        oracle = Learned()
        replay = Replay(world(name, 8 * left), jobs, oracle)
        forecaster = Forecaster(oracle, args.every, slurm=Written(jobs))
        replay.run([forecaster])
        show(f"{name} {left}/{nodes[name]}", replay.lives, list(forecaster.told.values()), time.process_time() - start)
        lives += replay.lives
        told += forecaster.told.values()
    show("all", lives, told, time.process_time() - begin)


if __name__ == "__main__":
    main()
