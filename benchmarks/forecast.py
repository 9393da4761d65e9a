"""Whole-queue forecasts at scale: 10,000 jobs waiting and 2,000 running on 1,000 nodes with 8,000 GPUs.

Times are CPU seconds of this process on one core, the best of a few runs, in memory. Run times are known as curves from
history, so they are drawn; explanations and blockers of every waiting job are part of the time.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import replace

from glebe.scheduling import decide, forecast, prepare
from glebe.scheduling.foresight.runtime import quantile
from glebe.scheduling.model import Admitted, Outcome, Pending, RunTime, Snapshot, TopologyMode, TopologyRequest
from scheduling import BLOCK, QUEUES, RACK, best, job, queues, show, world

SIZES = ((1, 56), (2, 15), (4, 13), (8, 11), (16, 3), (32, 1), (64, 1))  # GPUs, weight


def known(run_time: RunTime) -> RunTime:
    """The same run time as history would say it."""
    return replace(run_time, curve=tuple(quantile(run_time, (i + 0.5) / 20) for i in range(20)))


def busy(waiting: int, running: int, seed: int = 3) -> Snapshot:
    """A full fleet: jobs of 1..64 GPUs, a third each with required block, preferred rack and no topology request."""
    rng = random.Random(seed)
    asks = (TopologyRequest(TopologyMode.REQUIRED, BLOCK), TopologyRequest(TopologyMode.PREFERRED, RACK), None)
    gpus, weights = zip(*SIZES, strict=True)
    work: dict[str, Pending] = {}
    for i in range(waiting + running + 2000):
        size = rng.choices(gpus, weights)[0]
        one = job(f"w{i}", f"q{rng.randrange(QUEUES):02}", size, rng, rng.choice(asks))
        work[one.key] = replace(one, run_time=known(one.run_time))
    empty = replace(world(1000, 1), queues=queues(1000), pending=tuple(work.values()))
    started = []
    for d in decide(empty, 0.0):
        if d.outcome is Outcome.ADMIT and len(started) < running:
            p = work.pop(d.key)
            age = -rng.random() * 3600
            started.append(Admitted(p.key, p.queue, p.priority, age, p.pod_sets, d.assignments, p.run_time))
    return replace(empty, admitted=tuple(started), pending=tuple(work.values())[:waiting])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    repeat = parser.parse_args().repeat
    print("forecasts (CPU time, one core, in memory)")
    for waiting, running, limit in ((200, 150, None), (1500, 400, None), (10_000, 2000, 1.0)):
        snapshot = busy(waiting, running)
        fleet = prepare(snapshot)
        what = f"forecast of {waiting:,} waiting and {len(snapshot.admitted):,} running jobs"
        show(what, best(lambda s=snapshot, f=fleet: forecast(s, 0.0, fleet=f), repeat), limit)  # type: ignore[misc]


if __name__ == "__main__":
    main()
