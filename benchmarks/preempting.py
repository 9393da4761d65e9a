"""Preempting cycles at scale, in memory: the core alone, without an API server.

The first world is that of Kueue's own benchmark of a preempting cycle with topology: 1,000 nodes with 30 resources,
full of workloads of ascending priority, and one of 200 pods, each half a node, on an eighth of the nodes. Kueue's
figure is its test, measured on 2 cores of an EPYC (203 ms: snapshot 20, nomination 186). Times are the best of a few
runs on one core; a cycle includes making the world of the snapshot.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable

from glebe.scheduling import prepare
from glebe.scheduling.decide import decide, decide_one_cycle
from glebe.scheduling.model import (
    GPU,
    Admitted,
    Amounts,
    ClusterQueue,
    Cohort,
    Decision,
    FairSharing,
    Flavor,
    FlavorQuotas,
    Node,
    Pending,
    PodSet,
    PodSetAssignment,
    Preemption,
    PreemptionPolicy,
    Quota,
    ResourceGroup,
    RunTime,
    Snapshot,
    Topology,
    TopologyMode,
    TopologyRequest,
)

BLOCK, HOST, GROUP = "cloud.com/topology-block", "kubernetes.io/hostname", "node-group"
KUEUE_MS = 203.0
LIMIT_MS = 50.0
NODES, RESOURCES, PODS = 1000, 30, 200
NAMES = ("cpu", "memory", *(f"example.com/res-{i}" for i in range(2, RESOURCES)))
ANY_TIME = RunTime(100.0, 200.0)


def amounts(cpu: int, memory: int) -> Amounts:
    """Everything but memory (GiB) in the same number."""
    return {"cpu": cpu * 1000, "memory": memory << 30} | dict.fromkeys(NAMES[2:], cpu)


def fleet() -> tuple[Node, ...]:
    branch = math.isqrt(NODES)
    made = []
    for i in range(NODES):
        block = (i + 1) // branch
        labels = {BLOCK: f"b-{block}", HOST: f"node-{i:04}", GROUP: f"group-{block % 8 + 1}", "tas": "true"}
        made.append(Node(f"node-{i:04}", labels, {**amounts(10, 100), "pods": 110}))
    return tuple(made)


def filled(nodes: tuple[Node, ...]) -> list[Admitted]:
    """Workloads on the first nodes with room, until one does not fit."""
    room = [[10, 100] for _ in nodes]
    found: list[Admitted] = []
    while True:
        number = len(found) + 1
        cpu, memory, pods = number % 10 + 1, number % 100 + 1, number * 10 % math.isqrt(NODES) + 1
        spots: list[tuple[str, int]] = []
        left = pods
        for node, free in zip(nodes, room, strict=True):
            here = min(left, free[0] // cpu, free[1] // memory)
            if here:
                free[0] -= here * cpu
                free[1] -= here * memory
                spots.append((node.name, here))
                left -= here
        if left:
            return found
        each = amounts(cpu, memory)
        usage = {name: amount * pods for name, amount in each.items()}
        held = PodSetAssignment("main", pods, dict.fromkeys(NAMES, "tas"), usage, tuple(spots))
        key = f"wl-{number}"
        found.append(Admitted(key, "main", number, 0.0, (PodSet("main", pods, each),), (held,), ANY_TIME, uid=key))


def gang() -> Snapshot:
    """Kueue's benchmark."""
    nodes = fleet()
    holders = filled(nodes)
    plenty = {name: Quota(10**6 << 30 if name == "memory" else 10**8) for name in NAMES}
    groups = (ResourceGroup(NAMES, (FlavorQuotas("tas", plenty),)),)
    queue = ClusterQueue("main", groups, preemption=Preemption(PreemptionPolicy.LOWER_PRIORITY))
    anywhere = TopologyRequest(TopologyMode.UNCONSTRAINED)
    asked = PodSet("main", PODS, amounts(5, 50), node_selector={GROUP: "group-1"}, topology=anywhere)
    return Snapshot(
        nodes,
        (Topology("topology", (BLOCK, HOST)),),
        (Flavor("tas", {"tas": "true"}, topology="topology"),),
        (queue,),
        admitted=tuple(holders),
        pending=(Pending("in", "main", len(holders) + 1, 0.0, (asked,), ANY_TIME),),
    )


def one_gpu(key: str, queue: str, at: float, node: str = "") -> Pending | Admitted:
    pods = (PodSet("main", 1, {GPU: 1}),)
    if not node:
        return Pending(key, queue, 0, at, pods, ANY_TIME)
    held = PodSetAssignment("main", 1, {GPU: "gpu"}, {GPU: 1}, ((node, 1),))
    return Admitted(key, queue, 0, at, pods, (held,), ANY_TIME, uid=key, reserved_at=at)


