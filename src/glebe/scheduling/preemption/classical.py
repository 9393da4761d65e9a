"""Classical preemption: by priority within the queue, and taking quota back within the tree of cohorts.

Candidates of other queues are of two kinds. Over some, the preemptor has a *hierarchical advantage*: its request fits
into the quota of a subtree that they have left to borrow from; their priority counts only as ``reclaimWithinCohort``
says. From the others it may take without borrowing itself, or, with ``borrowWithinCohort``, while it borrows, if they
have a lower priority, not above the threshold. (Kueue KEP-1337, KEP-79.)
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from enum import Enum
from itertools import chain, pairwise
from typing import NamedTuple

from glebe.scheduling.model import ClusterQueue, Pending, Victim, VictimReason
from glebe.scheduling.policies import PreemptionPolicy
from glebe.scheduling.preemption.roster import Holder, Roster, may_take
from glebe.scheduling.preemption.trial import Target, Trial, Want
from glebe.scheduling.quotas.quota import Cell, Need, QuotaState
from glebe.scheduling.world import State, World


class Claim(Enum):
    """On what ground a holder may be preempted."""

    WITHIN_QUEUE = VictimReason.IN_CLUSTER_QUEUE
    HIERARCHY = "advantage"
    NOT_BORROWING = "only while the preemptor's queue does not borrow"
    WHILE_BORROWING = VictimReason.IN_COHORT_WHILE_BORROWING

    @property
    def reason(self) -> VictimReason:
        return self.value if isinstance(self.value, VictimReason) else VictimReason.IN_COHORT_RECLAMATION


class Candidate(NamedTuple):
    holder: Holder
    claim: Claim
    shared: int  # the lowest cohort above both queues; -1 within one queue


class Group(NamedTuple):
    """Candidates of one kind: those of some queues, each with the lowest cohort above it and the preemptor's queue."""

    roster: Roster
    shared: dict[int, int]
    policy: PreemptionPolicy
    claim: Callable[[Holder], Claim]

    def listed(self, want: Want, spared: Container[int] = ()) -> Iterator[Candidate]:
        """In the order in which they are tried; of ``spared`` queues nobody more."""
        if not self.shared:
            return iter(())
        policy, pending, short = self.policy, want.pending, want.short
        found = self.roster.in_turn(self.shared, lambda h: may_take(policy, pending, h) and h.uses(short), spared)
        return (Candidate(h, self.claim(h), self.shared[h.node]) for h in found)


class Candidates(NamedTuple):
    """Those over whom there is a hierarchical advantage, other queues' other ones, and the preemptor's queue's own."""

    advantage: Group
    by_priority: Group
    same: Group

    def listed(self, want: Want, spared: Container[int]) -> Iterator[Candidate]:
        """First those who are on their way out; in each part kind by kind."""
        rest: list[Iterator[Candidate]] = []
        for group in self:
            candidates = group.listed(want, spared)
            for candidate in candidates:
                if not candidate.holder.evicted:
                    rest.append(chain((candidate,), candidates))
                    break
                yield candidate
        for candidates in rest:
            yield from candidates


def within(quotas: QuotaState, node: int, cells: frozenset[Cell]) -> bool:
    """Does the node use no more than its own (subtree) quota of any of ``cells``?"""
    used, quota = quotas.usage[node], quotas.tree.subtree[node]
    for c in cells:  # noqa: SIM110 - a plain loop is faster, and this is asked very often
        if used[c] > quota[c]:
            return False
    return True


def classical(world: World, state: State, roster: Roster, want: Want) -> tuple[Victim, ...]:
    """Victims by classical preemption; the state is as before afterwards."""
    queue = world.queues[world.tree.names[want.node]]
    candidates = _candidates(queue, state.quotas, roster, want)
    trial = Trial(state, want)
    for borrowing in _attempts(queue, candidates, state.quotas, want):
        for candidate in _valid(candidates, state.quotas, want, borrowing):
            trial.remove(Target(candidate.holder, candidate.claim.reason))
            if trial.fits(borrowing):
                return trial.fill_back(borrowing)
        trial.restore()
    return ()


