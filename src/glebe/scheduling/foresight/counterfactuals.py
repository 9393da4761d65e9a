"""What would start one waiting workload sooner: each answer is the same forecast of a world with one thing changed.

Nothing is guessed: a change is named only if the engine, run forward with it, starts the workload sooner by more than a
reader cares about.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from glebe.scheduling.decide import settle
from glebe.scheduling.foresight.ahead import Same, run_ahead
from glebe.scheduling.model import (
    ClusterQueue,
    Counterfactual,
    Pending,
    PodSet,
    Snapshot,
    TopologyMode,
    TopologyRequest,
)
from glebe.scheduling.placement.fleet import Fleet

_LEAST = 60.0  # seconds sooner
_SHARE = 0.1  # of the wait
_HALVINGS = 3


def counterfactuals(snapshot: Snapshot, key: str, now: float, *, fleet: Fleet | None = None) -> list[Counterfactual]:
    """Changes that start the pending workload ``key`` sooner, the soonest first; empty if there are none.

    :raises KeyError: if no such workload is pending.
    """
    mine = {p.key: p for p in snapshot.pending}[key]
    today = _start(snapshot, key, now, fleet, 0.5)
    wait = math.inf if today is None else today - now
    found, told = [], set()
    for family, change, world in _changes(snapshot, mine):
        if family in told:
            continue  # the smallest change of its kind that helps is enough
        start = _start(world, key, now, fleet, 0.5)
        if start is None or wait - (start - now) < max(_LEAST, _SHARE * wait if wait < math.inf else 0.0):
            continue
        late = _start(world, key, now, fleet, 0.9)
        told.add(family)
        found.append(Counterfactual(change, start, None if late is None else max(start, late)))
    return sorted(found, key=lambda c: (c.start_p50, c.change))


def _start(snapshot: Snapshot, key: str, now: float, fleet: Fleet | None, level: float) -> float | None:
    return run_ahead(settle(snapshot, fleet, now), now, math.inf, Same(level)).get(key)


def _changes(snapshot: Snapshot, mine: Pending) -> Iterator[tuple[str, str, Snapshot]]:
    """(kind of change, in words, the world with it), smaller changes of a kind first."""
    for change, pod_sets in _fewer(mine.pod_sets):
        yield "size", change, _with(snapshot, replace(mine, pod_sets=pod_sets))
    for change, pod_sets in _looser(mine.pod_sets):
        yield "topology", change, _with(snapshot, replace(mine, pod_sets=pod_sets))
    if any(s.node_selector or s.affinity for s in mine.pod_sets):
        free = tuple(replace(s, node_selector={}, affinity=()) for s in mine.pod_sets)
        yield "flavor", "any flavor: without its node selector", _with(snapshot, replace(mine, pod_sets=free))
    if mine.flavors:
        yield "flavor", "any flavor of its queue", _with(snapshot, replace(mine, flavors=()))
    known = {p.priority for p in snapshot.pending} | {a.priority for a in snapshot.admitted}
    levels = sorted(n for n in known if n >= mine.priority)
    for level in dict.fromkeys([*(n for n in levels if n > mine.priority), (levels or [mine.priority])[-1] + 1]):
        yield "class", f"a class of priority {level}", _with(snapshot, replace(mine, priority=level))
    lifted = tuple(_borrowing(q) if q.name == mine.queue else q for q in snapshot.queues)
    if lifted != snapshot.queues:
        yield "borrowing", f"no borrowing limit in queue {mine.queue}", replace(snapshot, queues=lifted)


def _with(snapshot: Snapshot, changed: Pending) -> Snapshot:
    return replace(snapshot, pending=tuple(changed if p.key == changed.key else p for p in snapshot.pending))


def _fewer(pod_sets: tuple[PodSet, ...]) -> Iterator[tuple[str, tuple[PodSet, ...]]]:
    """Half as many pods of the largest pod set, a quarter, an eighth; of one pod, half the resources."""
    if not pod_sets:
        return
    at = max(range(len(pod_sets)), key=lambda i: pod_sets[i].count)
    whole = pod_sets[at]
    for n in range(1, _HALVINGS + 1):
        count = whole.count >> n
        if count >= 1:
            less = replace(whole, count=count, min_count=None)
            what = f"{count} instead of {whole.count} pods"
        else:
            divisor = 1 << n
            if whole.count > 1 or any(0 < v < divisor for v in whole.requests.values()):
                return
            less = replace(whole, requests={k: v // divisor for k, v in whole.requests.items()})
            what = f"1/{divisor} of the resources per pod"
        yield what, (*pod_sets[:at], less, *pod_sets[at + 1 :])


def _looser(pod_sets: tuple[PodSet, ...]) -> Iterator[tuple[str, tuple[PodSet, ...]]]:
    asks = [s.topology for s in pod_sets]
    if any(a is not None and a.mode is TopologyMode.REQUIRED for a in asks):
        yield (
            "its topology preferred instead of required",
            tuple(_loosened(s, TopologyMode.PREFERRED) for s in pod_sets),
        )
    if any(a is not None and (a.mode is not TopologyMode.UNCONSTRAINED or a.slices) for a in asks):
        yield "no topology request", tuple(_loosened(s, TopologyMode.UNCONSTRAINED) for s in pod_sets)


def _loosened(pods: PodSet, mode: TopologyMode) -> PodSet:
    ask = pods.topology
    if ask is None:
        return pods
    if mode is TopologyMode.PREFERRED:
        return replace(pods, topology=replace(ask, mode=mode) if ask.mode is TopologyMode.REQUIRED else ask)
    return replace(pods, topology=TopologyRequest(mode))


def _borrowing(queue: ClusterQueue) -> ClusterQueue:
    """The same without borrowing limits."""
    groups = tuple(
        replace(
            g,
            flavors=tuple(
                replace(f, quotas={name: replace(q, borrowing_limit=None) for name, q in f.quotas.items()})
                for f in g.flavors
            ),
        )
        for g in queue.resource_groups
    )
    return replace(queue, resource_groups=groups)
