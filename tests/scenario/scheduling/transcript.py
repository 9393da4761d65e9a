"""Plain-text scheduling transcripts: a fleet, queues and a timeline, with what the core decided and forecast.

Lines that begin with ``>`` (decisions) and ``~`` (forecasts) are what the core said; all others are input or prose:

    nodes 2 blocks 2 racks 4 hosts 8 gpus [pool POOL]    hosts b1-r1-h1 ... (pool "gpu"), or POOL-b1-r1-h1 ...
    flavor NAME pool POOL [taint KEY=VALUE]
    cohort NAME [in PARENT] [FLAVOR=QUOTA ...]           QUOTA: nominal[:borrowingLimit[:lendingLimit]], - is no limit
    queue NAME [in COHORT] [strict] FLAVOR=QUOTA ...     also: within|reclaim|borrow POLICY, weight N, protected TIME
    fair                                                 quota is shared fairly
    at HH:MM                                             what follows happens then
    job NAME in QUEUE PODSxGPUS [required|preferred LEVEL] [slices LEVEL:PODS ...] [priority N] [pool POOL]
        for P50[..P90] [really TIME]                     (all in one line)
    ends JOB / down NODE / up NODE / fails NODE / stop QUEUE

After each ``at`` block one decision is taken; what is admitted starts, what is preempted is gone at the next ``at`` and
waits again. A node that fails is down, and those that run on it need another one; who is evicted waits again at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import groupby
from typing import Any

from glebe.scheduling import decide, forecast
from glebe.scheduling.model import (
    GPU,
    Admitted,
    ClusterQueue,
    Cohort,
    Decision,
    FairSharing,
    Flavor,
    FlavorQuotas,
    Node,
    Outcome,
    Pending,
    PodSet,
    Preemption,
    PreemptionPolicy,
    Quota,
    Reason,
    ResourceGroup,
    RunTime,
    Slice,
    Snapshot,
    Strategy,
    Taint,
    Topology,
    TopologyMode,
    TopologyRequest,
)

LEVELS = {"block": "topology.glebe.dev/block", "rack": "topology.glebe.dev/rack", "host": "kubernetes.io/hostname"}
TOPOLOGY = Topology("default", tuple(LEVELS.values()))
UNITS = {"s": 1, "m": 60, "h": 3600}


@dataclass
class Transcript:
    """Runs a transcript; ``play`` gives back the text with what the core really said."""

    snapshot: Snapshot = field(default_factory=lambda: Snapshot(topologies=(TOPOLOGY,)))
    now: float = 0.0
    lengths: dict[str, float] = field(default_factory=dict)  # of jobs that do not run for exactly their P50
    asked: dict[str, Pending] = field(default_factory=dict)
    output: list[str] = field(default_factory=list)

    def play(self, text: str) -> str:
        begun = False
        for line in text.splitlines():
            words = line.split()
            if words[:1] in ([">"], ["~"]):
                continue
            if begun and (not line.strip() or words[0] == "at"):
                while self.output and not self.output[-1].strip():
                    self.output.pop()
                self._settle()
                begun = False
            if line.startswith("  ") and words and not line.lstrip().startswith("#"):
                self._input(words[0], words[1:])
            elif words[:1] == ["at"]:
                hours, minutes = words[1].split(":")
                self.now = 3600.0 * int(hours) + 60.0 * int(minutes)
                self._finish()
                begun = True
                if self.output and self.output[-1].strip():
                    self.output.append("")
            self.output.append(line.rstrip())
        if begun:
            self._settle()
        return "\n".join(self.output).rstrip() + "\n"

    def _finish(self) -> None:
        """What has run its time has ended: its P50, unless ``really`` says otherwise. Victims wait again."""
        left = [a for a in self.snapshot.admitted if a.started_at + self.lengths.get(a.key, a.run_time.p50) > self.now]
        again = tuple(replace(self.asked[a.key], preempted_by=a.preempted_by) for a in left if a.evicted)
        staying = tuple(a for a in left if not a.evicted)
        self.snapshot = replace(self.snapshot, admitted=staying, pending=(*self.snapshot.pending, *again))

    def _settle(self) -> None:
        predicted = forecast(self.snapshot, self.now)
        waiting = {p.key: p for p in self.snapshot.pending}
        started = []
        running = {a.key: a for a in self.snapshot.admitted}
        for d in decide(self.snapshot, self.now):
            if d.key in running:
                self._moved(running[d.key], d, waiting)
            elif d.outcome is Outcome.ADMIT:
                p = waiting.pop(d.key)
                started.append(_started(p, d, self.now))
                self.output.append(f"  > {d.key} starts{_where(d.assignments[0].nodes)}")
            else:
                word = "waits" if d.outcome is Outcome.WAIT else "never starts"
                self.output.append(f"  > {d.key} {word}: {d.reason}: {d.message}")
                if d.remedy:
                    self.output.append(f"  >     to help: {d.remedy}")
                self._preempt(d)
                waiting[d.key] = replace(waiting[d.key], preempting=d.reason is Reason.WAITING_FOR_PREEMPTED)
        for f in predicted:
            if f.decision.outcome is Outcome.WAIT:
                blocked = f", after {', '.join(f.blockers)}" if f.blockers else ""
                self.output.append(
                    f"  ~ {f.key}: number {f.position} in its queue, {f.gpus_ahead} GPUs ahead, "
                    f"{_starts(f.start_p50, f.start_p90)}{blocked}"
                )
        admitted = (*self.snapshot.admitted, *started)
        self.snapshot = replace(self.snapshot, pending=tuple(waiting.values()), admitted=admitted)

    def _moved(self, a: Admitted, d: Decision, waiting: dict[str, Pending]) -> None:
        """Second look at a job that runs."""
        others = tuple(other for other in self.snapshot.admitted if other.key != a.key)
        if d.outcome is Outcome.ADMIT:
            self.output.append(f"  > {d.key}: {d.message}; it runs{_where(d.assignments[0].nodes)}")
            others = (*others, replace(a, assignments=d.assignments, unhealthy=(), second_pass=False))
        elif d.outcome is Outcome.EVICT:
            self.output.append(f"  > {d.key} leaves: {d.reason}: {d.message}")
            waiting[d.key] = self.asked[d.key]
        self.snapshot = replace(self.snapshot, admitted=others)

    def _preempt(self, d: Decision) -> None:
        leaving = {v.key: v for v in d.victims}
        if leaving:
            told = ", ".join(f"{v.key} ({v.reason})" for v in d.victims)
            self.output.append(f"  > {d.key} preempts {told}")
        admitted = tuple(
            replace(a, evicted=True, preempted_by=((d.key, self.now),)) if a.key in leaving else a
            for a in self.snapshot.admitted
        )
        self.snapshot = replace(self.snapshot, admitted=admitted)

    def _input(self, verb: str, words: list[str]) -> None:
        s = self.snapshot
        if verb == "nodes":
            s = replace(s, nodes=(*s.nodes, *_nodes(words)))
        elif verb == "flavor":
            taints = (Taint(*_after(words, "taint").split("=")),) if "taint" in words else ()
            s = replace(s, flavors=(*s.flavors, Flavor(words[0], {"pool": words[2]}, taints, (), "default")))
        elif verb == "cohort":
            s = replace(s, cohorts=(*s.cohorts, Cohort(words[0], _after(words, "in") or None, _groups(words))))
        elif verb == "queue":
            strategy = Strategy.STRICT_FIFO if "strict" in words else Strategy.BEST_EFFORT_FIFO
            queue = ClusterQueue(words[0], _groups(words), _after(words, "in") or None, strategy, **_sharing(words))
            s = replace(s, queues=(*s.queues, queue))
        elif verb == "fair":
            s = replace(s, fair_sharing=FairSharing())
        elif verb == "job":
            job = self.asked[words[0]] = _job(words, self.now, len(s.pending))
            s = replace(s, pending=(*s.pending, job))
            if "really" in words:
                self.lengths[words[0]] = _seconds(_after(words, "really"))
        elif verb == "ends":
            s = replace(s, admitted=tuple(a for a in s.admitted if a.key != words[0]))
        elif verb in ("down", "up", "fails"):
            if verb == "fails":
                s = replace(s, admitted=tuple(_without_node(a, words[0]) for a in s.admitted))
            s = replace(s, nodes=tuple(replace(n, ready=verb == "up") if n.name == words[0] else n for n in s.nodes))
        elif verb == "stop":
            s = replace(s, queues=tuple(replace(q, stopped=True) if q.name == words[0] else q for q in s.queues))
        else:
            raise ValueError(f"unknown line: {verb} {' '.join(words)}")
        self.snapshot = s


def _after(words: list[str], word: str) -> str:
    return words[words.index(word) + 1] if word in words else ""


def _sharing(words: list[str]) -> dict[str, Any]:
    """What a queue says of preemption and shares."""
    within, reclaim, borrow = (PreemptionPolicy(_after(words, w) or "Never") for w in ("within", "reclaim", "borrow"))
    return {
        "preemption": Preemption(within, reclaim, borrow),
        "weight": Fraction(_after(words, "weight") or 1),
        "min_run_time": _seconds(_after(words, "protected") or "0s"),
    }


def _without_node(a: Admitted, node: str) -> Admitted:
    if all(name != node for assigned in a.assignments for name, _ in assigned.nodes):
        return a
    return replace(a, unhealthy=(*a.unhealthy, node), second_pass=True)


def _started(p: Pending, d: Decision, now: float) -> Admitted:
    return Admitted(
        p.key,
        p.queue,
        p.priority,
        now,
        p.pod_sets,
        d.assignments,
        p.run_time,
        queued_at=p.queued_at,
        reserved_at=now,
        preempted_by=p.preempted_by,
    )


def _nodes(words: list[str]) -> list[Node]:
    blocks, racks, hosts, gpus = (int(words[i]) for i in (0, 2, 4, 6))
    pool = _after(words, "pool") or "gpu"
    prefix = "" if pool == "gpu" else f"{pool}-"
    result = []
    for b in range(1, blocks + 1):
        for r in range(1, racks + 1):
            for h in range(1, hosts + 1):
                place = (f"{prefix}b{b}", f"{prefix}b{b}-r{r}", f"{prefix}b{b}-r{r}-h{h}")
                labels = {**dict(zip(LEVELS.values(), place, strict=True)), "pool": pool}
                result.append(Node(place[2], labels, {GPU: gpus, "pods": 110}))
    return result


def _groups(words: list[str]) -> tuple[ResourceGroup, ...]:
    flavors = []
    for word in words:
        if "=" in word:
            name, _, text = word.partition("=")
            numbers: list[int | None] = [None if n == "-" else int(n) for n in text.split(":")]
            flavors.append(FlavorQuotas(name, {GPU: Quota(numbers[0] or 0, *numbers[1:])}))
    return (ResourceGroup((GPU,), tuple(flavors)),) if flavors else ()


def _job(words: list[str], now: float, sequence: int) -> Pending:
    name, queue = words[0], _after(words, "in")
    pods, _, gpus = next(w for w in words[1:] if w[0].isdigit() and "x" in w).partition("x")
    request = None
    for mode in TopologyMode:
        if mode.value in words:
            level = "" if mode is TopologyMode.UNCONSTRAINED else LEVELS[_after(words, mode.value)]
            slices = tuple(
                w.split(":") for w in words if w.partition(":")[0] in LEVELS and w.partition(":")[2].isdigit()
            )
            request = TopologyRequest(mode, level, tuple(Slice(LEVELS[name], int(size)) for name, size in slices))
    half, _, most = _after(words, "for").partition("..")
    selector = {"pool": _after(words, "pool")} if "pool" in words else {}
    pod_set = PodSet("main", int(pods), {GPU: int(gpus)}, node_selector=selector, topology=request)
    run_time = RunTime(_seconds(half), _seconds(most or half))
    return Pending(name, queue, int(_after(words, "priority") or 0), now + sequence / 1000, (pod_set,), run_time)


def _seconds(text: str) -> float:
    return float(text[:-1]) * UNITS[text[-1]]


def _time(at: float | None) -> str:
    return "?" if at is None else f"{int(at) // 3600:02}:{int(at) % 3600 // 60:02}"


def _starts(p50: float | None, p90: float | None) -> str:
    return "no start is predicted" if p50 is None else f"starts {_time(p50)} (P90 {_time(p90)})"


def _where(nodes: tuple[tuple[str, int], ...]) -> str:
    """Hosts by rack: ``on b1-r1: h1 h2; b1-r2: h1 (2 pods)``."""
    racks = []
    for rack, places in groupby(nodes, key=lambda place: place[0].rpartition("-")[0]):
        hosts = [name.rpartition("-")[2] + (f" ({pods} pods)" if pods > 1 else "") for name, pods in places]
        racks.append(f"{rack}: {' '.join(hosts)}")
    return f" on {'; '.join(racks)}" if racks else ""