def _attempts(queue: ClusterQueue, candidates: Candidates, quotas: QuotaState, want: Want) -> tuple[bool, ...]:
    """Whether the preemptor's queue may borrow, attempt by attempt. Not borrowing allows for more victims."""
    forbidden = queue.preemption.borrow_within is PreemptionPolicy.NEVER
    used, nominal = quotas.usage[want.node], quotas.tree.nominal[want.node]
    if forbidden and any(nominal[c] <= used[c] for c in want.short):
        return (True,)
    advantage = next(candidates.advantage.listed(want), None) is not None
    if not advantage and next(candidates.by_priority.listed(want), None) is None:
        return (True,)
    return (False, True) if forbidden and not advantage else (True, False)


def _valid(candidates: Candidates, quotas: QuotaState, want: Want, borrowing: bool) -> Iterator[Candidate]:
    """Those who may be taken at their turn: of other queues only while their side borrows from the preemptor's."""
    sides: dict[int, tuple[int, ...]] = {}
    spared: set[int] = set()  # queues whose side borrows no more; it will not again, as use only falls
    for candidate in candidates.listed(want, spared):
        if candidate.claim is not Claim.WITHIN_QUEUE:
            node = candidate.holder.node
            if borrowing and candidate.claim is Claim.NOT_BORROWING:
                continue
            side = sides.get(node)
            if side is None:
                path = quotas.tree.paths[node]
                side = sides[node] = path[: path.index(candidate.shared)]
            if any(within(quotas, n, want.short) for n in side):
                spared.add(node)
                continue
        yield candidate


def _candidates(queue: ClusterQueue, quotas: QuotaState, roster: Roster, want: Want) -> Candidates:
    policy, own = queue.preemption, want.node
    same = {own: -1} if policy.within is not PreemptionPolicy.NEVER else {}
    advantage: dict[int, int] = {}
    others: dict[int, int] = {}
    if quotas.tree.parent[own] >= 0 and policy.reclaim is not PreemptionPolicy.NEVER:
        _in_tree(quotas, want, advantage, others)

    def borrowed(holder: Holder) -> Claim:
        important = _too_important(want.pending, holder, policy.max_priority)
        if policy.borrow_within is PreemptionPolicy.NEVER or important:
            return Claim.NOT_BORROWING
        return Claim.WHILE_BORROWING

    return Candidates(
        Group(roster, advantage, policy.reclaim, lambda _: Claim.HIERARCHY),
        Group(roster, others, policy.reclaim, borrowed),
        Group(roster, same, policy.within, lambda _: Claim.WITHIN_QUEUE),
    )


def _in_tree(quotas: QuotaState, want: Want, advantage: dict[int, int], others: dict[int, int]) -> None:
    """Queues that borrow what is short, subtree by subtree on the way up to the root."""
    path = quotas.tree.paths[want.node]
    ahead, rest = _fit_in_quota(quotas, want.node, want.need)
    for below, root in pairwise(path):
        (advantage if ahead else others).update(dict.fromkeys(_borrowers(quotas, root, below, want), root))
        fits, rest = _fit_in_quota(quotas, root, rest)
        ahead = ahead or fits


def _borrowers(quotas: QuotaState, cohort: int, skip: int, want: Want) -> Iterator[int]:
    """Queues below ``cohort`` that borrow what is short, through cohorts that do; ``skip`` has been seen."""
    tree = quotas.tree
    for child in tree.children[cohort]:
        if child in (skip, want.node) or within(quotas, child, want.short):
            continue
        if child < tree.cohorts:
            yield from _borrowers(quotas, child, skip, want)
        else:
            yield child


def _too_important(pending: Pending, holder: Holder, threshold: int | None) -> bool:
    return holder.priority >= pending.priority or (threshold is not None and holder.priority > threshold)


def _fit_in_quota(quotas: QuotaState, node: int, need: Need) -> tuple[bool, Need]:
    """Does ``need`` fit into the node's own (subtree) quota, and what of it counts in the node's parent?"""
    used, quota, kept = quotas.usage[node], quotas.tree.subtree[node], quotas.tree.guaranteed[node]
    fits = all(used[c] + amount <= quota[c] for c, amount in need)
    return fits, tuple((c, max(0, amount - max(0, kept[c] - used[c]))) for c, amount in need)
