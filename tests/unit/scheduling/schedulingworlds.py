"""Small worlds for the scheduling tests: builders, a hypothesis strategy, an independent account of what is used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from hypothesis import strategies as st

from glebe.scheduling.model import (
    GPU,
    Admitted,
    ClusterQueue,
    Cohort,
    Decision,
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
TOPOLOGY = Topology("default", (BLOCK, RACK, HOST))


def node(name: str, block: str, rack: str, gpus: int = 8, cpu: int = 64_000, **more: object) -> Node:
    labels = {BLOCK: block, RACK: rack, HOST: name, "pool": "gpu"}
    return Node(name, labels, {GPU: gpus, "cpu": cpu, "pods": 110}, **more)  # type: ignore[arg-type]


def queue(name: str, gpus: int, cohort: str | None = None, **more: object) -> ClusterQueue:
    """A queue with one flavor ``gpu``; keywords ``borrow`` and ``lend`` are limits in GPUs."""
    borrow, lend = more.pop("borrow", None), more.pop("lend", None)
    quota = Quota(gpus, borrow, lend)  # type: ignore[arg-type]
    groups = (ResourceGroup((GPU, "cpu"), (FlavorQuotas("gpu", {GPU: quota, "cpu": Quota(10**9)}),)),)
    return ClusterQueue(name, groups, cohort, **more)  # type: ignore[arg-type]


def pending(key: str, queue: str, pods: int, gpus: int, **more: object) -> Pending:
    """``pods`` pods of ``gpus`` GPUs; keywords: topology, priority, queued_at, p50, p90, cpu, selector, tolerations."""
    pod_set = PodSet(
        "main",
        pods,
        {GPU: gpus, "cpu": more.get("cpu", 1000)},  # type: ignore[dict-item]
        node_selector=more.get("selector", {}),  # type: ignore[arg-type]
        tolerations=more.get("tolerations", ()),  # type: ignore[arg-type]
        topology=more.get("topology"),  # type: ignore[arg-type]
    )
    p50 = more.get("p50", 100.0)
    run_time = RunTime(p50, more.get("p90", p50))  # type: ignore[arg-type]
    return Pending(key, queue, more.get("priority", 0), more.get("queued_at", 0.0), (pod_set,), run_time)  # type: ignore[arg-type]


def required(level: str) -> TopologyRequest:
    return TopologyRequest(TopologyMode.REQUIRED, level)


def preferred(level: str) -> TopologyRequest:
    return TopologyRequest(TopologyMode.PREFERRED, level)


UNCONSTRAINED = TopologyRequest(TopologyMode.UNCONSTRAINED)
GPU_FLAVOR = Flavor("gpu", {"pool": "gpu"}, topology="default")


def snapshot(
    nodes: Iterable[Node], queues: Iterable[ClusterQueue], work: Iterable[Pending], **more: object
) -> Snapshot:
    return Snapshot(
        nodes=tuple(nodes),
        topologies=(TOPOLOGY,),
        flavors=(GPU_FLAVOR,),
        queues=tuple(queues),
        pending=tuple(work),
        **more,  # type: ignore[arg-type]
    )


def start(snapshot: Snapshot, decisions: Iterable[Decision], now: float) -> Snapshot:
    """The snapshot after the admissions in ``decisions``: what the shell does with them."""
    waiting = {p.key: p for p in snapshot.pending}
    started = []
    for d in decisions:
        if d.outcome is Outcome.ADMIT:
            p = waiting.pop(d.key)
            started.append(Admitted(p.key, p.queue, p.priority, now, p.pod_sets, d.assignments, p.run_time))
    return replace(snapshot, pending=tuple(waiting.values()), admitted=(*snapshot.admitted, *started))


def node_use(snapshot: Snapshot) -> dict[str, dict[str, int]]:
    """What admitted workloads use of every node, counted pod by pod from their assignments."""
    use: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for a in snapshot.admitted:
        requests = {s.name: s.requests for s in a.pod_sets}
        for assignment in a.assignments:
            for name, pods in assignment.nodes:
                use[name]["pods"] += pods
                for resource, amount in requests[assignment.pod_set].items():
                    use[name][resource] += pods * amount
    return use


def quota_use(snapshot: Snapshot) -> dict[tuple[str, str, str], int]:
    """By (queue, flavor, resource), from the assignments."""
    use: dict[tuple[str, str, str], int] = defaultdict(int)
    for a in snapshot.admitted:
        for assignment in a.assignments:
            for resource, amount in assignment.usage.items():
                use[a.queue, assignment.flavors[resource], resource] += amount
    return use


@st.composite
def fleets(draw: st.DrawFn) -> tuple[Node, ...]:
    nodes = []
    for b in range(draw(st.integers(1, 3))):
        for r in range(draw(st.integers(1, 3))):
            for h in range(draw(st.integers(1, 4))):
                gpus = draw(st.sampled_from([4, 8, 8, 8]))
                ready = draw(st.integers(0, 9)) > 0
                other = {GPU: draw(st.integers(1, 2))} if draw(st.integers(0, 9)) == 0 else {}
                nodes.append(node(f"n{b}{r}{h}", f"b{b}", f"r{b}{r}", gpus, ready=ready, other_use=other))
    return tuple(nodes)


@st.composite
def quotas(draw: st.DrawFn, *, limits: bool = True) -> Quota:
    limit = st.none() | st.integers(0, 24) if limits else st.none()
    return Quota(draw(st.integers(0, 32)), draw(limit), draw(limit))


@st.composite
def worlds(draw: st.DrawFn, *, pods: int = 6, jobs: int = 14, odd: bool = True) -> Snapshot:
    """Random fleets, cohort trees with limits at every level, two flavors, and pending work of several kinds."""
    nodes = draw(fleets())
    cohorts = [Cohort("root", None, _groups(draw, own=True)), Cohort("sub", "root", _groups(draw, own=True))]
    strategies = st.sampled_from(list(Strategy))
    queues = [
        ClusterQueue(
            name,
            _groups(draw, own=False),
            draw(st.sampled_from(["root", "sub", "sub", "flat", None])),
            draw(strategies),
            draw(st.integers(0, 15)) == 0,
        )
        for name in ("qa", "qb", "qc", "qd")
    ]
    asks = st.sampled_from(
        [None, UNCONSTRAINED, required(BLOCK), required(RACK), required(HOST), preferred(RACK), preferred(HOST)]
    )
    kinds = draw(st.lists(st.tuples(st.integers(1, pods), st.sampled_from([1, 2, 4, 8]), asks), min_size=1, max_size=5))
    work = []
    for i in range(draw(st.integers(1, jobs))):
        sets = [draw(st.sampled_from(kinds))]
        if draw(st.integers(0, 5)) == 0:
            sets.append(draw(st.sampled_from(kinds)))
        name = draw(st.sampled_from(["qa", "qb", "qc", "qd"] + (["nowhere"] if odd else [])))
        seconds = float(draw(st.integers(1, 30)))
        pod_sets = tuple(PodSet(f"s{n}", c, {GPU: g, "cpu": 1000}, topology=t) for n, (c, g, t) in enumerate(sets))
        run_time = RunTime(seconds, seconds + draw(st.integers(0, 20)))
        work.append(
            Pending(f"w{i:02}", name, draw(st.integers(0, 2)), float(draw(st.integers(0, 5))), pod_sets, run_time)
        )
    flavors = (
        Flavor("gpu", {"pool": "gpu"}, topology="default"),
        Flavor("spare", {}, topology="default"),
    )
    return Snapshot(nodes, (TOPOLOGY,), flavors, tuple(queues), tuple(cohorts), (), tuple(work))


def _groups(draw: st.DrawFn, *, own: bool) -> tuple[ResourceGroup, ...]:
    if own and draw(st.booleans()):
        return ()
    both = draw(st.integers(0, 3)) == 0
    names = ("gpu", "spare") if both else ("gpu",)
    listed = tuple(FlavorQuotas(f, {GPU: draw(quotas()), "cpu": Quota(10**9)}) for f in names)
    return (ResourceGroup((GPU, "cpu"), listed),)
