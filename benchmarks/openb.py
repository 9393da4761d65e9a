"""Placement on Alibaba's production GPU fleet (openb), beside the published results of FGD and five other policies.

Protocol (FGD, USENIX ATC 2023): a pod list is filled with sampled copies until its GPU demand is 130 % of the fleet's
capacity, shuffled by seed, and placed one by one, none of which ever ends; a pod that fits nowhere is dropped. Read is
the allocated part of the GPUs when the arrived demand has reached 100 %. Means over seeds 42..51; random streams are
ours. Our placement knows of arrivals only what has arrived. Nothing is moved, unless in the last column.

The ceiling is a bound for any policy: GPUs alone, as if they were one machine with enough of everything else, and all
arrivals known (:func:`glebe.scheduling.packing.bound.ceiling`).
"""

from __future__ import annotations

import argparse
import csv
import gzip
import os
import random
import statistics
import time
from pathlib import Path

from glebe.scheduling.packing import Ask, Machine, Machines, Packer
from glebe.scheduling.packing.bound import ceiling
from glebe.scheduling.packing.moving import Mover

MIXES = ("default", "gpushare40", "multigpu20")
SEEDS = range(42, 52)
FASTEST = 2000.0  # pods per second


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with gzip.open(folder / f"{name}.csv.gz", "rt", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def machines(folder: Path) -> list[Machine]:
    return [
        Machine(r["sn"], int(r["cpu_milli"]), int(r["memory_mib"]), int(r["gpu"]), r["model"])
        for r in rows(folder, "openb_node_list_gpu_node")
    ]


def pods(folder: Path, mix: str) -> list[Ask]:
    return [_ask(r) for r in rows(folder, f"openb_pod_list_{mix}")]


def _ask(row: dict[str, str]) -> Ask:
    gpus = int(row["num_gpu"])
    share = int(row["gpu_milli"]) if gpus == 1 else 1000
    models = frozenset(m for m in (row.get("gpu_spec") or "").split("|") if m)
    return Ask(int(row["cpu_milli"]), int(row["memory_mib"]), gpus, share, models)


def stream(listed: list[Ask], capacity: int, seed: int) -> list[Ask]:
    """The arrivals of one run; ``capacity`` in thousandths of GPUs."""
    rng = random.Random(seed)
    out = list(listed)
    demand = sum(a.milli for a in out)
    while demand < 1.3 * capacity:
        out.append(rng.choice(listed))
        demand += out[-1].milli
    rng.shuffle(out)
    return out


def place(fleet: list[Machine], arrivals: list[Ask], moving: bool) -> tuple[float, float, int]:
    """(allocated % at 100 % arrived, pods per second, pods moved)."""
    here = Machines(fleet)
    packer = Packer(here)
    mover = Mover(packer) if moving else None
    arrived = allocated = placed = 0
    began = time.process_time()
    for ask in arrivals:
        spot = mover.arrive(ask) if mover is not None else packer.arrive(ask)
        arrived += ask.milli
        placed += 1
        if spot is not None:
            allocated += ask.milli
        if arrived >= here.capacity:
            break
    rate = placed / (time.process_time() - began)
    return 100 * allocated / here.capacity, rate, mover.moved if mover is not None else 0


def published(folder: Path, mix: str, policy: str) -> float:
    """Mean over the published seeds of the allocated % at 100 % arrived."""
    found = [
        float(r["100"])
        for r in rows(folder, "published_analysis_allo_discrete")
        if r["workload"] == f"openb_pod_list_{mix}" and policy in r["sc_policy"]
    ]
    return statistics.mean(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", type=Path, nargs="?", default=os.environ.get("OPENB_DATA"), help="the data (or $OPENB_DATA)"
    )
    parser.add_argument("--mix", choices=MIXES, help="one of the mixes")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="the first so many seeds")
    parser.add_argument("--without-moving", action="store_true", help="leave out the last columns")
    options = parser.parse_args()
    if options.folder is None:
        parser.error("where is the data?")
    folder = Path(options.folder)
    fleet = machines(folder)
    print(f"openb: {len(fleet):,} nodes, {sum(m.gpus for m in fleet):,} GPUs; allocated % at 100 % arrived demand")
    for mix in MIXES if options.mix is None else [options.mix]:
        listed = pods(folder, mix)
        seeds = list(SEEDS)[: options.seeds]
        arrivals = {seed: stream(listed, 1000 * sum(m.gpus for m in fleet), seed) for seed in seeds}
        fgd, best = published(folder, mix, "FGD"), published(folder, mix, "BestFit")
        found = [place(fleet, arrivals[seed], moving=False) for seed in seeds]
        ours, rate = statistics.mean(f[0] for f in found), min(f[1] for f in found)
        top = statistics.mean(ceiling(fleet, arrivals[seed]) for seed in seeds)
        spread = statistics.stdev(f[0] for f in found) if len(found) > 1 else 0.0
        print(f"{mix} ({len(seeds)} seeds): published BestFit {best:.2f}, FGD {fgd:.2f}; ceiling {top:.2f}")
        verdict = "holds" if ours > fgd else "MISSED"
        print(f"  without moving   ours {ours:.2f} ±{spread:.2f}   FGD + {ours - fgd:.2f}: {verdict}", end="")
        print(f"   {rate:,.0f} pods/s (slowest seed), bar {FASTEST:,.0f}: {'holds' if rate >= FASTEST else 'MISSED'}")
        if not options.without_moving:
            moved = [place(fleet, arrivals[seed], moving=True) for seed in seeds]
            ours = statistics.mean(f[0] for f in moved)
            gap, real = 100 * (ours - fgd) / (100 - fgd), 100 * (ours - fgd) / (top - fgd)
            gaps = f"{gap:.0f} % of FGD's gap to 100, {real:.0f} %"
            moves = statistics.mean(f[2] for f in moved)
            print(
                f"  with moving      ours {ours:.2f}   closes {gaps} of that to the ceiling; {moves:,.0f} pods moved",
                end="",
            )
            print(f"   {min(f[1] for f in moved):,.0f} pods/s")


if __name__ == "__main__":
    main()
