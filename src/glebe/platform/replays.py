"""``glebe simulate --trace``: traces, fleets and policies from files, replayed one against the other."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from glebe.kube.quantity import to_int
from glebe.node.fleet import load_fleet
from glebe.queueing.picture import fleetobjects, queueobjects
from glebe.scheduling.model import GPU, Backfill, ClusterQueue, Node, Snapshot, Taint, TopologyMode, TopologyRequest
from glebe.scheduling.replay.engine import Life, Oracle, Replay, Truth
from glebe.scheduling.replay.foretelling import Forecaster, Foretold
from glebe.scheduling.replay.learning import Declared, Learned
from glebe.scheduling.replay.scores import scores
from glebe.scheduling.replay.trace import Trace, TraceError, of, read_csv, read_swf
from glebe.scheduling.world import World

_KINDS = {
    "ClusterQueue": ("queues", queueobjects.cluster_queue),
    "Cohort": ("cohorts", queueobjects.cohort),
    "ResourceFlavor": ("flavors", fleetobjects.flavor),
    "Topology": ("topologies", fleetobjects.topology_levels),
}
_HOST = "kubernetes.io/hostname"


@dataclass(frozen=True, slots=True)
class Policy:
    """Queues and their quotas, and the ClusterQueue behind each LocalQueue's name."""

    name: str
    world: Snapshot
    doors: Mapping[str, str]

    @property
    def gpus(self) -> int:
        """The sum of nominal quotas."""
        groups = [g for q in self.world.queues for g in q.resource_groups]
        groups += [g for c in self.world.cohorts for g in c.resource_groups]
        return sum(f.quotas[GPU].nominal for g in groups for f in g.flavors if GPU in f.quotas)


@dataclass(slots=True)
class Outcome:
    """One replay: its scores, and what they were made of."""

    name: str
    scores: dict[str, Any]
    lives: list[Life]
    told: list[Foretold]
    gpus: int


def read_trace(path: Path, mapping: Mapping[str, str]) -> Trace:
    """``*.swf`` or CSV, each also gzipped.

    :raises TraceError: with the line that cannot be read.
    """
    data = path.read_bytes()
    text = gzip.decompress(data).decode() if data[:2] == b"\x1f\x8b" else data.decode()
    swf = path.name.removesuffix(".gz").endswith(".swf")
    return read_swf(io.StringIO(text)) if swf else read_csv(io.StringIO(text, newline=""), mapping)


def read_fleet(path: Path) -> tuple[Node, ...]:
    """The nodes of a fleet file, all ready and empty."""
    return tuple(
        Node(
            spec.name,
            {_HOST: spec.name, **spec.labels},
            {name: to_int(amount, name) for name, amount in spec.capacity.items()},
            tuple(Taint(t["key"], t.get("value", ""), t["effect"]) for t in spec.taints),
        )
        for spec in load_fleet(path).nodes
    )


def read_policy(path: Path) -> Policy:
    """ClusterQueues, Cohorts, ResourceFlavors, Topologies and LocalQueues of a YAML file; other kinds are passed over.

    :raises TraceError: for a file without a ClusterQueue.
    """
    parts: dict[str, list[Any]] = {name: [] for name, _ in _KINDS.values()}  # fields of the snapshot
    doors: dict[str, str] = {}
    for obj in yaml.safe_load_all(path.read_text()):
        kind = (obj or {}).get("kind", "")
        if kind in _KINDS:
            name, read = _KINDS[kind]
            parts[name].append(read(obj))
        elif kind == "LocalQueue":
            doors[obj["metadata"]["name"]] = obj["spec"]["clusterQueue"]
    if not parts["queues"]:
        raise TraceError(f"{path}: a policy needs a ClusterQueue")
    fields: dict[str, Any] = {name: tuple(items) for name, items in parts.items()}
    return Policy(path.stem, Snapshot(**fields), doors)


