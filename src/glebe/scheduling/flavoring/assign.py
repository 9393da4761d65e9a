"""Which flavors a workload gets, and how: it fits, or room must be made for it, or it cannot be.

Kueue's search, resource group by resource group (KEP-582 flavor fungibility, KEP-79 for borrowing levels): flavors in
order, judged on quota alone; the topology is looked at once the flavors stand. Pod sets of one topology group get the
same flavors. What preemption could do for one cell is asked of an oracle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from glebe.scheduling.flavoring.assigntable import GroupTable, Row, UnitTable, table_of
from glebe.scheduling.model import Fungibility, PreemptionPolicy, Preference, Reason, TryNext
from glebe.scheduling.placement.placement import Choice, Spots, place, total_need
from glebe.scheduling.placement.placing import NO_PREVIOUS, Previous
from glebe.scheduling.quotas.quota import Cell, Need, QuotaState
from glebe.scheduling.world import Plan, State, World

NOWHERE = 1 << 30  # a borrowing level above all


class Mode(IntEnum):
    """How a flavor, or all of a workload's, can be had; the worst counts."""

    NO_FIT = 0
    PREEMPT = 1  # others would have to leave
    DEFERRED_FIT = 2  # it fits once the preemptions of this cycle are through
    FIT = 3


class Standing(IntEnum):
    """``Mode`` of one cell, with what preemption could do."""

    NO_FIT = 0
    NO_CANDIDATES = 1
    PREEMPT = 2
    RECLAIM = 3  # all victims are in other queues
    FIT = 4


class Rank(NamedTuple):
    standing: Standing
    level: int  # of borrowing


Oracle = Callable[[Cell, int], Rank]  # (cell, amount): what preemption could do, and the borrowing level after it
Allowed = Callable[[int, str, str], bool]  # (pod set, resource, flavor)
MODES = (Mode.NO_FIT, Mode.PREEMPT, Mode.PREEMPT, Mode.PREEMPT, Mode.FIT)  # by standing
WORST, BEST = Rank(Standing.NO_FIT, NOWHERE), Rank(Standing.FIT, 0)
SEVERITY = {
    Reason.TOPOLOGY_PLACEMENT_FAILED: 1,
    Reason.WAITING_FOR_QUOTA: 2,
    Reason.EXCEEDS_MAX_QUOTA: 3,
    Reason.NO_MATCHING_FLAVOR: 4,
}


class Pick(NamedTuple):
    """``more``: flavors after the last one that was looked at are left."""

    flavor: str
    mode: Mode
    level: int
    more: bool = False


@dataclass(slots=True)
class Assignment:
    """``picks`` by pod set and resource. NO_FIT: no ``choice`` and no ``need``. ``spots``: if nodes are found."""

    plan: Plan
    mode: Mode
    picks: tuple[Mapping[str, Pick], ...] = ()
    level: int = 0  # of borrowing
    choice: Choice = ()
    need: Need = ()
    reason: Reason = Reason.WAITING_FOR_QUOTA  # with NO_FIT
    spots: Spots | None = None
    previous: Previous = field(default_factory=lambda: NO_PREVIOUS)  # nodes of the slice that it replaces

    def nodes(self, state: State, world: World) -> Spots | None:
        """Nodes for all of its pods on ``state``, which stays as it is; ``None`` if there are none."""
        return place(self.plan, self.choice, state, world, self.previous)

    def short(self, world: World) -> frozenset[Cell]:
        """The cells for which room must be made."""
        cells = world.tree.cells
        return frozenset(
            cells[pick.flavor, resource]
            for by_resource in self.picks
            for resource, pick in by_resource.items()
            if pick.mode is Mode.PREEMPT and (pick.flavor, resource) in cells
        )

    @property
    def unfinished(self) -> bool:
        """Were flavors left that have not been looked at?"""
        return any(p.more for by_resource in self.picks for p in by_resource.values())

    @property
    def placed(self) -> bool:
        """Does the core place any of its pods?"""
        return any(o.ask is not None for o in self.choice)