def reclaim(waiting: int) -> Snapshot:
    """500 nodes of 8 GPUs lent out in 4,000 jobs of one, and their owner's jobs."""
    nodes = tuple(Node(f"n{i:03}", {HOST: f"n{i:03}"}, {GPU: 8, "pods": 110}) for i in range(500))
    policy = Preemption(reclaim=PreemptionPolicy.ANY)

    def queue(name: str, nominal: int) -> ClusterQueue:
        groups = (ResourceGroup((GPU,), (FlavorQuotas("gpu", {GPU: Quota(nominal)}),)),)
        return ClusterQueue(name, groups, "all", preemption=policy)

    held = [one_gpu(f"b{i:04}", "borrower", float(i), nodes[i // 8].name) for i in range(4000)]
    asked = [one_gpu(f"o{i:04}", "owner", float(i)) for i in range(waiting)]
    return Snapshot(
        nodes,
        (Topology("hosts", (HOST,)),),
        (Flavor("gpu", topology="hosts"),),
        (queue("owner", 4000), queue("borrower", 0)),
        (Cohort("all"),),
        tuple(held),  # type: ignore[arg-type]
        tuple(asked),  # type: ignore[arg-type]
    )


def crowd(fair: bool) -> Snapshot:
    """1,000 queues in 10 cohorts, full: every other one borrows, and the head of each preempts."""
    policy = Preemption(PreemptionPolicy.LOWER_PRIORITY, PreemptionPolicy.ANY)
    groups = (ResourceGroup(("cpu",), (FlavorQuotas("f", {"cpu": Quota(20_000, 100_000)}),)),)
    queues = [ClusterQueue(f"q{i:03}", groups, f"c{i % 10}", preemption=policy) for i in range(1000)]
    held, asked = [], []
    small = (PodSet("main", 1, {"cpu": 5000}),)
    for i, queue in enumerate(queues):
        assigned = (PodSetAssignment("main", 1, {"cpu": "f"}, {"cpu": 5000}),)
        for n in range(3 + i // 10 % 2 * 2):
            key = f"{queue.name}-{n}"
            held.append(Admitted(key, queue.name, 50, 1.0, small, assigned, ANY_TIME, uid=key, reserved_at=1.0))
        large = (PodSet("main", 1, {"cpu": 20_000}),)
        asked.append(Pending(f"{queue.name}-head", queue.name, 200, 2.0, large, ANY_TIME))
    cohorts = tuple(Cohort(f"c{i}") for i in range(10))
    sharing = FairSharing() if fair else None
    return Snapshot((), (), (Flavor("f"),), tuple(queues), cohorts, tuple(held), tuple(asked), sharing)


def best(run: Callable[[], list[Decision]], times: int) -> tuple[float, list[Decision]]:
    """Milliseconds, and what was decided."""
    fastest, found = math.inf, []
    for _ in range(times):
        began = time.perf_counter()
        found = run()
        fastest = min(fastest, time.perf_counter() - began)
    return fastest * 1e3, found


def cycle(name: str, snapshot: Snapshot, times: int, *, letter: bool = False) -> tuple[float, list[Decision]]:
    nodes = prepare(snapshot)

    def run() -> list[Decision]:
        if letter:
            return decide_one_cycle(snapshot, 1000.0, fleet=nodes)
        return decide(snapshot, 1000.0, fleet=nodes)

    took, found = best(run, times)
    preempting = [d for d in found if d.victims]
    victims = sum(len(d.victims) for d in preempting)
    print(f"{name:64}{took:8.1f} ms   {len(preempting)} preempt, {victims} victims")
    return took, found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5, help="runs of each; the best counts")
    times = parser.parse_args().times
    took, found = cycle("200 pods, 1,000 nodes, 30 resources, one head", gang(), times, letter=True)
    assert found[0].victims
    held = took <= LIMIT_MS
    verdict = "holds" if held else "MISSED"
    print(f"{'':64}Kueue {KUEUE_MS:.0f} ms: {KUEUE_MS / took:.1f} times faster; limit {LIMIT_MS:.0f} ms {verdict}")
    cycle("the same, in production", gang(), times)
    cycle("one GPU taken back from 4,000 jobs", reclaim(1), times)
    cycle("4,000 GPUs taken back, as many as one cycle takes", reclaim(4000), times)
    cycle("1,000 queues whose heads all preempt", crowd(fair=False), 1)
    cycle("the same, sharing fairly", crowd(fair=True), 1)
    return 0 if held else 1


if __name__ == "__main__":
    raise SystemExit(main())
