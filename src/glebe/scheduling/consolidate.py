"""Consolidation: which running work to move, so that a workload starts that has the quota but finds no room.

A plan is good only if everybody whom it moves has another place by the same rules, with the blocked workload in the
room that they leave; if the work that is lost by starting anew stays within bounds; and if no part of it would do.
Only preemptible workloads that the core has placed are moved, none within the protected run time of its queue.
Pure: nothing is carried out here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from glebe.scheduling.cycle.order import Line, lines
from glebe.scheduling.model import GPU, Admitted, Pending, PodSet, Snapshot
from glebe.scheduling.placement.fleet import Fleet
from glebe.scheduling.placement.placement import Fit, find, holding, possible
from glebe.scheduling.world import Holding, Plan, World

HOST = "kubernetes.io/hostname"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a move may cost. ``lost``: seconds of work, times its GPUs, per predicted GPU second of who starts."""

    most_moves: int = 8
    lost: float = 0.5
    gpus: float = 2.0  # GPUs moved per GPU of who starts


@dataclass(frozen=True, slots=True)
class Move:
    """One workload goes from ``before`` to ``after`` (nodes, pods on each) and loses ``lost`` GPU seconds of work."""

    key: str
    queue: str
    gpus: int
    lost: float
    before: tuple[tuple[str, int], ...]
    after: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Consolidation:
    """``key`` starts on ``nodes`` once the moves are made."""

    key: str
    queue: str
    gpus: int
    nodes: tuple[tuple[str, int], ...]
    moves: tuple[Move, ...]

    @property
    def lost(self) -> float:
        """GPU seconds of work that are done again."""
        return sum(move.lost for move in self.moves)


def consolidations(
    snapshot: Snapshot, now: float, bounds: Bounds = Bounds(), *, most: int = 10, fleet: Fleet | None = None
) -> list[Consolidation]:
    """Plans for those who wait for nodes alone, in the order of their queues; each counts on those before it."""
    return _Planner(snapshot, now, bounds, fleet).plans(most)