def assign(
    plan: Plan,
    state: State,
    world: World,
    oracle: Oracle,
    allowed: Allowed | None = None,
    previous: Previous = NO_PREVIOUS,
) -> Assignment:
    """Flavors for ``plan`` on ``state``, which stays as it is; only those that are ``allowed``, if that is given.

    ``previous``: the nodes of the slice that it replaces, which it keeps.
    """
    used: dict[Cell, int] = {}
    picks: list[dict[str, Pick]] = [{} for _ in plan.sets]
    for unit in table_of(plan, world):
        chosen = _unit(plan, unit, state.quotas, oracle, used, allowed)
        if isinstance(chosen, Reason):
            return Assignment(plan, Mode.NO_FIT, tuple(picks), reason=chosen)
        for i in unit.sets:
            picks[i] = {r: chosen[r] for r in plan.sets[i].usage if r in chosen}
        for group in unit.groups:
            for resource, cell, amount in _row(group, chosen).amounts:
                if resource in chosen and cell is not None:
                    used[cell] = used.get(cell, 0) + amount
    level = max((p.level for by_resource in picks for p in by_resource.values()), default=0)
    choice = _choice(plan, picks)
    if choice is None:
        return Assignment(plan, Mode.NO_FIT, tuple(picks), level, reason=Reason.NO_MATCHING_FLAVOR)
    mode = min((p.mode for by_resource in picks for p in by_resource.values()), default=Mode.FIT)
    need = tuple(sorted(used.items())) if len(plan.sets) > 1 else total_need(choice)
    found = Assignment(plan, mode, tuple(picks), level, choice, need, previous=previous)
    if found.placed:
        _on_nodes(found, state, world)
    return found


def _row(group: GroupTable, chosen: Mapping[str, Pick]) -> Row:
    flavor = chosen[group.resources[0]].flavor
    return next(row for row in group.rows if row.flavor == flavor)


def _on_nodes(found: Assignment, state: State, world: World) -> None:
    """Where its pods go. If they do not fit now, others would have to leave; if not even without others, never."""
    if found.mode is Mode.FIT:
        found.spots = found.nodes(state, world)
        if found.spots is not None:
            return
        found.mode = Mode.PREEMPT
    if found.nodes(world.idle, world) is None:
        found.mode, found.reason = Mode.NO_FIT, Reason.TOPOLOGY_PLACEMENT_FAILED
        return
    found.picks = tuple(
        {r: p._replace(mode=Mode.PREEMPT) for r, p in by_resource.items()} if option.ask is not None else by_resource
        for by_resource, option in zip(found.picks, found.choice, strict=True)
    )


def _choice(plan: Plan, picks: list[dict[str, Pick]]) -> Choice | None:
    choice = []
    for this, by_resource in zip(plan.sets, picks, strict=True):
        flavors = {r: p.flavor for r, p in by_resource.items()}
        option = next((o for o in this.options if o.flavors == flavors), None)
        if option is None:
            return None
        choice.append(option)
    return tuple(choice)


def _unit(
    plan: Plan, unit: UnitTable, quotas: QuotaState, oracle: Oracle, used: Mapping[Cell, int], allowed: Allowed | None
) -> dict[str, Pick] | Reason:
    """Flavors by resource for pod sets that go together, or why there are none."""
    if unit.uncovered:
        return Reason.NO_MATCHING_FLAVOR
    chosen: dict[str, Pick] = {}
    for group in unit.groups:
        found = _group(plan, unit, group, quotas, oracle, used, allowed)
        if isinstance(found, Reason):
            return found
        chosen.update(found)
    return chosen


