"""No preemption that could be returned: whoever is preempted may not then preempt the preemptor.

Kueue's rules alone allow it in corners: several victims leave one queue so far below its quota that it may take the
room back, or a borrower by priority takes from a queue that reclaims from anybody. The two would drive each other out
for ever. Judged by quota, with the victim as it would be queued again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from glebe.scheduling.model import Pending, RunTime, Victim
from glebe.scheduling.policies import PreemptionPolicy
from glebe.scheduling.preemption.roster import Holder, Roster, may_take
from glebe.scheduling.preemption.trial import Want
from glebe.scheduling.quotas.quota import QuotaState
from glebe.scheduling.world import Holding, State, World

Search = Callable[[World, State, Roster, Want], tuple[Victim, ...]]
_ANY_TIME = RunTime(0.0, 0.0)


def returned(
    world: World, state: State, roster: Roster, want: Want, found: tuple[Victim, ...], search: Search
) -> frozenset[str]:
    """Keys of those among ``found`` who could preempt the preemptor once they are gone and it has started."""
    quotas = state.quotas
    others = [h for h in (roster.holder(v.key) for v in found) if h.node != want.node and _may_return(world, want, h)]
    if not others:
        return frozenset()
    gone = [roster.holding(v.key) for v in found]
    for holding in gone:
        quotas.remove(holding.node, holding.need)
    quotas.add(want.node, want.need)
    after = roster.without(v.key for v in found).with_holder(_started(want, roster.now))
    guilty = frozenset(_guilty(world, state, after, want, others, search))
    quotas.remove(want.node, want.need)
    for holding in gone:
        quotas.add(holding.node, holding.need)
    return guilty


def _may_return(world: World, want: Want, victim: Holder) -> bool:
    policy = world.queues[world.tree.names[victim.node]].preemption.reclaim
    return policy is not PreemptionPolicy.NEVER and may_take(policy, _again(victim), _started(want, 0.0))


def _guilty(
    world: World, state: State, roster: Roster, want: Want, victims: Iterable[Holder], search: Search
) -> Iterable[str]:
    asked: dict[object, bool] = {}  # equal victims of a queue have equal rights
    for victim in victims:
        kind = (victim.node, victim.holding.need, victim.priority, victim.queued_at)
        if kind not in asked:
            back = _want(state.quotas, victim)
            asked[kind] = _borrows(state.quotas, want.node, back.short) and any(
                v.key == want.pending.key for v in search(world, state, roster, back)
            )
        if asked[kind]:
            yield victim.key


def _borrows(quotas: QuotaState, node: int, cells: frozenset[int]) -> bool:
    """Does the queue, or a cohort above it, use more than its own of one of ``cells``?"""
    tree = quotas.tree
    return any(quotas.usage[n][c] > tree.subtree[n][c] for n in tree.paths[node] for c in cells)


def _want(quotas: QuotaState, victim: Holder) -> Want:
    short = frozenset(c for c, amount in victim.holding.need if amount > quotas.available(victim.node, c))
    return Want(_again(victim), victim.node, victim.holding.need, short)


def _again(victim: Holder) -> Pending:
    return Pending(victim.key, "", victim.priority, victim.queued_at, (), _ANY_TIME)


def _started(want: Want, now: float) -> Holder:
    p = want.pending
    holding = Holding(want.node, tuple((c, amount) for c, amount in want.need if amount), ())
    place = (True, p.priority, -now, 0.0, p.uid or p.key)
    cells = frozenset(cell for cell, _ in want.need)
    return Holder(p.key, want.node, holding, p.priority, p.queued_at, False, p.local_queue, place, cells)