class _Planner:
    def __init__(self, snapshot: Snapshot, now: float, bounds: Bounds, fleet: Fleet | None) -> None:
        self.snapshot, self.now, self.bounds = snapshot, now, bounds
        self.world = World(snapshot, fleet)
        self.state, self.holdings = self.world.state(snapshot.admitted)
        self._moved: set[str] = set()
        self._labels = [node.labels for node in self.world.fleet.nodes]

    def plans(self, most: int) -> list[Consolidation]:
        found: list[Consolidation] = []
        for line in lines(self.world, self.snapshot.pending):
            for pending, plan in _heads(line):
                if len(found) == most:
                    return found
                made = self._plan(pending, plan)
                if made is not None:
                    found.append(made)
                if line.strict:
                    break
        return found

    def _plan(self, pending: Pending, plan: Plan) -> Consolidation | None:
        """A plan for one workload; the state is then as it would be."""
        if not possible(plan, self.world) or find(plan, self.state, self.world) is not None:
            return None
        if not any(self.state.quotas.fits(plan.node, o.need) for s in plan.sets[:1] for o in s.options):
            return None  # it waits for quota: moving helps nobody
        best: tuple[float, list[Admitted]] | None = None
        for movable in self._choices(pending):
            chosen = self._fewest(pending, plan, movable)
            if chosen is not None and (best is None or self._cost(chosen) < best[0]):
                best = self._cost(chosen), chosen
        return None if best is None else self._carry_out(pending, plan, best[1])

    def _choices(self, pending: Pending) -> Iterator[list[Admitted]]:
        """Whom to consider, cheapest first: those within one domain as the workload asks for, then everybody."""
        everybody = sorted((a for a in self.snapshot.admitted if self._may_move(a)), key=self._order)
        asked = next((s.topology.level for s in pending.pod_sets if s.topology and s.topology.level), HOST)
        domains: dict[str, list[Admitted]] = {}
        for admitted in everybody:
            for domain in dict.fromkeys(self._labels[n].get(asked, "") for n in self._nodes(admitted.key)):
                domains.setdefault(domain, []).append(admitted)
        yield from domains.values()
        yield everybody

    def _may_move(self, admitted: Admitted) -> bool:
        queue = self.world.queues.get(admitted.queue)
        if queue is None or admitted.evicted or admitted.second_pass or not admitted.preemptible:
            return False
        old_enough = self.now - admitted.started_at >= queue.min_run_time
        return old_enough and admitted.key not in self._moved and bool(self._nodes(admitted.key))

    def _nodes(self, key: str) -> list[int]:
        return [n for _, spots in self.holdings[key].taken for n, _ in spots]

    def _order(self, admitted: Admitted) -> tuple[float, str]:
        return self._lost(admitted), admitted.key

    def _lost(self, admitted: Admitted) -> float:
        return max(0.0, self.now - admitted.started_at) * max(1, _gpus_of(admitted.pod_sets))

    def _cost(self, chosen: Iterable[Admitted]) -> float:
        return sum(self._lost(a) for a in chosen)

    def _fewest(self, pending: Pending, plan: Plan, movable: Sequence[Admitted]) -> list[Admitted] | None:
        """The first of ``movable`` that make room, without those of them who are not needed; all within bounds."""
        state, gone = self.state, list[Admitted]()
        for admitted in movable[: 4 * self.bounds.most_moves]:
            state.release(self.holdings[admitted.key])
            gone.append(admitted)
            if find(plan, state, self.world) is not None:
                break
        needed = list(gone)
        if find(plan, state, self.world) is None:
            needed = []
        for admitted in reversed(gone[:-1] if needed else []):
            state.hold(self.holdings[admitted.key])
            if find(plan, state, self.world) is None:
                state.release(self.holdings[admitted.key])
            else:
                needed.remove(admitted)
        found = bool(needed) and self._within(pending, needed) and self._settle(plan, needed) is not None
        for admitted in needed or gone:
            state.hold(self.holdings[admitted.key])
        return needed if found else None

    def _within(self, pending: Pending, chosen: list[Admitted]) -> bool:
        gpus = max(1, _gpus_of(pending.pod_sets))
        worth = gpus * max(1.0, pending.run_time.p50)
        moved = sum(_gpus_of(a.pod_sets) for a in chosen)
        bounds = self.bounds
        return (
            len(chosen) <= bounds.most_moves
            and self._cost(chosen) <= bounds.lost * worth
            and moved <= bounds.gpus * gpus
        )

    def _settle(self, plan: Plan, gone: list[Admitted]) -> list[tuple[Plan, Fit]] | None:
        """Places for the workload and for all who are ``gone``, the largest first; the state stays as it is."""
        held: list[Holding] = []
        places: list[tuple[Plan, Fit]] = []
        largest = sorted(gone, key=lambda a: (-_gpus_of(a.pod_sets), a.key))
        for each in (plan, *(self._plan_of(a) for a in largest)):
            fit = find(each, self.state, self.world)
            if fit is None:
                break
            places.append((each, fit))
            held.append(holding(each, fit))
            self.state.hold(held[-1])
        for one in held:
            self.state.release(one)
        if len(places) <= len(gone):
            return None
        by_key = dict(zip((a.key for a in largest), places[1:], strict=True))
        return [places[0], *(by_key[a.key] for a in gone)]

    def _plan_of(self, admitted: Admitted) -> Plan:
        return self.world.plan(self.world.queues[admitted.queue], admitted.pod_sets)

    def _carry_out(self, pending: Pending, plan: Plan, chosen: list[Admitted]) -> Consolidation:
        """On the state, so that the next plan counts on it."""
        before = {a.key: self._named(self.holdings[a.key].taken) for a in chosen}
        for admitted in chosen:
            self.state.release(self.holdings[admitted.key])
        places = self._settle(plan, chosen)
        assert places is not None  # as when it was chosen
        for (each, fit), key in zip(places, (pending.key, *(a.key for a in chosen)), strict=True):
            self.holdings[key] = holding(each, fit)
            self.state.hold(self.holdings[key])
            self._moved.add(key)
        moves = [
            Move(
                a.key,
                a.queue,
                _gpus_of(a.pod_sets),
                self._lost(a),
                before[a.key],
                self._named(self.holdings[a.key].taken),
            )
            for a in chosen
        ]
        nodes = self._named(self.holdings[pending.key].taken)
        return Consolidation(pending.key, pending.queue, _gpus_of(pending.pod_sets), nodes, tuple(moves))

    def _named(self, taken: Iterable[tuple[object, tuple[tuple[int, int], ...]]]) -> tuple[tuple[str, int], ...]:
        nodes = self.world.fleet.nodes
        return tuple((nodes[n].name, pods) for _, spots in taken for n, pods in spots)


def _heads(line: Line) -> Iterator[tuple[Pending, Plan]]:
    """The first of every class, in the order of the line."""
    for group in line.ordered():
        yield line.waiting[group.head], group.plan


def _gpus_of(pod_sets: Iterable[PodSet]) -> int:
    return sum(s.count * s.requests.get(GPU, 0) for s in pod_sets)
