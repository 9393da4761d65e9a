"""``forecast``: when everything that waits will start, by running the admission cycle forward (see ``ahead``).

Exactness: with run times as predicted and no new arrivals, the starts are the ones that repeated ``decide`` calls give.
A class that did not fit is looked at again only after something that it could use was freed; this loses nothing,
since for a single pod set "does not fit" survives every further admission. Others are looked at after every end.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from glebe.scheduling.cycle.order import queue_key
from glebe.scheduling.decide import Plateau, decisions, settle
from glebe.scheduling.foresight.ahead import spans
from glebe.scheduling.foresight.holders import Running, running
from glebe.scheduling.model import GPU, Forecast, Outcome, Pending, Snapshot
from glebe.scheduling.placement.fleet import Fleet
from glebe.scheduling.quotas.quota import Cell
from glebe.scheduling.world import Plan, World


def forecast(
    snapshot: Snapshot,
    now: float,
    *,
    horizon: float | None = None,
    limit: int | None = None,
    fleet: Fleet | None = None,
) -> list[Forecast]:
    """One ``Forecast`` per pending workload, by queue and place in it.

    ``horizon``: seconds from ``now`` after which starts are no longer predicted (``None``: without end). ``limit``:
    only the first so many of every queue are returned.
    """
    plateau = settle(snapshot, fleet, now)
    today = {d.key: d for d in decisions(plateau, now)}
    until = now + horizon if horizon is not None else float("inf")
    blockers = _Blockers(plateau, now)
    plans = {p.key: g.plan for line in plateau.lines for p, g in zip(line.waiting, line.group_of, strict=True)}
    expected = spans(plateau, now, until)
    result = []
    for _, waiting in _by_queue(snapshot.pending):
        ahead = 0
        for position, pending in enumerate(waiting[:limit], start=1):
            start, late = expected[pending.key]
            decision = today[pending.key]
            plan = plans.get(pending.key)
            waits_for = blockers.before(start, plan) if plan and decision.outcome is Outcome.WAIT else ()
            reserved = plateau.reserved.get(pending.key)
            result.append(Forecast(pending.key, position, ahead, start, late, decision, waits_for, None, reserved))
            if decision.outcome is not Outcome.NEVER:  # nobody waits for what never starts
                ahead += gpus(pending)
    return result


def gpus(pending: Pending) -> int:
    return sum(s.count * s.requests.get(GPU, 0) for s in pending.pod_sets)


def _by_queue(pending: Iterable[Pending]) -> list[tuple[str, list[Pending]]]:
    by_queue: dict[str, list[Pending]] = {}
    for p in pending:
        by_queue.setdefault(p.queue, []).append(p)
    return [(name, sorted(by_queue[name], key=queue_key)) for name in sorted(by_queue)]


class _Blockers:
    """Which running workloads end before a given time, out of those that hold what a plan needs."""

    def __init__(self, plateau: Plateau, now: float) -> None:
        self._world: World = plateau.world
        self._running = running(plateau.world, plateau.holdings, plateau.admitted, now)
        self._relevant: dict[tuple[object, ...], tuple[list[float], tuple[str, ...]]] = {}
        self._by_plan: dict[int, tuple[list[float], tuple[str, ...]]] = {}
        self._prefixes: dict[tuple[int, int], tuple[str, ...]] = {}

    def before(self, start: float | None, plan: Plan) -> tuple[str, ...]:
        """Keys in the order of their predicted ends, up to ``start``."""
        found = self._by_plan.get(id(plan))
        if found is None:
            found = self._by_plan[id(plan)] = self._of(plan)
        ends, keys = found
        count = len(keys) if start is None else bisect_right(ends, start)
        prefix = self._prefixes.get((id(keys), count))
        if prefix is None:
            prefix = self._prefixes[id(keys), count] = keys[:count]
        return prefix

    def _of(self, plan: Plan) -> tuple[list[float], tuple[str, ...]]:
        options = [o for s in plan.sets for o in s.options]
        cells = frozenset(c for o in options for c, _ in o.need)
        kinds = frozenset(o.kind for o in options if o.ask is not None)
        root = self._world.tree.root(plan.node)
        key = (root, cells, kinds)
        found = self._relevant.get(key)
        if found is None:
            positions = [self._world.fleet.arrangement(kind).position_list for kind in kinds]
            mine = [r for r in self._running if _holds(r, root, cells, positions)]
            found = self._relevant[key] = [r.end for r in mine], tuple(r.key for r in mine)
        return found


def _holds(holder: Running, root: int, cells: frozenset[Cell], positions: list[list[int]]) -> bool:
    """Does it hold quota that could be lent to ``root``'s queues, or a node that they may use?"""
    if holder.root == root and any(cell in cells for cell, _ in holder.holding.need):
        return True
    return any(at[n] >= 0 for _, spots in holder.holding.taken for n, _ in spots for at in positions)
