"""Who holds what a workload waits for, and until when: running work is taken away in order of its predicted ends."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from glebe.scheduling.cycle.cycle import Admission
from glebe.scheduling.foresight.runtime import predicted_end
from glebe.scheduling.placement.placement import nominate
from glebe.scheduling.quotas.quota import Cell
from glebe.scheduling.world import Holding, Plan, State, World

MAX_RELEASES = 512  # that one run of explanations simulates on nodes


@dataclass(frozen=True, slots=True)
class Running:
    """A workload that holds something, with its predicted (P50) end."""

    end: float
    key: str
    queue: str
    root: int  # of its queue's quota tree, -1 if the queue is gone
    holding: Holding


@dataclass(frozen=True, slots=True)
class Release:
    """The queues whose running work must end, and when the last of it is predicted to."""

    queues: tuple[str, ...]
    end: float


def running(world: World, holdings: dict[str, Holding], new: list[Admission], now: float) -> list[Running]:
    """Everything that holds quota or nodes, ``new`` admissions included, by predicted end."""
    top = world.tree.top
    listed = []
    for a in world.snapshot.admitted:
        holding = holdings[a.key]
        root = top[holding.node] if holding.node >= 0 else -1
        end = predicted_end(a.started_at, a.run_time, now)
        listed.append(Running(end, a.key, a.queue, root, holding))
    for admission in new:
        p = admission.pending
        listed.append(Running(now + p.run_time.p50, p.key, p.queue, admission.line.root, admission.holding))
    return sorted(listed, key=lambda r: (r.end, r.key))


class Holders:
    """Answers for one state; what it works out for one queue or pod shape serves all workloads that share it."""

    def __init__(self, world: World, state: State, listed: list[Running]) -> None:
        self._world, self._state, self._running = world, state, listed
        self._curves: dict[tuple[int, Cell], tuple[list[int], list[Running]]] = {}
        self._nodes: dict[int, Release | None] = {}
        self._budget = MAX_RELEASES

    def quota(self, node: int, cell: Cell, amount: int) -> Release | None:
        """Until when a queue lacks ``amount`` of a cell; ``None`` if no end of running work gives it."""
        curve = self._curves.get((node, cell))
        if curve is None:
            curve = self._curves[node, cell] = self._curve(node, cell)
        available, released = curve
        last = bisect_left(available, amount)
        if last >= len(released):
            return None
        return Release(tuple(dict.fromkeys(r.queue for r in released[: last + 1])), released[last].end)

    def _curve(self, node: int, cell: Cell) -> tuple[list[int], list[Running]]:
        """What the queue may take after each end that matters to it: limits on the way up are heeded exactly."""
        quotas = self._state.quotas.copy()
        root = self._world.tree.top[node]
        available: list[int] = []
        released: list[Running] = []
        last = quotas.available(node, cell)
        for r in self._running:
            if r.root != root or not any(c == cell for c, _ in r.holding.need):
                continue
            quotas.remove(r.holding.node, r.holding.need)
            now = quotas.available(node, cell)
            if now > last:
                available.append(now)
                released.append(r)
                last = now
        return available, released

    def nodes(self, plan: Plan) -> tuple[Release | None, bool]:
        """Until when the nodes do not suffice; the flag is false if it was not worked out (too much running work)."""
        number = plan.ask_number if plan.ask_number >= 0 else -1 - id(plan)
        if number in self._nodes:
            return self._nodes[number], True
        state = State(self._world.pristine.quotas, self._state.nodes.copy())
        queues: dict[str, None] = {}
        for r in self._running:
            if not r.holding.taken:
                continue
            if self._budget <= 0:
                return None, False
            self._budget -= 1
            for shape, spots in r.holding.taken:
                state.nodes.give(shape, spots)
            queues[r.queue] = None
            if nominate(plan, state, self._world) is not None:
                self._nodes[number] = Release(tuple(queues), r.end)
                return self._nodes[number], True
        self._nodes[number] = None
        return None, True
