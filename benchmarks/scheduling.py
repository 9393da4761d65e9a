"""The scheduling core at scale: decisions and forecasts on a fleet of 1,000 nodes with 8,000 GPUs, and a larger one.

Times are CPU seconds of this process on one core, the best of a few runs. Comparisons are with published or measured
figures of other systems and say what differs; all of them are in memory, without an API server.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from dataclasses import replace

from glebe.scheduling import decide, forecast, prepare
from glebe.scheduling.model import (
    GPU,
    Admitted,
    ClusterQueue,
    Cohort,
    Flavor,
    FlavorQuotas,
    Node,
    Outcome,
    Pending,
    PodSet,
    Quota,
    ResourceGroup,
    RunTime,
    Snapshot,
    Strategy,
    Topology,
    TopologyMode,
    TopologyRequest,
)

BLOCK, RACK, HOST = "topology.glebe.dev/block", "topology.glebe.dev/rack", "kubernetes.io/hostname"
CPU, MEMORY = 192_000, 2 << 40
QUEUES, COHORTS = 20, 4


def nodes(count: int) -> tuple[Node, ...]:
    """8-GPU hosts, 16 to a rack, 8 racks to a block."""
    amounts = {GPU: 8, "cpu": CPU, "memory": MEMORY, "pods": 110}
    return tuple(
        Node(f"n{i:05}", {BLOCK: f"b{i // 128:03}", RACK: f"r{i // 16:04}", HOST: f"n{i:05}", "pool": "h100"}, amounts)
        for i in range(count)
    )


def queues(count: int, strict: int = 0) -> tuple[ClusterQueue, ...]:
    """The fleet's capacity as quota, in equal parts; the first ``strict`` queues are StrictFIFO."""
    share = {GPU: Quota(8 * count // QUEUES), "cpu": Quota(CPU * count // QUEUES), "memory": Quota(MEMORY * count)}
    groups = (ResourceGroup((GPU, "cpu", "memory"), (FlavorQuotas("h100", share),)),)
    return tuple(
        ClusterQueue(f"q{i:02}", groups, f"c{i % COHORTS}", list(Strategy)[i >= strict]) for i in range(QUEUES)
    )


def job(key: str, queue: str, gpus: int, rng: random.Random, request: TopologyRequest | None) -> Pending:
    pods, each = max(1, gpus // 8), min(gpus, 8)
    pod_set = PodSet("main", pods, {GPU: each, "cpu": each * 20_000, "memory": each * (200 << 30)}, topology=request)
    half = rng.lognormvariate(8, 1.2)
    return Pending(key, queue, rng.choice((0, 0, 0, 10)), rng.random() * 1e5, (pod_set,), RunTime(half, 2 * half))


def world(hosts: int, jobs: int, seed: int = 1) -> Snapshot:
    """Jobs of 1..256 GPUs, a third each with required block, preferred rack and no topology request."""
    rng = random.Random(seed)
    asks = (TopologyRequest(TopologyMode.REQUIRED, BLOCK), TopologyRequest(TopologyMode.PREFERRED, RACK), None)
    work = tuple(
        job(f"w{i}", f"q{rng.randrange(QUEUES):02}", 2 ** rng.randint(0, 8), rng, rng.choice(asks)) for i in range(jobs)
    )
    return Snapshot(
        nodes(hosts),
        (Topology("default", (BLOCK, RACK, HOST)),),
        (Flavor("h100", {"pool": "h100"}, topology="default"),),
        queues(hosts),
        tuple(Cohort(f"c{i}") for i in range(COHORTS)),
        (),
        work,
    )


def half_full(snapshot: Snapshot) -> Snapshot:
    """The snapshot with about half of the fleet in use, and nothing pending."""
    started, used = [], 0
    waiting = {p.key: p for p in snapshot.pending}
    for d in decide(snapshot, 0.0):
        if d.outcome is Outcome.ADMIT and used < 4 * len(snapshot.nodes):
            p = waiting[d.key]
            used += sum(s.count * s.requests[GPU] for s in p.pod_sets)
            started.append(Admitted(p.key, p.queue, p.priority, 0.0, p.pod_sets, d.assignments, p.run_time))
    return replace(snapshot, admitted=tuple(started), pending=())


def best(action: Callable[[], object], repeat: int) -> float:
    times = []
    for _ in range(repeat):
        begin = time.process_time()
        action()
        times.append(time.process_time() - begin)
    return min(times)


def show(what: str, seconds: float, limit: float | None = None, note: str = "") -> None:
    text = f"{seconds:7.3f} s " if seconds >= 1 else f"{seconds * 1e3:7.2f} ms"
    bound = "" if limit is None else f"   limit {limit:g} s: {'holds' if seconds <= limit else 'MISSED'}"
    print(f"  {what:<66} {text}{bound}{note}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    repeat = parser.parse_args().repeat
    print("scheduling core (CPU time, one core, in memory)")

    full = world(1000, 5000)
    fleet = prepare(full)
    show("forecast of 5,000 pending jobs, 1,000 nodes, 8,000 GPUs", best(lambda: forecast(full, 0.0), repeat), 2.0)
    mixed = replace(full, queues=queues(1000, strict=4))
    show("  the same, 4 of the 20 queues StrictFIFO (one per cohort)", best(lambda: forecast(mixed, 0.0), repeat), 2.0)
    show("decide for the same 5,000 jobs (all explained)", best(lambda: decide(full, 0.0, fleet=fleet), repeat))

    busy = half_full(full)
    gang = job("gang", "q01", 64, random.Random(7), TopologyRequest(TopologyMode.REQUIRED, BLOCK))
    one = replace(busy, pending=(gang,))
    new = best(lambda: decide(one, 0.0), 5 * repeat)
    kept = best(lambda: decide(one, 0.0, fleet=fleet), 5 * repeat)
    show("decide for one 64-GPU gang in one block, half-full fleet, new nodes", new, 0.020)
    show("  the same with the node arrays kept", kept, 0.020)

    large = world(2500, 1500, seed=2)
    arrays = prepare(large)
    busy = half_full(large)
    gang = job("gang", "q01", 512, random.Random(7), TopologyRequest(TopologyMode.REQUIRED, BLOCK))
    one = replace(busy, pending=(gang,))
    placed = best(lambda: decide(one, 0.0, fleet=arrays), 5 * repeat)
    ratio = 18.7e-3 / placed
    show("decide for a 512-GPU gang, 2,500 nodes", placed, note=f"   Kueue's placement alone: 18.70 ms ({ratio:.1f} x)")
    rebuilt = best(lambda: prepare(large), repeat)
    show("node arrays of 2,500 nodes", rebuilt, note=f"   Kueue's snapshot rebuilt: 9.70 ms ({9.7e-3 / rebuilt:.1f} x)")

    many = replace(world(5000, 3000, seed=3), queues=queues(50_000))
    big = prepare(many)
    seconds = best(lambda: decide(many, 0.0, fleet=big), 1)
    admitted = sum(d.outcome is Outcome.ADMIT for d in decide(many, 0.0, fleet=big))
    rate = admitted / seconds
    note = f"   {rate:,.0f} gangs/s (kube-scheduler: about 130-160 gangs of 4 per second, with its API server)"
    show(f"{admitted} topology-aware gangs admitted in one decide, 5,000 nodes", seconds, note=note)


if __name__ == "__main__":
    main()