def _group(
    plan: Plan,
    unit: UnitTable,
    group: GroupTable,
    quotas: QuotaState,
    oracle: Oracle,
    used: Mapping[Cell, int],
    allowed: Allowed | None,
) -> dict[str, Pick] | Reason:
    """One flavor for all resources of a resource group."""
    policy = plan.queue.fungibility
    best: dict[str, Pick] | None = None
    best_rank = WORST
    reason: Reason | None = None
    for at, row in enumerate(group.rows, start=1):
        if allowed is not None and not any(allowed(i, r, row.flavor) for i in unit.sets for r in group.resources):
            why: Reason | None = Reason.NO_MATCHING_FLAVOR
        elif row.refused:
            why = Reason.NO_MATCHING_FLAVOR
        else:
            rank, picks, why = _judge(plan, row, quotas, oracle, used)
            if not goes_on(rank, policy):
                more = at < len(group.rows)
                return {r: p._replace(more=more) for r, p in picks.items()} if more else picks
            if preferred(rank, best_rank, policy):
                best, best_rank = picks, rank
        if why is not None and (reason is None or SEVERITY[why] < SEVERITY[reason]):
            reason = why
    return best if best is not None else reason or Reason.NO_MATCHING_FLAVOR


def _judge(
    plan: Plan, row: Row, quotas: QuotaState, oracle: Oracle, used: Mapping[Cell, int]
) -> tuple[Rank, dict[str, Pick], Reason | None]:
    """How one flavor stands: as its worst resource does. The reason is given when it cannot be had at all."""
    worst, picks, policy = BEST, {}, plan.queue.fungibility
    for resource, cell, amount in row.amounts:
        if cell is None:
            if amount:
                return WORST, {}, Reason.EXCEEDS_MAX_QUOTA
            rank: Rank = BEST
            why: Reason | None = None
        else:
            rank, why = standing(plan, cell, used.get(cell, 0) + amount, quotas, oracle)
        if preferred(worst, rank, policy):
            worst = rank
        if worst.standing is Standing.NO_FIT:
            return worst, {}, why
        picks[resource] = Pick(row.flavor, MODES[rank.standing], rank.level)
    return worst, picks, None


def standing(plan: Plan, cell: Cell, amount: int, quotas: QuotaState, oracle: Oracle) -> tuple[Rank, Reason | None]:
    """How ``amount`` of one cell can be had; the reason if it cannot."""
    tree, node = quotas.tree, plan.node
    if amount > tree.potential(node, cell):
        return Rank(Standing.NO_FIT, 0), Reason.EXCEEDS_MAX_QUOTA
    level, below_root = reach(quotas, node, cell, amount)
    if amount <= quotas.available(node, cell):
        return Rank(Standing.FIT, level), None
    policy = plan.queue.preemption
    while_borrowing = policy.borrow_within is not PreemptionPolicy.NEVER or (
        plan.fair and policy.reclaim is not PreemptionPolicy.NEVER
    )
    if tree.nominal[node][cell] >= amount or below_root or while_borrowing:
        return oracle(cell, amount), None
    return Rank(Standing.NO_FIT, level), Reason.WAITING_FOR_QUOTA


def reach(quotas: QuotaState, node: int, cell: Cell, amount: int) -> tuple[int, bool]:
    """The borrowing level (as ``QuotaState.level``), and whether that subtree is smaller than the whole tree."""
    tree, usage = quotas.tree, quotas.usage
    for n in tree.paths[node]:
        used = usage[n][cell]
        if used + amount <= tree.subtree[n][cell]:
            return tree.height[n], tree.parent[n] >= 0
        amount -= max(0, tree.guaranteed[n][cell] - used)
    return tree.height[tree.root(node)], False


def goes_on(rank: Rank, policy: Fungibility) -> bool:
    """Is the next flavor looked at after one that stands like this?"""
    if rank.standing <= Standing.NO_CANDIDATES:
        return True
    if rank.standing is not Standing.FIT and policy.when_can_preempt is TryNext.NEXT:
        return True
    return rank.level > 0 and policy.when_can_borrow is TryNext.NEXT


def preferred(a: Rank, b: Rank, policy: Fungibility) -> bool:
    """Is ``a`` better than ``b``?"""
    if a.standing is Standing.NO_FIT:
        return False
    if b.standing is Standing.NO_FIT:
        return True
    if (a.standing is Standing.NO_CANDIDATES) is not (b.standing is Standing.NO_CANDIDATES):
        return b.standing is Standing.NO_CANDIDATES
    if policy.preference is Preference.PREEMPTION:
        return (a.level, -a.standing) < (b.level, -b.standing)
    return (-a.standing, a.level) < (-b.standing, b.level)