def replay(
    trace: Trace,
    policy: Policy,
    nodes: tuple[Node, ...] = (),
    *,
    name: str = "",
    run_times: str = "history",
    every: float | None = None,
) -> Outcome:
    """One trace under one policy on one fleet.

    :param run_times: what the engine knows of them: ``history``, ``limits`` (declared) or ``truth``.
    :param every: seconds between two forecasts, at least (None: 200 over the trace); only with ``history``.
    :raises TraceError: for jobs of a queue that the policy lacks, and for a policy that is not whole.
    """
    world = replace(policy.world, nodes=nodes)
    for queue, why in sorted(World(world).misconfigured.items()):
        raise TraceError(f"policy {policy.name}: queue {queue}: {why}; its flavors and topologies belong into the file")
    jobs = of((replace(j, queue=_queue(j.queue, policy)) for j in trace.jobs), trace.left_out).jobs
    oracle = _ORACLES[run_times]()
    placed = nodes and any(f.topology for f in world.flavors)
    request = TopologyRequest(TopologyMode.PREFERRED, world.topologies[0].levels[0]) if placed else None
    run = Replay(world, jobs, oracle, topology=request)
    watch = _Reserved()
    observers: list[Any] = [watch]
    forecaster = None
    if isinstance(oracle, Learned):
        span = jobs[-1].submitted - jobs[0].submitted if jobs else 0.0
        slurm = Declared() if any(j.limit for j in jobs) else None
        forecaster = Forecaster(oracle, every if every is not None else span / 200, slurm=slurm)
        observers.append(forecaster)
    run.run(observers)
    told = list(forecaster.told.values()) if forecaster else []
    gpus = sum(n.allocatable.get(GPU, 0) for n in nodes) or policy.gpus
    return Outcome(name or policy.name, scores(run.lives, gpus, told, len(watch.seen)), run.lives, told, gpus)


class _Reserved:
    """Who ever had a reserved start."""

    def __init__(self) -> None:
        self.seen: dict[str, None] = {}

    def step(self, replay: Replay, now: float, started: object) -> None:
        self.seen.update(dict.fromkeys(replay.course.reserved))


_ORACLES: dict[str, Callable[[], Oracle]] = {"history": Learned, "limits": Declared, "truth": Truth}


def _queue(name: str, policy: Policy) -> str:
    """The ClusterQueue of a trace's queue: by its own name, by a LocalQueue's, or the only one there is."""
    queues: dict[str, ClusterQueue] = {q.name: q for q in policy.world.queues}
    found = policy.doors.get(name, name)
    if found in queues:
        return found
    if len(queues) == 1:
        return next(iter(queues))
    raise TraceError(
        f"policy {policy.name} has no queue {name}: name a ClusterQueue or a LocalQueue so, "
        "or give all jobs one of its queues: --map queue==NAME"
    )


def with_backfill(policy: Policy, mode: Backfill) -> Policy:
    """The same policy with another backfill, to compare."""
    queues = tuple(replace(q, backfill=mode) for q in policy.world.queues)
    return Policy(f"{policy.name}-{mode.value.lower()}", replace(policy.world, queues=queues), policy.doors)


_HEADINGS = ("POLICY", "JOBS", "NEVER", "WAITED", "P50", "P90", "P99", "USE", "FAIRNESS", "P90 HELD", "P50 ERROR")


def table(outcomes: Iterable[Outcome]) -> list[tuple[str, ...]]:
    """A row per outcome, after a row of headings."""
    rows: list[tuple[str, ...]] = [_HEADINGS]
    for o in outcomes:
        s, f = o.scores, o.scores["forecast"]
        rows.append(
            (
                o.name,
                str(s["jobs"]),
                str(s["neverStarted"]),
                f"{s['waited']:.0%}",
                *(_time(s["wait"][p]) for p in ("p50", "p90", "p99")),
                f"{s['utilisation']:.0%}",
                f"{s['fairness']:.2f}",
                "-" if f["p90Held"] is None else f"{f['p90Held']:.0%}",
                "-" if f["medianError"] is None else _time(f["medianError"]),
            )
        )
    return rows


def _time(seconds: float) -> str:
    for size, unit in ((86_400.0, "d"), (3600.0, "h"), (60.0, "m")):
        if seconds >= size:
            return f"{seconds / size:.1f}{unit}"
    return f"{seconds:.0f}s"
